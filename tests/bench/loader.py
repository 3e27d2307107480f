"""Rows to a batch: `python tests/bench/loader.py [--rows 100000] [--length 1024] [--runs 3]`.

Delivery: batches of 16 rows of packed shards in the run's order as numpy arrays, against HF `datasets` indexing the
same files by the same row numbers. Each side is a fresh process on one core, ours and the peer's in turn; medians of
CPU seconds, opening apart; the tokens of both are compared first. `prepared` is ours through to the tensors of the
causal objective. Start: a version of 10 M rows in 100 shards, from nothing to its first batch. Resume: the same in
mid-epoch, from a checkpoint's links of the hash chain to the next batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

ROWS, SHARD, SEED = 16, 25_000, 3
SIDES = ("ours", "prepared", "datasets", "datasets_all")


def write(path: Path, rows: int, length: int, seed: int) -> None:
    """One packed shard of random tokens, each row of one to seven pieces."""
    drawn = np.random.default_rng(seed)
    pieces = drawn.integers(1, min(8, length), rows)
    ends = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int32)
    nth = np.arange(ends[-1]) - np.repeat(ends[:-1], pieces)
    starts = (nth * length // np.repeat(pieces, pieces)).astype(np.int32)
    lists = {"starts": starts, "documents": np.arange(ends[-1], dtype=np.int32), "offsets": np.zeros_like(starts)}
    tokens = pa.array(drawn.integers(0, 8192, rows * length, np.uint16))
    columns = {
        "tokens": pa.FixedSizeListArray.from_arrays(tokens, length),
        "used": pa.array(np.full(rows, length, np.int32)),
        **{name: pa.ListArray.from_arrays(pa.array(ends), pa.array(values)) for name, values in lists.items()},
    }
    batch = pa.record_batch(columns)
    with pa.ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def stream(folder: Path, files: list[str], rows: int, length: int) -> Any:
    """The order over these shards, as a run opens it."""
    from training import config
    from training.manifest import ShardEntry
    from training.mix import Stream

    empty = {"tokens": 0, "first_document": 0, "documents": 0, "bytes": 0, "sha256": "0" * 64, "digest": "0" * 32}
    shards = [ShardEntry(file=file, source="bench", rows=rows, **empty) for file in files]
    index = SimpleNamespace(rows=0)
    manifest = SimpleNamespace(
        splits={"train": SimpleNamespace(shards=shards)}, layout="packed", length=length, dtype="uint16"
    )
    manifest.documents, manifest.version = index, "0" * 16
    version = SimpleNamespace(folder=folder, manifest=manifest, beside=(), address="bench@0")
    table = {"name": "bench", "seed": SEED, "model": {"family": "gpt"}, "schedule": {"steps": 1 << 40}}
    run = config.Run.model_validate({**table, "batch": {"rows": ROWS, "micro_rows": ROWS}})
    return Stream(run, version)


def side(name: str, folder: Path, length: int, steps: int) -> Callable[[], Iterator[Any]]:
    """What gives the tokens [16, length] of each step, opened."""
    files = sorted(path.name for path in folder.glob("*.arrow"))
    ours = stream(folder, files, SHARD, length)
    order = [ours.rows(np.arange(step * ROWS, (step + 1) * ROWS)) for step in range(steps)]
    if name == "ours":
        return lambda: (ours.step(step).tokens for step in range(steps))
    if name == "prepared":
        from training.objectives.causal import Objective

        objective, keys = Objective(), np.zeros(ROWS, np.uint64)
        return lambda: (objective.prepare(ours.step(step), keys)["tokens"].numpy() for step in range(steps))
    import datasets

    tables = [pa.ipc.open_file(pa.memory_map(str(folder / file))).read_all() for file in files]  # mapped, not copied
    read = datasets.Dataset(pa.concat_tables(tables))
    read = (read if name == "datasets_all" else read.select_columns(["tokens"])).with_format("numpy")
    return lambda: (read[rows]["tokens"] for rows in order)


def timed(name: str, folder: Path, length: int, steps: int) -> dict[str, float]:
    """Run one side; tokens a CPU second, and a checksum of the tokens of ten steps."""
    work = side(name, folder, length, steps)
    said = 0
    for number, tokens in enumerate(work()):
        if number == 10:
            break
        said = zlib.crc32(np.ascontiguousarray(tokens, np.uint16).data, said)
    began, count = time.process_time(), 0
    for tokens in work():
        count += tokens.size
    return {"tokens_per_second": count / (time.process_time() - began), "said": said}


def opening(folder: Path, rows: int, length: int) -> dict[str, float]:
    """Milliseconds from nothing to a first batch of 10 M rows, and from a checkpoint in mid-epoch to the next."""
    from training import config, mix  # noqa: F401 - loaded before the clock runs
    from training.ledger import Ledger

    began, spent = time.perf_counter(), time.process_time()
    started = stream(folder, ["large.arrow"] * 100, rows, length)
    started.step(0)
    start, start_cpu = time.perf_counter() - began, time.process_time() - spent
    middle = 100 * rows // ROWS // 2
    ledger = Ledger(started.start, started.step)
    ledger.step = middle
    for step in range(middle, middle + 9):
        ledger.add(started.step(step))
    state = {"step": middle + 9, **ledger.state()}
    started = stream(folder, ["large.arrow"] * 100, rows, length)  # one that has laid out nothing yet
    began, spent = time.perf_counter(), time.process_time()
    fresh = Ledger(started.start, started.step)
    fresh.restore(state, folder, "bench@0")
    started.step(fresh.step)
    resume, resume_cpu = time.perf_counter() - began, time.process_time() - spent
    times = {"start": start, "start, CPU": start_cpu, "resume": resume, "resume, CPU": resume_cpu}
    return {"rows": len(started.split), **{name: seconds * 1e3 for name, seconds in times.items()}}


def child(*arguments: str) -> dict[str, float]:
    core = sorted(os.sched_getaffinity(0))[-1]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the sides in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2000, help="batches of 16 rows that each side delivers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, folder = options.side[0], Path(options.side[1])
        if name == "opening":
            print(json.dumps(opening(folder, 100_000, 8)))
        else:
            print(json.dumps(timed(name, folder, options.length, options.steps)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        packed, large = Path(temporary) / "packed", Path(temporary) / "large"
        packed.mkdir(), large.mkdir()
        for number in range(options.rows // SHARD):
            write(packed / f"{number:05d}.arrow", SHARD, options.length, number)
        write(large / "large.arrow", 100_000, 8, 0)
        size = ("--length", str(options.length), "--steps", str(options.steps))
        found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
        for number in range(options.runs):
            for name in SIDES if number % 2 == 0 else reversed(SIDES):
                found[name].append(child("--side", name, str(packed), *size))
        if len({run["said"] for runs in found.values() for run in runs}) != 1:
            sys.exit("the sides do not give the same tokens")
        opened = [child("--side", "opening", str(large)) for _ in range(options.runs)]
    speed = {name: statistics.median(run["tokens_per_second"] for run in runs) for name, runs in found.items()}
    for name in SIDES:
        ratio = speed["ours"] / speed[name]
        print(f"{name:<13} {speed[name] / 1e6:8.1f} Mtok a CPU second; ours is {ratio:.2f} times as fast")
    for name in ("start", "start, CPU", "resume", "resume, CPU"):
        values = [run[name] for run in opened]
        middle, rows = statistics.median(values), opened[0]["rows"]
        print(f"{name:<13} {middle:8.1f} ms at {rows:,} rows, {max(values):.1f} at the most")


if __name__ == "__main__":
    main()
