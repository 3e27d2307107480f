"""The verb that trains a classifier of documents: `train-filter`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.options import DataOption, JsonOption, StoreOption
from flows.screen import Screen, size

Source = Annotated[
    list[str],
    typer.Option(metavar="SOURCE", help="A card (gristmill ls), a .toml file, or a file of documents. Repeatable."),
]


def register(verb: Callable[..., Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    verb(train_filter, name="train-filter")


def train_filter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the filter: it lies in STORE/filters/NAME.")],
    positive: Source,
    negative: Source,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where it goes instead.")] = None,
    labels: Annotated[str, typer.Option(metavar="A,B", help="What the two sides are called.")] = "hq,cc",
    documents: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Use N texts of each side, chosen by their hash; default: all."),
    ] = None,
    hold_back: Annotated[float, typer.Option(metavar="SHARE", help="Share of the texts that judge.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides the order of the texts, and where training starts.")] = 0,
    word_ngrams: Annotated[int, typer.Option(help="Longest n-gram of words.")] = 2,
    min_n: Annotated[int, typer.Option(help="Shortest n-gram of characters; 0 for none.")] = 0,
    max_n: Annotated[int, typer.Option(help="Longest n-gram of characters; 0 for none.")] = 0,
    dim: Annotated[int, typer.Option(help="Dimensions of a word.")] = 100,
    epoch: Annotated[int, typer.Option(help="How often each text is met.")] = 5,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.1,
    bucket: Annotated[int, typer.Option(help="Rows that n-grams share; 4 x dim bytes each.")] = 2_000_000,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier of documents on two labelled sources.

    fastText in DCLM's set-up: labels hq and cc, n-grams of two words, else its defaults. A part of the texts is held
    back, and the card says how well the filter tells them apart and what each threshold keeps. The same texts and seed
    give the same filter, to the byte. The stage `classifier` applies it.

    \b
      gristmill train-filter quality --positive my-wiki.toml --negative my-crawl.toml
      gristmill train-filter small --positive good.jsonl --negative web.jsonl --bucket 100000 --dim 50
    """
    from pipeline.filters import artifact, texts
    from pipeline.filters.training import Settings
    from pipeline.mistakes import ConfigError

    screen = Screen(as_json)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ConfigError(f"a filter's name is lower-case letters, digits and hyphens, got {name!r}")
    called = labels.split(",")
    if len(called) != 2 or not all(called):
        raise ConfigError(f"--labels are two words with a comma between, got {labels!r}")
    settings = Settings(word_ngrams, min_n, max_n, dim, epoch, lr, bucket, seed=seed)
    settings.check()
    folder = Path(data).expanduser() if data else None
    sides = [
        texts.read(label, names, seed, documents, folder)
        for label, names in zip(called, (positive, negative), strict=True)
    ]
    place = (out or Path(store) / "filters" / name).expanduser()
    card = artifact.make(place, sides[0], sides[1], settings, hold_back)
    held = card["held_back"]
    low, high = held["auc_interval"]
    for side in card["data"]:
        said = ", ".join(source["name"] for source in side["sources"])
        screen.say(f"{side['label']}: {side['trained']:,} texts of {said} to train on, {side['held_back']:,} held back")
    screen.say(f"area under the ROC curve {held['auc']:.3f} ({held['level']:.0%} interval {low:.3f} to {high:.3f})")
    for row in held["thresholds"]:
        screen.say(
            f"  keep from {row['threshold']:.5f}: {row['negative_kept']:.1%} of {card['against']}, precision "
            f"{row['precision']:.3f}, recall {row['recall']:.3f}"
        )
    screen.say(f"{place / artifact.MODEL} ({size(card['model']['bytes'])}), {artifact.CARD} {card['digest']}")
    screen.finish({"filter": name, "folder": str(place), **card})
