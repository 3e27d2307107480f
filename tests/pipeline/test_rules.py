"""Rules: they drop, they quarantine what they cannot judge, and they refuse what they do not know."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from pipeline import rules
from pipeline.stage import ConfigError

SIGNALS = {"words": pa.int32(), "score": pa.float64(), "lang": pa.string()}


def table(**columns: list) -> pa.Table:
    count = len(next(iter(columns.values())))
    return pa.table({"doc_id": [f"s:f:{i}" for i in range(count)], **{f"st.{k}": v for k, v in columns.items()}})


def judged(rule_tables: dict, **columns: list) -> dict[str, tuple[str, str, str]]:
    found = rules.judge(table(**columns), rules.parse("st", rule_tables, SIGNALS, "here"))
    return {row["doc_id"][-1]: (row["verdict"], row["reason"], row["detail"]) for row in found.to_pylist()}


def test_bounds_are_exclusive_and_the_first_broken_rule_speaks():
    found = judged(
        {"drop": {"words": {"below": 5, "above": 9}}, "keep": {"lang": ["en"]}},
        words=[4, 5, 9, 10],
        lang=["de", "en", "en", "en"],
    )
    assert found == {
        "0": ("dropped", "lang not in en", "lang=de"),
        "3": ("dropped", "words > 9", "words=10"),
    }


def test_what_was_not_measured_is_quarantined_never_kept():
    found = judged({"drop": {"score": {"below": 0.5}}}, score=[None, math.nan, 0.4, 0.5])
    assert {k: v[:2] for k, v in found.items()} == {
        "0": ("quarantined", "score unmeasured"),
        "1": ("quarantined", "score unmeasured"),
        "2": ("dropped", "score < 0.5"),
    }


def test_a_list_drops_what_it_names():
    assert set(judged({"drop": {"lang": ["xx", "yy"]}}, lang=["xx", "en", "yy"])) == {"0", "2"}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"drop": {"word": {"below": 1}}},
            "drop.word: stage 'st' measures no such column; did you mean 'words'? has: lang, score, words",
        ),
        ({"drop": {"words": {"under": 1}}}, "unknown bound 'under'"),
        ({"drop": {"words": {"below": "1"}}}, "bounds are finite numbers"),
        ({"drop": {"words": {"below": math.nan}}}, "bounds are finite numbers"),
        ({"drop": {"words": {}}}, "states no bound"),
        ({"drop": {"lang": {"below": 1}}}, "give a list"),
        ({"keep": {"lang": "en"}}, "expected a list"),
        ({"keep": {"lang": [1, 2]}}, "the list holds something else"),
        ({"keep": {"words": ["a"]}}, "the list holds something else"),
        ({"keep": {"lang": []}}, "the list is empty"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_at_load(tables, said):
    with pytest.raises(ConfigError) as error:
        rules.parse("st", tables, SIGNALS, "r.toml stage 2 (st)")
    assert said in str(error.value) and "r.toml stage 2" in str(error.value)


def test_an_empty_table_has_no_ledger():
    assert judged({"drop": {"score": {"below": 0.5}}}, score=pa.array([], pa.float64())) == {}
