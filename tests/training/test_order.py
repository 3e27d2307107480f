"""The order of rows is a permutation, has no state, and does not know how many ranks there are."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training import batch, order


@settings(max_examples=150, deadline=None)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_each_epoch_visits_every_row_once(count: int, seed: int, epoch: int) -> None:
    got = order.permutation(count, seed, epoch, np.arange(count))
    assert np.array_equal(np.sort(got), np.arange(count))


@given(count=st.integers(1, 50), seed=st.integers(0, 9), first=st.integers(0, 200), size=st.integers(1, 120))
def test_positions_may_cross_epochs_and_be_asked_in_any_grouping(count: int, seed: int, first: int, size: int) -> None:
    asked = np.arange(first, first + size)
    together = order.rows(count, seed, asked)
    assert together.tolist() == [int(order.rows(count, seed, np.array([p]))[0]) for p in asked]
    whole = order.rows(count, seed, np.arange(count * 3)).reshape(3, count)
    assert all(np.array_equal(np.sort(epoch), np.arange(count)) for epoch in whole)


def test_seeds_and_epochs_differ_and_the_order_is_fixed_for_ever() -> None:
    first = order.permutation(1000, 7, 0, np.arange(1000))
    assert not np.array_equal(first, order.permutation(1000, 8, 0, np.arange(1000)))
    assert not np.array_equal(first, order.permutation(1000, 7, 1, np.arange(1000)))
    assert order.rows(10_000_019, 5, np.array([0, 1, 2, 10_000_018, 10_000_019])).tolist() == GOLDEN


GOLDEN = [9277870, 1268535, 1874754, 8324549, 2011249]


def test_the_order_looks_random() -> None:
    """Where position 0 lands is uniform over seeds, and neighbours do not stay neighbours (chi-square, 6 sigma)."""
    count, seeds = 24, 4800
    landed = np.array([order.permutation(count, seed, 0, np.array([0, 1])) for seed in range(seeds)])
    for column in (landed[:, 0], (landed[:, 1] - landed[:, 0]) % count):
        hits = np.bincount(column, minlength=count)
        hits = hits[hits > 0]
        expected = seeds / len(hits)
        chi = ((hits - expected) ** 2 / expected).sum()
        assert chi < len(hits) - 1 + 6 * np.sqrt(2 * (len(hits) - 1))
    lag = order.permutation(100_000, 3, 0, np.arange(100_000))
    assert abs(np.corrcoef(lag[:-1], lag[1:])[0, 1]) < 6 / np.sqrt(len(lag))


@given(step=st.integers(0, 10**6), rows=st.integers(1, 70), world=st.integers(1, 9))
def test_ranks_together_have_the_positions_of_one(step: int, rows: int, world: int) -> None:
    shares = [batch.positions(step, rows, rank, world) for rank in range(world)]
    assert np.concatenate(shares).tolist() == batch.positions(step, rows).tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(max_examples=100, deadline=None)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_positions_turn_the_permutation_round(count: int, seed: int, epoch: int) -> None:
    everywhere = np.arange(count)
    got = order.positions(count, seed, epoch, order.permutation(count, seed, epoch, everywhere))
    assert np.array_equal(got, everywhere)
