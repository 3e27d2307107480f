"""Filters trained here: the same bytes again, scores as fastText gives them, and a card that says the truth."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import addresses, fasttext_model, given, rebuild, stage
from pipeline.build import Mill
from pipeline.filters import artifact, card, judging, texts, training
from pipeline.filters.training import Settings
from pipeline.mistakes import ConfigError
from pipeline.models import ModelError
from pipeline.scores import scores
from pipeline.stages import classifier
from pipeline.store import Store
from tests import builds
from tests.laws import nasty

SMALL = Settings(dim=10, bucket=2000, lr=0.3, epoch=8)
GOOD, BAD = "river stone water wheel grain flour".split(), "click buy cheap login cookie here".split()


def written(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def drawn(words: list[str], count: int, seed: int) -> list[str]:
    """Texts of mostly these words, over several lines, and of some that both sides have."""
    draw = random.Random(seed)
    common = [f"word{n}" for n in range(30)]
    return ["\n".join(" ".join(draw.choices(words * 2 + common, k=7)) for _ in range(4)) for _ in range(count)]


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sides")
    hostile = ["__label__cc __label__hq river", "stone </s> buy cheap", "磨坊 水轮\u3000grain", "", " \n"]
    good = [*drawn(GOOD, 150, 1), *hostile]
    return written(folder / "good.jsonl", [*good, good[0]]), written(folder / "bad.jsonl", drawn(BAD, 170, 2))


def made(folder: Path, sides, settings: Settings = SMALL, seed: int = 0, most: int | None = None, **more) -> dict:
    positive, negative = (
        texts.read(label, [str(path)], seed, most) for label, path in zip(("hq", "cc"), sides, strict=True)
    )
    return artifact.make(folder, positive, negative, settings, **more)


@pytest.fixture(scope="module")
def filter_folder(tmp_path_factory, sides) -> Path:
    folder = tmp_path_factory.mktemp("filters") / "quality"
    made(folder, sides)
    return folder


def test_the_same_texts_give_the_same_bytes_whatever_their_order(tmp_path, sides, filter_folder):
    shuffled = tmp_path / "good.jsonl"
    lines = sides[0].read_text("utf-8").splitlines(keepends=True)
    random.Random(4).shuffle(lines)
    shuffled.write_text("".join(lines), "utf-8")
    again = made(tmp_path / "again", (shuffled, sides[1]))
    first = card.read(filter_folder / "card.json")
    assert (tmp_path / "again" / "model.bin").read_bytes() == (filter_folder / "model.bin").read_bytes()
    assert again["held_back"] == first["held_back"] and again["model"] == first["model"]
    assert made(filter_folder, sides) == first  # a second time into the same folder
    assert not [path for path in filter_folder.parent.iterdir() if path != filter_folder]
    other = made(tmp_path / "other", sides, Settings(**{**vars(SMALL), "seed": 3}))
    assert other["model"]["sha256"] != first["model"]["sha256"] and other["digest"] != first["digest"]


def test_a_small_model_does_not_begin_with_what_the_memory_held(tmp_path, sides):
    """fastText draws a tenth of its matrix; the rest of one this small comes from used memory, and ended in NaN."""
    small = Settings(dim=4, bucket=400)
    first, second = (made(tmp_path / name, sides, small)["model"]["sha256"] for name in ("a", "b"))
    model = fasttext_model.read(tmp_path / "a" / "model.bin")
    assert first == second and np.isfinite(model.input).all() and np.abs(model.input).max() < 100


@pytest.mark.parametrize("loss", ["softmax", "hs", "ova"])
def test_scores_are_fasttexts(tmp_path, sides, loss):
    import fasttext.FastText

    settings = Settings(dim=12, bucket=500, lr=0.3, epoch=8, loss=loss, minn=2, maxn=3, wordNgrams=3)
    made(tmp_path / "f", sides, settings)
    theirs = fasttext.FastText.load_model(str(tmp_path / "f" / "model.bin"))
    some = [*drawn(GOOD, 40, 7), *drawn(BAD, 40, 8), *drawn(GOOD + BAD, 40, 9)]
    some += [text for text in nasty.TEXTS.values() if len(text) < 10_000]
    ours = scores(fasttext_model.read(tmp_path / "f" / "model.bin"), pa.array(some, pa.large_string()), "hq")
    for text, score in zip(some, ours, strict=True):
        # fastText ends a document at a line feed; here it is a space.
        said = dict(zip(*theirs.predict(text.replace("\n", " "), 2), strict=True))
        assert score == pytest.approx(min(said["__label__hq"], 1.0), abs=5e-5), text


def test_what_a_text_says_of_labels_and_ends_is_not_believed(filter_folder):
    assert texts.line("a __label__cc b\n</s>\x00c\u3000d") == "a b c\u3000d"
    assert texts.line("__label__hq </s> \r\n") == ""
    held = card.read(filter_folder / "card.json")
    model = fasttext_model.read(filter_folder / "model.bin")
    assert sorted(model.labels) == ["__label__cc", "__label__hq"]
    assert sum(model.label_counts) == sum(side["trained"] for side in held["data"])


def test_no_text_that_judges_was_trained_on_and_each_counts_once(sides, filter_folder):
    said = card.read(filter_folder / "card.json")
    good, bad = said["data"]
    assert (good["documents"], good["empty"], good["copies"], good["texts"]) == (156, 2, 1, 153)
    assert good["trained"] + good["held_back"] == good["texts"] and bad["copies"] == bad["empty"] == 0
    model = fasttext_model.read(filter_folder / "model.bin")
    assert dict(zip(model.labels, model.label_counts, strict=True))["__label__hq"] == good["trained"]
    assert said["held_back"]["positive"] == good["held_back"] and said["held_back"]["auc"] > 0.95
    assert good["sources"][0]["files"][0]["sha256"] == given.note(sides[0]).removeprefix("sha256:")


def test_a_text_of_both_labels_teaches_neither(tmp_path):
    shared = drawn(GOOD, 20, 3)
    good = written(tmp_path / "g.jsonl", [*drawn(GOOD, 60, 1), *shared])
    bad = written(tmp_path / "b.jsonl", [*drawn(BAD, 60, 2), *shared])
    said = made(tmp_path / "f", (good, bad))["data"]
    assert [side["on both sides"] for side in said] == [20, 20] and [side["texts"] for side in said] == [60, 60]
    with pytest.raises(ConfigError, match="every text of label 'hq' is one of the other label too"):
        made(tmp_path / "none", (good, good))


def test_a_sample_hangs_on_no_order(tmp_path):
    rows = drawn(GOOD, 90, 5)
    forward, backward = written(tmp_path / "a.jsonl", rows), written(tmp_path / "b.jsonl", rows[::-1])
    first, second = (texts.read("hq", [str(path)], 1, 25) for path in (forward, backward))
    assert first.texts == second.texts and len(first.texts) == 25
    assert texts.read("hq", [str(forward)], 2, 25).texts.keys() != first.texts.keys()


# What the card says


def some_scores(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive, negative = draw.normal(0.6, 0.2, 83), draw.normal(0.45, 0.2, 211)
    return tuple(np.round(values, 1 if ties else 5) for values in (positive, negative))  # type: ignore[return-value]


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_scikit_learns_and_every_pair_counted(ties):
    positive, negative = some_scores(3, ties)
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    assert judging.auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    metrics = pytest.importorskip("sklearn.metrics")
    truth = [1] * positive.size + [0] * negative.size
    said = metrics.roc_auc_score(truth, np.concatenate([positive, negative]))
    assert judging.auc(positive, negative) == pytest.approx(said, abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Normal scores one standard deviation apart have an area of .7602; 95 % intervals hold it in about 95 of 100."""
    draw = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        low, high = judging.interval(draw.normal(1, 1, 60), draw.normal(0, 1, 60), seed, 200)
        held += low <= 0.7602 <= high
    assert 88 <= held <= 99


