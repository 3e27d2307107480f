"""Stages that ask for the same text are measured by one call: the same bits, and the same one accused."""

from __future__ import annotations

import pytest

from pipeline import run, stage, together
from pipeline.kernels import scratch, text
from pipeline.schema import documents, ledger
from pipeline.sources import Chunk
from pipeline.stages import repetition
from tests.laws import nasty

STAGES = [("gopher", {}), ("fineweb", {"dialect": "paper"}), ("repetition", {})]


def chunk(texts) -> Chunk:
    rows = [{"doc_id": f"t:t:{number}", "text": value, "source": "t"} for number, value in enumerate(texts)]
    return Chunk(documents(rows), ledger([]))


def outcome(stages, texts, rows: int = 50) -> run.Outcome:
    return run.run([chunk(texts)], [stage.load(use, params) for use, params in stages], [], rows)


@pytest.fixture
def asked(monkeypatch) -> list[text.Ask]:
    """What every call of the kernel was asked for."""
    seen: list[text.Ask] = []
    plain = text.counts

    def counts(column, ask):
        seen.append(ask)
        return plain(column, ask)

    for name in ("gopher", "fineweb", "repetition"):
        monkeypatch.setattr(f"pipeline.stages.{name}.counts", counts)
    monkeypatch.setattr(text, "counts", counts)
    return seen


def test_one_call_says_what_each_says_alone(asked):
    texts = list(nasty.TEXTS.values())
    whole = outcome(STAGES, texts, len(texts)).signals
    assert len(asked) == 1
    for use in STAGES:
        alone = outcome([use], texts).signals
        assert whole.select(alone.column_names).equals(alone)


def test_what_one_call_cannot_answer_takes_two(asked):
    texts = list(nasty.TEXTS.values())
    mixed = [("gopher", {}), ("repetition", {"units": "script"}), ("fineweb", {"units": "script"})]
    whole = outcome(mixed, texts, len(texts)).signals
    assert [ask.by_script for ask in asked] == [False, True]
    for use in mixed:
        alone = outcome([use], texts).signals
        assert whole.select(alone.column_names).equals(alone)


def test_lists_of_stop_words_are_not_mixed():
    first, second, none = text.Ask(stop_words=("a",)), text.Ask(stop_words=("b",)), text.Ask(repetition=True)
    assert first.with_(second) is None
    assert first.with_(none) == none.with_(first) == text.Ask(repetition=True, stop_words=("a",))


def test_a_stage_that_rewrites_parts_what_it_stands_between(asked):
    outcome([("gopher", {}), ("normalise", {}), ("fineweb", {}), ("repetition", {})], ["one\r\ntwo"])
    assert len(asked) == 2


def test_a_document_that_nobody_can_measure_is_accused_alone(monkeypatch):
    monkeypatch.setattr(scratch, "MOST_BYTES", 1000)
    texts = ["a short text"] * 20 + ["long " * 300] + ["another"] * 20
    found = outcome(STAGES, texts)
    assert found.documents.num_rows == 40
    assert [(e["doc_id"], e["stage"], e["reason"]) for e in found.errors.to_pylist()] == [
        ("t:t:20", "gopher", "ValueError")
    ]


def test_the_stage_that_breaks_is_the_one_that_accuses(monkeypatch):
    plain = repetition.signals

    def signals(counts, **params):
        if 7 in counts["words"]:
            raise ZeroDivisionError("seven words")
        return plain(counts, **params)

    monkeypatch.setattr(repetition, "signals", signals)
    found = outcome(STAGES, ["one two"] * 9 + ["1 2 3 4 5 6 7"] + ["three four five"] * 9)
    assert [(e["doc_id"], e["stage"], e["detail"]) for e in found.errors.to_pylist()] == [
        ("t:t:9", "repetition", "seven words")
    ]
    assert found.signals["gopher.word_count"].to_pylist() == [2] * 9 + [3] * 9


def test_nobody_is_measured_twice():
    found, names = together.measure([stage.load("gopher", {}), stage.load("exact", {})], run.empty())
    assert names == [] and found.equals(run.empty())
