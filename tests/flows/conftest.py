"""What the tests of the front door share: a small corpus with its recipe, a store built from it, verbs to run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows import embedded, process
from flows.cli import app
from tests import builds
from tests.conftest import ROOT

RECIPE = """
name = "small"
seed = 5
sources = ["grain.toml"]
[[stage]]
use = "normalise"
[[stage]]
use = "gopher"
drop.word_count = {below = 20}
[[stage]]
use = "exact"
drop.dup_rank = {above = 0}
[[stage]]
use = "near"
drop.dup_rank = {above = 0}
[tokens]
vocab_size = 400
sample = "1MB"
[pack]
length = 64
split = {val = 0.1}
"""
FAKE = (str(Path(__file__).with_name("fake_trainer.py")),)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, small.toml that builds it, and a run file of the same name in runs/."""
    folder = builds.write_corpus(tmp_path_factory.mktemp("corpus"))
    (folder / "small.toml").write_text(RECIPE, "utf-8")
    (folder / "runs").mkdir()
    (folder / "runs" / "small.toml").write_text('name = "small"\n', "utf-8")
    return folder


@pytest.fixture(scope="session")
def gristmill() -> Callable[..., Result]:
    """Runs a verb in this process and holds it to an exit code; options are given as on a command line."""

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == code, f"{arguments}\n{result.stdout}\n{result.stderr}\n{result.exception!r}"
        if code:
            assert code == 130 or "Traceback" not in result.stderr
        return result

    return run


def last(result: Result) -> Any:
    """The object that --json leaves on the last line of stdout."""
    return last_line(result.stdout)


def last_line(stdout: str) -> Any:
    return json.loads(stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def built(corpus: Path, gristmill: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(store, what `build --direct --json` said). Tests that damage it put it right again."""
    store = tmp_path_factory.mktemp("store")
    return store, last(
        gristmill("build", corpus / "small.toml", "--store", store, "--workers", 1, "--direct", "--json")
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training is done by the fake trainer."""
    monkeypatch.setattr(process, "TRAINER", FAKE)


@pytest.fixture(scope="session")
def server() -> Iterator[dict[str, str]]:
    """One Prefect server for all tests; yields the settings under which a client finds it."""
    embedded.quiet()
    with embedded.server() as (settings, ready):
        ready()
        yield settings


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own, with no Prefect configured but by `environment`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "GRISTMILL_STORE"))}
    return subprocess.run(
        [sys.executable, "-m", "flows", *map(str, arguments)],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def processes() -> dict[int, tuple[str, int]]:
    """Every living process: its command line and its process group."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, process_group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
            if state != "Z":
                found[int(path.name)] = ((path / "cmdline").read_text().replace("\0", " "), int(process_group))
    return found


def gone(pid: int) -> bool:
    return pid not in processes()


def group(leader: int) -> list[str]:
    """Command lines of the processes of a group."""
    return [line for line, process_group in processes().values() if process_group == leader]


def left(folder: Path) -> list[str]:
    """What is left of the embedded servers of commands that have `folder` as TMPDIR: processes and homes."""
    running = [line for line, _ in processes().values() if "flows.server" in line and str(folder) in line]
    return running + [path.name for path in folder.glob("gristmill-prefect-*")]
