"""What decides a key: canonical JSON of what is asked for, and the code that answers.

The law: a key knows what can change an output, and nothing else; no path, clock, host or comment.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

STAGE_MARKS = {"measure", "rewrite", "extend", "relate", "cut"}
EXAMPLES = "examples"


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8 kept as it is."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """32 hexadecimal characters over the canonical JSON of a value."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=16).hexdigest()


@functools.cache
def source_digest(module: str, examples: bool = False) -> str:
    """Digest of the code behind a module: its syntax tree, those of the modules of its own package and of this one
    that it imports, and the versions of third-party packages that they import.

    Docstrings and comments do not count: a comment is not a new key, a changed kernel is. Nor does what is imported for
    type checkers alone, nor a stage's `examples`, its documents for canaries, unless they are asked for.
    """
    followed = {module.split(".")[0], "pipeline"}
    seen: dict[str, str] = {}
    outside: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or (found := _code(name, examples)) is None:
            continue
        seen[name], names = found
        for imported in names:
            if imported.split(".")[0] in followed:
                todo.append(imported)
            elif imported.split(".")[0] not in sys.stdlib_module_names:
                outside.add(imported.split(".")[0])
    return digest([sorted(seen.items()), sorted((name, _package_version(name)) for name in outside)])


def _code(module: str, examples: bool) -> tuple[str, tuple[str, ...]] | None:
    """The syntax tree of a module, written out, and the names that it imports; None where there is no source."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    stat = Path(spec.origin).stat()
    package = spec.name if spec.submodule_search_locations else spec.parent or ""
    return _parsed(spec.origin, package, examples, stat.st_mtime_ns, stat.st_size)


@functools.cache
def _parsed(path: str, package: str, examples: bool, *state: int) -> tuple[str, tuple[str, ...]]:
    """What `_code` says of a file in this state: the stages of a recipe share most of their modules."""
    with Path(path).open(encoding="utf-8") as file:
        tree = ast.parse(file.read())
    tree.body = [node for node in tree.body if not _type_checking(node)]
    if not examples and _is_stage(tree):
        tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == EXAMPLES)]
    names = tuple(_imports(tree, package))
    _strip_docstrings(tree)
    return ast.dump(tree), names


def _type_checking(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:` without an else."""
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _is_stage(tree: ast.Module) -> bool:
    """Whether a module has a stage function, and nothing but the mill calls its `examples`."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    words = [ast.unparse(mark).partition("(")[0].rpartition(".")[2] for f in functions for mark in f.decorator_list]
    called = any(isinstance(node, ast.Name) and node.id == EXAMPLES for node in ast.walk(tree))
    return not called and not STAGE_MARKS.isdisjoint(words)


def _imports(tree: ast.Module, package: str) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _strip_docstrings(tree: ast.Module) -> None:
    documented = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()


@functools.cache
def _package_version(name: str) -> str:
    try:
        # Most distributions are named as what they hold; to look into all of them takes a sixth of a second.
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        pass
    for distribution in _distributions().get(name, []):
        return f"{distribution} {importlib.metadata.version(distribution)}"
    return "absent"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()
