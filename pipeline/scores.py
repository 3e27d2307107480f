"""The probability that a fastText model gives a label, for a column of texts.

It is rounded to 5 decimals, so that another machine's exponentials say the same; from fastText's own it differs by
1e-5 at the most.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import fasttext_model, given
from pipeline.fasttext_model import FastTextModel
from pipeline.kernels.fasttext import MOST_CHARACTERS, Labeller

PREFIX, DECIMALS = "__label__", 5


@functools.lru_cache(4)
def labeller(model: str) -> Labeller:
    """The model that a stage was given (`given.File`), laid out once a process. Raises ModelError where it is not
    there, ValueError where it is none.
    """
    return Labeller(fasttext_model.read(given.find(model)))


def labels(model: FastTextModel | Labeller) -> list[str]:
    """The labels of a model, as they were before training put a prefix before them."""
    return [label.removeprefix(PREFIX) for label in model.labels]


def scores(
    model: FastTextModel | Labeller, text: pa.Array, label: str, characters: int = MOST_CHARACTERS
) -> NDArray[np.float64]:
    """float64 [n]: the probability of `label` for the first `characters` of each text; NaN where no token is known.

    Raises ValueError where the model has no such label.
    """
    labeller = model if isinstance(model, Labeller) else Labeller(model)
    number = labels(labeller).index(label)
    found, chances = labeller(text, len(labeller.labels), characters)
    mine = found == number
    picked = np.where(mine, chances, 0).sum(axis=1, dtype=np.float64)
    return np.where(mine.any(axis=1), np.minimum(np.round(picked, DECIMALS), 1.0), np.nan)


def pulls(model: FastTextModel, label: str) -> NDArray[np.float64]:
    """float64 [words]: how far each word of a model's dictionary alone pulls a text to `label`."""
    number = labels(model).index(label)
    others = np.delete(model.output, number, axis=0)
    lead = model.output[number] - (others.mean(axis=0) if len(others) else 0)
    found: NDArray[np.float64] = model.input[: len(model.words)].astype(np.float64) @ lead.astype(np.float64)
    return found
