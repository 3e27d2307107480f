"""Lineage as OpenLineage states it: one event when a build or a run begins, and one when it ends.

    STORE/lineage.jsonl        every event, a line each
    OPENLINEAGE_URL            where they are sent too, with OPENLINEAGE_ENDPOINT (api/v1/lineage) behind it and
                               OPENLINEAGE_API_KEY as the bearer; OPENLINEAGE_NAMESPACE names what is ours (gristmill),
                               OPENLINEAGE_DISABLED=true tells nobody anything

A source, a version and a run are data sets, `source/NAME`, `version/NAME` and `run/NAME`: what `train` reads is what
`build` wrote, and a run that it goes on from. Events have clocks, so they lie in a file of their own and in no digest.
The law: lineage that cannot be told is a note, and never stops the work. Events are of schema 2-0-2
(https://openlineage.io/spec/2-0-2/OpenLineage.json).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import progress
from flows.process import TrainingStopped
from flows.screen import clean
from pipeline import licences
from pipeline.manifest import Version
from pipeline.recipe import Recipe

FILE = "lineage.jsonl"
SPEC = "https://openlineage.io/spec"
EVENT = f"{SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = {
    "documentation": f"{SPEC}/facets/1-0-1/DocumentationDatasetFacet.json#/$defs/DocumentationDatasetFacet",
    "dataSource": f"{SPEC}/facets/1-0-1/DatasourceDatasetFacet.json#/$defs/DatasourceDatasetFacet",
    "version": f"{SPEC}/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
    "outputStatistics": f"{SPEC}/facets/1-0-2/OutputStatisticsOutputDatasetFacet.json"
    "#/$defs/OutputStatisticsOutputDatasetFacet",
    "jobType": f"{SPEC}/facets/2-0-3/JobTypeJobFacet.json#/$defs/JobTypeJobFacet",
    "processing_engine": f"{SPEC}/facets/1-1-1/ProcessingEngineRunFacet.json#/$defs/ProcessingEngineRunFacet",
    "errorMessage": f"{SPEC}/facets/1-0-1/ErrorMessageRunFacet.json#/$defs/ErrorMessageRunFacet",
    # Ours; the base of every facet allows what it does not name.
    "gristmill_licences": f"{SPEC}/2-0-2/OpenLineage.json#/$defs/DatasetFacet",
}
SECONDS = 5.0
DataSet = dict[str, Any]


@dataclass
class Run:
    """One build or training under way: what it reads, and what it has made by its end."""

    job: str
    kind: str
    inputs: list[DataSet]
    outputs: list[DataSet] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


def building(recipe: Recipe) -> Run:
    """The build of a recipe, whose sources are not read yet."""
    inputs = [_source(card.name, card.title, card.homepage) for card in recipe.sources]
    return Run(f"build.{recipe.name}", "BUILD", inputs, [_dataset("version", recipe.name)])


def built(run: Run, version: Version) -> None:
    """Say what a build read and made."""
    table = version.manifest
    run.inputs = [_source(s["name"], s["title"], s["homepage"], s["revision"]) for s in table["sources"]]
    shards = [shard for split in table["splits"].values() for shard in split["shards"]]
    statistics = {
        "rowCount": sum(shard["rows"] for shard in shards),
        "size": sum(shard["bytes"] for shard in shards),
        "fileCount": len(shards),
    }
    made = _version(version)
    made["outputFacets"] = _facets(outputStatistics=statistics)
    run.outputs = [made]


def training(run: Path, versions: Sequence[Version]) -> Run:
    """A training run over some versions."""
    return Run(f"train.{run.stem}", "TRAIN", [_version(version) for version in versions])


def trained(run: Run, result: Mapping[str, Any]) -> None:
    """Say what a run made, and whose weights it began with."""
    run.inputs += _before(Path(str(result["folder"])))
    said = f"{result.get('steps')} steps, {result.get('bits_per_byte')} bits per byte, in {result.get('folder')}"
    run.outputs = [_dataset("run", str(result["run"]), documentation={"description": clean(said)})]


def _before(folder: Path) -> list[DataSet]:
    """The run whose weights a run began with, as the trainer wrote it down."""
    try:
        runs = json.loads((folder / "before.json").read_text("utf-8"))["runs"]
        return [_dataset("run", str(one["name"])) for one in runs[:1]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as problem:
        progress.current().note(f"lineage was not told (the run before {folder.name}): {clean(problem)}")
        return []


@contextlib.contextmanager
def told(root: Path, run: Run) -> Iterator[Run]:
    """Tell that `run` begins, and how it ends: COMPLETE, ABORT where it was stopped, FAIL with the error's words."""
    _tell(root, run, "START")
    try:
        yield run
    except (KeyboardInterrupt, TrainingStopped):
        _tell(root, run, "ABORT")
        raise
    except BaseException as error:
        _tell(root, run, "FAIL", error)
        raise
    _tell(root, run, "COMPLETE")


