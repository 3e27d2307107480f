"""The verbs that ask what a version would be under other rules, and that make it so.

`cli` takes them in by `register`; like there, what is heavy is imported inside a verb.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows import guard
from flows.options import (
    AddressArgument,
    AllowDeadOption,
    DataOption,
    DirectOption,
    JsonOption,
    MemoryOption,
    StoreOption,
    WorkersOption,
)
from flows.screen import Screen

ChangesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="CHANGE...", help="STAGE.COLUMN.below=30, .above=.8, .keep=en,zh, .drop=x; =none removes."),
]


@guard.briefly()
def whatif(
    address: AddressArgument,
    changes: ChangesArgument = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE.COLUMN.below=FIRST:LAST:STEP", help="Sweep a bound; twice for two."),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=100, help="Documents shown on either side of a bound.")] = 5,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every document whose end is another as Parquet.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the answer as one page.")] = None,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Say who would be kept under other rules, without a new build.

    From stored signals and pairs: exactly what a build with these rules would keep, or a refusal that says how many
    documents would have to be measured anew. --json lists every document whose end is another.

    \b
      gristmill whatif quickstart 'gopher.word_count.below=30' 'language.lang.keep=en,zh'
      gristmill whatif quickstart 'near.dup_rank.above=none' --html answer.html
      gristmill whatif quickstart --grid 'gopher.word_count.below=10:100:10'
    """
    from flows import answers

    screen = Screen(as_json)
    root, asked = Path(store).expanduser(), list(changes or ())
    if grid:
        answers.refuse_files(out, html)
        found = answers.sweep(screen, root, address, asked, grid)
    else:
        found = answers.ask(screen, root, address, asked, examples, out, html)
    screen.finish(found)


def apply(
    address: AddressArgument,
    changes: ChangesArgument = None,
    name: Annotated[str | None, typer.Option(help="Name of the new version; default: the old one's.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the recipe goes; default: recipes/ of the store.")
    ] = None,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    allow_dead: AllowDeadOption = None,
    direct: DirectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Change the rules of a version and build what changes.

    The recipe is written anew from the manifest, with every default and without the comments that it had. What was
    measured is not measured again.

    \b
      gristmill apply quickstart 'gopher.word_count.below=30' --name strict
    """
    from flows import answers, making
    from flows.parameters import BuildParameters

    screen, root = Screen(as_json), Path(store).expanduser()
    remade = answers.recipe(root, address, list(changes or ()), name, out, data)
    mill = making.mill(store, remade.data, workers, memory, remade.partition_size)
    given = BuildParameters(recipe=str(remade.path), mill=mill, allow_dead=tuple(allow_dead or ()))
    made = making.build(given, direct, screen)
    screen.finish(answers.applied(screen, root, remade, made))


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make them commands."""
    for command in (whatif, apply):
        verb(command)
