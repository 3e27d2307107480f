"""Task `pack`: the document index, and one shard a packing block."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.kernels.packing import lay
from pipeline.limits import Limits
from pipeline.manifest import shard_digest
from pipeline.mixing import FILE, repeated
from pipeline.schema import DOCUMENT
from pipeline.store import Store, Writing, file_digest, link, read_parquet, write_parquet
from pipeline.threads import ahead
from pipeline.tokens import pack

Spec = dict[str, Any]


def pack_shards(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs documents.parquet (the document index) and the shards; the result describes each.

    A specification with `before` goes on from another packing: its labels and targets stand, and a block that is the
    same as one of its own is that very file. `changed` are the outputs that may hold other tokens of a document.
    """
    tables = [read_parquet(store.file(key, "documents.parquet")) for key in spec["encoded"]]
    index = pa.concat_tables(tables, promote_options="default")
    encoded = _flat(store, spec["encoded"], "tokens")
    written = _flat(store, spec["encoded"], "target") if spec["layout"] == "examples" else []
    before = Before(store, spec["before"], spec["changed"]) if "before" in spec else None
    if not (before.targets if before else any(len(flat) for flat, _ in written)):
        written = []  # no card maps a target
    index, rows = repeated(index, read_parquet(store.file(spec["mix"], FILE))) if "mix" in spec else (index, None)
    order = pc.sort_indices(index, [("source", "ascending"), ("split", "ascending"), ("doc_id", "ascending")])
    index, place = index.take(order).combine_chunks(), order.to_numpy()
    place = place if rows is None else rows[place]
    labels = sorted(set(index["label"].drop_null().to_pylist())) if spec["layout"] == "examples" else None
    labels = before.labels if before else labels

    def shard(bounds: tuple[int, int, int]) -> Spec:
        first, last, number = bounds
        if before and (same := before.same(index.slice(first, last - first))):
            return _again(store, spec["before"], same, out.folder, first, number)
        tokens = _gather(encoded, place[first:last])
        targets = _gather(written, place[first:last]) if written else None
        return _shard(index.slice(first, last - first), tokens, targets, spec, labels, out.folder, first, number)

    bounds = [
        (first + start, first + stop, number)
        for first, last in _runs(index)
        for number, (start, stop) in enumerate(pack.blocks(index["doc_id"].slice(first, last - first).to_pylist()))
    ]
    shards = list(ahead(shard, bounds, limits.threads))
    write_parquet(out.folder / "documents.parquet", index)
    targets = {name: sum(shard[f"target_{name}"] for shard in shards) for name in ("tokens", "truncated")}
    found = {"labels": labels, "shards": shards, "documents": index.num_rows}
    out.result = {**found, "targets": targets if written else None}


class Before:
    """The shards of an earlier packing, by the documents that they hold."""

    def __init__(self, store: Store, key: str, changed: list[str]) -> None:
        result = store.result(key)
        self.labels, self.targets = result["labels"], result["targets"] is not None
        self._index = read_parquet(store.file(key, "documents.parquet"))
        ids = self._index["doc_id"].combine_chunks()
        self._shards = {(s["split"], s["source"], ids[s["first_document"]].as_py()): s for s in result["shards"]}
        tables = [read_parquet(store.file(one, "documents.parquet"), ["doc_id"]) for one in changed]
        tables.append(pa.schema([DOCUMENT.field("doc_id")]).empty_table())
        self._changed = pa.concat_tables(tables)["doc_id"].combine_chunks()

    def same(self, block: pa.Table) -> Spec | None:
        """The shard that holds this very block, if there is one."""
        named = (block["split"][0].as_py(), block["source"][0].as_py(), block["doc_id"][0].as_py())
        found: Spec | None = self._shards.get(named)
        if found is None or found["documents"] != block.num_rows:
            return None
        mine = self._index.slice(found["first_document"], found["documents"])
        anew = pc.any(pc.is_in(block["doc_id"], self._changed)).as_py()
        alike = mine.column_names == block.column_names
        return found if not anew and alike and mine.equals(block.cast(mine.schema)) else None


