"""Training as a process of its own: `python -P -m training fit`, under torchrun when there are several.

The contract is a command line, a file of events and one JSON object, so the front door never imports torch. The
law: a signal reaches the trainer once, as SIGTERM, it is waited for while it writes its checkpoint, and no trainer
outlives its parent (it is told the parent's number and looks for it). The trainer has a session of its own, or
Ctrl-C on a terminal would reach it twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, NoReturn

from flows.progress import Quiet, Reporter

TRAINER = ("-m", "training")
LOOK = 0.1
LAST_LINES = 12
REFUSED = 2  # the trainer's exit code for what a person can put right
# torchrun kills what has not ended by then; a step and its checkpoint take as long as they take.
SHUTDOWN_SECONDS = "3600"


class TrainingRefused(ValueError):
    """The trainer cannot take what it was given; the message is its own."""


class TrainingStopped(RuntimeError):
    """The trainer was asked to stop and left a checkpoint."""


class TrainingFailed(RuntimeError):
    """The trainer ended as it should not; the message names its log, and `lines` are its last words."""

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.lines = tuple(lines)


@dataclass(frozen=True)
class Fit:
    """What is trained, on what, and under which name; nothing here but paths and plain values."""

    run: Path
    manifest: Path
    runs: Path
    name: str | None = None
    processes: int = 1
    changes: tuple[str, ...] = ()
    beside: tuple[Path, ...] = ()

    def command(self, events: Path, trainer: Sequence[str]) -> list[str]:
        """The trainer's command line, begun by this Python and never by what lies in the working folder."""
        start = [sys.executable, "-P"]
        if self.processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        given = {"--manifest": self.manifest, "--runs": self.runs, "--events": events, "--parent": os.getpid()}
        named = {"--name": self.name} if self.name else {}
        options = [str(part) for pair in (given | named).items() for part in pair]
        options += [part for path in self.beside for part in ("--manifest", str(path))]
        changes = [part for change in self.changes for part in ("--set", change)]
        return [*start, *trainer, "fit", str(self.run), *options, *changes, "--json"]


