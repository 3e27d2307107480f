"""The code digest: a comment is not a new key, a changed kernel is, however it was imported."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import digests, stage

THING = '''
from pipeline.stage import measure
from . import helper
from ..deep.kernel import grind
import json, numpy

@measure(n="int32")
def thing(batch, *, size: int = 3):
    """Count."""
    return grind()
'''
MODULES = {
    "mill/__init__.py": "",
    "mill/stages/__init__.py": "",
    "mill/stages/thing.py": THING,
    "mill/stages/helper.py": "import mill.deep.other\ndef help():\n    return 1\n",
    "mill/deep/__init__.py": "",
    "mill/deep/kernel.py": 'def grind():\n    """Grind."""\n    return 1\n',
    "mill/deep/other.py": "WEIGHT = 1\n",
    "mill/deep/unused.py": "NOTHING = 1\n",
}


@pytest.fixture
def mill(tmp_path, monkeypatch) -> Any:
    """Somebody's package; calling it with changed files gives the digest of its stage."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(changes: dict[str, str] | None = None) -> str:
        for name, text in {**MODULES, **(changes or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in [name for name in sys.modules if name.split(".")[0] == "mill"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        digests.source_digest.cache_clear()
        return stage.load("mill.stages.thing", {}).code

    yield digest
    digests.source_digest.cache_clear()


@pytest.mark.parametrize(
    "name", ["mill/stages/thing.py", "mill/stages/helper.py", "mill/deep/kernel.py", "mill/deep/other.py"]
)
def test_changed_code_is_a_new_key_however_it_was_imported(mill, name):
    before = mill()
    assert mill({name: MODULES[name] + "LATER = 1\n"}) != before == mill()


def test_comments_docstrings_layout_and_what_is_not_imported_are_no_new_key(mill):
    before = mill()
    thing = (
        MODULES["mill/stages/thing.py"].replace('"""Count."""', '"""Count with care."""').replace("\n@", "\n\n# why\n@")
    )
    assert mill({"mill/stages/thing.py": thing}) == before
    assert mill({"mill/deep/unused.py": "NOTHING = 2\n"}) == before


def test_the_mills_own_kernels_count_for_a_stage_that_uses_them(mill, monkeypatch):
    """As if the file of `pipeline.kernels.random` had another body."""
    uses = "from pipeline.kernels import random\n" + MODULES["mill/stages/thing.py"]
    before, code = mill({"mill/stages/thing.py": uses}), digests._code

    def changed(module: str, examples: bool) -> Any:
        found = code(module, examples)
        return found and (found[0] + "!" * (module == "pipeline.kernels.random"), found[1])

    monkeypatch.setattr(digests, "_code", changed)
    assert mill({"mill/stages/thing.py": uses}) != before


def test_versions_of_other_packages_count(mill, monkeypatch):
    before, version = mill(), digests._package_version
    monkeypatch.setattr(digests, "_package_version", lambda name: version(name) + "!" * (name == "numpy"))
    assert mill() != before


def test_parameters_are_checked_against_the_signature(mill):
    mill()
    assert stage.load("mill.stages.thing", {"size": 5}).params == {"size": 5}
    for params, said in (
        ({"sise": 5}, "did you mean 'size'"),
        ({"size": "5"}, "parameter 'size'"),
        ({"size": 5.5}, "size"),
    ):
        with pytest.raises(stage.ConfigError, match=said):
            stage.load("mill.stages.thing", params, "r.toml stage 1")


def test_a_package_of_several_modules_is_followed_from_its_init(tmp_path, monkeypatch):
    """Relative imports of a package's own file start at the package, not above it."""
    (tmp_path / "grist").mkdir()
    (tmp_path / "grist" / "part.py").write_text("A = 1\n")
    path = tmp_path / "grist" / "__init__.py"
    path.write_text("from .part import A\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = digests.source_digest("grist")
    Path(tmp_path / "grist" / "part.py").write_text("A = 2\n")
    digests.source_digest.cache_clear()
    assert digests.source_digest("grist") != before
