"""The inputs of a run of the bench: Parquet files of `id` and `text` in one folder, with what both sides read.

corpus   the whole data file
sample   some of its rows for peers that would take minutes: runs of 64 rows, spread evenly
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.models import language_model

RUN = 64


def make(data: Path, folder: Path, sample: int) -> dict[str, Path]:
    """Write every input below `folder`. Returns their paths by name."""
    table = pq.read_table(data, columns=["id", "text"])
    tables = {"corpus": table, "sample": table.take(pa.array(spread(table.num_rows, sample)))}
    for name, rows in tables.items():
        pq.write_table(rows, folder / f"{name}.parquet", compression="zstd", row_group_size=4096)
    shutil.copy(language_model(), folder / "lid.176.ftz")
    return {name: folder / f"{name}.parquet" for name in tables}


def spread(rows: int, wanted: int) -> list[int]:
    """About `wanted` of `rows` row numbers, ascending, in runs of neighbours."""
    runs = max(1, min(wanted, rows) // RUN)
    begins = np.linspace(0, max(rows - RUN, 0), runs).astype(int)
    return sorted({row for begin in begins for row in range(begin, min(begin + RUN, rows))})


def text_bytes(path: Path) -> int:
    """Bytes of text in an input."""
    return int(pc.sum(pc.binary_length(pq.read_table(path, columns=["text"])["text"])).as_py() or 0)
