"""The verb `eval`: what a trained model knows, asked by suites of questions, and how well it predicts a split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import TrainingError, terminal
from training.using import ModelArgument

if TYPE_CHECKING:
    from training.loading import Loaded
    from training.manifest import Version
    from training.parallel import Group
    from training.progress import Reporter
    from training.suites import Suite

BATCH = 32


def evaluate(
    folder: ModelArgument,
    suite: Annotated[
        Path | None, typer.Option(metavar="SUITE.toml", help="Sets of questions, and how they are put.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VERSION", help="The version of a set that the suite names; once for each."),
    ] = None,
    version: Annotated[
        Path | None,
        typer.Option(metavar="VERSION", help="Version whose split is to be predicted; default: the run's own."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Split to be predicted; default, without a suite: val.")
    ] = None,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, help="Continuations, or rows, that are computed side by side.")
    ] = BATCH,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of each process; default: the cores, shared out.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where scores are written; default: in the run, or ./scores/MODEL for others."
        ),
    ] = None,
    export_lm_eval: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the suite as tasks of lm-eval, with these prompts, and end."),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append progress to this file, a JSON object a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End stdout with one JSON object: every score.")] = False,
) -> None:
    """Score a model: suites of questions by likelihood, and bits per byte of a split by source, language and domain.

    Every score has a 95 % bootstrap interval over its items and the score of chance; the answers to every item are
    written beside them. Items that the model was trained on, where its version lists them, are scored apart. The same
    bits come out for any number of processes (torchrun); other --threads or another --batch may move log-likelihoods by
    .001 nats.
    A prompt that is longer than the context loses its beginning, and is counted.

    \b
      python -P -m training eval RUN --split val
      python -P -m training eval RUN --suite english.toml --set arc-easy=VERSION --json
      torchrun --nproc-per-node 2 -m training eval RUN --suite english.toml --set arc-easy=VERSION
      python -P -m training eval EXPORT --suite english.toml --set arc-easy=VERSION --export-lm-eval tasks
    """
    from training import loading, parallel, progress
    from training.config import Precision
    from training.suites import load

    asked = load(suite) if suite else None
    with parallel.joined(Precision(threads=threads)) as group:
        versions = _versions(sets or [], group)
        loaded = loading.load(folder, str(group.device))
        if export_lm_eval:
            if group.first:
                _export(folder, asked, versions, export_lm_eval)
            return
        reporter = progress.reporter(events) if group.first else progress.Silent()
        try:
            result = _scored(folder, loaded, asked, versions, version, split, batch, out, group, reporter)
        finally:
            reporter.close()
        if group.first:
            print(json.dumps(result) if as_json else terminal.visible("\n".join(terminal.scored(result))), flush=True)


def _versions(sets: list[str], group: Group) -> dict[str, Version]:
    """The sets by name. Raises TrainingError; the first rank checks every byte before another looks."""
    from training.manifest import open_version

    named = {}
    for given in sets:
        name, equals, place = given.partition("=")
        if not (name and equals and place):
            raise TrainingError(f"--set {given}: expected NAME=VERSION, the folder of a version or its manifest.json")
        named[name] = place
    if group.first:
        for place in named.values():
            open_version(place)
    group.wait()
    return {name: open_version(place, verify=False) for name, place in named.items()}


def _scored(
    folder: Path,
    loaded: Loaded,
    suite: Suite | None,
    versions: Mapping[str, Version],
    version: Path | None,
    split: str | None,
    batch: int,
    out: Path | None,
    group: Group,
    reporter: Reporter,
) -> dict[str, Any]:
    """Ask, and write down where there is a place for it; returns what is said."""
    from training.suites import exposure, page, places, taking
    from training.suites.prediction import predict

    place = places.of(folder, loaded.name)
    result: dict[str, Any] = {"format": taking.FORMAT, "model": place.described(loaded)}
    if suite is None or version is not None or split is not None:
        result["prediction"] = predict(folder, loaded, version, split or "val", batch, group, reporter)
    taken = []
    if suite is not None:
        asked = {one.set: versions[one.set] for one in suite.set if one.set in versions}
        known = {} if place.run is None or place.step is None else exposure.of_run(place.run, place.step, asked)
        taken = taking.take(suite, loaded, versions, group, reporter, batch=batch, exposures=known)
        result |= {"suite": suite.name, "sets": [one.said for one in taken]}
    if group.first:
        target = out or place.target(suite.name if suite else f"split-{result['prediction']['split']}")
        taking.write(target, taken)
        page.write(target, result)
        place.enter(result, target)
        result["folder"] = str(target)
    group.wait()
    return result


def _export(folder: Path, suite: Suite | None, versions: Mapping[str, Version], target: Path) -> None:
    from training.suites import adapter

    if suite is None:
        raise TrainingError("--export-lm-eval writes the tasks of a suite; give --suite SUITE.toml")
    names = adapter.export(suite, versions, target)
    say = (
        "HF_HUB_OFFLINE=1 lm-eval run --model hf --model_args",
        f"pretrained={folder}",
        "--include_path",
        f"{target}",
    )
    print(" ".join((*say, "--tasks", ",".join(names))))
