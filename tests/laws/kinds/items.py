"""A small input of kind `items`: questions with choices as JSON lines, a table and Parquet, good rows and bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SITE = None


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = [
        {"query": f"Frage {n}: Was mahlt der Müller?", "choices": ["Korn", f"Steine {n}", "Wasser"], "gold": n % 3}
        for n in range(30)
    ]
    rows[2] = {**rows[2], "gold": 3}
    rows[5] = {**rows[5], "choices": ["Korn", " ", "Wasser"]}
    rows[6] = {**rows[6], "choices": ["Korn"]}
    rows[8] = {"choices": ["a", "b"], "gold": 0}
    rows[9] = {**rows[9], "query": "\n"}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines[12] = "{broken"
    (folder / "plain.jsonl").write_text("\n".join(lines), "utf-8")
    table = pa.Table.from_pylist([{**row, "gold": 4 if n == 7 else row["gold"]} for n, row in enumerate(rows[13:])])
    pq.write_table(table, folder / "table.parquet", row_group_size=5)
    return {
        "params": {"paths": [f"{folder}/*"]},
        "rows": 30 + 17,
        "rejects": 6 + 1,
        "cut": ("plain.jsonl", "table.parquet"),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "plain.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Frage 20", b"Frage 2O"))
