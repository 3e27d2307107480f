"""Law 6 for what sources refuse (bytes that are no UTF-8, null text), should it come all the same from somebody's own
source: over every stage in the folder, an answer that is the document's own, or an error that quarantines it alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.kernels.linewise import lines
from pipeline.run import attempt
from pipeline.stage import Stage
from tests.laws.test_size_laws import documents
from tests.laws.test_stage_laws import cases, outcome, stage  # noqa: F401

PIECES = [
    b"the mill wheel turns ",
    b"\n",
    "磨坊".encode(),
    b"\xff",
    b"\xc3",
    b"\xe7\xa3",
    b"\xf0\x9f\x98",
    b"\x80",
    b"\xc0\xaf",
]
PIECES += [b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xf4\x90\x80\x80", b"\x00", b"a", b". ", b"- "]
TEXTS = st.lists(st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join), max_size=6)
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def column(texts: Sequence[bytes], before: bytes = b"", behind: bytes = b"") -> pa.Array:
    """Texts of any bytes, among others that belong to nobody."""
    offsets = np.cumsum([len(before), *map(len, texts)]).astype(np.int64)
    data = before + b"".join(texts) + behind
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(data))


def said(stage: Stage, batch: pa.RecordBatch) -> tuple[list[str], pa.Table]:  # noqa: F811
    """(documents that it cannot bear, what it makes of the others)."""
    tables: list[pa.Table] = []

    def accept(kept: pa.RecordBatch, out: Any) -> pa.RecordBatch:
        tables.append(outcome(stage, kept))
        return kept

    _, accused = attempt(stage, batch, functools.partial(accept))
    return accused["doc_id"].to_pylist(), pa.concat_tables(tables).combine_chunks()


@cases("measure", "rewrite", "relate", "cut")
@given(texts=TEXTS, before=st.sampled_from([b"", b"a", b"\xe7\xa3"]), behind=st.sampled_from([b"", b"\x8a", b"mill"]))
@QUICK
def test_bytes_that_are_no_text_are_judged_by_themselves(stage: Stage, texts, before, behind):  # noqa: F811
    """What lies before and behind a document in memory is not read: a character cut short ends where its text does."""
    expected = [said(stage, documents(column([text]))) for text in texts]
    accused, found = said(stage, documents(column(texts, before, behind)))
    assert accused == [f"d{row:07d}" for row, (gone, _) in enumerate(expected) if gone]
    rows = pa.concat_tables([found.slice(0, 0), *(table for _, table in expected)])
    if stage.kind == "rewrite":
        rows, found = rows.select(["text"]), found.select(["text"])
    assert [raw(column) for column in rows.columns] == [raw(column) for column in found.columns]


def raw(column: pa.ChunkedArray) -> list[Any]:
    """Values that need not be text."""
    return column.cast(pa.large_binary()).to_pylist() if pa.types.is_large_string(column.type) else column.to_pylist()


@cases("measure", "rewrite", "relate", "cut")
def test_null_text_is_empty_or_refused(stage: Stage):  # noqa: F811
    texts = ["the mill", None, "", "磨坊"]
    accused, found = said(stage, documents(pa.array(texts, pa.large_string())))
    if accused:
        assert accused == ["d0000001"]
        texts.remove(None)
    columns = [name for name in found.column_names if name not in ("doc_id", "text")]
    empty, expected = said(stage, documents(pa.array([text or "" for text in texts], pa.large_string())))
    assert empty == [] and found.select(columns).equals(expected.select(columns))


def test_what_is_no_line_feed_ends_no_line():
    """Bytes that decode to a line feed, or run over one: as many lines as there are bytes that are line feeds."""
    texts = [b"\xc0\x8a", b"\xc0J", b"\x80\na", b"\xe7\xa3\n\n", b"\xf0\n\n\n\n", b"a\n\xff\nb", b"\xe0\x80\x8a"]
    found = lines(column(texts, b"\xe7", b"\n\n"), True)
    assert np.bincount(found["document"], minlength=len(texts)).tolist() == [text.count(b"\n") + 1 for text in texts]
