"""C4's rules for lines, over the planes of a text: which lines stay, why the others go, and what stays of them.

A line is judged once, by the first rule that it breaks, in the order of TFDS's clean_page.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.kernels._jit import Bytes, Ints, Table, allocating_kernel, kernel, trailing_zeros
from pipeline.kernels.citations import without_citations
from pipeline.kernels.lanes import WIDTH, count64
from pipeline.kernels.lines import CLOSING, before, line_end
from pipeline.kernels.phrases import LOREM_IPSUM, PHRASES, POLICIES, found, has, has_word
from pipeline.kernels.planes import BREAKS, FEEDS, ONE, S1, S63, SPACES, Planes, after_space, before_space, draw
from pipeline.kernels.scratch import Scratch, take
from pipeline.kernels.sentences import sentences
from pipeline.kernels.unicode import SPACE, SPACELESS, TERMINAL
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import ALL, ZERO, copy
from pipeline.kernels.words import cuts_word

COUNTS = (
    "lines",
    "kept",
    "long_word",  # lines with a word of more than so many characters
    "unended",  # lines that do not end in a mark, or in an ellipsis
    "few_words",  # lines of fewer words
    "lorem_ipsum",  # lines with that phrase; they go on to the rules that follow
    "javascript",  # lines with that word
    "curly_bracket",  # lines with "{"; they go on to the rules that follow
    "policy",  # lines with a phrase about cookies, privacy or terms of use
    "sentences",  # of the lines that stay
    "characters",  # of the page as it came
)
LINES, KEPT, LONG_WORD, UNENDED, FEW_WORDS, LOREM, SCRIPT, CURLY, POLICY, SENTENCES, CHARACTERS = range(len(COUNTS))
# What a dialect is: marks that end a line beside . ? ! and ", an ellipsis as none, words counted when citations are
# gone, lines by line feeds alone and counted without being cleaned, any end; and beside it letters of scripts without
# spaces as words, with the marks of any script at the end of a line.
APOSTROPHE, ELLIPSIS, WORDS_AFTER, COUNT_ONLY, ANY_END, BY_SCRIPT = (1 << k for k in range(6))
LF, DOT, QUOTE, APOSTROPHE_MARK = 10, 0x2E, 0x22, 0x27


class Rules(NamedTuple):
    """The tables of characters, a dialect's flags, the fewest words of a line and the most characters of a word."""

    table: Table
    classes: Bytes
    dialect: int
    least_words: int
    longest_word: int


@allocating_kernel
def clean(
    data: Bytes,
    offsets: Ints,
    rules: Rules,
    room: Scratch,
    counts: Ints,
    out: Bytes,
    ends: Ints,
) -> None:
    """Fill counts[document, COUNTS]; where `out` has room, write the lines that stay there, and ends[d] behind them.

    Such lines are joined by line feeds, without white space around the whole.
    """
    text, planes = room.text, room.planes
    line, symbols = np.empty(text.size, np.uint8), np.zeros(4, np.int64)
    writes, filled = ends.size > 0, np.int64(0)
    for d in range(offsets.size - 1):
        size = take(data, offsets[d], offsets[d + 1], text)
        draw(text, size, rules.table, planes, symbols)
        begin = filled
        filled = page(text, size, planes, rules, line, counts[d], out, filled, writes)
        counts[d, CHARACTERS] = symbols[3]
        if writes:
            ends[d] = filled = _stripped(out, begin, filled, rules.table)


@kernel
def page(
    text: Bytes,
    size: int,
    planes: Planes,
    rules: Rules,
    line: Bytes,
    counts: Ints,
    out: Bytes,
    filled: int,
    writes: bool,
) -> np.int64:
    """Judge the lines of one page; returns where what was written ends."""
    dialect = rules.dialect
    plane = FEEDS if dialect & COUNT_ONLY else BREAKS
    start, begin, end = np.int64(0), np.int64(filled), np.int64(filled)
    blocks = (size + WIDTH - 1) // WIDTH
    for b in range(blocks + 1):
        turns = planes[b, plane] if b < blocks else ZERO
        while True:
            if turns != ZERO:
                at = b * WIDTH + np.int64(trailing_zeros(turns))
                turns &= turns - ONE
                if at < start:
                    continue
                following = at + line_end(text, at)
            elif b == blocks and (start < size or (dialect & COUNT_ONLY and start == size)):
                at, following = np.int64(size), np.int64(size) + 1
            else:
                break
            kept, length = judge(text, start, at, planes, rules, line, counts)
            if kept and writes:
                if end > begin:
                    out[end] = LF
                    end += 1
                copy(line, 0, out, end, length)
                end += length
            start = following
    return end


