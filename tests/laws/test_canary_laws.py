"""Law 9: every column that a stage measures has documents that trip a rule over it and documents that do not.

It runs over every stage in the folder by itself, in each of the variants that law 6 tries, and over every recipe.
"""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import canaries, licences, recipe, tasks
from pipeline import stage as stages
from pipeline.examples import Examples, batch, related
from pipeline.models import ModelError, language_model
from pipeline.rules import Rule, deciding
from pipeline.stage import ConfigError, Stage
from pipeline.store import Store
from tests.given import DATA, load
from tests.laws.test_stage_laws import CASES, cases, stage

__all__ = ["stage"]
# Two documents and more are compared for every limit of a stage that cuts.
FEWER = {"float64": (0.1, 0.8), "int32": (1, 7), "int64": (1, 300)}
OWN: dict[str, tuple[float, ...]] = {"host_listed": (0, 1), "perplexity": (30.0, 100.0, 300.0)}
LIMITS = {"float64": (0.1, 0.5, 0.8, 3.3, 7.5), "int32": (1, 2, 7), "int64": (1, 2, 7)}
# Similarities are found from the threshold on, and without a check none is; a host is listed or not.
FEW = {"jaccard": 1, "via_jaccard": 1, "host_listed": 1}
NEVER = {("near", "jaccard"), ("near", "via_jaccard")}


def rules(stage: Stage, column: str) -> dict[str, list[Rule]]:
    """Rules over a column by operator, at several limits."""
    kind = stage.signals[column]
    if pa.types.is_string(kind):
        values = {"lang": ["zh", "de"], "bucket": ["head"]}.get(column, ["mill:a.txt:0"])
        return {operator: [Rule(stage.name, column, operator, values)] for operator in ("in", "not in")}
    usual = (FEWER if stage.cuts else LIMITS)[str(kind).replace("double", "float64")]
    limits: tuple[float, ...] = OWN.get(column, usual)
    return {
        operator: [Rule(stage.name, column, operator, limit) for limit in limits] for operator in ("below", "above")
    }


def values(stage: Stage, item: Any) -> dict[str, Any]:
    """What the stage alone measures of an item's last document, as it is stored, by column."""
    met = batch([item])
    out = stage(met) if stage.kind == "measure" else related(stage, met)
    found = {column: out[column][-1].as_py() for column in stage.signals}
    return {column: round(value, 6) if isinstance(value, float) else value for column, value in found.items()}


def offered(stage: Stage, rule: Rule) -> Examples:
    try:
        return stage.module.examples(rule, rule.bound, **stage.params)
    except ValueError:
        return Examples([], [])


@cases("measure", "relate", "cut")
def test_every_column_has_documents_on_either_side_of_several_limits(stage):
    """And each is on the side that it is offered for, by the stage alone."""
    assert stage.signals
    of = functools.cache(functools.partial(values, stage))
    for column in stage.signals:
        if (stage.name, column) in NEVER and not stage.params["verify"]:
            continue
        for operator, several in rules(stage, column).items():
            both = 0
            for rule in several:
                trips, passes = offered(stage, rule)
                sides = [(True, item) for item in trips] + [(False, item) for item in passes]
                said = [(side, of(item)[column]) for side, item in sides]
                known = [(side, found) for side, found in said if found is not None]
                for side, found in known:
                    broken = rule.broken(pa.chunked_array([pa.array([found], stage.signals[column])]))[0].as_py()
                    assert broken == side, f"{rule.name} at {rule.bound}: {found}"
                assert len(known) * 2 >= len(said), f"{rule.name} at {rule.bound}: most was not measured"
                both += {side for side, _ in known} == {True, False}
            least = FEW.get(column, min(2, len(several)))
            assert both >= least, f"{column} {operator}: documents on both sides at {both} limits"


def test_no_stage_is_left_out():
    tried = {use for use, params in CASES if stages.load(use, params).signals}
    assert tried == {use for use in stages.available() if load(use).signals} >= {"gopher", "near", "substring"}


# Recipes


def tables() -> list[tuple[str, int, str, str]]:
    """(recipe, number of the stage, verb, column) of every rule that ships."""
    found = []
    for name in recipe.available():
        table = tomllib.loads((recipe.shipped() / f"{name}.toml").read_text("utf-8"))
        for number, entry in enumerate(table["stage"]):
            found += [(name, number, verb, column) for verb in ("keep", "drop") for column in entry.get(verb, {})]
    return found


@pytest.mark.parametrize("how", ["one letter less", "one letter more", "two exchanged"])
@pytest.mark.parametrize(("name", "number", "verb", "column"), tables())
def test_a_misspelt_column_of_a_shipped_recipe_is_refused(name, number, verb, column, how):
    wrong = {
        "one letter less": column[:-1],
        "one letter more": f"{column}s",
        "two exchanged": column[1] + column[0] + column[2:],
    }[how]
    path = recipe.shipped() / f"{name}.toml"
    table = tomllib.loads(path.read_text("utf-8"))
    table["stage"][number][verb][wrong] = table["stage"][number][verb].pop(column)
    with pytest.raises(ConfigError) as told:
        recipe.parse(table, str(path), path.parent, DATA)
    place = f"{path} stage {number + 1} ({table['stage'][number]['use']}): {verb}.{wrong}: "
    assert str(told.value).startswith(place) and f"did you mean {column!r}?" in str(told.value)


