"""Checkpoints: weights and optimiser as safetensors, the rest as JSON; whole, or not there.

    step-00000500/model.safetensors  optimizer.safetensors  state.json

A checkpoint is written into a temporary folder, synced and renamed before an older one goes. No pickle is
ever written or read. `state.json` holds the digests of the two files, the step, and the hash chain over what
was read: a resume recomputes that and refuses on a mismatch.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from training import TrainingError
from training.files import sync, write_text
from training.manifest import file_digest
from training.optim import Optimizer

FORMAT = "gristmill.checkpoint/1"
FILES = ("model.safetensors", "optimizer.safetensors")


def save(folder: Path, step: int, model: nn.Module, optimizer: Optimizer, state: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of `step` (steps done), then remove all but the newest `keep`. Returns its folder."""
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        for name, tensors in zip(FILES, (weights(model), optimizer.state()), strict=True):
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary / name)
        digests = {name: file_digest(temporary / name) for name in FILES}
        table = {"format": FORMAT, "step": step, "files": digests, **state}
        write_text(temporary / "state.json", json.dumps(table, sort_keys=True, indent=1) + "\n")
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(folder, deep=False)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in steps(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter once, by name: tied ones are not repeated."""
    return dict(model.named_parameters())


def steps(folder: Path) -> list[Path]:
    """Finished checkpoints, the oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/state.json"))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """state.json, after the two files beside it have the digests that it states. Raises TrainingError."""
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{checkpoint / 'state.json'}: cannot be read ({error}); remove {checkpoint}") from error
    if state.get("format") != FORMAT:
        raise TrainingError(f"{checkpoint}: format {state.get('format')!r} is not known; this trainer reads {FORMAT!r}")
    for name, said in state["files"].items():
        path = checkpoint / name
        if not path.is_file() or file_digest(path) != said:
            raise TrainingError(f"{path}: missing or altered; remove {checkpoint} to go on from the one before")
    return state


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Fill the model's parameters. Raises TrainingError where names or shapes differ."""
    path = checkpoint / "model.safetensors"
    fill(model, read_tensors(path), str(path))


def load_optimizer(checkpoint: Path, optimizer: Optimizer) -> None:
    """Take up the optimiser's state. Raises TrainingError where it belongs to another run."""
    optimizer.restore(read_tensors(checkpoint / "optimizer.safetensors"))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises TrainingError."""
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: not a safetensors file that can be read ({error})") from error
    return found


def fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Give every parameter the tensor of its name. Raises TrainingError where names or shapes differ."""
    parameters = weights(model)
    if differing := sorted(set(tensors) ^ set(parameters)):
        raise TrainingError(f"{where}: {differing[0]!r} is on one side only: the checkpoint is of another model")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if tensors[name].shape != parameter.shape:
                raise TrainingError(
                    f"{where}: {name!r} is {list(tensors[name].shape)}, the model's is {list(parameter.shape)}"
                )
            parameter.copy_(tensors[name])
