"""Memory: what is shared out, what is refused, and what is seen of the processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import memory
from pipeline.stage import ConfigError


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_shares_and_processes_make_the_total(workers: int, apart: bool) -> None:
    total = 10_000_000_000
    share = memory.task_share(total, workers, apart)
    processes = workers + 1 if workers > 1 and apart else 1
    held = processes * memory.PROCESS_BYTES + workers * memory.THREAD_BYTES
    assert total - workers < share * workers + held <= total


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_least_that_is_named_works_and_less_does_not(workers: int, apart: bool) -> None:
    with pytest.raises(ConfigError, match=r"the least that works is (\d+)MB") as refused:
        memory.task_share(1_000_000, workers, apart)
    least = int(str(refused.value).split("least that works is ")[1].split("MB")[0]) * 1_000_000
    assert memory.task_share(least, workers, apart) >= memory.LEAST_TASK_BYTES
    with pytest.raises(ConfigError):
        memory.task_share(least - 1_000_000, workers, apart)
    assert memory.workers_within(least, 64, apart) == workers
    assert memory.workers_within(least - 1_000_000, 64, apart) == max(workers - 1, 1)


HOLD = "import time; held = b'x' * 60_000_000; print('up', flush=True); time.sleep(60)"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")
def test_peak_counts_descendants_also_after_they_ended() -> None:
    before = memory.tree_memory(os.getpid())
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"
    with memory.watching() as peak, subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        time.sleep(3 * memory.LOOK)
        grown = memory.tree_memory(os.getpid()) - before
        for process in memory.descendants(child.pid)[::-1]:
            os.kill(process, 9)
    assert grown > 60_000_000
    assert peak.bytes is not None and peak.bytes > before + 50_000_000


def test_what_is_kept_for_speed_is_let_go_and_changes_nothing() -> None:
    import pyarrow as pa

    from pipeline.tokens import vocabulary
    from pipeline.tokens.encoding import Encoder

    text = pa.array(["the mill wheel turns with water", "and grinds grain into flour"] * 4)
    encoder = Encoder(vocabulary.train(text.to_pylist(), 300))
    before = encoder(text)
    assert encoder._met.memory.near.any()
    memory.forget()
    encoder(text[:0])
    assert not encoder._met.memory.near.any()
    assert all((a == b).all() for a, b in zip(before, encoder(text), strict=True))
