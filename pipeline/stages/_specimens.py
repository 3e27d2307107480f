"""Texts in many languages for the canaries of `language`: those that ship, and words of the model's own dictionary.

The nine shipped ones are real texts. Of any other label, the words that alone are given it with the highest score make
a text; about fifty of the 176 have no such word, and no text here.
"""

from __future__ import annotations

import functools
import importlib.resources
import json

import numpy as np
import pyarrow as pa

from pipeline import fasttext_model
from pipeline.models import language_model
from pipeline.stages.language import language

LANGUAGES = "ar", "de", "en", "es", "fr", "ja", "ko", "ru", "zh"
CHARACTERS, FEW = 600, 8


@functools.cache
def specimens() -> tuple[str, ...]:
    """Texts of many languages and scores, always the same."""
    words = [word.decode() for word in fasttext_model.read(language_model()).words[1:]]
    found = language(pa.record_batch([pa.array(words)], ["text"]))
    scores = found["score"].to_numpy(zero_copy_only=False)
    surest = np.argsort(-np.nan_to_num(scores), kind="stable")
    of: dict[str, list[str]] = {}
    for word, lang in ((words[n], found["lang"][n].as_py()) for n in surest.tolist()):
        if lang is not None and len(of.setdefault(lang, [])) < FEW:
            of[lang].append(word)
    texts = [" ".join(some[:count]) for _, some in sorted(of.items()) for count in (1, FEW)]
    return (*map(shipped, LANGUAGES), *dict.fromkeys(texts))


def shipped(lang: str) -> str:
    """The beginning of a text in a language, of those that come along."""
    with (importlib.resources.files("catalogs") / "samples" / f"{lang}.jsonl").open(encoding="utf-8") as file:
        return str(json.loads(file.readline())["text"])[:CHARACTERS]
