"""The verb that forgets: what it would do, then that, then the statement, laid out to be read and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree

from flows.options import AddressArgument, JsonOption, MemoryOption, StoreOption, WorkersOption
from flows.screen import Screen, plain

SHARDS = 12


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make it a command."""
    verb(forget)


def forget(
    address: AddressArgument,
    doc: Annotated[list[str] | None, typer.Option(metavar="ID", help="A document; may be given again.")] = None,
    url: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Addresses, with * ? [..]: 'https://a.org/~b/*'.")
    ] = None,
    domain: Annotated[list[str] | None, typer.Option(metavar="D", help="A domain with all below it.")] = None,
    licence: Annotated[
        list[str] | None, typer.Option(metavar="L", help="A licence as documents bear it, with * ? [..].")
    ] = None,
    match_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts that hold one of these strings, one a line.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Not its duplicates: the best of them takes its place.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, as ledger and statement shall say it.")] = "",
    keep_parent: Annotated[
        bool, typer.Option("--keep-parent", help="Keep the version as it is: it holds their text still.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and write nothing.")] = False,
    store: StoreOption = ".gristmill",
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version without some documents, and purge the store of their text.

    With them goes everything that duplicates them or was made of them. Shards that hold none of them stay the same
    files. The version that held them is removed with its books, unless --keep-parent; versions that hold them still
    are named. forgotten.json and forgotten.txt beside the new manifest say what was done, and which runs and
    checkpoints have read them in which steps.

    \b
      gristmill forget webtext-zh --domain example.org --dry-run
      gristmill forget webtext-zh --doc 'pages:a.jsonl:17' --reason 'erasure request 4'
    """
    from flows import making, work
    from pipeline.forgetting.selecting import Request

    screen = Screen(as_json)
    lists = {"doc": doc, "url": url, "domain": domain, "licence": licence}
    given = {name: tuple(dict.fromkeys(values or ())) for name, values in lists.items()}
    request = Request(**given, match_file=match_file, only=only, reason=reason)
    mill = making.mill(store, None, workers, memory)
    if dry_run:
        found = work.forgetting(mill, address, request)
        planned(screen, found.described())
        screen.finish({"dry_run": True, **found.described()})
        return
    with making.at_work(True, screen):
        result = work.forget(mill, address, request, keep_parent, lambda made: planned(screen, made.described()))
    stated(screen, result)
    screen.finish(result)


def planned(screen: Screen, found: Mapping[str, Any]) -> None:
    """Who would go, and what that touches."""
    tree = Tree(plain(f"forget {found['documents']:,} documents of {found['parent']}", "bold"))
    others = found["documents"] - found["asked_for"]
    with_them = "were made of them" if found["request"]["only"] else "duplicate them or were made of them"
    tree.add(plain(f"{found['asked_for']:,} are named, {others:,} more {with_them}"))
    tree.add(plain(f"{found['was_kept']:,} of them are in the shards, with {found['tokens']:,} tokens"))
    touched = found["shards_touched"]
    branch = tree.add(plain(f"{len(touched):,} of {found['shards']:,} shards are touched"))
    for file in touched[:SHARDS]:
        branch.add(plain(file))
    if len(touched) > SHARDS:
        branch.add(f"and {len(touched) - SHARDS:,} more")
    listed = tree.add("documents")
    for row in found["first"]:
        listed.add(plain(f"{row['doc_id']}  ({row['by']})"))
    if found["documents"] > len(found["first"]):
        listed.add(f"and {found['documents'] - len(found['first']):,} more")
    screen.say(tree)


def stated(screen: Screen, found: Mapping[str, Any]) -> None:
    """The statement as it lies beside the new manifest."""
    from pipeline.forgetting import statement

    screen.say(plain(found["version"], "bold"))
    for line in statement.text(found).splitlines():
        screen.say(plain(line, "bold red" if line.startswith("STILL HELD") else "", limit=2000))
    screen.say(plain(f"statement   {found['path']}", "dim", limit=1000))
