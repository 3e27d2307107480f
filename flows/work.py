"""Build and train, whoever does the tasks: the one plan behind the verbs, the flows and the deployments.

Everything that a person can get wrong is checked before the first task, and before Prefect's server starts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows import guard, lineage, process, progress, runs
from flows.parameters import BuildParameters, MillParameters, TrainParameters
from pipeline import addresses, books, licences, references
from pipeline import manifest as manifests
from pipeline import rebuild as rebuilding
from pipeline import recipe as recipes
from pipeline.build import Mill
from pipeline.compare import Comparison
from pipeline.extending import checking as extending
from pipeline.extending import operation as growing
from pipeline.forgetting import operation, statement
from pipeline.forgetting.selecting import Request
from pipeline.manifest import Version
from pipeline.plan import Input
from pipeline.recipe import Recipe
from pipeline.runner import Local, Runner, workers
from pipeline.stage import ConfigError
from pipeline.store import Store

MakeRunner = Callable[[Executor | None, int], Runner]


def direct(pool: Executor | None, count: int) -> Runner:
    """This process and its workers, without Prefect."""
    return Local(pool)


def recipe(parameters: BuildParameters) -> Recipe:
    """The checked recipe; of one that extends a version, that of what comes out. Raises ConfigError or SourceError."""
    if asked := extending.request_of(parameters.recipe):
        return extension(parameters.mill, asked, parameters.allow_dead).recipe
    return recipes.load(parameters.recipe, parameters.mill.folder).allowing(parameters.allow_dead)


def build(parameters: BuildParameters, make: MakeRunner = direct) -> Version:
    """A recipe's sources to a sealed version. Raises what `Mill.build` and `recipe` raise."""
    if asked := extending.request_of(parameters.recipe):
        return extend(parameters.mill, extension(parameters.mill, asked, parameters.allow_dead), make)
    checked, mill = recipe(parameters), parameters.mill
    with lineage.told(mill.root, lineage.building(checked)) as told:
        with at_mill(mill, Store(mill.root), checked.foreign, make) as ready:
            version = ready.build(checked)
        lineage.built(told, version)
    return version


def extension(parameters: MillParameters, asked: extending.Request, allow_dead: Sequence[str] = ()) -> extending.Plan:
    """What an extension would do. Raises what `checking.check` raises."""
    planned = extending.check(Store(parameters.root), asked, parameters.folder)
    return replace(planned, recipe=planned.recipe.allowing([*planned.recipe.allow_dead, *allow_dead]))


def extend(parameters: MillParameters, planned: extending.Plan, make: MakeRunner = direct) -> Version:
    """Extend a version. Raises what `operation.extend` raises."""
    with lineage.told(parameters.root, lineage.building(planned.recipe)) as told:
        with at_mill(parameters, Store(parameters.root), planned.recipe.foreign, make) as mill:
            version = growing.extend(mill, planned)
        lineage.built(told, version)
    return version


@contextlib.contextmanager
def at_mill(parameters: MillParameters, store: Store, apart: bool, make: MakeRunner = direct) -> Iterator[Mill]:
    """A mill that fills `store`, with its workers. Raises ConfigError where the memory is too small for them."""
    guard.settle()
    count, memory = parameters.crew(apart), parameters.task_memory(apart)
    size = recipes.parse_size(parameters.partition_size)
    with references.used(parameters.folder), workers(count, apart) as pool:
        yield Mill(store, make(pool, count), progress.current(), size, parameters.batch_rows, memory, count)


def rebuild(parameters: MillParameters, address: str, keep: bool) -> Comparison:
    """Build a version again in a scratch store and compare. Raises what `addresses.find` and `rebuild` there raise."""
    store = Store(parameters.root)

    def build(scratch: Store, recipe: Recipe, inputs: Sequence[Input]) -> Version:
        with at_mill(parameters, scratch, recipe.foreign) as mill:
            return mill.build(recipe, inputs)

    return rebuilding.rebuild(store, *addresses.find(store, address), build, parameters.folder, keep)


def forgetting(parameters: MillParameters, address: str, request: Request) -> operation.Plan:
    """What forgetting would do. Raises what `addresses.find` and `operation.plan` raise."""
    store = Store(parameters.root)
    return operation.plan(store, *addresses.find(store, address), request)


