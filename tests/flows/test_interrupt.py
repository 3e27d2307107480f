"""Ctrl-C and kill in the middle of a build: exit code 130, no worker, server or half of a file left, and on it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import guard
from tests.conftest import ROOT
from tests.flows.conftest import RECIPE, command, group, left, until

SLOW_STAGE = """
import time
from pathlib import Path
from pipeline.stage import measure

@measure(length="int64")
def slow(batch):
    while Path({gate!r}).exists() and not batch["doc_id"][0].as_py().startswith("canary:"):
        time.sleep(.05)
    import pyarrow.compute as pc
    return {{"length": pc.utf8_length(batch["text"]).cast("int64")}}
"""
STOPPED = "stopped: what is finished is kept; run the same command again to go on\n"


@pytest.fixture
def slow(corpus, tmp_path) -> tuple[list[object], dict[str, str]]:
    """Arguments and environment of a build with a stage of somebody's own, which waits while `gate` exists."""
    (tmp_path / "gate").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "slow.py").write_text(SLOW_STAGE.format(gate=str(tmp_path / "gate")))
    text = RECIPE.replace('use = "gopher"\ndrop.word_count = {below = 20}', 'use = "mine.slow"')
    (tmp_path / "slow.toml").write_text(text.replace("grain.toml", str(corpus / "grain.toml")))
    arguments = ["build", tmp_path / "slow.toml", "--store", tmp_path / "store", "--partition-size", "20KB"]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    (tmp_path / "temporary").mkdir()
    places = {"PREFECT_PROFILES_PATH": str(tmp_path / "none.toml"), "TMPDIR": str(tmp_path / "temporary")}
    return arguments, {"PYTHONPATH": path, **places}


def half_written(store: Path) -> list[Path]:
    return list(store.glob("store/*/.*"))


@pytest.mark.parametrize(
    ("number", "options"),
    [
        (signal.SIGINT, ["--workers", 2, "--direct"]),
        (signal.SIGTERM, ["--workers", 2, "--direct"]),
        pytest.param(signal.SIGINT, ["--workers", 1, "--direct"], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ["--workers", 2], marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, ["--workers", 2], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ["--workers", 1], marks=pytest.mark.slow),
    ],
    ids=["ctrl-c", "kill", "ctrl-c-one", "prefect-ctrl-c", "prefect-kill", "prefect-ctrl-c-one"],
)
def test_a_stopped_build_leaves_nothing_behind_and_goes_on(slow, tmp_path, number, options):
    arguments, environment = slow
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    child = subprocess.Popen(
        [sys.executable, "-m", "flows", *map(str, [*arguments, *options])],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    until(lambda: len(half_written(tmp_path / "store")) >= options[1] or child.poll() is not None)
    # A terminal tells the whole group, `kill` the one process.
    (os.killpg if number == signal.SIGINT else os.kill)(child.pid, number)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, ""), err
    assert err.endswith(STOPPED) and "Traceback" not in err and err.count("\n") <= 4
    assert half_written(tmp_path / "store") == []
    until(lambda: group(child.pid) == [] and left(tmp_path / "temporary") == [], 5)
    (tmp_path / "gate").unlink()
    done = command(*arguments, "--direct", **environment)
    assert done.returncode == 0 and "small@" in done.stdout, done.stderr


def test_a_ctrl_c_that_falls_into_a_finaliser_is_not_lost(monkeypatch):
    class Finalised:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", guard.again)
    with pytest.raises(KeyboardInterrupt):
        Finalised()
        time.sleep(5)


def test_a_ctrl_c_while_pyarrow_looks_for_pandas_is_heard_afterwards():
    """In a process of its own: pyarrow looks once."""
    code = """
import os, signal, sys
from flows import guard
class Looking:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            os.kill(os.getpid(), signal.SIGINT)
        return None
sys.meta_path.insert(0, Looking())
try:
    guard.settle()
except KeyboardInterrupt:
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == 7
