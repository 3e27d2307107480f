"""Byte-level BPE: text to ids with one tokenizer.json, against `tokenizers` and tiktoken with the same vocabulary.

Every run begins with an empty cache of pre-tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison

ROWS = 256
# GPT-2's pre-tokenizer, as tiktoken writes it for the encoding "gpt2".
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
BOUNDS = {"english": ((10, 20), (3, 6)), "code": ((10, 20), (3, 6)), "chinese": ((3, 10), (1.5, 4))}
COMPARISONS = [
    Comparison(f"BPE encode, {data}", "gristmill", peer, data, *bound, how=how)
    for data, bounds in BOUNDS.items()
    for (peer, how), bound in zip(
        (("tokenizers", "encode_batch"), ("tiktoken", "encode_ordinary")), bounds, strict=True
    )
]


def gristmill(data: Path, folder: Path) -> Callable[[], list[list[int]]]:
    """What the task `encode` of a build does with a partition's text."""
    import pyarrow as pa

    from tests.bench.works.ours import batches, encoder

    read = [batch["text"] for batch in batches(data, ROWS)]
    path = data.parent / "tokenizer.json"
    encoder(path)(pa.array(["The mill turns.", "磨坊"]))
    encode = encoder(path)

    def work() -> Any:
        return [encode(text) for text in read]

    return work


def tokenizers(data: Path, folder: Path) -> Callable[[], list[list[int]]]:
    """`encode_batch_fast`, which leaves offsets out."""
    from tokenizers import Tokenizer

    texts = strings(data)
    tokenizer = Tokenizer.from_file(str(data.parent / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.encode_batch_fast(["The mill turns."])
    cold = Tokenizer.from_str(tokenizer.to_str())
    cold.encode_special_tokens = True
    return lambda: [
        found.ids
        for first in range(0, len(texts), ROWS)
        for found in cold.encode_batch_fast(texts[first : first + ROWS], add_special_tokens=False)
    ]


def tiktoken(data: Path, folder: Path) -> Callable[[], list[list[int]]]:
    """`encode_ordinary`, text by text: its batch call does the same in threads."""
    from tiktoken import Encoding

    texts = strings(data)
    vocab = json.loads((data.parent / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    byte = letters()
    ranks = {bytes(map(byte.__getitem__, entry)): rank for entry, rank in vocab.items() if entry != "<|endoftext|>"}
    encoding = Encoding("bench", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    encoding.encode_ordinary("The mill turns.")
    return lambda: [encoding.encode_ordinary(text) for text in texts]


def strings(data: Path) -> list[str]:
    """The texts as Python strings, which both peers take."""
    import pyarrow.parquet as pq

    return pq.read_table(data, columns=["text"])["text"].to_pylist()


def letters() -> dict[str, int]:
    """The byte that each letter of the byte-level alphabet stands for (GPT-2's bytes_to_unicode)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def differences(ours: list[tuple[Any, Any]], theirs: list[list[int]], data: Path) -> str:
    """Ids, document by document; ours have the end-of-text token before and behind."""
    mine = [ids[a + 1 : b - 1].tolist() for ids, starts in ours for a, b in pairwise(starts.tolist())]
    same = sum(a == b for a, b in zip(mine, theirs, strict=True))
    return f"ids of {same:,} of {len(mine):,} documents equal, {sum(map(len, mine)):,} tokens"


SIDES = {"gristmill": gristmill, "tokenizers": tokenizers, "tiktoken": tiktoken}
