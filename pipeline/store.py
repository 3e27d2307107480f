"""Content-addressed outputs: what a task made lies under its key, whole or not at all.

A task writes into a temporary folder; its files are synced, the folder is renamed, and
`_done.json` (sizes and digests of the files, counts for the books) is written before the
rename as the last file. A key without a done marker does not exist, so a build that was
killed goes on from what stands and nothing half-written is ever read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.digests import canonical, digest

DONE = "_done.json"
READ_ROWS = 1 << 17
FEW_ROWS = 256
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StoreError(RuntimeError):
    """Something in the store is missing, damaged or not what its marker says."""


@dataclass(frozen=True)
class Store:
    """A folder of outputs, versions and runs."""

    root: Path

    def folder(self, key: str) -> Path:
        return self.root / "store" / key[:2] / key

    def file(self, key: str, name: str) -> Path:
        return self.folder(key) / name

    def done(self, key: str) -> dict[str, Any] | None:
        """The done marker of a key, or None. Files whose size changed since are an error, not a rebuild."""
        marker = self.folder(key) / DONE
        if not marker.exists():
            return None
        try:
            done: dict[str, Any] = json.loads(marker.read_text("utf-8"))
            sound = done.pop("digest") == digest(done)
        except (ValueError, KeyError, AttributeError, TypeError):
            sound = False
        if not sound:
            raise self._damaged(key, DONE, "it is not as it was written")
        for name, said in done["files"].items():
            path = self.folder(key) / name
            if not path.exists() or path.stat().st_size != said["bytes"]:
                raise self._damaged(key, name, "size differs from its marker")
        return done

    def _damaged(self, key: str, name: str, how: str) -> StoreError:
        return StoreError(f"store output {key}/{name} is damaged ({how}); remove {self.folder(key)} and build again")

    def result(self, key: str) -> dict[str, Any]:
        """What the task under `key` counted. Raises StoreError where there is no finished output."""
        done = self.done(key)
        if done is None:
            raise StoreError(f"store output {key} is missing: build the version again, or take the whole store along")
        result: dict[str, Any] = done["result"]
        return result

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[Writing]:
        """A temporary folder that becomes the output of `key` when the block ends without an error.

        Raises StoreError where the disk has no room.
        """
        final = self.folder(key)
        temporary = final.parent / f".{key}.{uuid.uuid4().hex[:8]}"
        writing = Writing(temporary)
        try:
            with room(self.root):
                temporary.mkdir(parents=True)
                yield writing
                _mark(temporary, writing.result)
                _publish(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def check(self, key: str, names: Iterable[str] | None = None) -> None:
        """Hash the files of a key again, or these of them. Raises StoreError naming the first that differs."""
        done = self.done(key)
        if done is None:
            raise StoreError(f"store output {key} is missing: build the version again, or take the whole store along")
        for name in done["files"] if names is None else names:
            if name not in done["files"] or checksum(self.file(key, name)) != done["files"][name]["digest"]:
                raise self._damaged(key, name, "it does not have the digest that its marker states")

    def plan(self, key: str, spec: dict[str, Any]) -> str:
        """Write down what the task under `key` has to do, so that its only argument is the key."""
        path = self.root / "plans" / f"{key}.json"
        with room(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, canonical(spec))
        return key

    def spec(self, key: str) -> dict[str, Any]:
        spec: dict[str, Any] = json.loads((self.root / "plans" / f"{key}.json").read_text("utf-8"))
        return spec


@contextlib.contextmanager
def room(root: Path) -> Iterator[None]:
    """Turn the error of a full, read-only or bounded disk into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreError(
            f"cannot write to {root}: {os.strerror(error.errno)}; make room there and run the same command again: "
            "what is finished is kept, nothing half-written is left"
        ) from error


class Writing:
    """The folder that a task fills, and the counts it leaves for the books."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.result: dict[str, Any] = {}

    def table(self, name: str, table: pa.Table) -> None:
        write_parquet(self.folder / name, table)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Parquet, zstd, with page checksums: a flipped byte is an error when it is read."""
    # Of shingle sets some are read, here and there (`read_rows`), and they are the largest thing in a store.
    rows = FEW_ROWS if "set" in table.column_names else None
    pq.write_table(table, path, row_group_size=rows, **_written(table.schema))


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """The same file from tables that come one after another, held one at a time; returns the number of rows.

    Each table is a row group of its own (`read_group`).
    """
    rows = 0
    with pq.ParquetWriter(path, schema, **_written(schema)) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=max(table.num_rows, 1))
            rows += table.num_rows
    return rows


def _written(schema: pa.Schema) -> dict[str, Any]:
    plain = {"text", "doc_id", "signature", "set"}
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name in schema.names if name not in plain],
        "write_page_checksum": True,
        "store_schema": True,
    }


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table of the store. Raises StoreError naming the file where it is missing or damaged."""
    with _sound(path), _opened(path) as file:
        return file.read(columns)


def read_tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a table of the store, some at a time. Raises StoreError as `read_parquet`."""
    with _sound(path), _opened(path) as file:
        for batch in file.iter_batches(READ_ROWS):
            yield pa.Table.from_batches([batch])


def read_group(path: Path, number: int) -> pa.Table:
    """The rows of one table that `write_tables` was given. Raises StoreError as `read_parquet`."""
    with _sound(path), _opened(path) as file:
        return file.read_row_group(number)


def read_rows(path: Path, rows: list[int], column: str) -> pa.ChunkedArray:
    """A column at some rows, of whose row groups the others are not read. Raises StoreError as `read_parquet`."""
    with _sound(path), _opened(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        ends = np.cumsum(sizes)
        group = np.searchsorted(ends, rows, side="right")
        groups = np.unique(group)
        begins = np.cumsum([0, *(sizes[number] for number in groups)])
        local = np.asarray(rows) - (ends - sizes)[group] + begins[np.searchsorted(groups, group)]
        return file.read_row_groups(groups.tolist(), [column])[column].take(pa.array(local))


def _opened(path: Path) -> pq.ParquetFile:
    # Buffered ahead, it would hold the whole file.
    return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)


@contextlib.contextmanager
def _sound(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing: build the version again, or take the whole store along") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is damaged: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: a reader sees the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """A hard link where the file system has them, else a copy: versions cost no disk beside the store."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def checksum(path: Path) -> str:
    """xxh3-128 of a file's bytes, in hexadecimal: finds what a disk or a hand changed, seventeen times as fast as
    blake2b, and no forgery."""
    return _hashed(path, xxhash.xxh3_128())


def file_digest(path: Path, algorithm: str = "blake2b") -> str:
    """Digest of a file's bytes, read in pieces: 32 hexadecimal characters, or 64 for sha256."""
    return _hashed(path, hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b(digest_size=16))


def _hashed(path: Path, hasher: Any) -> str:
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    found: str = hasher.hexdigest()
    return found


def sync_folder(folder: Path) -> None:
    """Flush every file of a folder, then the folder, to the disk."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _mark(folder: Path, result: dict[str, Any]) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "digest": checksum(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    sync_folder(folder)
    said = {"files": files, "result": result}
    write_text(folder / DONE, canonical({**said, "digest": digest(said)}))


def _publish(temporary: Path, final: Path) -> None:
    """Rename into place; where another worker was first with the same key, its output stands."""
    try:
        temporary.rename(final)
    except OSError:
        if not (final / DONE).exists():
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
    _sync(final.parent)
