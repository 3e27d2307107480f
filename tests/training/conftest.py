"""A small version and a small run file, for every test of the trainer that asks for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import runs


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return runs.version(tmp_path_factory.mktemp("version") / "v")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"))
