"""Who may import whom: the directions of dependence, read from the syntax of every module, so that nothing is executed.

catalogs (data)  <-  pipeline  <-  flows  ->  (process)  training
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

HOUSES = ("pipeline", "training", "flows", "catalogs")
FORBIDDEN = {
    "pipeline": {"torch", "prefect", "training", "flows", "transformers"},
    "training": {"pipeline", "flows", "prefect", "datasets", "catalogs"},
    "flows": {"torch", "training", "transformers", "datasets"},
    "catalogs": {"pipeline", "training", "flows"},
}


def modules(house: str) -> list[Path]:
    return sorted((ROOT / house).rglob("*.py"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Top-level names of everything imported, anywhere in a module: also inside functions, and by name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value.split(".")[0]


def _called(function: ast.expr) -> str:
    return getattr(function, "attr", None) or getattr(function, "id", "")


def broken(house: str, source: str) -> set[str]:
    return FORBIDDEN[house] & set(imports(ast.parse(source)))


@pytest.mark.parametrize("house", HOUSES)
def test_a_house_imports_only_what_it_may(house):
    found = {str(path.relative_to(ROOT)): broken(house, path.read_text("utf-8")) for path in modules(house)}
    assert len(found) >= 1 and {path: names for path, names in found.items() if names} == {}


def test_only_the_front_door_imports_prefect():
    for house in HOUSES:
        users = [path for path in modules(house) if "prefect" in imports(ast.parse(path.read_text("utf-8")))]
        assert bool(users) == (house == "flows"), house


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn",
        "from torch import nn",
        "def f():\n    import torch",
        "import importlib\nimportlib.import_module('torch.nn')",
        "__import__('torch')",
    ],
)
def test_the_reader_of_imports_sees_every_way_to_import(source):
    assert broken("flows", source) == {"torch"}
