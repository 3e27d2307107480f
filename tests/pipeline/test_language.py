"""The stage `language` against fastText's own predict, text by text, and against gold."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import stage
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
    assert measured(texts) == [said(model, text) for text in texts]


def test_it_says_what_fasttext_says_of_documents(model, shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = [text for text in table["text"].to_pylist()[::130] if text.strip()]
    assert measured(texts) == [said(model, text[:10_000]) for text in texts]
    assert measured(texts, characters=40) == [said(model, text[:40]) for text in texts if text[:40].strip()]


def test_nasty_texts_have_a_language_or_none(model):
    texts = list(nasty.TEXTS.values())
    for text, (lang, score) in zip(texts, measured(texts), strict=True):
        if not text[:10_000].strip():
            assert lang is score is None
        else:
            assert (lang, score) == said(model, text[:10_000]) and 0 <= score <= 1


@pytest.mark.parametrize("lang", ["en", "zh", "ja", "ko", "ru", "de", "fr", "ar", "th"])
def test_sentences_are_mostly_of_their_gold_language(model, gold, lang):
    found = [label for label, _ in measured(gold[lang])]
    assert found.count(lang) > 0.9 * len(found) > 9


def test_the_language_of_a_text_without_a_letter_is_not_known():
    """No model is needed to say so."""
    assert measured(["", " \n\t", "\u3000\u00a0"]) == [(None, None)] * 3
