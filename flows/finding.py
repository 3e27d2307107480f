"""The verbs that follow one document or one token: `why`, `where` and `trace`, from the files alone.

What a run has read is the trainer's to say (`process.asked`); whose text that is, and what became of it, the books'.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows import guard
from flows.options import JsonOption, StoreOption
from flows.screen import Screen

DocumentArgument = Annotated[str, typer.Argument(help="source:path:row, as show, the ledger and reports write it.")]
VersionOption = Annotated[str | None, typer.Option(help="The version to ask; default: the newest of the store.")]


def register(verb: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    for command in (trace, why, where):
        verb(command)


@guard.briefly()
def trace(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name (gristmill ls), or its folder.")],
    step: Annotated[int, typer.Option(min=1, metavar="N", help="The step, counted from 1.")],
    token: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Only the document behind the step's K-th token.")
    ] = None,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """List the documents that a step of a run was trained on, with their sources.

    A line a piece: its row of the step, its place there, how many tokens from which place of the document, source,
    language, id and address. With --token the one document, the line of it and the row of the source's file behind
    that token. From the files alone: the run may be done, under way or killed. The first line says whether the run's
    own log vouches that this was read.

    \b
      gristmill trace quickstart-1a2b --step 9
      gristmill trace quickstart-1a2b --step 9 --token 100
      gristmill trace quickstart-1a2b --step 9 --json | jq -r '.pieces[].doc_id'
    """
    from flows import process, runs

    root = Path(store).expanduser()
    folder = runs.find(root, run)
    if token is None:
        raise typer.Exit(process.trace(folder, step, as_json))
    with process.beside(process.traced, folder, step, token) as told:
        # Meanwhile: it takes as long as the trainer to find the piece.
        from flows import following

        screen = Screen(as_json)
        screen.finish(following.token(screen, root, told(), token))


@guard.briefly()
def why(
    doc_id: DocumentArgument,
    version: VersionOption = None,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Say why a document was kept, or why it was not.

    Its path through the stages with every measured value; to whom it lost, with the similarity and both texts side by
    side; what was made from it, its place in the shards.

    \b
      gristmill why 'samples:en.jsonl:3'
      gristmill why 'installed:rich/rich/emoji.py:0' --version quickstart@latest
    """
    from flows import listing

    screen = Screen(as_json)
    screen.finish(listing.why(screen, Path(store).expanduser(), doc_id, version))


@guard.briefly()
def where(
    doc_id: DocumentArgument,
    version: VersionOption = None,
    store: StoreOption = ".gristmill",
    as_json: JsonOption = False,
) -> None:
    """Say where a document lies in a version, and which steps of which runs have read it.

    Shard, row and positions of each piece; of every run of the store the steps that read it, the checkpoints that lie
    behind them, and whether the weights that it began with had read it before.

    \b
      gristmill where 'samples:en.jsonl:3'
      gristmill where 'samples:en.jsonl:3' --version quickstart@latest --json | jq .runs
    """
    from flows import process, runs

    root = Path(store).expanduser()
    with process.beside(process.asked, [run.folder for run in runs.of(root)], [doc_id]) as told:
        from flows import following

        screen = Screen(as_json)
        screen.finish(following.document(screen, root, doc_id, version, told))
