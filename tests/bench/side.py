"""One side of a comparison, in a process of its own: `python side.py WORK SIDE DATA FOLDER`; JSON on the last line.

A side is a function of a work's module. It is given the data's path and an empty folder, imports and loads what it
needs, and returns the work itself as a function; only that is timed. What comes before is start-up, stated apart.
Runs in our Python and in the peers', so neither this module nor a work's imports more than the standard library
before a side asks for it.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import importlib
import io
import json
import os
import pickle
import pstats
import re
import resource
import sys
import threading
import time
from pathlib import Path


def cpu() -> float:
    """Seconds of CPU of this process and of the children that it has waited for."""
    spent = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(who.ru_utime + who.ru_stime for who in spent)


def peak() -> int:
    """The most bytes that this process had resident. Its ru_maxrss would begin with those of its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) * 1024 if found else 0


def busy() -> float:
    """CPU seconds that all processes of the machine have taken since it began."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def scale() -> float:
    """How many times as fast as one core all that we may use are together: less where the host gives them to others."""
    cores, given = len(os.sched_getaffinity(0)), bytes(32_000_000)

    def spin(count: int) -> float:
        threads = [threading.Thread(target=lambda: hashlib.blake2b(given).digest()) for _ in range(count)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    return cores * spin(1) / spin(cores)


def measured(work: str, side: str, data: Path, folder: Path) -> dict[str, float]:
    """Do one side's work once. Its answer is pickled into `folder`/answer."""
    function = importlib.import_module(f"tests.bench.works.{work}").SIDES[side]
    ready = function(data, folder)
    start_up, before = cpu(), scale()
    spent, began, everyone = cpu(), time.perf_counter(), busy()
    answer = ready()
    found = {"wall": time.perf_counter() - began, "cpu": cpu() - spent, "start_up": start_up, "peak": peak()}
    found["others"] = busy() - everyone - found["cpu"]
    found["scale"] = min(before, scale())
    (folder / "answer").write_bytes(pickle.dumps(answer))
    return found


def profiled(work: str, side: str, data: Path, folder: Path) -> str:
    """Where the time of one side's work goes: the twenty functions that took most themselves."""
    ready = importlib.import_module(f"tests.bench.works.{work}").SIDES[side](data, folder)
    profile, out = cProfile.Profile(), io.StringIO()
    profile.runcall(ready)
    pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(20)
    return out.getvalue()


def main() -> None:
    """Measure, or profile, one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work")
    parser.add_argument("side")
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    place = options.work, options.side, options.data, options.folder
    print("\n" + (profiled(*place) if options.profile else json.dumps(measured(*place))), flush=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    main()
