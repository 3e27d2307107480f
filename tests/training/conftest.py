"""A small version and a small run file, for every test of the trainer that asks for no other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.training import runs
from training.__main__ import main


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return runs.version(tmp_path_factory.mktemp("version") / "v")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def training(monkeypatch, capsys):
    """`python -m training ...` in this process: what it says on stdout, or on stderr where it ends with a code."""

    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
            raise SystemExit(0)
        found = capsys.readouterr()
        assert (ended.value.code or 0) == code, found.err
        return found.err if code else found.out

    return call
