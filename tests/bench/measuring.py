"""Both sides of a comparison in turn, each run a fresh process on one core; medians of what they say.

Who goes first changes with every pair of runs. The answers of the first pair are compared before another is timed.
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison

ROOT = Path(__file__).resolve().parents[2]
SIDE = Path(__file__).with_name("side.py")
# The names of our sides begin so.
OURS = "gristmill"
# Where the wall clock is compared: the part of a core that others may take, what a core is worth at the least beside
# the others (a host may give it to strangers and not say so), and how often to try for one quiet run.
DISTURBED, CORE, ATTEMPTS = 0.1, 0.9, 4
THREADS = ("OMP", "OPENBLAS", "MKL", "RAYON", "POLARS_MAX", "NUMBA")


class SideError(RuntimeError):
    """A side ended with an error; the message is its last words."""


@dataclass(frozen=True)
class Python:
    """Who runs which side: our interpreter, and the peers'."""

    ours: str
    peers: str

    def of(self, side: str) -> str:
        return self.ours if side.startswith(OURS) else self.peers


def environment(folder: Path, cores: int = 1) -> dict[str, str]:
    """As many threads as cores in every library, nothing from a hub, caches of its own below `folder`."""
    threads = {f"{name}_NUM_THREADS" if name != "POLARS_MAX" else "POLARS_MAX_THREADS": str(cores) for name in THREADS}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    places = {"HF_HOME": str(folder / "hf"), "HF_ASSETS_CACHE": str(folder / "hf" / "assets")}
    return {**os.environ, **threads, **quiet, **places, "PYTHONHASHSEED": "0"}


def child(python: str, work: str, side: str, data: Path, folder: Path, cores: int = 1, profile: bool = False) -> str:
    """What one side prints at its end. Raises SideError."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = sorted(os.sched_getaffinity(0))[-cores:]
    command = [python, str(SIDE), work, side, str(data), str(folder), *(["--profile"] if profile else [])]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment(folder, cores),
        preexec_fn=lambda: os.sched_setaffinity(0, mine),
    )
    if done.returncode:
        raise SideError(f"{side}: {(done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]}")
    return done.stdout


@dataclass
class Measured:
    """Medians of one side over its runs: seconds, bytes resident, and its runs' spread of CPU seconds."""

    cpu: float
    wall: float
    start_up: float
    peak: float
    least: float
    most: float

    @classmethod
    def of(cls, runs: Sequence[dict[str, float]]) -> Measured:
        middle = {name: statistics.median(run[name] for run in runs) for name in ("cpu", "wall", "start_up", "peak")}
        spent = [run["cpu"] for run in runs]
        return cls(**middle, least=min(spent), most=max(spent))


def compare(python: Python, work: str, row: Comparison, data: Path, runs: int) -> tuple[Measured, Measured, str]:
    """Run both sides `runs` times in turn. Returns ours, the peer's and what was said of their answers."""
    names = row.ours, row.peer
    if row.cores > len(os.sched_getaffinity(0)):
        raise SideError(f"{row.ours}: needs {row.cores} cores")
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    said = ""
    for number in range(runs if row.cores == 1 else ATTEMPTS * runs):
        if min(map(len, found)) == runs:
            break
        with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
            folders = [Path(temporary) / place for place in "AB"]
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                side = names[which]
                # A worker has a core, and so has a peer.
                cores = row.cores if which == 0 else 1
                out = child(python.of(side), work, side, data, folders[which], cores)
                run = json.loads(out.strip().splitlines()[-1])
                note(f"{work}: {side} {run['cpu']:.2f} s of CPU in {run['wall']:.2f} s, {run['others']:.2f} of others")
                quiet = run["others"] < DISTURBED * run["wall"] and run["scale"] >= CORE * cores
                if row.cores == 1 or quiet:
                    found[which].append(run)
            if number == 0:
                answers: list[Any] = [pickle.loads((folder / "answer").read_bytes()) for folder in folders]
                said = import_module(f"tests.bench.works.{work}").differences(*answers, data)
                note(f"{work}: {row.peer}: {said}")
    if not all(found):
        raise SideError(f"{row.ours}: others take the processor; measure when the machine is quiet")
    return Measured.of(found[0]), Measured.of(found[1]), said


def note(line: str) -> None:
    """What is under way, on standard error."""
    print(line, file=sys.stderr, flush=True)
