"""The audit: read again what lies on disk and account for every document.

Ingested + added = kept + dropped + quarantined, as multisets of ids, from the store's
files alone: nothing that the build remembered is believed, only compared.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import books, contamination, manifest, mixing
from pipeline.books import BRIDGES, BuildKeys
from pipeline.manifest import Version
from pipeline.schema import cuts_file
from pipeline.store import Store, StoreError, read_parquet


@dataclass
class Report:
    """What was counted and what was found wrong; sound when `problems` is empty."""

    address: str
    counts: dict[str, int]
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self, what: str, problem: str | None) -> None:
        if problem is None:
            self.checks.append(what)
        else:
            self.problems.append(problem)


def audit(version: Version, store: Store) -> Report:
    """Account for every document of a version. Raises StoreError where its books are not in this store."""
    keys = version.build_keys()
    report = Report(version.address, {})
    _check_files(report, version, store, keys)
    if report.problems:
        return report
    _check_ids(report, version, store, keys)
    _check_numbers(report, version, store, keys)
    _check_clusters(report, version, store, keys)
    _check_pairs(report, store, keys)
    _check_cuts(report, store, keys)
    _check_items(report, version, store, keys)
    _check_tokens(report, version)
    return report


def _check_files(report: Report, version: Version, store: Store, keys: BuildKeys) -> None:
    for problem in manifest.verify(version):
        report.problems.append(problem)
    for key in keys.every():
        try:
            store.check(key)
        except StoreError as error:
            report.problems.append(str(error))
    if not report.problems:
        report.checks.append(f"every file of the version and of {len(keys.every())} store outputs has its digest")


def _check_ids(report: Report, version: Version, store: Store, keys: BuildKeys) -> None:
    """Law 1: as multisets of document ids."""
    came = books.entered(store, keys)["doc_id"]
    born = [_children(store, part) for segment in keys.segments for part in segment.parts]
    gone = books.ledger(store, keys)
    kept = version.index(["doc_id"])["doc_id"]
    born.append(pa.chunked_array([list(mixing.born(store, keys.mix)) if keys.mix else []], pa.string()))
    in_ids = pa.chunked_array([chunk for column in (came, *born) for chunk in column.chunks], pa.string())
    out_ids = pa.chunked_array([chunk for column in (kept, gone["doc_id"]) for chunk in column.chunks], pa.string())
    verdicts = Counter(gone["verdict"].to_pylist())
    report.counts = {
        "ingested": len(came),
        "added": sum(map(len, born)),
        "kept": len(kept),
        "dropped": verdicts["dropped"],
        "quarantined": verdicts["quarantined"],
    }
    lost, extra = _difference(in_ids, out_ids), _difference(out_ids, in_ids)
    counted = " + ".join(f"{report.counts[name]:,} {name}" for name in ("ingested", "added"))
    ends = " + ".join(f"{report.counts[name]:,} {name}" for name in ("kept", "dropped", "quarantined"))
    report.check(
        f"{counted} = {ends}, id by id",
        None
        if not lost and not extra
        else f"documents without an end: {lost[:3]}; documents from nowhere: {extra[:3]}",
    )


def _children(store: Store, part: str) -> pa.ChunkedArray:
    """Ids that an @extend stage of this part added: born here, whether kept, dropped or quarantined."""
    signals = read_parquet(store.file(part, "signals.parquet"), ["doc_id", "born"])
    errors = read_parquet(store.file(part, "errors.parquet"), ["doc_id"])["doc_id"]
    came = read_parquet(store.file(part, "entered.parquet"), ["doc_id"])["doc_id"].combine_chunks()
    accused = errors.filter(pc.invert(pc.is_in(errors, came)))
    return pa.chunked_array(
        [*signals.filter(pc.greater(signals["born"], 0))["doc_id"].chunks, *accused.chunks], pa.string()
    )


def _difference(left: pa.ChunkedArray, right: pa.ChunkedArray) -> list[str]:
    """Members of `left` that occur more often there than in `right`."""
    counts = Counter(left.to_pylist())
    counts.subtract(Counter(right.to_pylist()))
    return sorted(id_ for id_, count in counts.items() if count > 0)


def _check_numbers(report: Report, version: Version, store: Store, keys: BuildKeys) -> None:
    """The manifest's accounting, counted again from the ledger."""
    gone = books.ledger(store, keys)
    found = Counter(zip(*(gone[name].to_pylist() for name in ("stage", "reason")), strict=True))
    said: Counter[Any] = Counter()
    for entry in version.manifest["accounting"]:
        said.update({(entry["stage"], reason): count for reason, count in entry["reasons"].items()})
    wrong = sorted(pair for pair in found | said if found[pair] != said[pair])
    report.check(
        f"{len(said)} reasons in the manifest count what the ledger holds",
        None
        if not wrong
        else f"the manifest states {said[wrong[0]]} for {wrong[0]}, the ledger holds {found[wrong[0]]}",
    )


