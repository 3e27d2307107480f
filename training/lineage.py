"""What a model has read: the texts of its run up to a step, and those behind the weights that the run began with.

A run with `init` writes down once, when it starts, what its weights had learnt from: `before.json` beside its run.json
(`catalogs/schemas/before.schema.json`), which holds what the run before says of itself and what that one's own
`before.json` says. So the licences of all that a model has read, and the evaluation items among it, are known where
only the last run is left. The law: what is known of a chain of runs is what would be known of one run over all their
texts, and where books are missing that is said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training import TrainingError, mix
from training.files import write_text
from training.manifest import ManifestError, Version, table_digest
from training.tables import Table
from training.where import where

if TYPE_CHECKING:  # which themselves ask for what is told here
    from training.config import Init
    from training.journal import Journal

FILE = "before.json"
UNSTATED = ("", "NOASSERTION", "NONE")


class Licence(Table):
    """Documents under a licence, an SPDX expression, and their tokens."""

    licence: str
    documents: int
    tokens: int


class Source(Table):
    """A source of a version as far as it is there to be trained on; `licence` is that of documents that state none."""

    name: str
    title: str
    homepage: str | None
    licence: str | None
    revision: str | None
    languages: list[str]
    licences: list[Licence]


class Items(Table):
    """Evaluation items, by `exposure.text_digest`, that were looked for in a version: those that were trained on, those
    that stand in documents which were not read, and those too short to be met. `sets` are the sets' plain names."""

    sets: list[str]
    read: list[str]
    unread: list[str]
    short: list[str]


class Texts(Table):
    """A version as a run read it; of `items` nothing is known where none were looked for."""

    address: str
    sha256: str
    sources: list[Source]
    items: Items | None


class Learnt(Table):
    """A run up to the step whose weights were taken."""

    name: str
    digest: str
    objective: str
    step: int
    weights: str
    texts: list[Texts]


class Before(Table):
    """What the weights that a run began with had learnt from: runs, the last one first, and behind them, where these
    did not begin with nothing, the digest of weights of which no books are known."""

    format: Literal["gristmill.before/1"] = "gristmill.before/1"
    runs: list[Learnt]
    unknown: str | None


def write(folder: Path, init: Init) -> dict[str, str]:
    """Write what stands behind the first weights of a run into its folder. Returns the entry for its run.json.

    Raises TrainingError where the run before, or a version that it read, cannot be read.
    """
    text = _behind(init).model_dump_json(indent=1) + "\n"
    write_text(folder / FILE, text)
    return {"file": FILE, "sha256": _sha256(text)}


def before(books: Journal) -> Before | None:
    """What stands behind the weights that a run began with; None where it began with none. Raises TrainingError."""
    init = books.table["config"]["init"]
    if init is None:
        return None
    said, path = books.table.get("before"), books.folder / FILE
    if said is None:  # of a run that began before this was written down
        return Before(runs=[], unknown=init["weights"])
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{path}: cannot be read ({error}), though run.json names it; copy the run whole"
        ) from error
    if _sha256(text) != said["sha256"]:
        raise TrainingError(f"{path}: is not what run.json says; copy the run again, whole")
    return Before.model_validate_json(text)


def _behind(init: Init) -> Before:
    from training import checkpoint, initial, journal

    found = initial.source(Path(init.folder))
    if found.digest != init.weights:
        raise TrainingError(f"init {init.folder}: its weights have changed since the run file was read; start again")
    if found.checkpoint is None:
        return Before(runs=[], unknown=init.weights)
    folder = found.checkpoint.parents[1]
    books, run, version = journal.read(folder, verify=False)
    step = int(checkpoint.read_state(found.checkpoint, verify=False)["step"])
    sources = mix.sources(run, version)
    met = items(folder, step, version)
    texts = [
        Texts(address=each.address, sha256=each.sha256, sources=read(each, sources[each.address]), items=one)
        for each, one in zip((version, *version.beside), met, strict=True)
    ]
    use, known = str(run.objective["use"]), {"name": str(books.table["name"]), "digest": str(books.table["digest"])}
    learnt = Learnt(**known, objective=use, step=step, weights=init.weights, texts=texts)
    earlier = before(books) or Before(runs=[], unknown=None)
    return Before(runs=[learnt, *earlier.runs], unknown=earlier.unknown)


