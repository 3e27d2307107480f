"""Two versions of one store, document by document: who came, who went, whose text is another, and which rule says so.

From the ledgers, document indexes and signals alone. The laws: kept(A) - removed + added = kept(B), by ids, and so do
tokens and bytes; and whoever is kept on one side only has a reason on the other, or was never in the input there. The
number that matters: a second or two for a million documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from pipeline import books, excerpts, ingredients
from pipeline.books import BuildKeys
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet

KINDS = ("added", "removed", "changed", "moved")
FATE = ("verdict", "stage", "reason")
BEFORE, AFTER = tuple(f"{name}_a" for name in FATE), tuple(f"{name}_b" for name in FATE)
ABSENT = {"input": "not in the input there", "made": "not made there"}
# Of so many reasons at most, the largest first, documents are shown.
SHOWN_REASONS = 24


@dataclass(frozen=True)
class Side:
    """One of the two versions, and what became of every document that it met."""

    store: Store
    version: Version
    keys: BuildKeys

    @cached_property
    def kept(self) -> pl.DataFrame:
        names = ["doc_id", "source", "language", "text_bytes", "tokens", "split"]
        return _frame(self.version.index(names)).with_columns(pl.lit("kept").alias("verdict"))

    @cached_property
    def gone(self) -> pl.DataFrame:
        # Not from an empty table: to make one imports pandas, if it is there, and takes as long as the whole diff.
        tables = (read_parquet(self.store.file(key, "ledger.parquet")) for key in self.keys.ledgers)
        return pl.concat([_frame(table) for table in tables])

    @cached_property
    def met(self) -> pl.DataFrame:
        """A row for each document: what it became, and where it is kept its size, source and split."""
        return pl.concat([self.kept, self.gone.drop("detail")], how="diagonal")

    @cached_property
    def ingested(self) -> pl.Series:
        return _frame(books.entered(self.store, self.keys).select(["doc_id"]))["doc_id"]

    @property
    def makes(self) -> bool:
        """Whether a stage adds documents."""
        return any(entry["kind"] == "extend" for entry in self.version.manifest["accounting"])

    @property
    def parts(self) -> list[str]:
        return self.keys.segments[-1].parts


@dataclass
class Reason:
    """Documents that differ in one way: of `kind`, with one fate in A and one in B; `groups` count them by source and
    language, `tokens` and `text_bytes` are what B has more of than A."""

    kind: str
    before: dict[str, str | None]
    after: dict[str, str | None]
    documents: int
    tokens: int
    text_bytes: int
    groups: list[dict[str, Any]]
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Diff:
    """What B is beside A; `documents`, `tokens` and `text_bytes` balance."""

    a: str
    b: str
    documents: dict[str, int]
    tokens: dict[str, int]
    text_bytes: dict[str, int]
    splits: list[dict[str, Any]]
    reasons: list[Reason]
    recipe: list[ingredients.Difference]
    sources: list[dict[str, Any]]
    tokenizer: list[ingredients.Difference]


def diff(store: Store, a: tuple[Version, BuildKeys], b: tuple[Version, BuildKeys], examples: int = 3) -> Diff:
    """Compare two versions (`addresses.find`); up to `examples` documents of each reason are shown.

    Raises StoreError where a file is damaged, ConfigError where the books do not account for a document.
    """
    left, right = Side(store, *a), Side(store, *b)
    whole = left.met.join(right.met, on="doc_id", how="full", suffix="_b", coalesce=True)
    whole = whole.rename({name: f"{name}_a" for name in left.met.columns if name != "doc_id"})
    whole = whole.with_columns(_kind(_other_text(left, right)).alias("kind"))
    found = _with_source(_with_fates(whole.filter(pl.col("kind").is_in(KINDS)), left, right), left, right)
    counts = _counts(whole)
    _balance(counts, left, right)
    manifests = left.version.manifest, right.version.manifest
    return Diff(
        left.version.address,
        right.version.address,
        **counts,
        splits=_splits(whole),
        reasons=_reasons(found, left, right, examples),
        recipe=ingredients.recipe(*manifests),
        sources=ingredients.sources(*manifests),
        tokenizer=ingredients.tokenizer(*manifests),
    )


def _frame(table: pa.Table) -> pl.DataFrame:
    found = pl.from_arrow(table)
    assert isinstance(found, pl.DataFrame)
    return found


def _kind(changed: pl.Series) -> pl.Expr:
    """In what way a document differs; null where it is kept with the same text, or left for the same reason."""
    kept_a, kept_b = (pl.col(f"verdict_{side}").eq_missing("kept") for side in "ab")
    same = pl.all_horizontal(pl.col(a).eq_missing(pl.col(b)) for a, b in zip(BEFORE, AFTER, strict=True))
    other = pl.col("doc_id").is_in(changed.implode()) if len(changed) else pl.lit(False)
    return (
        pl.when(kept_a & kept_b)
        .then(pl.when(other).then(pl.lit("changed")).otherwise(pl.lit("same")))
        .when(kept_b)
        .then(pl.lit("added"))
        .when(kept_a)
        .then(pl.lit("removed"))
        .when(~same)
        .then(pl.lit("moved"))
    )


def _other_text(a: Side, b: Side) -> pl.Series:
    """Ids of documents whose text at the end has another digest. Partitions that both share hold the same."""
    digests = []
    for side, other in ((a, b), (b, a)):
        keys = sorted(set(side.parts) - set(other.parts))
        tables = [read_parquet(side.store.file(key, "signals.parquet"), ["doc_id", "text_digest"]) for key in keys]
        if not tables:
            return pl.Series("doc_id", [], pl.String)
        digests.append(_frame(pa.concat_tables(tables)))
    both = digests[0].join(digests[1], on="doc_id", suffix="_b")
    return both.filter(pl.col("text_digest") != pl.col("text_digest_b"))["doc_id"]


def _with_fates(found: pl.DataFrame, a: Side, b: Side) -> pl.DataFrame:
    """Put into words what became of whoever a side never met. Raises ConfigError where it did meet him."""
    for side, other, name in ((a, b, "a"), (b, a, "b")):
        unknown = found.filter(pl.col(f"verdict_{name}").is_null())["doc_id"]
        if unknown.is_empty():
            continue
        lost = unknown.filter(unknown.is_in(side.ingested.implode()))
        if len(lost):
            raise ConfigError(
                f"the books of {side.version.address} do not account for {len(lost):,} documents, first {min(lost)}; "
                "`gristmill audit` tells more"
            )
        words: pl.Expr = pl.lit(ABSENT["input"])
        if other.makes:
            came = pl.col("doc_id").is_in(other.ingested.implode())
            words = pl.when(came).then(words).otherwise(pl.lit(ABSENT["made"]))
        missing = pl.col(f"verdict_{name}").is_null()
        found = found.with_columns(
            pl.when(missing).then(words).otherwise(pl.col(f"reason_{name}")).alias(f"reason_{name}"),
            pl.col(f"verdict_{name}").fill_null("absent"),
        )
    return found


def _with_source(found: pl.DataFrame, a: Side, b: Side) -> pl.DataFrame:
    """Source and language of each document, and what it adds to tokens and bytes."""
    moved = found.filter(pl.col("kind") == "moved")
    spoken = pl.DataFrame(schema={"doc_id": pl.String, "spoken": pl.String})
    for side, name in ((b, "b"), (a, "a")):
        ids = moved.filter(pl.col(f"verdict_{name}") != "absent")["doc_id"]
        ids = ids.filter(~ids.is_in(spoken["doc_id"].implode()))
        spoken = pl.concat([spoken, _languages(side, ids)])
    found = found.join(spoken, on="doc_id", how="left")
    named = pl.col("doc_id").str.split_exact(":", 1).struct.field("field_0")
    return found.with_columns(
        pl.coalesce("source_b", "source_a", named).alias("source"),
        pl.coalesce("language_b", "language_a", "spoken", pl.lit("unknown")).alias("language"),
        *(
            (pl.col(f"{name}_b").fill_null(0).cast(pl.Int64) - pl.col(f"{name}_a").fill_null(0)).alias(name)
            for name in ("tokens", "text_bytes")
        ),
    )


def _languages(side: Side, ids: pl.Series) -> pl.DataFrame:
    """doc_id and language, as the last segment that met a document says; ids that no segment read are left out."""
    found = []
    for segment in reversed(side.keys.segments):
        if ids.is_empty():
            break
        files = (side.store.file(key, "documents.parquet") for key in segment.parts)
        tables = [_frame(read_parquet(file, ["doc_id", "language"])) for file in files]
        met = pl.concat([table.filter(pl.col("doc_id").is_in(ids.implode())) for table in tables])
        found.append(met.rename({"language": "spoken"}))
        ids = ids.filter(~ids.is_in(met["doc_id"].implode()))
    return pl.concat(found) if found else pl.DataFrame(schema={"doc_id": pl.String, "spoken": pl.String})


def _counts(whole: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Documents, tokens and bytes: of A and B, of what came and went, and what stayed lost or gained."""
    sums = [pl.len().alias("documents")]
    for name in ("tokens", "text_bytes"):
        sums += [pl.col(f"{name}_{side}").cast(pl.Int64).sum() for side in "ab"]
    rows = {row["kind"]: row for row in whole.group_by("kind").agg(sums).to_dicts()}

    def of(kind: str, name: str) -> int:
        return int(rows[kind][name]) if kind in rows else 0

    stayed = of("same", "documents") + of("changed", "documents")
    documents = {"a": stayed + of("removed", "documents"), "b": stayed + of("added", "documents")}
    counts = {"documents": documents | {kind: of(kind, "documents") for kind in ("same", *KINDS)}}
    for name in ("tokens", "text_bytes"):
        kinds = ("same", "changed", "added", "removed")
        a, b = (sum(of(kind, f"{name}_{side}") for kind in kinds) for side in "ab")
        grown = {kind: of(kind, f"{name}_b") - of(kind, f"{name}_a") for kind in ("same", "changed")}
        counts[name] = {
            "a": a,
            "b": b,
            "added": of("added", f"{name}_b"),
            "removed": of("removed", f"{name}_a"),
            **grown,
        }
    return counts