def _check_clusters(report: Report, version: Version, store: Store, keys: BuildKeys) -> None:
    """Laws 3 and 4: one document of rank 0 a cluster, and no cluster in two splits."""
    index = version.index(["doc_id", "split"])
    for segment in keys.segments:
        for relate in segment.relates:
            if "cuts" in relate:
                continue
            name = relate["stage"]
            table = read_parquet(store.file(relate["cluster"], "relation.parquet"))
            first = table.filter(pc.equal(table[f"{name}.dup_rank"], 0))[f"{name}.cluster"]
            several = len(first) - len(first.unique())
            missing = len(table[f"{name}.cluster"].unique()) - len(first.unique())
            wrong = several or missing
            report.check(
                f"{name}: each of {len(first):,} clusters has exactly one survivor",
                None if not wrong else f"{name}: {several} clusters have several survivors, {missing} have none",
            )
            split = index["split"].take(pc.index_in(table["doc_id"], index["doc_id"].combine_chunks()))
            pairs = {p for p in zip(table[f"{name}.cluster"].to_pylist(), split.to_pylist(), strict=True) if p[1]}
            torn = len(pairs) - len({cluster for cluster, _ in pairs})
            report.check(
                f"{name}: no cluster lies in two splits",
                None if not torn else f"{name}: {torn} clusters lie in two splits",
            )


def _check_pairs(report: Report, store: Store, keys: BuildKeys) -> None:
    """Law 3: what was verified as alike shares a cluster, unless a document that came later bridges two."""
    listed: set[str] = set()
    if keys.bridges:
        table = read_parquet(store.file(keys.bridges, BRIDGES))
        listed = {doc_id for name in ("doc_id", "by") for doc_id in table[name].to_pylist()}
    for segment in keys.segments:
        for relate in segment.relates:
            if "cuts" not in relate:
                torn, alike = _torn(store, segment.parts, relate)
                unlisted = [ids for ids in torn if not listed & set(ids)]
                bridged = f", but for {len(torn):,} at recorded bridges" if torn else ""
                report.check(
                    f"{relate['stage']}: {alike:,} pairs and equal texts share their clusters{bridged}",
                    f"{relate['stage']}: {unlisted[0][0]} and {unlisted[0][1]} are alike and in two clusters, and no "
                    f"bridge says so ({len(unlisted):,} such)"
                    if unlisted
                    else None,
                )


def _torn(store: Store, parts: list[str], relate: dict[str, str]) -> tuple[list[list[str]], int]:
    """(documents and survivors of what is alike and does not share a cluster, how much is alike in all)."""
    name = relate["stage"]
    relation = read_parquet(store.file(relate["cluster"], "relation.parquet"), ["doc_id", f"{name}.cluster"])
    files = (store.file(part, f"sketch-{name}.parquet") for part in parts)
    sketches = pa.concat_tables([read_parquet(file, ["doc_id", "digest"]) for file in files])
    met = sketches["digest"].take(pc.index_in(relation["doc_id"], sketches["doc_id"].combine_chunks()))
    table = relation.rename_columns(["doc_id", "cluster"]).append_column("digest", met)
    table = table.filter(pc.is_valid(table["digest"])).combine_chunks()
    once = table.group_by(["digest", "cluster"]).aggregate([("doc_id", "min")])
    pairs = read_parquet(store.file(relate["pairs"], "pairs.parquet"), ["a", "b"])
    sides = {end: once.rename_columns([end, f"cluster_{end}", f"doc_{end}"]) for end in ("a", "b")}
    both = pairs.join(sides["a"], "a", join_type="inner").join(sides["b"], "b", join_type="inner")
    same = sides["a"].join(once.rename_columns(["a", "cluster_b", "doc_b"]), "a", join_type="inner")
    columns = ["doc_a", "doc_b", "cluster_a", "cluster_b"]
    every = pa.concat_tables([both.select(columns), same.select(columns)])
    torn = every.filter(pc.not_equal(every["cluster_a"], every["cluster_b"])).sort_by("doc_a")
    return [list(row.values()) for row in torn.to_pylist()], both.num_rows + table.num_rows - once.num_rows


