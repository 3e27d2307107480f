"""From a column of text to its ids: by the kernel where the tokenizer is one that it knows, else by `tokenizers`.

Both ways give the same ids. A document that spells an added token which stays a token goes the slow way, and so does
one that is not in the tokenizer's normal form, as far as that form.
"""

from __future__ import annotations

import codecs
import functools
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.kernels import bpe, pretokens
from pipeline.kernels._jit import Ints
from pipeline.kernels.bpe_memory import Memory
from pipeline.kernels.bpe_merges import MAX_IDS, MAX_MERGES
from pipeline.kernels.bpe_tables import Merges, tables
from pipeline.kernels.tidy import UNKNOWN, UNSETTLED, flaws
from pipeline.kernels.unicode import NFC_INERT
from pipeline.memory import keeps
from pipeline.store import file_digest
from pipeline.tokens import vocabulary

COMPOSED, LOWERCASE = {"type": "NFC"}, {"type": "Lowercase"}
# The one character of Unicode 14.0 that is two in lower case, which Arrow makes one.
DOTTED = "\u0130"
Table = dict[str, Any]
Encoded = tuple[NDArray[Any], Ints]


def why_not(tokenizer: Tokenizer) -> str | None:
    """Why the kernel cannot stand for this tokenizer, or None where it can."""
    return _why_not(json.loads(tokenizer.to_str()))


def _why_not(table: Table) -> str | None:
    model, normal = table["model"], table["normalizer"]
    if model["type"] != "BPE":
        return f"its model is {model['type']}, not BPE"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            return f"its model has {name} = {model[name]!r}"
    if normal is not None and normal not in (COMPOSED, LOWERCASE):
        return f"its normalizer is {normal['type']}"
    if table["truncation"] or table["padding"]:
        return "it truncates or pads"
    if _pre_tokenizer(table["pre_tokenizer"]) is None:
        return "its pre-tokenizer is not one of GPT-2, GPT-4, Llama 3 and Qwen"
    if not _characters().keys() <= model["vocab"].keys():
        return "its vocabulary does not hold every byte"
    if max(model["vocab"].values()) >= MAX_IDS or len(model["merges"]) > MAX_MERGES:
        return f"its vocabulary has ids of {MAX_IDS} and more, or more than {MAX_MERGES} merges"
    return None


def _pre_tokenizer(table: Table | None) -> tuple[int, bool] | None:
    """(digits, whether a space is put before a text), or None where it is another."""
    kind = (table or {}).get("type")
    if table is None or kind not in ("ByteLevel", "Sequence"):
        return None
    if kind == "ByteLevel":
        return (0, table["add_prefix_space"]) if table["use_regex"] else None
    match table["pretokenizers"]:
        case [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ] if expression in pretokens.DIGITS:
            return pretokens.DIGITS[expression], False
    return None


