"""Canaries: a rule that cannot be is named before a document is read, and the corpus never hears of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import canaries, digests, manifest, stage, tasks
from pipeline import rebuild as rebuilding
from pipeline.build import Mill
from pipeline.contract import ContractError
from pipeline.examples import OutOfReach, ladder
from pipeline.models import ModelError, language_model
from pipeline.recipe import Recipe
from pipeline.rules import Rule
from pipeline.stage import ConfigError
from pipeline.store import Store
from tests import builds

NORMALISE = {"use": "normalise"}
THING = """
import pyarrow as pa
from pipeline.stage import measure, rewrite

@measure(letters="int64")
def thing(batch: pa.RecordBatch) -> dict:
    return {{"letters": pa.array([{body} for text in batch["text"].to_pylist()], pa.int64())}}
"""
EXAMPLES = """
def examples(rule, limit, **params):
    from pipeline.examples import ladder
    return ladder(rule, limit, lambda k: "m" * k)
"""
EATS = """
import pyarrow as pa
from pipeline.stage import rewrite

@rewrite
def eats(batch: pa.RecordBatch) -> pa.RecordBatch:
    text = pa.array([t.replace("#", "") for t in batch["text"].to_pylist()], batch.schema.field("text").type)
    return batch.set_column(batch.schema.get_field_index("text"), batch.schema.field("text"), text)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return builds.write_corpus(tmp_path_factory.mktemp("corpus"), documents=60)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a stage of somebody's own and returns what a recipe says to use it."""
    monkeypatch.syspath_prepend(str(tmp_path / "path"))

    def write(name: str, text: str) -> str:
        package = tmp_path / "path" / "theirs"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / f"{name}.py").write_text(text, "utf-8")
        for known in [known for known in sys.modules if known.partition(".")[0] == "theirs"]:
            del sys.modules[known]
        digests.source_digest.cache_clear()
        return f"theirs.{name}"

    yield write
    for known in [known for known in sys.modules if known.partition(".")[0] == "theirs"]:
        del sys.modules[known]
    digests.source_digest.cache_clear()


def tried(recipe: Recipe, root: Path) -> dict[str, Any]:
    key = canaries.task(Store(root), recipe)
    tasks.execute(str(root), key)
    found: dict[str, Any] = Store(root).result(key)["rules"]
    return found


def outcome(corpus: Path, root: Path, *stages: dict[str, Any]) -> tuple[str, str]:
    """(verdict, what was said) of the last rule there is."""
    found = tried(builds.make_recipe(corpus, list(stages)), root)
    return list(found.values())[-1]["verdict"], list(found.values())[-1]["why"]


def refusal(corpus: Path, root: Path, *stages: dict[str, Any]) -> str:
    recipe = builds.make_recipe(corpus, list(stages))
    with pytest.raises(ConfigError) as told:
        canaries.judge(recipe, tried(recipe, root))
    return str(told.value)


# Verdicts


@pytest.mark.parametrize(
    ("use", "drop", "verdict"),
    [
        ("fineweb", {"short_line_ratio": {"above": 1.0}}, "dead"),
        ("fineweb", {"short_line_ratio": {"above": 0.99}}, "fires"),
        ("fineweb", {"short_line_ratio": {"below": 0}}, "dead"),
        ("fineweb", {"short_line_ratio": {"above": -0.1}}, "always"),
        ("fineweb", {"newline_ratio": {"above": 1.5}}, "fires"),
        ("gopher", {"word_count": {"above": 10**6}}, "fires"),
        ("gopher", {"word_count": {"above": 10**9}}, "untested"),
        ("gopher", {"word_count": {"above": 99_999.5}}, "fires"),
        ("gopher", {"word_count": [5, 7]}, "fires"),
        ("gopher", {"word_count": [-1]}, "dead"),
        ("gopher", {"stop_word_count": {"above": 8}}, "dead"),
        ("repetition", {"duplicate_lines": {"above": 0.99}}, "dead"),
        ("repetition", {"duplicate_lines": {"above": 0.98}}, "fires"),
        ("exact", {"dup_rank": {"above": 0}}, "fires"),
        ("exact", {"dup_rank": {"below": 0}}, "dead"),
        ("exact", {"cluster_size": {"below": 1}}, "dead"),
        ("near", {"jaccard": {"below": 0.5}}, "dead"),
        ("near", {"dup_rank": {"above": 3}}, "fires"),
        ("paragraphs", {"cut_share": {"above": 0.8}}, "fires"),
        ("substring", {"cut_share": {"above": 1.0}}, "dead"),
    ],
)
def test_what_can_fire_and_what_cannot(corpus, tmp_path, use, drop, verdict):
    assert outcome(corpus, tmp_path, NORMALISE, {"use": use, "drop": drop})[0] == verdict