def _balance(counts: dict[str, dict[str, int]], a: Side, b: Side) -> None:
    """Raise ConfigError unless A less what went and with what came is B, as their manifests state both."""
    n = counts["documents"]
    stated = [side.version.manifest["summaries"]["documents"]["kept"] for side in (a, b)]
    if [n["a"], n["b"]] != stated or n["a"] - n["removed"] + n["added"] != n["b"]:
        raise ConfigError(f"the diff does not balance: {n}, and the manifests state {stated[0]} and {stated[1]} kept")


def _splits(whole: pl.DataFrame) -> list[dict[str, Any]]:
    """How many documents that both keep lie in another split."""
    torn = whole.filter(pl.col("kind").is_in(["same", "changed"]) & (pl.col("split_a") != pl.col("split_b")))
    counted = torn.group_by("split_a", "split_b").agg(pl.len().alias("documents")).sort("split_a", "split_b")
    return [{"a": row["split_a"], "b": row["split_b"], "documents": row["documents"]} for row in counted.to_dicts()]


def _reasons(found: pl.DataFrame, a: Side, b: Side, examples: int) -> list[Reason]:
    """The groups, the largest of a kind first, with examples of the first of them."""
    by = ["kind", *BEFORE, *AFTER]
    sums = [pl.len().alias("documents"), pl.col("tokens").sum(), pl.col("text_bytes").sum()]
    groups = found.group_by(*by, "source", "language").agg(sums)
    ordered = groups.sort("documents", "source", "language", descending=[True, False, False])
    members: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in ordered.to_dicts():
        members.setdefault(tuple(row.pop(name) for name in by), []).append(row)
    reasons = []
    for (kind, *fates), rows in members.items():
        total = {name: sum(row[name] for row in rows) for name in ("documents", "tokens", "text_bytes")}
        before, after = (dict(zip(FATE, fate, strict=True)) for fate in (fates[:3], fates[3:]))
        reasons.append(Reason(kind, before, after, **total, groups=rows))
    reasons.sort(key=lambda r: (KINDS.index(r.kind), -r.documents, str(r.before), str(r.after)))
    largest = sorted(reasons, key=lambda r: -r.documents)[:SHOWN_REASONS] if examples else []
    _show(largest, found, a, b, examples)
    return reasons


