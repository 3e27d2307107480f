"""Slow and plain twins of the kernels, from Python's own Unicode tables (14.0 under Python 3.11) and big integers.

Nothing here reads `pipeline.kernels`: a twin that shares a table with what it checks would share its mistakes.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeVar

from hypothesis import strategies as st

WORD = (1 << 64) - 1
T = TypeVar("T")
NAMES = (
    *("CJK UNIFIED", "CJK COMPATIBILITY IDEO", "IDEOGRAPHIC ITERATION", "IDEOGRAPHIC CLOSING", "HIRAGANA", "KATAKANA"),
    *("HALFWIDTH KATAKANA", "VERTICAL IDEOGRAPHIC ITERATION", "THAI", "LAO", "KHMER", "MYANMAR"),
    *("HENTAIGANA", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET", "TANGUT", "NUSHU", "KHITAN"),
)


@functools.cache
def spaceless(char: str) -> bool:
    """A letter of Han, kana, Thai or another script that writes no spaces, by its name."""
    return char == "〇" or (unicodedata.category(char)[0] == "L" and unicodedata.name(char, "").startswith(NAMES))


def is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


@functools.lru_cache(maxsize=4)
def by_script(text: str) -> list[str]:
    """Words at white space, each letter of a script without spaces a word with all that follows it but letters."""
    words = []
    for run in text.split():
        word, alone = "", False
        for char in run:
            letter = spaceless(char)
            if word and (letter or (alone and char.isalnum() and not is_mark(char))):
                words.append(word)
                word = ""
            alone = alone if word else letter
            word += char
        words.append(word)
    return words


def units(text: str) -> list[str]:
    """Runs of letters and digits with the marks inside them, lower-cased; a letter of a spaceless script is alone."""
    found, unit, alone = [], "", False
    for char in text:
        letter, mark = spaceless(char), is_mark(char)
        if unit and not mark and (letter or alone or not char.isalnum()):
            found.append(unit)
            unit = ""
        if (char.isalnum() or letter) and not unit:
            unit, alone = char.lower()[0], letter
        elif unit:
            unit += char.lower()[0]
    return [*found, unit] if unit else found


def shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    """Every run of `ngram` units, or all units where there are fewer."""
    found = units(text)
    if not found:
        return set()
    return {tuple(found[i : i + ngram]) for i in range(max(1, len(found) - ngram + 1))}


def jaccard(left: set, right: set) -> float:
    return len(left & right) / len(left | right) if left or right else 1.0


def splitmix64(seed: int, count: int) -> list[int]:
    """As Steele, Lea and Flood print it: a counter that goes on by the golden ratio, and a finaliser."""
    found = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & WORD
        x = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & WORD
        found.append(x ^ (x >> 31))
    return found


def signature(values: Iterable[int], count: int, seed: int) -> list[int]:
    """The least of a x + b mod 2^32 for each of `count` permutations, a odd, over the upper halves x of the values."""
    draws = [draw >> 32 for draw in splitmix64(seed, 2 * count)]
    pairs = [(draws[2 * j] | 1, draws[2 * j + 1]) for j in range(count)]
    halves = [value >> 32 for value in values]
    return [min(((a * x + b) % 2**32 for x in halves), default=2**32 - 1) for a, b in pairs]


def components(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The lowest node that each node can reach, by walking."""
    beside: list[set[int]] = [set() for _ in range(count)]
    for a, b in edges:
        beside[a].add(b)
        beside[b].add(a)
    lowest = [-1] * count
    for start in range(count):
        todo = [start] if lowest[start] < 0 else []
        while todo:
            node = todo.pop()
            if lowest[node] < 0:
                lowest[node] = start
                todo += beside[node]
    return lowest


def long_lists(elements: st.SearchStrategy[T], most: int) -> st.SearchStrategy[list[T]]:
    """Lists of any length up to `most`, each as likely: Hypothesis by itself makes lists of about five."""
    return st.integers(0, most).flatmap(lambda size: st.lists(elements, min_size=size, max_size=size))
