"""Checkpoints: every tensor of a run in shards that its processes write together; whole, or not there.

    step-00000500/shard-00001-model-00001-of-00001.safetensors  shard-00002-...  state.json

torch.distributed.checkpoint plans who writes what and puts it together again for any number of processes, with or
without sharded weights. Its own files are not used: it keeps their table of contents in a pickle, and no pickle is
ever written to disk or read from it. Its safetensors storage needs none: each file says in a JSON header what it holds
and where that begins in the whole tensor.

A save copies the state and returns; a thread writes it into a temporary folder, syncs and renames, and only then does
an older one go. What went wrong there is raised by the next question. `state.json`, written last, holds the digests of
all files, the step, and the hash chain over what was read: a resume recomputes that and refuses on a mismatch.
"""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from training import TrainingError
from training.config import Checkpoint
from training.files import sync, write_text
from training.manifest import file_digest
from training.optim import Optimizer
from training.parallel import Group
from training.sharded import is_sharded

FORMAT = "gristmill.checkpoint/2"
# One process needs no torch.distributed, and is told so at every save.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class Writer:
    """Writes the checkpoints of one run, one at a time; every rank has one and calls it at the same steps."""

    def __init__(self, folder: Path, settings: Checkpoint, group: Group) -> None:
        self.folder, self.settings, self.group = folder, settings, group
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step = 0
        if group.first:
            for left in folder.glob(".step-*"):  # what a killed run was writing
                shutil.rmtree(left)

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Copy the state after `step` steps and write it while training goes on. Raises TrainingError.

        `state` goes into state.json, from the first rank; `validation_loss` there decides which is the best.
        """
        self.finish()
        tensors = {name: self._copy(tensor) for name, tensor in _named(model, optimizer).items()}
        self._step = step
        self._thread = threading.Thread(target=self._run, args=(tensors, dict(state)), daemon=True)
        self._thread.start()

    def check(self) -> int | None:
        """The step of a checkpoint that became whole since the last question. Raises TrainingError where it failed."""
        return None if self._thread is None or self._thread.is_alive() else self.finish()

    def finish(self) -> int | None:
        """As `check`, after waiting for the write under way."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise TrainingError(
                f"{self.folder}: the checkpoint of step {self._step} could not be written "
                f"({' '.join(str(error).split())[-300:]}); the one before it stays"
            ) from error
        return self._step

    def _copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, or this process's rows of it, in memory of its own."""
        if not is_sharded(tensor):
            return tensor.detach().to("cpu", copy=True).contiguous()
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor

        mesh = init_device_mesh("cpu", (self.group.world,))
        rows = tensor.to_local().detach().to("cpu", copy=True).contiguous()
        copied: DTensor = DTensor.from_local(
            rows, mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
        )
        return copied

    def _run(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        try:
            self._write(tensors, state)
        except BaseException as error:  # torch's CheckpointException is no Exception
            self._error = error

    def _write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        from torch.distributed import checkpoint as distributed

        final = self.folder / f"step-{self._step:08d}"
        temporary = self.folder / f".{final.name}"
        storage = distributed.HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        distributed.save(tensors, storage_writer=storage, process_group=self.group.writers)
        digests = self._digests(temporary)
        if not self.group.first:
            return
        table = {"format": FORMAT, "step": self._step, "files": digests, **state}
        write_text(temporary / "state.json", json.dumps(table, sort_keys=True, indent=1) + "\n")
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(self.folder, deep=False)
        self._remove_old()

    def _digests(self, folder: Path) -> dict[str, str]:
        """Digest of every file; each rank reads the one that it wrote."""
        mine = {path.name: file_digest(path) for path in folder.glob(f"shard-{self.group.rank + 1:05d}-*")}
        everyones: list[dict[str, str]] = [mine] * self.group.world
        if self.group.world > 1:
            torch.distributed.all_gather_object(everyones, mine, group=self.group.writers)
        return {name: digest for some in everyones for name, digest in some.items()}

    def _remove_old(self) -> None:
        found = steps(self.folder)
        kept = set(found[-self.settings.keep :])
        if self.settings.keep_best:
            losses = {
                path: json.loads((path / "state.json").read_text("utf-8")).get("validation_loss") for path in found
            }
            scored = [(loss, path) for path, loss in losses.items() if loss is not None]
            kept |= {min(scored)[1]} if scored else set()
        for old in set(found) - kept:
            shutil.rmtree(old)


def steps(folder: Path) -> list[Path]:
    """Finished checkpoints, the oldest first."""
    return sorted(path.parent for path in folder.glob("step-*/state.json"))


def read_state(checkpoint: Path, *, verify: bool = True) -> dict[str, Any]:
    """state.json; with `verify`, after the files beside it are those that it names, by digest. Raises TrainingError."""
    path = checkpoint / "state.json"
    try:
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}); remove {checkpoint}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else state
        raise TrainingError(f"{checkpoint}: format {found!r} is not known; this trainer reads {FORMAT!r}")
    if not verify:
        return state
    if strange := sorted({file.name for file in checkpoint.iterdir()} - {"state.json", *state["files"]}):
        raise TrainingError(f"{checkpoint / strange[0]}: is no part of the checkpoint; remove it")
    for name, said in state["files"].items():
        path = checkpoint / name
        if not path.is_file() or file_digest(path) != said:
            raise TrainingError(f"{path}: missing or altered; remove {checkpoint} to go on from the one before")
    return state


