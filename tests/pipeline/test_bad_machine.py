"""Law 11, loud, when it is the machine: a full disk, a killed worker, no memory, no model."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import store as stores
from pipeline import tasks
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.models import ModelError
from pipeline.runner import WorkerLost
from pipeline.store import Store, StoreError
from tests import builds

ROOT = Path(__file__).parents[2]
PLAIN = [{"use": "normalise"}, {"use": "exact", "drop": {"dup_rank": {"above": 0}}}]


@pytest.fixture
def corpus(tmp_path) -> Path:
    return builds.write_corpus(tmp_path / "corpus", documents=120)


LIMITED = """
import resource, sys
from pathlib import Path
from tests import builds
from pipeline.stage import ConfigError
recipe = builds.make_recipe(Path(sys.argv[1]), [{"use": "normalise"}])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    builds.build(recipe, Path(sys.argv[2]), count=int(sys.argv[4]), partition_bytes=20_000)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("size", "workers"), [(200, 1), (9_000, 2), (13_900, 1), (20_000, 1)])
def test_a_file_that_the_disk_will_not_take_is_a_clear_error(corpus, tmp_path, size, workers):
    """The operating system itself refuses, at another file for each size: nothing half-written is left, and when
    there is room the build goes on to the same version."""
    command = [sys.executable, "-c", LIMITED, str(corpus), str(tmp_path / "store"), str(size), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True).stdout
    assert out.startswith(f"StoreError cannot write to {tmp_path / 'store'}: File too large; make room there"), out
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".")]
    recipe = builds.make_recipe(corpus, [{"use": "normalise"}])
    again = builds.build(recipe, tmp_path / "store", partition_bytes=20_000)
    assert again.manifest == builds.build(recipe, tmp_path / "other").manifest


@pytest.mark.parametrize("number", [1, 5, 18, 30])
def test_a_disk_that_fills_up_is_a_clear_error(corpus, tmp_path, monkeypatch, number):
    """The n-th flush says that there is no space left."""
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(stores.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device; make room there and run the same command again"):
        builds.build(builds.make_recipe(corpus), tmp_path / "store")
    monkeypatch.undo()
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".")]
    again = builds.build(builds.make_recipe(corpus), tmp_path / "store")
    assert audit(again, Store(tmp_path / "store")).problems == []


CUTS: list[dict[str, Any]] = [{"use": "paragraphs", "min_characters": 1}, {"use": "substring", "length": 8}]
NEAR = {"use": "near", "drop": {"dup_rank": {"above": 0}}}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *((NEAR, name) for name in ("sketches", "bands", "candidates", "pairs", "sets", "dealt")),
        *((CUTS[0], name) for name in ("hashes", "spans")),
        *((CUTS[1], name) for name in ("anchors", "marks", "hashes", "spans")),
    ],
    ids=lambda value: value if isinstance(value, str) else value["use"],
)
def test_a_disk_that_fills_up_in_the_middle_of_dedup(corpus, tmp_path, monkeypatch, stage, name):
    """The operating system takes no byte of what `name` puts aside; what was done before is not done again."""
    recipe = builds.make_recipe(corpus, [{"use": "normalise"}, stage])
    settings: dict[str, Any] = {"partition_bytes": 3_000, "memory": 1}
    full = fill_up(monkeypatch, f"{name}-")
    with pytest.raises(StoreError) as error:
        builds.build(recipe, tmp_path / "store", **settings)
    assert full and str(error.value) == (
        f"cannot write to {tmp_path / 'store'}: No space left on device; make room there and run the same command "
        "again: what is finished is kept, nothing half-written is left"
    )
    assert not [path for path in (tmp_path / "store").rglob("*") if path.name.startswith(".") or path.name == "spill"]
    monkeypatch.undo()
    done = {path.parent.name for path in (tmp_path / "store" / "store").glob("*/*/_done.json")}
    begun = []
    for kind, task in tasks.KINDS.items():
        monkeypatch.setitem(tasks.KINDS, kind, lambda *given, do=task: begun.append(given[2].folder.name) or do(*given))
    again = builds.build(recipe, tmp_path / "store", **settings)
    assert len(done) > 4 and len(begun) > 3 and not [folder for folder in begun if folder.split(".")[1] in done]
    monkeypatch.undo()
    assert again.manifest == builds.build(recipe, tmp_path / "other", partition_bytes=3_000).manifest


def fill_up(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Path]:
    """Whatever is put aside in a file that begins so goes to /dev/full; returns the files that were asked for."""
    asked: list[Path] = []
    opened = Path.open

    def full(path: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        if path.parent.name == "spill" and path.name.startswith(name) and mode == "ab":
            asked.append(path)
            return opened(Path("/dev/full"), mode, *given, **named)
        return opened(path, mode, *given, **named)

    monkeypatch.setattr(Path, "open", full)
    return asked


STAGE = '''
import os, signal
from pathlib import Path
import pyarrow as pa
from pipeline.models import ModelError
from pipeline.stage import measure

@measure(n="int32")
def grim(batch, *, flag: str, how: str):
    """Measure nothing of interest; while the file `flag` is there, fail as `how` says on the document of row 3."""
    if Path(flag).exists() and any(i.endswith("d.jsonl:3") for i in batch["doc_id"].to_pylist()):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise {"memory": MemoryError, "file": FileNotFoundError, "model": ModelError, "text": ValueError}[how]("gone")
    return {"n": pa.array([1] * batch.num_rows, pa.int32())}
'''


@pytest.fixture
def grim(tmp_path, monkeypatch) -> Any:
    """Somebody's own stage, beside the checkout; its flag is up."""
    (tmp_path / "mine" / "reapers").mkdir(parents=True)
    (tmp_path / "mine" / "reapers" / "grim.py").write_text(STAGE)
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    for name in ("reapers", "reapers.grim"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    flag = tmp_path / "flag"
    flag.touch()
    return lambda how: [{"use": "reapers.grim", "flag": str(flag), "how": how}, *PLAIN]


def test_a_worker_killed_in_the_middle_says_what_to_do(corpus, tmp_path, grim):
    recipe = builds.make_recipe(corpus, grim("kill"))
    with pytest.raises(WorkerLost, match=r"a worker died during .*: run the same command again, with fewer --workers"):
        builds.build(recipe, tmp_path / "store", count=2, partition_bytes=4_000)
    (tmp_path / "flag").unlink()
    again = builds.build(recipe, tmp_path / "store", partition_bytes=4_000)
    assert again.manifest == builds.build(recipe, tmp_path / "other").manifest


@pytest.mark.parametrize(
    ("how", "error", "workers"),
    [("memory", MemoryError, 1), ("file", OSError, 1), ("model", ModelError, 1), ("model", ModelError, 2)],
)
def test_what_is_wrong_with_the_machine_is_no_fault_of_a_document(corpus, tmp_path, grim, how, error, workers):
    """Quarantined, a missing model would cost the whole corpus and call it a result."""
    with pytest.raises(error, match="gone"):
        builds.build(builds.make_recipe(corpus, grim(how)), tmp_path / "store", count=workers, partition_bytes=4_000)


def test_what_is_wrong_with_a_document_costs_that_document_alone(corpus, tmp_path, grim):
    version = builds.build(builds.make_recipe(corpus, grim("text")), tmp_path / "store", partition_bytes=4_000)
    found = queries.why(Store(tmp_path / "store"), version, "grain:d.jsonl:3")
    assert (found.verdict, found.stage, found.reason, found.detail) == ("quarantined", "grim", "ValueError", "gone")
    assert audit(version, Store(tmp_path / "store")).counts["quarantined"] == 4
