"""Task `vocabulary`: tokenizer.json, trained on the sample or given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from tokenizers import Tokenizer

from pipeline.digests import digest
from pipeline.limits import Limits
from pipeline.store import Store, Writing, read_group, read_parquet, write_text
from pipeline.tokens import vocabulary
from pipeline.tokens.encoding import laid_out

Spec = dict[str, Any]


def train_vocabulary(store: Store, spec: Spec, out: Writing, limits: Limits) -> None:
    """Output tokenizer.json; the result states what it was trained on."""
    target = out.folder / "tokenizer.json"
    if spec["tokenizer"]:
        _, _, tokenizer = laid_out(Path(spec["tokenizer"]))
        shutil.copyfile(spec["tokenizer"], target)
        out.result = {"trained_on": None, **_describe(tokenizer)}
        return
    survivors = store.file(spec["survivors"], "survivors.parquet")
    left = [read_group(survivors, number).combine_chunks() for number in range(len(spec["parts"]))]
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
