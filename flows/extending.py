"""The verb that extends a version by sources: checked first, then done, with what came of it laid out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

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
from flows.screen import Screen, plain


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make it a command."""
    verb(extend)


def extend(
    address: AddressArgument,
    source: Annotated[
        list[str],
        typer.Option(metavar="CARD", help="A source that comes: a shipped card or a .toml; may be given again."),
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of what comes out; default: the version's.")
    ] = None,
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    partition_size: PartitionOption = "8MB",
    batch_rows: RowsOption = 4096,
    as_json: JsonOption = False,
) -> None:
    """Make a version with one source more, or several, without building the rest again.

    Only the new documents are read and measured. They are held against the stored sketches of the others, whose text is
    not read; who was kept stays, in its split and its shards, and a new duplicate of it is dropped. A document that a
    build of all sources at once would decide otherwise is listed in bridges.parquet, and why tells of it. A new dump of
    a source is a card of its own. A recipe with extends = "NAME@VERSION" does the same under gristmill build.

    \b
      gristmill extend webtext-zh --source wiki-2026-12.toml
      gristmill verify webtext-zh --extends webtext-zh@3f2a
    """
    from flows import closing, making, show, work
    from pipeline.extending.checking import Request
    from pipeline.memory import watching

    screen = Screen(as_json)
    mill = making.mill(store, data, workers, memory, partition_size, batch_rows)
    planned = work.extension(mill, Request(address, tuple(source), name))
    with making.at_work(True, screen), watching() as peak:
        version = work.extend(mill, planned)
    made = {**work.made(version), "peak_memory_bytes": peak.bytes, "extends": planned.version.address}
    made["bridges"] = version.manifest["extended"]["documents"]
    closing.built(screen, made)
    for line in show.extended(version.manifest["extended"]):
        screen.say(plain(f"  {line}", limit=1000))
    screen.finish(made)
