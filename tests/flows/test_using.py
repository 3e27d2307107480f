"""`gristmill generate` and `gristmill serve`: the front door finds the model and goes on as the trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from flows import process, runs, using
from pipeline.stage import ConfigError
from tests.conftest import ROOT
from tests.training import exported
from tests.training import runs as trained


class Became(Exception):
    """The command that this process would have become."""


@pytest.fixture
def became(monkeypatch):
    def become(*arguments):
        raise Became(*arguments)

    monkeypatch.setattr(process, "become", become)

    def call(*rest, verb=using.generate):
        with pytest.raises(Became) as found:
            verb(list(rest))
        return list(found.value.args)

    return call


def test_a_run_is_found_by_its_name_and_any_model_by_its_folder(tmp_path, became, monkeypatch):
    run = tmp_path / "store" / "runs" / "mine"
    hf = tmp_path / "hf"
    for folder, file in ((run, "run.json"), (hf, "config.json"), (run / "checkpoints" / "step-9", "state.json")):
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    monkeypatch.setenv("GRISTMILL_STORE", str(tmp_path / "store"))
    assert became("mine", "--prompt", "a", "--greedy") == ["generate", str(run), "--prompt", "a", "--greedy"]
    assert became(str(hf), "--json") == ["generate", str(hf), "--json"]
    checkpoint = str(run / "checkpoints" / "step-9")
    assert became(checkpoint, verb=using.serve) == ["serve", checkpoint]
    monkeypatch.delenv("GRISTMILL_STORE")
    for store in (("--store", str(tmp_path / "store")), (f"--store={tmp_path / 'store'}",)):
        assert became("mine", *store, "--port", "1", verb=using.serve) == ["serve", str(run), "--port", "1"]
    assert became("mine", "-h") == became() == ["generate", "--help"]
    with pytest.raises(ConfigError, match="no run 'mine'; has: nothing"):
        using.generate(["mine", "--store", str(tmp_path)])
    with pytest.raises(
        ConfigError, match=r"the model comes first: gristmill generate MODEL \[OPTIONS\]; got '--greedy'"
    ):
        using.generate(["--greedy", "mine"])
    assert runs.usable(tmp_path / "store", "mine") == run


def gristmill(*arguments, **more):
    command = [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **more)


def test_the_trainer_speaks_for_itself(tmp_path):
    """Help, text, standard input and exit codes are its own."""
    place = exported.folder(tmp_path, "qwen3")
    options = ("--greedy", "--new-tokens", 5, "--json")
    said = [
        json.loads(gristmill("generate", place, *options, "--file", "-", input="the mill\n").stdout),
        json.loads(trained.command(1, "generate", str(place), *map(str, options), "--prompt", "the mill").stdout),
    ]
    assert said[0] == said[1] and len(said[0]["prompts"][0]["tokens"][0]) == 5
    refused = gristmill("generate", place, "--prompt", "the mill " * 200)
    assert refused.returncode == 2 and refused.stderr.startswith("error: the prompt has ")
    for verb, option in (("generate", "--min-p"), ("serve", "--max-body")):
        said_ = gristmill(verb, "--help").stdout
        assert option in said_ and f"gristmill {verb} mine" in said_
    unknown = gristmill("serve", "nowhere", "--store", tmp_path)
    assert unknown.returncode == 2 and unknown.stderr == "error: no run 'nowhere'; has: nothing\n"
