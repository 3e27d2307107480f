"""What the processes of a build hold, and what each task may.

The law: a limit is kept by all processes together. The number that matters: 310 MB, what a process holds that has
loaded the kernels and the libraries below them (measured: 300 MB resident, of which 141 MB are the libraries' files).
A worker thread holds 75 MB beside its task: tokens that it met before, and what its allocator does not give back
(measured: 423 MB with two behind the first segment over 2 GB).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.stage import ConfigError

PROCESS_BYTES, THREAD_BYTES = 310_000_000, 75_000_000
LEAST_TASK_BYTES = 150_000_000
LOOK = 0.05
PROC = Path("/proc")


def task_share(total: int, workers: int, apart: bool = False) -> int:
    """Bytes that one task may hold where all processes together may hold `total`. Raises ConfigError: too little.

    Workers are threads of one process or, `apart`, processes beside the one that leads them.
    """
    share = _share(total, workers, apart)
    if share < LEAST_TASK_BYTES:
        least = _fixed(workers, apart) + workers * LEAST_TASK_BYTES
        several = workers > 1
        raise ConfigError(
            f"--memory: {total:,} bytes are too few for {workers} worker{'s' * several}; the least that works "
            f"is {-(-least // 1_000_000)}MB{', or give fewer --workers' * several}"
        )
    return share


def workers_within(total: int, cores: int, apart: bool = False) -> int:
    """The most workers, up to one a core, whose tasks have what they need; at least one."""
    return max((n for n in range(1, cores + 1) if _share(total, n, apart) >= LEAST_TASK_BYTES), default=1)


def _share(total: int, workers: int, apart: bool) -> int:
    return (total - _fixed(workers, apart)) // workers


def _fixed(workers: int, apart: bool) -> int:
    """What is held whatever the tasks are."""
    return workers * THREAD_BYTES + PROCESS_BYTES * (workers + 1 if apart and workers > 1 else 1)


class Keeper(Protocol):
    """Who keeps things that only make the next call faster."""

    def forget(self) -> None:
        """Let them go; may be called while another thread works with them."""


_keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()


def keeps(keeper: Keeper) -> None:
    """Tell of one, which is then asked to forget before a task that sees the whole corpus."""
    _keepers.add(keeper)


def forget() -> None:
    """Have everyone forget."""
    for keeper in list(_keepers):
        keeper.forget()


def give_back() -> None:
    """Return to the system what the allocators hold and nobody uses: it would count beside the next task's."""
    pa.default_memory_pool().release_unused()
    if trim := _trim():
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim, where the C library has it."""
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


def tree_memory(root: int) -> int:
    """Resident bytes of a process and all its descendants; 0 where the system has no /proc."""
    pages = 0
    for process in descendants(root):
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages += int((PROC / str(process) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descendants(root: int) -> list[int]:
    """A process and all that it started, each behind the one that started it."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            # Behind the name, which may hold anything: the state, then the parent's number.
            children[int((entry / "stat").read_text().rpartition(")")[2].split()[1])].append(int(entry.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


@dataclass
class Peak:
    """The most that was seen, in bytes; None where the system does not say."""

    bytes: int | None = None


@contextlib.contextmanager
def watching() -> Iterator[Peak]:
    """Looks every LOOK seconds at what this process and its descendants hold together."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while True:
            if seen := tree_memory(os.getpid()):
                peak.bytes = max(seen, peak.bytes or 0)
            if ended.wait(LOOK):
                return

    watcher = threading.Thread(target=look, name="memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
