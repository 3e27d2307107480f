"""Who is to be forgotten: documents by id, address, domain, licence or a string in their text, and their duplicates.

A duplicate holds the same text, so by default everything goes that hangs together with a chosen document: by verified
pairs (also with documents that a rule dropped: their text lies in the store too), equal texts, clusters, and births
(a child holds its parent's words). With `only`, the document and what was made of it, and nothing else.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import domains
from pipeline.books import FORGOTTEN, BuildKeys, SegmentKeys
from pipeline.digests import digest
from pipeline.stage import ConfigError
from pipeline.store import Store, file_digest, read_parquet

CHOSEN = pa.schema([("doc_id", pa.string()), ("by", pa.string())])


@dataclass(frozen=True)
class Request:
    """What is asked for; `match_file` is a file of strings, one a line, of which a text that holds one is meant."""

    doc: tuple[str, ...] = ()
    url: tuple[str, ...] = ()
    domain: tuple[str, ...] = ()
    licence: tuple[str, ...] = ()
    match_file: Path | None = None
    only: bool = False
    reason: str = ""

    def described(self) -> dict[str, Any]:
        """The request as it is written down: of a file of strings its digest, for they may be what is to go."""
        plain: dict[str, Any] = {name: list(getattr(self, name)) for name in ("doc", "url", "domain", "licence")}
        if self.match_file is not None:
            plain["match_file"] = {"lines": len(self.strings()), "sha256": file_digest(self.match_file, "sha256")}
        return {**{k: v for k, v in plain.items() if v}, "only": self.only, "reason": self.reason}

    def strings(self) -> list[str]:
        """The lines of `match_file`. Raises ConfigError where it cannot be read or holds none."""
        if self.match_file is None:
            return []
        try:
            lines = [line for line in self.match_file.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.match_file}: cannot be read: {error}") from error
        if not lines:
            raise ConfigError(f"{self.match_file}: holds no string; write one a line")
        return lines

    @property
    def digest(self) -> str:
        return digest(self.described())


def chosen(store: Store, keys: BuildKeys, request: Request) -> pa.Table:
    """CHOSEN: the documents that the request names, each once, and by what.

    Raises ConfigError where nothing is asked for, an id never was, or a pattern meets no document.
    """
    named = {"url": request.url, "domain": request.domain, "licence": request.licence}
    strings = request.strings()
    if not (request.doc or strings or any(named.values())):
        raise ConfigError("say what to forget: --doc, --url, --domain, --licence or --match-file")
    met: dict[tuple[str, str], int] = dict.fromkeys(
        ((kind, p) for kind, patterns in named.items() for p in patterns), 0
    )
    found: dict[str, str] = {}
    text = "|".join(map(re.escape, strings))
    columns = ["doc_id", "url", "licence", *(["text"] if strings else [])]
    for table in _tables(store, keys, columns):
        ids = table["doc_id"].combine_chunks()
        for kind, pattern in met:
            hits = ids.filter(_hits(table, kind, pattern))
            met[kind, pattern] += len(hits)
            found.update({doc_id: f"{kind} {pattern}" for doc_id in hits.to_pylist() if doc_id not in found})
        if strings:
            hits = ids.filter(pc.match_substring_regex(table["text"].combine_chunks(), text))
            found.update({doc_id: "match" for doc_id in hits.to_pylist() if doc_id not in found})
    if again := _forgotten(store, keys, request.doc):
        raise ConfigError(f"{again[0]} was forgotten already: the version does not hold it")
    known = set(_known(store, keys, request.doc))
    if unknown := [doc_id for doc_id in request.doc if doc_id not in known]:
        raise ConfigError(f"the version never met a document {unknown[0]!r}; ids look like source:path:row")
    if nothing := [f"--{kind} {pattern!r}" for (kind, pattern), count in met.items() if not count]:
        raise ConfigError(f"{nothing[0]} meets no document of the version; nothing is forgotten")
    found |= dict.fromkeys(request.doc, "doc")
    if not found:
        raise ConfigError(f"{request.match_file}: no document holds any of its {len(strings):,} strings")
    return pa.table([list(found), list(found.values())], schema=CHOSEN)


def _hits(table: pa.Table, kind: str, pattern: str) -> pa.Array:
    if kind == "domain":
        hosts = domains.of(table["url"].combine_chunks())
        wanted = pattern.lower().lstrip(".")
        hit = pc.or_kleene(pc.equal(hosts, wanted), pc.ends_with(hosts, f".{wanted}"))
    else:
        hit = pc.match_substring_regex(table[kind].combine_chunks(), _regex(pattern))
    return pc.fill_null(hit, False)


def _regex(pattern: str) -> str:
    """A shell pattern (* ? [a-z]) as an expression for the whole of a value."""
    return "(?s)^" + fnmatch.translate(pattern).removeprefix("(?s:").removesuffix(r")\Z") + "$"


def _tables(store: Store, keys: BuildKeys, columns: list[str]) -> Iterator[pa.Table]:
    """Documents of every segment: those that were born later, and texts as they were rewritten, are in later ones."""
    for segment in keys.segments:
        for key in segment.parts:
            yield read_parquet(store.file(key, "documents.parquet"), columns)


def _known(store: Store, keys: BuildKeys, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that came from a source, or were born."""
    wanted, found = pa.array(ids, pa.string()), list[str]()
    for number, segment in enumerate(keys.segments) if ids else ():
        for key in segment.parts:
            for name in ("entered.parquet", "signals.parquet", "errors.parquet")[0 if number == 0 else 1 :]:
                here = read_parquet(store.file(key, name), ["doc_id"])["doc_id"]
                found += here.filter(pc.is_in(here, wanted)).to_pylist()
    return found


