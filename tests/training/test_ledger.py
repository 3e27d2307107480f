"""The hash chain: a resume costs the same however much was read, and refuses another order of the same rows."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import runs
from training import TrainingError, batch, config, order
from training.ledger import TAIL, Ledger
from training.manifest import open_version
from training.mix import Stream


@pytest.fixture
def stream(tmp_path) -> Stream:
    run = config.load(runs.write_run(tmp_path))
    return Stream(run, open_version(runs.version(tmp_path / "v")))


def read(stream: Stream, steps: int) -> Ledger:
    ledger = Ledger(stream.start, stream.step)
    for step in range(steps):
        ledger.add(stream.step(step))
    return ledger


@pytest.mark.parametrize("steps", [0, 1, TAIL - 1, TAIL, TAIL + 1, 200])
def test_a_resumed_chain_goes_on_as_if_never_stopped_and_looks_at_a_tail_alone(stream, tmp_path, steps):
    whole, looked = read(stream, steps), []
    again = Ledger(stream.start, lambda step: (looked.append(step), stream.step(step))[1])
    again.restore({"step": steps, **whole.state()}, tmp_path, "v@1")
    assert looked == list(range(max(0, steps - TAIL), steps)) and again.chain == whole.chain
    for ledger in (whole, again):
        ledger.add(stream.step(steps))
    assert again.state() == whole.state() and again.step == whole.step
    chain = stream.start
    for step in range(steps + 1):
        chain = batch.chain_next(chain, stream.step(step))
    assert chain == whole.chain


@pytest.mark.parametrize("steps", [3, 60])
def test_another_order_of_the_same_rows_is_refused(stream, tmp_path, monkeypatch, steps):
    state = {"step": steps, **read(stream, steps).state()}
    plain = order.permutation
    monkeypatch.setattr(order, "permutation", lambda n, s, e, p: (plain(n, s, e, p) + 1) % n)
    changed = Stream(stream.run, stream.versions[0])
    assert not np.array_equal(changed.rows(np.arange(9)), stream._known(0, 9))
    with pytest.raises(TrainingError, match="other documents"):
        Ledger(changed.start, changed.step).restore(state, tmp_path, "v@1")


@pytest.mark.parametrize("change", [{"chain": "0" * 32}, {"tail": []}, {"step": 19}, {"tail": ["0" * 32] * TAIL}])
def test_a_state_that_was_altered_is_refused(stream, tmp_path, change):
    state = {"step": 20, **read(stream, 20).state(), **change}
    with pytest.raises(TrainingError, match="other documents"):
        Ledger(stream.start, stream.step).restore(state, tmp_path, "v@1")
