"""Open a sealed version, or refuse it: the trainer reads a manifest and nothing else.

Law: no byte of a version reaches a model unless the manifest vouches for it. An unknown format or
field, a manifest that was edited, a missing, cut or altered file, or a shard whose columns break the
layout is refused with one sentence that names the file. The chain of trust: `version` is the digest of
the manifest, the manifest holds digests of the content of every file, and of its bytes. Checking reads every
byte three times, about 0.4 GB/s on one core; `verify=False` checks names and sizes only, for ranks
beside the one that has checked. What a manifest may say is in `schema`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError
from tokenizers import Tokenizer

from training.manifest.arrays import integers
from training.manifest.schema import FORMAT, Manifest, ManifestError, ShardEntry, digest, version_digest

__all__ = [
    "Manifest",
    "ManifestError",
    "ShardEntry",
    "Version",
    "digest",
    "file_digest",
    "open_version",
    "table_digest",
    "version_digest",
]


@dataclass(frozen=True)
class Version:
    """A version on disk that has been checked; `sha256` is that of manifest.json itself, and `beside` are the
    versions that a run mixes with this one."""

    folder: Path
    manifest: Manifest
    sha256: str
    beside: tuple[Version, ...] = ()

    @property
    def address(self) -> str:
        return f"{self.manifest.name}@{self.manifest.version}"

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / self.manifest.tokenizer.file

    @cached_property
    def documents(self) -> pa.Table:
        """The document index: doc_id, source, language, licence, ..., in the order that shards refer to."""
        return self._index().read()

    def lookup(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Some columns of these rows of the document index, in this order; only row groups that hold one are read."""
        file = self._index()
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        firsts = np.cumsum([0, *sizes])
        group = np.searchsorted(firsts, numbers, side="right") - 1
        groups = np.unique(group)
        begins = np.cumsum([0, *(sizes[i] for i in groups)])
        local = numbers - firsts[group] + begins[np.searchsorted(groups, group)]
        return file.read_row_groups(groups.tolist(), columns=list(columns)).take(integers(local))

    def _index(self) -> pq.ParquetFile:
        # `read_table` would import pyarrow.dataset, and that pandas.
        return pq.ParquetFile(self.folder / self.manifest.documents.file)

    def lookup_columns(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of the whole document index."""
        return self._index().read(list(columns)).combine_chunks()

    def with_others(self, others: Sequence[Version]) -> Version:
        """This version with others beside it."""
        return replace(self, beside=tuple(others))


def open_version(path: str | Path, *, verify: bool = True) -> Version:
    """Open the version at a manifest.json or its folder.

    Raises ManifestError naming the file at the first thing that is missing, altered or not understood.
    """
    file = Path(path)
    file = file / "manifest.json" if file.is_dir() else file
    if not file.exists() and (heir := _heir(file.parent)):
        raise ManifestError(
            f"{file}: documents of this version were forgotten, and it was removed; what is left of it is {heir}. A "
            "run that read it cannot go on, nor say what it read: train another on what is left, or restore the version"
        )
    if not file.exists() and not file.parent.is_dir():
        raise ManifestError(
            f"{file}: no such file or folder; a version lies in STORE/versions/NAME/VERSION (gristmill ls lists them)"
        )
    if not file.is_file():
        raise ManifestError(f"{file}: no manifest here; a build writes it last, so this one did not complete")
    raw = file.read_bytes()
    version = Version(file.parent, _parse(file, raw), hashlib.sha256(raw).hexdigest())
    _check_files(version, verify)
    if verify:
        _check_content(version)
    return version


def _heir(folder: Path) -> str | None:
    """The version beside a missing one that was made of it by forgetting."""
    for path in sorted(folder.parent.glob("*/manifest.json")):
        try:
            found = json.loads(path.read_bytes())
            if f"{found['name']}@{folder.name}" in found["parents"]:
                return f"{found['name']}@{found['version']}"
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _parse(file: Path, raw: bytes) -> Manifest:
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise ManifestError(f"{file}: not JSON ({error}); copy the version again or build it again") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise ManifestError(f"{file}: format {found!r} is not known; this trainer reads {FORMAT!r}")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        problem = f"{file}: {place}: {first['msg']}"
        raise ManifestError(f"{problem}; restore the manifest, or build the version again") from error
    if (stated := manifest.version) != version_digest(data):
        raise ManifestError(f"{file}: its content is not that of version {stated}; it was edited, build it again")
    return manifest


def _check_files(version: Version, verify: bool) -> None:
    manifest, folder = version.manifest, version.folder
    _check_file(folder / manifest.tokenizer.file, manifest.tokenizer.sha256, verify=verify)
    _check_file(folder / manifest.documents.file, manifest.documents.sha256, verify=verify)
    for split in manifest.splits.values():
        for shard in split.shards:
            _check_file(folder / shard.file, shard.sha256, size=shard.bytes, verify=verify)


def _check_file(path: Path, sha256: str, *, size: int | None = None, verify: bool) -> None:
    if not path.is_file():
        raise ManifestError(f"{path}: missing, though the manifest lists it; copy the version again, whole")
    if size is not None and path.stat().st_size != size:
        raise ManifestError(f"{path}: {path.stat().st_size} bytes where the manifest says {size}; copy it again")
    if verify and (found := file_digest(path)) != sha256:
        raise ManifestError(
            f"{path}: altered: its sha256 is {found[:16]}... and the manifest says {sha256[:16]}...; copy it again"
        )


def file_digest(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check_content(version: Version) -> None:
    """What the hash of a file cannot say: that it holds the content of this version, in this layout."""
    from training.shards import Shard, layout

    manifest = version.manifest
    index, tokenizer = version.folder / manifest.documents.file, version.tokenizer_file
    if (rows := version.documents.num_rows) != manifest.documents.rows:
        raise ManifestError(f"{index}: {rows} documents where the manifest says {manifest.documents.rows}")
    if table_digest(version.documents) != manifest.documents.digest:
        raise ManifestError(f"{index}: the digest of its values is not the manifest's; copy the version again")
    if (size := _vocabulary_size(tokenizer)) != manifest.tokenizer.vocab_size:
        raise ManifestError(f"{tokenizer}: {size} tokens where the manifest says {manifest.tokenizer.vocab_size}")
    how, written = layout(manifest), 0
    for split in manifest.splits.values():
        for entry in split.shards:
            shard = Shard(version.folder, entry, how)
            shard.check(size, manifest.documents.rows)
            written += shard.target_tokens()
    if manifest.targets is not None and written != manifest.targets.tokens:
        raise ManifestError(
            f"{version.folder}: targets of {written} tokens, the manifest says {manifest.targets.tokens}"
        )


def _vocabulary_size(path: Path) -> int:
    try:
        return int(Tokenizer.from_file(str(path)).get_vocab_size(with_added_tokens=True))
    except Exception as error:  # the Rust side raises plain Exception
        raise ManifestError(f"{path}: not a tokenizer.json ({error})") from error


def table_digest(table: pa.Table) -> str:
    """Digest of a table's values, column by column, whatever its chunks and buffers."""
    hasher = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        column = table[name].combine_chunks()
        hasher.update(f"{name}:{column.type}:{len(column)}".encode())
        hasher.update(np.packbits(pc.is_valid(column).to_numpy(zero_copy_only=False)).data)
        if pa.types.is_string(column.type):
            filled = pc.fill_null(column, "")
            hasher.update(pc.binary_length(filled).to_numpy().data)
            hasher.update(_text_bytes(filled))
        else:
            hasher.update(np.ascontiguousarray(pc.fill_null(column, 0).to_numpy()).data)
    return hasher.hexdigest()


def _text_bytes(column: pa.Array) -> memoryview:
    """The bytes of all strings of a column without nulls, one after the other."""
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[[column.offset, column.offset + len(column)]] if len(column) else (0, 0)
    return memoryview(data or b"")[int(ends[0]) : int(ends[1])]
