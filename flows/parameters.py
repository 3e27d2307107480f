"""What a build or a run can be told, by a verb or by a deployment: checked, described and bounded in one place.

The same models make the forms of a deployment and the checks of the command line, so the two
cannot drift apart. Everything is a plain value: a path, a name, a number.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipeline.limits import DEFAULT_MEMORY
from pipeline.memory import task_share, workers_within
from pipeline.recipe import parse_size

SIZE = r"^\s*\d+(\.\d+)?\s*[KMGT]?B\s*$"
STORE = "Folder of outputs, versions and runs (or GRISTMILL_STORE)."
ADDRESS = "a version: NAME, NAME@latest, NAME@VERSION, or the path of a manifest"


def default_store() -> str:
    """Where a store lies when nobody says: $GRISTMILL_STORE, else .gristmill in the working folder."""
    return os.environ.get("GRISTMILL_STORE") or ".gristmill"


class Parameters(BaseModel):
    """Unknown names are errors, and nothing changes after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MillParameters(Parameters):
    """Where things lie and how finely the work is cut. None of it changes a version."""

    store: str = Field(default_factory=default_store, min_length=1, description=STORE)
    data: str | None = Field(default=None, description="What {data} stands for in source cards (or GRISTMILL_DATA).")
    workers: int | None = Field(default=None, ge=1, le=1024, description="Tasks at a time; default: one a core.")
    partition_size: str = Field(default="8MB", pattern=SIZE, description="Input bytes that a partition aims at.")
    memory: str | None = Field(
        default=None, pattern=SIZE, description="What all processes may hold; default: 2 GB a task."
    )
    batch_rows: int = Field(default=4096, ge=1, le=1_000_000, description="Rows that a stage is given at a time.")

    @property
    def root(self) -> Path:
        return Path(self.store).expanduser().absolute()

    @property
    def folder(self) -> Path | None:
        return Path(self.data).expanduser().absolute() if self.data else None

    def crew(self, apart: bool = False) -> int:
        """Workers: what was asked for, else one a core, or as many as the memory allows; `apart`, each a process."""
        cores = len(os.sched_getaffinity(0))
        return self.workers or (workers_within(parse_size(self.memory), cores, apart) if self.memory else cores)

    def task_memory(self, apart: bool = False) -> int:
        """Bytes that one task may hold. Raises ConfigError where the memory is too small for the workers."""
        if self.memory is None:
            return DEFAULT_MEMORY
        return task_share(parse_size(self.memory, "--memory"), self.crew(apart), apart)


class BuildParameters(Parameters):
    """A recipe, and the mill that it runs through."""

    recipe: str = Field(
        default="quickstart", min_length=1, description="A shipped recipe's name, or the path of a .toml."
    )
    mill: MillParameters = Field(default_factory=MillParameters, description="Where and how finely.")
    allow_dead: tuple[str, ...] = Field(
        default=(), description="Rules that may be dead, like gopher.word_count.below; the manifest records them."
    )


class TrainParameters(Parameters):
    """A run file, and the version that it reads."""

    run: str = Field(default="quickstart", min_length=1, description="A shipped run's name, or the path of a .toml.")
    version: str | None = Field(default=None, description=f"{ADDRESS}; default: the newest version of the run's name.")
    name: str | None = Field(
        default=None, pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Name of the run; default: the run file's."
    )
    changes: tuple[str, ...] = Field(default=(), description="Changes to the run file, like schedule.steps=50.")
    processes: int = Field(
        default=1, ge=1, le=1024, description="Training processes on this machine (torchrun when several)."
    )
    store: str = Field(default_factory=default_store, min_length=1, description=STORE)

    @property
    def root(self) -> Path:
        return Path(self.store).expanduser().absolute()
