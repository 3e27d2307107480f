"""What a stage is: a plain function of one Arrow record batch, bound to checked parameters.

Its keyword-only parameters are its configuration; its decorator says what it may do:

    @measure(name="type", ...)   adds the signals it declares     batch -> {signal: array}
    @rewrite                     changes text                     batch -> batch, same ids in the same order
    @extend                      adds children with parent_id     batch -> batch, originals first and untouched
    @relate(name="type", ...)    measures across documents        sketch(batch), compare(...) and cluster(...)
    @cut                         relates, and says what to cut    sketch(batch), compare(...) and spans(...)

A relating stage is three functions. The decorated one gives the sketch of each document, columns of which one is
`digest` (binary(16), null where a document resembles nothing); its module has the others, with the same parameters:

    compare(sketches, texts, **params) -> pairs     `sketches` yields a table for each partition, with `part` and `row`;
                                                    texts(part, rows) gives the texts of those rows of a partition
    cluster(documents, pairs, **params) -> signals  `documents` has doc_id (ascending), `digest`, the sketch columns
                                                    that the module lists in CLUSTERED and the signals that its
                                                    `reads(**params)` names, of those who are still there

Where a version is extended, new documents are held against what is stored of the old ones, without their texts; a
stage that can do that has two functions more:

    compare_new(sketches, since, stored, **params) -> pairs         those of `compare` with a set of no partition before
                                                                    `since`; stored(part, rows) gives what its
                                                                    sketches have in a column `set`
    cluster_new(documents, pairs, before, **params) -> signals, ids `before` are the signals of those who were there,
                                                                    and stay; the ids are of those who bridge clusters

A `compare` or `compare_new` that has a keyword `workspace` is given a `limits.Workspace`: a folder of its own to spill
into, and the bytes that it may hold. What it returns must not depend on either.

A stage that measures offers documents that must and must not trip a rule over each of its columns, by a function
`examples(rule, limit, **params)` in its module (`pipeline.examples`); without it, its rules are reported as untested.

A parameter that is the path of a model or a list is a `given.File`: in keys and manifests it is its content's digest.

No stage drops a document: the rules of the recipe do, over measured columns, and the
runner keeps the books. The folder is the registry: `use = "gopher"` is
`pipeline/stages/gopher.py`, `use = "mypkg.stages.thing"` is anyone's.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import pyarrow as pa
from pydantic import ConfigDict, ValidationError, create_model

from pipeline import given
from pipeline.digests import source_digest
from pipeline.limits import Workspace
from pipeline.mistakes import ConfigError, suggest

Kind = Literal["measure", "rewrite", "extend", "relate"]
F = TypeVar("F", bound=Callable[..., Any])
# What is measured of every document that a cutting stage met: bytes and passages cut, and their share of its bytes.
CUT_SIGNALS = {"cut_bytes": "int64", "cut_spans": "int32", "cut_share": "float64"}


@dataclass(frozen=True)
class Stage:
    """A stage function bound to checked parameters."""

    use: str
    name: str
    kind: Kind
    function: Callable[..., Any]
    params: dict[str, Any]
    signals: dict[str, pa.DataType]
    cuts: bool = False

    def __call__(self, batch: pa.RecordBatch) -> Any:
        return self.function(batch, **self.params)

    @property
    def module(self) -> ModuleType:
        return sys.modules[self.function.__module__]

    @property
    def code(self) -> str:
        """Digest of the code behind the stage. Takes tens of milliseconds, so only who plans asks for it."""
        return source_digest(self.function.__module__)

    def compare(self, sketches: Iterator[pa.Table], texts: Callable[..., Any], workspace: Workspace) -> pa.Table:
        """The pairs of a relating stage, which is told its workspace if it has a parameter of that name."""
        function = self.module.compare
        return function(sketches, texts, **self.params, **_asked(function, workspace))

    @property
    def grows(self) -> bool:
        """Whether new documents can be held against what the stage stored of others: it has the two functions."""
        return all(hasattr(self.module, name) for name in ("compare_new", "cluster_new"))

    def compare_new(
        self, sketches: Iterator[pa.Table], since: int, stored: Callable[..., Any], workspace: Workspace
    ) -> pa.Table:
        """The pairs of a relating stage that are none of the partitions before `since`."""
        function = self.module.compare_new
        return function(sketches, since, stored, **self.params, **_asked(function, workspace))

    def cluster_new(self, documents: pa.Table, pairs: pa.Table, before: pa.Table) -> tuple[pa.Table, pa.Array]:
        """The signals of a relating stage where `before` stand, and the ids of the new documents that bridge."""
        return self.module.cluster_new(documents, pairs, before, **self.params)

    def cluster(self, documents: pa.Table, pairs: pa.Table) -> pa.Table:
        """The signals of a relating stage for `documents`: doc_id and the columns of `clustered` and `reads`."""
        return self.module.cluster(documents, pairs, **self.params)

    @property
    def clustered(self) -> list[str]:
        """The sketch columns that a relating stage's `cluster` reads: its digest, and what its module lists."""
        return ["digest", *getattr(self.module, "CLUSTERED", ())]

    @property
    def reads(self) -> list[str]:
        """Signals of the documents that a relating stage's `cluster` reads beside its sketch: its module's `reads`."""
        found: list[str] = getattr(self.module, "reads", lambda **params: [])(**self.params)
        return found

    @property
    def identity(self) -> dict[str, Any]:
        """What the stage contributes to a cache key: its code, its parameters and the files it reads.

        Raises ConfigError where a file that it is given is not there.
        """
        if said := given.missing(self.params, given.parameters(self.function), getattr(self.module, "MISSING", {})):
            raise ConfigError(f"stage {self.use}: {said}")
        resources = getattr(self.module, "resources", None)
        return {
            "use": self.use,
            "kind": self.kind,
            "params": self.params,
            "code": self.code,
            "resources": resources(**self.params) if resources else {},
        }


