"""What a manifest may say, field by field, and the digests that name it: the sheet of paper between the two halves.

Only known fields are read, so that nothing a version asks for is passed over. The JSON schema beside the catalogs
says the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
    """The tokenizer beside the shards; `eot` closes every document and opens it too, unless there is a `bos`."""

    file: Inside
    sha256: Sha256
    vocab_size: Annotated[int, Field(ge=1)]
    eot: Count
    bos: Count | None = None
    trained_on: dict[str, Any] | None

    @model_validator(mode="after")
    def _are_tokens(self) -> TokenizerEntry:
        for name, token in (("eot", self.eot), ("bos", self.start)):
            if token >= self.vocab_size:
                raise ValueError(f"{name} {token} lies outside the vocabulary of {self.vocab_size}")
        return self

    @property
    def start(self) -> int:
        """The token that opens every document."""
        return self.eot if self.bos is None else self.bos


class DocumentIndex(_Checked):
    """The Parquet file with one row a kept document."""

    file: Inside
    rows: Count
    digest: Digest
    sha256: Sha256


class Targets(_Checked):
    """The texts to be written, one a row of examples: their tokens as they lie in the shards, and those cut off."""

    tokens: Count
    truncated: Count


class Forgotten(_Checked):
    """Who was taken out of the parent versions, and why; the trainer has no use for the list itself."""

    file: Literal["forgotten.parquet"]
    digest: Digest
    documents: Annotated[int, Field(ge=1)]
    operations: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Extended(_Checked):
    """How the version came from others by more sources, and whose fate is another than in a build of all at once; the
    trainer has no use for that list."""

    file: Literal["bridges.parquet"]
    digest: Digest
    documents: Count
    operations: Annotated[list[dict[str, Any]], Field(min_length=1)]


class Contamination(_Checked):
    """Evaluation items that documents of the version hold: the file lists them, item by item and document by document,
    and who scores items reads it (`catalogs/schemas/manifest.schema.json` says what its columns are)."""

    file: Literal["contamination.parquet"]
    digest: Digest
    rows: Count
    documents: Count
    removed: bool
    sets: Annotated[list[dict[str, Any]], Field(min_length=1)]


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
    forgotten: Forgotten | None = None
    extended: Extended | None = None
    targets: Targets | None = None
    contamination: Contamination | None = None
    mix: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        if self.tokenizer.vocab_size > 1 << (16 if self.dtype == "uint16" else 32):
            raise ValueError(f"a vocabulary of {self.tokenizer.vocab_size} does not fit the dtype {self.dtype}")
        # They are none of the version's content, and have a digest of their own.
        canaries = dict(self.summaries.get("canaries", {}))
        if canaries and canaries.pop("digest", None) != digest(canaries):
            raise ValueError("summaries.canaries is not as it was written; it was edited, build it again")
        if self.layout == "packed" and (self.labels is not None or self.targets is not None):
            raise ValueError("packed rows have neither labels nor targets; those are of the layout 'examples'")
        return self


def version_digest(manifest: dict[str, Any]) -> str:
    """16 hexadecimal characters over the manifest without sizes and hashes of files, and without the canaries."""
    plain = json.loads(json.dumps(manifest))
    plain.pop("version", None)
    plain["documents"].pop("sha256")
    plain["summaries"].pop("canaries", None)
    for split in plain["splits"].values():
        for shard in split["shards"]:
            shard.pop("sha256")
            shard.pop("bytes")
    return digest(plain)[:16]


def digest(value: Any) -> str:
    """32 hexadecimal characters over the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
