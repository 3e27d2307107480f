"""The stage `language` against fastText's own predict, text by text, and against gold."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import fasttext_model, stage
from pipeline.filters import texts, training
from pipeline.kernels.fasttext import Labeller
from pipeline.models import ModelError, language_model
from tests.laws import nasty


@pytest.fixture(scope="module")
def model():
    """fastText's own class, loaded apart from the stage's."""
    try:
        path = language_model()
    except ModelError as error:
        pytest.skip(str(error))
    import fasttext.FastText

    fasttext.FastText.eprint = lambda *words: None
    return fasttext.FastText.load_model(str(path))


def measured(texts: list[str], **params) -> list[tuple[str | None, float | None]]:
    batch = pa.record_batch([pa.array(texts, pa.large_string())], names=["text"])
    found = stage.load("language", params)(batch)
    return list(zip(found["lang"].to_pylist(), found["score"].to_pylist(), strict=True))


def said(model, text: str) -> tuple[str, float]:
    [label], [score] = model.predict(text.replace("\n", " "))
    return label.removeprefix("__label__"), min(round(float(score), 4), 1.0)


def agree(ours, theirs) -> None:
    """Every label equal; probabilities, summed in another order and then rounded, to one unit of the last decimal."""
    assert [lang for lang, _ in ours] == [lang for lang, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1.01e-4)


@pytest.fixture(scope="module")
def gold(shared_data) -> dict[str, list[str]]:
    """Sentences of 75 languages."""
    found = defaultdict(list)
    for row in pq.read_table(shared_data / "lid" / "lingua_sentences.parquet").to_pylist()[::37]:
        found[row["lang"]].append(row["text"])
    return found


def test_it_says_what_fasttext_says_of_sentences(model, gold):
    texts = [text for some in gold.values() for text in some]
    assert len(gold) == 75 and len(texts) > 1900
    agree(measured(texts), [said(model, text) for text in texts])


def test_it_says_what_fasttext_says_of_documents(model, shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = [text for text in table["text"].to_pylist()[::130] if text.strip()]
    agree(measured(texts), [said(model, text[:10_000]) for text in texts])
    heads = [text for text in texts if text[:40].strip()]
    agree(measured(heads, characters=40), [said(model, text[:40]) for text in heads])


def test_nasty_texts_have_a_language_or_none(model):
    texts = list(nasty.TEXTS.values())
    for text, (lang, score) in zip(texts, measured(texts), strict=True):
        if not text[:10_000].strip():
            assert lang is score is None
        else:
            agree([(lang, score)], [said(model, text[:10_000])])
            assert 0 <= score <= 1


@pytest.mark.parametrize("lang", ["en", "zh", "ja", "ko", "ru", "de", "fr", "ar", "th"])
def test_sentences_are_mostly_of_their_gold_language(model, gold, lang):
    found = [label for label, _ in measured(gold[lang])]
    assert found.count(lang) > 0.9 * len(found) > 9


def test_the_language_of_a_text_without_a_letter_is_not_known():
    """No model is needed to say so."""
    assert measured(["", " \n\t", "\u3000\u00a0"]) == [(None, None)] * 3


def test_a_second_opinion_is_asked_where_the_first_is_in_doubt_and_only_there(model, shared_data, tmp_path):
    """Each text by both models of fastText itself; a second one that was trained on Zulu and Xhosa."""
    import fasttext.FastText

    gold = defaultdict(list)
    for row in pq.read_table(shared_data / "lid" / "lingua_sentences.parquet").to_pylist():
        gold[row["lang"]].append(row["text"])
    train = {lang: [texts.line(text) for text in gold[lang][:800]] for lang in ("zu", "xh", "en")}
    training.train(train, training.Settings(1, 2, 4, dim=8, epoch=20, lr=0.5, bucket=20_000), tmp_path / "second.bin")
    second = fasttext.FastText.load_model(str(tmp_path / "second.bin"))
    some = [text for lang in ("zu", "xh", "en", "de", "zh") for text in gold[lang][-50:]]
    for doubt in (0.0, 0.4, 0.9):
        first = [said(model, text) for text in some]
        expected = [said(second, text) if one[1] < doubt else one for text, one in zip(some, first, strict=True)]
        found = measured(some, second=str(tmp_path / "second.bin"), doubt=doubt)
        agree(found, expected)
        if doubt == 0.4:
            right = [lang == "zu" for lang, _ in found[:50]]
            assert sum(right) > 0.6 * len(right) and first[0][0] != "zu"
    with pytest.raises(stage.ConfigError, match="doubt is a score between 0 and 1"):
        stage.load("language", {"doubt": 2.0})


@pytest.mark.slow
def test_every_label_of_the_real_sentences_and_pages_is_fasttexts(model, shared_data):
    """All 101,276 texts, whole."""
    labeller = Labeller(fasttext_model.read(language_model()))
    for path in ("lid/lingua_sentences.parquet", "corpus/debian_docs.parquet"):
        texts = pq.read_table(shared_data / path, columns=["text"])["text"].to_pylist()
        labels, scores = labeller(pa.array(texts, pa.large_string()))
        said_labels, said_scores = model.predict([text.replace("\n", " ") for text in texts])
        assert [labeller.labels[i] for i in labels[:, 0]] == [found[0] for found in said_labels]
        assert np.abs(scores[:, 0] - np.array([found[0] for found in said_scores])).max() < 1e-5
