"""What sources ship: cards listed and searched, and one card told whole.

Each gives plain data for `--json` and has it laid out; a card as TOML is for a file of one's own, with the revision
that one pins in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.tree import Tree

from flows import show as layout
from flows.screen import Screen, plain
from pipeline import licences
from pipeline.catalog import cards
from pipeline.catalog.cards import Card
from pipeline.stage import ConfigError, suggest

SHOWN = ("name", "category", "title", "licence", "languages", "size")


def found(
    words: Sequence[str], language: str | None, category: str | None, kind: str | None, licence: str | None
) -> list[dict[str, Any]]:
    """The cards that have all of the words somewhere, and are of this language, category, kind and licence.

    A card in many languages is of each. `licence` is an entry as in a recipe's [licence] allow, as CC-BY-*. Raises
    ConfigError for a category, kind or licence that there is none of.
    """
    every = [cards.load(name) for name in cards.available()]
    for said, known, what in (
        (category, {card.category for card in every if card.category}, "category"),
        (kind, {card.kind for card in every}, "kind"),
    ):
        if said is not None and said not in known:
            raise ConfigError(f"no card is of {what} {said!r}{suggest(said, known)}")
    if licence is not None:
        licences.check_entry(licence, "--licence")
    return [
        described(card)
        for card in every
        if all(word.lower() in _text(card) for word in words)
        and (language is None or any(fnmatchcase(each, language) or each == "mul" for each in card.languages))
        and (category is None or card.category == category)
        and (kind is None or card.kind == kind)
        and (licence is None or _under(card.licence, licence))
    ]


def _under(expression: str, entry: str) -> bool:
    """Whether a licence is known, and lets in who allows this entry alone."""
    return not licences.is_unknown(expression) and bool(licences.allowed(expression, [entry], None))


def _text(card: Card) -> str:
    """What is searched."""
    said = (card.name, card.title, card.description, card.category or "", card.params.get("dataset", ""))
    return " ".join(map(str, said)).lower()


def described(card: Card) -> dict[str, Any]:
    """A card as plain data, with the file that it lies in."""
    return {**card.model_dump(), "file": str(card.file)}


def one(name: str) -> dict[str, Any]:
    """A card by its name or file. Raises ConfigError."""
    return described(cards.load(name))


def toml(name: str) -> str:
    """The text of a card. Raises ConfigError."""
    return cards.load(name).file.read_text("utf-8")


def listed(screen: Screen, table: Sequence[Mapping[str, Any]]) -> None:
    """A line a card."""
    rows = [[", ".join(c[n]) if n == "languages" else c[n] for n in SHOWN] for c in table]
    layout.listing(screen, "cards of sources (gristmill sources NAME tells one)", SHOWN, rows)


def told(screen: Screen, card: Mapping[str, Any]) -> None:
    """All that a card says, and how it is read."""
    tree = Tree(plain(f"{card['name']}: {card['title']}", "bold"))
    tree.add(plain(" ".join(card["description"].split()), limit=2000))
    for name in ("category", "size", "licence", "collected", "homepage", "citation"):
        if card[name]:
            tree.add(plain(f"{name}: {card[name]}", limit=500))
    tree.add(plain(f"languages: {', '.join(card['languages'])}"))
    # Only what the card itself says: the defaults of its kind are no news.
    stated = tomllib.loads(Path(card["file"]).read_text("utf-8")).get("params", {})
    branch = tree.add(plain(f"read as kind {card['kind']}"))
    for name, value in stated.items():
        branch.add(plain(f"{name} = {value}", limit=300))
    if card["problems"]:
        problems = tree.add("known problems")
        for problem in card["problems"]:
            problems.add(plain(problem, limit=500))
    tree.add(plain(card["file"], "dim", limit=500))
    screen.say(tree)
