"""Small files, written whole: a reader sees the old text or the new, never a part of one."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write, flush to the disk, rename into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def sync(folder: Path, *, deep: bool = True) -> None:
    """Flush a folder, and with `deep` the files in it, to the disk."""
    for path in [*(sorted(folder.iterdir()) if deep else []), folder]:
        flush(path)


def flush(path: Path) -> None:
    """Flush one file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