def fit(what: Fit, progress: Reporter | None = None, trainer: Sequence[str] | None = None) -> dict[str, Any]:
    """Train to the end; returns the trainer's last line of stdout, as it is. `trainer` is what this Python starts.

    Raises TrainingRefused, TrainingStopped or TrainingFailed; a SIGINT or SIGTERM that came meanwhile is
    raised again when the trainer has ended.
    """
    with _folder(what.runs) as folder:
        out, err, events = folder / "stdout", folder / "stderr", folder / "events"
        events.touch()
        with out.open("wb") as stdout, err.open("wb") as stderr, events.open("rb") as lines, Relay() as relay:
            child = relay.to(
                subprocess.Popen(
                    what.command(events, trainer or TRAINER),
                    env={**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": SHUTDOWN_SECONDS},
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            )
            _follow(child, lines, progress or Quiet(), relay.came)
        if relay.came and child.returncode:
            # Whatever its code: under torchrun it is not the trainer's own.
            shutil.rmtree(folder, ignore_errors=True)
            signal.raise_signal(relay.came[0])
            # It was ignored from the start, as a shell does for what it starts with &.
            raise TrainingStopped(f"the run {what.name or what.run.stem!r} was asked to stop")
        return _result(what, child.returncode, out, err)


def trace(folder: Path, step: int, as_json: bool) -> int:
    """Have the trainer list a step's documents on our stdout; returns its exit code."""
    command = _verb("trace", str(folder), "--step", str(step), *(["--json"] if as_json else []))
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def traced(folder: Path, step: int, token: int) -> dict[str, Any]:
    """What the trainer says of one token of a step. Raises TrainingRefused where there is no such token."""
    found: dict[str, Any] = _answer(_verb("trace", str(folder), "--step", str(step), "--token", str(token), "--json"))
    return found


def asked(folders: Sequence[Path], ids: Sequence[str]) -> list[dict[str, Any]]:
    """The steps in which each of these runs has read documents; raises TrainingFailed where the trainer breaks."""
    if not folders:
        return []
    found: list[dict[str, Any]] = _answer(_verb("where", *map(str, folders)), json.dumps(list(ids)))
    return found


def exported(folder: Path, target: Path) -> str:
    """Have the newest checkpoint of a run written as a Hugging Face folder; returns that. Raises TrainingRefused."""
    target.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = _answer(_verb("export", str(folder), str(target), "--json"))
    return found["folder"]


def become(verb: str, *arguments: str, processes: int = 1) -> NoReturn:
    """Go on as the trainer, with this terminal and these signals: nothing stands between it and who started it."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = _verb(verb, *arguments)
    if processes > 1:
        many = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
        command = [*command[:2], *many, *command[2:]]
    os.execv(command[0], command)


@contextlib.contextmanager
def beside(ask: Callable[..., Any], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """Have the trainer asked while the block goes on; yields what waits for its answer, or raises what `ask` does."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ask, *arguments).result


def _verb(*arguments: str) -> list[str]:
    return [sys.executable, "-P", *TRAINER, *arguments]


def _answer(command: Sequence[str], given: str = "") -> Any:
    """The last line of what the trainer says, as JSON. Raises TrainingRefused with its sentence, or TrainingFailed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    if done.returncode == REFUSED:
        raise TrainingRefused(words[-1].removeprefix("error: "))
    if done.returncode:
        raise TrainingFailed(f"the trainer could not answer: {words[-1]}", words[-LAST_LINES:])
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def _folder(runs: Path) -> Iterator[Path]:
    """Where output and events go; it stays where the trainer failed, for its log."""
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".fit-", dir=runs))
    keep = False
    try:
        yield folder
    except TrainingFailed:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


class Relay:
    """Passes the first SIGINT or SIGTERM on to the trainer, as SIGTERM, and kills it at the second."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Relay:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._forward) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def to(self, child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self._child = child
        if self.came:
            child.terminate()
        return child

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        if self._child and self._child.poll() is None:
            (self._child.terminate if len(self.came) == 1 else self._child.kill)()


def _follow(child: subprocess.Popen[bytes], lines: BinaryIO, progress: Reporter, came: list[int]) -> None:
    """Tell `progress` what the trainer writes down until it has ended."""
    rest, stopping = b"", False
    while True:
        ended = child.poll() is not None
        *whole, rest = (rest + lines.read()).split(b"\n")
        for line in whole:
            if not stopping:
                tell(line, progress)
        if ended:
            return
        if came and not stopping:
            stopping = True
            progress.phase("stop, with a checkpoint", 1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LOOK)


def tell(line: bytes, progress: Reporter) -> None:
    """One line of the events file; what is none of the four events is passed over."""
    try:
        event = json.loads(line)
    except ValueError:
        return
    match event:
        case {"phase": str(name), "total": int(total)}:
            progress.phase(name, total)
        case {"advance": int(done)}:
            progress.advance(done)
        case {"note": str(text)}:
            progress.note(text)
        case {"say": str(text)}:
            progress.say(text)


def _result(what: Fit, code: int, out: Path, err: Path) -> dict[str, Any]:
    result = _last_object(out)
    lines = [line for line in err.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if code == 0 and result:
        return result
    if code == 130 or result.get("status") == "stopped":
        raise TrainingStopped(f"the run {result.get('run', what.name or what.run.stem)!r} has a checkpoint")
    # torchrun ends with 1 whatever its processes say; the sentence is one of theirs.
    if said and (code == REFUSED or what.processes > 1):
        raise TrainingRefused(said[0])
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    raise TrainingFailed(f"the trainer {how}; its log is {err}", lines[-LAST_LINES:])


def _last_object(out: Path) -> dict[str, Any]:
    lines = out.read_text("utf-8", "replace").strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
