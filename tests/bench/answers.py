"""What the questions take: `python tests/bench/answers.py --store DIR [--data DIR] [--times 5]`.

Builds `debian-docs` twice over the shared corpus, the second time with a rule changed, and trains a run of a few steps
on the first; what stands in the store already is used. Then asks each question as a person does, by a process of its
own, in turn and `--times` times: whatif and diff of the two versions; why of a document of each end, where, and trace
of a step and of a token. Prints the least and the median of wall-clock seconds, and what is left of the least behind
the start: a Python that imports the command line and the libraries that read the files, and does nothing with them.

`chrt -f 10 python tests/bench/answers.py ...` gives figures on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline import books
from pipeline import manifest as manifests
from pipeline.manifest import Version
from pipeline.store import Store, read_parquet

ROOT = Path(__file__).resolve().parents[2]
RUN = """name = "answers"
[model]
family = "gpt"
layers = 1
width = 32
heads = 2
[batch]
rows = 8
micro_rows = 8
[schedule]
steps = 6
[evaluation]
every = 6
rows = 8
[checkpoint]
every = 6
"""
LIBRARIES = "import flows.cli, pyarrow.compute, pyarrow.parquet, pydantic"
CHANGE = "gopher.word_count.below=80"


def gristmill(store: Path, *arguments: str) -> tuple[float, float]:
    """Seconds that a verb takes, from the first instruction of its process to its last: wall-clock, and CPU."""
    return python(store, "-m", "flows", *arguments)


def python(store: Path, *arguments: str) -> tuple[float, float]:
    """Seconds that a process of this Python takes: wall-clock, and CPU of all that it starts."""
    command, environment = [sys.executable, *arguments], {**os.environ, "GRISTMILL_STORE": str(store)}
    spent, began = cpu(), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began, cpu() - spent
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return took


def cpu() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepare(store: Path, data: Path) -> Version:
    """Two versions and a run in the store, as far as they are not there. Returns the first version."""
    known = manifests.names(Store(store))
    if "debian-docs" not in known:
        gristmill(store, "build", "debian-docs", "--data", str(data), "--direct")
    if "answers" not in known:
        gristmill(store, "apply", "debian-docs", CHANGE, "--name", "answers", "--data", str(data), "--direct")
    if not (store / "runs" / "answers" / "run.json").exists():
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "answers.toml"
            run.write_text(RUN, "utf-8")
            gristmill(store, "train", str(run), "--manifest", "debian-docs", "--name", "answers", "--direct")
    return manifests.find(Store(store), "debian-docs")


def questions(store: Store, version: Version) -> Iterator[tuple[str, list[str]]]:
    """(what is asked, how): whose answers come from other files, and are told apart."""
    yield "whatif, a threshold", ["whatif", "debian-docs", CHANGE]
    yield "whatif, duplicates kept", ["whatif", "debian-docs", "near.dup_rank.above=none"]
    yield "diff", ["diff", "debian-docs", "answers"]
    for name, doc_id in documents(store, version):
        yield f"why, {name}", ["why", doc_id, "--version", "debian-docs"]
    kept = version.index(["doc_id"])["doc_id"][0].as_py()
    yield "where", ["where", kept, "--version", "debian-docs"]
    yield "trace, a step", ["trace", "answers", "--step", "3"]
    yield "trace, a token", ["trace", "answers", "--step", "3", "--token", "1000"]


def documents(store: Store, version: Version) -> Iterator[tuple[str, str]]:
    """A document of each end that a version knows."""
    keys = version.build_keys()
    gone = books.ledger(store, keys).to_pylist()
    yield "kept", version.index(["doc_id"])["doc_id"][0].as_py()
    for stage in dict.fromkeys(row["stage"] for row in gone):
        yield f"left by {stage}", next(row["doc_id"] for row in gone if row["stage"] == stage)
    [near] = [r["cluster"] for segment in keys.segments for r in segment.relates if r["stage"] == "near"]
    rows = read_parquet(store.file(near, "relation.parquet"), ["doc_id", "near.dup_of", "near.jaccard"]).to_pylist()
    for row in rows:
        if row["near.dup_of"] and row["near.jaccard"] is None:
            yield "lost by way of others", row["doc_id"]
            return


def main() -> None:
    """Ask and print a line for each question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    folder = options.store.absolute()
    version = prepare(folder, options.data)
    asked = dict(questions(Store(folder), version))
    starts = {"start": ["-m", "flows", "why", "--help"], "start, with pyarrow": ["-c", LIBRARIES]}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in (*starts, *asked)}
    for _ in range(options.times):
        for name, arguments in starts.items():
            took[name].append(python(folder, *arguments))
        for name, arguments in asked.items():
            took[name].append(gristmill(folder, *arguments))
    start = min(took["start, with pyarrow"])[0]
    print(f"{'':32}{'least':>8}{'median':>8}{'CPU':>8}{'behind the start':>18}")
    for name, seconds in took.items():
        wall, spent = ([both[n] for both in seconds] for n in (0, 1))
        figures = "".join(f"{value:7.3f}s" for value in (min(wall), statistics.median(wall), min(spent)))
        print(f"{name:32}{figures}{1000 * (min(wall) - start):15.0f} ms")


if __name__ == "__main__":
    main()
