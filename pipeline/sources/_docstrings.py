"""The documentation of one Python module as text, by its syntax tree: nothing is imported, nothing is executed.

The form is that of a reference page: the module's name and docstring, then each documented class, method and
function as `Class.method(arguments)` with its docstring below. Functions inside functions are no documentation.

The number that matters: MB of source parsed in a second (6.5 on one core with the garbage collector held, 3 with it
running, since a syntax tree is a million objects and no cycle).
"""

from __future__ import annotations

import ast
import gc
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def document(source: bytes, module: str) -> str | None:
    """The text of a module's documentation; None where it has none.

    Raises SyntaxError, ValueError, RecursionError or MemoryError for source that this Python cannot parse.
    """
    with _quiet():
        title, *entries = _texts(source)
    return "\n\n".join(filter(None, [module, title, *entries])) + "\n" if title or entries else None


def entries(source: bytes) -> list[str]:
    """The module's docstring and each documented class, method and function, as a text of its own; the module's name
    is in none. Raises what `document` raises."""
    with _quiet():
        return list(filter(None, _texts(source)))


def _texts(source: bytes) -> list[str]:
    """The module's docstring (empty if none) and its entries. The tree is gone on return, before collection goes on."""
    tree = ast.parse(source)
    return [_docstring(tree), *_entries(tree)]


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection (reference counts free a tree) and no warnings about escapes in other people's strings."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()


def _entries(tree: ast.Module) -> Iterator[str]:
    """Documented classes and functions in the order of the source, those under `if`, `try` and `with` too."""
    todo: list[tuple[ast.stmt, str]] = [(node, "") for node in reversed(tree.body)]
    while todo:
        node, outer = todo.pop()
        if isinstance(node, _Documented):
            if text := _docstring(node):
                yield f"{_title(node, outer)}\n{text}"
            if isinstance(node, ast.ClassDef):
                todo += [(child, f"{outer}{node.name}.") for child in reversed(node.body)]
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.For | ast.While):
            todo += [(child, outer) for child in reversed(list(_inside(node)))]


def _inside(node: ast.stmt) -> Iterator[ast.stmt]:
    for name in ("body", "handlers", "orelse", "finalbody"):
        for child in getattr(node, name, []):
            if isinstance(child, ast.ExceptHandler):
                yield from child.body
            else:
                yield child


def _docstring(node: ast.Module | _Documented) -> str:
    first = node.body[0].value if node.body and isinstance(node.body[0], ast.Expr) else None
    text = first.value if isinstance(first, ast.Constant) else None
    return inspect.cleandoc(text).strip() if isinstance(text, str) else ""


def _title(node: _Documented, outer: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(_source, node.bases))
        return f"class {outer}{node.name}" + (f"({bases})" if bases else "")
    if any(isinstance(d, ast.Name) and d.id in ("property", "cached_property") for d in node.decorator_list):
        return f"{outer}{node.name}"
    return f"{outer}{node.name}({_arguments(node.args, bool(outer))})"


def _arguments(args: ast.arguments, method: bool) -> str:
    """`a, b=1, *, c=None` without annotations, and without the `self` or `cls` of a method."""
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    words = [_argument(a, d) for a, d in zip(plain, defaults, strict=True)]
    if args.posonlyargs:
        words.insert(len(args.posonlyargs), "/")
    if method and words and words[0] in ("self", "cls"):
        words = words[2:] if words[1:2] == ["/"] else words[1:]
    if args.vararg or args.kwonlyargs:
        words.append(f"*{args.vararg.arg}" if args.vararg else "*")
    words += [_argument(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return ", ".join([*words, f"**{args.kwarg.arg}"] if args.kwarg else words)


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return argument.arg if default is None else f"{argument.arg}={_source(default)}"


def _source(node: ast.expr) -> str:
    """An expression as it is written; the frequent ones without the cost of ast.unparse."""
    if isinstance(node, ast.Constant) and node.value is not ...:
        return repr(node.value)
    return node.id if isinstance(node, ast.Name) else ast.unparse(node)
