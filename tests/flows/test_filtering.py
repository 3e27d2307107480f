"""The verbs `train-filter` and `train-ngram`: sources to a filter or a model of words, and what they refuse."""

from __future__ import annotations

import json
import random

from pipeline.filters import card
from pipeline.ngrams import artifact
from tests.conftest import ROOT
from tests.flows.conftest import last

SAMPLES = ROOT / "catalogs" / "samples"
SMALL = ("--dim", 8, "--bucket", 1000, "--lr", 0.5, "--epoch", 30, "--hold-back", 0.3)


def test_a_card_and_a_file_become_a_filter_with_its_card(tmp_path, gristmill):
    text = (
        (ROOT / "catalogs" / "sources" / "samples.toml")
        .read_text("utf-8")
        .replace("../samples/*.jsonl", f"{SAMPLES}/de.jsonl")
    )
    (tmp_path / "mine.toml").write_text(text, "utf-8")
    given = ("--positive", SAMPLES / "en.jsonl", "--negative", tmp_path / "mine.toml", "--store", tmp_path / "store")
    told = gristmill("train-filter", "english", *given, *SMALL, "--labels", "en,other", "--json")
    made, folder = last(told), tmp_path / "store" / "filters" / "english"
    assert made["folder"] == str(folder) and made["digest"] == card.read(folder / "card.json")["digest"]
    assert made["label"] == "en" and made["held_back"]["auc"] > 0.9
    assert [side["sources"][0]["licence"] for side in made["data"]] == [
        "NOASSERTION",
        "CC0-1.0",
    ]
    said = gristmill("train-filter", "english", *given, *SMALL, "--labels", "en,other").stdout
    assert "area under the ROC curve" in said and f"{folder}/model.bin" in said


def test_what_cannot_be_is_a_sentence(tmp_path, gristmill):
    files = ("--positive", SAMPLES / "en.jsonl", "--negative", SAMPLES / "de.jsonl", "--store", tmp_path)
    for more, words in [
        (("Bad Name", *files), "name is lower-case letters"),
        (("f", *files, "--labels", "one"), "two words with a comma between"),
        (("f", "--positive", SAMPLES / "en.jsonl", "--negative", SAMPLES / "xx.jsonl"), "xx.jsonl: no such file"),
        (("f", *files, "--epoch", 0), "epochs lie between 1 and 1,000"),
    ]:
        assert words in gristmill("train-filter", *more, code=2).stderr


def test_a_file_and_a_version_become_a_model_of_words(tmp_path, gristmill, built):
    draw = random.Random(1)
    rows = [" ".join(draw.choices("the mill wheel turns in water of stone".split(), k=12)) for _ in range(150)]
    (path := tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    store = built[0]
    files = ("--source", path, "--store", store)
    told = gristmill("train-ngram", "words", *files, "--order", 2, "--reference", "small@latest", "--json")
    made, folder = last(told), store / "ngrams" / "words"
    assert made["folder"] == str(folder) and 0 < made["head"] < made["tail"]
    assert made["digest"] == card.read(folder / "card.json", artifact.FORMAT)["digest"]
    version = made["reference"]["sources"][0]
    assert version["name"].startswith("small@") and version["licence"]
    assert made["reference"]["documents"] == made["reference"]["judged"] + made["reference"]["copies"]
    said = gristmill("train-ngram", "words", *files, "--order", 2, "--reference", "small@latest").stdout
    assert "median perplexity of" in said and f"{folder}/model.arpa" in said
    for more, words in [
        (("Bad Name", *files), "name is lower-case letters"),
        (("x", *files, "--order", 9), "order lies between 2 and 6"),
        (("x", *files, "--reference", "absent@1"), "no version of 'absent'"),
    ]:
        assert words in gristmill("train-ngram", *more, code=2).stderr
