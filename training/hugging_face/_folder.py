"""Read a Hugging Face folder: its config.json and its weights, as safetensors alone, in one file or in shards.

No pickle is opened: reading one runs whatever code it holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from training import TrainingError
from training.checkpoint import read_tensors
from training.manifest import digest, file_digest

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object. Raises TrainingError."""
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    if not isinstance(table, dict):
        raise TrainingError(f"{path}: not a table")
    return table


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights. Raises TrainingError where there are none, or one is missing."""
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(_index(folder).values()))]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise TrainingError(
            f"{folder}: holds its weights as a pickle ({pickles[0]}), which runs code when it is read; "
            f"save them with save_pretrained(..., safe_serialization=True)"
        )
    raise TrainingError(f"{folder}: no weights here, neither {WHOLE} nor {INDEX}")


def weights_digest(folder: Path) -> str:
    """32 hexadecimal characters over the bytes of all weight files."""
    return digest({path.name: file_digest(path) for path in weight_files(folder)})


def tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors by their names there. Raises TrainingError where shards and index differ."""
    files = weight_files(folder)
    if files == [folder / WHOLE]:
        return read_tensors(files[0])
    index = _index(folder)
    found: dict[str, Tensor] = {}
    for path in files:
        shard = read_tensors(path)
        if wrong := sorted(shard.keys() ^ {name for name, file in index.items() if file == path.name}):
            raise TrainingError(f"{path}: {wrong[0]!r} is in the shard or in {INDEX}, not in both")
        found |= shard
    return found


def _index(folder: Path) -> dict[str, str]:
    """File of each tensor."""
    place = folder / INDEX
    files = read_table(place).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise TrainingError(f"{place}: no 'weight_map'")
    for file in files.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise TrainingError(f"{place}: {file!r} is no name of a safetensors file in this folder")
        if not (folder / file).is_file():
            raise TrainingError(f"{folder / file}: missing, though {INDEX} lists it; copy the folder again")
    return files