@pytest.mark.parametrize("ties", [False, True])
def test_every_threshold_keeps_what_its_row_says(ties):
    positive, negative = some_scores(5, ties)
    rows = judging.thresholds(positive, negative)
    assert len(rows) >= 4
    for row in rows:
        hits, passed = (positive >= row["threshold"]).sum(), (negative >= row["threshold"]).sum()
        assert row["negative_kept"] == round(passed / 211, 4) and row["recall"] == round(hits / 83, 4)
        assert row["precision"] == round(hits / (hits + passed), 4) and row["kept"] == round((hits + passed) / 294, 4)
    assert all(row["negative_kept"] <= max(judging.SHARES) for row in rows)


def test_a_rank_is_the_share_of_the_others_that_score_lower():
    _, negative = some_scores(8, False)
    reference = np.array(judging.report(negative + 0.1, negative, 0)["negative_scores"])
    for score in np.linspace(-0.3, 1.3, 97):
        rank = classifier._ranked(np.array([score]), reference)[0]
        assert rank == pytest.approx((negative < score).mean(), abs=0.01 + 1 / negative.size)


def test_the_page_and_the_card_say_the_same(filter_folder):
    said, page = card.read(filter_folder / "card.json"), (filter_folder / "card.md").read_text("utf-8")
    assert f"**{said['held_back']['auc']:.3f}**" in page and said["model"]["sha256"] in page
    assert page.count("\n| 0.") + page.count("\n| 1.") == len(said["held_back"]["thresholds"])


