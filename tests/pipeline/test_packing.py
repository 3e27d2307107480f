"""Packing: best-fit decreasing against a plain twin; nothing is lost, nothing over length, nothing cut that fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.packing import best_fit, lay
from pipeline.tokens import pack
from tests.pipeline import twins

CASES = st.integers(1, 40).flatmap(
    lambda capacity: st.tuples(st.just(capacity), twins.long_lists(st.integers(1, capacity), 60))
)
DOCUMENTS = st.tuples(st.integers(1, 12), twins.long_lists(st.integers(1, 40), 30))
FILL = 65_535


def brute(lengths: list[int], capacity: int) -> list[int]:
    """Longest first, each into the fullest row with room (of equals, the one that came last to have that room)."""
    rooms: list[tuple[int, int]] = []  # (room, row), in the order in which they came to have it
    rows = [0] * len(lengths)
    used = 0
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [pair for pair in rooms if pair[0] >= lengths[item]]
        if fitting:
            room = min(pair[0] for pair in fitting)
            position = max(k for k, pair in enumerate(rooms) if pair[0] == room)
            _, row = rooms.pop(position)
        else:
            room, row, used = capacity, used, used + 1
        rows[item] = row
        if room > lengths[item]:
            rooms.append((room - lengths[item], row))
    first = {row: n for n, row in enumerate(dict.fromkeys(rows))}
    return [first[row] for row in rows]


def fewest(lengths: list[int], capacity: int) -> int:
    """The fewest rows there can be, by trying everything."""

    def place(rest: list[int], rooms: tuple[int, ...], best: int) -> int:
        if len(rooms) >= best:
            return best
        if not rest:
            return len(rooms)
        for index, room in enumerate(rooms):
            if room >= rest[0] and room not in rooms[:index]:
                best = place(rest[1:], (*rooms[:index], room - rest[0], *rooms[index + 1 :]), best)
        return place(rest[1:], (*rooms, capacity - rest[0]), best)

    return place(sorted(lengths, reverse=True), (), len(lengths) + 1)


@given(case=CASES)
def test_rows_are_those_of_a_plain_best_fit_decreasing(case):
    capacity, lengths = case
    assert best_fit(np.array(lengths, np.int64), capacity).tolist() == brute(lengths, capacity)


@given(capacity=st.integers(3, 20), lengths=st.lists(st.integers(1, 20), max_size=9))
def test_rows_are_at_most_eleven_ninths_of_the_fewest(capacity, lengths):
    lengths = [min(length, capacity) for length in lengths]
    rows = best_fit(np.array(lengths, np.int64), capacity)
    best = fewest(lengths, capacity)
    assert best <= len(set(rows.tolist())) <= 11 / 9 * best + 4


def test_many_rows_of_many_rooms():
    """20,000 items: no row is over, and best fit wastes next to nothing."""
    lengths = np.minimum(np.random.default_rng(4).lognormal(5, 1, 20_000).astype(np.int64) + 1, 1024)
    loads = np.bincount(best_fit(lengths, 1024), weights=lengths)
    assert loads.max() <= 1024 and loads.sum() == lengths.sum()
    assert len(loads) < 1.01 * np.ceil(lengths.sum() / 1024) + 1


@pytest.mark.parametrize("lengths", [[0], [5], [2, 5], [3, -1]])
def test_an_item_that_no_row_can_hold_is_refused(lengths):
    with pytest.raises(ValueError, match="items must have length 1 to 4"):
        best_fit(np.array(lengths), 4)


def tokens(sizes: list[int]) -> pack.Tokens:
    """Documents whose tokens say whose they are and where they stand."""
    flat = [1000 * (number % 60) + place for number, size in enumerate(sizes) for place in range(size)]
    return pack.Tokens(np.array(flat, np.uint16), np.cumsum([0, *sizes]).astype(np.int64))


@given(case=DOCUMENTS)
def test_packed_rows_hold_every_token_once_and_cut_only_what_is_too_long(case):
    length, sizes = case
    given_ = tokens(sizes)
    rows = pack.packed(given_, length, FILL).to_pylist()
    found: dict[int, dict[int, list[int]]] = {}
    for row in rows:
        assert len(row["tokens"]) == length and 0 < row["used"] <= length
        assert set(row["tokens"][row["used"] :]) <= {FILL}
        assert row["starts"] == sorted(set(row["starts"])) and row["starts"][0] == 0
        assert row["documents"] == sorted(row["documents"])
        bounds = zip(row["starts"], [*row["starts"][1:], row["used"]], strict=True)
        for (a, b), document, offset in zip(bounds, row["documents"], row["offsets"], strict=True):
            assert found.setdefault(document, {}).setdefault(offset, row["tokens"][a:b]) is not None
    assert sorted(found) == list(range(len(sizes)))
    for document, pieces in found.items():
        whole = given_.flat[given_.starts[document] : given_.starts[document + 1]].tolist()
        assert [token for offset in sorted(pieces) for token in pieces[offset]] == whole
        assert len(whole) > length or len(pieces) == 1
    assert sum(row["used"] for row in rows) == sum(sizes)


@given(case=DOCUMENTS)
def test_packed_rows_are_at_most_those_of_best_fit(case):
    """Fewer where full rows of long documents found room in others, and only if there was as much room."""
    length, sizes = case
    pieces = [min(length, size - at) for size in sizes for at in range(0, size, length)]
    plain = len(set(brute(pieces, length)))
    rows = pack.packed(tokens(sizes), length, FILL).num_rows
    assert -(-sum(sizes) // length) <= rows <= plain
    if max(sizes, default=0) <= length:
        assert rows == plain


@given(
    length=st.integers(1, 40),
    rooms=st.lists(st.integers(0, 39), max_size=30),
    most=st.integers(0, 5),
    least=st.integers(1, 8),
)
def test_a_full_row_is_poured_whole_into_room_that_there_is(length, rooms, most, least):
    room = np.array(rooms, np.int64) % length
    least = min(least, length)
    poured = pack.pour(room, length, most, least)
    assert len(poured) <= most
    taken = np.zeros_like(room)
    for parts in poured:
        assert sum(size for _, size in parts) == length and min(size for _, size in parts) >= least
        for row, size in parts:
            taken[row] += size
    assert (taken <= room).all()
    large = room[room >= least]
    assert not most or poured or large.sum() < length or least > 1  # nothing is given up where every size is good


def test_long_documents_fill_what_others_leave():
    """Texts of 64 to 255 tokens leave room in rows of 256 that none of them fits into."""
    drawn = np.random.default_rng(5)
    sizes = [*drawn.integers(64, 256, 3000).tolist(), *drawn.integers(600, 4000, 600).tolist()]
    used = pack.packed(tokens(sizes), 256, FILL)["used"].to_numpy()
    pieces = [min(256, size - at) for size in sizes for at in range(0, size, 256)]
    plain = len(set(best_fit(np.array(pieces), 256).tolist()))
    padding, before = (1 - sum(sizes) / (256 * rows) for rows in (len(used), plain))
    assert used.sum() == sum(sizes) and padding < before / 3 and padding < 0.006


@given(case=DOCUMENTS)
def test_examples_are_one_row_a_document_cut_before_its_last_token_alone(case):
    length, sizes = case
    given_ = tokens(sizes)
    labels = np.arange(len(sizes)) % 3 - 1
    table, truncated, _ = pack.examples(given_, length, labels)
    assert table["document"].to_pylist() == list(range(len(sizes))) and table["label"].to_pylist() == labels.tolist()
    for row, (a, b) in zip(table["tokens"].to_pylist(), itertools.pairwise(given_.starts), strict=True):
        whole = given_.flat[a:b].tolist()
        assert row == (whole if len(whole) <= length else [*whole[: length - 1], whole[-1]])
    assert truncated == sum(max(0, size - length) for size in sizes)


# Blocks


@pytest.fixture
def small(monkeypatch) -> None:
    """Blocks of about eight documents, so that a test sees many."""
    monkeypatch.setattr(pack, "BLOCK_DOCUMENTS", 8)


def members(ids: list[str]) -> set[tuple[str, ...]]:
    return {tuple(ids[a:b]) for a, b in pack.blocks(ids)}


IDS = [f"source:some/file.jsonl:{number:05}" for number in range(2000)]


@pytest.mark.usefixtures("small")
def test_blocks_tile_the_documents_and_have_about_their_size():
    bounds = pack.blocks(IDS)
    assert [a for a, _ in bounds] == [0, *(b for _, b in bounds[:-1])] and bounds[-1][1] == len(IDS)
    assert all(a < b for a, b in bounds) and 8 * 0.8 < len(IDS) / len(bounds) < 8 * 1.2
    assert pack.blocks([]) == [] and pack.blocks(IDS[:1]) == [(0, 1)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("place", range(0, 2000, 97))
def test_a_document_more_or_less_touches_its_block_alone(place):
    """Two blocks at most where an end is taken away, one is split where an end is added."""
    before, without = members(IDS), members(IDS[:place] + IDS[place + 1 :])
    touched = before - without
    assert len(touched) <= 2 and len(without - before) <= 1
    assert any(IDS[place] in block for block in touched)
    assert {i for block in touched for i in block} - {i for block in without - before for i in block} == {IDS[place]}


@given(gone=st.sets(st.integers(0, 299), max_size=40))
def test_blocks_hang_on_the_ids_alone(gone):
    """Whoever is taken away, two documents that were torn apart by an end that stays are not joined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "BLOCK_DOCUMENTS", 8)
        ids = IDS[:300]
        ends = {ids[b - 1] for _, b in pack.blocks(ids)[:-1]}
        left = [i for n, i in enumerate(ids) if n not in gone]
        found = {left[b - 1] for _, b in pack.blocks(left)}
    assert found - set(left[-1:]) == (ends & set(left)) - set(left[-1:])


