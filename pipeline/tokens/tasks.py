"""Tasks from survivors to shards: the vocabulary, one encoding a partition, and the packing.

vocabulary   tokenizer.json, trained on the sample or given
encode       the tokens of one partition's survivors, and their rows of the document index
pack         the document index, and one shard a packing block
"""

from __future__ import annotations

import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from tokenizers import Tokenizer

from pipeline.digests import digest
from pipeline.kernels.packing import lay
from pipeline.limits import Limits
from pipeline.manifest import shard_digest
from pipeline.mixing import FILE, repeated
from pipeline.schema import DOCUMENT, TURN
from pipeline.stage import ConfigError
from pipeline.store import Store, Writing, file_digest, link, read_group, read_parquet, write_parquet, write_text
from pipeline.threads import ahead
from pipeline.tokens import pack, vocabulary
from pipeline.tokens.encoding import Encoder

Spec = dict[str, Any]

INDEX = pa.schema(
    [
        *(DOCUMENT.field(name) for name in ("doc_id", "source")),
        pa.field("language", pa.string()),
        *(DOCUMENT.field(name) for name in ("licence", "url", "parent_id", "label")),
        pa.field("text_bytes", pa.int64()),
        pa.field("tokens", pa.int32()),
        pa.field("split", pa.string()),
        pa.field("split_group", pa.string()),
    ]
)
# Behind them where a source holds evaluation items: what is asked, to the byte, for a model of any tokenizer.
ITEM = pa.field("item", pa.string())
ENCODE_ROWS = 512