def _again(store: Store, key: str, shard: Spec, folder: Path, first: int, number: int) -> Spec:
    """A shard of an earlier packing as it lies there: another name of the same file, in its place among others."""
    name = f"{shard['split']}-{shard['source']}-{number:05d}.arrow"
    link(store.file(key, shard["file"]), folder / name)
    return {**shard, "file": name, "first_document": first}


def _runs(index: pa.Table) -> list[tuple[int, int]]:
    """Bounds of the runs of documents with one source and one split."""
    names = np.char.add(np.char.add(_column(index, "source"), "\0"), _column(index, "split"))
    if not len(names):
        return []
    cuts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
    return list(itertools.pairwise(cuts))


def _column(index: pa.Table, name: str) -> np.ndarray:
    return np.array(index[name].to_pylist(), dtype=np.str_)


def _flat(store: Store, keys: list[str], name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Memory-mapped (tokens, starts) of every batch of every partition, in the order of the index before sorting; a
    partition without the column has empty lists."""
    pieces = []
    for key in keys:
        table = pa.ipc.open_file(pa.memory_map(str(store.file(key, "tokens.arrow")))).read_all()
        for chunk in table["tokens"].chunks if name not in table.column_names else table[name].chunks:
            found = chunk.values.to_numpy(), chunk.offsets.to_numpy()
            empty = found[0][:0], np.zeros_like(found[1])
            pieces.append(found if name in table.column_names else empty)
    return pieces


def _gather(encoded: list[tuple[np.ndarray, np.ndarray]], wanted: np.ndarray) -> pack.Tokens:
    """The tokens of some documents, side by side in the order asked for."""
    ends = np.cumsum([len(starts) - 1 for _, starts in encoded])
    wanted = wanted.astype(np.int64)
    home = np.searchsorted(ends, wanted, side="right")
    first, size = np.empty((2, len(wanted)), np.int64)
    members = {piece: np.flatnonzero(home == piece) for piece in np.unique(home).tolist()}
    for piece, mine in members.items():
        starts = encoded[piece][1]
        local = wanted[mine] - (ends[piece - 1] if piece else 0)
        first[mine], size[mine] = starts[local], starts[local + 1] - starts[local]
    begins = np.concatenate([[0], np.cumsum(size)])
    flat = np.empty(int(begins[-1]), encoded[0][0].dtype)
    for piece, mine in members.items():
        lay(encoded[piece][0], first[mine], size[mine], flat, begins[mine])
    return pack.Tokens(flat, begins)


def _shard(
    block: pa.Table,
    tokens: pack.Tokens,
    targets: pack.Tokens | None,
    spec: Spec,
    labels: list[str] | None,
    folder: Path,
    first: int,
    number: int,
) -> Spec:
    """Write one block as an Arrow IPC file; returns its entry for the manifest."""
    source, split = block["source"][0].as_py(), block["split"][0].as_py()
    truncated, lost = 0, 0
    if labels is None:
        table = pack.packed(tokens, spec["length"], spec["eot"])
    else:
        where = {label: n for n, label in enumerate(labels)}
        coded = np.array([where.get(label, -1) for label in block["label"].to_pylist()], np.int32)
        table, truncated, lost = pack.examples(tokens, spec["length"], coded, targets)
    name = f"{split}-{source}-{number:05d}.arrow"
    batch = table.combine_chunks().to_batches(max_chunksize=max(table.num_rows, 1))
    with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for piece in batch:
            writer.write(piece)
    return {
        "file": name,
        "source": source,
        "split": split,
        "rows": table.num_rows,
        "tokens": len(tokens.flat) - truncated,
        "truncated": truncated,
        "target_tokens": len(targets.flat) - lost if targets else 0,
        "target_truncated": lost,
        "first_document": first,
        "documents": block.num_rows,
        "text_bytes": pc.sum(block["text_bytes"]).as_py(),
        "bytes": (folder / name).stat().st_size,
        "sha256": file_digest(folder / name, "sha256"),
        "digest": shard_digest(folder / name),
    }
