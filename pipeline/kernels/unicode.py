"""What the mill knows of a character: flags and simple lower case of every code point, as of Unicode 14.0.

A version digest must be the same under every Python, and Python's own tables move with it. So the table is shipped
(`unicode14.npz`, made by `python -m pipeline.kernels.make_unicode`) and nothing that decides reads `unicodedata`.
It is loaded as one uint32 for each of 1,114,112 code points, 4.5 MB: the lower-cased code point in the low 21 bits,
the flags above them.

    SPACE     str.isspace                     ALPHA      str.isalpha
    ALNUM     str.isalnum                     MARK       combining marks (Mn, Mc, Me)
    PUNCT     datatrove's PUNCTUATION_SET     BREAK      ends a line for str.splitlines
    SPACELESS a letter of a script written without spaces between words: Han, Hiragana, Katakana, Thai, Lao, Khmer,
              Myanmar, Tai Le, New Tai Lue, Tai Tham, Tai Viet, Tangut, Nushu, Khitan small script
    CONTROL   Cc other than line feed and tab, and U+FEFF
    ASSIGNED  has a meaning in Unicode 14.0
    NFC_INERT, NFKC_INERT   never touched by that normal form, whatever stands beside it

A second table (`classes14.npz`) says what cuts words and sentences, one uint8 for each code point, 1.1 MB: the
Word_Break class of UAX #29 in the low 5 bits, and above them

    PICTOGRAPH   Extended_Pictographic        TERMINAL   datatrove's TERMINAL_PUNCTUATION, which ends a sentence
    MARKED       punctuation, categories P*
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

import numpy as np
from numpy.typing import NDArray

SPACE, ALPHA, ALNUM, MARK, PUNCT, BREAK = (1 << bit for bit in range(21, 27))
SPACELESS, CONTROL, ASSIGNED, NFC_INERT, NFKC_INERT = (1 << bit for bit in range(27, 32))
LOWER = (1 << 21) - 1
CODE_POINTS = 0x110000
FILE = "unicode14.npz"

WORD_BREAKS = (
    *("Other", "CR", "LF", "Newline", "Extend", "ZWJ", "Regional_Indicator", "Format", "Katakana", "Hebrew_Letter"),
    *("ALetter", "Single_Quote", "Double_Quote", "MidNumLet", "MidLetter", "MidNum", "Numeric", "ExtendNumLet"),
    "WSegSpace",
)
WORD_BREAK = (1 << 5) - 1
PICTOGRAPH, TERMINAL, MARKED = (1 << bit for bit in range(5, 8))
CLASSES_FILE = "classes14.npz"


@functools.cache
def table() -> NDArray[np.uint32]:
    """uint32 [1114112], read-only: flags | simple lower case, by code point."""
    with resources.files(__package__).joinpath(FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        starts = np.cumsum(stored["flag_steps"], dtype=np.int64)
        flags = np.repeat(stored["flags"].astype(np.uint32) << 21, np.diff(starts, append=CODE_POINTS))
        lower = np.arange(CODE_POINTS, dtype=np.uint32)
        lower[np.cumsum(stored["cased_steps"], dtype=np.int64)] = stored["cased_lower"]
    flags |= lower
    flags.flags.writeable = False
    return flags


@functools.cache
def classes() -> NDArray[np.uint8]:
    """uint8 [1114112], read-only: what a code point is where words and sentences are cut."""
    with resources.files(__package__).joinpath(CLASSES_FILE).open("rb") as file, np.load(file) as stored:
        starts = np.cumsum(stored["steps"], dtype=np.int64)
        found = np.repeat(stored["classes"], np.diff(starts, append=CODE_POINTS))
    found.flags.writeable = False
    return found


@functools.cache
def table_digest() -> str:
    """sha256 of the shipped table: what the cache key of a stage that reads it must hold."""
    return _file_digest(FILE)


@functools.cache
def classes_digest() -> str:
    """sha256 of the shipped classes."""
    return _file_digest(CLASSES_FILE)


def _file_digest(name: str) -> str:
    return hashlib.sha256(resources.files(__package__).joinpath(name).read_bytes()).hexdigest()


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points of a string; a lone surrogate counts as itself."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
