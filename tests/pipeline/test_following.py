"""What `why` shows beside the verdict: the path, the survivor, two texts side by side, and the line behind a token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline import books
from pipeline.catalog import beside, queries
from pipeline.catalog.behind import behind
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store
from tests import builds


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Store, Version, Path]:
    root = tmp_path_factory.mktemp("following")
    corpus = builds.write_corpus(root / "corpus")
    text = "Une première ligne.\nla seconde ligne: été, "
    rows = [{"text": text + f"roue {n} et moulin " * 30, "label": "0", "url": "u"} for n in (1, 2)]
    lines = [json.dumps(row) for row in rows]
    (corpus / "two.jsonl").write_text("\n".join(lines), "utf-8")
    version = builds.build(builds.make_recipe(corpus), root / "store", partition_bytes=20_000)
    return Store(root / "store"), version, corpus


def test_the_path_ends_where_the_document_left_and_shows_what_was_measured(made):
    store, version, _ = made
    gone = books.ledger(store, version.build_keys()).to_pylist()
    order = [entry["stage"] for entry in version.manifest["accounting"]]
    for stage in ("gopher", "exact", "near"):
        row = next(row for row in gone if row["stage"] == stage)
        found = queries.why(store, version, row["doc_id"])
        assert [step["stage"] for step in found.path] == order[: order.index(stage) + 1]
        assert [step["verdict"] for step in found.path] == ["passed"] * order.index(stage) + ["dropped"]
        column, value = row["detail"].split()[0].split("=")
        assert str(found.path[-1]["measured"][column]) == value
        assert any(rule["column"] == column for rule in found.path[-1]["rules"])
    kept = queries.why(store, version, version.index(["doc_id"])["doc_id"][0].as_py())
    assert [step["stage"] for step in kept.path] == order and kept.verdict == "kept"


def test_a_duplicate_knows_its_cluster_and_how_like_its_survivor_it_is(made):
    store, version, _ = made
    gone = books.ledger(store, version.build_keys()).to_pylist()
    compared = 0
    for row in (row for row in gone if row["stage"] in ("exact", "near")):
        lost = queries.why(store, version, row["doc_id"]).lost
        assert lost and lost.stage == row["stage"] and f"dup_of={lost.survivor}" in row["detail"]
        assert lost.members[0] == lost.survivor and row["doc_id"] in lost.members and lost.size == len(lost.members)
        assert lost.members[lost.rank] == row["doc_id"]
        if " jaccard=" in row["detail"]:
            compared += 1
            assert lost.verified and f"jaccard={lost.jaccard}" in row["detail"]
            marked = [r for r in lost.rows if r.kind == "changed"]
            assert marked or lost.jaccard == 1.0
            assert all(
                r.left[a:b] != r.right[c:d]
                for r in marked
                for (a, b), (c, d) in zip(r.left_marks, r.right_marks, strict=False)
            )
        else:
            assert (
                row["stage"] == "exact" and lost.jaccard == 1.0 and {r.kind for r in lost.rows} <= {"equal", "skipped"}
            )
    assert compared > 5
    assert queries.why(store, version, version.index(["doc_id"])["doc_id"][0].as_py()).lost is None


LINES = st.lists(st.sampled_from(["a b c.", "a x c.", "", "長い行。", "\x1b[31mred", "same same"]), max_size=12)


@given(LINES, LINES)
@settings(max_examples=200, deadline=None)
def test_side_by_side_holds_every_line_of_both_and_marks_what_differs(left, right):
    rows = beside.side_by_side("\n".join(left), "\n".join(right))
    whole = not any(row.kind == "skipped" for row in rows)
    for side, lines in (("left", left), ("right", right)):
        shown = [getattr(row, side) for row in rows if row.kind != "skipped" and getattr(row, side) is not None]
        said = [line for line in lines if line]
        assert shown == said if whole else len(shown) < len(said)
    for row in rows:
        if row.kind == "changed":
            parts = []
            for text, marks in ((row.left, row.left_marks), (row.right, row.right_marks)):
                for start, end in reversed(marks):
                    text = text[:start] + text[end:]
                parts.append(text)
            assert parts[0] == parts[1] and row.left != row.right


def test_the_line_behind_a_token_is_the_one_that_the_source_holds(made):
    store, version, corpus = made
    tokenizer = Tokenizer.from_file(str(version.folder / "tokenizer.json"))
    ids = [doc_id for doc_id in version.index(["doc_id"])["doc_id"].to_pylist() if ":two.jsonl:" in doc_id]
    rows = [json.loads(line) for line in (corpus / "two.jsonl").read_text("utf-8").splitlines()]
    assert ids
    for doc_id in ids:
        text = rows[int(doc_id.rpartition(":")[2]) - 1]["text"].strip()
        tokens = tokenizer.encode(text).ids
        lines = text.split("\n")
        for number in range(1, len(tokens) + 1):
            found = behind(store, version, doc_id, number)
            assert (found.file, found.row) == (str(corpus / "two.jsonl"), int(doc_id.rpartition(":")[2]))
            assert found.text is not None and found.text[found.start : found.end] == found.token
            assert found.text.rstrip("\n") in lines[found.line - 1] + "\n"
            assert len(tokenizer.decode(tokens[:number])) >= text.index(lines[found.line - 1])
        for number in (0, len(tokens) + 1):
            assert behind(store, version, doc_id, number).text is None
    assert behind(store, version, ids[0], 3).line == 1 and behind(store, version, ids[0], len(tokens)).line == 2


def test_a_version_without_its_books_cannot_be_asked_for_lines(made, tmp_path):
    _, version, _ = made
    with pytest.raises(ConfigError, match="outputs are missing"):
        behind(Store(tmp_path), version, "grain:a.jsonl:1", 1)
