"""What hangs on a dialect, against versions that are really built with each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipeline import choices, stage
from pipeline.stage import ConfigError
from tests import builds

PIECES = (
    "The mill wheel turns with water from that river and grinds of the grain into flour, be it rye.",
    "- a bullet point\n- another one\n\u2022 a third",
    "# hash # hash ... and so on ...",
    "lorem ipsum of javascript {braces}",
    "short",
    "The mill wheel turns. The mill wheel turns. The mill wheel turns. The mill wheel turns.",
    "Read all of it\u2026",
    "one line, then\n\n\nanother line without an end",
)
RULES: dict[str, dict[str, dict[str, float]]] = {
    "c4_lines": {},
    "gopher": {"word_count": {"below": 30}, "hash_ratio": {"above": 0.02}, "stop_word_count": {"below": 2}},
    "repetition": {"duplicate_lines": {"above": 0.2}, "top_2gram_characters": {"above": 0.2}},
    "fineweb": {"short_line_ratio": {"above": 0.5}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = builds.write_corpus(tmp_path_factory.mktemp("corpus"), 10)
    for file in found.glob("*.jsonl"):
        file.unlink()
    (found / "grain.toml").write_text(builds.CARD)
    draw = random.Random(4)

    def line() -> str:
        words = [draw.choice(builds.WORDS) for _ in range(draw.randrange(4, 16))]
        return " ".join(words) + draw.choice([".", "", "...", "!", " \u2026"])

    texts = [
        "\n".join(draw.choice([line(), line(), line(), draw.choice(PIECES)]) for _ in range(7)) for _ in range(200)
    ]
    (found / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n{not json\n")
    return found


def signals(use: str, **params: Any) -> set[str]:
    return set(stage.load(use, params, "here").signals)


def stages(changed: str = "", dialect: str = "") -> list[dict[str, Any]]:
    """The stages of RULES with what each measures, and one stage's dialect changed."""
    found = []
    for use, rules in RULES.items():
        params = {"dialect": dialect} if use == changed else {}
        drop = {column: bound for column, bound in rules.items() if column in signals(use, **params)}
        found.append({"use": use, **params, **({"drop": drop} if drop else {})})
    return found


def kept(folder: Path, store: Path, tables: list[dict[str, Any]]) -> set[str]:
    return set(builds.build(builds.make_recipe(folder, tables), store).index(["doc_id"])["doc_id"].to_pylist())


def test_every_rule_of_these_recipes_is_over_a_column_that_there_is():
    assert all(set(rules) <= signals(use) for use, rules in RULES.items())


def test_who_comes_and_goes_is_who_a_build_would_keep(folder, tmp_path):
    answer = choices.ask(builds.make_recipe(folder, stages()), most=100)
    ours = kept(folder, tmp_path / "store", stages())
    assert (answer.documents, answer.kept) == (201, len(ours))
    assert {choice.stage for choice in answer.choices} == set(RULES)
    hung = 0
    for choice in answer.choices:
        assert choice.refused is None
        theirs = kept(folder, tmp_path / "store", stages(choice.stage, choice.other))
        assert (choice.enters, choice.leaves) == (len(theirs - ours), len(ours - theirs)), choice
        assert {example.doc_id for example in choice.examples} == ours ^ theirs
        for example in choice.examples:
            sides = (example.recipe == "kept", example.other == "kept")
            assert sides == (example.doc_id in ours, example.doc_id in theirs) and example.excerpt
        hung += choice.enters + choice.leaves
        known = signals(choice.stage, dialect=choice.other)
        assert len(choice.absent) == sum(column not in known for column in RULES[choice.stage])
    assert hung > 10


def test_rules_alone_are_counted_on_both_sides(folder):
    answer = choices.ask(builds.make_recipe(folder, stages()), most=0)
    [choice] = [c for c in answer.choices if (c.stage, c.other) == ("gopher", "dolma")]
    counts = {rule.rule: (rule.recipe_only, rule.other_only, rule.both) for rule in choice.rules}
    assert counts["gopher: word_count < 30"][2] > 0 and choice.examples == []
    assert any(only or other for only, other, _ in counts.values())
    rewriting = next(c for c in answer.choices if c.stage == "c4_lines")
    assert any(rule.rule.startswith("fineweb") for rule in rewriting.rules)


def test_what_is_read_of_each_source_is_bounded(folder):
    recipe = builds.make_recipe(folder, stages())
    assert choices.ask(recipe, documents=20).documents <= 21
    assert choices.ask(recipe, batch_rows=7) == choices.ask(recipe, batch_rows=4096)


def test_a_dialect_that_cannot_be_and_a_stage_behind_a_barrier_are_said(folder):
    tables = [{"use": "gopher", "units": "script"}, {"use": "exact"}, {"use": "fineweb"}]
    answer = choices.ask(builds.make_recipe(folder, tables))
    assert [choice.other for choice in answer.choices] == ["dolma", "dclm"] and answer.beyond == ["fineweb"]
    assert all("has words of its own" in (choice.refused or "") for choice in answer.choices)


def test_a_recipe_without_a_dialect_is_refused(folder):
    with pytest.raises(ConfigError, match="no stage of test before the first barrier has a dialect to choose"):
        choices.ask(builds.make_recipe(folder, [{"use": "normalise"}]))