def read(version: Version, chosen: set[str] | None) -> list[Source]:
    """The sources of a version's train split, of those `chosen` or of all, with what their documents state."""
    index = version.documents.select(["source", "language", "licence", "tokens", "split"])
    index = index.filter(pc.equal(index["split"], "train"))
    stated = pc.utf8_trim_whitespace(pc.fill_null(index["licence"], ""))
    unstated = pc.is_in(pc.utf8_upper(stated), pa.array(UNSTATED))
    index = index.set_column(2, "licence", pc.if_else(unstated, "NOASSERTION", stated))
    sums = index.group_by(["source", "licence"]).aggregate([([], "count_all"), ("tokens", "sum")]).to_pylist()
    spoken = index.group_by(["source", "language"]).aggregate([]).to_pylist()
    found = []
    for one in version.manifest.sources:
        name = str(one["name"])
        mine = sorted((row for row in sums if row["source"] == name), key=lambda row: str(row["licence"]))
        if not mine or (chosen is not None and name not in chosen):
            continue
        licences = [
            Licence(licence=row["licence"], documents=row["count_all"], tokens=row["tokens_sum"]) for row in mine
        ]
        languages = sorted(row["language"] for row in spoken if row["source"] == name and row["language"])
        said = {key: one[key] for key in ("title", "homepage", "licence", "revision")}
        found.append(Source(name=name, **said, languages=languages, licences=licences))
    return found


def items(folder: Path, step: int, version: Version) -> list[Items | None]:
    """Which evaluation items a run had read by a step, of each of its versions.

    Raises ManifestError where the list of a version is missing or altered.
    """
    versions = (version, *version.beside)
    lists = [_listed(each) for each in versions]
    holders = sorted({row["doc_id"] for rows in lists for row in rows or () if row["fate"] == "kept"})
    done = set(_read(folder, step, holders))
    found: list[Items | None] = []
    for each, rows in zip(versions, lists, strict=True):
        said = each.manifest.contamination
        if rows is None or said is None:
            found.append(None)
            continue
        kept = [row for row in rows if row["fate"] == "kept"]
        learnt = {row["text_digest"] for row in kept if (each.address, row["doc_id"]) in done}
        known = {
            "sets": {plain(str(one["name"])) for one in said.sets},
            "read": learnt,
            "unread": {row["text_digest"] for row in kept} - learnt,
            "short": {row["text_digest"] for row in rows if row["fate"] != "kept" and row["doc_id"] is None},
        }
        found.append(Items(**{name: sorted(values) for name, values in known.items()}))
    return found


def plain(name: str) -> str:
    """A set's name as it is compared: arc_easy.jsonl and arc-easy are one."""
    return Path(name.partition("@")[0]).stem.lower().replace("_", "-")


def _listed(version: Version) -> list[dict[str, str]] | None:
    """text_digest, doc_id and fate of each row of a version's list; None where it has none."""
    said = version.manifest.contamination
    if said is None:
        return None
    path = version.folder / said.file
    if not path.is_file():
        raise ManifestError(f"{path}: missing, though the manifest lists it; copy the version again, whole")
    table = pq.ParquetFile(path).read()
    if table_digest(table) != said.digest:
        raise ManifestError(f"{path}: the digest of its values is not the manifest's; copy the version again")
    rows: list[dict[str, str]] = table.select(["text_digest", "doc_id", "fate"]).to_pylist()
    return rows


def _read(folder: Path, step: int, documents: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(version, doc_id) of those of the documents of which the run had read any part by a step."""
    for one in where(folder, documents)["documents"] if documents else ():
        if one["steps"] and one["steps"][0]["step"] <= step:
            yield one["version"], one["doc_id"]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
