"""One partition through the per-document stages of one segment, in one pass, with its books.

The one law: every document that enters leaves exactly once. What a stage cannot bear is
found by halving the batch until one document stands accused; it is quarantined with the
error's text and the others go on. Measure all, judge once: nothing is dropped here, the
rules are judged over the stored signals (`tasks.judge`), so a changed threshold needs no
new pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline import licences, together
from pipeline.contract import ContractError, settle
from pipeline.models import ModelError
from pipeline.schema import DOCUMENT, LEDGER, ledger
from pipeline.sources import Chunk
from pipeline.stage import Stage

# What travels with a document besides its own columns; `split` is known behind the last barrier.
WORKING = pa.schema([*DOCUMENT, *(pa.field(name, pa.string()) for name in ("language", "split", "split_group"))])
BORN = "born"
# What says something of this machine and nothing of a document: the build stops, whatever the batch holds.
MACHINE = (MemoryError, OSError, ImportError, ModelError)


@dataclass
class Outcome:
    """What one partition leaves: documents as they now stand, signals, sketches, and who was turned away."""

    documents: pa.Table
    signals: pa.Table
    sketches: dict[str, pa.Table]
    errors: pa.Table
    entered: pa.Table
    added: dict[str, int]


def run(
    chunks: Iterable[Chunk],
    stages: Sequence[Stage],
    sketches: Sequence[Stage],
    batch_rows: int,
    licence: bool = False,
) -> Outcome:
    """Measure, rewrite and extend every document of `chunks`; sketch them for the barrier behind.

    `licence` stores the licence as a signal, for the recipe's licence rule.
    """
    entered: list[pa.RecordBatch] = []
    errors: list[pa.Table] = []
    batches = _rebatch(_admit(chunks, entered, errors), batch_rows)
    added = {stage.name: 0 for stage in stages if stage.kind == "extend"}
    documents: list[pa.RecordBatch] = []
    signals: list[pa.RecordBatch] = []
    sketched: dict[str, list[pa.RecordBatch]] = {stage.name: [] for stage in sketches}
    for batch in batches:
        whole = _through(batch, stages, errors, added, licence)
        for stage in sketches:
            whole = _sketch(stage, whole, sketched[stage.name], errors)
        documents.append(whole.select(WORKING.names))
        signals.append(_signals(whole))
    left = pa.Table.from_batches(documents, WORKING)
    outcome = Outcome(
        documents=left,
        signals=pa.Table.from_batches(signals or [_signals(_through(empty(), stages, [], {**added}, licence))]),
        sketches={s.name: _of(left, sketched[s.name] or [_sketch_table(s, empty())]) for s in sketches},
        errors=pa.concat_tables([LEDGER.empty_table(), *errors]),
        entered=pa.Table.from_batches(entered, ENTERED),
        added=added,
    )
    _check(outcome)
    return outcome


ENTERED = pa.schema([("doc_id", pa.string()), ("text_bytes", pa.int64())])


def empty() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], WORKING)


def widen(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A DOCUMENT batch with the working columns behind it, null where they are not known yet."""
    have = set(batch.schema.names)
    columns = [
        batch[field.name].cast(field.type) if field.name in have else pa.nulls(batch.num_rows, field.type)
        for field in WORKING
    ]
    return pa.record_batch(columns, schema=WORKING)


def _admit(chunks: Iterable[Chunk], entered: list[pa.RecordBatch], errors: list[pa.Table]) -> Iterator[pa.RecordBatch]:
    for chunk in chunks:
        sizes = pc.binary_length(chunk.documents["text"]).cast(pa.int64())
        refused = pa.nulls(chunk.rejects.num_rows, pa.int64())
        entered.append(pa.record_batch([chunk.documents["doc_id"], sizes], schema=ENTERED))
        entered.append(pa.record_batch([chunk.rejects["doc_id"], refused], schema=ENTERED))
        errors.append(pa.Table.from_batches([chunk.rejects], LEDGER))
        yield widen(chunk.documents)


