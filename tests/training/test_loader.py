"""The loader: the same tensors with a thread and without, never more than it may hold, loud, and gone when closed."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import torch

from tests.training import runs
from training import TrainingError, config, objectives
from training.loader import Loader
from training.manifest import open_version
from training.mix import Stream
from training.parallel import Group


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """Examples, which every objective can read."""
    return open_version(runs.version(tmp_path_factory.mktemp("version") / "v", layout="examples"))


def loader(tmp_path, version, ahead: int, first: int = 0, rank: int = 0, world: int = 1, use: str = "causal") -> Loader:
    changes = [f"batch.ahead={ahead}", f"objective.use={use}"]
    run = config.load(runs.write_run(tmp_path), changes)
    objective = objectives.load(run.objective, "").over(version)
    return Loader(run, Stream(run, version), objective, Group(rank, world, torch.device("cpu")), first)


@pytest.mark.parametrize("use", objectives.available())
@pytest.mark.parametrize(("rank", "world"), [(0, 1), (0, 2), (1, 2)])
def test_a_thread_changes_no_bit(tmp_path, version, use, rank, world):
    ahead = loader(tmp_path, version, 3, 4, rank, world, use)
    plain = loader(tmp_path, version, 0, 4, rank, world, use)
    for step in range(4, 12):
        (a, waited), (b, _) = ahead.next(), plain.next()
        assert a.step == b.step == step and waited >= 0
        assert (a.whole is None) == (b.whole is None) == (rank > 0)
        assert len(a.mine) == 6 // world and a.mine.index.tolist() == b.mine.index.tolist()
        for left, right in zip(a.prepared, b.prepared, strict=True):
            assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    ahead.close()


def test_rows_of_examples_lie_beside_those_of_their_length(tmp_path, version):
    found, plain = loader(tmp_path, version, 0, use="classify"), loader(tmp_path, version, 0, use="classify")
    plain.run = plain.run.model_copy(update={"batch": plain.run.batch.model_copy(update={"micro_rows": 6})})
    for _ in range(6):
        laid, whole = found.next()[0], plain.next()[0]
        lengths = [(part["pieces"] >= 0).sum(1).tolist() for part in laid.prepared]
        order = np.argsort(laid.mine.used + laid.mine.targets.used, kind="stable")
        assert [*itertools.chain(*lengths)] == laid.mine.used[order].tolist() != laid.mine.used.tolist()
        labels = [torch.cat([part["targets"] for part in each.prepared]) for each in (laid, whole)]
        assert torch.equal(*labels)


def test_it_is_ahead_by_so_many_steps_and_no_more_and_its_thread_ends(tmp_path, version, monkeypatch):
    made: list[int] = []
    plain = Loader.lay
    monkeypatch.setattr(Loader, "lay", lambda self, step: (made.append(step), plain(self, step))[1])
    found, before = loader(tmp_path, version, 2), threading.active_count()
    for step in range(3):
        assert found.next()[0].step == step
        deadline = time.monotonic() + 20
        while len(made) < step + 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert made == list(range(step + 4))  # the one in hand, two ready, and one in the thread's hands
    found.close()
    assert threading.active_count() == before


def test_a_step_that_takes_its_time_is_not_waited_for(tmp_path, version, monkeypatch):
    plain = Loader.lay
    monkeypatch.setattr(Loader, "lay", lambda self, step: (time.sleep(0.05), plain(self, step))[1])
    found, waits = loader(tmp_path, version, 2), []
    for _ in range(6):
        waits.append(found.next()[1])
        time.sleep(0.15)
    found.close()
    assert waits[0] > 0.04 and sorted(waits[1:])[2] < 0.02


def test_what_goes_wrong_in_the_thread_is_raised_at_its_step(tmp_path, version, monkeypatch):
    plain = Loader.lay

    def lay(self, step):
        if step == 2:
            raise TrainingError("a row that cannot be read")
        return plain(self, step)

    monkeypatch.setattr(Loader, "lay", lay)
    for ahead in (0, 2):
        found = loader(tmp_path, version, ahead)
        assert [found.next()[0].step for _ in range(2)] == [0, 1]
        with pytest.raises(TrainingError, match="cannot be read"):
            found.next()
        found.close()
