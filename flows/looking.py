"""The verbs that say what is there and whether it is sound: `ls`, `sources`, `show`, `verify`, `audit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows import errors
from flows.options import AddressArgument, JsonOption, StoreOption
from flows.screen import Screen
from pipeline.mistakes import ConfigError


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    for command in (ls, sources, show, verify, audit):
        verb(command)


def ls(store: StoreOption = ".gristmill", as_json: JsonOption = False) -> None:
    """List versions, runs, recipes, run files and cards."""
    from flows import listing

    screen = Screen(as_json)
    found = listing.everything(Path(store).expanduser())
    listing.show(screen, found)
    screen.finish(found)


def sources(
    words: Annotated[list[str] | None, typer.Argument(metavar="[NAME | WORDS]", help="A card, or words of it.")] = None,
    language: Annotated[str | None, typer.Option("--language", metavar="CODE", help="As zh, or zh*.")] = None,
    category: Annotated[str | None, typer.Option("--category", metavar="WHAT", help="As web, or code.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="How it is read: files, hub.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", metavar="ENTRY", help="As CC-BY-*, or MIT.")] = None,
    toml: Annotated[bool, typer.Option("--toml", help="Print the card NAME, for a file of your own.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the cards of open data sets that ship, search them, or tell one.

    A recipe names a card in its `sources`. One of the Hub is read at a pinned revision: print it into a file beside
    your recipe, write the commit in, and name the file.

    \b
      gristmill sources chinese web
      gristmill sources --category evaluation --language zh
      gristmill sources --licence 'CC-BY-*'
      gristmill sources fineweb
      gristmill sources fineweb --toml > fineweb.toml
    """
    from flows import sources as shipped
    from pipeline.catalog import cards

    screen, filters = Screen(as_json), (language, category, kind, licence)
    if toml and len(words or ()) != 1:
        raise ConfigError("--toml prints one card: gristmill sources NAME --toml")
    if words and len(words) == 1 and (toml or words[0] in cards.available()) and not any(filters):
        if toml:
            typer.echo(shipped.toml(words[0]), nl=False)
            return
        card = shipped.one(words[0])
        shipped.told(screen, card)
        screen.finish(card)
        return
    table = shipped.found(words or [], *filters)
    shipped.listed(screen, table)
    screen.finish({"cards": table})


def show(address: AddressArgument, store: StoreOption = ".gristmill", as_json: JsonOption = False) -> None:
    """Show a version as a tree, or a run.

    Of a version sources, stages with counts and reasons, splits with shards, and the runs that read it, side by side;
    of a run how far it is, what it read and scores, and where it lies.

    \b
      gristmill show quickstart
      gristmill show quickstart-1a2b
      gristmill show quickstart@3f2a --json | jq .accounting
    """
    from flows import listing

    screen = Screen(as_json)
    screen.finish(listing.one(screen, Path(store).expanduser(), address))


def verify(
    address: AddressArgument,
    extends: Annotated[
        str | None, typer.Option("--extends", metavar="OLD", help="A version of which this one only adds to: prove it.")
    ] = None,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Hash a version's files again; exit code 1 on a difference.

    With --extends, hash those of OLD too, and name the first thing of it that is not in this version as it was: shards
    by their digests, documents by their rows of the index, sources, stages, tokenizer.

    \b
      gristmill verify my-corpus
      gristmill verify my-corpus --extends my-corpus@3f2a
    """
    from flows import listing

    screen = Screen(as_json)
    found = listing.verify(screen, Path(store).expanduser(), address, extends)
    screen.finish(found)
    raise typer.Exit(errors.WRONG if found["problems"] else errors.DONE)


def audit(address: AddressArgument, store: StoreOption = ".gristmill", as_json: JsonOption = False) -> None:
    """Account for every document of a version, from the disk.

    Ingested + added = kept + dropped + quarantined, id by id; exit code 1 where something is wrong.
    """
    from flows import listing

    screen = Screen(as_json)
    found = listing.audit(screen, Path(store).expanduser(), address)
    screen.finish(found)
    raise typer.Exit(errors.WRONG if found["problems"] else errors.DONE)