def _tell(root: Path, run: Run, state: str, error: BaseException | None = None) -> None:
    if os.environ.get("OPENLINEAGE_DISABLED", "").lower() in ("1", "true"):
        return
    line = json.dumps(event(run, state, error), ensure_ascii=True)
    try:
        _write(root / FILE, line)
        if url := os.environ.get("OPENLINEAGE_URL"):
            _send(url, line)
    except (OSError, ValueError) as problem:
        progress.current().note(f"lineage was not told ({state} of {run.job}): {clean(problem)}")


def event(run: Run, state: str, error: BaseException | None = None) -> dict[str, Any]:
    """The event of a run that is now in `state`."""
    facets = {"processing_engine": {"name": "gristmill", "version": _release()}}
    if error is not None:
        message = clean(str(error) or type(error).__name__, 2000)
        facets["errorMessage"] = {"message": message, "programmingLanguage": "Python"}
    job = {"processingType": "BATCH", "integration": "GRISTMILL", "jobType": run.kind}
    return {
        "eventType": state,
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "producer": _producer(),
        "schemaURL": EVENT,
        "run": {"runId": run.id, "facets": _facets(**facets)},
        "job": {"namespace": _namespace(), "name": run.job, "facets": _facets(jobType=job)},
        "inputs": run.inputs,
        "outputs": run.outputs,
    }


def _write(path: Path, line: str) -> None:
    """Append a line in one write, so that several processes never mix theirs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def _send(url: str, line: str) -> None:
    endpoint = os.environ.get("OPENLINEAGE_ENDPOINT", "api/v1/lineage")
    place = f"{url.rstrip('/')}/{endpoint.lstrip('/')}"
    if not place.startswith(("http://", "https://")):
        raise ValueError(f"OPENLINEAGE_URL is no address of the web: {url}")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(place, line.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass


def _source(name: str, title: str, homepage: str, revision: str | None = None) -> DataSet:
    about = {"documentation": {"description": clean(title)}, "dataSource": {"name": name, "uri": homepage}}
    return _dataset("source", name, **about, **({"version": {"datasetVersion": revision}} if revision else {}))


def _version(version: Version) -> DataSet:
    counts = licences.counted(version.manifest["summaries"])
    listed = [{"licence": clean(name), "documents": documents} for name, documents in counts.items()]
    stated = {"version": {"datasetVersion": version.manifest["version"]}, "gristmill_licences": {"licences": listed}}
    return _dataset("version", version.manifest["name"], **stated)


def _dataset(kind: str, name: str, **facets: dict[str, Any]) -> DataSet:
    return {"namespace": _namespace(), "name": f"{kind}/{name}", "facets": _facets(**facets)}


def _facets(**facets: dict[str, Any]) -> dict[str, Any]:
    base = {"_producer": _producer()}
    return {name: {**base, "_schemaURL": FACETS[name], **content} for name, content in facets.items()}


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or "gristmill"


def _producer() -> str:
    """A package URL, https://github.com/package-url/purl-spec."""
    return f"pkg:pypi/gristmill@{_release()}"


def _release() -> str:
    try:
        return importlib.metadata.version("gristmill")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