def train_vocabulary(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output tokenizer.json; the result states what it was trained on."""
    target = out.folder / "tokenizer.json"
    if spec["tokenizer"]:
        _, _, tokenizer = _encoder(Path(spec["tokenizer"]))
        shutil.copyfile(spec["tokenizer"], target)
        out.result = {"trained_on": None, **_describe(tokenizer)}
        return
    left = [_survivors(store, spec["survivors"], number) for number in range(len(spec["parts"]))]
    said = [
        read_parquet(store.file(key, "signals.parquet"), ["parent_id", "text_bytes"]).take(table["row"])
        for key, table in zip(spec["parts"], left, strict=True)
    ]
    whole, known = pa.concat_tables(left), pa.concat_tables(said)
    # Children say their parents' words again: with them and without them the tokenizer is the same.
    mine = pc.and_(pc.equal(whole["split"], "train"), pc.is_null(known["parent_id"]))
    whole, byte_sizes = whole.filter(mine), known["text_bytes"].filter(mine).to_pylist()
    chosen = vocabulary.choose(whole["doc_id"].to_pylist(), byte_sizes, spec["budget"], spec["seed"])
    texts, seen = _texts(store, spec["parts"], whole.take(pa.array(chosen)))
    tokenizer = vocabulary.train(texts, spec["vocab_size"], spec["lowercase"])
    # Not its own save: that says of a full disk only that there was an exception.
    write_text(target, tokenizer.to_str(pretty=True))
    trained_on = {"documents": len(chosen), "bytes": sum(byte_sizes[i] for i in chosen), "digest": seen}
    if spec["lowercase"]:
        trained_on["lowercase"] = True
    out.result = {"trained_on": trained_on, **_describe(vocabulary.load(target))}


def _describe(tokenizer: Tokenizer) -> Spec:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    start, end = vocabulary.start_of_text(tokenizer), vocabulary.end_of_text(tokenizer)
    return {"vocab_size": size, "eot": end, **({"bos": start} if start != end else {})}


def _texts(store: Store, parts: list[str], chosen: pa.Table) -> tuple[list[str], str]:
    """Texts of the sample in order of doc_id, and a digest over their ids and contents."""
    rows = []
    for number, key in enumerate(parts):
        mine = chosen.filter(pc.equal(chosen["part"], number))
        documents = read_parquet(store.file(key, "documents.parquet"), ["doc_id", "text"]).take(mine["row"])
        rows += list(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
    rows.sort()
    return [text for _, text in rows], digest([[i, xxhash.xxh3_128_hexdigest(text.encode())] for i, text in rows])


def _survivors(store: Store, key: str, part: int) -> pa.Table:
    return read_group(store.file(key, "survivors.parquet"), part).combine_chunks()


def encode(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs tokens.arrow (one list a survivor of this partition, and one of its target where any has one) and
    documents.parquet (INDEX)."""
    left = _survivors(store, spec["survivors"], spec["number"])
    documents = read_parquet(store.file(spec["part"], "documents.parquet")).take(left["row"]).combine_chunks()
    encoder, kind, _ = _encoder(store.file(spec["vocabulary"], "tokenizer.json"))
    names = ["text", "target"] if documents["target"].null_count < documents.num_rows else ["text"]
    columns = {"text": "tokens", "target": "target"}
    schema = pa.schema([(columns[name], pa.large_list(kind)) for name in names])
    counts: list[int] = []
    with pa.OSFile(str(out.folder / "tokens.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in documents.select([*names, "doc_id", "source"]).to_batches(max_chunksize=ENCODE_ROWS):
            turns = _conversations(batch, spec.get("chats", []))
            lists = [_lists(encoder, batch[name], kind, turns) for name in names]
            counts += np.diff(lists[0].offsets.to_numpy()).tolist()
            writer.write(pa.record_batch(lists, schema=schema))
    known = {name: documents[name] for name in INDEX.names if name in documents.column_names}
    known |= {name: left[name] for name in ("split", "split_group")}
    known["text_bytes"] = pc.binary_length(documents["text"]).cast(pa.int64())
    known["tokens"] = pa.array(counts, pa.int32())
    index = pa.table([known[name] for name in INDEX.names], schema=INDEX)
    if documents["item"].null_count < documents.num_rows:
        index = index.append_column(ITEM, documents["item"].cast(ITEM.type))
    out.table("documents.parquet", index)
    out.result = {"documents": len(counts), "tokens": sum(counts)}


def _conversations(batch: pa.RecordBatch, chats: list[str]) -> np.ndarray:
    """Which documents are conversations: those of sources of that kind. Raises ConfigError where a stage took turns."""
    found: np.ndarray = pc.is_in(batch["source"], pa.array(chats, pa.string())).to_numpy(zero_copy_only=False)
    if not found.any():
        return found
    said, ours = (pc.count_substring(batch[name], TURN).to_numpy(zero_copy_only=False) for name in ("text", "target"))
    if (broken := np.flatnonzero(found & ((said < ours) | (said > ours + 1)))).size:
        raise ConfigError(
            f"{batch['doc_id'][int(broken[0])]}: a stage took turns out of this conversation; leave out stages that "
            "cut lines or passages"
        )
    return found


def _lists(encoder: Encoder, text: pa.Array, kind: pa.DataType, turns: np.ndarray) -> pa.LargeListArray:
    """The tokens of each text; a null one has none at all. Where a text has `turns`, each is encoded by itself, and
    between two of them stands one end-of-text."""
    there = pc.is_valid(text).to_numpy(zero_copy_only=False)
    sizes = np.zeros(len(text), np.int64)
    ids = np.empty(0, kind.to_pandas_dtype())
    if there.any():
        given = text.drop_null() if text.null_count else text
        home = np.arange(len(given))
        if (several := turns[there]).any():
            both = zip(given.to_pylist(), several, strict=True)
            parted = [one.split(TURN) if apart else [one] for one, apart in both]
            home = np.repeat(home, [len(each) for each in parted])
            given = pa.array(itertools.chain.from_iterable(parted), given.type)
        ids, starts = encoder(given)
        again = np.flatnonzero(np.diff(home) == 0) + 1  # turns behind the first of a text: what begins them
        ids = np.delete(ids, starts[again])
        lengths = np.diff(starts)
        lengths[again] -= 1
        sizes[there] = np.bincount(home, lengths).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(ids, kind))


_laying_out = threading.Lock()
_laid: dict[str, tuple[Encoder, pa.DataType, Tokenizer]] = {}


def _encoder(path: Path) -> tuple[Encoder, pa.DataType, Tokenizer]:
    """The encoder of a tokenizer, the type of its ids, and itself.

    Laying one out takes a third of a second, so a process does it once, whatever the file's name: a given one is
    copied into the store.
    """
    digest = file_digest(path)
    with _laying_out:
        if digest not in _laid:
            tokenizer = vocabulary.load(path)
            kind = token_type(tokenizer.get_vocab_size(with_added_tokens=True))
            _laid.clear()
            _laid[digest] = Encoder(tokenizer), kind, tokenizer
        return _laid[digest]


def token_type(vocab_size: int) -> pa.DataType:
    return pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()


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
        tables.append(INDEX.empty_table().select(["doc_id"]))
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
