"""Open a sealed version, or refuse it: the trainer reads a manifest and nothing else.

Law: no byte of a version reaches a model unless the manifest vouches for it. An unknown format or
field, a manifest that was edited, a missing, cut or altered file, or a shard whose columns break the
layout is refused with one sentence that names the file. The chain of trust: `version` is the digest of
the manifest, the manifest holds digests of the content of every file, and of its bytes. Checking reads every
byte three times, about 0.4 GB/s on one core; `verify=False` checks names and sizes only, for ranks
beside the one that has checked. The JSON schema beside the catalogs says the same, field by field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from tokenizers import Tokenizer

from training import TrainingError

FORMAT = "gristmill.manifest/1"


class ManifestError(TrainingError):
    """A version that cannot be trusted or understood; names the file and what to do."""


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError("file names are relative to the manifest's folder and stay inside it")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Count = Annotated[int, Field(ge=0)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ShardEntry(_Checked):
    """One Arrow IPC file: `bytes` is its size, `digest` is over its column buffers, and its documents are the
    rows of the document index from `first_document` on."""

    file: Inside
    source: str
    rows: Count
    tokens: Count
    first_document: Count
    documents: Count
    bytes: Count
    sha256: Sha256
    digest: Digest


class SplitEntry(_Checked):
    """One split; `tokens` counts real tokens, never padding."""

    rows: Count
    tokens: Count
    documents: Count
    text_bytes: Count
    truncated: Count
    digest: Digest
    shards: list[ShardEntry]

    @model_validator(mode="after")
    def _adds_up(self) -> SplitEntry:
        for field in ("rows", "tokens", "documents"):
            total = sum(getattr(shard, field) for shard in self.shards)
            if total != getattr(self, field):
                raise ValueError(f"its shards hold {total} {field} but the split says {getattr(self, field)}")
        if digest([shard.digest for shard in self.shards]) != self.digest:
            raise ValueError("its digest is not that of its shards' digests")
        return self


class TokenizerEntry(_Checked):
    """The tokenizer beside the shards; `eot` opens and closes every document."""

    file: Inside
    sha256: Sha256
    vocab_size: Annotated[int, Field(ge=1)]
    eot: Count
    trained_on: dict[str, Any] | None


class DocumentIndex(_Checked):
    """The Parquet file with one row a kept document."""

    file: Inside
    rows: Count
    digest: Digest
    sha256: Sha256


class Manifest(_Checked):
    """What a version says of itself: only fields that are known, so that nothing it asks for is passed over."""

    format: Literal["gristmill.manifest/1"]
    name: str
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    layout: Literal["packed", "examples"]
    length: Annotated[int, Field(ge=2)]
    dtype: Literal["uint16", "uint32"]
    recipe: dict[str, Any]
    sources: list[dict[str, Any]]
    tokenizer: TokenizerEntry
    accounting: list[dict[str, Any]]
    summaries: dict[str, Any]
    labels: list[str] | None
    splits: dict[str, SplitEntry]
    documents: DocumentIndex
    parents: list[str]

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        if self.tokenizer.vocab_size > 1 << (16 if self.dtype == "uint16" else 32):
            raise ValueError(f"a vocabulary of {self.tokenizer.vocab_size} does not fit the dtype {self.dtype}")
        if self.tokenizer.eot >= self.tokenizer.vocab_size:
            raise ValueError(f"eot {self.tokenizer.eot} lies outside the vocabulary of {self.tokenizer.vocab_size}")
        return self


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
        return pq.read_table(self.folder / self.manifest.documents.file)

    def lookup(self, numbers: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Some columns of these rows of the document index, in this order; only row groups that hold one are read."""
        file = pq.ParquetFile(self.folder / self.manifest.documents.file)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        firsts = np.cumsum([0, *sizes])
        group = np.searchsorted(firsts, numbers, side="right") - 1
        groups = np.unique(group)
        begins = np.cumsum([0, *(sizes[i] for i in groups)])
        local = numbers - firsts[group] + begins[np.searchsorted(groups, group)]
        return file.read_row_groups(groups.tolist(), columns=list(columns)).take(pa.array(local))

    def with_others(self, others: Sequence[Version]) -> Version:
        """This version with others beside it."""
        return replace(self, beside=tuple(others))


def open_version(path: str | Path, *, verify: bool = True) -> Version:
    """Open the version at a manifest.json or its folder.

    Raises ManifestError naming the file at the first thing that is missing, altered or not understood.
    """
    file = Path(path)
    file = file / "manifest.json" if file.is_dir() else file
    if not file.is_file():
        raise ManifestError(f"{file}: no manifest here; a build writes it last, so this one did not complete")
    raw = file.read_bytes()
    version = Version(file.parent, _parse(file, raw), hashlib.sha256(raw).hexdigest())
    _check_files(version, verify)
    if verify:
        _check_content(version)
    return version


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
        raise ManifestError(f"{file}: {place}: {first['msg']}") from error
    if (stated := manifest.version) != version_digest(data):
        raise ManifestError(f"{file}: its content is not that of version {stated}; it was edited, build it again")
    return manifest


def version_digest(manifest: dict[str, Any]) -> str:
    """16 hexadecimal characters over the manifest without what file formats may move: sizes and hashes of files."""
    plain = json.loads(json.dumps(manifest))
    plain.pop("version", None)
    plain["documents"].pop("sha256")
    for split in plain["splits"].values():
        for shard in split["shards"]:
            shard.pop("sha256")
            shard.pop("bytes")
    return digest(plain)[:16]


def digest(value: Any) -> str:
    """32 hexadecimal characters over the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
    from training.shards import Shard

    manifest = version.manifest
    index, tokenizer = version.folder / manifest.documents.file, version.tokenizer_file
    if (rows := version.documents.num_rows) != manifest.documents.rows:
        raise ManifestError(f"{index}: {rows} documents where the manifest says {manifest.documents.rows}")
    if table_digest(version.documents) != manifest.documents.digest:
        raise ManifestError(f"{index}: the digest of its values is not the manifest's; copy the version again")
    if (size := _vocabulary_size(tokenizer)) != manifest.tokenizer.vocab_size:
        raise ManifestError(f"{tokenizer}: {size} tokens where the manifest says {manifest.tokenizer.vocab_size}")
    if manifest.layout == "packed":
        for split in manifest.splits.values():
            for entry in split.shards:
                Shard(version.folder, entry, manifest.length, manifest.dtype).check(size, manifest.documents.rows)


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