@kernel
def judge(
    text: Bytes,
    start: int,
    end: int,
    planes: Planes,
    rules: Rules,
    line: Bytes,
    counts: Ints,
) -> tuple[bool, np.int64]:
    """Count one line and say whether it stays; what stays of it is then line[:length], of the length returned."""
    table, classes, dialect, least_words, longest_word = rules
    counts[LINES] += 1
    a = after_space(planes, start, end)
    b = before_space(planes, a, end)
    words = _script_words(text, a, b, table)[0] if dialect & BY_SCRIPT else _words(planes, a, b)
    if longest_word >= 0 and b - a > longest_word and _longest(planes, text, a, b, dialect, table) > longest_word:
        counts[LONG_WORD] += 1
        return False, np.int64(0)
    bracket, curly, phrases = found(text, a, b)
    cleans = not dialect & COUNT_ONLY
    length = b - a
    copy(text, a, line, 0, length)
    if bracket and cleans:
        length = without_citations(line, length, table, classes)
        if dialect & WORDS_AFTER:
            by_script = dialect & BY_SCRIPT
            words = _script_words(line, 0, length, table)[0] if by_script else _plain_words(line, length, table)
    ended = _ends(line, length, dialect) or (dialect & BY_SCRIPT and _ends_anywhere(line, length, classes))
    if not ended:
        counts[UNENDED] += 1
    if words < least_words and (ended or not cleans):
        counts[FEW_WORDS] += 1
    if cleans and (not ended or words < least_words):
        return False, np.int64(0)
    lorem = phrases and has(line, length, LOREM_IPSUM, LOREM_IPSUM + 1)
    script = phrases and has_word(line, length, cleans, table)
    counts[LOREM] += lorem
    if script:
        counts[SCRIPT] += 1
        if cleans:
            return False, np.int64(0)
    counts[CURLY] += curly
    if cleans and phrases and has(line, length, POLICIES, len(PHRASES)):
        counts[POLICY] += 1
        return False, np.int64(0)
    if ended and words >= least_words:
        counts[KEPT] += 1
        counts[SENTENCES] += sentences(line, length, table, classes)
    return True, length


@kernel
def _words(planes: Planes, a: int, b: int) -> np.int64:
    """Words that begin in text[a:b], which has white space, or nothing, before it."""
    n, before = np.int64(0), ONE
    at = (a >> 6) << 6
    while at < b:
        space = planes[at >> 6, SPACES]
        if at < a:
            space |= (ONE << np.uint64(a - at)) - ONE
        if b - at < WIDTH:
            space |= ALL << np.uint64(b - at)
        n += count64(~space & (space << S1 | before))
        before = space >> S63
        at += WIDTH
    return n


@kernel
def _longest(planes: Planes, text: Bytes, a: int, b: int, dialect: int, table: Table) -> np.int64:
    """Characters of the longest word of text[a:b]."""
    most = size = np.int64(0)
    if dialect & BY_SCRIPT:
        return np.int64(_script_words(text, a, b, table)[1])
    for i in range(a, b):
        if planes[i >> 6, SPACES] >> np.uint64(i & 63) & ONE != ZERO:
            size = np.int64(0)
        else:
            size += (text[i] & 0xC0) != 0x80
            most = max(most, size)
    return most


@kernel
def _script_words(text: Bytes, a: int, b: int, table: Table) -> tuple[np.int64, np.int64]:
    """(words of text[a:b], characters of the longest), each letter of a script without spaces a word of its own."""
    n, most, size, spaceless, i = np.int64(0), np.int64(0), np.int64(0), False, a
    while i < b:
        code, width = decode(text, i, b)
        i += width
        entry = np.int64(table[code])
        if entry & SPACE != 0:
            size = np.int64(0)
            continue
        if size == 0 or cuts_word(entry, spaceless):
            n += 1
            size, spaceless = np.int64(0), entry & SPACELESS != 0
        size += 1
        most = max(most, size)
    return n, most


@kernel
def _plain_words(line: Bytes, length: int, table: Table) -> np.int64:
    """Words of a line that has no planes."""
    n, inside, i = np.int64(0), False, 0
    while i < length:
        code, width = decode(line, i, length)
        space = table[code] & SPACE != 0
        n += not space and not inside
        inside = not space
        i += width
    return n


@kernel
def _ends(line: Bytes, length: int, dialect: int) -> bool:
    """Whether the line ends in a mark that ends a line."""
    if dialect & ANY_END:
        return True
    if length == 0:
        return False
    c = line[length - 1]
    if dialect & ELLIPSIS and c == DOT and length > 2 and line[length - 2] == DOT and line[length - 3] == DOT:
        return False
    return c in (DOT, 0x3F, 0x21, QUOTE) or (dialect & APOSTROPHE != 0 and c == APOSTROPHE_MARK)


@kernel
def _ends_anywhere(line: Bytes, length: int, classes: Bytes) -> bool:
    """Whether the line ends in a mark that ends a sentence in some script, or in a quotation mark that closes."""
    if length == 0 or line[length - 1] < 0x80:
        return False
    code, _ = decode(line, before(line, 0, length), length)
    return classes[code] & TERMINAL != 0 or code in CLOSING


@kernel
def _stripped(out: Bytes, a: int, b: int, table: Table) -> np.int64:
    """Take white space off both ends of out[a:b], in place; returns where it then ends."""
    end = np.int64(b)
    while end > a:
        at = end - 1
        while at > a and out[at] & 0xC0 == 0x80:
            at -= 1
        if table[decode(out, at, end)[0]] & SPACE == 0:
            break
        end = at
    first = np.int64(a)
    while first < end:
        code, width = decode(out, first, end)
        if table[code] & SPACE == 0:
            break
        first += width
    if first > a:
        for k in range(end - first):
            out[a + k] = out[first + k]
    return a + end - first
