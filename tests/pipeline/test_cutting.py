"""Spans and the text without them, against sets of positions and Python's own slices."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.cutting import misplaced, union, without
from tests.pipeline import twins

SPANS = twins.long_lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(0, 9)), 20)
TEXTS = st.lists(st.text("ab磨é\U0001f33e", max_size=9), max_size=5)


def columns(rows: list[tuple[int, ...]], count: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([row[k] for row in rows], np.int64) for k in range(count))


@given(spans=SPANS)
def test_a_union_covers_what_some_span_covers_in_as_few_as_can_be(spans):
    """Half positions stand between two bytes: so spans that touch are one, and an empty one covers its place."""
    covered = {(row, at) for row, start, size in spans for at in range(2 * start, 2 * (start + size) + 1)}
    begins = sorted(place for place in covered if (place[0], place[1] - 1) not in covered)
    ends = sorted(place for place in covered if (place[0], place[1] + 1) not in covered)
    found = union(*columns([(row, start, start + size) for row, start, size in spans], 3))
    expected = [(row, start // 2, end // 2) for (row, start), (_, end) in zip(begins, ends, strict=True)]
    assert list(zip(*(values.tolist() for values in found), strict=True)) == expected


@given(texts=TEXTS, wide=st.booleans(), data=st.data())
def test_text_without_spans_is_what_slices_leave(texts, wide, data):
    column = pa.array(["before", *texts, "behind"], pa.large_string() if wide else pa.string()).slice(1, len(texts))
    cuts = [data.draw(st.lists(st.integers(0, len(text)), unique=True, max_size=6).map(sorted)) for text in texts]
    bounds, spans, expected = [0], [], []
    for text, places in zip(texts, cuts, strict=True):
        pairs = list(zip(places[::2], places[1::2], strict=False))
        spans += [(len(text[:start].encode()), len(text[:end].encode())) for start, end in pairs]
        bounds.append(len(spans))
        for start, end in reversed(pairs):
            text = text[:start] + text[end:]
        expected.append(text)
    given_ = np.array(bounds, np.int64), *columns(spans, 2)
    assert misplaced(column, *given_) == -1
    assert without(column, *given_).to_pylist() == expected


@given(text=st.text("a磨", max_size=6), spans=st.lists(st.tuples(st.integers(-2, 20), st.integers(-2, 20)), max_size=3))
def test_spans_that_cannot_be_are_told(text, spans):
    places = {len(text[:at].encode()) for at in range(len(text) + 1)}
    right = all(start < end and {start, end} <= places for start, end in spans)
    right = right and all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    bounds = np.array([0, 0, len(spans)], np.int64)
    found = misplaced(pa.array(["a", text], pa.large_string()), bounds, *columns(spans, 2))
    assert found == (-1 if right else 1)
