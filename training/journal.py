"""What a run writes down: run.json says what it is and how far it came, metrics.jsonl holds a line a step.

A run's folder is its name: `NAME-` and eight characters of its identity, so the same run file and version
meet there again and go on, and another run never lands on top of it. The law: no line of metrics.jsonl
belongs to a step that the checkpoints do not lead to, and none stands twice. What run.json holds is stated by
`catalogs/schemas/run.schema.json`; its clocks and machines are in no digest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import OutOfMemory, TrainingError, machine, tensorboard
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
    tokens: int = 0  # read by the steps that are written down
    log: tensorboard.Log | None = None

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
        """Change run.json, whole; the start under way says how far it came, and when it was last heard of."""
        self.table |= changes
        if self.table.get("starts"):
            self._go_on(self.table["starts"][-1])
        write_text(self.folder / "run.json", json.dumps(self.table, sort_keys=True, indent=1) + "\n")

    def note(self, **changes: Any) -> None:
        """Change run.json of a run that is over, whatever says when it was under way."""
        self.table |= changes
        write_text(self.folder / "run.json", json.dumps(self.table, sort_keys=True, indent=1) + "\n")

    def _go_on(self, start: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        start["seconds"] = (now - datetime.fromisoformat(start["began"])).total_seconds()
        start["ended"] = _clock(now)
        start |= {name: self.table[name] for name in ("status", "problem")}
        self.table["seconds"] = sum(each["seconds"] for each in self.table["starts"])

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Write down how the work in the block ends, if by an error, and close the log."""
        try:
            yield
        except BaseException as error:
            known = {OutOfMemory: "out of memory", TrainingError: "refused"}
            status = next((said for kind, said in known.items() if isinstance(error, kind)), "failed")
            said = str(error) if isinstance(error, TrainingError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # of a full disk the error itself is told
                self.write(status=status, problem=said)
            raise
        finally:
            if self.log is not None:
                self.log.close()
                self.log = None

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
        self.tokens += values.get("tokens", 0)
        if self.log is not None:
            self.log.add(kind, values, self.tokens)
        if kind == "validation":
            self.write(validations=[*self.table["validations"], {"tokens": self.tokens, **values}])

    def flush(self) -> None:
        """Have the log in its files."""
        if self.log is not None:
            self.log.flush()

    def go_on(self, step: int, tensorboard_log: bool | None) -> None:
        """Forget what was written down after `step`, that of the checkpoint from which the run goes on.

        Raises TrainingError where a TensorBoard log is asked for and cannot be written.
        """
        self._cut(step)
        self.tokens = sum(line["tokens"] for kind in ("step", "refused") for line in self.entries(kind))
        logged = tensorboard.wanted(tensorboard_log)
        self.log = tensorboard.Log(self.folder, step, self.tokens) if logged else None
        self.table["starts"][-1]["first_step"] = step + 1
        validations = [line for line in self.table.get("validations", []) if line["step"] <= step]
        resumed = [*self.table["resumed_at"], *([step] if step else [])]
        self.write(step=step, tokens_read=self.tokens, validations=validations, resumed_at=resumed, tensorboard=logged)

    def _cut(self, step: int) -> None:
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


def start(
    runs: Path, run: Run, version: Version, name: str | None, group: Group, changes: Sequence[str] = ()
) -> Journal:
    """The journal of a run: a new one, or the one that it left. Raises TrainingError where the name is taken.

    The first rank writes it while the others wait. `changes` are those that were made to the run file.
    """
    if group.first:
        _open(runs, run, version, name, {"changes": list(changes), **_here(group)})
    group.wait()
    folder = _folder(runs, run, version, name)
    return Journal(folder, _table(folder / "run.json"))


def _folder(runs: Path, run: Run, version: Version, name: str | None) -> Path:
    return runs / (name or f"{run.name}-{run.identity(version.manifest.version)[:8]}")


def _open(runs: Path, run: Run, version: Version, name: str | None, here: dict[str, Any]) -> None:
    from training import lineage

    identity = run.identity(version.manifest.version)
    folder = _folder(runs, run, version, name)
    path = folder / "run.json"
    if path.exists():
        journal = Journal(folder, _table(path))
        if journal.table["digest"] == identity:
            if not journal.complete:
                _begin(journal, _reading(run, version, folder), here)
            return
        # One that was refused before its first step is nobody's.
        if journal.metrics.exists() or journal.checkpoints.exists():
            raise TrainingError(
                f"{folder}: holds another run ({_difference(journal.table, run, version)}); give --name, or remove it"
            )
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    journal.table = {
        "format": FORMAT,
        "name": folder.name,
        "digest": identity,
        "seed": run.seed,
        "step": 0,
        "steps": run.schedule.steps,
        "tokens_read": 0,
        "left_out": None,
        "resumed_at": [],
        "validations": [],
        "evaluation": None,
        "evaluations": [],
        "before": lineage.write(folder, run.init) if run.init else None,
    }
    _begin(journal, _reading(run, version, folder), here)


def _begin(journal: Journal, reading: dict[str, Any], here: dict[str, Any]) -> None:
    """Enter another start; the one before it was killed if nobody wrote down how it ended."""
    starts = [
        {**before, **({"status": "killed"} if before["status"] == "running" else {})}
        for before in journal.table.get("starts", [])
    ]
    now = _clock(datetime.now(UTC))
    journal.table.setdefault("began", now)
    starts.append({"began": now, "first_step": None, **here})
    journal.write(**reading, **here, starts=starts, status="running", problem=None)


def _reading(run: Run, version: Version, folder: Path) -> dict[str, Any]:
    """What is read, and where it lies now."""
    return {
        "version": _where(version, folder),
        "beside": [_where(other, folder) for other in version.beside],
        "config": run.model_dump(mode="json"),
    }


def _here(group: Group) -> dict[str, Any]:
    """What may change between two starts of the same run: who computes, with what, and where."""
    return {
        "processes": group.world,
        "device": group.device.type,
        "threads": machine.threads(),
        "environment": machine.environment(),
        "hardware": machine.hardware(),
        "packages": machine.packages(),
        "code": machine.code(),
        "commit": machine.commit(),
    }


def _clock(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


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
    journal = read_books(folder)
    run = check(Run, journal.table["config"], f"{folder / 'run.json'} config")
    version, *others = (
        open_version(folder / found["manifest"], verify=verify)
        for found in [journal.table["version"], *journal.table.get("beside", [])]
    )
    return journal, run, version.with_others(others)


def read_books(folder: Path) -> Journal:
    """The journal of a run that stands. Raises TrainingError."""
    path = folder / "run.json"
    if not path.is_file():
        raise TrainingError(
            f"{folder}: no run here (no run.json); give the folder of one, STORE/runs/NAME (gristmill ls lists them)"
        )
    return Journal(folder, _table(path))
