"""Task `encode`: the tokens of one partition's survivors, and their rows of the document index."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.limits import Limits
from pipeline.schema import DOCUMENT, TURN
from pipeline.stage import ConfigError
from pipeline.store import Store, Writing, read_group, read_parquet
from pipeline.tokens.encoding import Encoder, laid_out

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


def encode(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Outputs tokens.arrow (one list a survivor of this partition, and one of its target where any has one) and
    documents.parquet (INDEX)."""
    left = read_group(store.file(spec["survivors"], "survivors.parquet"), spec["number"]).combine_chunks()
    documents = read_parquet(store.file(spec["part"], "documents.parquet")).take(left["row"]).combine_chunks()
    encoder, kind, _ = laid_out(store.file(spec["vocabulary"], "tokenizer.json"))
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
