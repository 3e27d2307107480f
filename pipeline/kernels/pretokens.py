"""Where the pre-tokens of byte-level BPE end: GPT-2's regular expression, and that of GPT-4, Llama 3 and Qwen.

A pre-tokenizer is known by the exact text of its expression. What is a letter, a number and white space is asked of the
installed `tokenizers` once a process (.15 s), so both always speak of the same Unicode. All expressions match every
character of a text: a document is its pre-tokens side by side.
"""

from __future__ import annotations

import functools

import numpy as np

from pipeline.kernels._jit import Bytes, kernel
from pipeline.kernels.buffers import frozen
from pipeline.kernels.unicode import CODE_POINTS
from pipeline.kernels.utf8 import decode
from pipeline.kernels.wide import letters8, load8

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
EXPRESSIONS = (r"\p{L}", r"\p{N}", r"\s")
# The planes behind have no letters, numbers or white space in any version of Unicode so far.
LAST_PLANES = 0x40000

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How many digits go together at most; 0 stands for GPT-2's form.
DIGITS = {
    GPT2: 0,
    _HEAD + r"\p{N}{1,3}" + _TAIL: 3,  # cl100k_base (GPT-4) and Llama 3
    _HEAD + r"\p{N}" + _TAIL: 1,  # Qwen 2, 2.5 and 3
}
QUOTE, BLANK, LINE_FEED, RETURN = 39, 32, 10, 13


@functools.cache
def classes() -> Bytes:
    """uint8 [1114112], read-only: the class of every code point, as the installed `tokenizers` has it."""
    from tokenizers import Regex, pre_tokenizers

    def runs(expression: str, text: str) -> list[tuple[int, int]]:
        split = pre_tokenizers.Split(Regex(expression), "removed", invert=True)
        return [where for _, where in split.pre_tokenize_str(text)]

    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, LAST_PLANES)])
    every = "".join(map(chr, codes.tolist()))
    found = runs("|".join(f"{expression}+" for expression in EXPRESSIONS), every)
    heads = "".join(every[start] for start, _ in found)
    table = np.zeros(CODE_POINTS, np.uint8)
    for kind, expression in enumerate(EXPRESSIONS, 1):
        for head, _ in runs(expression, heads):
            start, end = found[head]
            table[codes[start:end]] = kind
    return frozen(table)


@kernel
def next_end(data: Bytes, i: int, end: int, table: Bytes, digits: int) -> int:
    """Where the pre-token that begins at data[i] ends; end is that of the document."""
    if digits == 0:
        return _gpt2(data, i, end, table)
    return _gpt4(data, i, end, table, digits)


@kernel
def _gpt2(data: Bytes, i: int, end: int, table: Bytes) -> int:
    if data[i] == QUOTE:
        size = contraction(data, i, end, False)
        if size > 0:
            return i + size
    kind, width = _kind(data, i, end, table)
    if data[i] == BLANK and i + 1 < end:
        after, after_width = _kind(data, i + 1, end, table)
        if after != SPACE:
            return _run(data, i + 1 + after_width, end, table, after)
    if kind == SPACE:
        return _spaces(data, i, end, table, False)
    return _run(data, i + width, end, table, kind)


@kernel
def _gpt4(data: Bytes, i: int, end: int, table: Bytes, digits: int) -> int:
    if data[i] == QUOTE:
        size = contraction(data, i, end, True)
        if size > 0:
            return i + size
    kind, width = _kind(data, i, end, table)
    j = i + width
    if kind == LETTER:
        return _run(data, j, end, table, LETTER)
    if kind == NUMBER:
        for _ in range(digits - 1):
            if j >= end:
                break
            kind, width = _kind(data, j, end, table)
            if kind != NUMBER:
                break
            j += width
        return j
    if j < end:
        after, after_width = _kind(data, j, end, table)
        if after == LETTER and data[i] != LINE_FEED and data[i] != RETURN:
            return _run(data, j + after_width, end, table, LETTER)
        if data[i] == BLANK and after == OTHER:
            kind, j = OTHER, j + after_width
    if kind == OTHER:
        j = _run(data, j, end, table, OTHER)
        while j < end and (data[j] == LINE_FEED or data[j] == RETURN):
            j += 1
        return j
    return _spaces(data, i, end, table, True)


@kernel
def _kind(data: Bytes, i: int, end: int, table: Bytes) -> tuple[np.int64, int]:
    """(class, bytes) of the character at data[i]."""
    if data[i] < 128:
        return np.int64(table[data[i]]), 1
    code, width = decode(data, i, end)
    return np.int64(table[code]), width


@kernel
def _run(data: Bytes, i: int, end: int, table: Bytes, kind: int) -> int:
    """The end of the run of characters of one class that goes on at i."""
    while kind == LETTER and i + 8 <= end:
        size = letters8(load8(data, i))
        i += size
        if size < 8:
            break
    while i < end:
        if data[i] < 128:
            if table[data[i]] != kind:
                break
            i += 1
        else:
            code, width = decode(data, i, end)
            if table[code] != kind:
                break
            i += width
    return i


@kernel
def _spaces(data: Bytes, i: int, end: int, table: Bytes, lines: bool) -> int:
    r"""`\s*[\r\n]+` where `lines`, else or where it fails `\s+(?!\S)`, else `\s+`."""
    j, last, line = i, i, i
    while j < end:
        kind, width = _kind(data, j, end, table)
        if kind != SPACE:
            break
        last = j
        j += width
        if data[last] == LINE_FEED or data[last] == RETURN:
            line = j
    if lines and line > i:
        return line
    return last if j < end and last > i else j


@kernel
def contraction(data: Bytes, i: int, end: int, folded: bool) -> int:
    """Bytes of 's, 't, 're, 've, 'm, 'll, 'd at data[i], which is the quote; 0 where it is none.

    With case folded U+017F, the long s, is an s.
    """
    fold = 32 if folded else 0
    if i + 1 >= end:
        return 0
    a = data[i + 1] | fold
    if a == ord("s") or a == ord("t") or a == ord("m") or a == ord("d"):
        return 2
    if i + 2 >= end:
        return 0
    if folded and data[i + 1] == 0xC5 and data[i + 2] == 0xBF:
        return 3
    b = data[i + 2] | fold
    return 3 if ((a == ord("r") or a == ord("v")) and b == ord("e")) or (a == ord("l") and b == ord("l")) else 0