def test_blocks_are_of_about_eight_thousand_documents():
    """Over 400,000 ids: 49 blocks are expected, give or take four standard deviations."""
    ids = [f"s:f:{number}" for number in range(400_000)]
    assert abs(len(pack.blocks(ids)) - 49) < 28


@given(
    pieces=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=12),
    kind=st.sampled_from([np.uint16, np.uint32]),
)
def test_pieces_are_laid_where_they_are_to_lie(pieces, kind):
    flat, sizes = np.arange(40, dtype=kind), np.array([size for _, size in pieces], np.int64)
    begins = np.array([begin for begin, _ in pieces], np.int64)
    places = np.cumsum(sizes + 1) - sizes
    out, expected = (np.full(int(sizes.sum()) + len(pieces) + 1, 99, kind) for _ in range(2))
    for begin, size, place in zip(begins, sizes, places, strict=True):
        expected[place : place + size] = flat[begin : begin + size]
    lay(flat, begins, sizes, out, places)
    assert out.tolist() == expected.tolist()


@pytest.mark.parametrize(("begin", "place"), [(-1, 0), (8, 0), (0, -1), (0, 8)])
def test_a_piece_outside_is_refused(begin, place):
    with pytest.raises(ValueError, match="outside of the 10 numbers"):
        lay(np.zeros(10, np.uint16), np.array([begin]), np.array([3]), np.zeros(10, np.uint16), np.array([place]))