def _forgotten(store: Store, keys: BuildKeys, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that were taken out of a parent of the version."""
    if not keys.forgotten:
        return []
    gone = set(read_parquet(store.file(keys.forgotten, FORGOTTEN), ["doc_id"])["doc_id"].to_pylist())
    return [doc_id for doc_id in ids if doc_id in gone]


class Family:
    """Every document of a version, and what hangs together."""

    def __init__(self, store: Store, keys: BuildKeys) -> None:
        self.store = store
        self._edges: list[tuple[pa.Array, pa.Array]] = []
        self._births: list[pa.Table] = []
        for number, segment in enumerate(keys.segments):
            self._segment(number, segment)

    def _segment(self, number: int, segment: SegmentKeys) -> None:
        own = self._read(segment.parts, "signals.parquet", ["doc_id", "parent_id", "text_digest"])
        ids = own["doc_id"]
        self._link(ids, own["text_digest"], f"text {number} ")
        born = own.filter(pc.is_valid(own["parent_id"]))
        self._births.append(born.select(["doc_id", "parent_id"]))
        self._edges.append((born["doc_id"], born["parent_id"]))
        for relate in segment.relates:
            if "cuts" in relate:
                continue
            name = relate["stage"]
            relation = read_parquet(
                self.store.file(relate["cluster"], "relation.parquet"), ["doc_id", f"{name}.cluster"]
            )
            self._link(relation["doc_id"], relation[f"{name}.cluster"], f"{name} ")
            sketched = self._read(segment.parts, f"sketch-{name}.parquet", ["doc_id", "digest"])
            self._link(sketched["doc_id"], sketched["digest"], f"set {name} ")
            pairs = read_parquet(self.store.file(relate["pairs"], "pairs.parquet"))
            if {"a", "b"} <= set(pairs.column_names):
                self._edges.append(tuple(_named(pairs[end], f"set {name} ") for end in ("a", "b")))

    def _read(self, parts: Sequence[str], name: str, columns: list[str]) -> pa.Table:
        return pa.concat_tables([read_parquet(self.store.file(key, name), columns) for key in parts])

    def _link(self, ids: pa.ChunkedArray, values: pa.ChunkedArray, kind: str) -> None:
        there = pc.is_valid(values)
        self._edges.append((ids.filter(there), _named(values.filter(there), kind)))

    def whole(self, ids: pa.Array) -> pa.Array:
        """`ids` and every document that hangs together with one of them."""
        from pipeline.kernels.unionfind import components

        ends = [_flat([edge[side] for edge in self._edges]) for side in (0, 1)]
        everyone = pa.concat_arrays([*ends, ids.cast(pa.string())]).dictionary_encode()
        codes = everyone.indices.to_numpy().astype(np.int64)
        count = len(ends[0])
        roots = components(len(everyone.dictionary), codes[:count], codes[count : 2 * count])
        wanted = np.unique(roots[codes[2 * count :]])
        names = everyone.dictionary.filter(pa.array(np.isin(roots, wanted)))
        # Digests and the names of clusters are nodes too; documents are what is left.
        return names.filter(pc.invert(pc.starts_with(names, MARK)))

    def descendants(self, ids: pa.Array) -> pa.Array:
        """`ids` and what was made of them."""
        born = pa.concat_tables(self._births)
        while True:
            more = born.filter(pc.is_in(born["parent_id"], ids))["doc_id"].combine_chunks()
            more = more.filter(pc.invert(pc.is_in(more, ids)))
            if not len(more):
                return ids
            ids = pa.concat_arrays([ids, more])


MARK = "\0"


def _named(values: pa.ChunkedArray, kind: str) -> pa.Array:
    """Values as names of nodes that no document has."""
    values = values.combine_chunks()
    if not pa.types.is_string(values.type):
        values = pa.array([None if v is None else v.hex() for v in values.to_pylist()], pa.string())
    return pc.binary_join_element_wise(pa.scalar(MARK + kind), values, "")


def _flat(arrays: Sequence[Any]) -> pa.Array:
    chunks = [a.combine_chunks() if isinstance(a, pa.ChunkedArray) else a for a in arrays]
    return pa.concat_arrays([pa.array([], pa.string()), *(c.cast(pa.string()) for c in chunks)])


def everyone(store: Store, keys: BuildKeys, request: Request) -> pa.Table:
    """CHOSEN, by doc_id: who is named, and who goes with them (`by` is then `duplicate` or `made from it`)."""
    named = chosen(store, keys, request)
    ids, family = named["doc_id"].combine_chunks(), Family(store, keys)
    whole = family.descendants(ids) if request.only else family.whole(ids)
    others = whole.filter(pc.invert(pc.is_in(whole, ids)))
    by = pa.array(["made from it" if request.only else "duplicate"] * len(others), pa.string())
    table = pa.concat_tables([named, pa.table([others, by], schema=CHOSEN)])
    return table.sort_by("doc_id").combine_chunks()
