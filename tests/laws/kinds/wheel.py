"""A small input of kind `wheel`: a package index served on loopback, of which one wheel is read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests import indices

SITE = None
FILES = {
    "mill/data/a.txt": "Der Müller mahlt.".encode(),
    "mill/data/bad.txt": b"\xff\xfe",
    "mill/data/rows.jsonl": b'{"text": "one"}\n{broken\n{"text": "two"}\n',
    "mill/__init__.py": b"raise SystemExit('I was run')",
    "mill/../../out.txt": b"outside",
}


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "index").mkdir()
    indices.wheel(folder / "index", "mill", "1.0", FILES)
    _, address = indices.start(folder / "index")
    environment = {**indices.QUIET, "PIP_INDEX_URL": address, "GRISTMILL_CACHE": str(folder / "cache")}
    params = {"distribution": "Mill", "version": "1.0"}
    return {"params": params, "rows": 6, "rejects": 3, "cut": (), "environment": environment}


def change(folder: Path) -> None:
    """Alter one letter of the input: the index has another wheel, and the one that was fetched is gone."""
    indices.wheel(folder / "index", "mill", "1.0", {**FILES, "mill/data/a.txt": "Die Mühle mahlt.".encode()})
    shutil.rmtree(folder / "cache")
