"""Children that may not stay: those whose parent left, and copies of what another split is tested on."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import books, children
from pipeline.audit import audit
from pipeline.rules import Rule
from pipeline.run import BORN
from pipeline.store import Store
from tests import builds
from tests.pipeline import twins

ORDER = ["normalise", "eda", "again"]
SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("parent_id", pa.string()),
        (BORN, pa.int32()),
        ("text_digest", pa.binary(16)),
        ("split", pa.string()),
    ]
)
# Each child's parent is an original or a child before it (by number), its text one of five.
FAMILIES = st.tuples(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["train", "val", "test"])), min_size=1, max_size=6),
    twins.long_lists(st.tuples(st.integers(0, 99), st.integers(0, 4), st.sampled_from([2, 3])), 12),
)


def rows(family: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Originals and children; a child is in the split of its parent."""
    originals = [
        {"doc_id": f"o{n}", "parent_id": None, BORN: 0, "text_digest": bytes([text]) * 16, "split": split}
        for n, (text, split) in enumerate(family[0])
    ]
    born: list[dict[str, Any]] = []
    for number, (parent, text, stage) in enumerate(family[1]):
        of = (originals + born)[parent % (len(originals) + len(born))]
        child = {"doc_id": f"c{number}", "parent_id": of["doc_id"], BORN: stage, "split": of["split"]}
        born.append({**child, "text_digest": bytes([text]) * 16})
    return originals, born


def table(some: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(some, SCHEMA)


@given(family=FAMILIES)
def test_copies_are_those_of_brute_force(family):
    originals, born = rows(family)
    found = {row["doc_id"]: row for row in children.copies(table(born), table(originals), ORDER).to_pylist()}
    by_id = {row["doc_id"]: row for row in originals}
    for child in born:
        held = [o for o in originals if o["text_digest"] == child["text_digest"] and o["split"] != child["split"]]
        assert (child["doc_id"] in found) == bool(held)
        if held:
            row = found[child["doc_id"]]
            assert (row["stage"], row["reason"]) == (ORDER[child[BORN] - 1], "text of another split")
            assert row["verdict"] == "dropped" and by_id[row["detail"].removeprefix("dup_of=")] in held


@given(family=FAMILIES, gone=st.sets(st.integers(0, 17)))
def test_whose_parent_left_leaves_and_so_do_its_children(family, gone):
    originals, born = rows(family)
    everyone = originals + born
    left = {everyone[n]["doc_id"] for n in gone if n < len(everyone)}
    found = children.orphans(table(born), pa.array(sorted(left), pa.string()), ORDER).to_pylist()
    expected = {}
    for child in born:
        if child["doc_id"] not in left and child["parent_id"] in left | set(expected):
            expected[child["doc_id"]] = (ORDER[child[BORN] - 1], "dropped", "parent left", child["parent_id"])
    assert {r["doc_id"]: (r["stage"], r["verdict"], r["reason"], r["detail"]) for r in found} == expected
    assert len(found) == len(expected)


def test_a_child_is_judged_by_the_stages_that_follow_its_birth():
    born = table([{"doc_id": f"c{n}", BORN: n} for n in range(4)])
    exempt = children.not_born(ORDER)
    said = {stage: exempt(Rule(stage, "n", "below", 1), born).to_pylist() for stage in ("licence", *ORDER)}
    assert said == {
        "licence": [False, True, True, True],
        "normalise": [False, True, True, True],
        "eda": [False, False, True, True],
        "again": [False, False, False, True],
    }


def test_a_child_that_spells_a_held_out_text_leaves_a_build(tmp_path):
    """Sixty texts of two words and their mirror images: what a swap makes of one is the other, in validation maybe."""
    corpus = builds.write_corpus(tmp_path / "corpus", documents=60)
    for number in range(60):
        rows = [{"text": text, "label": "1", "url": ""} for text in (f"a{number} b{number}", f"b{number} a{number}")]
        (corpus / f"m{number:02}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stages = [{"use": "normalise"}, {"use": "exact"}, {"use": "eda", "children": 1, "deletion": 0.0}]
    recipe = builds.make_recipe(corpus, stages, pack={"layout": "examples", "length": 64, "split": {"val": 0.3}})
    version, store = builds.build(recipe, tmp_path / "store"), Store(tmp_path / "store")
    split = dict(zip(*(version.index()[name].to_pylist() for name in ("doc_id", "split")), strict=True))
    gone = {row["doc_id"]: row for row in books.ledger(store, version.build_keys()).to_pylist() if "#" in row["doc_id"]}
    assert len(gone) > 5
    for number in range(60):
        for row, other in ((1, 2), (2, 1)):
            doc_id, child = f"grain:m{number:02}.jsonl:{row}", f"grain:m{number:02}.jsonl:{row}#eda1"
            if split[doc_id] == "train" and split[mirror := f"grain:m{number:02}.jsonl:{other}"] == "val":
                assert child not in split and (child not in gone or gone[child]["detail"] == f"dup_of={mirror}")
            else:
                assert child not in gone
    assert audit(version, store).problems == []
