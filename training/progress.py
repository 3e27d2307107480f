"""How far a run is: JSON lines into a file for whoever started it, or bars and lines on the terminal.

{"phase": "train", "total": 600}   {"advance": 1}   {"note": "loss 4.21"}   {"say": "step 50: validation loss 4.4"}

A note stands beside the bar until the next one, what is said stays.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY = 20.0


class Reporter(Protocol):
    """Told what is under way."""

    def phase(self, name: str, total: int) -> None: ...

    def advance(self, done: int = 1) -> None: ...

    def note(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def close(self) -> None: ...


class Silent:
    """For the ranks beside the first, and for tests."""

    def phase(self, name: str, total: int) -> None:
        return

    def advance(self, done: int = 1) -> None:
        return

    def note(self, text: str) -> None:
        return

    def say(self, text: str) -> None:
        return

    def warn(self, text: str) -> None:
        return

    def close(self) -> None:
        return


class Events:
    """Appends one JSON object a line to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def phase(self, name: str, total: int) -> None:
        self._say({"phase": name, "total": total})

    def advance(self, done: int = 1) -> None:
        self._say({"advance": done})

    def note(self, text: str) -> None:
        self._say({"note": text})

    def say(self, text: str) -> None:
        self._say({"say": text})

    def warn(self, text: str) -> None:
        self.say(text)

    def close(self) -> None:
        self._file.close()

    def _say(self, event: dict[str, str | int]) -> None:
        self._file.write(json.dumps(event) + "\n")


class Bars:
    """One bar a phase on a terminal."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:<12}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn())
        note = TextColumn("{task.fields[note]}", markup=False)
        self._bars = Progress(*columns, note, console=Console(stderr=True))
        self._bars.start()
        self._task: TaskID | None = None

    def phase(self, name: str, total: int) -> None:
        self._task = self._bars.add_task(name, total=total, note="")

    def advance(self, done: int = 1) -> None:
        if self._task is not None:
            self._bars.advance(self._task, done)

    def note(self, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, note=text)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self._bars.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bars.stop()


class Lines:
    """A line on stderr now and then, where there is no terminal."""

    def __init__(self, every: float = EVERY) -> None:
        self._every, self._said = every, time.monotonic()
        self._name, self._done, self._total, self._note = "", 0, 0, ""
        self._first: tuple[float, int] | None = None

    def phase(self, name: str, total: int) -> None:
        self._name, self._done, self._total, self._note = name, 0, total, ""
        self._first = None

    def advance(self, done: int = 1) -> None:
        self._done += done
        now = time.monotonic()
        # What a resumed run did before took no time of ours: rates count from the first advance on.
        self._first = self._first or (now, self._done)
        if self._done >= self._total or now - self._said >= self._every:
            self._said = now
            said = f"{self._name}: {self._done:,} of {self._total:,}{self._left(now)}  {self._note}"
            sys.stderr.write(said.rstrip() + "\n")

    def _left(self, now: float) -> str:
        began, already = self._first or (now, self._done)
        if not already < self._done < self._total:
            return ""
        seconds = round((now - began) / (self._done - already) * (self._total - self._done))
        return f", {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"

    def note(self, text: str) -> None:
        self._note = text

    def say(self, text: str) -> None:
        """A line now."""
        sys.stderr.write(text + "\n")

    def warn(self, text: str) -> None:
        self.say(f"{self._name}: {text}")

    def close(self) -> None:
        return


def reporter(events: Path | None) -> Reporter:
    """The reporter for this process: a file if one is given, else what stderr is."""
    if events:
        return Events(events)
    return Bars() if sys.stderr.isatty() else Lines()