# What is refused


def test_what_cannot_be_learnt_is_refused_in_a_sentence(tmp_path, sides):
    good, bad = sides
    blank = written(tmp_path / "blank.jsonl", ["", " \n", "__label__hq"])
    few = written(tmp_path / "few.jsonl", ["one text", "another text"])
    with pytest.raises(ConfigError, match=r"blank\.jsonl of label 'hq' has no document with a word in it"):
        made(tmp_path / "f", (blank, bad))
    with pytest.raises(ConfigError, match="too few to judge by: it needs 5"):
        made(tmp_path / "f", (few, bad))
    with pytest.raises(ConfigError, match="no such file"):
        texts.read("hq", [str(tmp_path / "absent.jsonl")], 0)
    with pytest.raises(ConfigError, match="both labels are 'hq'"):
        artifact.make(tmp_path / "f", texts.read("hq", [str(good)], 0), texts.read("hq", [str(bad)], 0), SMALL)
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        made(tmp_path / "f", sides, hold_back=1.0)
    with pytest.raises(ConfigError, match="needs two labels, and there is one: hq"):
        training.train({"hq": ["a b"] * 5}, SMALL, tmp_path / "model.bin")
    with pytest.raises(ConfigError, match="a label is one word"):
        training.train({"h q": ["a"] * 5, "cc": ["b"] * 5}, SMALL, tmp_path / "model.bin")
    with pytest.raises(ConfigError, match="dimensions 1 to 4,096"):
        Settings(dim=0).check()
    assert not (tmp_path / "f").exists() and not list(tmp_path.glob(".f*"))


def test_without_fasttext_training_says_how_to_get_it(tmp_path, sides, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "fasttext" else find(name, *more)
    )
    with pytest.raises(ConfigError, match=r"pip install 'gristmill\[filter\]'"):
        made(tmp_path / "f", sides)


def test_another_filter_is_not_written_over(tmp_path, sides, filter_folder):
    shutil.copytree(filter_folder, tmp_path / "f")
    with pytest.raises(ConfigError, match="holds something else, or is damaged"):
        made(tmp_path / "f", sides, Settings(**{**vars(SMALL), "seed": 9}))
    (tmp_path / "f" / "model.bin").write_bytes(b"gone")
    with pytest.raises(ConfigError, match="holds something else, or is damaged"):
        made(tmp_path / "f", sides)


# The stage


def loaded(filter_folder: Path, **more: object) -> stage.Stage:
    return stage.load("classifier", {"model": str(filter_folder / "model.bin"), **more}, "here")


