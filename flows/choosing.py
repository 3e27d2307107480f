"""The verb that says what hangs on a dialect: `dialects`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.options import DataOption, JsonOption, RowsOption
from flows.screen import Screen, plain


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    verb(dialects)


def dialects(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (gristmill ls), or a .toml file.")],
    documents: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Read the first N documents of each source; default: all.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=100, help="Documents shown of each choice.")] = 3,
    data: DataOption = None,
    batch_rows: RowsOption = 4096,
    as_json: JsonOption = False,
) -> None:
    """Say which documents hang on the dialect of a stage.

    Tools give one rule several meanings. Each stage with a dialect is measured in all of them, and judged by all rules
    before the first barrier: documents that would come or go, counts a rule, and examples. Nothing is written.

    \b
      gristmill dialects quickstart --documents 500
      gristmill dialects my-recipe.toml --examples 10 --json | jq '.choices[0]'
    """
    from rich.table import Table

    from flows import progress
    from pipeline import choices, references
    from pipeline import recipe as recipes

    screen = Screen(as_json)
    folder = Path(data).expanduser() if data else None
    checked = recipes.load(recipe, folder)
    with references.used(folder), progress.shown(screen.err) as reporter:
        found = choices.ask(checked, examples, documents, batch_rows, reporter)
    screen.say(
        f"{found.name}: {found.documents:,} documents read, {found.kept:,} pass all rules before the first barrier"
    )
    for choice in found.choices:
        screen.say("")
        screen.say(plain(f"{choice.stage}: {choice.recipe} -> {choice.other}", "bold"))
        if choice.refused:
            screen.say(f"  cannot be: {choice.refused}")
            continue
        said = f"{choice.enters:,} more would be kept, {choice.leaves:,} would leave"
        screen.say(f"  {said}, {choice.other_reason:,} would leave by another rule")
        for reason in choice.absent:
            screen.say(f"  {choice.other} has no column for the rule {reason}: left out there")
        table = Table("rule, alone", f"{choice.recipe} only", f"{choice.other} only", "both", box=None, padding=(0, 2))
        for rule in choice.rules:
            counts = (rule.recipe_only, rule.other_only, rule.both)
            table.add_row(plain(rule.rule), *(f"{count:,}" for count in counts))
        if choice.rules:
            screen.say(table)
        for example in choice.examples:
            screen.say(f"  {example.doc_id}: {example.recipe} -> {example.other}")
            screen.say(plain(f"    {example.excerpt}", "dim"))
    for name in found.beyond:
        screen.say(f"{name} stands behind a barrier, where a build alone knows the documents: not compared")
    screen.finish(asdict(found))
