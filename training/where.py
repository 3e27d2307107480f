"""Which steps of a run read some documents: the order turned round, from the files of the run alone.

    document -> rows of the split -> places in each epoch (the inverse of the permutation) -> positions -> steps

Nothing was logged for this, and nothing is replayed: it costs what the documents' rows and the run's epochs are. The
law: the steps that are named are those, and all those, in which `trace` shows the document. No torch is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training import TrainingError
from training.manifest.arrays import integers, strings
from training.mix import Stream
from training.shards.arrow import view

if TYPE_CHECKING:
    from training.lineage import Before

TAIL = 1 << 16  # bytes at the end of metrics.jsonl that hold its last step


def where(folder: Path, ids: Sequence[str]) -> dict[str, Any]:
    """The steps in which a run has read each of `ids`, and its checkpoints that lie behind the first of them.

    `documents` lists those that its versions hold: doc_id, split, version, and `steps` with step (from 1), row (of the
    step, from 0) and tokens. Documents of another split than train were never trained on and have none.
    Raises TrainingError where the run or a version that it read cannot be read.
    """
    from training import journal

    books, run, version = journal.read(folder, verify=False)
    done = _done(books.metrics, int(books.table.get("step") or 0))
    stream = Stream(run, version)
    documents = _documents(stream, ids)
    rows, piece_of, tokens = _rows(stream, view(documents["number"].combine_chunks()).astype(np.int64))
    positions, read = stream.readings(np.unique(rows), done * run.batch.rows)
    step, row = np.divmod(positions, run.batch.rows)
    found = []
    for number, known in zip(documents["number"].to_pylist(), documents.to_pylist(), strict=True):
        mine = piece_of == number
        sizes = dict(zip(rows[mine].tolist(), tokens[mine].tolist(), strict=True))
        at = np.flatnonzero(np.isin(read, rows[mine]))
        steps = [{"step": int(step[i]) + 1, "row": int(row[i]), "tokens": sizes[int(read[i])]} for i in at.tolist()]
        found.append({**{name: known[name] for name in ("doc_id", "split", "version")}, "steps": steps})
    first = min((each["steps"][0]["step"] for each in found if each["steps"]), default=None)
    return {
        "run": books.folder.name,
        "version": version.address,
        "steps_done": done,
        "checkpoints": [] if first is None else [name for name in _checkpoints(folder) if int(name[5:]) >= first],
        "documents": found,
    }


def _documents(stream: Stream, ids: Sequence[str]) -> pa.Table:
    """number (as `Rows.documents` has them), doc_id, split and version of those of `ids` that the versions hold."""
    tables, wanted, first = [], strings(ids), 0
    for version in stream.versions:
        index = version.lookup_columns(("doc_id", "split"))
        at = view(pc.indices_nonzero(pc.is_in(index["doc_id"], value_set=wanted))).astype(np.int64)
        table = index.take(integers(at)).append_column("number", integers(at + first))
        tables.append(table.append_column("version", strings([version.address] * len(at))))
        first += version.manifest.documents.rows
    return pa.concat_tables(tables)


def _rows(stream: Stream, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(row of the split, document, its tokens there), once for each row that holds some of a document."""
    split, found = stream.split, [np.empty((0, 3), np.int64)]
    for shard, first_row in zip(split.shards, split.firsts.tolist(), strict=False):
        first = shard.entry.first_document
        wanted = numbers[(numbers >= first) & (numbers < first + shard.entry.documents)] - first
        for block, begin in zip(shard.blocks, shard.firsts.tolist(), strict=False) if len(wanted) else ():
            row, document, size = shard.layout.pieces(block)
            here = np.isin(document, wanted)
            placed = [row[here] + begin + first_row, document[here] + first, size[here]]
            found.append(np.stack(placed, axis=1).astype(np.int64))
    pieces = np.concatenate(found)
    both, at = np.unique(pieces[:, :2], axis=0, return_inverse=True)
    return both[:, 0], both[:, 1], np.bincount(at.ravel(), pieces[:, 2], len(both)).astype(np.int64)


def _done(metrics: Path, step: int) -> int:
    """Steps that were done: what run.json says, or a later one that metrics.jsonl ends with."""
    if not metrics.exists():
        return step
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - TAIL))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:  # the line under way, or one whose beginning was not read
            continue
        if entry.get("kind") in ("step", "refused"):
            return max(step, int(entry["step"]))
    return step


def _checkpoints(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in (folder / "checkpoints").glob("step-*/state.json"))


def everywhere(folders: Sequence[Path], ids: Sequence[str]) -> list[dict[str, Any]]:
    """`where` of several runs; one that cannot be asked says so in `problem`.

    `before` lists what stands behind the weights that a run began with: each earlier `run` with the `step` up to which
    it counts, and the `documents` of `ids` that it had read by then, None where it is none of these runs. The last may
    be of no known run: `run` and `step` are None.
    """
    found: list[dict[str, Any]] = []
    behind, known = [], {}
    for folder in folders:
        try:
            answer, (digest, before) = where(folder, ids), _behind(folder)
        except (TrainingError, OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            found.append({"run": folder.name, "folder": str(folder), "problem": str(error) or repr(error)})
        else:
            found.append({**answer, "folder": str(folder), "problem": None})
            behind.append((found[-1], before))
            known[digest] = answer["documents"]
    for answer, before in behind:
        answer["before"] = _before(before, known)
    return found


def _behind(folder: Path) -> tuple[str, Before | None]:
    """The digest of a run, and what stands behind the weights that it began with."""
    from training import journal, lineage

    books = journal.read_books(folder)
    return str(books.table["digest"]), lineage.before(books)


def _before(before: Before | None, known: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What `everywhere` says of it; `known` are the documents that runs have read, by the digest of the run."""
    found: list[dict[str, Any]] = []
    for run in before.runs if before else ():
        read = None
        if run.digest in known:
            read = [
                each["doc_id"] for each in known[run.digest] if each["steps"] and each["steps"][0]["step"] <= run.step
            ]
        found.append({"run": run.name, "step": run.step, "documents": read})
    if before and before.unknown:
        found.append({"run": None, "step": None, "documents": None})
    return found
