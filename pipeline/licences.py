"""Licences as SPDX expressions, and the rule of a recipe that says which may enter.

    [licence]
    allow = ["CC0-1.0", "CC-BY-*", "GPL-2.0-only WITH Classpath-exception-2.0"]
    deny = ["*-NC-*", "*-ND-*"]         # CC-BY-* takes in CC-BY-NC-4.0
    unknown = "drop"                    # or "keep": what becomes of a document whose licence nobody stated

An entry is one licence; `*` and `?` stand for any letters, and case does not matter. Of `A OR B` one side has to pass,
of `A AND B` both. `L WITH E` passes where `L` does, for an exception only adds to what may be done, or where the entry
names the exception; `L+` (or a later version) passes where `L` does. What `deny` names does not pass, whatever `allow`
says. Nobody stated a licence where there is none, or NOASSERTION or NONE. The law: an expression that cannot be read is
judged by nobody: in a recipe or a card it is an error, in a document it quarantines that document.

The grammar is that of SPDX 2.3, Annex D; the list of licences is the one of the package license-expression.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stage import ConfigError

UNKNOWN = "NOASSERTION"
NOBODY = ("", UNKNOWN, "NONE")
# SPDX sets no bound; the longest of a real distribution has some hundred characters, and what nests deeper than this
# may not be read within Python's own stack.
LONGEST = 1000
OWN = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+", re.IGNORECASE)
ENTRY = re.compile(r"[A-Za-z0-9.+*?:-]+( WITH [A-Za-z0-9.*?-]+)?", re.IGNORECASE)


class Unreadable(ValueError):
    """No SPDX expression; the message says why. `identifier` is one that is not on the list."""

    def __init__(self, message: str, identifier: str = "") -> None:
        super().__init__(message)
        self.identifier = identifier


@functools.cache
def _spdx() -> Any:
    """SPDX as license-expression knows it. Read in a tenth of a second, so only by who meets a licence."""
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@functools.cache
def _listed() -> dict[str, str]:
    """Identifiers of the SPDX list, exceptions too, as they are written; by their lower case."""
    return {key.lower(): key for key in _spdx().known_symbols if not OWN.fullmatch(key)}


def listed(exceptions: bool = False) -> tuple[str, ...]:
    """Licences of the SPDX list as they are written, or its exceptions."""
    known = _spdx().known_symbols
    return tuple(sorted(key for key in _listed().values() if known[key].is_exception == exceptions))


def is_unknown(expression: str | None) -> bool:
    """Whether nobody stated a licence."""
    return (expression or "").strip().upper() in NOBODY


@functools.lru_cache(1 << 14)
def parse(expression: str) -> Any:
    """The tree of an expression: what license-expression makes of it. Raises Unreadable."""
    from license_expression import ExpressionError, ExpressionParseError

    if len(expression) > LONGEST:
        raise Unreadable(f"it has {len(expression):,} characters, and at most {LONGEST:,} are read")
    try:
        tree = _spdx().parse(expression, validate=False, strict=True)
    except (ExpressionError, ExpressionParseError) as error:
        raise Unreadable(" ".join(str(error).split()) or "it has no such form") from error
    except RecursionError as error:
        raise Unreadable("its parentheses nest too deep") from error
    if tree is None:
        raise Unreadable("it is empty")
    for key in _keys(tree):
        _check_identifier(key)
    return tree


def named(expression: str) -> list[str]:
    """The identifiers of licences and exceptions in an expression, each once. Raises Unreadable."""
    return sorted({key.removesuffix("+") for key in _keys(parse(expression))})


def _keys(tree: Any) -> Iterator[str]:
    for leaf in tree.literals:
        yield from (leaf.license_symbol.key, leaf.exception_symbol.key) if _has_exception(leaf) else (leaf.key,)


def _has_exception(leaf: Any) -> bool:
    return hasattr(leaf, "exception_symbol")


def _check_identifier(key: str) -> None:
    if key.removesuffix("+").lower() not in _listed() and not OWN.fullmatch(key):
        raise Unreadable(f"{key[:80]!r} is no identifier of the SPDX list", key)


def check(expression: str, where: str) -> None:
    """Raise ConfigError where a card states what is no SPDX expression; `where` names file and key."""
    if is_unknown(expression):
        return
    try:
        parse(expression)
    except Unreadable as error:
        raise ConfigError(
            f"{where}: {expression[:200]!r} is no SPDX expression: {error}{_meant(error.identifier)}; write licences "
            f"of https://spdx.org/licenses, joined by AND, OR and WITH, your own as LicenseRef-NAME, and {UNKNOWN} "
            "where nobody states any"
        ) from error


def _meant(key: str) -> str:
    """What a person may have meant by an identifier that is not on the list. Takes milliseconds: not for documents."""
    plain = key.removesuffix("+").lower()
    near = [listed for listed in _listed() if plain and listed.startswith(f"{plain}-")]
    near += difflib.get_close_matches(plain, _listed(), n=1, cutoff=0.6)
    return f" (did you mean {_listed()[near[0]]!r}?)" if near else ""


def check_entry(entry: str, where: str) -> None:
    """Raise ConfigError where an entry of `allow` or `deny` is none, or no licence is called so."""
    if not ENTRY.fullmatch(entry):
        raise ConfigError(
            f"{where}: {entry[:200]!r} is no entry: each is one licence, with its exception if it has one, and * and ? "
            "for any letters; of licences joined by AND and OR every one is an entry of its own"
        )
    if is_unknown(entry):
        raise ConfigError(f'{where}: {entry!r} is no licence; say unknown = "keep" or "drop" of who states none')
    if "*" not in entry and "?" not in entry:
        check(entry, where)
        meant = str(parse(entry))
        # GPL alone is an old name of GPL-1.0-or-later; who denies it means the whole family.
        if meant.lower() != entry.lower() and not re.search(r"\d", entry):
            raise ConfigError(f"{where}: {entry!r} means {meant} alone; write that, or {entry}-* for all of them")
        return
    for part in re.split(" WITH ", entry, flags=re.IGNORECASE):
        if not part.lower().startswith(("licenseref-", "documentref-")) and not any(
            _matching((part,)).match(key) for key in _listed().values()
        ):
            raise ConfigError(f"{where}: no licence of the SPDX list is called {part!r}; see https://spdx.org/licenses")


def allowed(expression: str, allow: Sequence[str] | None, deny: Sequence[str] | None) -> bool | None:
    """Whether a document under an expression may enter; None where it cannot be read. Unknown ones pass here."""
    return _allowed(expression, None if allow is None else tuple(allow), tuple(deny or ()))


@functools.lru_cache(1 << 14)
def _allowed(expression: str, allow: tuple[str, ...] | None, deny: tuple[str, ...]) -> bool | None:
    if is_unknown(expression):
        return True
    try:
        return _holds(parse(expression), allow, deny)
    except Unreadable:
        return None


def _holds(tree: Any, allow: tuple[str, ...] | None, deny: tuple[str, ...]) -> bool:
    if isinstance(tree, _spdx().OR):
        return any(_holds(side, allow, deny) for side in tree.args)
    if isinstance(tree, _spdx().AND):
        return all(_holds(side, allow, deny) for side in tree.args)
    names = _names(tree)
    if deny and any(_matching(deny).match(name) for name in names):
        return False
    return allow is None or any(_matching(allow).match(name) for name in names)


def _names(leaf: Any) -> list[str]:
    """What an entry may call one licence: by its name, by that without `+`, and by both with the exception."""
    key = leaf.license_symbol.key if _has_exception(leaf) else leaf.key
    names = [key, *([key[:-1]] if key.endswith("+") else [])]
    return names + ([f"{name} WITH {leaf.exception_symbol.key}" for name in names] if _has_exception(leaf) else [])


@functools.cache
def _matching(entries: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for entries, matched whole and without regard to case; `GPL-2.0` is read as SPDX reads it."""
    words = ("".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in _canonical(entry)) for entry in entries)
    return re.compile(f"(?:{'|'.join(words)})$", re.IGNORECASE)


