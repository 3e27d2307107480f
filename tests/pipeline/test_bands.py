"""Bands: a stage that removes more or less than its recipe expects stops the build, and says how much it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import rebuild as rebuilding
from pipeline import remaking
from pipeline.build import Mill
from pipeline.stage import ConfigError
from pipeline.store import Store
from tests import builds

DROP = {"drop": {"word_count": {"below": 20}}}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Of 90 documents twenty are short."""
    return builds.write_corpus(tmp_path_factory.mktemp("corpus"), documents=90)


def stages(**expect):
    return [
        {"use": "normalise"},
        {"use": "gopher", **DROP, **expect},
        {"use": "exact", "drop": {"dup_rank": {"above": 0}}},
    ]


def refused(corpus: Path, expect) -> str:
    with pytest.raises(ConfigError) as told:
        builds.make_recipe(corpus, stages(expect=expect))
    return str(told.value)


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"min": 0.2, "max": 0.1}, "expect: min 0.2 is above max 0.1"),
        ({"max": 1.5}, "expect: max: Input should be less than or equal to 1 (got 1.5)"),
        ({"min": "0"}, "expect: min: Input should be a valid number (got '0')"),
        ({"most": 0.1}, "expect: unknown bound 'most'; has: max, min"),
        ({"word_count": {"mix": 0.1}}, "expect.word_count: unknown bound 'mix'; did you mean 'min'?"),
        ({"word_count": {}}, "expect.word_count: states no bound; has: max, min"),
        ({"word_cout": {"max": 1}}, "expect.word_cout: no rule of this stage reads it; did you mean 'word_count'?"),
        ({"hash_ratio": {"max": 1}}, "expect.hash_ratio: no rule of this stage reads it; has: word_count"),
        ([1], "write expect = {min = .., max = ..} or expect.COLUMN = {..}, not [1]"),
    ],
)
def test_a_band_that_cannot_be_is_refused(corpus, expect, said):
    assert f"test recipe stage 2 (gopher): {said}" in refused(corpus, expect)


def test_what_is_expected_builds_and_is_stated(corpus, tmp_path):
    bands = {"min": 0.05, "max": 0.3, "word_count": {"max": 1}}
    recipe = builds.make_recipe(corpus, stages(expect=bands))
    version = builds.build(recipe, tmp_path)
    assert version.manifest["recipe"]["stages"][1]["expect"] == bands
    assert "expect" not in version.manifest["recipe"]["stages"][0]
    plain = builds.build(builds.make_recipe(corpus, stages()), tmp_path)
    assert plain.manifest["splits"] == version.manifest["splits"]
    store = Store(tmp_path)
    assert rebuilding.rebuild(store, version, version.build_keys(), lambda s, r, i: Mill(s).build(r, i)).equal


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"max": 0.05}, "stage 'gopher' removed"),
        ({"min": 0.5}, "stage 'gopher' removed"),
        ({"word_count": {"max": 0.05}}, "the rules over word_count removed"),
        ({"max": 0.5, "word_count": {"min": 0.5, "max": 0.9}}, "the rules over word_count removed"),
    ],
)
def test_a_rate_outside_its_band_stops_the_build_and_is_told(corpus, tmp_path, expect, said):
    with pytest.raises(ConfigError) as told:
        builds.build(builds.make_recipe(corpus, stages(expect=expect)), tmp_path)
    words = str(told.value)
    assert words.startswith(f"test recipe stage 2 (gopher): {said} 22.2222% of what came, 20 of 90 documents, outside")
    assert "word_count < 20 (20)" in words and not list(tmp_path.glob("versions/*/*/manifest.json"))
    # A band decides no key: what was measured is found again.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/signals.parquet")}
    builds.build(builds.make_recipe(corpus, stages()), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/signals.parquet")} == before


def test_a_rule_over_another_column_is_not_counted(corpus, tmp_path):
    both = {"drop": {**DROP["drop"], "stop_word_count": {"below": 1}}, "expect": {"stop_word_count": {"max": 0.0}}}
    builds.build(builds.make_recipe(corpus, [{"use": "gopher", **both}]), tmp_path)


def test_what_a_rule_cannot_judge_leaves_by_it(corpus, tmp_path):
    """Similarities of those who resemble nobody are null, so such a rule quarantines nearly all."""
    near = {"use": "near", "drop": {"jaccard": {"above": 0.9}}, "expect": {"jaccard": {"max": 0.2}}}
    with pytest.raises(
        ConfigError, match=r"stage 1 \(near\): the rules over jaccard removed .* by: jaccard unmeasured"
    ):
        builds.build(builds.make_recipe(corpus, [near]), tmp_path)


def test_a_stage_that_compares_and_one_that_cuts_have_bands(corpus, tmp_path):
    exact = {"use": "exact", "drop": {"dup_rank": {"above": 0}}, "expect": {"max": 0.0}}
    with pytest.raises(ConfigError, match=r"stage 1 \(exact\): stage 'exact' removed .* by: dup_rank > 0"):
        builds.build(builds.make_recipe(corpus, [exact]), tmp_path)
    # Of equal documents nothing is left when they are cut, which is seen where the next segment begins.
    cut = {"use": "paragraphs", "expect": {"max": 0.0}}
    with pytest.raises(ConfigError, match=r"stage 1 \(paragraphs\): .* by: nothing left"):
        builds.build(builds.make_recipe(corpus, [cut]), tmp_path)
    cut["expect"] = {"min": 0.01, "max": 0.5}
    builds.build(builds.make_recipe(corpus, [cut]), tmp_path)


def test_a_recipe_that_is_written_anew_keeps_its_bands(corpus, tmp_path):
    bands = {"max": 0.5, "word_count": {"max": 0.5}}
    version = builds.build(builds.make_recipe(corpus, stages(expect=bands)), tmp_path)
    written = remaking.write(Store(tmp_path), version, ["gopher.word_count.below=10"])
    assert "expect = {max = 0.5, word_count = {max = 0.5}}" in written.path.read_text("utf-8")
    written = remaking.write(Store(tmp_path), version, ["gopher.word_count.below=none"])
    assert "expect = {max = 0.5}" in written.path.read_text("utf-8")
