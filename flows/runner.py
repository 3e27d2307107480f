"""Partitions as Prefect tasks, behind the interface of `pipeline.runner`.

A task's arguments are a path and keys; its body hands them to the same workers that the direct
runner uses, so the work runs on `--workers` of them and Prefect only watches. Its own caching,
retries and results are off: our store is the cache, and a task that failed says why. The number that
matters: about 20 ms a task, a good part of it at flow exit, so a step has at most 100 tasks, batched beyond that.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from pipeline.limits import Limits
from pipeline.runner import WorkerLost, abandon, lost
from pipeline.tasks import execute

MOST_TASKS = 100


@dataclass
class Step:
    """What the tasks of one step share and no argument carries."""

    pool: Executor | None
    label: str
    stopped: threading.Event = field(default_factory=threading.Event)


class Stopped(RuntimeError):
    """Another partition of the same step failed first."""


_step: ContextVar[Step] = ContextVar("step")


@task(name="partitions", cache_policy=NO_CACHE, persist_result=False, retries=0)
def partitions(root: str, keys: list[str], limits: Limits) -> list[str]:
    """Have the tasks under `keys` of the store at `root` done; returns the keys."""
    step = _step.get()
    if step.stopped.is_set():
        raise Stopped(f"{step.label}: another partition failed")
    if step.pool is None:
        return [execute(root, key, limits) for key in keys]
    futures = [step.pool.submit(execute, root, key, limits) for key in keys]
    try:
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise WorkerLost(lost(step.label)) from error
    finally:
        for future in futures:
            future.cancel()


class PrefectRunner:
    """Does tasks inside a flow run; `pool` is what `pipeline.runner.workers(count)` yields."""

    def __init__(self, pool: Executor | None, count: int) -> None:
        self.pool = pool
        self.count = count

    def map(self, root: str, keys: Sequence[str], limits: Limits, label: str) -> Iterator[str]:
        """Yields each key when its output stands. The first error stops what has not begun, and is raised."""
        batches = cut(keys, MOST_TASKS)
        step = Step(self.pool, label)
        token = _step.set(step)
        try:
            calls: list[tuple[Task[..., list[str]], dict[str, Any]]] = [
                (_named(label, number, len(batches)), {"root": root, "keys": batch, "limits": limits})
                for number, batch in enumerate(batches, 1)
            ]
            if self.pool is None or len(calls) < 2:
                with self._abandoning(root, keys):
                    for called, arguments in calls:
                        yield from called(**arguments)
                return
            threads: ThreadPoolTaskRunner[list[str]] = ThreadPoolTaskRunner(max_workers=min(self.count, len(calls)))
            with threads, self._abandoning(root, keys):
                try:
                    for future in as_completed([threads.submit(called, arguments) for called, arguments in calls]):
                        yield from future.result()
                finally:
                    step.stopped.set()
        finally:
            _step.reset(token)

    @contextlib.contextmanager
    def _abandoning(self, root: str, keys: Sequence[str]) -> Iterator[None]:
        """On Ctrl-C or a cancelled run the workers end at once: the threads wait for them, and they would go on."""
        try:
            yield
        except (Exception, GeneratorExit):
            raise
        except BaseException:
            abandon(self.pool, root, keys)
            raise


def _named(label: str, number: int, total: int) -> Task[..., list[str]]:
    run = f"{label} {number}/{total}" if total > 1 else label
    return partitions.with_options(name=label, task_run_name=run.replace("{", "{{").replace("}", "}}"))


def cut(keys: Sequence[str], most: int) -> list[list[str]]:
    """At most `most` runs of keys, in order, whose lengths differ by at most one."""
    count = min(len(keys), most)
    bounds = [len(keys) * n // count for n in range(count + 1)] if count else []
    return [list(keys[a:b]) for a, b in itertools.pairwise(bounds)]