def _rebatch(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in the same order, `rows` at a time."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            whole = pa.concat_batches(waiting)
            yield whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_batches(waiting)


def _through(
    batch: pa.RecordBatch, stages: Sequence[Stage], errors: list[pa.Table], added: dict[str, int], licence: bool
) -> pa.RecordBatch:
    """One batch through all stages of the segment; the accused leave into `errors`."""
    batch = batch.append_column(BORN, pa.array(np.zeros(batch.num_rows, np.int32)))
    if licence:
        batch = batch.append_column("licence.licence", licences.filled(batch["licence"]))
    done: set[str] = set()
    for number, stage in enumerate(stages, 1):
        if stage.name not in done:
            batch, found = together.measure(stages[number - 1 :], batch)
            done.update(found)
        if stage.name in done:
            continue
        before = batch.num_rows
        batch, accused = attempt(stage, batch, functools.partial(settle, stage))
        errors.append(accused)
        if stage.kind == "extend":
            originals = before - accused.num_rows
            added[stage.name] += batch.num_rows - originals
            batch = _born(batch, originals, number)
    return _content(_language(batch, stages))


def attempt(
    stage: Stage, batch: pa.RecordBatch, accept: Callable[[pa.RecordBatch, Any], pa.RecordBatch]
) -> tuple[pa.RecordBatch, pa.Table]:
    """Apply a stage; on an exception halve the batch until one document stands accused.

    Returns the accepted batch and the ledger of the accused, both in input order. Raises ContractError and MACHINE.
    """
    try:
        return accept(batch, stage(batch)), LEDGER.empty_table()
    except (ContractError, *MACHINE):
        raise
    except Exception as error:
        if batch.num_rows <= 1:
            if batch.num_rows == 0:
                raise ContractError(f"stage {stage.name} cannot take an empty batch: {error!r}") from error
            row = {
                "doc_id": batch["doc_id"][0].as_py(),
                "stage": stage.name,
                "verdict": "quarantined",
                "reason": type(error).__name__,
                "detail": str(error)[:500],
            }
            nobody = batch.slice(0, 0)
            return accept(nobody, stage(nobody)), pa.Table.from_batches([ledger([row])])
    half = batch.num_rows // 2
    left, left_accused = attempt(stage, batch.slice(0, half), accept)
    right, right_accused = attempt(stage, batch.slice(half), accept)
    # The children of an @extend stay behind all originals.
    cuts = half - left_accused.num_rows, batch.num_rows - half - right_accused.num_rows
    parts = [left.slice(0, cuts[0]), right.slice(0, cuts[1]), left.slice(cuts[0]), right.slice(cuts[1])]
    return pa.concat_batches(parts), pa.concat_tables([left_accused, right_accused])


def _born(batch: pa.RecordBatch, originals: int, number: int) -> pa.RecordBatch:
    """Children were not there when earlier stages measured: their copied signals are forgotten."""
    is_child = pa.array(np.arange(batch.num_rows) >= originals)
    for index, name in enumerate(batch.schema.names):
        if name == BORN:
            batch = batch.set_column(index, name, pc.if_else(is_child, pa.scalar(number, pa.int32()), batch[name]))
        elif "." in name:
            batch = batch.set_column(index, name, pc.if_else(is_child, pa.scalar(None, batch[name].type), batch[name]))
    return batch


def _language(batch: pa.RecordBatch, stages: Sequence[Stage]) -> pa.RecordBatch:
    """A stage that measures `lang` says what language a document is in, from here on."""
    for stage in stages:
        if "lang" in stage.signals:
            said = pc.coalesce(batch[f"{stage.name}.lang"], batch["language"])
            batch = batch.set_column(batch.schema.get_field_index("language"), "language", said)
    return batch


def _content(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The text's 128-bit digest and its size in bytes, as signals of every document."""
    digests = [xxhash.xxh3_128_digest(text.as_buffer()) for text in batch["text"]]
    batch = batch.append_column("text_digest", pa.array(digests, pa.binary(16)))
    return batch.append_column("text_bytes", pc.binary_length(batch["text"]).cast(pa.int64()))


def _signals(batch: pa.RecordBatch) -> pa.RecordBatch:
    names = ["doc_id", "parent_id", BORN, "text_digest", "text_bytes"]
    return batch.select([*names, *(name for name in batch.schema.names if "." in name)])


def _sketch(stage: Stage, batch: pa.RecordBatch, kept: list[pa.RecordBatch], errors: list[pa.Table]) -> pa.RecordBatch:
    """Sketch a batch for a relating stage; a document that cannot be sketched is quarantined."""
    tables: list[pa.RecordBatch] = []

    def accept(documents: pa.RecordBatch, out: Any) -> pa.RecordBatch:
        if any(len(values) != documents.num_rows for values in out.values()):
            raise ContractError(f"stage {stage.name}: a sketch has one row for each document")
        tables.append(_sketch_table(stage, documents, out))
        return documents

    whole, accused = attempt(stage, batch, accept)
    errors.append(accused)
    kept.extend(tables)
    return whole


def _of(documents: pa.Table, sketched: list[pa.RecordBatch]) -> pa.Table:
    """The sketches of the documents that are left: one that sketches first also met whom a later one accused."""
    table = pa.Table.from_batches(sketched)
    if table.num_rows == documents.num_rows:
        return table
    return table.filter(pc.is_in(table["doc_id"], documents["doc_id"].combine_chunks()))


def _sketch_table(stage: Stage, batch: pa.RecordBatch, out: Any = None) -> pa.RecordBatch:
    out = stage(batch) if out is None else out
    return pa.record_batch([batch["doc_id"], *out.values()], names=["doc_id", *out])


def _check(outcome: Outcome) -> None:
    """Entered + added = documents + errors, and every sketch has a row for every document."""
    came = outcome.entered.num_rows + sum(outcome.added.values())
    went = outcome.documents.num_rows + outcome.errors.num_rows
    rows = {outcome.documents.num_rows, outcome.signals.num_rows, *(t.num_rows for t in outcome.sketches.values())}
    if came != went or len(rows) > 1:
        raise ContractError(f"the books do not balance: {came} documents came, {went} are accounted for")
