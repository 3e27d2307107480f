"""Find a sealed version again, digest its content, and verify it (`seal` makes one).

A manifest is content alone (no clock, host, path, worker count or cache key), so the same
corpus and recipe give the same manifest everywhere; `version` is the digest of it. Where
the pieces lie in the store is in `build.json` beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.books import BuildKeys
from pipeline.digests import canonical, digest
from pipeline.kernels.buffers import text_buffers
from pipeline.stage import ConfigError, suggest
from pipeline.store import Store, StoreError, file_digest, read_parquet

FORMAT = "gristmill.manifest/1"
KEYS = ("name", "version", "recipe", "sources", "tokenizer", "accounting", "summaries", "splits", "documents")


@dataclass(frozen=True)
class Version:
    """A sealed version: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def address(self) -> str:
        return f"{self.manifest['name']}@{self.manifest['version']}"

    def build_keys(self) -> BuildKeys:
        """Where the books lie. Raises StoreError where the version came without them."""
        path = self.folder / "build.json"
        if not path.exists():
            raise StoreError(
                f"{path} is missing: this copy of {self.address} has no books; use the store that built it"
            )
        return BuildKeys.from_json(json.loads(path.read_text("utf-8"))["keys"])

    def index(self, columns: list[str] | None = None) -> pa.Table:
        return read_parquet(self.folder / self.manifest["documents"]["file"], columns)


def content(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without what file formats and library versions may move, sizes and hashes of files, and without the
    canaries: they are tried again at each build, by whatever examples its stages then offer."""
    plain: dict[str, Any] = json.loads(canonical(manifest))
    plain.pop("version", None)
    plain["documents"].pop("sha256")
    plain["summaries"].pop("canaries", None)
    for split in plain["splits"].values():
        for shard in split["shards"]:
            shard.pop("sha256")
            shard.pop("bytes")
    return plain


def version_digest(manifest: Mapping[str, Any]) -> str:
    """16 hexadecimal characters over the content of a manifest."""
    return digest(content(manifest))[:16]


def canary_digest(said: Mapping[str, Any]) -> str:
    """32 hexadecimal characters over what a manifest says of the canaries, but for that."""
    return digest({name: value for name, value in said.items() if name != "digest"})


def shard_digest(path: Path) -> str:
    """Digest of a shard's raw buffers: tokens first, then what places them; not of the file's bytes."""
    hasher = hashlib.blake2b(digest_size=16)
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all().combine_chunks()
    for name in table.column_names:
        hasher.update(name.encode())
        for values in _flat(table[name].combine_chunks()):
            hasher.update(np.ascontiguousarray(values).data)
    return hasher.hexdigest()


def _flat(column: pa.Array) -> Iterator[np.ndarray]:
    if pa.types.is_list(column.type):
        yield np.diff(column.offsets.to_numpy())
        yield column.flatten().to_numpy()
    elif pa.types.is_fixed_size_list(column.type):
        yield column.flatten().to_numpy()
    else:
        yield column.to_numpy()


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
            data, offsets = text_buffers(filled)
            hasher.update(data[offsets[0] : offsets[-1]].data)
        else:
            hasher.update(np.ascontiguousarray(pc.fill_null(column, 0).to_numpy()).data)
    return hasher.hexdigest()


def names(store: Store) -> list[str]:
    """Names of which at least one version is sealed."""
    folder = store.root / "versions"
    return sorted(p.name for p in folder.iterdir() if (p / "latest").exists()) if folder.is_dir() else []


def versions(store: Store, name: str) -> list[str]:
    """Sealed versions of a name, the newest last."""
    found = [p.parent for p in (store.root / "versions" / name).glob("*/manifest.json") if p.parent.name[0] != "."]
    return [p.name for p in sorted(found, key=lambda p: ((p / "manifest.json").stat().st_mtime_ns, p.name))]


def find(store: Store, address: str) -> Version:
    """The version that `name`, `name@latest`, `name@version` (or a beginning of it) or a path means."""
    path = Path(address)
    if path.name == "manifest.json" or (path / "manifest.json").is_file():
        return read(path.parent if path.name == "manifest.json" else path)
    name, _, wanted = address.partition("@")
    if name not in names(store):
        raise ConfigError(f"no version of {name!r} in {store.root}{suggest(name, names(store))}")
    folder = store.root / "versions" / name
    if wanted in ("", "latest"):
        wanted = (folder / "latest").read_text("utf-8").strip()
    matches = [version for version in versions(store, name) if version.startswith(wanted)]
    if len(matches) != 1:
        said = "is no version" if not matches else "means several versions"
        raise ConfigError(f"{address} {said} of {name!r}; has: {', '.join(versions(store, name))}")
    return read(folder / matches[0])


def read(folder: Path) -> Version:
    """Read a manifest. Raises StoreError where it is none that this reader knows."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{folder / 'manifest.json'} cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{folder / 'manifest.json'} is not of format {FORMAT!r}")
    if missing := [key for key in KEYS if key not in manifest]:
        raise StoreError(f"{folder / 'manifest.json'} was edited: it has no {missing[0]!r}, which every manifest has")
    return Version(folder, manifest)


