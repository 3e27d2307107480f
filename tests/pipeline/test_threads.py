"""Worker threads: what they do, and how they are broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pipeline import runner
from pipeline.store import Store
from pipeline.threads import Abandoned, Threads


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_calls_are_taken_in_order_and_errors_come_back():
    seen: list[int] = []
    with Threads(1) as pool:
        futures = [pool.submit(seen.append, n) for n in range(50)]
        wrong = pool.submit(lambda: 1 // 0)
        assert [future.result(5) for future in futures] == [None] * 50 and seen == list(range(50))
        with pytest.raises(ZeroDivisionError):
            wrong.result(5)
        assert pool.submit(pow, 2, exp=5).result(5) == 32


def test_as_many_calls_as_threads_run_at_once():
    meet = threading.Barrier(3)
    with Threads(3) as pool:
        assert sorted(future.result(5) for future in [pool.submit(meet.wait, 5) for _ in range(3)]) == [0, 1, 2]


def test_what_is_abandoned_stops_where_it_stands_and_clears_up(tmp_path):
    """One in the middle of its output, one before it begins, and the thread ends."""
    store, begun = Store(tmp_path), threading.Event()

    def task(root: str, key: str) -> None:
        with store.writing(key) as out:
            (out.folder / "half").touch()
            begun.set()
            while True:
                time.sleep(0.01)

    with Threads(1) as pool:
        running, waiting = (pool.submit(task, str(tmp_path), key) for key in ("aa1", "aa2"))
        assert begun.wait(5)
        runner.abandon(pool, str(tmp_path), ["aa1", "aa2"])
        assert isinstance(running.exception(5), Abandoned) and waiting.cancelled()
    assert list(tmp_path.glob("store/*/.*")) == [] and store.done("aa1") is None


def test_whom_it_cannot_tell_it_does_not_wait_for(tmp_path, monkeypatch):
    """A long call into a library hears nothing; what it had half written is cleared all the same."""
    monkeypatch.setattr(runner, "PATIENCE", 0.05)
    gate, half = threading.Event(), Store(tmp_path).folder("aa1").parent / ".aa1.0"
    half.mkdir(parents=True)
    with Threads(1) as pool:
        pool.submit(gate.wait, 20)
        began = time.monotonic()
        runner.abandon(pool, str(tmp_path), ["aa1"])
    assert time.monotonic() - began < 5 and not half.exists()
    gate.set()
    until(lambda: not any(thread.name.startswith("worker-") for thread in threading.enumerate()))


def test_somebodys_own_code_runs_in_processes(tmp_path):
    with runner.workers(2, apart=True) as apart, runner.workers(2) as together, runner.workers(1) as none:
        assert isinstance(together, Threads) and none is None
        assert apart is not None and not isinstance(apart, Threads)
