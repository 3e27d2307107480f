"""Who does the tasks: the one interface behind which every engine stands.

A runner maps a task function over keys. `Local` is this process and its cores; Prefect
(`flows.runner`), and later Dask or Ray, stand behind the same interface. What is sent is a
path and a key, what comes back is a key: the data lies in the store.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pipeline.limits import Limits
from pipeline.store import Store
from pipeline.tasks import execute
from pipeline.threads import Threads

# Seconds that workers are given to clear up when a build is stopped.
PATIENCE = 5.0


class WorkerLost(RuntimeError):
    """A worker process died in the middle of a task."""


class Progress(Protocol):
    """Told what is under way; `total` and `done` count tasks."""

    def phase(self, name: str, total: int) -> None: ...

    def advance(self, done: int = 1) -> None: ...


class Silent:
    """A progress that nobody looks at."""

    def phase(self, name: str, total: int) -> None:
        return

    def advance(self, done: int = 1) -> None:
        return


class Runner(Protocol):
    """Does the tasks under `keys`, in any order; yields each key when its output stands."""

    def map(self, root: str, keys: Sequence[str], limits: Limits, label: str) -> Iterator[str]: ...


class Local:
    """The cores of this machine: without a pool in this thread, else by what `workers` gives."""

    def __init__(self, pool: Executor | None = None) -> None:
        self.pool = pool

    def map(self, root: str, keys: Sequence[str], limits: Limits, label: str) -> Iterator[str]:
        if self.pool is None:
            for key in keys:
                yield execute(root, key, limits)
            return
        futures: list[Future[str]] = []
        try:
            for key in keys:
                futures.append(self.pool.submit(execute, root, key, limits))
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerLost(lost(label)) from error
        except (KeyboardInterrupt, SystemExit):
            if not isinstance(self.pool, Threads):
                futures.clear()  # the pool's own thread ends those of dead workers, and trips over a cancelled one
            abandon(self.pool, root, keys)
            raise
        finally:
            for future in futures:
                future.cancel()


def abandon(pool: Executor | None, root: str, keys: Sequence[str]) -> None:
    """End the workers in the middle of their tasks, and clear away what they had half written."""
    if isinstance(pool, Threads):
        pool.abandon(PATIENCE)
    processes = list((getattr(pool, "_processes", None) or {}).values())
    for process in processes:
        process.kill()
    for process in processes:
        process.join(5)
    for key in keys if pool else ():
        for half in Store(Path(root)).folder(key).parent.glob(f".{key}.*"):
            shutil.rmtree(half, ignore_errors=True)


def lost(label: str) -> str:
    """What to tell when a worker died."""
    return (
        f"a worker died during {label!r} (killed, or out of memory?); finished partitions are kept: run the same "
        "command again, with fewer --workers or a smaller --partition-size if memory was short"
    )


@contextmanager
def workers(count: int, apart: bool = False) -> Iterator[Executor | None]:
    """`count` workers, or None for one; with `apart` processes, which end when this one ends, however it ends.

    Threads, since kernels and Arrow release the GIL: two of them take 1.09 times the CPU seconds of one on the whole
    chain over 87 MB, and one process's memory, where two processes take 1.44 times, most of it to start. Processes for
    code that is not shipped (`Recipe.foreign`): it may hold the GIL all the time, or take its process along.
    """
    if count < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _start_worker, (os.getpid(),)) if apart else Threads(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int) -> None:
    # Ctrl-C on a terminal reaches the whole group; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent killed with SIGKILL cannot tell its workers; they look for it."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
