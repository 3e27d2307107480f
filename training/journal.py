"""What a run writes down: run.json says what it is and how far it came, metrics.jsonl holds a line a step.

A run's folder is its name: `NAME-` and eight characters of its identity, so the same run file and version
meet there again and go on, and another run never lands on top of it. The law: no line of metrics.jsonl
belongs to a step that the checkpoints do not lead to, and none stands twice.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import TrainingError, machine
from training.config import Run
from training.files import write_text
from training.manifest import Version, open_version
from training.tables import check

if TYPE_CHECKING:  # torch is not loaded to read a run
    from training.parallel import Group

FORMAT = "gristmill.run/1"


@dataclass
class Journal:
    """The books of one run."""

    folder: Path
    table: dict[str, Any] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def complete(self) -> bool:
        return self.table.get("status") == "complete"

    def write(self, **changes: Any) -> None:
        """Change run.json, whole."""
        self.table |= changes
        write_text(self.folder / "run.json", json.dumps(self.table, sort_keys=True, indent=1) + "\n")

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl of one kind: `step` or `validation`."""
        if not self.metrics.exists():
            return []
        lines = [json.loads(line) for line in self.metrics.read_text("utf-8").splitlines()]
        return [line for line in lines if line["kind"] == kind]

    def add(self, kind: str, **values: Any) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")

    def cut(self, step: int) -> None:
        """Forget what was written down after `step`: the run goes on from its checkpoint."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text("utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line under way when the run was killed
                continue
            if entry["step"] <= step:
                kept.append(line + "\n")
        write_text(self.metrics, "".join(kept))


def start(runs: Path, run: Run, version: Version, name: str | None, group: Group) -> Journal:
    """The journal of a run: a new one, or the one that it left. Raises TrainingError where the name is taken.

    The first rank writes it while the others wait.
    """
    if group.first:
        _open(runs, run, version, name, group.world)
    group.wait()
    folder = _folder(runs, run, version, name)
    return Journal(folder, _table(folder / "run.json"))


def _folder(runs: Path, run: Run, version: Version, name: str | None) -> Path:
    return runs / (name or f"{run.name}-{run.identity(version.manifest.version)[:8]}")


def _open(runs: Path, run: Run, version: Version, name: str | None, processes: int) -> None:
    identity = run.identity(version.manifest.version)
    folder = _folder(runs, run, version, name)
    path = folder / "run.json"
    if path.exists():
        journal = Journal(folder, _table(path))
        if journal.table["digest"] == identity:
            if not journal.complete:
                journal.write(**_circumstances(run, version, folder, processes), status="running")
            return
        # One that was refused before its first step is nobody's.
        if journal.metrics.exists() or journal.checkpoints.exists():
            raise TrainingError(
                f"{folder}: holds another run ({_difference(journal.table, run, version)}); give --name, or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    journal.write(
        format=FORMAT,
        name=folder.name,
        digest=identity,
        status="running",
        step=0,
        steps=run.schedule.steps,
        resumed_at=[],
        evaluation=None,
        **_circumstances(run, version, folder, processes),
    )


def _circumstances(run: Run, version: Version, folder: Path, processes: int) -> dict[str, Any]:
    """What may change between two starts of the same run."""
    return {
        "version": _where(version, folder),
        "beside": [_where(other, folder) for other in version.beside],
        "config": run.model_dump(mode="json"),
        "processes": processes,
        "hardware": machine.hardware(),
        "packages": machine.packages(),
        "code": machine.code(),
    }


def _where(version: Version, folder: Path) -> dict[str, str]:
    manifest = os.path.relpath((version.folder / "manifest.json").absolute(), folder.absolute())
    return {"address": version.address, "manifest": manifest, "sha256": version.sha256}


def _table(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    if table.get("format") != FORMAT:
        raise TrainingError(f"{path}: format {table.get('format')!r} is not known; this trainer reads {FORMAT!r}")
    return table


def _difference(table: dict[str, Any], run: Run, version: Version) -> str:
    """Where the run that stands differs from the one that was asked for, in words."""
    if table["version"]["address"] != version.address:
        return f"it read {table['version']['address']}, not {version.address}"
    old, new = _flat(table["config"]), _flat(run.model_dump(mode="json"))
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key != "name")
    return ", ".join(f"{key} {old.get(key)!r}, not {new.get(key)!r}" for key in differing[:3]) or "other settings"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def read(folder: Path, *, verify: bool = True) -> tuple[Journal, Run, Version]:
    """A run that stands: its journal, its run file and the version that it read. Raises TrainingError."""
    path = folder / "run.json"
    if not path.is_file():
        raise TrainingError(f"{folder}: no run here (no run.json)")
    journal = Journal(folder, _table(path))
    run = check(Run, journal.table["config"], f"{path} config")
    version, *others = (
        open_version(folder / found["manifest"], verify=verify)
        for found in [journal.table["version"], *journal.table.get("beside", [])]
    )
    return journal, run, version.with_others(others)
