"""Small runs over a version made by hand."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tests.conftest import ROOT
from tests.training.versions import make_version
from training import checkpoint, config, journal, loop, mix, outcome, sizes
from training.journal import Journal
from training.parallel import joined
from training.progress import Silent
from training.stop import Stop

WORDS = "the mill wheel turns with water from that river and grinds grain into flour while people wait".split()
RUN = """
name = "small"
seed = 3
[model]
family = "gpt"
layers = 2
width = 32
heads = 2
[batch]
rows = 6
micro_rows = 2
[optimizer]
learning_rate = 0.01
[schedule]
steps = 12
warmup = 2
decay = 4
[evaluation]
every = 5
rows = 8
[checkpoint]
every = 4
[samples]
documents = 2
prompt_tokens = 4
new_tokens = 6
[precision]
threads = 1
"""


def version(folder: Path, **settings: Any) -> Path:
    """A version of 300 short documents in two sources and three languages, labelled by their first word; as examples
    one in seven has no label, and the target of each is its text without every other word."""
    documents = []
    for i in range(300):
        words = [WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(8 + i % 17)]
        languages = ("en", "zh", None)
        documents.append({"text": " ".join(words), "source": "ab"[i % 2], "language": languages[i % 3]})
        if settings.get("layout") == "examples":
            label = ("zero", "one", "two")[words[0] > "mill" and 1 + (words[0] > "that")]
            documents[-1] |= {"label": None if i % 7 == 3 else label, "target": " ".join(words[::2])}
    return make_version(folder, documents, **settings)


def write_run(folder: Path, text: str = RUN) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.toml").write_text(text, "utf-8")
    return folder / "small.toml"


class StopAt(Stop):
    """Asks to stop after so many questions whether it does."""

    def __init__(self, after: int) -> None:
        self.left = after

    @property
    def asked(self) -> bool:  # type: ignore[override]
        self.left -= 1
        return self.left <= 0


def fit(
    run: Path, manifest: Path | list[Path], runs: Path, *, after: int | None = None, changes: tuple[str, ...] = ()
) -> Journal:
    """Train in this process, at most `after` steps from where it stands, and conclude when that is all."""
    settings = config.load(run, changes)
    with joined(settings.precision, settings.parallel) as group:
        manifests = manifest if isinstance(manifest, list) else [manifest]
        settings, read = mix.opened(settings, manifests, run.parent, verify=True)
        settings = sizes.filled(settings, read)
        books = journal.start(runs, settings, read, None, group)
        stop = StopAt(after or 10**9)
        with books.kept() if group.first else contextlib.nullcontext():
            trained, whole = loop.train(settings, read, books, group, Silent(), stop)
            if whole:
                outcome.conclude(settings, read, books, trained, group, Silent())
    return books


def command(processes: int, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """`training` as a process of its own, under torchrun when several."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "training"]
    start = ["-m", "training"] if processes == 1 else start
    done = subprocess.run(
        [sys.executable, "-P", *start, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


def several(
    processes: int,
    run: Path,
    manifest: Path,
    runs: Path,
    *,
    after: int | None = None,
    changes: tuple[str, ...] = (),
    restarts: int = 0,
    kill_at: int | None = None,
) -> Journal:
    """`fit` in several processes; with `kill_at` one of them dies before that 0-based step, once."""
    asked = {"run": str(run), "manifest": str(manifest), "runs": str(runs), "after": after, "kill_at": kill_at}
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start += ["--max-restarts", str(restarts), "-m", "tests.training.worker", json.dumps({**asked, "changes": changes})]
    done = subprocess.run(
        [sys.executable, "-P", *start],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [folder] = runs.iterdir()
    return Journal(folder, state(folder, "run.json"))


def losses(books: Journal) -> list[float]:
    return [entry["loss"] for entry in books.entries("step")]


def state(folder: Path, name: str = "state.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text("utf-8"))
    return found


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, whole."""
    found = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in checkpoint.contents(path).items()}
    checkpoint.read(path, found)
    return found
