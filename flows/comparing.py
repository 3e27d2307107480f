"""The verbs that hold two versions against each other: `diff`, and `rebuild`, where the second is the first again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import errors
from flows.options import (
    AddressArgument,
    DataOption,
    JsonOption,
    MemoryOption,
    PartitionOption,
    RowsOption,
    StoreOption,
    WorkersOption,
)
from flows.screen import Screen


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    verb(diff)
    verb(rebuild)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The version before: NAME, NAME@latest or NAME@VERSION.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The version after, of the same store.")],
    examples: Annotated[int, typer.Option(min=0, max=50, metavar="N", help="Documents shown of each reason.")] = 3,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Say what version B keeps that A does not, and the other way round.

    Documents added, removed and changed, the rule behind each, tokens and bytes; what differs in recipe and sources.

    \b
      gristmill diff quickstart@3f2a quickstart@latest
      gristmill diff webtext-zh@3f2a webtext-zh --examples 10 --json | jq '.reasons[0]'
    """
    from flows import differing
    from pipeline import addresses
    from pipeline.diff import diff as compare
    from pipeline.store import Store

    screen, place = Screen(as_json), Store(Path(store).expanduser())
    found = compare(place, addresses.find(place, a), addresses.find(place, b), examples)
    differing.diff(screen, found)
    screen.finish(differing.plain_data(found))


def rebuild(
    address: AddressArgument,
    check: Annotated[bool, typer.Option("--check", help="Build elsewhere in the store and compare digests.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was built again, and say where.")] = False,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    partition_size: PartitionOption = "8MB",
    batch_rows: RowsOption = 4096,
    as_json: JsonOption = False,
) -> None:
    """Build a version again from its manifest, and compare content digests.

    Exit code 0 where all are equal, 1 where something differs, down to the first document. A source that is no longer
    what the manifest says is exit code 2, before any work. Takes the time and the room of a build.

    \b
      gristmill rebuild quickstart --check
      gristmill rebuild webtext-zh@3f2a --check --data /mnt/corpora --json
    """
    from flows import differing, making, work
    from pipeline.stage import ConfigError

    if not check:
        raise ConfigError(
            "rebuild builds elsewhere and compares: say --check; a version is made by `gristmill build RECIPE`"
        )
    screen = Screen(as_json)
    mill = making.mill(store, data, workers, memory, partition_size, batch_rows)
    with making.at_work(True, screen):
        found = work.rebuild(mill, address, keep)
    differing.rebuilt(screen, found)
    result: dict[str, Any] = {"equal": found.equal, **asdict(found)}
    screen.finish(result)
    raise typer.Exit(errors.DONE if found.equal else errors.WRONG)