def _check_cuts(report: Report, store: Store, keys: BuildKeys) -> None:
    """No byte lost: what entered a segment is what was there before, less what was cut, document by document."""
    for before, after in itertools.pairwise(keys.segments):
        if not before.cuts:
            continue
        name = before.cuts["stage"]
        signals = [read_parquet(store.file(part, "signals.parquet"), ["doc_id", "text_bytes"]) for part in before.parts]
        had = pa.concat_tables(signals)
        relation = read_parquet(store.file(before.cuts["cuts"], "relation.parquet"), ["doc_id", f"{name}.cut_bytes"])
        came = pa.concat_tables([read_parquet(store.file(part, "entered.parquet")) for part in after.parts])
        came = came.filter(pc.is_valid(came["text_bytes"]))
        cut = relation[f"{name}.cut_bytes"].take(pc.index_in(came["doc_id"], relation["doc_id"].combine_chunks()))
        size = had["text_bytes"].take(pc.index_in(came["doc_id"], had["doc_id"].combine_chunks()))
        right = pc.fill_null(pc.equal(pc.subtract(size, cut), came["text_bytes"]), False)
        wrong = came["doc_id"].filter(pc.invert(right))
        report.check(
            f"{name}: {len(came):,} documents hold what they held, less the {pc.sum(cut).as_py() or 0:,} bytes cut",
            f"{name}: the text of {wrong[0]} is not what it was less what was cut" if len(wrong) else None,
        )


def _check_items(report: Report, version: Version, store: Store, keys: BuildKeys) -> None:
    """Law 4: where evaluation items are cut, each place that is listed of a document that stays is cut from it."""
    for segment in keys.segments:
        for relate in segment.relates:
            if not contamination.reported(store, relate):
                continue
            table, said = contamination.of(store, relate, version.index(["doc_id", "parent_id", "split"]))
            held = table.filter(pc.is_in(table["fate"], pa.array([contamination.KEPT, contamination.CUT]))).to_pylist()
            lists = (read_parquet(store.file(relate["cluster"], cuts_file(n))) for n in range(len(segment.parts)))
            rows = pa.concat_tables(lists).to_pylist() if said["remove"] else []
            cut = {row["doc_id"]: list(zip(row["start"], row["end"], strict=True)) for row in rows}
            left = [
                row
                for row in held
                if said["remove"]
                and not any(
                    a <= row["start"] and row["end"] <= b
                    for a, b in cut.get(row["doc_id"].partition(mixing.COPY)[0], [])
                )
            ]
            items = len({(row["set"], row["row"]) for row in held})
            report.check(
                f"{relate['stage']}: {items:,} evaluation items in documents that are kept, all "
                f"{'cut from them' if said['remove'] else 'listed'}",
                f"{relate['stage']}: {left[0]['doc_id']} still holds item {left[0]['row']} of {left[0]['set']}"
                if left
                else None,
            )


def _check_tokens(report: Report, version: Version) -> None:
    """Law 5: tokens in the shards = tokens encoded - declared truncation; every token of a document exactly once."""
    index = version.index(["tokens"])["tokens"].to_numpy()
    seen = np.zeros(len(index), np.int64)
    packed = version.manifest["layout"] == "packed"
    cut = sum(split["truncated"] for split in version.manifest["splits"].values())
    for split in version.manifest["splits"].values():
        for shard in split["shards"]:
            table = pa.ipc.open_file(pa.memory_map(str(version.folder / shard["file"]))).read_all()
            document, count = (_pieces if packed else _whole)(table)
            np.add.at(seen, shard["first_document"] + document, count)
    wrong = np.flatnonzero(seen != index) if packed else np.flatnonzero(seen > index)
    total = int(seen.sum())
    if not packed and total + cut != int(index.sum()):
        wrong = np.array([0])
    report.check(
        f"{total:,} tokens in the shards = {int(index.sum()):,} encoded - {cut:,} truncated",
        None if not len(wrong) else f"{len(wrong)} documents have lost or gained tokens in the shards",
    )


def _pieces(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Document number and token count of every piece of a packed shard."""
    starts = table["starts"].combine_chunks()
    used = table["used"].to_numpy()
    bounds = starts.offsets.to_numpy()
    begin = starts.flatten().to_numpy()
    end = np.empty_like(begin)
    end[:-1] = begin[1:]
    end[bounds[1:] - 1] = used
    return table["documents"].combine_chunks().flatten().to_numpy(), end - begin


def _whole(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    return table["document"].to_numpy(), pc.list_value_length(table["tokens"]).to_numpy()
