"""A suite: which sets are asked, and how each is put. Checked whole before a model is loaded."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from training import TrainingError
from training.tables import Table, check

Metric = Literal["raw", "normalised", "unconditional", "exact_match", "log_likelihood"]
CHOICE: tuple[Metric, ...] = ("raw", "normalised", "unconditional")
CLOZE: tuple[Metric, ...] = ("exact_match", "log_likelihood")
NAME = r"^[a-z0-9][a-z0-9-]*$"


class Set(Table):
    """One set of items. `set` names a card or a version, and `shots_from` another from which the examples come.

    A prompt is `description`, then for each example `prefix` + context + `delimiter` + right continuation + `between`,
    then `prefix` + context + `delimiter`; the continuation follows. `seed` chooses the examples of each item, and which
    `limit` items are asked. P(continuation | `unconditional`) is what unconditional scores are divided by; nothing
    there means: at the beginning of a text.
    """

    set: Annotated[str, Field(min_length=1)]
    name: Annotated[str, Field(pattern=NAME)] | None = None
    description: str = ""
    prefix: str = ""
    delimiter: str = " "
    between: str = "\n\n"
    shots: Annotated[int, Field(ge=0, le=100)] = 0
    shots_from: str | None = None
    seed: int = 0
    unconditional: str = ""
    metrics: list[Metric] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None

    @property
    def called(self) -> str:
        """What results call it."""
        return self.name or Path(self.set.partition("@")[0]).stem

    def chosen(self, cloze: bool) -> tuple[Metric, ...]:
        """The metrics asked for, or those of its form. Raises TrainingError for one of the other form."""
        fitting = CLOZE if cloze else CHOICE
        for metric in self.metrics or ():
            if metric not in fitting:
                form = "a cloze" if cloze else "multiple choice"
                raise TrainingError(f"set {self.called!r} is {form} and has no {metric!r}; has: {', '.join(fitting)}")
        return tuple(self.metrics) if self.metrics else fitting


class Suite(Table):
    """Sets that are asked together, under a name."""

    name: Annotated[str, Field(pattern=NAME)]
    set: Annotated[list[Set], Field(min_length=1)]

    @property
    def sources(self) -> list[str]:
        """Every set that is read, each once."""
        return [*dict.fromkeys(name for each in self.set for name in (each.set, each.shots_from) if name)]


def load(path: Path) -> Suite:
    """Read a suite. Raises TrainingError naming the file, the key and what exists."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: no such suite ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not valid TOML: {error}") from error
    suite = check(Suite, table, str(path))
    names = [each.called for each in suite.set]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TrainingError(f"{path}: two sets are called {twice[0]!r}; give one a name of its own (name = ...)")
    return suite
