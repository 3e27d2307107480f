"""A version made by hand, straight from the contract: a second oracle that shares no code with the data half.

Documents are laid one after the other (a row is closed when the next document does not fit), rows never
mix sources or splits, and every tenth document of the given order goes to validation.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

EOT = "<|endoftext|>"


def train_tokenizer(texts: Sequence[str], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """A byte-level BPE with one special token, of texts as they stand or in lower case."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOT], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_version(
    folder: Path,
    documents: Sequence[dict[str, Any]],
    *,
    length: int = 32,
    vocab_size: int = 300,
    dtype: str = "uint16",
    shard_rows: int = 16,
    val_every: int = 10,
    name: str = "toy",
    tokenizer: Tokenizer | None = None,
    layout: str = "packed",
    start: str = EOT,
) -> Path:
    """Write a version of `documents` (text, and optionally doc_id, source, language, label); returns its manifest.json.

    With layout "examples" a row is a document, and has a target text where all documents have a `target`. Documents
    begin with the token `start`.
    """
    folder.mkdir(parents=True)
    (folder / "shards").mkdir()
    table = _index(documents, val_every)
    tokenizer = tokenizer or train_tokenizer([row["text"] for row in table], vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    eot, bos = tokenizer.token_to_id(EOT), tokenizer.token_to_id(start)
    encoded = [[bos, *e.ids, eot] for e in tokenizer.encode_batch([row["text"] for row in table], False, False)]
    for row, ids in zip(table, encoded, strict=True):
        row["tokens"] = len(ids)
    known = [{k: v for k, v in row.items() if k not in ("text", "target")} for row in table]
    asked = any("item" in row for row in table)
    index = pa.Table.from_pylist(known, schema=INDEX.append(pa.field("item", pa.string())) if asked else INDEX)
    pq.write_table(index, folder / "documents.parquet")
    labels = sorted({row["label"] for row in table if row.get("label") is not None})
    targets = None
    if layout == "examples" and all("target" in row for row in table):
        targets = [[bos, *e.ids, eot] for e in tokenizer.encode_batch([row["target"] for row in table], False, False)]
    kind = (targets, labels) if layout == "examples" else None
    splits = {
        split: _split(folder, split, table, encoded, length, dtype, shard_rows, eot, kind) for split in ("train", "val")
    }
    manifest = {
        "format": "gristmill.manifest/1",
        "name": name,
        "layout": layout,
        "length": length,
        "dtype": dtype,
        "recipe": {"name": name},
        "sources": [_source(source, table) for source in sorted({row["source"] for row in table})],
        "tokenizer": {
            "file": "tokenizer.json",
            "sha256": sha256(folder / "tokenizer.json"),
            "vocab_size": tokenizer.get_vocab_size(),
            "eot": eot,
            **({"bos": bos} if bos != eot else {}),
            "trained_on": None,
        },
        "accounting": [_accounting(len(table))],
        "summaries": _summaries(table),
        "labels": labels if kind else None,
        "splits": splits,
        "documents": {
            "file": "documents.parquet",
            "rows": len(table),
            "digest": index_digest(index),
            "sha256": sha256(folder / "documents.parquet"),
        },
        "parents": [],
    }
    if targets:
        cut = [min(len(ids), length) for ids in targets]
        manifest["targets"] = {"tokens": sum(cut), "truncated": sum(map(len, targets)) - sum(cut)}
    write_manifest(folder, manifest)
    return folder / "manifest.json"


INDEX = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "source", "language", "licence", "url", "parent_id", "label")]
    + [("text_bytes", pa.int64()), ("tokens", pa.int32()), ("split", pa.string()), ("split_group", pa.string())]
)


def _index(documents: Sequence[dict[str, Any]], val_every: int) -> list[dict[str, Any]]:
    table = []
    for i, document in enumerate(documents):
        row: dict[str, Any] = {"doc_id": f"toy:{i:06d}", "source": "toy", "language": "en", **document}
        row["text_bytes"] = len(row["text"].encode())
        row["split"] = "val" if i % val_every == val_every - 1 else "train"
        row["split_group"] = row["doc_id"]
        table.append(row)
    return sorted(table, key=lambda row: (row["source"], row["split"], row["doc_id"]))


