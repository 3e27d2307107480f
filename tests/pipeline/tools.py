"""What dolma and DCLM say of a text: their published functions, told again plainly.

dolma: `get_attributes` of python/dolma/taggers/gopher.py. DCLM: the filters of baselines/mappers/filters/
content_filters.py, with what each compares with its bound, and `split_words` and `split_paragraphs` of
baselines/mappers/core_utils.py. Where a tool drops a text before it divides, or divides by nothing, a value is None.
Nothing here reads `pipeline.kernels`.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
Values = dict[str, float | None]


def grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[k:] for k in range(n)), strict=False))


def letters(gram: Sequence[str]) -> int:
    return sum(map(len, gram))


def dolma_gopher(text: str, split: Callable[[str], list[str]] = str.split) -> Values:
    words, lines = split(text), text.split("\n") if text else []
    return {
        "word_count": len(words),
        "median_word_length": float(statistics.median(map(len, words))) if words else 0.0,
        "symbol_ratio": sum("#" in word or "…" in word for word in words) / max(len(words), 1),
        "bullet_line_ratio": sum(line.startswith(("*", "-")) for line in lines) / max(len(lines), 1),
        "ellipsis_line_ratio": sum(line.endswith("…") for line in lines) / max(len(lines), 1),
        "alphabetic_word_ratio": sum(any(c.isalpha() for c in word) for word in words) / max(len(words), 1),
        "stop_word_count": sum(word in STOP_WORDS for word in words),
    }


def dolma_repetition(text: str, split: Callable[[str], list[str]] = str.split) -> Values:
    words = split(text)
    characters = max(letters(words), 1)
    lines = Counter(text.split("\n")) if text else Counter()
    again = {line: count for line, count in lines.items() if count > 1}
    found: Values = {
        "duplicate_lines": sum(again.values()) / max(lines.total(), 1),
        "duplicate_line_characters": sum(len(line) * count for line, count in again.items()) / characters,
    }
    for n in range(2, 11):
        counted = Counter(grams(words, n))
        if n < 5:
            top, count = counted.most_common(1)[0] if counted else ((), 0)
            found[f"top_{n}gram_characters"] = count * letters(top) / characters
        else:
            weight = sum(count * letters(gram) for gram, count in counted.items())
            twice = sum(count * letters(gram) for gram, count in counted.items() if count > 1)
            found[f"duplicate_{n}gram_characters"] = twice / max(weight, 1)
    return found


def dclm_pieces(text: str, end: str) -> list[str]:
    return [piece.strip() for piece in re.split(end, text) if piece.strip()]


def dclm_gopher(text: str, fasttext: Callable[[str], list[str]]) -> Values:
    words, lines = text.split(), dclm_pieces(text, "\n")
    symbols = sum(text.count(symbol) for symbol in ("#", "...", ". . .", "…"))
    return {
        "word_count": sum(word[0].isalnum() for word in fasttext(text)),
        "mean_word_length": letters(words) / len(words) if words else None,
        "symbol_ratio": symbols / len(words) if words else None,
        "bullet_line_ratio": sum(line.startswith(("●", "•", "*", "-")) for line in lines) / max(len(lines), 1),
        "ellipsis_line_ratio": sum(line.endswith(("...", ". . .", "…")) for line in lines) / max(len(lines), 1),
        "alphabetic_word_ratio": sum(any(c.isalpha() for c in word) for word in words) / len(words) if words else None,
        "stop_word_count": sum(word.lower() in STOP_WORDS for word in words),
    }


def dclm_repetition(text: str, words_of: Callable[[str], list[str]]) -> Values:
    found: Values = {}
    for name, end in (("line", "\n"), ("paragraph", "\n\n")):
        pieces = dclm_pieces(text, end)
        again = {piece: count for piece, count in Counter(pieces).items() if count > 1}
        taken = sum(len(piece) * count for piece, count in again.items())
        found[f"duplicate_{name}s"] = sum(again.values()) / len(pieces) if pieces else None
        found[f"duplicate_{name}_characters"] = taken / letters(pieces) if pieces else None
    words = [word for word in words_of(text) if word[0].isalnum()]
    for n in range(2, 11):
        counted = Counter(grams(words, n))
        most = max(counted.values(), default=0)
        if most < 2:
            taken = 0
        elif n < 5:
            taken = most * max(letters(gram) for gram, count in counted.items() if count == most)
        else:
            places = [k for k, gram in enumerate(grams(words, n)) if counted[gram] > 1]
            taken = letters([words[k] for k in {k + j for k in places for j in range(n)}])
        name = f"top_{n}gram_characters" if n < 5 else f"duplicate_{n}gram_characters"
        found[name] = taken / (letters(words) or 1) if text else None
    return found


# Words of UAX #29, and those of fastText

LETTER, QUOTES = ("ALetter", "Hebrew_Letter"), ("MidNumLet", "Single_Quote")
SKIPPED, ENDS = ("Extend", "Format", "ZWJ"), ("CR", "LF", "Newline")


def fasttext_words(text: str) -> list[str]:
    """fastText's Dictionary::readWord: between ASCII white space and NUL; each line feed is a word of its own."""
    return [word for word in re.split("[ \r\t\v\f\0]+|(\n)", text) if word]