def _canonical(entry: str) -> str:
    if "*" in entry or "?" in entry:
        return entry
    try:
        return str(parse(entry))
    except Unreadable:
        return entry


def filled(column: pa.Array) -> pa.Array:
    """The licences of documents, as the rule reads them: NOASSERTION where nobody stated one."""
    plain = pc.utf8_trim_whitespace(column)
    nobody = pc.is_in(pc.utf8_upper(plain), pa.array(NOBODY, column.type))
    return pc.if_else(pc.or_kleene(nobody, pc.is_null(plain)), pa.scalar(UNKNOWN, column.type), plain)


def counted(summaries: Mapping[str, Any]) -> dict[str, int]:
    """Kept documents by licence, from a manifest's summaries; the commonest first."""
    found: Counter[str] = Counter()
    for entry in summaries["by_source"].values():
        for expression, documents in entry["licences"].items():
            found[UNKNOWN if is_unknown(expression) else expression] += documents
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def unlicensed(values: pa.ChunkedArray | pa.Array, bound: dict[str, Any]) -> pa.Array:
    """True where an expression may not enter under {"allow": .., "deny": ..}; null where it cannot be read."""
    coded = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    coded = coded.dictionary_encode()
    verdicts = [allowed(text, bound.get("allow"), bound.get("deny")) for text in coded.dictionary.to_pylist()]
    broken = [None if verdict is None else not verdict for verdict in verdicts]
    return pa.array(broken, pa.bool_()).take(coded.indices)


def worded(bound: dict[str, Any]) -> str:
    """A bound as the ledger gives it as a reason."""
    sides = [f"{word} {', '.join(bound[name])}" for name, word in (("allow", "not in"), ("deny", "in")) if bound[name]]
    return " or ".join(sides) or "not allowed"
