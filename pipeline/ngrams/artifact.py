"""An n-gram model as it lies on the disk: model.arpa, card.json and card.md, in a folder that is whole or not there.

Some of the texts are held back. The card says how surprising these are to the model, and where head and tail lie: the
percentiles of the perplexity of a reference sample (CCNet: Wenzek et al. 2020, arXiv 1911.00359, 3.3 and its code,
which takes the 30th and 60th of each language of the crawl), or of what was held back where none is given. The card is
known by the digest of its content, in which there is no clock, host or path.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.filters import artifact, card, texts
from pipeline.filters.texts import Labelled
from pipeline.mistakes import ConfigError
from pipeline.ngrams import counting, estimate
from pipeline.stages import perplexity
from pipeline.store import file_digest, sync_folder, write_text

FORMAT, MODEL = "gristmill.ngram/1", "model.arpa"
ORDERS = range(2, 7)
FEWEST = 10


@dataclass(frozen=True)
class Settings:
    """How a model is made: `units` and `normalise` as of the stage `perplexity`, percentiles of head and tail."""

    order: int = 3
    units: Literal["whitespace", "script"] = "whitespace"
    normalise: bool = True
    hold_back: float = 0.1
    head: float = 30.0
    tail: float = 60.0

    def check(self) -> None:
        """Raise ConfigError for what cannot be."""
        if self.order not in ORDERS:
            raise ConfigError(f"the order lies between {ORDERS[0]} and {ORDERS[-1]}, which KenLM reads: {self.order}")
        if self.units not in ("whitespace", "script"):
            raise ConfigError(f"units are whitespace or script, not {self.units!r}")
        if not 0 < self.hold_back < 1:
            raise ConfigError(f"what is held back is a share between 0 and 1, not {self.hold_back}")
        if not 0 < self.head <= self.tail < 100:
            raise ConfigError(f"percentiles: 0 < head <= tail < 100, not {self.head:g} and {self.tail:g}")


def text_of(document: str) -> str:
    """A document as a text of a model: as it is, where it has a word."""
    return document if document.strip() else ""


def make(folder: Path, given: Labelled, settings: Settings, reference: Labelled | None = None) -> dict[str, Any]:
    """Estimate on what is not held back, and write the artifact; returns its card.

    The same texts and settings give the same folder, which may then already be there. Raises ConfigError where too few
    texts remain on a side, the folder holds something else, or KenLM, which reads the model again, is not there.
    """
    settings.check()
    held = {key: text for key, text in given.texts.items() if texts.held_back(key, settings.hold_back)}
    judged = reference.texts if reference else held
    for count, what, more in (
        (len(held), "texts are held back", "more documents, or a larger share"),
        (len(judged), "texts has the reference", "more documents"),
    ):
        if count < FEWEST:
            raise ConfigError(f"only {count} {what}, and it takes {FEWEST}: give {more}")
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    try:
        path = temporary / MODEL
        kept = (text for key, text in given.texts.items() if key not in held)
        made = estimate.estimate(counting.count(_lines(kept, settings), settings.order))
        estimate.write(made, path)
        found = {**_told(path, made, settings), "data": [_side(given, len(given.texts) - len(held), len(held))]}
        known = _percentiles(path, held.values(), settings)
        found["held_back"] = {"texts": len(held), "perplexity": known(50)}
        of = _percentiles(path, judged.values(), settings) if reference else known
        found |= {"head": of(settings.head), "tail": of(settings.tail), "percentiles": [of(n) for n in range(101)]}
        found["reference"] = _side(reference, 0, len(judged)) if reference else "what was held back"
        sealed = card.sealed(found)
        write_text(temporary / artifact.CARD, json.dumps(sealed, indent=1, ensure_ascii=False) + "\n")
        write_text(temporary / artifact.PAGE, page(sealed, folder.name))
        sync_folder(temporary)
        artifact.publish(temporary, folder, sealed)
    except ImportError as error:
        raise ConfigError(str(error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sealed


def _lines(given: Iterable[str], settings: Settings) -> Iterable[list[str]]:
    by_script = settings.units == "script"
    return (perplexity.words_of(row, by_script, settings.normalise) for text in given for row in text.split("\n"))


def _side(given: Labelled, trained: int, judged: int) -> dict[str, Any]:
    said = {name: value for name, value in given.said.items() if name not in ("label", "on both sides")}
    return {**said, "trained": trained, "judged": judged}


def _told(path: Path, made: estimate.Model, settings: Settings) -> dict[str, Any]:
    counted = made.counted
    return {
        "format": FORMAT,
        "model": {"file": MODEL, "sha256": file_digest(path, "sha256"), "bytes": path.stat().st_size},
        "settings": asdict(settings),
        "sentences": counted.sentences,
        "words": counted.tokens,
        "grams": [len(grams) for grams in counted.orders],
        "discounts": [[round(d, 6) for d in of] for of in made.discounts],
    }


def _percentiles(path: Path, given: Iterable[str], settings: Settings) -> Callable[[float], float]:
    """What gives the percentiles of the perplexities of texts: values that one of them has."""
    model, by_script = perplexity.opened(path), settings.units == "script"
    found = (perplexity.of(model, text, by_script, settings.normalise) for text in given)
    values = sorted(one for one in found if one is not None)
    return lambda share: round(float(np.percentile(values, share, method="lower")), 4)


def page(sealed: Mapping[str, Any], name: str) -> str:
    """The card for people, in Markdown."""
    settings, model = sealed["settings"], sealed["model"]
    (side,) = sealed["data"]
    lines = [
        f"# N-gram model {name}",
        "",
        f'Interpolated modified Kneser-Ney of order {settings["order"]} over words (`units = "{settings["units"]}"`, '
        f"`normalise = {str(settings['normalise']).lower()}`), {sealed['words']:,} words in "
        f"{sealed['sentences']:,} lines. "
        f"Model sha256 `{model['sha256']}`, card `{sealed['digest']}`.",
        "",
        f"Median perplexity of {sealed['held_back']['texts']:,} held-back texts: "
        f"**{sealed['held_back']['perplexity']:,.1f}**. Percentiles {settings['head']:g} and {settings['tail']:g} of "
        f"the reference: `head = {sealed['head']}`, `tail = {sealed['tail']}`.",
        "",
        "| order | grams | discounts |",
        "|---|---|---|",
    ]
    for k, (grams, discounts) in enumerate(zip(sealed["grams"], sealed["discounts"], strict=True), 1):
        lines.append(f"| {k} | {grams:,} | {', '.join(f'{d:.4f}' for d in discounts)} |")
    lines += ["", "| source | licence | documents | trained on | held back |", "|---|---|---|---|---|"]
    names = ", ".join(source["name"] for source in side["sources"])
    licence = ", ".join(sorted({source["licence"] for source in side["sources"]}))
    lines.append(f"| {names} | {licence} | {side['documents']:,} | {side['trained']:,} | {side['judged']:,} |")
    return "\n".join([*lines, ""])
