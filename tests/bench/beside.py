"""A training beside busy programs: `python tests/bench/beside.py [--busy N] [--write]`.

The shipped run `talk`, a GPT of .9 M parameters with a thread a core, beside `--busy` endless loops (default: one a
core), under several ways for OpenMP's threads to wait: seconds of a step, the median of `--steps`, rounds in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import packed, table, verbs
from tests.bench.measuring import ROOT

WAITS = {
    "as the trainer has it (1,000 spins)": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "as OpenMP has it (300,000 spins)": {"GOMP_SPINCOUNT": "300000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
TOLD = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many programs that do nothing else than run."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def seconds(manifest: Path, folder: Path, steps: int, wait: dict[str, str]) -> list[float]:
    """Of each step of a run but the first."""
    file = ROOT / "catalogs" / "runs" / "talk.toml"
    command = [sys.executable, "-P", "-m", "training", "fit", file, "--manifest", manifest, "--runs", folder]
    settings = (f"schedule.steps={steps}", f"evaluation.every={steps}", "samples.documents=0", "samples.prompts=[]")
    environment = {name: value for name, value in os.environ.items() if name not in TOLD}
    command += [part for change in settings for part in ("--set", change)]
    environment |= {"PYTHONPATH": str(ROOT), **wait}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    (metrics,) = folder.glob("*/metrics.jsonl")
    entries = map(json.loads, metrics.read_text("utf-8").splitlines())
    return [entry["seconds"] for entry in entries if entry["kind"] == "step"][1:]


def measured(folder: Path, data: Path, loops: list[int], steps: int, rounds: int) -> Iterator[str]:
    """The lines of the table."""
    recipe = shutil.copy(ROOT / "catalogs" / "recipes" / "talk.toml", folder)
    manifest = verbs.built(Path(recipe), folder / "store", data)
    yield f"| threads wait | {' | '.join(f'ms a step beside {count}' for count in loops)} |"
    yield "|---|" + "---|" * len(loops)
    found: dict[str, dict[int, list[float]]] = {name: {count: [] for count in loops} for name in WAITS}
    for number in range(rounds):
        for count in loops:
            with busy(count):
                for name, wait in WAITS.items():
                    place = folder / f"{number}-{count}-{len(name)}"
                    found[name][count] += seconds(manifest, place, steps, wait)
    for name, each in found.items():
        yield f"| {name} | {' | '.join(f'{1000 * statistics.median(each[count]):,.0f}' for count in loops)} |"


def main() -> None:
    """Train beside the loops and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=packed.DATA)
    parser.add_argument("--busy", type=int, default=len(os.sched_getaffinity(0)), help="endless loops")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        loops = [*dict.fromkeys((0, options.busy))]
        lines = [*measured(Path(temporary), options.data, loops, options.steps, options.rounds)]
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        said = f"`{table.command('beside', sys.argv[1:])}`, {date.today()}, {table.machine()}."
        table.section("beside", f"{said}\n\n{printed}")


if __name__ == "__main__":
    main()
