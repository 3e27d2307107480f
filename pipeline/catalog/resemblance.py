"""How alike two texts are, as `kernels.shingles` would say it, without its kernels: to load them takes half a second.

For a pair, not for a corpus: a letter takes a fifth of a microsecond.
"""

from __future__ import annotations

from pipeline.kernels.unicode import ALNUM, LOWER, MARK, SPACELESS, code_points, table


def jaccard(a: str, b: str, ngram: int) -> float:
    """|A and B| / |A or B| over the shingles of two texts, runs of `ngram` units; two texts without any are equal."""
    left, right = shingles(a, ngram), shingles(b, ngram)
    return len(left & right) / len(left | right) if left or right else 1.0


def shingles(text: str, ngram: int) -> set[tuple[str, ...]]:
    """Every run of `ngram` units of a text; all of them where there are fewer."""
    found = units(text)
    return {tuple(found[n : n + ngram]) for n in range(max(1, len(found) - ngram + 1))} if found else set()


def units(text: str) -> list[str]:
    """Runs of letters and digits with the marks inside them, lower-cased; a letter of a spaceless script is alone."""
    known = table()[code_points(text)]
    lowered = (known & LOWER).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    letters, marks, single = (((known & flag) > 0).tolist() for flag in (ALNUM | SPACELESS, MARK, SPACELESS))
    found: list[str] = []
    start, alone = -1, False
    for place, (letter, mark, by_itself) in enumerate(zip(letters, marks, single, strict=True)):
        if start >= 0 and (by_itself or (not mark and (alone or not letter))):
            found.append(lowered[start:place])
            start = -1
        if start < 0 and letter:
            start, alone = place, by_itself
    return [*found, lowered[start:]] if start >= 0 else found
