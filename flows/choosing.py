"""The verbs that help to choose a recipe's parameters and bounds: `dialects` and `calibrate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.options import DataOption, JsonOption, RowsOption, StoreOption
from flows.screen import Screen, plain

if TYPE_CHECKING:
    from pipeline.recipe import Recipe


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    for command in (dialects, calibrate):
        verb(command)


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


def calibrate(
    recipe: Annotated[
        str, typer.Argument(help="A shipped recipe (gristmill ls), a .toml file, or a version, as NAME@VERSION.")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="CARD", help="Learn from this source, not the recipe's own; may be given again."),
    ] = None,
    method: Annotated[str, typer.Option(help="tail, quantile, median-ratio or mean-std.")] = "tail",
    tail: Annotated[float, typer.Option(help="By tail: the share of the sample that each bound may remove.")] = 0.1,
    origin: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="By the others: whose bounds, and on which sources.")
    ] = None,
    store: StoreOption = ".gristmill",
    stage: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Learn the bounds of this stage; default: of all.")
    ] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Read the first N documents of each source; default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the stages there, not to the screen.")] = None,
    data: DataOption = None,
    batch_rows: RowsOption = 4096,
    as_json: JsonOption = False,
) -> None:
    """Learn the bounds of a recipe's rules from a sample of good text.

    A bound that was found on English pages is not one for another language. Take a recipe with any bounds, and a
    reference in the language that is good as it stands: an encyclopedia, books, documentation. Its documents are chosen
    by the recipe's rules over lists (keep.lang) and measured; each bound over a number is then moved. What comes out
    are [[stage]] tables to paste into the recipe, and for each rule what the old and the new bound remove there.

    \b
      tail          remove at most that share of the reference by each rule (FineWeb-2's 10Tail)
      quantile      remove what the same rule of --origin removes of the origin's sources
      median-ratio  as far from the reference's median as there, in proportion
      mean-std      as many standard deviations from the reference's mean as there

    With --stage the rules of the other stages stay as they are, and choose the sample too. The same recipe and sources
    give the same bounds. Look at what a bound removes before you take it (gristmill whatif): good text has a tail, too.

    \b
      gristmill calibrate zh-web --reference my-wiki.toml --stage repetition --stage fineweb
      gristmill calibrate my-recipe.toml --method quantile --origin fineweb --out bounds.toml
      gristmill calibrate my-corpus@latest --reference my-wiki.toml
      gristmill calibrate zh-web --tail 0.05 --documents 2000 --json | jq '.bounds[]'
    """
    from dataclasses import replace

    from rich.table import Table

    from flows import progress
    from pipeline import calibration
    from pipeline.catalog import cards

    screen, folder = Screen(as_json), Path(data).expanduser() if data else None
    checked = _recipe(recipe, store, folder)
    if reference:
        checked = replace(checked, sources=tuple(cards.load(card, folder) for card in reference))
    theirs = _recipe(origin, store, folder) if origin else None
    with progress.shown(screen.err) as reporter:
        found = calibration.ask(checked, method, tail, theirs, stage or (), documents, batch_rows, reporter)
    screen.say(f"{found.recipe}: {found.documents:,} of {found.read:,} documents of {', '.join(found.sources)}")
    table = Table("rule", "bound", "removes", "learnt", "removes", "median", "", box=None, padding=(0, 2))
    for bound in found.bounds:
        numbers = (f"{bound.was:g}", f"{bound.was_removed:.1%}", f"{bound.bound:g}", f"{bound.removed:.1%}")
        table.add_row(plain(bound.rule), *numbers, f"{bound.median:g}", plain(bound.kept or ""))
    screen.say(table)
    if out:
        out.write_text(found.toml, "utf-8")
    else:
        for line in ["", *found.toml.splitlines()]:
            screen.say(plain(line, limit=10_000))
    screen.finish(asdict(found))


def _recipe(named: str, root: str, folder: Path | None) -> Recipe:
    """A recipe by its name or file, or the one behind a version of the store."""
    from pipeline import addresses, recorded
    from pipeline import recipe as recipes
    from pipeline.store import Store

    if "@" not in named or Path(named).suffix == ".toml":
        return recipes.load(named, folder)
    store = Store(Path(root).expanduser())
    return recorded.recipe_of(store, *addresses.find(store, named), folder)