def _show(reasons: Sequence[Reason], found: pl.DataFrame, a: Side, b: Side, count: int) -> None:
    """Give each reason its first documents by id, with what was measured and how the text reads."""
    for reason in reasons:
        fates = [*zip(BEFORE, reason.before.values(), strict=True), *zip(AFTER, reason.after.values(), strict=True)]
        mine = found.filter(pl.col("kind") == reason.kind, *(pl.col(name).eq_missing(value) for name, value in fates))
        reason.examples = mine.select("doc_id", "source", "language").bottom_k(count, by="doc_id").to_dicts()
        reason.examples.sort(key=lambda example: example["doc_id"])
    ids = [example["doc_id"] for reason in reasons for example in reason.examples]
    shown = [(_details(side, ids), excerpts.texts(side.store, side.keys, ids)) for side in (a, b)]
    for example in (example for reason in reasons for example in reason.examples):
        doc_id = example["doc_id"]
        example["measured_a"], example["measured_b"] = (details.get(doc_id) for details, _ in shown)
        example["excerpt_a"], example["excerpt_b"] = excerpts.pair(*(texts.get(doc_id) for _, texts in shown))


def _details(side: Side, ids: Iterable[str]) -> dict[str, str]:
    rows = side.gone.filter(pl.col("doc_id").is_in(list(ids))).select("doc_id", "detail").rows()
    return dict(rows)
