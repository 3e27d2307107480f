"""What a task may use of this machine. None of it changes what the task makes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Limits:
    """Rows that a stage is given at a time, and the bytes that one task may hold beyond what its process needs.

    `threads` are those that a task may take which sees the whole corpus, while workers wait for it.
    """

    batch_rows: int = 4096
    memory: int = DEFAULT_MEMORY
    threads: int = 1


DEFAULT = Limits()


@dataclass(frozen=True)
class Workspace:
    """Where a relating stage may put aside what it cannot hold, the bytes that it may hold, and its threads.

    `folder` is of this task alone, need not exist yet, and is removed when the task ends, however it ends.
    """

    folder: Path
    memory: int = DEFAULT_MEMORY
    threads: int = 1


UNBOUNDED = Workspace(Path(os.devnull), 1 << 62)
