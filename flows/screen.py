"""What is printed: results on stdout, everything else on stderr, nothing that a document could forge.

Ids, reasons, licences and texts come from corpora and are hostile: `clean` shows control and format
characters by their code, so no document can move the cursor, colour the terminal or reverse a line;
they are printed as `rich.text.Text`, so nothing in them is read as markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.escaping import LIMIT, clean

# Of tables where there is no terminal; lines are not wrapped there.
WIDTH = 160


def plain(value: object, style: str = "", limit: int = LIMIT) -> Text:
    """`clean` as Text: never parsed as markup."""
    return Text(clean(value, limit), style)


@dataclass
class Screen:
    """Where a verb says what it found: people on stdout, or scripts with `--json` as one last line."""

    as_json: bool = False
    out: Console = field(init=False)
    err: Console = field(init=False)

    def __post_init__(self) -> None:
        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() else WIDTH
        self.out = Console(stderr=self.as_json, highlight=False, soft_wrap=not stream.isatty(), width=width)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, *parts: object) -> None:
        """A line of the result. Plain strings are cleaned and never read as markup; the terminal alone breaks them, so
        that a path or a command is copied whole."""
        soft = True if all(isinstance(p, str | Text) for p in parts) else None
        self.out.print(*(plain(p, limit=2000) if isinstance(p, str) else p for p in parts), soft_wrap=soft)

    def finish(self, result: Mapping[str, Any]) -> None:
        """With `--json`, the last line of stdout: one object."""
        if self.as_json:
            sys.stdout.write(json.dumps(result, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()


def size(count: float) -> str:
    """Bytes for people, in decimal units."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: 8.2 s, 3:05, 2:14:09."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