def _source(name: str, table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in table if row["source"] == name]
    return {
        "name": name,
        "kind": "files",
        "title": name,
        "licence": "CC0-1.0",
        "homepage": "",
        "revision": blake(name.encode()),
        "documents": len(mine),
        "text_bytes": sum(row["text_bytes"] for row in mine),
        "files": [],
    }


def _accounting(count: int) -> dict[str, Any]:
    whole = {"entered": count, "added": 0, "dropped": 0, "quarantined": 0, "left": count, "reasons": {}}
    return {"stage": "source", "kind": "source", "segment": 0, **whole}


def _summaries(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    size = sum(row["text_bytes"] for row in table)
    return {
        "documents": {"ingested": len(table), "added": 0, "kept": len(table), "dropped": 0, "quarantined": 0},
        "text_bytes": {"ingested": size, "kept": size},
        "languages": {},
        "by_source": {},
        "length_histogram": {"edges": [], "ingested": [], "kept": []},
    }


def _split(
    folder: Path,
    split: str,
    table: Sequence[dict[str, Any]],
    encoded: Sequence[Sequence[int]],
    length: int,
    dtype: str,
    shard_rows: int,
    eot: int,
    examples: tuple[list[list[int]] | None, list[str]] | None,
) -> dict[str, Any]:
    by_source: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(table):
        if row["split"] == split:
            by_source[row["source"]].append(number)
    shards = []
    for source, numbers in by_source.items():
        # A block of documents, so a shard, ends when its rows reach shard_rows; each numbers its documents from 0.
        for first, last in _blocks([len(encoded[n]) for n in numbers], length * shard_rows):
            mine = numbers[first:last]
            file = f"shards/{split}-{source}-{len(shards):05d}.arrow"
            place = {"source": source, "first_document": numbers[first], "documents": last - first}
            if examples is None:
                made = _shard(folder, file, _pack([encoded[n] for n in mine], length), length, dtype, eot)
            else:
                targets, labels = examples
                labelled = [table[n].get("label") for n in mine]
                columns = {
                    "tokens": [_cut(encoded[n], length) for n in mine],
                    "label": [-1 if label is None else labels.index(label) for label in labelled],
                    "document": list(range(len(mine))),
                    **({"target": [_cut(targets[n], length) for n in mine]} if targets else {}),
                }
                made = _examples(folder, file, columns, dtype)
            shards.append({**made, **place})
    chosen = [n for numbers in by_source.values() for n in numbers]
    return {
        "rows": sum(shard["rows"] for shard in shards),
        "tokens": sum(shard["tokens"] for shard in shards),
        "documents": len(chosen),
        "text_bytes": sum(table[n]["text_bytes"] for n in chosen),
        "truncated": sum(max(0, len(encoded[n]) - length) for n in chosen) if examples else 0,
        "digest": blake(json.dumps([shard["digest"] for shard in shards], separators=(",", ":")).encode()),
        "shards": shards,
    }


def _cut(ids: list[int], length: int) -> list[int]:
    """A text that is too long keeps its end-of-text."""
    return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]


def _blocks(sizes: Sequence[int], budget: int) -> list[tuple[int, int]]:
    bounds, first, held = [], 0, 0
    for i, size in enumerate(sizes):
        held += size
        if held >= budget or i == len(sizes) - 1:
            bounds.append((first, i + 1))
            first, held = i + 1, 0
    return bounds


