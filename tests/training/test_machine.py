"""What is said of the machine, and the progress line where there is no terminal."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time

import pytest
import torch
from rich.console import Console

from tests.conftest import ROOT
from training import machine, progress


@pytest.mark.parametrize("compute", ["bf16", "float32"])
def test_the_peak_is_measured_where_no_data_sheet_says_it(compute):
    found = machine.peak_flops(compute)
    assert found["from"] == ("measured" if not torch.cuda.is_available() else found["from"]) and found["flops"] > 1e8
    left = torch.ones(512, 512)
    began = time.perf_counter()
    for _ in range(4):
        left @ left
    if compute == "float32":  # it is a peak: no product of the same kind is much faster
        assert 4 * 2 * 512**3 / (time.perf_counter() - began) < 3 * found["flops"]
    assert machine.peak_flops(compute) == found


def test_code_names_what_computes():
    assert machine.code() == machine.code() and len(machine.code()) == 32


def test_a_line_says_how_long_it_will_take_from_the_rate_of_this_start_alone(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    lines = progress.Lines(every=5.0)
    lines.phase("train", 10_000)
    lines.advance(4000)  # what an earlier start did
    for _ in range(20):
        clock[0] += 3.0
        lines.note("loss 4.2")
        lines.advance(1)
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "train: 4,020 of 10,000, 4:59:00 left  loss 4.2" and len(said) == 10
    lines.warn("step 4020 refused: loss nan")
    assert capsys.readouterr().err == "train: step 4020 refused: loss nan\n"
    lines.advance(5980)
    assert capsys.readouterr().err == "train: 10,000 of 10,000  loss 4.2\n"


def test_a_bar_says_how_long_it_will_take_from_the_rate_of_this_start_alone(monkeypatch):
    """Held against what is left at a step each three seconds, where an earlier start did 4,000 at once."""
    clock, shown = [100.0], io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=shown, force_terminal=True, width=120))
    bars = progress.Bars()
    bars._bars.get_time = lambda: clock[0]
    bars.phase("train", 10_000)
    bars.advance(4000)
    for _ in range(20):
        clock[0] += 3.0
        bars.advance(1)
    bars.warn("step 4020 refused: loss nan")
    [task] = bars._bars.tasks
    assert task.completed == 4020 and task.time_remaining == pytest.approx(3 * 5980, rel=0.06)
    bars.close()
    assert "step 4020 refused: loss nan" in shown.getvalue()


FAULTS = """
import ctypes, resource, sys
from training import machine
if sys.argv[1] == "kept":
    machine.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def step():
    blocks = [libc.malloc(24_000_000) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 24_000_000)
    for block in blocks:
        libc.free(block)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing", "spins", "policy"],
)
def test_threads_of_the_trainer_spin_briefly_where_nothing_else_is_asked(given, spins):
    """And are told so before torch is loaded, whose OpenMP looks once."""
    code = (
        "import os, sys\n"
        "from training import __main__ as door\n"
        "door.app = lambda: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)\n"
        "door.main()\n"
    )
    told = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**told, **given}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(spins), "False"]


def test_memory_that_was_freed_is_not_mapped_again():
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True).stdout)

    one_step = 4 * 24_000_000 // resource.getpagesize()
    assert faults("kept") < one_step / 100
    assert faults("as it is") > one_step