def forget(
    parameters: MillParameters,
    address: str,
    request: Request,
    keep_parent: bool,
    tell: Callable[[operation.Plan], None],
) -> dict[str, Any]:
    """Forget, and return the statement, the version's address and where it lies; `tell` is told the plan first.

    What was interrupted is finished before anything else; where that is what is asked for, it is the answer.
    """
    store = Store(parameters.root)
    for version in operation.unfinished(store):
        whole = operation.finish(store, version)
        if whole["statement"]["request"] == request.described():
            return _stated(version, whole)
    version, keys = addresses.find(store, address)
    made = operation.plan(store, version, keys, request)
    tell(made)

    def readers(ids: Sequence[str]) -> list[dict[str, Any]]:
        return process.asked([run.folder for run in runs.of(parameters.root)], ids)

    with at_mill(parameters, store, False) as mill:
        new = operation.forget(mill, version, keys, made, readers, keep_parent)
    return _stated(new, statement.read(new.folder))


def _stated(version: Version, whole: dict[str, Any]) -> dict[str, Any]:
    place = version.folder.absolute()
    return {
        "version": version.address,
        "path": str(place / statement.TEXT),
        "manifest": str(place / "manifest.json"),
        **whole,
    }


def order(parameters: TrainParameters) -> process.Fit:
    """The run file and the version found. Raises ConfigError where there is none, StoreError where it is damaged."""
    run = runs.locate(parameters.run)
    address = parameters.version or runs.name_of(run)
    store = Store(parameters.root)
    version = _version(store, address, given=parameters.version is not None)
    mixed = [manifests.find(store, each) for each in runs.mixed(run)]
    return process.Fit(
        run=run,
        manifest=version.folder.absolute() / "manifest.json",
        runs=parameters.root / "runs",
        name=parameters.name,
        processes=parameters.processes,
        beside=tuple(sorted({v.folder.absolute() / "manifest.json" for v in mixed if v.address != version.address})),
        changes=parameters.changes,
    )


def train(parameters: TrainParameters) -> dict[str, Any]:
    """Train a run from a version's manifest; returns what the trainer says it made.

    Raises what `order` raises, and TrainingRefused, TrainingStopped or TrainingFailed.
    """
    ordered = order(parameters)
    versions = [manifests.read(path.parent) for path in (ordered.manifest, *ordered.beside)]
    with lineage.told(parameters.root, lineage.training(ordered.run, versions)) as told:
        result = process.fit(ordered, progress.current())
        lineage.trained(told, result)
    return result


def _version(store: Store, address: str, given: bool) -> Version:
    try:
        return manifests.find(store, address)
    except ConfigError as error:
        if given:
            raise
        raise ConfigError(
            f"{error}; build it first (gristmill build {address}), or name another with --manifest"
        ) from error


def corpus_to_model(
    build_parameters: BuildParameters, first: TrainParameters, then: Sequence[TrainParameters] = ()
) -> list[dict[str, Any]]:
    """Build, then train on the version that came out, in the same store; what each run made."""
    version = build(build_parameters)
    address = str(version.folder.absolute() / "manifest.json")
    return in_turn(train, (first, *then), address, build_parameters.mill.store)


def in_turn(
    train: Callable[[TrainParameters], dict[str, Any]], runs: Sequence[TrainParameters], address: str, store: str
) -> list[dict[str, Any]]:
    """What `train` makes of each run over one version; all but the first begin with the weights of the one before."""
    results: list[dict[str, Any]] = []
    for given in runs:
        begin = (f"init={json.dumps(results[-1]['folder'])}",) if results else ()
        changes = {"version": address, "store": store, "changes": (*begin, *given.changes)}
        results.append(train(given.model_copy(update=changes)))
    return results


def sealed(manifest: str | Path) -> Version:
    """The version of which a flow returned the manifest's path."""
    return manifests.read(Path(manifest).parent)


def dropped(root: str, address: str) -> str | None:
    """The id of a document that deduplication, or else some rule, dropped: something to ask `why` about."""
    store = Store(Path(root).expanduser())
    gone = books.ledger(store, manifests.find(store, address).build_keys())
    ids = {stage: doc_id for doc_id, stage in zip(*(gone[n].to_pylist() for n in ("doc_id", "stage")), strict=True)}
    return ids.get("near") or next(iter(ids.values()), None)


def made(version: Version) -> dict[str, Any]:
    """What a build made, as plain data: names, paths, and the books in a line."""
    table = version.manifest
    return {
        "name": table["name"],
        "version": table["version"],
        "address": version.address,
        "manifest": str(version.folder.absolute() / "manifest.json"),
        "tokenizer": str(version.folder.absolute() / table["tokenizer"]["file"]),
        "documents": table["summaries"]["documents"],
        "unknown_licence": licences.counted(table["summaries"]).get(licences.UNKNOWN, 0),
        "canaries": table["summaries"].get("canaries"),
        "splits": {
            name: {key: split[key] for key in ("rows", "tokens", "truncated")}
            for name, split in table["splits"].items()
        },
    }
