"""Duplicate clusters: union-find against walking and networkx, and what `via` claims, followed step by step."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import split
from pipeline.kernels import unionfind
from pipeline.stages._clusters import PAIRS, clusters, preferred, reads
from tests.pipeline import twins

GRAPHS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.just(n),
        twins.long_lists(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1), st.sampled_from([0.75, 0.8, 0.9])), 24
        ),
    )
)
# Digests of documents in order of doc_id (None: no shingles), and pairs of digests, of which some are not present.
CORPORA = st.tuples(
    twins.long_lists(st.none() | st.integers(0, 9), 20),
    twins.long_lists(
        st.tuples(
            st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda pair: pair[0] < pair[1]),
            st.sampled_from([0.75, 0.8, 0.9, 0.99, None]),
        ),
        20,
    ).map(dict),
)


def ends(edges: list[tuple[int, int, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left, right = (np.array([edge[k] for edge in edges], np.int64) for k in (0, 1))
    return left, right, np.array([edge[2] for edge in edges], np.float64)


@given(graph=GRAPHS)
def test_components_are_those_of_walking_and_of_networkx(graph):
    count, edges = graph
    left, right, _ = ends(edges)
    found = unionfind.components(count, left, right)
    assert found.tolist() == twins.components(count, [edge[:2] for edge in edges])
    whole = nx.Graph()
    whole.add_nodes_from(range(count))
    whole.add_edges_from(edge[:2] for edge in edges)
    assert {frozenset(np.flatnonzero(found == root).tolist()) for root in found} == set(
        map(frozenset, nx.connected_components(whole))
    )


def test_a_long_chain_and_a_star_in_any_order():
    """100,000 nodes in one path, edges shuffled: no recursion, and the lowest node is the root."""
    count = 100_000
    order = np.random.default_rng(1).permutation(count)
    for left in (order[:-1], np.full(count - 1, order[0])):
        shuffle = np.random.default_rng(2).permutation(count - 1)
        assert not unionfind.components(count, left[shuffle], order[1:][shuffle]).any()


@given(graph=GRAPHS)
def test_predecessors_lie_on_shortest_ways_and_take_the_heaviest_edge(graph):
    count, edges = graph
    left, right, weight = ends(edges)
    roots = unionfind.components(count, left, right)
    before, by = unionfind.predecessors(roots, left, right, weight)
    whole = nx.Graph()
    whole.add_nodes_from(range(count))
    for a, b, w in edges:
        if a != b:
            whole.add_edge(a, b, weight=max(w, whole.get_edge_data(a, b, {"weight": 0})["weight"]))
    for node in range(count):
        depth = nx.single_source_shortest_path_length(whole, int(roots[node]))
        if roots[node] == node:
            assert before[node] == node and np.isnan(by[node])
            continue
        possible = [(-whole[node][u]["weight"], u) for u in whole[node] if depth[u] == depth[node] - 1]
        assert (-by[node], before[node]) == min(possible)


def digest(number: int | None) -> bytes | None:
    return None if number is None else bytes([255 - number]) * 16


def tables(digests: list[int | None], pairs: dict[tuple[int, int], float | None]) -> tuple[pa.Table, pa.Table]:
    ids = [f"s:f:{number:03}" for number in range(len(digests))]
    documents = {"doc_id": pa.array(ids, pa.string()), "digest": pa.array(map(digest, digests), pa.binary(16))}
    rows = [{"a": digest(a), "b": digest(b), "jaccard": w} for (a, b), w in pairs.items()]
    return pa.table(documents), pa.Table.from_pylist(rows, PAIRS)


def brute(digests: list[int | None], pairs: dict[tuple[int, int], float | None]) -> list[int]:
    """The first document of each document's cluster, from a graph of documents."""
    edges = []
    for i, a in enumerate(digests):
        for j, b in enumerate(digests[:i]):
            if a is not None and b is not None and (a == b or (min(a, b), max(a, b)) in pairs):
                edges.append((i, j))
    return twins.components(len(digests), edges)


