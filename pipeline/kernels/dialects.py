"""The counts that dolma's and DCLM's quality rules are made of; datatrove's are in `text`.

dolma (dolma/taggers/gopher.py): words between white space, lines between line feeds, every copy of a line, the weight
of the n-grams that stand at several places. DCLM (baselines/mappers/filters/content_filters.py): the same words for
the rules of quality, but counted as fastText cuts them; Unicode words for n-grams; lines and paragraphs without the
white space around them.
"""

from __future__ import annotations

import numpy as np

from pipeline.kernels._jit import Bytes, Ints, Table, allocating_kernel, kernel, trailing_zeros
from pipeline.kernels.copies import copies, marked, pieces
from pipeline.kernels.lanes import WIDTH, blank64, byte64
from pipeline.kernels.ngrams import copied_ngrams, number_words, top_ngrams
from pipeline.kernels.planes import ONE, S1, S63, SPACES, Planes, draw, some
from pipeline.kernels.scratch import Scratch, Shorts, take
from pipeline.kernels.unicode import ALNUM
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ZERO
from pipeline.kernels.wordbreaks import unicode_words
from pipeline.kernels.words import StopWords, words

NGRAMS = (
    *(f"top_{n}" for n in (2, 3, 4)),  # characters of the commonest n-gram without spaces, times how often it stands
    *(f"copied_{n}" for n in range(5, 11)),  # characters of n-grams that stand at several places, at each of them
    *(f"all_{n}" for n in range(5, 11)),  # characters of all n-grams at all places
    *(f"covered_{n}" for n in range(5, 11)),  # characters of words in n-grams that stand at several places
)
WORDS = ("words", "worded", "worded_characters", "alphabetic", "stop_words")  # stop words: how often any of them occurs
LINES = ("lines", "line_characters", "lines_copied", "line_characters_copied", "bullets", "trailing")
SYMBOLS = ("hashes", "ellipses", "feeds", "characters")
DOLMA = (
    *WORDS,
    *SYMBOLS,
    "twice_median",  # twice the median of the characters of a word
    "symbol_words",  # words that hold "#" or "…"
    "word_characters",  # of all words, those that n-grams are made of
    *LINES,  # between line feeds, empty ones, too
    *NGRAMS,
)
DCLM = (
    *WORDS,
    *SYMBOLS,
    "counted",  # words as fastText cuts them that begin with a letter or a digit
    "spaced",  # ". . ."
    "word_characters",  # of words between white space
    *LINES,  # without the white space around them; only those that are not empty
    "paragraphs",
    "paragraph_characters",
    "paragraphs_copied",
    "paragraph_characters_copied",
    "unicode_characters",  # of the words that n-grams are made of
    *NGRAMS,
)
NAMES = {"dolma": DOLMA, "dclm": DCLM}
AT_SYMBOLS, AT_OWN, AT_LINES = len(WORDS), len(WORDS) + len(SYMBOLS), len(WORDS) + len(SYMBOLS) + 3
AT_BULLETS = AT_LINES + 4
DOLMA_NGRAMS, DCLM_NGRAMS, AT_PARAGRAPHS = DOLMA.index("top_2"), DCLM.index("top_2"), DCLM.index("paragraphs")


@allocating_kernel
def measure_dolma(
    data: Bytes,
    offsets: Ints,
    table: Table,
    stop: StopWords,
    repetition: bool,
    room: Scratch,
    out: Ints,
) -> None:
    """Fill out[document, count] for every document; counts are DOLMA."""
    seen = np.zeros(stop.sizes.size, np.int64)
    text, planes = room.text, room.planes
    for d in range(offsets.size - 1):
        row = out[d]
        size = take(data, offsets[d], offsets[d + 1], text)
        draw(text, size, table, planes, row[AT_SYMBOLS:])
        n = words(text, size, table, stop, seen, False, room, row)
        row[AT_SYMBOLS - 1] = seen.sum()
        row[AT_OWN] = twice_median(room.sizes, n, room.cuts)
        row[AT_OWN + 1] = symbol_words(text, size, planes)
        row[AT_OWN + 2] = room.sizes[n]
        found = pieces(text, size, planes, 1, False, room.cuts)
        copies(text, planes, room.cuts, found, room.tally, room.table, room.stamp, row[AT_LINES:])
        marked(text, room.cuts, found, False, row[AT_BULLETS:])
        # Copies of the empty line have no characters.
        lines = row[AT_SYMBOLS + 2] + 1
        row[AT_LINES + 2] += lines - found if lines - found > 1 else 0
        row[AT_LINES] = lines
        if repetition:
            ngrams(n, room, False, row[DOLMA_NGRAMS:])


