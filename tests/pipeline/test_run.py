"""One partition through its stages: the books balance, and one bad document is accused, not its batch."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.run import ContractError, run
from pipeline.schema import documents, ledger, replace
from pipeline.sources import Chunk
from pipeline.stage import Stage, measure


def stage(function, kind, **signals) -> Stage:
    return Stage(
        function.__name__,
        function.__name__,
        kind,
        function,
        {},
        {k: pa.type_for_alias(v) for k, v in signals.items()},
    )


def chunk(count: int, rejects: int = 0) -> Chunk:
    docs = documents([{"doc_id": f"toy:f:{i}", "text": f"text {i}", "source": "toy"} for i in range(count)])
    bad = [
        {"doc_id": f"toy:bad:{i}", "stage": "source", "verdict": "quarantined", "reason": "not JSON"}
        for i in range(rejects)
    ]
    return Chunk(docs, ledger(bad))


BAD = {"toy:f:3", "toy:f:500"}


def length(batch):
    if BAD & set(batch["doc_id"].to_pylist()):
        raise ValueError("a text that it cannot bear")
    return {"n": pc.utf8_length(batch["text"])}


def test_only_the_bad_documents_are_quarantined():
    calls = []

    def counted(batch):
        calls.append(batch.num_rows)
        return length(batch)

    outcome = run([chunk(1000, rejects=2)], [stage(counted, "measure", n="int32")], [], 256)
    assert outcome.documents.num_rows == 998 and outcome.entered.num_rows == 1002
    left = {row["doc_id"]: (row["stage"], row["reason"], row["detail"]) for row in outcome.errors.to_pylist()}
    assert {i for i in left if i in BAD} == BAD and left["toy:f:3"] == (
        "counted",
        "ValueError",
        "a text that it cannot bear",
    )
    assert len(calls) < 50, "the accused are found by halving, not one by one"
    assert outcome.signals["counted.n"].null_count == 0


@pytest.mark.parametrize("rows", [1, 7, 100, 5000])
def test_the_outcome_does_not_depend_on_the_batch_size(rows):
    expected = run([chunk(1000)], [stage(length, "measure", n="int32")], [], 333)
    found = run([chunk(400), chunk(0)], [stage(length, "measure", n="int32")], [], rows)
    assert found.signals.equals(
        expected.signals.filter(pc.is_in(expected.signals["doc_id"], found.signals["doc_id"].combine_chunks()))
    )


def test_a_partition_without_documents_keeps_its_schema():
    whole = run([chunk(5)], [stage(length, "measure", n="int32")], [], 10)
    nothing = run([chunk(0)], [stage(length, "measure", n="int32")], [], 10)
    assert nothing.signals.schema == whole.signals.schema and nothing.documents.schema == whole.documents.schema


def test_floats_are_rounded_and_nan_is_null():
    @measure(x="float64")
    def thirds(batch):
        return {"x": pa.array([1 / 3, float("nan"), None][: batch.num_rows])}

    outcome = run([chunk(3)], [stage(thirds, "measure", x="float64")], [], 10)
    assert outcome.signals["thirds.x"].to_pylist() == [0.333333, None, None]


def twice(batch):
    """Children whose columns, signals included, are copied from the parent."""
    names = pa.array([f"{i}#1" for i in batch["doc_id"].to_pylist()], pa.string())
    return pa.concat_batches([batch, replace(batch, doc_id=names, parent_id=batch["doc_id"])])


def test_children_are_booked_and_have_no_measurement_from_before_their_birth():
    outcome = run([chunk(600)], [stage(length, "measure", n="int32"), stage(twice, "extend")], [], 100)
    assert outcome.added == {"twice": 598} and outcome.documents.num_rows == 598 * 2
    born = outcome.signals.filter(pc.greater(outcome.signals["born"], 0))
    assert born.num_rows == 598 and born["length.n"].null_count == 598


def again(batch):
    """Children of all, children included, unless a text is too much for it."""
    if BAD & set(batch["doc_id"].to_pylist()):
        raise ValueError("a text that it cannot bear")
    names = pa.array([f"{i}#2" for i in batch["doc_id"].to_pylist()], pa.string())
    return pa.concat_batches([batch, replace(batch, doc_id=names, parent_id=batch["doc_id"])])


def test_an_accused_document_does_not_disturb_who_was_born_when():
    """Two stages that add, and the second cannot bear two documents: who was born of the first stays so."""
    outcome = run([chunk(600)], [stage(twice, "extend"), stage(again, "extend")], [], 100)
    assert outcome.added == {"twice": 600, "again": 1198}
    assert sorted(outcome.errors["doc_id"].to_pylist()) == sorted(BAD)
    born = dict(zip(outcome.signals["doc_id"].to_pylist(), outcome.signals["born"].to_pylist(), strict=True))
    assert len(born) == 2 * 1198
    for doc_id, number in born.items():
        assert number == (2 if doc_id.endswith("#2") else 1 if doc_id.endswith("#1") else 0), doc_id


def sketching(batch):
    return {"digest": pc.cast(batch["doc_id"], pa.binary())}


def choosy(batch):
    length(batch)
    return sketching(batch)


def test_a_document_that_one_sketch_accuses_has_none_of_another_either():
    outcome = run([chunk(600)], [], [stage(sketching, "relate"), stage(choosy, "relate")], 100)
    ids = outcome.documents["doc_id"].to_pylist()
    assert len(ids) == 598 and sorted(outcome.errors["doc_id"].to_pylist()) == sorted(BAD)
    assert all(table["doc_id"].to_pylist() == ids for table in outcome.sketches.values())


def leaky(batch):
    return batch.slice(1)


def renamer(batch):
    return replace(batch, doc_id=pa.array([f"x{i}" for i in range(batch.num_rows)]))


def short(batch):
    return {"n": pa.array([1] * (batch.num_rows - 1), pa.int32())}


def other(batch):
    return {"m": pa.array([1] * batch.num_rows, pa.int32())}


def orphaning(batch):
    return pa.concat_batches([batch, replace(batch, parent_id=pa.array(["nobody"] * batch.num_rows))])


@pytest.mark.parametrize(
    ("function", "kind", "signals"),
    [
        (leaky, "rewrite", {}),
        (renamer, "rewrite", {}),
        (short, "measure", {"n": "int32"}),
        (other, "measure", {"n": "int32"}),
        (orphaning, "extend", {}),
        (leaky, "extend", {}),
    ],
)
def test_a_broken_promise_is_a_bug_not_a_quarantine(function, kind, signals):
    with pytest.raises(ContractError, match=function.__name__):
        run([chunk(10)], [stage(function, kind, **signals)], [], 100)