def _asked(function: Callable[..., Any], workspace: Workspace) -> dict[str, Workspace]:
    """The workspace by its keyword, if the function has one."""
    return {"workspace": workspace} if "workspace" in inspect.signature(function).parameters else {}


def measure(**signals: str) -> Callable[[F], F]:
    """Mark a function that adds the declared signals (name = Arrow type alias) to every document."""
    return _mark("measure", signals)


def rewrite(function: F) -> F:
    """Mark a function that changes text and nothing else."""
    return _mark("rewrite", {})(function)


def extend(function: F) -> F:
    """Mark a function that appends children, each with the parent_id of the document it was made from."""
    return _mark("extend", {})(function)


def relate(**signals: str) -> Callable[[F], F]:
    """Mark a sketch function whose module also has `compare` and `cluster`, which look across partitions."""
    return _mark("relate", signals)


def cut(function: F) -> F:
    """Mark a sketch function whose module also has `compare` and `spans`, which say what to cut (`pipeline.cuts`)."""
    function.stage_cuts = True  # type: ignore[attr-defined]
    return _mark("relate", CUT_SIGNALS)(function)


def _mark(kind: Kind, signals: Mapping[str, str]) -> Callable[[F], F]:
    def mark(function: F) -> F:
        function.stage_kind = kind  # type: ignore[attr-defined]
        function.stage_signals = {name: pa.type_for_alias(alias) for name, alias in signals.items()}  # type: ignore[attr-defined]
        return function

    return mark


def available(package: str = "pipeline.stages") -> list[str]:
    """Names of the modules in a folder that is its own registry."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__) if m.name[0] != "_")


def load(
    use: str, params: Mapping[str, Any], where: str = "", folder: Path | None = None, data: Path | None = None
) -> Stage:
    """Find the function that `use` names and check `params` against its signature.

    Files among them (`given.File`) are looked up from `folder`, where `{data}` is `data`.

    A module may have `check(**params)`, which raises ValueError for values that cannot be: a stage that found out by
    itself would have every document quarantined. It may have `columns(**params)`, the declared signals that it measures
    under these parameters: a rule about another one is then an error. Raises ConfigError with `where` in front, listing
    what exists.
    """
    function: Any = find(use, where)
    bound = check_params(function, params, f"{where} ({use})")
    for name in given.parameters(function):
        bound[name] = _named(bound[name], f"{where} ({use}): {name}", folder or Path(), data)
    module = sys.modules[function.__module__]
    try:
        getattr(module, "check", dict)(**bound)
    except ValueError as error:
        raise ConfigError(f"{where} ({use}): {error}") from error
    columns = module.columns(**bound) if hasattr(module, "columns") else function.stage_signals
    return Stage(
        use=use,
        name=use.rpartition(".")[2],
        kind=function.stage_kind,
        function=function,
        params=bound,
        signals={name: function.stage_signals[name] for name in columns},
        cuts=getattr(function, "stage_cuts", False),
    )


def _named(value: Any, where: str, folder: Path, data: Path | None) -> Any:
    """A file's path, or a list or table of them, by the digests of what is in them."""
    if isinstance(value, dict):
        return {name: _named(one, where, folder, data) for name, one in value.items()}
    if isinstance(value, list):
        return [_named(one, where, folder, data) for one in value]
    try:
        return value if value is None else given.named(value, folder, data)
    except (ConfigError, OSError) as error:
        raise ConfigError(f"{where}: {error}") from error


def find(use: str, where: str = "") -> Callable[..., Any]:
    """The stage function of a shipped stage (`gopher`) or of anyone's (`mypkg.stages.thing`)."""
    name, module = use.rpartition(".")[2], use if "." in use else f"pipeline.stages.{use}"
    if "." not in use and use not in available():
        raise ConfigError(f"{where}: unknown stage {use!r}{suggest(use, available())}")
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: stage {use!r} cannot be imported: {error}") from error
    if not hasattr(function, "stage_kind"):
        raise ConfigError(f"{where}: {module} has no stage function {name!r} (one marked by @measure, @rewrite, ...)")
    return function  # type: ignore[return-value]


def check_params(function: Callable[..., Any], params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Validate against the keyword-only signature of `function`; unknown or mistyped names are errors."""
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default)
        for p in inspect.signature(function, eval_str=True).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    if unknown := sorted(set(params) - set(fields)):
        raise ConfigError(f"{where}: unknown parameter {unknown[0]!r}{suggest(unknown[0], fields)}")
    model = create_model("Parameters", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        return model(**params).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: parameter {name!r}: {first['msg']} (got {first['input']!r})") from error