@allocating_kernel
def measure_dclm(
    data: Bytes,
    offsets: Ints,
    table: Table,
    classes: Bytes,
    stop: StopWords,
    quality: bool,
    repetition: bool,
    room: Scratch,
    out: Ints,
) -> None:
    """Fill out[document, count] for every document; counts are DCLM."""
    seen = np.zeros(stop.sizes.size, np.int64)
    text, planes = room.text, room.planes
    for d in range(offsets.size - 1):
        row = out[d]
        size = take(data, offsets[d], offsets[d + 1], text)
        draw(text, size, table, planes, row[AT_SYMBOLS:])
        if quality:
            lower(text, size, room.sieve)
            n = words(room.sieve, size, table, stop, seen, False, room, row)
            row[AT_SYMBOLS - 1] = seen.sum()
            row[AT_OWN] = fasttext_words(text, size, table)
            row[AT_OWN + 1] = spaced_dots(text, size)
            row[AT_OWN + 2] = room.sizes[n]
        found = pieces(text, size, planes, 1, True, room.cuts)
        marked(text, room.cuts, found, True, row[AT_BULLETS:])
        if repetition:
            copies(text, planes, room.cuts, found, room.tally, room.table, room.stamp, row[AT_LINES:])
            found = pieces(text, size, planes, 2, True, room.cuts)
            copies(text, planes, room.cuts, found, room.tally, room.table, room.stamp, row[AT_PARAGRAPHS:])
            n = unicode_words(text, size, table, classes, planes, room.packed, room.ends, room.sizes)
            row[AT_PARAGRAPHS + 4] = room.sizes[n]
            ngrams(n, room, True, row[DCLM_NGRAMS:])
        else:
            row[AT_LINES] = found


@kernel
def ngrams(n: int, room: Scratch, longest: bool, out: Ints) -> None:
    """NGRAMS of the n words that lie packed."""
    number_words(n, room)
    places = top_ngrams(n, 0, longest, room, out)
    copied_ngrams(n, places, room, out[3:])


@kernel
def twice_median(sizes: Shorts, n: int, tally: Shorts) -> np.int64:
    """Twice the median of the characters of n words, the mean of the middle two of an even number; 0 of none.

    `tally` is lent, with room for as many numbers as the longest word has characters and one more.
    """
    longest = np.int64(0)
    for w in range(n):
        longest = max(longest, np.int64(sizes[w + 1]) - np.int64(sizes[w]))
    tally[: longest + 1] = 0
    for w in range(n):
        tally[sizes[w + 1] - sizes[w]] += 1
    median, passed, low, high = np.int64(0), np.int64(0), (n - 1) // 2, n // 2
    for characters in range(longest + 1):
        after = passed + tally[characters]
        median += characters * (np.int64(passed <= low < after) + np.int64(passed <= high < after))
        passed = after
    return median


@kernel
def symbol_words(text: Bytes, size: int, planes: Planes) -> np.int64:
    """Words between white space that hold "#" or "…"."""
    found, last = np.int64(0), np.int64(-1)
    for b in range((size + WIDTH - 1) // WIDTH):
        at = b * WIDTH
        marks = byte64(text, at, ord("#")) | (
            byte64(text, at, 0xE2) & byte64(text, at + 1, 0x80) & byte64(text, at + 2, 0xA6)
        )
        while marks != ZERO:
            here = at + np.int64(trailing_zeros(marks))
            marks &= marks - ONE
            found += last < 0 or some(planes, SPACES, last, here)
            last = here
    return found


@kernel
def fasttext_words(text: Bytes, size: int, table: Table) -> np.int64:
    """Words that begin with a letter or a digit; between the ASCII white space and NUL at which fastText cuts."""
    found, before = np.int64(0), ONE
    for b in range((size + WIDTH - 1) // WIDTH):
        at = b * WIDTH
        space = blank64(text, at)
        starts = ~space & (space << S1 | before)
        before = space >> S63
        while starts != ZERO:
            code, _ = decode(text, at + np.int64(trailing_zeros(starts)), size)
            starts &= starts - ONE
            found += table[code] & ALNUM != 0
    return found


@kernel
def spaced_dots(text: Bytes, size: int) -> np.int64:
    """How often ". . ." stands in a text, as str.count counts: not overlapping."""
    found = past = np.int64(0)
    for b in range((size + WIDTH - 1) // WIDTH):
        at = b * WIDTH
        starts = byte64(text, at, ord(".")) & byte64(text, at + 1, ord(" "))
        if starts != ZERO:
            starts &= byte64(text, at + 2, ord(".")) & byte64(text, at + 3, ord(" ")) & byte64(text, at + 4, ord("."))
        while starts != ZERO:
            here = at + np.int64(trailing_zeros(starts))
            starts &= starts - ONE
            if here >= past:
                found += 1
                past = here + 5
    return found


@kernel
def lower(text: Bytes, size: int, out: Bytes) -> None:
    """Copy text[:size] with A to Z in lower case, and the zeros behind it."""
    for k in range(size + WIDTH):
        c = text[k]
        out[k] = c + (np.uint8(32) if c - np.uint8(65) < np.uint8(26) else np.uint8(0))
