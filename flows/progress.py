"""How far the work is, on stderr: bars with rates and time left on a terminal, a line now and then elsewhere.

`current()` is what the work under way reports to. A flow's parameters go through an API and cannot
carry a progress bar, so the command line installs one around the flow and the flow asks for it here.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from flows.screen import clean, duration

HEARTBEAT = 20.0
WIDE, ROOM = 110, 72  # columns of a terminal that has room for a bar, and for the beginning of a note
CUT = Column(no_wrap=True, overflow="ellipsis")
# What a phase is told in its first moment stood before: finished partitions, the steps of a resumed run.
MOMENT = 0.3


class Reporter(Protocol):
    """`pipeline.runner.Progress`, a note beside the bar, and lines that stay."""

    def phase(self, name: str, total: int) -> None: ...

    def advance(self, done: int = 1) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


class Quiet:
    """A reporter that says nothing: inside a worker, and in tests."""

    def phase(self, name: str, total: int) -> None:
        return

    def advance(self, done: int = 1) -> None:
        return

    def note(self, text: str) -> None:
        return

    def say(self, text: str) -> None:
        return


_current: ContextVar[Reporter | None] = ContextVar("progress", default=None)


def current() -> Reporter:
    """The reporter installed around the work, or one that says nothing."""
    return _current.get() or Quiet()


@contextlib.contextmanager
def shown(console: Console) -> Iterator[Reporter]:
    """Install bars on a terminal, lines elsewhere, for the length of the block."""
    reporter = Bars(console) if console.is_terminal and not console.is_dumb_terminal else Lines()
    token = _current.set(reporter)
    try:
        with reporter:
            yield reporter
    finally:
        _current.reset(token)


@contextlib.contextmanager
def logged(say: Callable[[str], object]) -> Iterator[None]:
    """Where nothing is shown, have lines given to `say` for the length of the block: the log of a deployed flow."""
    if _current.get():
        yield
        return
    reporter = Lines(say=say)
    token = _current.set(reporter)
    try:
        with reporter:
            yield
    finally:
        _current.reset(token)


class Rate(ProgressColumn):
    """Tasks a second and time left; the time taken when done."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(pace(task.completed, task.total or 0, task.elapsed or 0.0, task.fields["before"]), "cyan")


def pace(done: float, total: float, seconds: float, before: float = 0) -> str:
    """'12/40, 0.8/s, 35.0 s left' while under way, the time taken at the end; `before` was done already."""
    if done >= total:
        return f"{f'{total:,.0f} in ' if total > 1 else ''}{duration(seconds)}"
    counted = f"{done:,.0f}/{total:,.0f}" if total > 1 else duration(seconds)
    if done <= before or not seconds:
        return counted
    rate = (done - before) / seconds
    shown = f"{rate:,.1f}/s" if rate >= 0.1 else f"{rate * 60:.1f}/min"
    return f"{counted}, {shown}, {duration((total - done) / rate)} left"


class Bars:
    """A bar for the phase under way; those that are done stand above it, with the time they took.

    More than the one would not fit: what lies below the last line of a terminal is not shown. On a narrow one there is
    no bar, and of a note what there is room for.
    """

    def __init__(self, console: Console) -> None:
        note = TextColumn("{task.fields[note]}", markup=False, style="dim", table_column=CUT)
        self._progress = Progress(
            SpinnerColumn(finished_text="·"),
            TextColumn("{task.description}", markup=False),
            *([BarColumn(24)] if console.width >= WIDE else []),
            Rate(),
            *([note] if console.width >= ROOM else []),
            console=console,
            speed_estimate_period=3600,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
        self._progress.stop()

    def phase(self, name: str, total: int) -> None:
        self._close()
        self._task = self._progress.add_task(f"{clean(name, 34):<34}", total=total, note="", before=0)

    def advance(self, done: int = 1) -> None:
        if self._task is None:
            return
        task = self._progress.tasks[-1]
        if (task.elapsed or 0) < MOMENT:
            self._progress.update(task.id, before=task.fields["before"] + done)
        self._progress.advance(task.id, done)

    def note(self, text: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, note=clean(text))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(Text(clean(text)), soft_wrap=True)

    def _close(self) -> None:
        """Leave what was under way above, as it stands."""
        if self._task is None:
            return
        task = self._progress.tasks[-1]
        words = pace(task.completed, task.total or 0, task.elapsed or 0.0, task.fields["before"])
        note = f"  {task.fields['note']}" if task.fields["note"] else ""
        self._progress.remove_task(task.id)
        self._task = None
        self._progress.console.print(Text(f"· {task.description} {words}{note}"), no_wrap=True, overflow="ellipsis")


class Lines:
    """A line when a phase that took a while ends, and a sign of life every `HEARTBEAT` seconds; no control codes."""

    def __init__(self, every: float = HEARTBEAT, say: Callable[[str], object] | None = None) -> None:
        self._every, self._sink = every, say or _to_stderr
        self._name, self._done, self._total, self._note, self._before = "", 0, 0, "", 0
        self._start = self._said = time.monotonic()
        self._last = -1
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(1)
        self._close()

    def phase(self, name: str, total: int) -> None:
        self._close()
        with self._lock:
            self._name, self._done, self._total, self._note, self._before = name, 0, total, "", 0
            self._start = self._said = time.monotonic()
            self._last = -1

    def advance(self, done: int = 1) -> None:
        with self._lock:
            if time.monotonic() - self._start < MOMENT:
                self._before += done
            self._done += done

    def note(self, text: str) -> None:
        with self._lock:
            self._note = text

    def say(self, text: str) -> None:
        """A line now."""
        with self._lock:
            self._sink(clean(text))

    @property
    def _told(self) -> bool:
        """Whether it was said already that the phase is done."""
        return self._last == self._done >= self._total

    def _close(self) -> None:
        if self._name and time.monotonic() - self._start >= 1 and not self._told:
            self._say()
        self._name = ""

    def _beat(self) -> None:
        while not self._stop.wait(min(1.0, self._every)):
            if self._name and time.monotonic() - self._said >= self._every and not self._told:
                self._say()

    def _say(self) -> None:
        with self._lock:
            self._said, self._last = time.monotonic(), self._done
            words = f"{self._name}: {pace(self._done, self._total, self._said - self._start, self._before)}"
            self._sink(clean(f"{words}  {self._note}".rstrip()))


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
