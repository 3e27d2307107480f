"""The command line: one verb for each thing that can be done with a mill. `main` is the console script `gristmill`.

A verb checks what it is told, has the work done by `work` (through a Prefect flow, or with --direct without
Prefect), and says what came out. Results go to stdout, all else to stderr; `errors` holds the exit codes. The
number that matters: this module imports in a tenth of a second, so everything heavy is imported inside a verb.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import (
    asking,
    choosing,
    comparing,
    evaluating,
    extending,
    filtering,
    finding,
    forgetting,
    guard,
    looking,
    publishing,
    quickstart,
    using,
)
from flows.options import (
    AllowDeadOption,
    DataOption,
    DirectOption,
    JsonOption,
    MemoryOption,
    PartitionOption,
    ProcessesOption,
    RowsOption,
    SetOption,
    StoreOption,
    WorkersOption,
)
from flows.screen import Screen

HELP = """From open corpora to a trained, evaluated language model, with every document accounted for.

\b
  gristmill quickstart                     build a small corpus and train a small model on it
  gristmill quickstart --task classify     the same to a classifier of texts, ready to be served
  gristmill build my-recipe.toml           sources to a sealed version of packed shards
  gristmill train my-run.toml              a version to a trained, evaluated model
  gristmill generate RUN --prompt TEXT     continue a text with a trained model
  gristmill serve RUN                      answer the OpenAI API over HTTP with it
  gristmill eval RUN --suite riddles       score it: questions with known answers, bits per byte
  gristmill compare RUN RUN                hold runs against one another, on one page
  gristmill ls                             versions, runs, and what can be built
  gristmill sources chinese web            cards of open data sets, searched
  gristmill show quickstart                sources, stages and counts, splits and shards of a version
  gristmill trace RUN --step 9              the documents that a step of a run was trained on
  gristmill diff A B                       what a version keeps that another does not, and why
  gristmill whatif quickstart CHANGE       who would be kept under another rule, without a new build
  gristmill why DOC_ID                     what was measured on a document, and why it was kept or not
  gristmill dialects my-recipe.toml        which documents hang on whose reading of a rule
  gristmill calibrate my-recipe.toml       bounds of its rules, learnt from a sample of good text
  gristmill papers quickstart              attribution, data set card, Croissant and statement of a version
  gristmill train-filter NAME              a classifier of documents from two labelled sources
  gristmill train-ngram NAME               an n-gram model, for perplexity, head and tail
  gristmill extend VERSION --source CARD   a version with one source more, from what is stored of the others
  gristmill forget VERSION --doc ID        a version without some documents, and a store without their text
  gristmill where DOC_ID                   where it lies in the shards, and which steps of which runs read it

Everything lies in one folder, the store: .gristmill here, or --store, or $GRISTMILL_STORE. What is finished is
kept, so a command that was stopped goes on when it is run again.

Exit codes: 0 done, 1 something is wrong, 2 the input is not what it should be, 130 stopped.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Run a verb."""
    guard.listen()
    app()


def verb(function: Callable[..., None], **settings: Any) -> Callable[..., None]:
    """A command of which every error ends in a sentence and its exit code."""
    app.command(**settings)(guard.told(function))
    return function


quickstart.register(verb)


@verb
def build(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (gristmill ls), or a .toml file.")] = "quickstart",
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    partition_size: PartitionOption = "8MB",
    batch_rows: RowsOption = 4096,
    allow_dead: AllowDeadOption = None,
    direct: DirectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a recipe's sources to a version of packed shards.

    Sizes, memory and workers never change what comes out: the same recipe and sources give the same version.
    Every rule is first tried on documents that must and must not trip it. One that cannot fire stops the build, and so
    does a stage that removes more or less than its `expect = {min = .., max = ..}` says.

    \b
      gristmill build quickstart --workers 2
      gristmill build my-recipe.toml --data /mnt/corpora --direct --json
      gristmill build my-recipe.toml --allow-dead gopher.hash_ratio.above
    """
    from flows import closing, making
    from flows.parameters import BuildParameters

    screen = Screen(as_json)
    mill = making.mill(store, data, workers, memory, partition_size, batch_rows)
    given = BuildParameters(recipe=recipe, mill=mill, allow_dead=tuple(allow_dead or ()))
    made = making.build(given, direct, screen)
    closing.built(screen, made)
    screen.finish(made)


@verb
def train(
    run: Annotated[str, typer.Argument(help="A shipped run (gristmill ls), or a .toml file.")] = "quickstart",
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Version to read: NAME, NAME@latest, NAME@VERSION or a manifest's path; default: the run's name.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run; default: the run file's name and the run's digest."),
    ] = None,
    processes: ProcessesOption = 1,
    changes: SetOption = None,
    store: StoreOption = ".gristmill",
    direct: DirectOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a run on a version, evaluate it, write a report.

    In go a run file (python -m training keys lists every key, its default and what it may be) and a version of the
    store. Out comes STORE/runs/NAME: run.json, metrics.jsonl, checkpoints, the scores of every document, report.html.
    The same command goes on from the newest checkpoint; Ctrl-C writes one first. With init = "FOLDER" in the run file
    it begins with trained weights, and with a table [lora] it leaves these as they are and trains two thin matrices
    beside each.

    \b
      gristmill train quickstart
      gristmill train my-run.toml --manifest webtext-zh@latest --processes 2 --set schedule.steps=500
      gristmill train quickstart-classify --manifest languages --set model.layers=4 --name deeper
    """
    from flows import closing, making
    from flows.parameters import TrainParameters

    screen = Screen(as_json)
    given = TrainParameters(
        run=run, version=manifest, name=name, processes=processes, store=store, changes=tuple(changes or ())
    )
    result = making.train(given, direct, screen)
    closing.trained(screen, result)
    closing.after_training(screen, store, result)
    screen.finish(result)


looking.register(verb)


@verb
def deploy(
    pool: Annotated[str, typer.Option(help="Work pool of type process; made if it is absent.")] = "gristmill",
    store: StoreOption = ".gristmill",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make deployments of the flows at a Prefect API.

    They are for workers started in their pool, and find the store whatever parameters a run is given.

    \b
      prefect server start
      export PREFECT_API_URL=http://127.0.0.1:4200/api
      gristmill deploy --store /data/mill
      prefect worker start --pool gristmill
    """
    from flows import deploy as deployments

    screen = Screen(as_json)
    names = deployments.deploy(pool, Path(store).expanduser(), Path(data) if data else None, Path.cwd())
    commands = deployments.commands(pool, names)
    for name in names:
        screen.say(f"deployed {name} in pool {pool}")
    screen.say("next:")
    for command in commands:
        screen.say(f"  {command}")
    screen.finish({"pool": pool, "deployments": names, "commands": commands})


finding.register(verb)
asking.register(verb)
comparing.register(verb)
choosing.register(verb)
publishing.register(verb)
forgetting.register(verb)
using.register(verb)
evaluating.register(verb)
extending.register(verb)
filtering.register(verb)

if __name__ == "__main__":
    main()