def _pack(documents: Sequence[Sequence[int]], length: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, ids in enumerate(documents):
        for offset in range(0, len(ids), length):
            piece = ids[offset : offset + length]
            if not rows or len(rows[-1]["tokens"]) + len(piece) > length:
                rows.append({"tokens": [], "starts": [], "documents": [], "offsets": []})
            row = rows[-1]
            row["starts"].append(len(row["tokens"]))
            row["documents"].append(number)
            row["offsets"].append(offset)
            row["tokens"].extend(piece)
    return rows


def _shard(
    folder: Path, file: str, rows: Sequence[dict[str, Any]], length: int, dtype: str, eot: int
) -> dict[str, Any]:
    tokens = np.full((len(rows), length), eot, dtype)
    for i, row in enumerate(rows):
        tokens[i, : len(row["tokens"])] = row["tokens"]
    columns = {
        "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), length),
        "used": pa.array([len(row["tokens"]) for row in rows], pa.int32()),
        **{k: pa.array([row[k] for row in rows], pa.list_(pa.int32())) for k in ("starts", "documents", "offsets")},
    }
    batch = pa.record_batch(columns)
    with pa.ipc.new_file(str(folder / file), batch.schema) as writer:
        writer.write_batch(batch)
    return {
        "file": file,
        "rows": len(rows),
        "tokens": sum(len(row["tokens"]) for row in rows),
        "bytes": (folder / file).stat().st_size,
        "sha256": sha256(folder / file),
        "digest": _shard_digest(tokens, rows),
    }


def _examples(folder: Path, file: str, columns: dict[str, list[Any]], dtype: str) -> dict[str, Any]:
    """One row a document; the digest is over sizes and values of lists, and the plain columns."""
    kinds = {name: np.dtype("int32" if name in ("label", "document") else dtype) for name in columns}
    data, arrays = b"", {}
    for name, values in columns.items():
        data += name.encode()
        kind = pa.from_numpy_dtype(kinds[name])
        if name in ("label", "document"):
            arrays[name] = pa.array(values, kind)
            data += np.array(values, kinds[name]).tobytes()
        else:
            arrays[name] = pa.array(values, pa.list_(kind))
            data += np.array([len(v) for v in values], np.int32).tobytes()
            data += np.array([t for v in values for t in v], kinds[name]).tobytes()
    batch = pa.record_batch(arrays)
    with pa.ipc.new_file(str(folder / file), batch.schema) as writer:
        writer.write_batch(batch)
    return {
        "file": file,
        "rows": len(columns["tokens"]),
        "tokens": sum(map(len, columns["tokens"])),
        "bytes": (folder / file).stat().st_size,
        "sha256": sha256(folder / file),
        "digest": blake(data),
    }


def _shard_digest(tokens: np.ndarray, rows: Sequence[dict[str, Any]]) -> str:
    data = b"tokens" + tokens.tobytes() + b"used" + np.array([len(row["tokens"]) for row in rows], np.int32).tobytes()
    for name in ("starts", "documents", "offsets"):
        sizes = np.array([len(row[name]) for row in rows], np.int32)
        values = np.array([value for row in rows for value in row[name]], np.int32)
        data += name.encode() + sizes.tobytes() + values.tobytes()
    return blake(data)


def index_digest(table: pa.Table) -> str:
    """Values of the document index: a heading, a bit for each value that is there, then the values."""
    data = b""
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.to_pylist()
        data += f"{name}:{column.type}:{len(values)}".encode()
        data += np.packbits([value is not None for value in values]).tobytes()
        if column.type == pa.string():
            encoded = [(value or "").encode() for value in values]
            data += np.array([len(value) for value in encoded], np.int32).tobytes() + b"".join(encoded)
        else:
            data += np.array(values, column.type.to_pandas_dtype()).tobytes()
    return blake(data)


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Canonical JSON, as the contract says, under the version that its content gives."""
    content = json.loads(json.dumps(manifest))
    content.pop("version", None)
    content["documents"].pop("sha256")
    for split in content["splits"].values():
        split["shards"] = [{k: v for k, v in s.items() if k not in ("sha256", "bytes")} for s in split["shards"]]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    manifest = {**manifest, "version": blake(canonical.encode())[:16]}
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blake(data: bytes) -> str:
    """32 hexadecimal characters of blake2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