def test_keep_rules_are_tried_too(corpus, tmp_path):
    assert outcome(corpus, tmp_path, {"use": "exact", "keep": {"dup_rank": [0]}})[0] == "fires"
    assert outcome(corpus, tmp_path, {"use": "exact", "keep": {"dup_rank": [-4]}})[0] == "always"


def test_the_best_of_a_cluster_is_chosen_by_what_the_segment_measures(corpus, tmp_path):
    best = {"use": "near", "survivor": "best", "quality": "gopher.word_count", "drop": {"dup_rank": {"above": 0}}}
    assert outcome(corpus, tmp_path, {"use": "gopher"}, best)[0] == "fires"


def test_a_refusal_names_rule_stage_file_value_and_fix(corpus, tmp_path):
    said = refusal(corpus, tmp_path, NORMALISE, {"use": "fineweb", "drop": {"short_line_ratio": {"above": 2.0}}})
    assert said == (
        "test recipe stage 2 (fineweb): drop.short_line_ratio = {above = 2.0} can never fire: no canary trips it; "
        "short_line_ratio was 0 to 1 in 2 documents. Change the bound or take the rule out, or build with --allow-dead "
        "fineweb.short_line_ratio.above."
    )


def test_all_dead_rules_are_named_at_once(corpus, tmp_path):
    drop = {"bullet_line_ratio": {"above": 1}, "word_count": {"below": 0, "above": 5}, "hash_ratio": {"above": 0.1}}
    said = refusal(corpus, tmp_path, {"use": "gopher", "drop": drop})
    assert "drop.bullet_line_ratio = {above = 1} can never fire" in said
    assert said.endswith("Also: gopher.word_count.below.")


def test_a_language_that_the_model_does_not_know_is_named(corpus, tmp_path):
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))
    said = refusal(corpus, tmp_path, {"use": "language", "keep": {"lang": ["en", "jp"]}})
    assert "keep.lang = ['en', 'jp'] can never fire" in said
    assert "the model knows no language 'jp'" in said


def test_what_a_rewrite_takes_away_is_said_and_is_not_held_against_the_rule(corpus, tmp_path, module):
    drop = {"use": "gopher", "drop": {"hash_ratio": {"above": 0.1}}}
    assert outcome(corpus, tmp_path, drop)[0] == "fires"
    eats = {"use": module("eats", EATS)}
    verdict, why = outcome(corpus, tmp_path, eats, drop)
    assert verdict == "untested" and why.endswith("because of what eats does to the text before")
    # Behind a barrier, too, and not where it comes later.
    assert outcome(corpus, tmp_path, eats, {"use": "exact"}, drop)[0] == "untested"
    assert outcome(corpus, tmp_path, drop, eats)[0] == "fires"


def test_blank_lines_that_are_normalised_away_leave_fewer_line_feeds(corpus, tmp_path):
    """At most two blank lines are left, so three line feeds to a word."""
    rule = {"use": "fineweb", "drop": {"newline_ratio": {"above": 3}}}
    assert outcome(corpus, tmp_path, rule)[0] == "fires"
    assert outcome(corpus, tmp_path, NORMALISE, rule)[0] == "untested"


@pytest.mark.parametrize("dialect", ["datatrove", "tfds"])
def test_published_orders_of_stages_are_not_refused(corpus, tmp_path, dialect):
    """C4's lines before Gopher and FineWeb: whole examples are cut away, and real documents are not."""
    rules = [
        {"use": "gopher", "drop": {"stop_word_count": {"below": 2}, "word_count": {"below": 50}}},
        {"use": "fineweb", "drop": {"short_line_ratio": {"above": 0.5}}},
    ]
    recipe = builds.make_recipe(corpus, [{"use": "c4_lines", "dialect": dialect}, *rules])
    canaries.judge(recipe, tried(recipe, tmp_path))


def test_a_stage_that_measures_the_wrong_thing_is_not_believed(corpus, tmp_path, module):
    rule = {"drop": {"letters": {"above": 10}}}
    good = {"use": module("thing", THING.format(body="len(text)") + EXAMPLES), **rule}
    assert outcome(corpus, tmp_path, good)[0] == "fires"
    for body, verdict in (("0", "dead"), ("99", "always"), ("len(text) + 1", "wrong"), ("None", "dead")):
        bad = {"use": module("thing", THING.format(body=body) + EXAMPLES), **rule}
        assert outcome(corpus, tmp_path, bad)[0] == verdict
    said = refusal(corpus, tmp_path, {"use": module("thing", THING.format(body="1 // 0") + EXAMPLES), **rule})
    assert "nothing was measured of letters in" in said and "ZeroDivisionError" in said


