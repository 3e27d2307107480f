"""The verbs that make what stages judge by: `train-filter`, a classifier, and `train-ngram`, a model of words."""

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
    verb(train_ngram, name="train-ngram")


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
    _check(name)
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


def train_ngram(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model: it lies in STORE/ngrams/NAME.")],
    source: Annotated[
        list[str],
        typer.Option(
            metavar="SOURCE",
            help="A card, a .toml file, a file of documents, or NAME@VERSION of the store. Repeatable.",
        ),
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="What the model shall judge: head and tail are its percentiles. Repeatable."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where it goes instead.")] = None,
    order: Annotated[int, typer.Option(help="Longest n-gram, 2 to 6; CCNet's models have 5.")] = 3,
    units: Annotated[str, typer.Option(help="Words: between white space, or by script, for text without spaces.")] = (
        "whitespace"
    ),
    normalise: Annotated[bool, typer.Option(help="Lower case, and every digit as 0.")] = True,
    documents: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use N texts a side, chosen by their hash; default: all.")
    ] = None,
    hold_back: Annotated[float, typer.Option(metavar="SHARE", help="Share of the texts that judge.")] = 0.1,
    head: Annotated[float, typer.Option(metavar="PERCENTILE", help="Up to this one a text is head.")] = 30.0,
    tail: Annotated[float, typer.Option(metavar="PERCENTILE", help="Beyond this one a text is tail.")] = 60.0,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an n-gram model of words, as KenLM's lmplz does.

    Interpolated modified Kneser-Ney, each line a sentence, written as an ARPA file that the stage perplexity asks. The
    card says how surprising held-back texts are, and the bounds of head and tail. The same texts give the same bytes.

    \b
      gristmill train-ngram wiki-zh --source my-wiki.toml --units script --reference my-crawl.toml
      gristmill train-ngram docs --source quickstart@latest --order 5
    """
    from pipeline.filters import texts
    from pipeline.ngrams import artifact

    screen = Screen(as_json)
    _check(name)
    settings = artifact.Settings(order, units, normalise, hold_back, head, tail)  # type: ignore[arg-type]
    settings.check()
    root, folder = Path(store).expanduser(), Path(data).expanduser() if data else None
    given, judged = (
        texts.read(label, names, 0, documents, folder, root, artifact.text_of) if names else None
        for label, names in (("text", source), ("reference", reference))
    )
    assert given is not None
    place = (out or root / "ngrams" / name).expanduser()
    card = artifact.make(place, given, settings, judged)
    grams = ", ".join(f"{count:,}" for count in card["grams"])
    screen.say(f"{card['words']:,} words in {card['sentences']:,} lines; n-grams of 1 word and more: {grams}")
    held = card["held_back"]
    screen.say(f"median perplexity of {held['texts']:,} held-back texts {held['perplexity']:,.1f}")
    of = "the reference" if judged else "these"
    screen.say(f"percentiles {head:g} and {tail:g} of {of}: head = {card['head']}, tail = {card['tail']}")
    screen.say(f"{place / artifact.MODEL} ({size(card['model']['bytes'])}), card {card['digest']}")
    screen.finish({"ngram": name, "folder": str(place), **card})


def _check(name: str) -> None:
    from pipeline.mistakes import ConfigError

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise ConfigError(f"its name is lower-case letters, digits and hyphens, got {name!r}")
