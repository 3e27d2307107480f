"""The verbs that use a trained model, `generate` and `serve`: the trainer's, with all their options and their help.

The front door finds the folder that a name means and goes on as the trainer, so that a terminal, a pipe and Ctrl-C
are the trainer's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

STORE = "--store"
HELP = {"-h", "--help"}
Rest = Annotated[list[str] | None, typer.Argument(metavar="MODEL [OPTIONS]", show_default=False)]
# Everything behind the verb is the trainer's, its --help as well.
RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def register(verb: Callable[..., Callable[..., None]]) -> None:
    """Make the functions of this room verbs of the command line."""
    for command in (generate, serve):
        verb(command, context_settings={**RAW, "help_option_names": []}, add_help_option=False)


def generate(rest: Rest = None) -> None:
    """Continue texts with a trained model (--help lists the options)."""
    _become("generate", list(rest or []))


def serve(rest: Rest = None) -> None:
    """Answer the OpenAI API over HTTP with a trained model (--help lists the options)."""
    _become("serve", list(rest or []))


def _become(verb: str, rest: list[str]) -> None:
    """Start the trainer's verb; MODEL is the name of a run in the store, or a folder, and comes first."""
    from flows import process, runs

    rest, store = _store(rest)
    if not rest or HELP & set(rest):
        process.become(verb, "--help")
    if rest[0].startswith("-"):
        from pipeline.mistakes import ConfigError

        raise ConfigError(f"{verb}: the model comes first: gristmill {verb} MODEL [OPTIONS]; got {rest[0]!r}")
    process.become(verb, str(runs.usable(Path(store).expanduser(), rest[0])), *rest[1:])


def _store(rest: list[str]) -> tuple[list[str], str]:
    """What is left without --store FOLDER, and the folder."""
    left, store = [], os.environ.get("GRISTMILL_STORE", ".gristmill")
    words = iter(rest)
    for word in words:
        if word == STORE:
            store = next(words, store)
        elif word.startswith(STORE + "="):
            store = word.removeprefix(STORE + "=")
        else:
            left.append(word)
    return left, store
