"""The verb `quickstart`: from sources that lie on this machine to a trained model, in minutes.

A task is a recipe and one run file or several, of which each goes on from the weights of the one before; all of them
are built and trained by the one flow that deployments run as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.options import DirectOption, JsonOption, ProcessesOption, SetOption, StoreOption, WorkersOption
from flows.screen import Screen


@dataclass(frozen=True)
class Task:
    """A shipped recipe, and shipped run files in their order."""

    recipe: str
    runs: tuple[str, ...]


TASKS = {
    "generate": Task("quickstart", ("quickstart",)),
    "classify": Task("projects", ("projects-bert", "projects-classify")),
}


def register(verb: Callable[..., Callable[..., None]]) -> None:
    """Make the function of this room a verb of the command line."""
    verb(quickstart)


def quickstart(
    task: Annotated[
        Literal["generate", "classify"], typer.Option("--task", help="A model that writes, or one that names classes.")
    ] = "generate",
    store: StoreOption = ".gristmill",
    workers: WorkersOption = None,
    processes: ProcessesOption = 1,
    changes: SetOption = None,
    direct: DirectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a small corpus and train a small model on it.

    Minutes on a laptop: no account, no server, and no download but, to generate, the model that tells languages apart.
    To classify, a small ModernBERT first reads docstrings of nine installed projects with words masked, then learns to
    say which project a text documents, and is exported; what is typed to serve it stands at the end. --set is for
    every training.

    \b
      gristmill quickstart
      gristmill quickstart --set schedule.steps=50       a first look
      gristmill quickstart --task classify               from plain text to a served classifier
    """
    from flows import closing, making, work
    from flows.parameters import BuildParameters, TrainParameters

    screen, asked = Screen(as_json), TASKS[task]
    build = BuildParameters(recipe=asked.recipe, mill=making.mill(store, None, workers))
    runs = [
        TrainParameters(run=name, store=store, processes=processes, changes=tuple(changes or ())) for name in asked.runs
    ]
    made, results = making.corpus_to_model(build, runs, direct, screen)
    closing.built(screen, made)
    for result in results:
        closing.trained(screen, result)
    said: dict[str, Any] = made | results[-1] | {"before": results[:-1]}
    if task == "classify":
        said["exported"] = _exported(Path(store), results[-1])
        closing.serve_classifier(screen, store, made, results[-1], said["exported"])
    else:
        closing.next_steps(screen, store, made, results[-1], work.dropped(store, made["address"]))
    screen.finish(said)


def _exported(store: Path, result: dict[str, Any]) -> str:
    """The Hugging Face folder of what was trained, in the store."""
    from flows import process

    return process.exported(Path(result["folder"]), store.expanduser() / "exports" / str(result["run"]))