def load_weights(checkpoint: Path, model: nn.Module, group: Group | None = None) -> None:
    """Fill the model's parameters, sharded or not. Raises TrainingError where names or shapes differ."""
    wanted = weights(model)
    found = {name.removeprefix("model/"): entry for name, entry in contents(checkpoint).items() if _of_model(name)}
    _agree(wanted, {name: shape for name, (shape, _) in found.items()}, str(checkpoint))
    read(checkpoint, {f"model/{name}": parameter.detach() for name, parameter in wanted.items()}, group)


def read_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The parameters of the model that was trained there, on the CPU."""
    blank = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in contents(checkpoint).items()}
    blank = {name: tensor for name, tensor in blank.items() if _of_model(name)}
    read(checkpoint, blank)
    return {name.removeprefix("model/"): tensor for name, tensor in blank.items()}


def _of_model(name: str) -> bool:
    return name.startswith("model/")


def load_optimizer(checkpoint: Path, optimizer: Optimizer, group: Group | None = None) -> None:
    """Take up the optimiser's state. Raises TrainingError where it belongs to another run."""
    blank = {
        name: optimizer.blank(name.removeprefix("optimizer/"), shape, dtype)
        for name, (shape, dtype) in contents(checkpoint).items()
        if name.startswith("optimizer/")
    }
    read(checkpoint, blank, group)
    optimizer.restore({name.removeprefix("optimizer/"): tensor for name, tensor in blank.items()})


def load_average(checkpoint: Path, model: nn.Module) -> None:
    """Put the averages of a model's weights in their place; what was frozen has none."""
    named = {f"optimizer/average/{name}/weight": parameter.detach() for name, parameter in weights(model).items()}
    there = contents(checkpoint)
    read(checkpoint, {name: tensor for name, tensor in named.items() if name in there})


def contents(checkpoint: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of every whole tensor: 'model/PARAMETER' and 'optimizer/KIND/PARAMETER/WHAT'."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    try:
        table: Any = HuggingFaceStorageReader(str(checkpoint)).read_metadata().state_dict_metadata
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise TrainingError(f"{checkpoint}: a file is not safetensors that can be read ({error}); remove it") from error
    return {name: (entry.size, entry.properties.dtype) for name, entry in table.items()}


def read(checkpoint: Path, tensors: dict[str, torch.Tensor], group: Group | None = None) -> None:
    """Fill these tensors, by their names in `contents`; every rank of the group takes part."""
    from torch.distributed import checkpoint as distributed

    if tensors:
        storage = distributed.HuggingFaceStorageReader(str(checkpoint))
        distributed.load(tensors, storage_reader=storage, process_group=group.writers if group else None)


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
    _agree(parameters, {name: tensor.shape for name, tensor in tensors.items()}, where)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _agree(parameters: Mapping[str, nn.Parameter], shapes: Mapping[str, torch.Size], where: str) -> None:
    """Raise TrainingError where names or shapes differ."""
    if differing := sorted(set(shapes) ^ set(parameters)):
        raise TrainingError(f"{where}: {differing[0]!r} is on one side only: the checkpoint is of another model")
    for name, parameter in parameters.items():
        if shapes[name] != parameter.shape:
            raise TrainingError(
                f"{where}: {name!r} is {list(shapes[name])}, the model's is {list(parameter.shape)}: the checkpoint "
                "is of another model"
            )


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter once, by name: tied ones are not repeated."""
    return dict(model.named_parameters())


def _named(model: nn.Module, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Every parameter once and every tensor of the optimiser."""
    found = {f"model/{name}": parameter for name, parameter in weights(model).items()}
    return found | {f"optimizer/{name}": tensor for name, tensor in optimizer.state().items()}
