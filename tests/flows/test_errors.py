"""A mistake is one sentence and exit code 2, what is wrong is 1, what was stopped 130; only a bug has a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import errors, parameters
from tests.conftest import ROOT
from tests.flows.conftest import RECIPE

MISTAKES = [
    (("build", "nope"), r"unknown recipe 'nope'"),
    (("build", "{corpus}/nope.toml"), r"nope.toml: no such recipe"),
    (("build", "{tmp}/typo.toml"), r"typo.toml stage 2: unknown stage 'gofer'; did you mean 'gopher'?"),
    (("build", "{tmp}/empty.toml"), r"grain.toml"),
    (("build", "{corpus}/small.toml", "--partition-size", "3 potatoes"), r"--partition-size: '3 potatoes' is no size"),
    (("train", "nope"), r"unknown run 'nope'"),
    (("train", "{tmp}/nameless.toml"), r"nameless.toml: no name"),
    (("train", "{corpus}/runs/small.toml"), r"build it first (gristmill build small)"),
    (("train", "{corpus}/runs/small.toml", "--manifest", "other"), r"no version of 'other'"),
    (("train", "{corpus}/runs/small.toml", "--name", "../up"), r"name: String should match pattern"),
    (("show", "nope"), r"no version of 'nope'"),
    (("show", "nope@latest"), r"no version of 'nope'"),
    (("verify", "nope"), r"no version of 'nope'"),
    (("audit", "nope"), r"no version of 'nope'"),
    (("why", "a:b:1"), r"build one first"),
    (("deploy",), r"no Prefect API is configured: start a server with `prefect server start`"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda value: " ".join(value)[:40] if value else "")
def test_a_mistake_is_one_sentence_that_names_the_place(arguments, said, corpus, gristmill, tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "GRISTMILL_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    (tmp_path / "typo.toml").write_text(RECIPE.replace('"gopher"', '"gofer"'))
    (tmp_path / "grain.toml").write_text((corpus / "grain.toml").read_text())
    (tmp_path / "empty.toml").write_text(RECIPE)
    (tmp_path / "nameless.toml").write_text("seed = 1\n")
    given = [part.format(corpus=corpus, tmp=tmp_path) for part in arguments]
    direct = ["--direct"] if given[0] in ("build", "train") else []
    result = gristmill(*given, *direct, "--store", tmp_path / "store", code=2)
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ") and said in result.stderr


def test_an_unknown_document_or_option_is_a_mistake_too(built, gristmill):
    store, _ = built
    assert "never met a document 'grain:z:9'" in gristmill("why", "grain:z:9", "--store", store, code=2).stderr
    gristmill("build", "--workers", 0, code=2)
    said = gristmill("build", "--workers", 2, "--memory", "100MB", "--store", store, code=2).stderr
    assert "too few for 2 workers; the least that works is 760MB, or give fewer --workers" in said
    gristmill("build", "--no-such-option", code=2)
    gristmill("grind", code=2)


def test_what_the_trainer_refuses_breaks_or_stops_has_its_own_exit_code(built, corpus, gristmill, fake):
    store, _ = built
    run = ("train", corpus / "runs" / "small.toml", "--store", store, "--direct", "--set")
    refused = gristmill(*run, "fake.mode=refuse", code=2).stderr
    assert refused == "error: \\x1b[31mbatch.rows\\x1b[0m is 1 for 2 processes\n"
    stopped = gristmill(*run, "fake.mode=stopped", code=130).stderr
    assert "has a checkpoint; run the same command again to go on" in stopped
    broken = gristmill(*run, "fake.mode=crash", code=1).stderr
    assert (
        "  | RuntimeError: \\x1b[31mbroken\n" in broken and "error: the trainer ended with code 1; its log is" in broken
    )


def test_a_store_that_cannot_be_one_is_said_in_a_sentence(corpus, gristmill, tmp_path):
    (tmp_path / "file").write_text("")
    said = gristmill("build", corpus / "small.toml", "--store", tmp_path / "file", "--direct", code=1).stderr
    assert said.startswith("error: ") and "Not a directory" in said and str(tmp_path) in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_in_the_middle_of_dedup_is_said_in_a_sentence(corpus, gristmill, tmp_path, monkeypatch):
    """Where nothing can be held, what near puts aside goes to /dev/full; with room the same command goes on."""
    run = ("build", corpus / "small.toml", "--store", tmp_path / "store", "--direct", "--workers", 1)
    opened = Path.open

    def full(path: Path, *given: Any, **named: Any) -> Any:
        return opened(Path("/dev/full") if path.parent.name == "spill" else path, *given, **named)

    monkeypatch.setattr(parameters, "DEFAULT_MEMORY", 1)
    monkeypatch.setattr(Path, "open", full)
    said = gristmill(*run, code=1).stderr
    assert "error: cannot write to" in said and str(tmp_path / "store") in said
    assert "No space left on device; make room there and run the same command again: what is finished is kept" in said
    monkeypatch.undo()
    gristmill(*run)


def test_only_a_bug_is_shown_with_its_traceback_and_that_too_is_cleaned(capsys):
    assert errors.tell(KeyError("\x1b[31mred")) == 1
    said = capsys.readouterr().err
    assert "KeyError" in said and "\x1b" not in said
    assert errors.tell(KeyboardInterrupt()) == 130
    assert "run the same command again to go on" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(built):
    store, _ = built
    shell = f"{sys.executable} -m flows show small --store {store} | head -c 1"
    done = subprocess.run(shell, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "" and len(done.stdout) == 1
