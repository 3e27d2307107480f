"""The causal objective and the layout of rows, against a loop over pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.training import runs
from training.manifest import open_version
from training.objectives.causal import Objective
from training.shards import Split


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return Split(open_version(runs.version(tmp_path_factory.mktemp("v") / "v", length=16)), "train")


def by_hand(split, index):
    """(row, position of the target, place in its piece, target) of every target."""
    found = []
    for i, number in enumerate(index):
        row = split[number]
        ends = [*row.starts[1:], row.used]
        for start, end in zip(row.starts, ends, strict=True):
            found += [(i, t, t - start, int(row.tokens[t])) for t in range(start + 1, end)]
    return found


def test_targets_are_all_tokens_but_the_first_of_each_piece(split):
    index = np.array([3, 0, len(split) - 1, 7, 8])
    rows = split.take(index)
    batch = Objective().prepare(rows, np.zeros(5, np.uint64))
    wanted = by_hand(split, index)
    at = [(int(a) // 16, int(a) % 16 + 1) for a in batch["at"]]
    assert at == [(i, t) for i, t, _, _ in wanted]
    assert batch["targets"].tolist() == [token for *_, token in wanted]
    assert [int(batch["positions"][i, t]) for i, t in at] == [place for _, _, place, _ in wanted]
    pieces = batch["pieces"].numpy()
    for i, t in at:
        assert pieces[i, t] == pieces[i, t - 1]
    assert len(np.unique(pieces)) == len(rows.starts) + int((rows.used < 16).sum())
    assert any(len(split[int(n)].offsets) and split[int(n)].offsets.max() > 0 for n in index) or len(wanted) > 20


def test_the_loss_is_the_sum_of_surprise(split):
    class Fixed:
        """Says the same of every place: a known distribution over the vocabulary."""

        def __init__(self, size):
            self.table = torch.linspace(-1, 1, size)

        def __call__(self, tokens, positions, pieces):
            return torch.zeros(*tokens.shape, 4)

        def projection(self, hidden):
            return hidden, torch.zeros(len(self.table), 4), self.table

    model, rows = Fixed(300), split.take(np.arange(4))
    batch = Objective().prepare(rows, np.zeros(4, np.uint64))
    total, weight = Objective().loss(model, batch)
    surprise = -torch.log_softmax(model.table, 0)
    wanted = [token for *_, token in by_hand(split, range(4))]
    assert weight == len(wanted) and torch.isclose(total, surprise[torch.tensor(wanted)].sum())
