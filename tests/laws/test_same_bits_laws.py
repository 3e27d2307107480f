"""Law 2, over a recipe with every stage that there is: the same version however the work is cut, moved and killed.

Two kills are in the suite. `pytest -m soak` does 20 (GRISTMILL_KILLS), at moments drawn from a seed that it says
(GRISTMILL_SEED), and writes down what each met: on the terminal, and into a file (GRISTMILL_LOG, or soak.log here).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.audit import audit
from pipeline.manifest import Version, verify
from pipeline.store import Store
from tests import builds, every_stage

ROOT = Path(__file__).resolve().parents[2]
BATCHES, WORKERS, SEEDS = (7, 1_000, 65_536), (1, 2, 4), ("1", "77")
# Each batch size, number of workers and hash seed is met; the rest of all eighteen is slow.
MET = {(7, 1, "1"), (1_000, 2, "77"), (65_536, 4, "1")}
FEW, MANY = 2, int(os.environ.get("GRISTMILL_KILLS", "20"))
# Many partitions, so that a kill falls between some that are done and some that are not.
FINE = 40_000
SCRIPT = """
import json, sys
from pathlib import Path
from tests import builds, every_stage
folder, store, settings = sys.argv[1:]
recipe = every_stage.read(Path(folder))
print("begins", flush=True)
print(builds.build(recipe, Path(store), **json.loads(settings)).manifest["version"], flush=True)
"""


@dataclass(frozen=True)
class Whole:
    """Corpus and recipe, the version that one worker makes of them, and of how many outputs when it is cut finely."""

    corpus: Path
    version: Version
    outputs: int


def start(corpus: Path, store: Path, hash_seed: str, **settings: Any) -> subprocess.Popen[str]:
    """A build in a process group of its own, at the moment at which it begins."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(corpus), str(store), json.dumps(settings)]
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "begins\n", process.stderr.read()
    return process


