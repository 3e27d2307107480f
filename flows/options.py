"""The options and arguments that several verbs share, each described once."""

from __future__ import annotations

from typing import Annotated

import typer

StoreOption = Annotated[
    str, typer.Option("--store", metavar="FOLDER", envvar="GRISTMILL_STORE", help="Folder of all that is made.")
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="FOLDER", envvar="GRISTMILL_DATA", help="What {data} stands for in source cards."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", min=1, max=1024, help="Tasks at a time; default: one a core."),
]
PartitionOption = Annotated[
    str, typer.Option("--partition-size", metavar="SIZE", help="Input bytes that a partition aims at.")
]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="What all processes may hold together; default: 2 GB a task."),
]
RowsOption = Annotated[
    int, typer.Option("--batch-rows", metavar="N", min=1, max=1_000_000, help="Rows given to a stage at a time.")
]
AllowDeadOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-dead",
        metavar="RULE",
        help="Build although this rule cannot fire (gopher.word_count.below); the manifest records it. Repeatable.",
    ),
]
DirectOption = Annotated[bool, typer.Option("--direct", help="The same plan without Prefect: starts 8 s sooner.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object: names, versions, paths.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change a key of the run file, as often as you like."),
]
ProcessesOption = Annotated[
    int, typer.Option("--processes", metavar="N", min=1, max=1024, help="Training processes (torchrun if several).")
]
AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="NAME, NAME@latest, NAME@VERSION, or a manifest's path.")
]
