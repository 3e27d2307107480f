"""The verbs that make something: checked first, then done through a Prefect flow, or without Prefect.

What a person can get wrong is found in well under a second, before Prefect is imported or a server started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flows import embedded, progress, runs, work
from flows.parameters import BuildParameters, MillParameters, TrainParameters
from flows.screen import Screen
from pipeline.manifest import Version
from pipeline.memory import watching
from pipeline.recipe import parse_size


def mill(
    store: str,
    data: str | None,
    workers: int | None,
    memory: str | None = None,
    partition_size: str = "8MB",
    batch_rows: int = 4096,
) -> MillParameters:
    """The checked parameters of a mill. Raises ConfigError."""
    parse_size(partition_size, "--partition-size")
    if memory is not None:
        parse_size(memory, "--memory")
    given = MillParameters(
        store=store,
        data=data,
        workers=workers,
        memory=memory,
        partition_size=partition_size,
        batch_rows=batch_rows,
    )
    given.task_memory()  # refuses a memory that is too small
    return given


def build(given: BuildParameters, direct: bool, screen: Screen) -> dict[str, Any]:
    """Build a recipe; returns what `work.made` says of the version."""
    work.recipe(given)
    with at_work(direct, screen):
        if direct:
            return _weighed(lambda: work.build(given))
        from flows.build import build as flow

        return _weighed(lambda: work.sealed(flow(given)))


def _weighed(build: Callable[[], Version]) -> dict[str, Any]:
    """What a build made, and the most that its processes held."""
    with watching() as peak:
        version = build()
    return {**work.made(version), "peak_memory_bytes": peak.bytes}


def train(given: TrainParameters, direct: bool, screen: Screen) -> dict[str, Any]:
    """Train a run; returns what the trainer says it made."""
    work.order(given)
    with at_work(direct, screen):
        if direct:
            return work.train(given)
        from flows.train import train as flow

        return dict(flow(given))


def corpus_to_model(
    recipe: BuildParameters, trainings: Sequence[TrainParameters], direct: bool, screen: Screen
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Build, then train on what came out, each run from the weights of the one before; returns all results."""
    work.recipe(recipe)
    for training in trainings:
        runs.locate(training.run)
    first, *then = trainings
    with at_work(direct, screen):
        if direct:
            results = work.corpus_to_model(recipe, first, then)
        else:
            from flows.corpus_to_model import corpus_to_model as flow

            last = dict(flow(recipe, first, then))
            results = [*last.pop("before", []), last]
        return work.made(work.sealed(results[-1]["manifest"])), results


@contextlib.contextmanager
def at_work(direct: bool, screen: Screen) -> Iterator[None]:
    """Progress on stderr, and a Prefect API unless the work is done without."""
    with progress.shown(screen.err) as reporter:
        if direct:
            yield
            return
        reporter.phase("start Prefect", 1)
        with embedded.api():
            reporter.advance()
            yield
