"""The phrases that C4's rules look for in a line, in lower case; of all characters only KELVIN SIGN becomes an ASCII
letter there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels._jit import Bytes, Table, kernel
from pipeline.kernels.lanes import WIDTH, byte64, within64
from pipeline.kernels.unicode import SPACE
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ALL, ZERO

# The first, the second, and those from the third on.
LOREM_IPSUM, JAVASCRIPT, POLICIES = range(3)
PHRASES = (
    *("lorem ipsum", "javascript", "terms of use", "privacy policy", "cookie policy"),
    *("uses cookies", "use of cookies", "use cookies"),
)
SPELT = np.frombuffer("".join(PHRASES).encode(), np.uint8)
BEGINS = np.cumsum([0, *map(len, PHRASES)])
BRACKET, CURLY, K, KELVIN = 0x5B, 0x7B, 0x6B, 0x212A


@kernel
def found(text: Bytes, a: int, b: int) -> tuple[bool, bool, bool]:
    """Whether text[a:b] has a "[", a "{", and what a phrase begins with."""
    bracket = curly = begun = ZERO
    for at in range(a, b, WIDTH):
        inside = ALL >> np.uint64(WIDTH - (b - at) if b - at < WIDTH else 0)
        bracket |= byte64(text, at, BRACKET) & inside
        curly |= byte64(text, at, CURLY) & inside
        begun |= (
            (_fold(text, at, ord("l")) & _fold(text, at + 1, ord("o")) & _fold(text, at + 2, ord("r")))
            | (_fold(text, at, ord("j")) & _fold(text, at + 1, ord("a")) & _fold(text, at + 2, ord("v")))
            | (_fold(text, at, ord("t")) & _fold(text, at + 1, ord("e")) & _fold(text, at + 2, ord("r")))
            | (_fold(text, at, ord("p")) & _fold(text, at + 1, ord("r")) & _fold(text, at + 2, ord("i")))
            | (_fold(text, at, ord("c")) & _fold(text, at + 1, ord("o")) & _fold(text, at + 2, ord("o")))
            | (_fold(text, at, ord("u")) & _fold(text, at + 1, ord("s")) & _fold(text, at + 2, ord("e")))
        ) & inside
    return bracket != ZERO, curly != ZERO, begun != ZERO


@kernel
def _fold(text: Bytes, at: int, letter: int) -> np.uint64:
    """Which of text[at:at + 64] are a letter in either case."""
    found: np.uint64 = within64(text, at, 0x20, letter, letter)
    return found


@kernel
def has(line: Bytes, length: int, first: int, last: int) -> bool:
    """Whether one of PHRASES[first:last] stands in the line in lower case."""
    for i in range(length):
        c = line[i] | 0x20
        for phrase in range(first, last):
            if c == SPELT[BEGINS[phrase]] and line[i] < 0x80 and _matches(line, length, i, phrase) > 0:
                return True
    return False


@kernel
def has_word(line: Bytes, length: int, anywhere: bool, table: Table) -> bool:
    """Whether "javascript" stands in the line in lower case, anywhere or as a word between white space."""
    spaced = True
    i = 0
    while i < length:
        code, width = decode(line, i, length)
        if spaced or anywhere:
            end = _matches(line, length, i, JAVASCRIPT)
            if end > 0 and (anywhere or end == length or table[decode(line, end, length)[0]] & SPACE != 0):
                return True
        spaced = table[code] & SPACE != 0
        i += width
    return False


@kernel
def _matches(line: Bytes, length: int, i: Any, phrase: int) -> np.int64:
    """Where a phrase that begins at line[i] ends, or 0."""
    for k in range(BEGINS[phrase], BEGINS[phrase + 1]):
        if i >= length:
            return np.int64(0)
        c = line[i]
        if ord("A") <= c <= ord("Z"):
            c |= 0x20
        if c == SPELT[k]:
            i += 1
        elif SPELT[k] == K and c == 0xE2 and decode(line, i, length)[0] == KELVIN:
            i += 3
        else:
            return np.int64(0)
    return np.int64(i)