class Encoder:
    """A tokenizer laid out for the kernel, and the tokenizer itself for what the kernel leaves."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ConfigError where the tokenizer has no end-of-text token."""
        table = json.loads(tokenizer.to_str())
        self.why_not = _why_not(table)
        self._tokenizer, self._end = tokenizer, vocabulary.end_of_text(tokenizer)
        self._start = vocabulary.start_of_text(tokenizer)
        wide = tokenizer.get_vocab_size(with_added_tokens=True) > 1 << 16
        self._type: type[np.uint16] | type[np.uint32] = np.uint32 if wide else np.uint16
        if self.why_not is None:
            self._digits, self._prefix = _pre_tokenizer(table["pre_tokenizer"]) or (0, False)
            self._normal = table["normalizer"]
            stay = [
                token["content"]
                for token in table["added_tokens"]
                if token["content"] and not (token["special"] and tokenizer.encode_special_tokens)
            ]
            if self._normal:
                stay += map(tokenizer.normalizer.normalize_str, stay[:])
            self._stay = sorted(set(stay))
            self._merges = _merges(table["model"])
            self.forget()
            keeps(self)

    def forget(self) -> None:
        """Let the pre-tokens go that every thread met."""
        self._met = threading.local()

    def __call__(self, text: pa.Array) -> Encoded:
        """(ids, offsets int64 [n + 1]): row i, between what begins and what ends a document, is
        ids[offsets[i]:offsets[i + 1]].

        ids are uint16 or, of a vocabulary of more than 65,536, uint32. A null row is as an empty one.
        """
        text = text.fill_null("") if text.null_count else text
        if self.why_not is not None:
            return self._slow(text)
        normal = self._normalised(text) if self._normal else text
        left = self._left(text) if normal is text else np.union1d(self._left(text), self._left(normal))
        if left.size == 0:
            return self._fast(normal)
        mask = np.zeros(len(text), bool)
        mask[left] = True
        fast = self._fast(pc.if_else(pa.array(mask), "", normal))
        return _laid(fast, self._slow(text.take(pa.array(left))), mask)

    def _fast(self, text: pa.Array) -> Encoded:
        if self._prefix:
            bare = pc.and_(pc.invert(pc.starts_with(text, " ")), pc.greater(pc.binary_length(text), 0))
            text = pc.if_else(bare, pc.binary_join_element_wise(pa.scalar("", text.type), text, " "), text)
        met = self._met
        if not hasattr(met, "memory"):
            met.memory = Memory.empty()
        ids, starts = bpe.encode(text, self._merges, self._digits, self._end, met.memory)
        ids[starts[:-1]] = self._start
        return ids.astype(self._type), starts

    def _slow(self, text: pa.Array) -> Encoded:
        rows = [np.array(ids, self._type) for ids in vocabulary.encode(self._tokenizer, text.to_pylist())]
        starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return (np.concatenate(rows) if rows else np.zeros(0, self._type)), starts

    def _left(self, text: pa.Array) -> Ints:
        """Rows that may spell an added token which stays one."""
        found = np.zeros(len(text), bool)
        for content in self._stay:
            found |= pc.match_substring(text, content).to_numpy(zero_copy_only=False)
        return np.flatnonzero(found)

    def _normalised(self, text: pa.Array) -> pa.Array:
        """Lower case is Arrow's, where each character is known to Unicode 14.0; what is left is the tokenizer's own."""
        lower = self._normal == LOWERCASE
        found = flaws(text, NFC_INERT) & (UNKNOWN if lower else UNSETTLED | UNKNOWN) > 0
        if lower:
            found |= pc.match_substring(text, DOTTED).to_numpy(zero_copy_only=False)
        settled = pc.utf8_lower(text) if lower else text
        if not found.any():
            return settled
        rows = text.filter(pa.array(found)).to_pylist()
        normal = [self._tokenizer.normalizer.normalize_str(row) for row in rows]
        return pc.replace_with_mask(settled, pa.array(found), pa.array(normal, text.type))


def _laid(fast: Encoded, slow: Encoded, mask: NDArray[np.bool_]) -> Encoded:
    """Documents of both in their order: those of `slow` where the mask is set."""
    sizes = np.diff(fast[1])
    sizes[mask] = np.diff(slow[1])
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    slow_rows = iter(range(len(slow[1]) - 1))
    pieces = []
    for row, left in enumerate(mask.tolist()):
        ids, offsets = slow if left else fast
        at = next(slow_rows) if left else row
        pieces.append(ids[offsets[at] : offsets[at + 1]])
    return np.concatenate(pieces), starts


def _merges(model: Table) -> Merges:
    characters = {ord(character): byte for character, byte in _characters().items()}

    def spelt(entry: str) -> bytes | None:
        try:
            return codecs.charmap_encode(entry, "strict", characters)[0]
        except UnicodeEncodeError:
            return None

    vocab = {key: value for entry, value in model["vocab"].items() if (key := spelt(entry)) is not None}
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    merges = [(spelt(a), spelt(b)) for a, b in pairs]
    # No text has a character outside the alphabet, so what needs one never happens.
    possible = [(a, b) for a, b in merges if a and b]
    return tables(vocab, possible, bool(model.get("ignore_merges")))


@functools.cache
def _characters() -> dict[str, int]:
    """The byte that each character of the byte-level alphabet stands for (GPT-2's bytes_to_unicode)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}


_laying_out = threading.Lock()
_encoders: dict[str, tuple[Encoder, pa.DataType, Tokenizer]] = {}


def laid_out(path: Path) -> tuple[Encoder, pa.DataType, Tokenizer]:
    """The encoder of a tokenizer, the type of its ids, and itself.

    Laying one out takes a third of a second, so a process does it once, whatever the file's name: a given one is
    copied into the store.
    """
    known = file_digest(path)
    with _laying_out:
        if known not in _encoders:
            tokenizer = vocabulary.load(path)
            kind = vocabulary.token_type(tokenizer.get_vocab_size(with_added_tokens=True))
            _encoders.clear()
            _encoders[known] = Encoder(tokenizer), kind, tokenizer
        return _encoders[known]
