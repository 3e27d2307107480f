"""Time two commands side by side: `python tests/bench/pair.py --runs 5 'COMMAND A' 'COMMAND B'`.

Whole processes, A and B in turn, so that what else the machine does falls on both; prints the median of each
and the ratio of the medians. `{n}` in a command is the number of the run, for stores that must be fresh.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time


def timed(command: str, number: int) -> float:
    """Seconds of wall clock of one run. Ends the bench where the command fails."""
    began = time.perf_counter()
    done = subprocess.run(command.replace("{n}", str(number)), shell=True, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {command}\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def main() -> None:
    """Run the pairs and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    seconds: list[list[float]] = [[], []]
    for number in range(options.runs):
        for side, command in enumerate(options.commands):
            seconds[side].append(timed(command, number))
    medians = [statistics.median(side) for side in seconds]
    for name, side, median in zip("AB", seconds, medians, strict=True):
        print(f"{name}: median {median:.2f} s, from {min(side):.2f} to {max(side):.2f}, {options.runs} runs")
    print(f"B / A: {medians[1] / medians[0]:.2f}")


if __name__ == "__main__":
    main()
