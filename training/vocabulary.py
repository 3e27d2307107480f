"""What the tokens of a vocabulary spell, where words begin among them, and which of them is the mask.

A vocabulary is byte-level or WordPiece (BERT's; Wu et al. 2016, arXiv 1609.08144, section 4.1). A token of WordPiece
says itself whether it goes on with a word, and what its tokens spell has no white space.

The rule of words in a byte-level one: a word begins at a token that begins a character, where that character or the
one before it is no letter. So white space, punctuation and what follows them begin words, and the first token of a
document piece does. Letters are known by their first byte, which a token of half a character shows too: ASCII letters
and digits, and all beyond ASCII but U+0080 to U+00BF, U+2000 to U+9FFF and U+E000 on, which are punctuation, symbols,
Han and kana. A Chinese word is therefore one character: all of its tokens where bytes of it are tokens, and a token of
several characters where the vocabulary has such. Scripts that write neither spaces nor Han (Thai, Khmer) have long
words, as long as their runs of letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from training import TrainingError
from training.manifest import Version

Ints = NDArray[np.integer[Any]]
INSIDE, LETTER, APART = range(3)  # a byte inside a character, the first of a letter, the first of something else
MASK = "<|mask|>"  # of a tokenizer that has none
MASKS = ("[MASK]", "<mask>", MASK)  # as special tokens are called: by BERT, by RoBERTa, and here


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer: `ordinary` are the ids of those that spell text, `mask` is its own mask, if any.

    `begins` and `ends` [size] class the first byte of a token and its last one that begins a character; in WordPiece
    what goes on with a word is inside of it, and all else apart.
    """

    size: int
    special: NDArray[np.bool_]
    ordinary: Ints
    begins: Ints
    ends: Ints
    mask: int | None

    def words(self, tokens: Ints, position: Ints) -> NDArray[np.bool_]:
        """Which tokens [B, T] begin a word; `position` in the piece, where 0 and padding (-1) always do."""
        first, last = self.begins[tokens], self.ends[tokens]
        last = np.where((last == INSIDE) & (position <= 0), LETTER, last)
        place = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        known = np.maximum.accumulate(np.where(last != INSIDE, place, 0), axis=1)
        before = np.roll(np.take_along_axis(last, known, axis=1), 1, axis=1)
        return (position <= 0) | (first == APART) | ((first != INSIDE) & (before == APART))


def of(version: Version) -> Vocabulary:
    """The vocabulary of a version. Raises TrainingError where it is neither byte-level nor WordPiece."""
    return _vocabulary(version.tokenizer_file)


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Path) -> Vocabulary:
    spelt, loaded = spelling(tokenizer), Tokenizer.from_file(str(tokenizer))
    special = np.array([not text for text in spelt])
    if (prefix := _goes_on(loaded)) is not None:
        inside = [number for text, number in loaded.get_vocab().items() if text.startswith(prefix)]
        begins = ends = np.full(len(spelt), APART)
        begins[inside] = INSIDE
    else:
        leads = [[CLASSES[byte] for byte in text if CLASSES[byte] != INSIDE] for text in spelt]
        begins = np.array([CLASSES[text[0]] if text else APART for text in spelt])
        ends = np.array([lead[-1] if lead else INSIDE for lead in leads])
    mask = loaded.token_to_id(mask_of(loaded) or "")
    return Vocabulary(len(spelt), special, np.flatnonzero(~special), begins, np.where(special, APART, ends), mask)


def _goes_on(tokenizer: Tokenizer) -> str | None:
    """What tokens of WordPiece begin with that go on with a word; None of any other vocabulary."""
    model = tokenizer.model
    return model.continuing_subword_prefix if isinstance(model, models.WordPiece) else None


def is_word_piece(tokenizer: Path) -> bool:
    """Whether the tokens of a tokenizer.json spell no white space, so that no byte of it is counted."""
    return _goes_on(Tokenizer.from_file(str(tokenizer))) is not None


def mask_of(tokenizer: Tokenizer) -> str | None:
    """The special token of a tokenizer that is the mask, by its name."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    return next((name for name in MASKS if name in special), None)


def extended(tokenizer: Path, extra_tokens: Sequence[str]) -> Tokenizer:
    """A tokenizer.json with an objective's tokens behind its own. Raises TrainingError where it is none."""
    try:
        loaded = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the Rust side raises plain Exception for a missing file as for a broken one
        raise TrainingError(f"{tokenizer}: not a tokenizer.json: {error}") from error
    loaded.add_special_tokens(list(extra_tokens))
    return loaded


@lru_cache(maxsize=4)
def spelling(tokenizer: Path) -> list[bytes]:
    """The bytes that each token stands for; added tokens, special or not, stand for none.

    Raises TrainingError for a vocabulary that is neither byte-level nor WordPiece: its tokens have no bytes of their
    own.
    """
    loaded = Tokenizer.from_file(str(tokenizer))
    prefix = _goes_on(loaded)
    if prefix is None and not isinstance(loaded.decoder, decoders.ByteLevel):
        raise TrainingError(
            f"{tokenizer}: a vocabulary that is neither byte-level nor WordPiece; bits per byte and words need one"
        )
    spelt = [b""] * loaded.get_vocab_size(with_added_tokens=True)
    added = loaded.get_added_tokens_decoder()
    for text, number in loaded.get_vocab(with_added_tokens=True).items():
        if number in added:
            continue
        if prefix is None:
            spelt[number] = bytes(ALPHABET[character] for character in text)
        else:
            spelt[number] = text.removeprefix(prefix).encode()
    return spelt


def _alphabet() -> dict[str, int]:
    """The byte of each character of the byte-level alphabet: printable Latin-1 is itself, the rest follows from 256 on
    (Radford et al. 2019)."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    alphabet = {chr(byte): byte for byte in own} | {chr(256 + n): byte for n, byte in enumerate(others)}
    assert alphabet.keys() == set(pre_tokenizers.ByteLevel.alphabet())
    return alphabet


def _class(byte: int) -> int:
    if byte < 0x80:
        return LETTER if chr(byte).isalnum() else APART
    if byte < 0xC0:
        return INSIDE
    return APART if byte == 0xC2 or 0xE2 <= byte <= 0xE9 or byte >= 0xEE else LETTER


ALPHABET = _alphabet()
CLASSES = [_class(byte) for byte in range(256)]