def outputs(store: Path) -> tuple[int, int]:
    """How many outputs stand in a store, and how many are half-written."""
    return len(list(store.glob("store/*/*/_done.json"))), len(list(store.glob("store/*/.*")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    corpus = tmp_path_factory.mktemp("corpus")
    recipe = every_stage.write(corpus, tmp_path_factory.mktemp("rules"))
    version = builds.build(recipe, tmp_path_factory.mktemp("store"))
    store = tmp_path_factory.mktemp("apart")
    process = start(corpus, store, "3", count=2, partition_bytes=FINE)
    out, err = process.communicate(timeout=300)
    assert out.strip() == version.manifest["version"], err
    return Whole(corpus, version, outputs(store)[0])


def test_no_stage_is_left_out_and_each_has_something_to_do(whole):
    counts = {row["stage"]: row for row in whole.version.manifest["accounting"]}
    stages = every_stage.in_order()
    assert set(counts) == {"source", "licence", *(stage.name for stage in stages)}
    for name in ("source", "exact", "near"):
        assert counts[name]["dropped"] + counts[name]["quarantined"], f"{name} found nothing"
    assert all(counts[stage.name]["added"] for stage in stages if stage.kind == "extend")
    store = Store(whole.version.folder.parents[2])
    cuts = [relate for part in whole.version.build_keys().segments for relate in part.relates if "cuts" in relate]
    assert [relate["stage"] for relate in cuts] == [stage.name for stage in stages if stage.cuts]
    assert all(store.result(relate["cuts"])["documents"] for relate in cuts)


def cases() -> list[Any]:
    every = itertools.product(BATCHES, WORKERS, SEEDS)
    return [pytest.param(*case, marks=[] if case in MET else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("batch_rows", "count", "hash_seed"), cases())
def test_same_bits_for_any_batch_workers_and_hash_seed(whole, tmp_path, batch_rows, count, hash_seed):
    """The bytes of the manifest are the same too: it says nothing of how it was made."""
    process = start(whole.corpus, tmp_path, hash_seed, batch_rows=batch_rows, count=count)
    out, err = process.communicate(timeout=300)
    assert out.strip() == whole.version.manifest["version"], err
    made = tmp_path / "versions" / "test" / out.strip() / "manifest.json"
    assert made.read_bytes() == (whole.version.folder / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"partition_bytes": 9_000},
        {"count": 2, "partition_bytes": 200_000, "apart": True},
        pytest.param({"count": 4, "partition_bytes": FINE, "batch_rows": 7}, marks=pytest.mark.slow),
        {"memory": 100_000, "partition_bytes": 200_000},
    ],
    ids=["partition", "processes", "together", "memory"],
)
def test_same_bits_however_the_work_is_cut(whole, tmp_path, settings):
    again = builds.build(every_stage.read(whole.corpus), tmp_path, **settings)
    assert (again.folder / "manifest.json").read_bytes() == (whole.version.folder / "manifest.json").read_bytes()


def test_a_store_that_was_moved_is_the_same_store(whole, tmp_path):
    """Audited and verified where it now lies, and nothing of it is made again."""
    old, new = tmp_path / "here", tmp_path / "there" / "deeper"
    builds.build(every_stage.read(whole.corpus), old, partition_bytes=FINE)
    new.parent.mkdir()
    old.rename(new)
    before = {path: path.stat().st_mtime_ns for path in new.glob("store/*/*/_done.json")}
    again = builds.build(every_stage.read(whole.corpus), new, count=2, partition_bytes=FINE)
    assert {path: path.stat().st_mtime_ns for path in new.glob("store/*/*/_done.json")} == before
    assert again.manifest == whole.version.manifest
    assert audit(again, Store(new)).problems == list(verify(again)) == []


def killed(whole: Whole, folder: Path, number: int, seed: int) -> Iterator[str]:
    """Kill a build at a random moment, go on with it elsewhere and otherwise; yields what to write down of it.

    A random number of outputs stand by then, so that no stage is met more often because it takes longer. The kill takes
    the process alone, whose workers then have to end by themselves, or its whole group.
    """
    draw = random.Random(f"{seed}:{number}")
    store, wanted, more = folder / "store", draw.randrange(whole.outputs), draw.uniform(0, 0.5)
    alone, apart, first, then = draw.random() < 0.5, draw.random() < 0.3, draw.choice([2, 4]), draw.choice([1, 2, 4])
    process = start(whole.corpus, store, draw.choice(SEEDS), count=first, apart=apart, partition_bytes=FINE)
    began = time.monotonic()
    while process.poll() is None and outputs(store)[0] < wanted:
        time.sleep(0.005)
    time.sleep(more)
    moment = time.monotonic() - began
    ended = process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
    process.communicate()
    stood, half = outputs(store)
    done = "sealed" if list(store.glob("versions/test/*/manifest.json")) else "not sealed"
    what = f"{'the process alone' if alone else 'its whole group'} of {first} {'processes' if apart else 'threads'}"
    late = " (too late: it had ended)" if ended else ""
    yield f"kill {number + 1:2}: {moment:6.3f} s after it began{late}, {more:.3f} s behind output {wanted}: {what}"
    yield f"         {stood} of {whole.outputs} outputs stood, {half} half-written; {done}"
    if moved := draw.random() < 0.5:
        if alone and apart:
            time.sleep(1)  # until orphaned workers have looked for their parent
        (folder / "elsewhere").mkdir(parents=True)
        store = store.rename(folder / "elsewhere" / "store") if store.exists() else folder / "elsewhere" / "store"
    again = builds.build(every_stage.read(whole.corpus), store, count=then, partition_bytes=FINE)
    report = audit(again, Store(store))
    problems = [*report.problems, *verify(again)]
    same = again.manifest == whole.version.manifest
    place = "moved, and " if moved else ""
    yield f"         {place}finished by {then}: {again.address}, {'the same' if same else 'ANOTHER'} manifest"
    yield f"         audit and verify: {'; '.join(problems) or f'{len(report.checks)} checks hold'}"
    assert same and problems == []
    assert not ended or done == "sealed"


@pytest.mark.parametrize("number", range(FEW))
def test_same_bits_after_a_kill_at_a_random_moment(whole, tmp_path, number):
    print("\n".join(killed(whole, tmp_path, number, seed=random.randrange(1 << 32))))


@pytest.mark.soak
def test_same_bits_after_many_kills(whole, tmp_path, capsys):
    seed = int(os.environ.get("GRISTMILL_SEED", random.randrange(1 << 32)))
    log = Path(os.environ.get("GRISTMILL_LOG", "soak.log"))
    said = [
        f"{MANY} kills by SIGKILL of a build of {len(every_stage.in_order())} stages, GRISTMILL_SEED={seed}",
        f"unharmed it makes {whole.version.address} of {whole.outputs} outputs",
    ]
    with log.open("w", encoding="utf-8") as file, capsys.disabled():
        kills = (line for n in range(MANY) for line in killed(whole, tmp_path / str(n), n, seed))
        for line in itertools.chain(said, kills):
            print(line, file=file, flush=True)
            print(line, flush=True)
