"""Our work against the peers', as ratios: `python tests/bench/peers.py [--only language,dedup] [--write]`.

Each side is a fresh process on one core with one thread, ours and the peer's in turn, on the same file; medians of CPU
seconds, reading and writing included where the work is from file to file, start-up apart. Of several workers it is the
wall clock on as many cores, of runs that no other process disturbs. The answers are compared before anything else is
timed. Peers are installed into an environment of their own (requirements.txt) at the first run.
`--write` puts the works that were run into RESULTS.md and leaves its others.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import environment, inputs, table
from tests.bench.measuring import ROOT, Python, SideError, child, compare, note

DATA = ROOT.parent / "shared" / "data" / "corpus" / "debian_docs.parquet"
WORKS = ("language", "dedup", "signals", "bpe", "chain", "workers")


def rows(work: str, python: Python, files: dict[str, Path], runs: int) -> list[dict[str, Any]]:
    """A row for each comparison of one work; one whose side fails says why."""
    found = []
    for comparison in import_module(f"tests.bench.works.{work}").COMPARISONS:
        data = files[comparison.data]
        size = inputs.text_bytes(data)
        row: dict[str, Any] = {**asdict(comparison), "bytes": size}
        try:
            ours, theirs, said = compare(python, work, comparison, data, runs)
            ratio = theirs.cpu / ours.cpu if comparison.cores == 1 else theirs.wall / ours.wall
            if comparison.cores > 1:
                said += f"; wall clock {ours.wall:.1f} s and {theirs.wall:.1f} s, CPU {ours.cpu / theirs.cpu:.2f}x"
            row |= {"mine": asdict(ours), "theirs": asdict(theirs), "ratio": ratio, "answers": said}
        except SideError as error:
            row["error"] = str(error)
            note(str(error))
        found.append(row)
    return found


def profiles(work: str, files: dict[str, Path]) -> None:
    """Print where our sides of one work spend their time, once for each input."""
    wanted = dict.fromkeys((row.ours, row.data) for row in import_module(f"tests.bench.works.{work}").COMPARISONS)
    for number, (side, data) in enumerate(wanted):
        folder = files[data].parent / f"profile-{work}-{number}"
        print(f"{work}, {side}, {data}:", child(sys.executable, work, side, files[data], folder, profile=True))


def main() -> None:
    """Run the works that are asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(WORKS), help="works, separated by commas: " + ", ".join(WORKS))
    parser.add_argument("--runs", type=int, default=3, help="times that each side runs (3)")
    parser.add_argument("--data", type=Path, default=DATA, help="Parquet file with columns id and text")
    parser.add_argument("--sample", type=int, default=3000, metavar="ROWS", help="rows for the slow peers (3000)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    parser.add_argument("--profile", action="store_true", help="time nothing: show where ours spends its time")
    options = parser.parse_args()
    works = options.only.split(",")
    if unknown := set(works) - set(WORKS):
        parser.error(f"no work {sorted(unknown)[0]!r}; has: {', '.join(WORKS)}")
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        files = inputs.make(options.data, Path(temporary), options.sample)
        if options.profile:
            for work in works:
                profiles(work, files)
            return
        peers, failed = environment.peers()
        found = {work: rows(work, Python(sys.executable, str(peers)), files, options.runs) for work in works}
    print(json.dumps(found, indent=1) if options.json else table.text(found, failed))
    if options.write:
        table.write(found, failed, str(peers), sys.argv[1:])


if __name__ == "__main__":
    main()
