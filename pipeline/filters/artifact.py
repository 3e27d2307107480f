"""A trained filter as it lies on the disk: model.bin, card.json and card.md, in a folder that is whole or not there.

The card says how well it judges held-back texts, what each threshold keeps, and what it was trained on, with licences
and digests; so it is known by the digest of its content, in which there is no clock, host or path.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import fasttext_model
from pipeline.filters import card, judging, texts, training
from pipeline.filters.texts import Labelled
from pipeline.filters.training import Settings
from pipeline.kernels.fasttext import Labeller
from pipeline.mistakes import ConfigError
from pipeline.scores import scores
from pipeline.store import file_digest, sync_folder, write_text

MODEL, CARD, PAGE = "model.bin", "card.json", "card.md"
FEWEST = 5


def make(
    folder: Path, positive: Labelled, negative: Labelled, settings: Settings, hold_back: float = 0.2
) -> dict[str, Any]:
    """Train on what is not held back, judge the rest, and write the artifact; returns its card.

    The same texts and settings give the same folder, which may then already be there. Raises ConfigError where a label
    is empty, `hold_back` leaves too few texts on a side, or the folder holds something else.
    """
    if not 0 < hold_back < 1:
        raise ConfigError(f"what is held back is a share between 0 and 1, not {hold_back}")
    if positive.label == negative.label:
        raise ConfigError(f"both labels are {positive.label!r}: a classifier needs two")
    texts.apart(positive, negative)
    sides = (positive, negative)
    kept = {side.label: [t for k, t in side.texts.items() if not texts.held_back(k, hold_back)] for side in sides}
    held = {side.label: [t for k, t in side.texts.items() if texts.held_back(k, hold_back)] for side in sides}
    for side in sides:
        if len(held[side.label]) < FEWEST:
            raise ConfigError(
                f"of the {len(side.texts):,} texts of label {side.label!r} {len(held[side.label])} are held back, too "
                f"few to judge by: it needs {FEWEST}; give more documents, or a larger share than {hold_back:g}"
            )
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    try:
        training.train(kept, settings, temporary / MODEL)
        sealed = card.sealed(_told(temporary / MODEL, sides, kept, held, settings, hold_back))
        write_text(temporary / CARD, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")
        write_text(temporary / PAGE, card.page(sealed, folder.name))
        sync_folder(temporary)
        publish(temporary, folder, sealed)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sealed


def _told(
    model: Path,
    sides: Sequence[Labelled],
    kept: Mapping[str, Sequence[str]],
    held: Mapping[str, Sequence[str]],
    settings: Settings,
    hold_back: float,
) -> dict[str, Any]:
    """What the card says: the model judges by what is read back from its file."""
    labeller = Labeller(fasttext_model.read(model))
    positive, negative = sides
    found = [
        np.nan_to_num(scores(labeller, pa.array(held[side.label], pa.large_string()), positive.label)) for side in sides
    ]
    return {
        "format": card.FORMAT,
        "label": positive.label,
        "against": negative.label,
        "model": {"file": MODEL, "sha256": file_digest(model, "sha256"), "bytes": model.stat().st_size},
        "held_back": {"share": hold_back, **judging.report(found[0], found[1], settings.seed)},
        "settings": asdict(settings),
        "data": [{**side.said, "trained": len(kept[side.label]), "held_back": len(held[side.label])} for side in sides],
    }


def publish(temporary: Path, folder: Path, sealed: Mapping[str, Any]) -> None:
    """Rename a folder to its place, unless the same artifact is there. Raises ConfigError where another one is."""
    if folder.exists():
        if _same(folder, sealed):
            return
        raise ConfigError(f"{folder} holds something else, or is damaged: take another name, or remove it")
    temporary.rename(folder)


def _same(folder: Path, sealed: Mapping[str, Any]) -> bool:
    """Whether a folder holds what this card is of, whole."""
    model = folder / sealed["model"]["file"]
    if not ((folder / CARD).is_file() and model.is_file()):
        return False
    found = card.read(folder / CARD, sealed["format"])
    return found == sealed and file_digest(model, "sha256") == sealed["model"]["sha256"]
