"""Run files that ship, and the runs that lie in a store: read here, written by the trainer alone.

A run is a folder STORE/runs/NAME with run.json. One that cannot be read is listed as what it is, never left out.
"""

from __future__ import annotations

import importlib.resources
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.mistakes import ConfigError, suggest

FORMAT = "gristmill.run/1"
TRAINED = ("family", "form", "objective", "parameters", "tokens_per_second", "mfu")
EVALUATED = ("measure", "perplexity", "bits_per_byte", "split", "targets", "bytes", "split_bytes")


@dataclass(frozen=True)
class Run:
    """A run's folder and its run.json; `problem` says why there is none that can be read."""

    folder: Path
    table: dict[str, Any]
    problem: str | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def address(self) -> str:
        return str(self._inner("version").get("address", ""))

    @property
    def status(self) -> str:
        return self.problem or str(self.table.get("status", "unknown"))

    @property
    def bits_per_byte(self) -> float | None:
        value = self._inner("evaluation").get("bits_per_byte")
        return value if isinstance(value, float) else None

    @property
    def result(self) -> dict[str, Any]:
        """What a complete run is compared by; nothing of one that is not, or that an older trainer wrote."""
        trained, evaluation = self._inner("trained"), self._inner("evaluation")
        if self.status != "complete" or not trained:
            return {}
        parts = ((self.table, ("name", "tokens_read")), (trained, TRAINED), (evaluation, EVALUATED))
        return {name: part.get(name) for part, names in parts for name in names}

    def summary(self) -> dict[str, Any]:
        known = {name: self.table.get(name) for name in ("step", "steps", "evaluation")}
        place = {"name": self.name, "status": self.status, "version": self.address, "folder": str(self.folder)}
        return {**place, **known, "bits_per_byte": self.bits_per_byte, "result": self.result}

    def _inner(self, name: str) -> dict[str, Any]:
        found = self.table.get(name)
        return found if isinstance(found, dict) else {}


def of(root: Path) -> list[Run]:
    """Every run of the store at `root`, by name."""
    return [_read(path.parent) for path in sorted((root / "runs").glob("*/run.json")) if path.parent.name[0] != "."]


def find(root: Path, name: str) -> Path:
    """The folder of a run, by its name in the store at `root` or by its path. Raises ConfigError listing the runs."""
    for folder in (root / "runs" / name, Path(name)):
        if (folder / "run.json").is_file():
            return folder
    raise ConfigError(f"no run {name!r}{suggest(name, [run.name for run in of(root)])}")


def usable(root: Path, name: str) -> Path:
    """The folder of a trained model: a run by its name, or any folder by its path (a run, a checkpoint, a Hugging Face
    folder). Raises ConfigError listing the runs."""
    known = ("run.json", "state.json", "config.json")
    if any((Path(name).expanduser() / file).is_file() for file in known):
        return Path(name).expanduser()
    return find(root, name)


def _read(folder: Path) -> Run:
    try:
        table = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        return Run(folder, {}, f"unreadable: {error}")
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        return Run(folder, {}, f"not of format {FORMAT}")
    return Run(folder, table)


def available() -> list[str]:
    """Names of the run files that ship in `catalogs/runs`."""
    return sorted(path.stem for path in shipped().glob("*.toml"))


def shipped() -> Path:
    return Path(str(importlib.resources.files("catalogs") / "runs"))


def locate(name_or_path: str) -> Path:
    """The run file that a shipped name or a path means. Raises ConfigError where there is none."""
    if Path(name_or_path).suffix == ".toml":
        path = Path(name_or_path).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"{name_or_path}: no such run file")
        return path
    if name_or_path not in available():
        raise ConfigError(f"unknown run {name_or_path!r}{suggest(name_or_path, available())} (or give a .toml file)")
    return shipped() / f"{name_or_path}.toml"


def name_of(path: Path) -> str:
    """The name that a run file states; the rest of it is the trainer's to check. Raises ConfigError."""
    table = _file(path)
    if not isinstance(table.get("name"), str):
        raise ConfigError(f'{path}: no name; a run file begins with name = "..."')
    return str(table["name"])


def mixed(path: Path) -> list[str]:
    """The addresses of versions that a run file mixes, each once; those that it names by a path are left out."""
    parts = _file(path).get("mix", [])
    named = [part.get("version") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return sorted({name for name in named if isinstance(name, str) and not (path.parent / name).exists()})


def _file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
