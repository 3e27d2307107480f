"""The stages `c4` and `c4_lines` against datatrove's filter, TFDS's published rules, and dolma's tagger.

datatrove's filter runs as it is; only its splitter of sentences is replaced, by the plain twin of ours below.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from tests.laws import nasty
from tests.pipeline import twins
from tests.pipeline.test_gopher import PIECES, names

filters = pytest.importorskip("datatrove.pipeline.filters.c4_filters")
from datatrove.data import Document  # noqa: E402
from datatrove.utils.text import TERMINAL_PUNCTUATION  # noqa: E402

SAID = (
    *("Lorem ipsum", "JavaScript", "javascript", "Terms of Use", "privacy policy", "cookie policy", "uses cookies"),
    *("use of cookies", "use cookies", "use coo\u212aies", "{", "[1]", "[\u0663\u0669]", "[\u19da]", "[edit]", "["),
    *("[citation needed]", "a b c.", "one two three four five.", "It is. So it is!", 'he said "no"', "it's '"),
    *("wait...", "3.14", "x" * 1001, "。", "磨坊。水轮？转动！", "a.b", "?!", '." ', " ", "\n", "\n\n", "\r\n"),
    *(" javascript\u00a0now. ", "\u2028", "\x1c", ".", "\u19da]"),
)
LINES = st.lists(st.sampled_from((*PIECES, "the mill turns. ", "words of a line ")), max_size=12).map("".join)
DROPS = ("Lorem ipsum", "{")
# Pages that stay where no line drops them, and any.
STAYS = "\nOne two three. Four five! Six seven? Eight nine ten. The end is here."
LASTING = twins.long_lists(st.sampled_from([said for said in SAID if said not in DROPS] + [" words ", ".\n"]), 40)
TEXTS = (
    LASTING.map(lambda said: " ".join(said) + STAYS)
    | LASTING.map(lambda said: "".join(said) + STAYS)
    | twins.long_lists(st.sampled_from(SAID) | LINES, 40).map("".join)
)
PHRASES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")


def sentences(line: str, language: str = "") -> list[str]:
    """Ours, by looking ahead: cut behind terminal marks and closing punctuation before white space, or a CJK mark."""
    found, start = [], 0
    for end in re.finditer(f"[{re.escape(''.join(sorted(TERMINAL_PUNCTUATION)))}]", line):
        past = end.end()
        if past <= start:
            continue
        run = line[end.start() :]
        size = next((k for k, c in enumerate(run) if c not in TERMINAL_PUNCTUATION and not _mark(c)), len(run))
        past = end.start() + size
        full_width = any(ord(c) >= 0x3000 for c in run[:size] if c in TERMINAL_PUNCTUATION)
        if past == len(line) or line[past].isspace() or full_width:
            found.append(line[start:past])
            start = past
    return [piece for piece in (*found, line[start:]) if piece.strip()]


def _mark(c: str) -> bool:
    return unicodedata.category(c).startswith("P")


def datatrove(text: str, **options: Any) -> tuple[str | None, str]:
    """(why the page is dropped, or None, and its text)."""
    document = Document(text, "0")
    said = filters.C4QualityFilter(**options).filter(document)
    return (None, document.text) if said is True else (said[1], "")


def tfds(text: str) -> tuple[str | None, str]:
    """c4_utils.clean_page, from its published rules."""
    kept, count = [], 0
    for line in text.splitlines():
        line = line.strip()
        if max(map(len, line.split()), default=0) > 1000:
            continue
        line = CITATION.sub("", line)
        if line[-1:] not in tuple('.?!"') or not line or line[-3:] == "...":
            continue
        if len(line.split()) < 5:
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "lorem_ipsum", ""
        if "javascript" in lower:
            continue
        if "{" in line:
            return "curly_bracket", ""
        if any(phrase in lower for phrase in PHRASES):
            continue
        count += len(sentences(line))
        kept.append(line)
    return (None, "\n".join(kept).strip()) if count >= 3 else ("too_few_sentences", "")


def dolma(text: str) -> dict[str, int]:
    """Its tagger c4_v1."""
    rows = [row.lower().strip() for row in text.split("\n")]
    return {
        "lines": len(rows),
        "lines_without_terminal_punctuation": sum(not row.endswith((".", "?", "!", '"')) for row in rows),
        "lines_with_too_few_words": sum(len(row.split()) < 3 for row in rows),
        "javascript": sum("javascript" in row.split() for row in rows),
        "lorem_ipsum": sum("lorem ipsum" in row for row in rows),
        "curly_bracket": sum("{" in row for row in rows),
    }


def ours(texts: list[str], dialect: str, bound: int, **params: Any) -> list[tuple[set[str | None], str]]:
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    counts = pa.table(stage.load("c4", {"dialect": dialect, **params})(batch)).to_pylist()
    left = stage.load("c4_lines", {"dialect": dialect, **params})(batch)["text"].to_pylist()
    found: list[tuple[set[str | None], str]] = []
    for row, text in zip(counts, left, strict=True):
        why: set[str | None] = {name for name in ("lorem_ipsum", "curly_bracket") if row[name]}
        why |= {"too_few_sentences"} if not why and row["sentences"] < bound else set()
        found.append((why or {None}, text))
    return found


@pytest.fixture(autouse=True)
def _one_splitter(monkeypatch):
    monkeypatch.setattr(filters, "split_into_sentences", sentences)


def agree(texts: list[str]) -> None:
    for text, (why, left) in zip(texts, ours(texts, "datatrove", 5), strict=True):
        reason, kept = datatrove(text)
        assert reason in why, text[:500]
        assert reason is not None or left == kept, text[:500]
    for text, (why, left) in zip(texts, ours(texts, "datatrove", 5, terminal_punctuation=False), strict=True):
        reason, kept = datatrove(text, filter_no_terminal_punct=False)
        assert reason in why, text[:500]
        assert reason is not None or left == kept, text[:500]
    for text, (why, left) in zip(texts, ours(texts, "tfds", 3), strict=True):
        reason, kept = tfds(text)
        assert reason in why, text[:500]
        assert reason is not None or left == kept, text[:500]
    batch = pa.record_batch({"text": pa.array(texts, pa.string())})
    counted = pa.table(stage.load("c4", {"dialect": "dolma"})(batch)).to_pylist()
    for text, row in zip(texts, counted, strict=True):
        assert {name: row[name] for name in dolma(text)} == dolma(text), text[:500]


@pytest.mark.parametrize("name", names())
def test_a_nasty_text(name):
    agree([nasty.TEXTS[name]])


@given(texts=st.lists(TEXTS, max_size=4))
def test_any_text(texts):
    agree(texts)


@given(text=TEXTS)
def test_sentences_of_a_line(text):
    line = " ".join(text.split())
    batch = pa.record_batch({"text": pa.array([line + " and so on."], pa.string())})
    counted = pa.table(stage.load("c4", {"terminal_punctuation": False})(batch)).to_pylist()[0]
    if counted["lines_kept"] == 1 and "[" not in line:
        assert counted["sentences"] == len(sentences(line + " and so on."))


def test_each_rule_counts_what_it_took():
    lines = ["A line that stays here.", "no end", "Short.", "Enable JavaScript to read this.", "We use cookies here."]
    lines += [f"A {'x' * 1001} is long.", "Lorem ipsum dolor sit amet.", "if (a) { b = c; } else d."]
    batch = pa.record_batch({"text": pa.array(["\n".join(lines)])})
    found = pa.table(stage.load("c4", {})(batch)).to_pylist()[0]
    assert found == {
        "lines": 8,
        "lines_kept": 3,
        "lines_with_long_word": 1,
        "lines_without_terminal_punctuation": 1,
        "lines_with_too_few_words": 1,
        "javascript": 1,
        "policy": 1,
        "lorem_ipsum": 1,
        "curly_bracket": 1,
        "sentences": 3,
        "characters": len("\n".join(lines)),
    }


@pytest.mark.slow
def test_every_document_of_the_corpus(shared_data):
    for batch in pq.ParquetFile(shared_data / "corpus" / "debian_docs.parquet").iter_batches(2000, columns=["text"]):
        agree(batch["text"].to_pylist())
