"""Make `unicode14.npz` and `classes14.npz`: run lengths of the flags and the list of cased characters, from a Python
whose Unicode is 14.0.

Run as `python -m pipeline.kernels.make_unicode`, with datatrove installed for its sets of punctuation and uniseg for
the classes of UAX #29 (of its newer Unicode, kept for what 14.0 had assigned). The files are committed: they are made
again only when a flag is added. Surrogates, which no valid text holds, have no flags.
"""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels import unicode as u

SPACELESS_NAMES = (
    *("CJK UNIFIED IDEOGRAPH", "CJK COMPATIBILITY IDEOGRAPH", "IDEOGRAPHIC ITERATION", "IDEOGRAPHIC CLOSING"),
    *("IDEOGRAPHIC NUMBER ZERO", "VERTICAL IDEOGRAPHIC ITERATION", "HENTAIGANA", "HIRAGANA", "KATAKANA"),
    *("HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET"),
    *("TANGUT", "NUSHU", "KHITAN"),
)
BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def flags_of(char: str, punctuation: set[str], composing: set[str]) -> int:
    """The flags of one character by this Python's own tables."""
    category = unicodedata.category(char)
    inert = unicodedata.combining(char) == 0 and char not in composing
    return (
        u.SPACE * char.isspace()
        | u.ALPHA * char.isalpha()
        | u.ALNUM * char.isalnum()
        | u.MARK * category.startswith("M")
        | u.PUNCT * (char in punctuation)
        | u.BREAK * (char in BREAKS)
        | u.SPACELESS * _spaceless(char, category)
        | u.CONTROL * ((category == "Cc" and char not in "\n\t") or char == "\ufeff")
        | u.ASSIGNED * (category != "Cn")
        | u.NFC_INERT * (inert and category != "Cn" and unicodedata.normalize("NFC", char) == char)
        | u.NFKC_INERT * (inert and category != "Cn" and unicodedata.normalize("NFKC", char) == char)
    )


def build(punctuation: set[str]) -> NDArray[np.uint32]:
    """The whole table, from this Python's unicodedata."""
    composing = _composing()
    table = np.arange(u.CODE_POINTS, dtype=np.uint32)
    for code in range(u.CODE_POINTS):
        if not 0xD800 <= code <= 0xDFFF:
            char = chr(code)
            # The first character only: the one full mapping that is longer (U+0130) begins with its simple one.
            table[code] = flags_of(char, punctuation, composing) | ord(char.lower()[0])
    return table


def save(table: NDArray[np.uint32], path: Path) -> None:
    """Write a table as run lengths of its flags and steps between its cased characters."""
    flags, lower = table >> 21, table & u.LOWER
    starts = np.flatnonzero(np.diff(flags, prepend=flags[0] ^ 1))
    cased = np.flatnonzero(lower != np.arange(u.CODE_POINTS))
    np.savez_compressed(
        path,
        flag_steps=np.diff(starts, prepend=0).astype(np.uint32),
        flags=flags[starts].astype(np.uint16),
        cased_steps=np.diff(cased, prepend=0).astype(np.uint32),
        cased_lower=lower[cased],
    )


def save_classes(terminal: set[str], path: Path) -> None:
    """Write the classes of every code point as run lengths."""
    from uniseg.emoji import extended_pictographic
    from uniseg.wordbreak import word_break

    found = np.zeros(u.CODE_POINTS, np.uint8)
    for code in range(u.CODE_POINTS):
        char = chr(code)
        category = unicodedata.category(char)
        found[code] = u.TERMINAL * (char in terminal) | u.MARKED * category.startswith("P")
        if category not in ("Cn", "Cs"):
            found[code] |= u.WORD_BREAKS.index(word_break(char).value) | u.PICTOGRAPH * extended_pictographic(char)
    starts = np.flatnonzero(np.diff(found, prepend=found[0] ^ 1))
    np.savez_compressed(path, steps=np.diff(starts, prepend=0).astype(np.uint32), classes=found[starts])


def _spaceless(char: str, category: str) -> bool:
    return (category[0] == "L" or char == "〇") and unicodedata.name(char, "").startswith(SPACELESS_NAMES)


def _composing() -> set[str]:
    """Characters that may join the one before: second halves of canonical compositions, Hangul vowels and finals."""
    found = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    for code in range(u.CODE_POINTS):
        halves = unicodedata.decomposition(chr(code)).split()
        if len(halves) == 2 and not halves[0].startswith("<"):
            found.add(chr(int(halves[1], 16)))
    return found


if __name__ == "__main__":
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}; make the table with Python 3.11 (14.0.0)")
    from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION

    save(build(set(PUNCTUATION_SET)), Path(__file__).with_name(u.FILE))
    save_classes(set(TERMINAL_PUNCTUATION), Path(__file__).with_name(u.CLASSES_FILE))
