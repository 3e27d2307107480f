"""What the papers of a version state, counted once from its manifest and document index.

The law: every figure here is a sum over rows of the document index, so that all papers of a version agree, and agree
with the manifest. Nothing but the version is read: no store, no source, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import domains as hosts
from pipeline import licences
from pipeline.licences import UNKNOWN, Unreadable
from pipeline.mixing import COPY

COLUMNS = ["source", "language", "licence", "url", "parent_id", "text_bytes", "tokens", "doc_id"]


@dataclass(frozen=True)
class Amount:
    """Documents, with the bytes of their texts and their tokens."""

    documents: int = 0
    text_bytes: int = 0
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        pairs = zip(self.values, other.values, strict=True)
        return Amount(*(left + right for left, right in pairs))

    @property
    def values(self) -> tuple[int, int, int]:
        return self.documents, self.text_bytes, self.tokens

    def table(self) -> dict[str, int]:
        return {"documents": self.documents, "text_bytes": self.text_bytes, "tokens": self.tokens}


@dataclass(frozen=True)
class Facts:
    """The figures behind the papers of one version.

    `licences` is by source, then by the expression as the documents state it (NOASSERTION where nobody does); `domains`
    are hosts of the documents' addresses, the largest text first; `addressed` counts documents that have an address,
    `born` those that augmentation made.
    """

    manifest: Mapping[str, Any]
    total: Amount
    licences: dict[str, dict[str, Amount]]
    languages: dict[str, Amount]
    domains: dict[str, Amount]
    addressed: Amount
    born: Amount

    @property
    def address(self) -> str:
        return f"{self.manifest['name']}@{self.manifest['version']}"

    @property
    def truncated(self) -> int:
        """Tokens of `total` that did not fit into a row and are in no shard."""
        return sum(split["truncated"] for split in self.manifest["splits"].values())

    @property
    def by_licence(self) -> dict[str, Amount]:
        """All sources together, the most tokens first."""
        found: dict[str, Amount] = {}
        for entries in self.licences.values():
            for expression, amount in entries.items():
                found[expression] = found.get(expression, Amount()) + amount
        return ranked(found)

    @property
    def unknown(self) -> Amount:
        """Documents of which nobody states a licence."""
        return sum((a for expression, a in self.by_licence.items() if licences.is_unknown(expression)), Amount())


def of(manifest: Mapping[str, Any], index: pa.Table) -> Facts:
    """Count a version; `index` is its document index."""
    index = index.select(COLUMNS).combine_chunks()
    index = index.set_column(2, "licence", licences.filled(index["licence"].combine_chunks()))
    index = index.append_column("domain", hosts.of(index["url"].combine_chunks()))
    by_source: dict[str, dict[str, Amount]] = {source["name"]: {} for source in manifest["sources"]}
    for (source, expression), amount in _grouped(index, ["source", "licence"]):
        by_source.setdefault(str(source), {})[str(expression)] = amount
    domains = {str(domain): amount for (domain,), amount in _grouped(index, ["domain"]) if domain is not None}
    return Facts(
        manifest=manifest,
        total=_amount(index),
        licences={source: ranked(entries) for source, entries in by_source.items()},
        languages=ranked({str(name or "unknown"): amount for (name,), amount in _grouped(index, ["language"])}),
        domains=dict(sorted(domains.items(), key=lambda one: (-one[1].text_bytes, one[0]))),
        addressed=_amount(index.filter(pc.is_valid(index["url"]))),
        born=_amount(index.filter(_born(index))),
    )


def _born(index: pa.Table) -> pa.Array:
    """Who was made from another document, and is no copy of one that the mixture lets stand again."""
    copy = pc.match_substring_regex(index["doc_id"], f"{COPY}[0-9]+$")
    return pc.and_not(pc.is_valid(index["parent_id"]), copy)


def ranked(amounts: Mapping[str, Amount]) -> dict[str, Amount]:
    """The most tokens first."""
    return dict(sorted(amounts.items(), key=lambda one: (-one[1].tokens, -one[1].documents, one[0])))


def identifiers(expressions: Sequence[str]) -> list[str]:
    """The licences and exceptions that expressions name, each once; of one that cannot be read nothing is known."""
    found: set[str] = set()
    for expression in expressions:
        if licences.is_unknown(expression):
            continue
        try:
            found.update(licences.named(expression))
        except Unreadable:
            continue
    return sorted(found)


def stated(expression: str) -> str:
    """An expression as a page gives it."""
    return f"{UNKNOWN} (nobody states one)" if licences.is_unknown(expression) else expression


def _grouped(index: pa.Table, by: list[str]) -> Iterator[tuple[tuple[Any, ...], Amount]]:
    sums = index.group_by(by).aggregate([([], "count_all"), ("text_bytes", "sum"), ("tokens", "sum")])
    names = [*by, "count_all", "text_bytes_sum", "tokens_sum"]
    for *key, documents, size, tokens in zip(*(sums[name].to_pylist() for name in names), strict=True):
        yield tuple(key), Amount(documents, size or 0, tokens or 0)


def _amount(table: pa.Table) -> Amount:
    size, tokens = (pc.sum(table[name]).as_py() or 0 for name in ("text_bytes", "tokens"))
    return Amount(table.num_rows, size, tokens)
