"""A small input of kind `hub`: a data set served on loopback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests import hubs

SITE = None


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    data = folder / "mills" / "grain" / "data"
    data.mkdir(parents=True)
    lines = [json.dumps({"text": f"Zeile {n}: der Müller mahlt."}) for n in range(20)]
    lines[4] = "{broken"
    (data / "train-00000-of-00002.jsonl").write_text("\n".join(lines), "utf-8")
    table = pa.table({"text": [f"row {n}" if n % 7 else None for n in range(30)]})
    pq.write_table(table, data / "train-00001-of-00002.parquet", row_group_size=9)
    (data / "test-00000-of-00001.jsonl").write_text('{"text": "test"}')
    (data.parent / "README.md").write_text("# Grain")
    _, address = hubs.start(folder)
    return {
        "params": {"dataset": "mills/grain", "revision": hubs.REVISION, "streaming": True},
        "rows": 20 + 30,
        "rejects": 1 + 5,
        "cut": ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.parquet"),
        "environment": {"HF_ENDPOINT": address},
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "mills" / "grain" / "data" / "train-00000-of-00002.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Zeile 13", b"Zeile 18"))