@pytest.mark.parametrize("operator", ["below", "above", "in", "not in"])
def test_a_rule_that_is_judged_otherwise_than_it_is_written_is_noticed(corpus, tmp_path, monkeypatch, operator):
    """As if a bound belonged to the other side, or a list were read the wrong way round."""
    verb = {"in": "drop", "not in": "keep"}.get(operator)
    table = {verb: {"word_count": [20, 30]}} if verb else {"drop": {"word_count": {operator: 20}}}
    stages = [NORMALISE, {"use": "gopher", **table}]
    assert outcome(corpus, tmp_path / "right", *stages)[0] == "fires"
    judged = {
        "below": lambda rule, values: pc.less_equal(values, rule.bound),
        "above": lambda rule, values: pc.greater_equal(values, rule.bound),
        "in": lambda rule, values: pc.invert(pc.is_in(values, pa.array(rule.bound, values.type))),
        "not in": lambda rule, values: pc.is_in(values, pa.array(rule.bound, values.type)),
    }
    monkeypatch.setattr(Rule, "broken", judged[operator])
    assert outcome(corpus, tmp_path / "wrong", *stages)[0] == ("dead" if verb else "wrong")


def test_examples_that_break_are_a_bug(corpus, tmp_path, module):
    broken = "\ndef examples(rule, limit, **params):\n    return 1 // 0\n"
    use = module("thing", THING.format(body="len(text)") + broken)
    with pytest.raises(ContractError, match=r"stage thing: examples\(\) broke on drop\.letters = \{above = 10\}: Zero"):
        outcome(corpus, tmp_path, {"use": use, "drop": {"letters": {"above": 10}}})


# Ladders


def rule(operator: Any, bound: Any) -> Rule:
    return Rule("thing", "letters", operator, bound)


def test_a_ladder_stands_on_both_sides_of_its_limit():
    for operator, limit, trips, passes in (
        ("above", 10, {11, 12}, {0, 10}),
        ("above", 9.5, {10, 11}, {0, 9}),
        ("below", 10, {0, 9}, {10, 11}),
        ("in", [3, 5], {3, 5}, {0, 2, 4, 6}),
        ("not in", [3, 5], {0, 2, 4, 6}, {3, 5}),
    ):
        found = ladder(rule(operator, limit), limit, lambda k: "m" * k)
        sizes = [{len(text) for (text,) in side} for side in found]
        assert sizes == [trips, passes], operator
        measured = ladder(rule(operator, limit), limit, lambda k: "m" * k, measure=lambda item: len(item[0]))
        assert measured == found


def test_a_ladder_ends_where_its_value_does():
    assert ladder(rule("above", 7), 7, "m".__mul__, most=7).trips == []
    assert ladder(rule("above", 7), 7, "m".__mul__, measure=lambda item: min(len(item[0]), 7)).trips == []
    assert ladder(rule("below", 0), 0, "m".__mul__).trips == []
    with pytest.raises(OutOfReach, match="1e\\+10"):
        ladder(rule("above", 1e10), 1e10, "m".__mul__)


# Builds