@pytest.mark.parametrize("name", recipe.available())
def test_every_rule_of_a_shipped_recipe_fires(name, tmp_path):
    if any(step.stage.name == "language" for step in recipe.load(name, DATA).steps):
        try:
            language_model()
        except ModelError as error:
            pytest.skip(str(error))
    loaded = recipe.load(name, DATA)
    store = Store(tmp_path)
    key = canaries.task(store, loaded)
    tasks.execute(str(tmp_path), key)
    found = store.result(key)["rules"]
    assert set(found) == {rule.name for step in loaded.steps for rule in step.rules}
    assert {outcome["verdict"] for outcome in found.values()} == {"fires"}
    canaries.judge(loaded, found)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("gopher_v1__gopher_v1__fraction_of_characters_in_most_common_2gram", "top_2gram_characters"),
        ("top_2grams_characters", "top_2gram_characters"),
        ("fraction_of_characters_in_duplicate_5gram", "duplicate_5gram_characters"),
    ],
)
def test_the_dead_rule_of_the_published_mixing_configs(wrong, right, tmp_path):
    """They exclude on `..._most_common_2gram` where the tagger writes `..._2grams`, and so remove nothing."""
    stage = f'[[stage]]\nuse = "repetition"\ndialect = "dolma"\ndrop.{wrong} = {{above = 0.2}}\n'
    text = f'name = "mix"\nsources = ["samples"]\n{stage}'
    path = tmp_path / "mix.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as told:
        recipe.load(str(path))
    said = f"drop.{wrong}: stage 'repetition' measures no such column; did you mean {right!r}?"
    assert str(told.value).startswith(f"{path} stage 1 (repetition): {said}")
    path.write_text(text.replace(wrong, right), "utf-8")
    loaded = recipe.load(str(path))
    key = canaries.task(Store(tmp_path), loaded)
    tasks.execute(str(tmp_path), key)
    [outcome] = Store(tmp_path).result(key)["rules"].values()
    assert outcome["verdict"] == "fires"
    assert Path(loaded.file) == path


# The licence table

ENTRIES = ("MIT", "CC-BY-*", "*-NC-*", "GPL-*", "LicenseRef-*", "LicenseRef-Mill", "MPL-1.1", "GPL-2.0", "*", "CC?-1.0")
EXCEPTIONS = ("GPL-2.0-only WITH Classpath-exception-2.0", "* WITH Classpath-*")
LISTS = st.none() | st.lists(st.sampled_from([*ENTRIES, *EXCEPTIONS]), min_size=1, max_size=3, unique=True)


def licensed(**policy: Any) -> dict[str, dict[str, Any]]:
    """How the rules of a [licence] table come out."""
    return canaries._licensed(deciding(policy))


@pytest.mark.parametrize("unknown", ["keep", "drop"])
@given(allow=LISTS, deny=LISTS)
def test_a_licence_table_is_judged_as_it_reads(unknown, allow, deny):
    """Nothing that is offered is judged otherwise; every entry is offered, or the table is refused."""
    found = licensed(allow=allow, deny=deny, unknown=unknown)
    assert ("licence.licence.unknown" in found) == (unknown == "drop")
    assert ("licence.licence.unlicensed" in found) == bool(allow or deny)
    assert all(outcome["verdict"] in ("fires", "dead", "always") for outcome in found.values()), found
    if allow and not deny and "*" not in allow:
        assert found["licence.licence.unlicensed"]["verdict"] == "fires"
        assert found["licence.licence.unlicensed"]["documents"] == len(allow) + 3


@pytest.mark.parametrize(
    ("allow", "deny", "said"),
    [
        (["*"], None, "can never fire"),
        (None, ["*"], "fires on every document"),
        (["MIT", "CC-BY-NC-*"], ["*-NC-*"], "'CC-BY-NC-*' of allow lets nothing in"),
    ],
)
def test_a_dead_licence_table_is_refused_and_can_be_allowed(allow, deny, said, tmp_path):
    policy = {"unknown": "keep", **({"allow": allow} if allow else {}), **({"deny": deny} if deny else {})}
    loaded = recipe.parse({"name": "mix", "sources": ["samples"], "licence": policy}, "mix.toml", tmp_path)
    key = canaries.task(Store(tmp_path), loaded)
    tasks.execute(str(tmp_path), key)
    found = Store(tmp_path).result(key)["rules"]
    with pytest.raises(ConfigError) as told:
        canaries.judge(loaded, found)
    assert str(told.value).startswith("mix.toml [licence]: ") and said in str(told.value)
    canaries.judge(loaded.allowing(["licence.licence.unlicensed"]), found)


def test_a_licence_rule_that_is_not_what_it_says_is_noticed(monkeypatch):
    monkeypatch.setattr(licences, "allowed", lambda text, allow, deny: "NC" not in text)
    outcome = licensed(allow=["CC-BY-*"], deny=["*-NC-*"], unknown="keep")["licence.licence.unlicensed"]
    assert outcome["verdict"] == "wrong" and "says the opposite" in outcome["why"]
    monkeypatch.setattr(licences, "filled", lambda column: column)
    assert licensed(unknown="drop")["licence.licence.unknown"]["verdict"] == "wrong"