def test_the_stage_wants_a_model_with_its_label_and_its_own_card(tmp_path, sides, filter_folder):
    with pytest.raises(ConfigError, match=r"no label 'good'.*has: cc, hq"):
        loaded(filter_folder, label="good")
    other = tmp_path / "other"
    made(other, sides, Settings(**{**vars(SMALL), "seed": 2}))
    with pytest.raises(ConfigError, match="the card is of another model"):
        loaded(filter_folder, card=str(other / "card.json"))
    (other / "card.json").write_text((other / "card.json").read_text().replace('"seed": 2', '"seed": 4'))
    with pytest.raises(ConfigError, match=r"card\.json: was changed"):
        loaded(other, card=str(other / "card.json"))
    cut = tmp_path / "cut.bin"
    cut.write_bytes((filter_folder / "model.bin").read_bytes()[:-7])
    with pytest.raises(ConfigError, match=r"cut\.bin: damaged"):
        stage.load("classifier", {"model": str(cut)}, "here")


def test_a_model_that_is_not_there_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    bound = stage.load("classifier", {"model": "filters/quality/model.bin"}, "here", tmp_path)
    with pytest.raises(ConfigError, match=r"no file .*/quality/model\.bin; .*train-filter .* --out .*quality"):
        bound.identity  # noqa: B018
    monkeypatch.delenv("GRISTMILL_DATA", raising=False)
    bound = stage.load("classifier", {"model": "{data}/model.bin"}, "here", tmp_path)
    with pytest.raises(ConfigError, match=r"\{data\} needs --data DIR or GRISTMILL_DATA; .*train-filter"):
        bound.identity  # noqa: B018
    with pytest.raises(ModelError, match=r"model\.bin is not there"):
        bound(pa.record_batch([pa.array(["a"], pa.large_string())], ["text"]))
    with pytest.raises(ConfigError, match="is no digest"):
        stage.load("classifier", {"model": "sha256:12"}, "here")


def test_a_key_knows_the_content_of_a_model_and_not_its_path(tmp_path, sides, filter_folder):
    here, there = loaded(filter_folder), shutil.copytree(filter_folder, tmp_path / "elsewhere")
    assert loaded(there).identity == here.identity and "elsewhere" not in json.dumps(loaded(there).identity)
    again = stage.load("classifier", here.params)  # as a worker or a rebuild has it: by the digest
    batch = pa.record_batch([pa.array(drawn(GOOD, 3, 1), pa.large_string())], ["text"])
    assert again(batch) == here(batch)
    made(tmp_path / "other", sides, Settings(**{**vars(SMALL), "seed": 2}))
    assert loaded(tmp_path / "other").identity != here.identity


def test_a_version_knows_its_model_by_content_and_is_built_again(tmp_path, filter_folder):
    corpus = builds.write_corpus(tmp_path / "corpus", 60)
    shutil.copytree(filter_folder, corpus / "filter")
    judged = {"use": "classifier", "model": "filter/model.bin", "card": "filter/card.json"}
    judged["drop"] = {"score": {"below": 0.2}, "rank": {"below": 0.1}}
    recipe = builds.make_recipe(corpus, [judged])
    recipe = builds.allowing_all(recipe, tmp_path / "try")
    version = builds.build(recipe, tmp_path / "store", 2)
    elsewhere = shutil.copytree(corpus, tmp_path / "elsewhere")
    again = builds.allowing_all(builds.make_recipe(elsewhere, [judged]), tmp_path / "try")
    assert builds.build(again, tmp_path / "other").manifest["version"] == version.manifest["version"]
    shutil.rmtree(elsewhere)  # noted last, and gone: the first place stands
    stages = version.manifest["recipe"]["stages"]
    assert stages[0]["params"]["model"] == given.note(corpus / "filter" / "model.bin")
    store = Store(tmp_path / "store")
    found = rebuild.rebuild(store, *addresses.find(store, "test"), lambda to, r, i: Mill(to).build(r, i))
    assert found.equal and not found.differences


def test_a_file_that_was_changed_is_not_read(tmp_path, filter_folder):
    path = tmp_path / "model.bin"
    path.write_bytes((filter_folder / "model.bin").read_bytes() + b"other")
    name = given.note(path)
    path.write_bytes(b"changed")
    with pytest.raises(ModelError, match=r"it was .*model\.bin, which is gone or was changed; restore it"):
        given.find(name)
    with pytest.raises(ModelError, match="nobody knows here where it lies"):
        given.find("sha256:" + "0" * 64)
