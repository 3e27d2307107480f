"""What if is exact: who would be kept, and why the others would not, is what a build with the changed rule says.

Random single thresholds, tighter and looser, over real builds with every kind of barrier; each build is the oracle.
Where the stored values do not say it, the refusal counts what the build then measures for the first time.
"""

from __future__ import annotations

import copy
import os
import random
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import books
from pipeline.changes import Ruled, changed, parse, ruled
from pipeline.manifest import Version
from pipeline.rejudge import Books, Unmeasured
from pipeline.store import Store, read_parquet
from tests.bench import whatif as bench
from tests.builds import STAGES, allowing_all, build, make_recipe, with_lines, write_corpus

GOPHER = {"use": "gopher", "drop": {"word_count": {"below": 20}, "mean_word_length": {"above": 5.5}}}
EXACT, NEAR = ({"use": use, "drop": {"dup_rank": {"above": 0}}} for use in ("exact", "near"))
BEST = {**NEAR, "survivor": "best", "quality": "gopher.mean_word_length"}
LINES = {"use": "paragraphs", "min_characters": 5, "unit": "line", "drop": {"cut_share": {"above": 0.9}}}
CUT = {"use": "paragraphs", "min_characters": 5, "unit": "line"}
WINDOWS = {"use": "substring", "length": 12, "drop": {"cut_share": {"above": 0.7}}}
SHAPES: dict[str, list[dict[str, Any]]] = {
    "one segment": STAGES,
    "quality decides": [{"use": "normalise"}, GOPHER, EXACT, BEST],
    "no duplicates looked for": [{"use": "normalise"}, GOPHER],
    "two segments": [{"use": "normalise"}, {**GOPHER}, EXACT, {"use": "repetition"}, NEAR],
    "exact first": [EXACT, {"use": "normalise"}, GOPHER, NEAR],
    "children": [{"use": "normalise"}, GOPHER, EXACT, NEAR, {"use": "eda", "children": 1}, {"use": "fineweb"}],
    "passages": [{"use": "normalise"}, GOPHER, EXACT, LINES],
    "passages, then more": [{"use": "normalise"}, GOPHER, EXACT, LINES, {"use": "fineweb"}, NEAR],
    "passages, then children": [{"use": "normalise"}, GOPHER, WINDOWS, {"use": "eda", "children": 1}],
}
TRIALS = int(os.environ.get("GRISTMILL_TRIALS", "4"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds a recipe once in a store that all tests of this module share."""
    folder = tmp_path_factory.mktemp("whatif")
    corpus, found = with_lines(write_corpus(folder / "corpus", 180)), {}

    def get(stages: list[dict[str, Any]]) -> tuple[Version, Store]:
        key = repr(stages)
        if key not in found:
            recipe = allowing_all(make_recipe(corpus, stages), folder / "store")
            found[key] = build(recipe, folder / "store"), Store(folder / "store")
        return found[key]

    return get


def ends(version: Version, store: Store) -> tuple[set[str], set[tuple[str, ...]]]:
    """Ids that a version keeps, and what its ledger says of the others."""
    gone = books.ledger(store, version.build_keys())
    return set(version.index(["doc_id"])["doc_id"].to_pylist()), rows(gone)


def rows(ledger: pa.Table) -> set[tuple[str, ...]]:
    found = list(zip(*(ledger[name].to_pylist() for name in ledger.column_names), strict=True))
    assert len(set(found)) == len(found)
    return set(found)


def thresholds(store: Store, version: Version, stages: list[Ruled], seed: int) -> list[tuple[str, str, str, Any]]:
    """Random (stage, column, bound, value): over any measured number, with values that the corpus has."""
    draw, found = random.Random(seed), []
    numbers = [
        (s, c)
        for s in stages
        for c, kind in s.columns.items()
        if pa.types.is_integer(kind) or pa.types.is_floating(kind)
    ]
    ruled_ones = [(s, r.column) for s in stages for r in s.rules if r.operator in ("below", "above")]
    for number in range(TRIALS):
        stage, column = draw.choice(ruled_ones if number % 2 else numbers)
        keys = version.build_keys().segments[stage.segment]
        related = {relate["stage"]: [(relate["cluster"], "relation.parquet")] for relate in keys.relates}
        places = related.get(stage.name, [(key, "signals.parquet") for key in keys.parts])
        signal = f"{stage.name}.{column}"
        values = pa.concat_tables(read_parquet(store.file(key, name), [signal]) for key, name in places)[signal]
        known = values.drop_null().to_pylist() or [0]
        bound = draw.choice(["below", "above"])
        found.append((stage.name, column, bound, draw.choice(sorted(known))))
    return found


def with_bound(stages: list[dict[str, Any]], stage: str, column: str, bound: str, value: Any) -> list[dict[str, Any]]:
    """The recipe's stages with one bound set: what a person would write."""
    table = copy.deepcopy(stages)
    [mine] = [entry for entry in table if entry["use"] == stage]
    mine.setdefault("drop", {}).setdefault(column, {})[bound] = value
    return table


@pytest.mark.parametrize("shape", SHAPES)
def test_who_is_kept_is_who_a_build_with_the_changed_rule_keeps(built, shape):
    version, store = built(SHAPES[shape])
    stages = ruled(version, store)
    asked = Books(version, store, stages)
    kept, ledger = ends(version, store)
    same = asked.judge(stages)
    assert set(same.kept["doc_id"].to_pylist()) == kept and rows(same.ledger) == ledger
    answered = 0
    for stage, column, bound, value in thresholds(store, version, stages, seed=len(shape)):
        change = f"{stage}.{column}.{bound}={value!r}"
        other = with_bound(SHAPES[shape], stage, column, bound, value)
        try:
            found = asked.judge(changed(stages, [parse(change)]))
        except Unmeasured as refused:
            assert refused.documents > 0 and len(asked.segments) > 1
            continue
        answered += 1
        try:
            again, _ = built(other)
        except ValueError as error:
            assert re.search("no document is left|came out empty", str(error)) and found.kept.num_rows < 20, change
            continue
        kept, ledger = ends(again, store)
        assert set(found.kept["doc_id"].to_pylist()) == kept, change
        assert rows(found.ledger) == ledger, change
        index = again.index(["doc_id", "text_bytes"])
        at = pc.index_in(found.kept["doc_id"], index["doc_id"].combine_chunks())
        assert np.array_equal(found.kept["text_bytes"], index["text_bytes"].take(at)), change
    assert answered


@pytest.mark.slow
def test_ten_thresholds_over_real_documentation_agree_with_their_builds_and_take_less_than_two_seconds(
    shared_data, tmp_path, record_property
):
    found = list(bench.trials(shared_data, tmp_path, 10))
    for trial in found:
        record_property(trial.change, f"{trial.seconds:.2f} s, {trial.kept} kept")
    assert [trial.change for trial in found if not trial.agrees] == []
    assert {trial.direction for trial in found} == {bench.TIGHTER, bench.LOOSER}
    assert sorted(trial.seconds for trial in found)[5] < 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([{"use": "near"}, {"use": "eda", "children": 1}], "would come to eda in another split"),
        ([CUT, {"use": "fineweb"}], "would come to fineweb with another text than was measured"),
        ([CUT], ""),
    ],
)
def test_where_documents_come_on_with_another_text_or_split_what_if_refuses(built, more, said):
    """Who leaves takes along the name of its cluster, and the lines of which it was the first; the others stay.

    Where nothing looks at it behind the cut, it answers: then a text of which nothing was left may hold a line again.
    """
    stages = [{"use": "normalise"}, {"use": "gopher"}, *more]
    version, store = built(stages)
    asked, known = Books(version, store, ruled(version, store)), ruled(version, store)
    refused, answered = [], 0
    for value in np.linspace(4, 4.9, 9).round(3).tolist():
        try:
            found = asked.judge(changed(known, [parse(f"gopher.mean_word_length.below={value}")]))
        except Unmeasured as error:
            refused.append(str(error))
            continue
        again, _ = built(with_bound(stages, "gopher", "mean_word_length", "below", value))
        assert set(found.kept["doc_id"].to_pylist()) == ends(again, store)[0]
        assert rows(found.ledger) == ends(again, store)[1]
        answered += 1
    assert answered and bool(refused) == bool(said) and all(said in sentence for sentence in refused)
