"""The command line of the trainer, `python -P -m training VERB`; `main` is its door.

Results go to stdout, all else to stderr. What a person can put right is one sentence and exit code 2.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from training import TrainingError, comparing, evaluating, machine, terminal, using

_INTERVALS = ("accuracy_interval", "macro_f1_interval")
CLASSIFIED = ("accuracy", "macro_f1", *_INTERVALS, "calibration_error", "brier", "baseline")
HELP = """Train on a sealed version, continue texts with what was trained, say what a step read, export.

\b
  python -P -m training fit RUN.toml --manifest VERSION           train, or go on; evaluate; write report.html
  torchrun --nproc-per-node 2 -m training fit RUN.toml ...        the same in two processes
  python -P -m training keys                                      every key of a run file and its default
  python -P -m training generate RUN --prompt "The mill"          continue a text
  python -P -m training serve RUN                                 answer the OpenAI API over HTTP
  python -P -m training eval RUN --suite SUITE.toml               score it by suites of questions
  python -P -m training compare RUN RUN                           hold runs against one another
  python -P -m training trace RUN --step 9                        the documents that a step was trained on
  python -P -m training export RUN FOLDER                         write what transformers loads

VERSION is the folder of a version or its manifest.json (STORE/versions/NAME/VERSION; gristmill ls lists them), RUN
the folder of a run (STORE/runs/NAME). gristmill train finds both by their names and calls this.