@given(corpus=CORPORA)
def test_clusters_are_those_of_brute_force(corpus):
    digests, pairs = corpus
    rows = clusters(*tables(digests, pairs)).to_pylist()
    first = brute(digests, pairs)
    for number, row in enumerate(rows):
        together = [other for other, root in enumerate(first) if root == first[number]]
        assert row["doc_id"] == f"s:f:{number:03}" and row["cluster"] == f"s:f:{first[number]:03}"
        assert (row["dup_rank"], row["cluster_size"]) == (together.index(number), len(together))
        assert row["dup_of"] == (None if number == first[number] else row["cluster"])


@given(corpus=CORPORA)
def test_what_via_claims_is_true_step_by_step(corpus):
    """Each step is a verified pair or an equal set, the way ends at the survivor, and no way is shorter."""
    digests, pairs = corpus
    rows = clusters(*tables(digests, pairs)).to_pylist()
    graph = nx.Graph([pair for pair in pairs if set(pair) <= set(digests)])
    graph.add_nodes_from(known for known in digests if known is not None)
    for number, row in enumerate(rows):
        if row["dup_rank"] == 0:
            assert row["via"] is row["via_jaccard"] is row["jaccard"] is None
            continue
        survivor = int(row["dup_of"][-3:])
        steps = 0
        here = number
        while here != survivor:
            there = int(rows[here]["via"][-3:])
            assert rows[here]["via_jaccard"] == similarity(digests[here], digests[there], pairs)
            here, steps = there, steps + 1
        assert steps == max(1, nx.shortest_path_length(graph, digests[number], digests[survivor]))
        assert row["jaccard"] == similarity(digests[number], digests[survivor], pairs)


QUALITIES = twins.long_lists(
    st.tuples(st.none() | st.sampled_from([0.5, 0.5, 0.9, float("nan")]), st.integers(0, 2)), 20
)


@given(corpus=CORPORA, worth=QUALITIES)
def test_the_best_survives_under_the_name_of_the_earliest(corpus, worth):
    """Ranks go by quality, length and doc_id; who is in which cluster, and its name, are as ever."""
    digests, pairs = corpus
    documents, found = tables(digests, pairs)
    quality, size = zip(*((worth + [(None, 0)] * len(digests))[: len(digests)]), strict=True) if digests else ((), ())
    documents = documents.append_column("a.quality", pa.array(quality, pa.float64()))
    documents = documents.append_column("text_bytes", pa.array(size, pa.int64()))
    usual = clusters(documents, found).to_pylist()
    rows = preferred(documents, found, reads(survivor="best", quality="a.quality")).to_pylist()
    assert preferred(documents, found, reads(survivor="earliest", quality=None)).to_pylist() == usual

    def worse(number: int) -> tuple[int, float, int, int]:
        known = quality[number]
        rank = 2 if known is None else 1 if np.isnan(known) else 0
        return rank, 0.0 if rank else -known, -size[number], number

    members: dict[str, list[int]] = {}
    for number, (row, before) in enumerate(zip(rows, usual, strict=True)):
        assert all(row[name] == before[name] for name in ("doc_id", "cluster", "cluster_size"))
        members.setdefault(row["cluster"], []).append(number)
    for together in members.values():
        ranked = sorted(together, key=worse)
        assert [rows[number]["dup_rank"] for number in ranked] == list(range(len(ranked)))
        best = rows[ranked[0]]["doc_id"]
        assert [rows[number]["dup_of"] for number in ranked] == [None, *[best] * (len(ranked) - 1)]
        for number in ranked[1:]:
            here, steps = number, 0
            while here != ranked[0]:
                here, steps = int(rows[here]["via"][-3:]), steps + 1
                assert steps <= len(ranked)


def similarity(a: int | None, b: int | None, pairs: dict[tuple[int, int], float | None]) -> float | None:
    """What was verified of two sets; None where they were not compared."""
    assert a is not None and b is not None
    return 1.0 if a == b else pairs.get((min(a, b), max(a, b)))


@given(corpus=CORPORA, gone=st.sets(st.integers(0, 19)))
def test_clusters_depend_on_those_present_alone(corpus, gone):
    """Formed among some documents, they are those of a corpus that never had the others."""
    digests, pairs = corpus
    documents, found = tables(digests, pairs)
    kept = [number for number in range(len(digests)) if number not in gone]
    some = documents.take(pa.array(kept, pa.int64()))
    alone, _ = tables([digests[number] for number in kept], pairs)
    names = dict(zip(alone["doc_id"].to_pylist(), some["doc_id"].to_pylist(), strict=True))
    expected = [renamed(row, names) for row in clusters(alone, found).to_pylist()]
    assert clusters(some, found).to_pylist() == expected


def renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {key: names.get(value, value) if isinstance(value, str) else value for key, value in row.items()}


# Split groups


@given(
    digests=twins.long_lists(st.integers(0, 6), 15).filter(bool),
    exact=st.lists(st.integers(0, 14), min_size=15, max_size=15),
    near=st.lists(st.integers(0, 14), min_size=15, max_size=15),
    seed=st.integers(0, 9),
)
def test_split_groups_join_what_any_relation_joins(digests, exact, near, seed):
    """Against walking over all links; and the rows' order does not matter."""
    ids = [f"s:f:{number:02}" for number in range(len(digests))]
    edges = [(i, j) for i, a in enumerate(digests) for j, b in enumerate(digests[:i]) if a == b]
    relations, names = [], [*map(list, zip(ids, strict=True))]
    for clustered in (exact, near):
        of = [min(number, clustered[number]) for number in range(len(digests))]
        edges += [(i, j) for i, a in enumerate(of) for j, b in enumerate(of[:i]) if a == b]
        # A relation knows documents that have left since, too,
        # and a cluster whose lowest has left keeps its name.
        named = [f"s:e:{c:02}" if c % 3 == 0 else ids[c] for c in of]
        relations.append(pa.table({"doc_id": [*ids, "s:gone:0"], "cluster": [*named, named[0] if named else None]}))
        for known, name in zip(names, named, strict=True):
            known.append(name)
    order = np.random.default_rng(seed).permutation(len(ids))
    unset = pa.nulls(len(ids), pa.string())
    table = pa.table({"doc_id": ids, "text_digest": [bytes([d]) * 16 for d in digests], "split": unset})
    table = table.append_column("split_group", unset).take(pa.array(order))
    found = split.assign(table, relations, {"val": 0.4, "test": 0.1})
    roots = twins.components(len(ids), edges)
    for row in found.to_pylist():
        root = roots[ids.index(row["doc_id"])]
        group = min(name for known, other in zip(names, roots, strict=True) if other == root for name in known)
        assert row["split_group"] == group and row["split"] == split.choose(group, {"test": 0.1, "val": 0.4})
    assert found["doc_id"].to_pylist() == [ids[number] for number in order]


@pytest.mark.parametrize("shares", [{"val": 0.01}, {"val": 0.1, "test": 0.3}])
def test_splits_have_their_shares_and_adding_a_share_moves_no_one_else(shares):
    """40,000 groups, within five standard errors of each share."""
    ids = [f"source:file.jsonl:{number}" for number in range(40_000)]
    chosen = [split.choose(group, shares) for group in ids]
    for name, share in shares.items():
        assert abs(chosen.count(name) / len(ids) - share) < 5 * (share * (1 - share) / len(ids)) ** 0.5
    more = [split.choose(group, {**shares, "z": 0.05}) for group in ids]
    assert all(a == b or (a, b) == ("train", "z") for a, b in zip(chosen, more, strict=True))


@given(digests=twins.long_lists(st.integers(0, 20), 15).filter(bool), held=st.sets(st.integers(0, 14)))
def test_a_split_of_sources_is_theirs_and_that_of_every_group_of_theirs(digests, held):
    names = ["dev" if number in held else "dev2" if number % 5 == 0 else "train" for number in range(len(digests))]
    ids = [f"{name}:f:{number:02}" for number, name in enumerate(names)]
    unset = pa.nulls(len(ids), pa.string())
    table = pa.table({"doc_id": ids, "text_digest": [bytes([d]) * 16 for d in digests], "split": unset})
    shares = {"test": ["dev"], "val": 0.5, "z": ["dev2"]}
    found = split.assign(table.append_column("split_group", unset), [], shares).to_pylist()
    for row, digest in zip(found, digests, strict=True):
        group = {other for other, its in zip(names, digests, strict=True) if its == digest}
        hashed = split.choose(row["split_group"], {"val": 0.5})
        assert row["split"] == ("test" if "dev" in group else "z" if "dev2" in group else hashed)