def unedited(version: Version) -> Version:
    """The version, whose manifest says what was sealed. Raises ConfigError where it was edited."""
    problem = next(_edits(version.manifest), None)
    if problem:
        raise ConfigError(f"{version.folder / 'manifest.json'} was edited: {problem}; restore it, or build it again")
    return version


def _edits(manifest: Mapping[str, Any]) -> Iterator[str]:
    try:
        if version_digest(manifest) != manifest["version"]:
            yield f"it does not have the content that its version {manifest['version']} states"
        if (tried := manifest["summaries"].get("canaries")) and canary_digest(tried) != tried.get("digest"):
            yield "it does not say of its canaries what was written"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        yield f"it lacks what every manifest has ({type(error).__name__}: {error})"


def check_shards(version: Version, shards: Iterable[Mapping[str, Any]]) -> None:
    """Raise ConfigError where one of these shards of the manifest is not there, or not the one that it states."""
    for shard in shards:
        path = version.folder / shard["file"]
        if not path.is_file() or file_digest(path, "sha256") != shard["sha256"]:
            raise ConfigError(
                f"{path} is not the shard that the manifest of {version.address} states: restore it, or remove the "
                "version and build it again"
            )


def verify(version: Version) -> Iterator[str]:
    """Hash everything again; yields a sentence for each thing that is not what the manifest says."""
    manifest, folder = version.manifest, version.folder
    yield from (f"manifest.json was edited: {problem}" for problem in _edits(manifest))
    files = [
        (manifest["documents"]["file"], manifest["documents"]),
        (manifest["tokenizer"]["file"], manifest["tokenizer"]),
    ]
    for name in ("forgotten", "extended", "contamination"):
        if said := manifest.get(name):
            yield from _verify_list(folder / said["file"], said)
    files += [(shard["file"], shard) for split in manifest["splits"].values() for shard in split["shards"]]
    for name, said in files:
        for problem in _verify_file(folder / name, name, said):
            yield problem + _touched(version, said)


def _verify_list(path: Path, said: Mapping[str, Any]) -> Iterator[str]:
    """Who was forgotten, whose fate was another in a build at once, or who holds evaluation items: by content alone."""
    try:
        if table_digest(read_parquet(path)) != said["digest"]:
            yield f"{path.name} does not list whom the manifest states: its content was changed"
    except StoreError as error:
        yield str(error)


def _touched(version: Version, said: Mapping[str, Any]) -> str:
    """Whose tokens a shard holds, as far as the document index can be read; nothing for another file."""
    if "first_document" not in said:
        return ""
    try:
        ids = version.index(["doc_id"])["doc_id"].slice(said["first_document"], said["documents"])
        return f"; it holds {said['documents']:,} documents, from {ids[0]} to {ids[-1]}"
    except (StoreError, IndexError):
        return f"; it holds {said['documents']:,} documents"


def _verify_file(path: Path, name: str, said: Mapping[str, Any]) -> Iterator[str]:
    if not path.is_file():
        yield f"{name} is missing"
        return
    found = file_digest(path, "sha256")
    if found == said["sha256"]:
        return
    try:
        content = shard_digest(path) if name.endswith(".arrow") else table_digest(read_parquet(path))
    except (pa.ArrowException, OSError, StoreError) as error:
        yield f"{name} is damaged and cannot be read: {error}"
        return
    if content != said.get("digest"):
        yield f"{name} has sha256 {found}, the manifest states {said['sha256']}: its content was changed"
    else:
        yield f"{name} was changed outside its data (sha256 {found}, the manifest states {said['sha256']})"