def unicode_words(text: str, class_of: Callable[[str], str], pictograph: Callable[[str], bool]) -> list[str]:
    """Words by the rules of UAX #29, one after another, over the class of each character."""
    classes = [class_of(c) for c in text]
    # What the rules from WB5 on see to the right of each place: the next that WB4 does not hang on the one before.
    following = [""] * len(text)
    for k in range(len(text) - 1, 0, -1):
        following[k - 1] = following[k] if classes[k] in SKIPPED else classes[k]
    found: list[list[str]] = []
    behind: list[str] = []
    for k, c in enumerate(text):
        if k and not boundary(behind, classes[k - 1], classes[k], following[k], pictograph(c)):
            found[-1].append(c)
        else:
            found.append([c])
        if classes[k] not in SKIPPED or k == 0 or classes[k - 1] in ENDS:
            behind.append(classes[k])
    return list(map("".join, found))


def boundary(behind: list[str], last: str, c: str, d: str, pictograph: bool) -> bool:
    """Whether the rules WB3 to WB999 part a character of class `c`, before `d`, from one of class `last`."""
    if (last, c) == ("CR", "LF"):
        return False
    if last in ENDS or c in ENDS:
        return True
    if (last == "ZWJ" and pictograph) or last == c == "WSegSpace" or c in SKIPPED:
        return False
    b, a = behind[-2] if len(behind) > 1 else "", behind[-1]
    flags = 0
    while flags < len(behind) and behind[-1 - flags] == "Regional_Indicator":
        flags += 1
    return not (
        (a in LETTER and c in LETTER)  # WB5
        or (a in LETTER and c in ("MidLetter", *QUOTES) and d in LETTER)  # WB6
        or (b in LETTER and a in ("MidLetter", *QUOTES) and c in LETTER)  # WB7
        or (a == "Hebrew_Letter" and c == "Single_Quote")  # WB7a
        or (a == d == "Hebrew_Letter" and c == "Double_Quote")  # WB7b
        or (b == c == "Hebrew_Letter" and a == "Double_Quote")  # WB7c
        or (a in (*LETTER, "Numeric") and c == "Numeric")  # WB8, WB9
        or (a == "Numeric" and c in LETTER)  # WB10
        or (b == c == "Numeric" and a in ("MidNum", *QUOTES))  # WB11
        or (a == d == "Numeric" and c in ("MidNum", *QUOTES))  # WB12
        or (a == c == "Katakana")  # WB13
        or (a in (*LETTER, "Numeric", "Katakana", "ExtendNumLet") and c == "ExtendNumLet")  # WB13a
        or (a == "ExtendNumLet" and c in (*LETTER, "Numeric", "Katakana"))  # WB13b
        or (c == "Regional_Indicator" and flags % 2 == 1)  # WB15, WB16
    )