@pytest.fixture(scope="module")
def built(corpus, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    return builds.build(builds.make_recipe(corpus), root), Store(root)


def test_the_manifest_says_what_was_tried(built):
    version, _ = built
    said = version.manifest["summaries"]["canaries"]
    assert set(said["rules"]) == {"gopher.word_count.below", "exact.dup_rank.above", "near.dup_rank.above"}
    assert {outcome["verdict"] for outcome in said["rules"].values()} == {"fires"} and said["allowed"] == []
    assert all(0 < outcome["tripped"] < outcome["documents"] for outcome in said["rules"].values())


def test_a_corpus_never_hears_of_canaries(built, corpus, tmp_path, monkeypatch):
    """The same version, the same keys, the same ledgers where none are tried."""
    version, store = built
    monkeypatch.setattr(canaries, "execute", lambda store, spec, out, limits: out.result.update(rules=FIRES))
    again = builds.build(builds.make_recipe(corpus), tmp_path)
    assert again.manifest["version"] == version.manifest["version"]
    keys, others = version.build_keys(), again.build_keys()
    assert replace(keys, canaries="") == replace(others, canaries="")
    for key in keys.every():
        assert {n: f["digest"] for n, f in store.done(key)["files"].items()} == {
            n: f["digest"] for n, f in Store(tmp_path).done(key)["files"].items()
        }
        for path in store.folder(key).iterdir():
            assert b"canary" not in path.read_bytes()
    assert b"canary" not in (version.folder / "documents.parquet").read_bytes()


FIRES = {
    name: {"verdict": "fires", "documents": 2, "tripped": 1, "why": ""}
    for name in ("gopher.word_count.below", "exact.dup_rank.above", "near.dup_rank.above")
}


def test_better_examples_move_no_key_of_a_segment(module):
    plain, offered = THING.format(body="len(text)"), THING.format(body="len(text)") + EXAMPLES
    keys, whole = set(), set()
    for text in (plain, offered, offered.replace('"m" * k', '"n" * k')):
        loaded = stage.load(module("thing", text), {})
        keys.add(loaded.code)
        whole.add(digests.source_digest("theirs.thing", True))
    assert len(keys) == 1 and len(whole) == 3
    assert stage.load(module("thing", offered + "\nOTHER = examples\n"), {}).code not in keys
    assert stage.load(module("thing", plain.replace("len(text)", "len(text) + 1")), {}).code not in keys


def test_an_edited_verdict_is_noticed_and_moves_no_version(built):
    version, _ = built
    table = json.loads(json.dumps(version.manifest))
    table["summaries"]["canaries"]["rules"]["gopher.word_count.below"]["verdict"] = "untested"
    assert manifest.version_digest(table) == version.manifest["version"]
    [problem] = manifest.verify(manifest.Version(version.folder, table))
    assert problem == "manifest.json was edited: it does not say of its canaries what was written"


def test_a_dead_rule_stops_the_build_before_anything_is_read(corpus, tmp_path):
    stages = [{"use": "gopher", "drop": {"alphabetic_word_ratio": {"below": 0, "above": 2}}}]
    with pytest.raises(ConfigError, match=r"can never fire.*Also: gopher\.alphabetic_word_ratio\.above"):
        builds.build(builds.make_recipe(corpus, stages), tmp_path)
    assert len(list(tmp_path.glob("store/*/*"))) == 1 and not (tmp_path / "versions").exists()


DEAD = {"use": "gopher", "drop": {"word_count": {"below": 20}, "alphabetic_word_ratio": {"below": 0}}}
NAME = "gopher.alphabetic_word_ratio.below"


def test_what_is_allowed_is_recorded_and_rebuilt(corpus, tmp_path):
    recipe = builds.make_recipe(corpus, [NORMALISE, DEAD]).allowing([NAME])
    version, store = builds.build(recipe, tmp_path), Store(tmp_path)
    said = version.manifest["summaries"]["canaries"]
    assert said["allowed"] == [NAME] and said["rules"][NAME]["verdict"] == "dead"
    again = rebuilding.rebuild(store, version, version.build_keys(), lambda s, r, i: Mill(s).build(r, i))
    assert again.equal


def test_a_version_that_stands_without_learns_what_was_allowed(corpus, tmp_path):
    recipe = builds.make_recipe(corpus, [NORMALISE, DEAD]).allowing([NAME])
    version = builds.build(recipe, tmp_path)
    table = json.loads((version.folder / "manifest.json").read_text("utf-8"))
    said = table["summaries"].pop("canaries")
    (version.folder / "manifest.json").write_text(json.dumps(table), "utf-8")
    again = builds.build(recipe, tmp_path)
    assert again.folder == version.folder and again.manifest["summaries"]["canaries"] == said


def test_only_what_is_dead_can_be_allowed(corpus, tmp_path):
    recipe = builds.make_recipe(corpus, [NORMALISE, DEAD])
    with pytest.raises(
        ConfigError, match=r"gopher\.words\.below: the recipe has no such rule; did you mean 'gopher\.word"
    ):
        recipe.allowing(["gopher.words.below"])
    with pytest.raises(
        ConfigError, match=r"--allow-dead gopher\.word_count\.below: the rule is not dead: it fires; leave"
    ):
        builds.build(recipe.allowing([NAME, "gopher.word_count.below"]), tmp_path)


def test_somebodys_stage_without_examples_is_reported_as_untested(corpus, tmp_path, module):
    use = module("thing", THING.format(body="len(text)"))
    recipe = builds.make_recipe(corpus, [NORMALISE, {"use": use, "drop": {"letters": {"below": 20, "above": -1}}}])
    found = tried(recipe, tmp_path)
    assert {outcome["verdict"] for outcome in found.values()} == {"untested"}
    assert found["thing.letters.below"]["why"] == "theirs.thing offers no examples"
    canaries.judge(recipe, found)
    said = canaries.summary(recipe, found)
    assert said["allowed"] == [] and set(said["rules"]) == {"thing.letters.below", "thing.letters.above"}
    with pytest.raises(ConfigError, match="the rule is not dead: it is untested"):
        canaries.judge(recipe.allowing(["thing.letters.above"]), found)


def test_what_was_tried_is_not_tried_again(corpus, tmp_path, monkeypatch):
    recipe = builds.make_recipe(corpus)
    builds.build(recipe, tmp_path)
    monkeypatch.setattr(canaries, "execute", lambda *given: pytest.fail("tried again"))
    builds.build(recipe, tmp_path)
