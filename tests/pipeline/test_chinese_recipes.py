"""The recipes for Chinese on real pages: what they keep, what they drop and why, and that good text passes."""

from __future__ import annotations

import collections

import pytest

from pipeline import books, recipe, rules, stage
from pipeline.audit import audit
from pipeline.models import ModelError, language_model
from pipeline.run import run
from pipeline.schema import documents, ledger
from pipeline.sources import Chunk
from tests.pipeline.real import Built, built
from tests.pipeline.test_chinese import PAGE, pair

NAMES = ("zh-web", "fineweb2-zh")
MENU = "首页\n新闻中心\n产品展示\n联系我们\n更多\n" * 12
ENGLISH = "The wheel turns with the water of the river, and the stone grinds the grain to flour. " * 9


@pytest.fixture(autouse=True)
def _model():
    try:
        language_model()
    except ModelError as error:
        pytest.skip(str(error))


def verdicts(name: str, texts: dict[str, str]) -> dict[str, str]:
    """Why each text would leave by the rules over single documents, in the recipe's order; "" where it stays."""
    steps = [step for step in recipe.load(name).steps if step.stage.kind in ("measure", "rewrite")]
    rows = [{"doc_id": key, "text": text, "source": "t"} for key, text in texts.items()]
    found = run([Chunk(documents(rows), ledger([]))], [step.stage for step in steps], [], 100)
    gone = rules.judge(found.signals, [rule for step in steps for rule in step.rules]).to_pylist()
    assert not found.errors.num_rows
    return dict.fromkeys(texts, "") | {row["doc_id"]: f"{row['stage']} {row['reason']}" for row in gone}


@pytest.mark.parametrize("name", NAMES)
def test_good_pages_pass_in_either_script_and_rubbish_does_not(name):
    simplified, traditional = pair()
    speech = "".join(f"“{line}”\n" for line in PAGE.splitlines())
    found = verdicts(
        name,
        {
            "simplified": simplified,
            "traditional": traditional,
            "speech": speech,
            "menu": MENU,
            "english": ENGLISH,
            "again": "磨坊的水轮转动着。" * 60,
        },
    )
    assert [key for key, why in found.items() if not why] == ["simplified", "traditional", "speech"], found


# Whole builds


@pytest.fixture(scope="module", params=NAMES)
def made(request, shared_data, tmp_path_factory) -> tuple[str, Built]:
    return request.param, built(request.param, shared_data, tmp_path_factory.mktemp(request.param))


@pytest.mark.slow
def test_a_recipe_accounts_for_every_page(made):
    _, version = made
    report = audit(version.version, version.store)
    assert report.problems == [] and report.counts["ingested"] == 27_326 and report.counts["quarantined"] == 0
    assert 600 < report.counts["kept"] < 900
    assert set(version.version.manifest["summaries"]["languages"]) == {"zh"}
    gone = books.ledger(version.store, version.version.build_keys()).to_pylist()
    reasons = collections.Counter(row["stage"] for row in gone)
    assert {"language", "repetition", "fineweb", "gopher", "near"} <= set(reasons)
    # Of pages that are Chinese most stay, and no one rule takes many of them but where they are half English.
    bounds = collections.Counter((row["stage"], row["reason"]) for row in gone if row["stage"] != "language")
    most = {reason: count for reason, count in bounds.items() if count > 40}
    assert set(most) <= {("chinese", "han_ratio < 0.3")}, most


@pytest.mark.slow
def test_every_prose_sample_stays_but_for_copies_and_a_letter(made):
    """The letter is one line, and its last word a name: of its lines none has ended."""
    _, version = made
    gone = books.ledger(version.store, version.version.build_keys()).to_pylist()
    left = [row for row in gone if row["doc_id"].startswith("samples:zh") and row["stage"] != "near"]
    assert [(row["stage"], row["detail"]) for row in left] == [("fineweb", "punctuated_line_ratio=0")]


def test_a_recipe_uses_what_is_here_for_chinese():
    used = {step.stage.name: step.stage.params for step in recipe.load("zh-web").steps}
    assert used["near"]["fold_chinese"] and used["normalise"]["repair"] == "ftfy"
    by_script = {name for name in stage.available() if "units" in used.get(name, {})}
    assert by_script == {"gopher", "repetition", "fineweb", "c4", "c4_lines"}
    assert all(used[name]["units"] == "script" for name in by_script)
