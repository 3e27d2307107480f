"""A small input of kind `files`: every format, good rows and bad ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

SITE = None


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    lines = [
        json.dumps({"text": f"Zeile {n}: der Müller mahlt.", "label": n % 3, "url": f"https://e.org/{n}"})
        for n in range(40)
    ]
    lines[3], lines[9], lines[10], lines[21] = "{broken", "", "[1]", '{"label": 1}'
    data = "\n".join(lines).encode()
    (folder / "plain.jsonl").write_bytes(data)
    (folder / "empty.jsonl").write_bytes(b"")
    (folder / "deep" / "zipped.jsonl.gz").write_bytes(gzip.compress(data, mtime=0))
    (folder / "deep" / "packed.ndjson.zst").write_bytes(zstandard.compress(data))
    (folder / "note.md").write_text("# Title\n\nA note.", "utf-8")
    (folder / "page.html").write_bytes("<meta charset=gbk><p>磨坊</p>".encode("gbk"))
    (folder / "rows.csv").write_text("text,label\nder Müller,1\nmahlt\n,2\nKorn,3\n", "utf-8")
    with pa.ipc.new_file(str(folder / "rows.arrow"), (rows := pa.table({"text": ["a", None]})).schema) as writer:
        writer.write_table(rows)
    (folder / "bad.txt").write_bytes(b"\xff\xfe not UTF-8")
    table = pa.table({"text": [f"row {n}" if n % 7 else None for n in range(50)], "label": list(range(50))})
    pq.write_table(table, folder / "table.parquet", row_group_size=9)
    return {
        "params": {"paths": [f"{folder}/**/*"], "meta": []},
        "rows": 3 * 39 + 1 + 1 + 1 + 50 + 1 + 4 + 2,
        "rejects": 3 * 3 + 1 + 1 + 8 + 2 + 1,
        "cut": ("plain.jsonl", "table.parquet"),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "plain.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Zeile 30", b"Zeile 3O"))
