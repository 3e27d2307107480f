"""Canaries of a recipe's [licence] table: licences that must and must not break its rules, entry by entry.

    unknown      who states no licence breaks it, who states one does not
    unlicensed   one licence that each entry of `allow` names and no entry of `deny` does must pass, one that each entry
                 of `deny` names must not, nor one that no entry of `allow` does; and joined by OR they pass, by AND not

What an entry names is said here once more, by `fnmatch` over the list of licences. The law: an entry that decides
nothing is no entry. So one of `allow` of which `deny` names all, and a table that lets everything in or nothing, are
dead.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pipeline import licences
from pipeline.rules import Rule

OWN = "LicenseRef-canary"


class Offered(NamedTuple):
    """Licences as documents state them: those that must break a rule, and those that must not."""

    trips: list[str | None]
    passes: list[str | None]


def examples(rule: Rule) -> Offered:
    """What must break a rule of a [licence] table, and what must not. Raises ValueError where an entry is dead."""
    if rule.operator == "unknown":
        return Offered([None, "", licences.UNKNOWN, "none "], ["MIT", f"{OWN} AND MIT"])
    allow, deny = (rule.bound.get(name) for name in ("allow", "deny"))
    passes = (
        [_first(entry, deny) for entry in allow] if allow else _some(name for name in _known() if _free(name, deny))
    )
    trips = [_first(entry, None) for entry in deny or ()]
    trips += _some(name for name in _known() if allow and not _named(name, allow))
    both = [(good, bad) for good in passes[:1] for bad in trips[:1]]
    passes += [f"{good} OR {bad}" for good, bad in both]
    trips += [f"{good} AND {bad}" for good, bad in both]
    return Offered([*trips], [*passes])


def _first(entry: str, deny: Sequence[str] | None) -> str:
    """A licence that an entry names and `deny` does not. Raises ValueError."""
    licence, _, exception = re.sub(" with ", " WITH ", entry, flags=re.IGNORECASE).partition(" WITH ")
    found = [f"{name} WITH {more}" for name in _matching(licence) for more in _matching(exception, True)[:1]]
    for name in found if exception else _matching(licence):
        if _free(name, deny):
            return name
    raise ValueError(f"{entry!r} of allow lets nothing in: deny names every licence that it does")


def _matching(pattern: str, exceptions: bool = False) -> list[str]:
    """The licences, or exceptions, of the SPDX list that a pattern names, and one of our own where it may."""
    if pattern.lower().startswith(("licenseref-", "documentref-")):
        return [pattern.replace("*", "canary").replace("?", "x")]
    if "*" not in pattern and "?" not in pattern:
        return [pattern if exceptions else str(licences.parse(pattern))] if pattern else []
    names = _known(exceptions)
    return [name for name in names if fnmatch.fnmatchcase(name.lower(), pattern.lower())]


def _free(name: str, deny: Sequence[str] | None) -> bool:
    return not deny or not _named(name, deny)


def _named(name: str, entries: Sequence[str]) -> bool:
    """Whether an entry names one licence, with its exception or without."""
    plain = name.partition(" WITH ")[0]
    names = {plain.lower(), name.lower(), plain.removesuffix("+").lower()}
    means = [entry if "*" in entry or "?" in entry else str(licences.parse(entry)) for entry in entries]
    return any(fnmatch.fnmatchcase(one, entry.lower()) for one in names for entry in means)


def _some(names: Iterator[str]) -> list[str]:
    return [name for name, _ in zip(names, range(1), strict=False)]


@functools.cache
def _known(exceptions: bool = False) -> tuple[str, ...]:
    """Licences of the SPDX list as they are called today, and one of our own; or its exceptions."""
    listed = licences.listed(exceptions)
    return listed if exceptions else (OWN, *listed)
