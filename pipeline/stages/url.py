"""Whether a document's URL is one that lists name: its host, and words in it.

    hosts        file of hosts, one a line, `#` before a remark; a host's subdomains count, so example.com names
                 www.example.com and not badexample.com. `*.` before a host says the same. Gives `host_listed`, 0 or 1
    words        file of words: how many of the words of the URL are listed, cut at whatever is no ASCII letter or digit
                 (`listed_words`)
    subwords     file of words: how many of them stand anywhere in the URL's letters and digits (`listed_subwords`)

These are the parts of FineWeb's filter of URLs (Penedo et al. 2024, arXiv 2406.17557, 3.3): datatrove's URLFilter drops
for a host, for one hard word, for two soft ones and for one subword. A soft list is `words` with another bound.

What to mind: a list that names github.io or co.uk takes in whoever has a name below it. A single label (com) is
refused, since it would be everybody: write .xxx with a dot where that is meant. Hosts are compared in lower case and as
punycode (IDNA 2003), without port and final dot. A document without a URL that has a host has nulls, which quarantine
it where a rule asks: a corpus of which a part has none needs a recipe without this stage for that part.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from pipeline import given
from pipeline.given import File
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

_CUT, _HOST = re.compile(r"[^a-z0-9]+"), re.compile(r"(\.|\*\.)?[^\s/:@?#]+")
COLUMNS = {"hosts": "host_listed", "words": "listed_words", "subwords": "listed_subwords"}


@measure(host_listed="int32", listed_words="int32", listed_subwords="int32")
def url(
    batch: pa.RecordBatch, *, hosts: File | None = None, words: File | None = None, subwords: File | None = None
) -> dict[str, pa.Array]:
    """Measure every document by what its column `url` says."""
    urls = batch["url"].to_pylist()
    found: dict[str, list[int | None]] = {}
    known = [None if one is None else host(one) for one in urls]
    lower = [(one or "").lower() for one in urls]
    if hosts is not None:
        listed = _hosts(hosts)
        found["host_listed"] = [None if one is None else int(_under(one, listed)) for one in known]
    if words is not None:
        some = _words(words)
        counts = (sum(word in some for word in _CUT.split(one)) for one in lower)
        found["listed_words"] = [None if one is None else n for one, n in zip(known, counts, strict=True)]
    if subwords is not None:
        parts = _words(subwords)
        counts = (sum(word in letters for word in parts) for letters in (_CUT.sub("", one) for one in lower))
        found["listed_subwords"] = [None if one is None else n for one, n in zip(known, counts, strict=True)]
    return {name: pa.array(values, pa.int32()) for name, values in found.items()}


def columns(**files: str | None) -> list[str]:
    """A column for each list that is given."""
    return [COLUMNS[name] for name, value in files.items() if value is not None]


def check(**files: str | None) -> None:
    """Raise ValueError where no list is given, and for a list that cannot be meant."""
    if not any(files.values()):
        raise ValueError(f"give at least one list: {', '.join(files)}")
    for name, value in files.items():
        if value is not None and given.NAMED.fullmatch(value):
            (_hosts if name == "hosts" else _words)(value)


def host(address: str) -> str | None:
    """The host of a URL as lists have it, or None where it has none."""
    try:
        found = urlsplit(address if "://" in address else f"//{address}").hostname
    except ValueError:
        return None
    return _plain(found) if found and found.strip(".") else None


def _plain(name: str) -> str:
    name = name.strip().rstrip(".").lower()
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name


def _under(name: str, listed: frozenset[str]) -> bool:
    """Whether a host or one that it lies below is listed."""
    while name:
        if name in listed:
            return True
        _, _, name = name.partition(".")
    return False


def _lines(file: str) -> list[tuple[int, str]]:
    """Number and content of the lines of a list that say something."""
    path = given.find(file)
    try:
        rows = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from error
    found = [(n, row.partition("#")[0].strip()) for n, row in enumerate(rows, 1)]
    if not any(row for _, row in found):
        raise ValueError(f"{path}: the list is empty")
    return [(n, row) for n, row in found if row]


@functools.lru_cache(8)
def _hosts(file: str) -> frozenset[str]:
    found = set()
    for number, row in _lines(file):
        name = row.removeprefix("*").removeprefix(".")
        if not _HOST.fullmatch(row) or not name:
            raise ValueError(f"{given.find(file)} line {number}: {row[:80]!r} is no host, like example.com")
        if "." not in name.rstrip(".") and not row.startswith("."):
            raise ValueError(
                f"{given.find(file)} line {number}: {row!r} is a whole top-level domain; write .{name} if that is meant"
            )
        found.add(_plain(name))
    return frozenset(found)


@functools.lru_cache(8)
def _words(file: str) -> frozenset[str]:
    found = set()
    for number, row in _lines(file):
        if _CUT.search(row.lower()):
            raise ValueError(
                f"{given.find(file)} line {number}: {row[:80]!r} can stand in no URL's words: ASCII letters and digits"
            )
        found.add(row.lower())
    return frozenset(found)


def examples(rule: Rule, limit: Any, **files: Any) -> Examples:
    """Pages of a listed host and of others, and with ever more listed words in their address."""
    from pipeline.examples import Page, ladder

    if rule.column == "host_listed":
        name = sorted(_hosts(files["hosts"]), key=lambda one: (len(one), one))[0]
        addresses = ["https://canary.invalid/mill", f"https://www.{name}/mill"]
        return ladder(rule, limit, lambda k: (Page("A mill.", addresses[k]),), most=1)
    words = sorted(_words(files["words" if rule.column == "listed_words" else "subwords"]))
    if rule.column == "listed_words":
        return ladder(rule, limit, lambda k: (Page("A mill.", f"https://canary.invalid/{'-'.join(words[:1] * k)}"),))
    apart = [word for word in words if not any(word in other for other in words if other != word)]

    def page(k: int) -> tuple[Page, ...]:
        return (Page("A mill.", f"https://0.invalid/{'-0-'.join(apart[:k])}"),)

    def value(k: int) -> float:
        return float(url(_batch(page(k)), subwords=files["subwords"])["listed_subwords"][0].as_py())

    return ladder(rule, limit, page, value, most=len(apart))


def _batch(item: Any) -> pa.RecordBatch:
    from pipeline.examples import batch

    return batch([item])