Exit codes: 0 done, 2 something that you can put right (one sentence on stderr), 130 stopped with a checkpoint: the
same command goes on.
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
FolderArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, as fit prints it.")]
JsonOption = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object: what was made, and where.")]


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN.toml", help="The run file: model, objective, schedule.")],
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="VERSION",
            help="The version to read: its manifest.json, or the folder of that. Once more for each in [[mix]].",
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run gets a folder of its own.")] = Path(
        "runs"
    ),
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of that folder; default: the run file's name and the run's digest."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="A.B=VALUE", help="Change a key of the run file, as often as you like; VALUE is TOML."
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Append progress to this file, a JSON object a line, and show none."),
    ] = None,
    parent: Annotated[
        int | None,
        typer.Option(metavar="PID", help="Stop, with a checkpoint, when the process of this number is gone."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train, or go on from the newest checkpoint; evaluate, and write the report.

    In go a run file (python -P -m training keys lists all it can say; shipped ones lie in catalogs/runs) and a sealed
    version. Out comes a folder, FOLDER/NAME:

    \b
      run.json         settings, digests, machine, every start and validation, the final scores
      metrics.jsonl    a line a step: loss, learning rate, gradient norm, tokens, seconds
      checkpoints/     the newest of them, resumable at any number of processes
      evaluation/      scores of every document of the split
      report.html      all of it to be read, and report.json the same for programs
      events.*         for tensorboard --logdir FOLDER, where that package is installed

    The same command goes on where a run stopped; Ctrl-C and SIGTERM write a checkpoint first. A run that is complete
    is not done again. Other settings or another version are another run, with a folder of its own. With init = "FOLDER"
    in the run file it begins with trained weights, whole or, with a table [lora], by low-rank adaptation.

    \b
      python -P -m training fit catalogs/runs/quickstart.toml --manifest .gristmill/versions/quickstart/3f2a...
      python -P -m training fit my.toml --manifest VERSION --set schedule.steps=500 --set optimizer.use=adamw
      torchrun --nproc-per-node 2 -m training fit my.toml --manifest VERSION --runs runs --name mine
    """
    from training import config, journal, mix, outcome, parallel, progress, sizes
    from training.stop import Stop

    settings = config.load(run, changes or [])
    with parallel.joined(settings.precision, settings.parallel) as group:
        # The first rank checks every byte before another looks.
        if group.first:
            mix.opened(settings, manifest or [], run.parent, verify=True)
        group.wait()
        settings, version = mix.opened(settings, manifest or [], run.parent, verify=False)
        settings = sizes.filled(settings, version)
        books = journal.start(runs, settings, version, name, group, changes or [])
        reporter = progress.reporter(events) if group.first else progress.Silent()
        try:
            with books.kept() if group.first else contextlib.nullcontext():
                whole = books.complete or _run(settings, version, books, group, reporter, Stop(parent))
        finally:
            reporter.close()
        if group.first and whole:
            _say(as_json, books, version, outcome.paths(books))
        elif group.first:
            books.write(status="stopped")
            _say(as_json, books, version, {})
            sys.stderr.write(f"stopped at step {books.table['step']}, with a checkpoint: the same command goes on\n")
    if not whole:
        raise typer.Exit(130)


def _run(settings: Any, version: Any, books: Any, group: Any, reporter: Any, stop: Any) -> bool:
    from training import loop, outcome, samples

    samples.asked(settings, version)
    trained, whole = loop.train(settings, version, books, group, reporter, stop)
    if whole:
        outcome.conclude(settings, version, books, trained, group, reporter)
    return whole


def _say(as_json: bool, books: Any, version: Any, places: dict[str, str]) -> None:
    table = books.table
    evaluation = table["evaluation"] or {}
    result = {
        "run": table["name"],
        "objective": table["config"]["objective"]["use"],
        "folder": str(books.folder),
        "manifest": str(version.folder / "manifest.json"),
        "status": table["status"],
        "steps": table["step"],
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "ngrams": evaluation.get("ngrams", {}),
        **{key: evaluation[key] for key in CLASSIFIED if key in evaluation},
        **places,
    }
    print(json.dumps(result) if as_json else terminal.visible("\n".join(terminal.ended(result))), flush=True)


@app.command()
def keys(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="One table: batch, model, schedule, ...; default: all.")
    ] = None,
) -> None:
    """List every key of a run file, with its default and what it may be.

    \b
      python -P -m training keys
      python -P -m training keys optimizer
      python -P -m training keys model
    """
    from training import keys

    print(keys.listing(table))


app.command()(using.generate)
app.command()(using.serve)
app.command("eval")(evaluating.evaluate)
app.command()(comparing.compare)


@app.command()
def export(
    folder: FolderArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE.gguf", help="What to write; an earlier export is replaced.")
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="How weights are held: f32, bf16 or f16, in a .gguf file q8_0 too; default: f32, there f16.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the newest checkpoint of a run as a Hugging Face folder, or a decoder as a GGUF file.

    config.json, model.safetensors, tokenizer and generation config, which AutoModel... of transformers loads as its
    own (Qwen3, Llama, GPT-2, BERT, ModernBERT, T5), and init = "FOLDER" of a run file goes on from. A name that ends
    in .gguf is a file for llama.cpp (extra gguf).

    \b
      python -P -m training export .gristmill/runs/mine exported
      python -P -m training export .gristmill/runs/mine half --weights bf16
      python -P -m training export runs/quickstart-classify-289e22fe classifier --json
      python -P -m training export .gristmill/runs/mine mine.gguf --weights q8_0
      python -c 'import transformers; print(transformers.AutoModelForCausalLM.from_pretrained("exported"))'
    """
    from training import card, gguf, journal, loop, objectives
    from training.export import export as write

    if target.suffix == ".gguf":
        gguf.export(folder, target, weights or "f16")
        print(json.dumps({"file": str(target)}) if as_json else f"{target}")
        return
    books, settings, version = journal.read(folder, verify=False)
    model = loop.load(settings, version, books)
    objective = objectives.load(settings.objective, "[objective]").over(version)
    write(
        model,
        tokenizer_file=version.tokenizer_file,
        eot=version.manifest.tokenizer.eot,
        start=version.manifest.tokenizer.start,
        length=model.length,
        folder=target,
        extra_tokens=objective.extra_tokens,
        template=getattr(objective, "template", None),
        weights=weights or "f32",
        papers=card.papers(books, settings, version),
    )
    print(json.dumps({"folder": str(target)}) if as_json else f"{target}")


@app.command()
def trace(
    folder: FolderArgument,
    step: Annotated[int, typer.Option(metavar="N", min=1, help="The step, counted from 1 as in metrics.jsonl.")],
    token: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="Only the document behind the step's K-th token.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the documents of a step's batch, the same for any number of processes.

    A line a piece: its row of the step, its place there, how many tokens from which place of the document, source,
    language, id and address. From the files alone: the run may be done, under way or killed. The first line says
    whether metrics.jsonl vouches that this was read.

    \b
      python -P -m training trace .gristmill/runs/mine --step 12
      python -P -m training trace .gristmill/runs/mine --step 12 --token 900
      python -P -m training trace .gristmill/runs/mine --step 12 --json | jq -r '.pieces[].doc_id'
    """
    from training.trace import trace as traced

    found = traced(folder, step, token)
    print(json.dumps(found, ensure_ascii=False) if as_json else terminal.visible("\n".join(terminal.traced(found))))


@app.command()
def where(folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """List the steps in which runs have read documents: their ids come on stdin as a JSON list, the answer is JSON.

    \b
      echo '["samples:en.jsonl:3"]' | python -P -m training where .gristmill/runs/mine
    """
    from training.where import everywhere

    ids = json.load(sys.stdin)
    if not isinstance(ids, list) or not all(isinstance(doc_id, str) for doc_id in ids):
        raise TrainingError("stdin: a JSON list of document ids is wanted")
    print(json.dumps(everywhere(folders, ids), ensure_ascii=False))


@app.command()
def report(folder: FolderArgument) -> None:
    """Draw report.html again from report.json, beside the runs that are complete by now.

    \b
      python -P -m training report .gristmill/runs/mine
    """
    from training import compare
    from training import report as reports

    path = folder / "report.json"
    if not path.exists():
        raise TrainingError(f"{folder}: no report.json here; a run writes it when it is complete")
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    content["compared"] = compare.rows(folder.parent, content["version"]["manifest_sha256"])
    print(reports.write(folder, content))


def main() -> None:
    """Run a verb; what a person can put right is one sentence and exit code 2."""
    machine.spin_briefly()
    try:
        app()
    except TrainingError as error:
        sys.stderr.write(f"error: {terminal.visible(str(error))}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
