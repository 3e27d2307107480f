"""What the sides that are ours share: text in batches, stages bound to parameters, kernels loaded before the clock."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import together
from pipeline.contract import settle
from pipeline.limits import DEFAULT
from pipeline.run import WORKING, attempt
from pipeline.stage import Stage, load
from pipeline.tokens import vocabulary


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


def encoder(path: Path) -> Callable[[pa.Array], tuple[NDArray[Any], NDArray[np.int64]]]:
    """Text to (ids, starts) by a tokenizer.json, as a build encodes a partition."""
    tokenizer = vocabulary.load(path)

    def encode(text: pa.Array) -> tuple[NDArray[Any], NDArray[np.int64]]:
        rows = vocabulary.encode(tokenizer, text.to_pylist())
        return np.array([token for row in rows for token in row]), np.cumsum([0, *map(len, rows)])

    if importlib.util.find_spec("pipeline.tokens.encoding"):
        return importlib.import_module("pipeline.tokens.encoding").Encoder(tokenizer)
    return encode


def through(batch: pa.RecordBatch, loaded: Sequence[Stage]) -> pa.RecordBatch:
    """A batch through stages, as the runner takes it; the signals of a stage are columns behind. None may fail."""
    batch, measured = together.measure(loaded, batch)
    for stage in loaded[len(measured) :]:
        batch, accused = attempt(stage, batch, functools.partial(settle, stage))
        if accused.num_rows:
            raise ValueError(f"{stage.name} cannot bear {accused['doc_id'][0]}: {accused['detail'][0]}")
    return batch
