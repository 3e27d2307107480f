"""The probability of a label by a fastText model that was trained here (`gristmill train-filter`), or by fastText.

    score   the probability of `label`, by our own kernel, within 1e-5 of fastText's own
    rank    where the filter's `card` is given: the share of the held-back texts of the other label that score lower, in
            hundredths. `drop.rank = {below = 0.9}` keeps of documents like those the best tenth, whatever the model

This is DCLM's classifier (Li et al. 2024, arXiv 2406.11794, section 4.4: the best tenth of raw web text), or one of any
other label. The whole text is judged, line feeds read as spaces. A text of which the model knows nothing has nulls. The
kernel holds no lock, so each worker thread keeps a core busy.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import given
from pipeline.filters import card as cards
from pipeline.given import File
from pipeline.mistakes import suggest
from pipeline.scores import labeller, labels, pulls, scores
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

PULLING = 16
TRAIN = "train it: gristmill train-filter NAME --positive CARD --negative CARD --out {folder}"
MISSING = {"model": TRAIN, "card": TRAIN}


@measure(score="float64", rank="float64")
def classifier(
    batch: pa.RecordBatch, *, model: File, label: str = "hq", card: File | None = None
) -> dict[str, pa.Array]:
    """Measure every document."""
    found = scores(labeller(model), batch["text"], label)
    blind = np.isnan(found)
    columns = {"score": pa.array(found, pa.float64(), mask=blind)}
    if card is not None:
        columns["rank"] = pa.array(_ranked(found, _reference(card)), pa.float64(), mask=blind)
    return columns


def columns(*, card: str | None, **params: object) -> list[str]:
    """What is measured with a card, and without."""
    return ["score"] if card is None else ["score", "rank"]


def check(*, model: str, label: str, card: str | None) -> None:
    """Raise ValueError where the model is none, lacks the label, or is not the one of the card."""
    if not given.NAMED.fullmatch(model):
        return
    known = labels(labeller(model))
    if label not in known:
        raise ValueError(f"the model has no label {label!r}{suggest(label, known)}")
    if card is None or not given.NAMED.fullmatch(card):
        return
    said = _card(card)
    if f"sha256:{said['model']['sha256']}" != model or said["label"] != label:
        raise ValueError(
            f"the card is of another model or label: of {said['label']!r}, sha256 {said['model']['sha256']}"
        )


def _card(card: str) -> dict[str, Any]:
    return cards.read(given.find(card))


@functools.lru_cache(4)
def _reference(card: str) -> NDArray[np.float64]:
    """The hundredths of the scores of the held-back texts of the other label, from the lowest to the highest."""
    return np.array(_card(card)["held_back"]["negative_scores"], np.float64)


def _ranked(found: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    lower = np.searchsorted(reference, found, "left")
    return np.maximum(lower - 1, 0) / (reference.size - 1)


def examples(rule: Rule, limit: Any, *, model: str, label: str, card: str | None = None) -> Examples:
    """Texts of the words that pull hardest to the label and away from it, in mixtures, measured."""
    from pipeline.examples import chosen

    texts = mixtures(model, label)
    batch = pa.record_batch([pa.array(texts, pa.large_string())], ["text"])
    values = classifier(batch, model=model, label=label, card=card)[rule.column].to_pylist()
    return chosen(rule, [(text,) for text in texts], [None if v is None else round(v, 6) for v in values])


@functools.lru_cache(4)
def mixtures(model: str, label: str) -> tuple[str, ...]:
    """Texts from all away from a label to all towards it: words of a model's own dictionary that pull hardest, two and
    two as they score together, since n-grams of words pull too.
    """
    from pipeline.examples import WHOLE

    known = labeller(model).model
    order = np.argsort(pulls(known, label), kind="stable").tolist()
    words = [word for n in order if (word := known.words[n].decode("utf-8", "ignore")) not in ("", "</s>")]
    ends = words[:PULLING], words[-PULLING:]
    pairs = list(dict.fromkeys(f"{a} {b} {a} {b}" for end in ends for a in end for b in end))
    found = scores(labeller(model), pa.array(pairs, pa.large_string()), label)
    ranked = [pairs[n] for n in np.argsort(found, kind="stable").tolist()]
    sides = ranked[:1] * WHOLE, ranked[-1:] * WHOLE
    mixed = [[*sides[1][:k], *sides[0][k:]] for k in range(WHOLE + 1)]
    mixed += [[*words[-k:], *words[:-k][: WHOLE - k]] for k in range(1, WHOLE)]
    return tuple(dict.fromkeys(" ".join(some) for some in mixed))
