"""What the sides that are ours share: text in batches, stages bound to parameters, kernels loaded before the clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.limits import DEFAULT
from pipeline.run import WORKING
from pipeline.stage import Stage, load


def batches(data: Path, rows: int = DEFAULT.batch_rows) -> Iterator[pa.RecordBatch]:
    """The documents of a Parquet file of `id` and `text` as stages are given them, decoded as they are asked for."""
    for batch in pq.ParquetFile(data).iter_batches(rows, columns=["id", "text"]):
        known = {"doc_id": batch["id"], "text": batch["text"]}
        columns = [known.get(field.name, pa.nulls(batch.num_rows, field.type)) for field in WORKING]
        yield pa.record_batch(columns, schema=WORKING)


def stages(*names: str, **params: Any) -> list[Stage]:
    """Stages by name, as a recipe has them."""
    return [load(name, params) for name in names]


def warm(data: Path, *loaded: Stage) -> None:
    """Load models and compiled kernels: a few documents through each stage."""
    few = next(batches(data, 16))
    for stage in loaded:
        stage(few)
