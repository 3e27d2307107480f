"""A small input of kind `chat`: conversations as JSON lines and Parquet, good ones and bad ones."""

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

    def said(*contents: str) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]

    rows: list[Any] = [{"messages": said(f"Was mahlt Müller {n}?", "Korn.", "Und dann?", "Mehl.")} for n in range(30)]
    rows[2] = {"messages": said("Und?")}
    rows[5] = {"messages": [{"role": "tool", "content": "a"}, *said("b", "c")]}
    rows[6] = {"messages": said("a", "b")[::-1]}
    rows[8] = {"messages": "a"}
    rows[9] = {"messages": said("a", " \n")}
    rows[10] = {"messages": [*said("a", "b"), {"role": "system", "content": "c"}]}
    rows[11] = {"messages": said("a<|endoftext|>", "b")}
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    lines[12] = "{broken"
    (folder / "plain.jsonl").write_text("\n".join(lines), "utf-8")
    pq.write_table(pa.Table.from_pylist(rows[13:]), folder / "table.parquet", row_group_size=5)
    return {
        "params": {"paths": [f"{folder}/*"]},
        "rows": 30 + 17,
        "rejects": 8,
        "cut": ("plain.jsonl", "table.parquet"),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "plain.jsonl"
    path.write_bytes(path.read_bytes().replace(b"ller 20?", b"ller 2O?"))
