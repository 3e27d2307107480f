"""What a stage may and may not do, held up against what it did.

The one law: a stage that breaks the promise of its kind is a bug and stops the build; it is never counted against a
document. Floats are rounded here, so that what is stored is what is judged.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import Stage


class ContractError(RuntimeError):
    """A stage or source broke its promise: a bug in the code, never a bad document."""


def settle(stage: Stage, batch: pa.RecordBatch, out: Any) -> pa.RecordBatch:
    """Hold a stage to the promise of its kind. Raises ContractError where it broke it."""
    match stage.kind:
        case "measure":
            return _measured(stage, batch, out)
        case "rewrite":
            return _same(stage, batch, out, [name for name in batch.schema.names if name != "text"])
        case "extend":
            originals = _same(stage, batch, out.slice(0, batch.num_rows), batch.schema.names)
            children = pa.record_batch(out.slice(batch.num_rows).columns, schema=batch.schema)
            if not pc.all(pc.is_in(children["parent_id"], batch["doc_id"]), min_count=0).as_py():
                raise ContractError(f"stage {stage.name}: a child's parent_id names no document of its batch")
            return pa.concat_batches([originals, children])
    raise ContractError(f"stage {stage.name}: a relating stage cannot run inside a segment")


def _measured(stage: Stage, batch: pa.RecordBatch, out: Any) -> pa.RecordBatch:
    if set(out) != set(stage.signals):
        raise ContractError(f"stage {stage.name} declares {sorted(stage.signals)} and measured {sorted(out)}")
    for name, kind in stage.signals.items():
        if len(out[name]) != batch.num_rows:
            raise ContractError(
                f"stage {stage.name}: {name} has {len(out[name])} values for {batch.num_rows} documents"
            )
        batch = batch.append_column(f"{stage.name}.{name}", _rounded(out[name], kind))
    return batch


def _rounded(values: Any, kind: pa.DataType) -> pa.Array:
    """The declared type; floats to 6 decimals, so that what is stored is what is judged, on every machine."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_floating(kind):
        numbers = values.cast(pa.float64())
        blind = pc.is_null(numbers, nan_is_null=True)
        return pc.if_else(blind, None, pc.round(numbers, ndigits=6)).cast(kind)
    return values.cast(kind)


def _same(stage: Stage, batch: pa.RecordBatch, out: pa.RecordBatch, columns: list[str]) -> pa.RecordBatch:
    """`out` in the schema of `batch`, of which only the columns not listed may differ."""
    if (
        out.schema.names != batch.schema.names
        or out.schema.types != batch.schema.types
        or out.num_rows != batch.num_rows
    ):
        raise ContractError(
            f"stage {stage.name} ({stage.kind}) may not change columns, types or the number of originals"
        )
    changed = [name for name in columns if not out[name].equals(batch[name])]
    if changed:
        raise ContractError(f"stage {stage.name} ({stage.kind}) may not change {', '.join(changed)} of a document")
    if out["text"].null_count:
        raise ContractError(f"stage {stage.name} ({stage.kind}) left a document without text")
    return pa.record_batch(out.columns, schema=batch.schema)
