"""`python -P -m training VERB`: train from a manifest, continue a text, say what a step read, export.

    python -P -m training fit RUN.toml --manifest VERSION/manifest.json --runs FOLDER
    torchrun --nproc-per-node 2 -m training fit RUN.toml --manifest ... --runs ...

Exit codes: 0 done, 2 something that you can put right (one sentence on stderr), 130 stopped with a checkpoint:
the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from training import TrainingError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Json = Annotated[bool, typer.Option("--json", help="End stdout with one JSON object: what was made, and where.")]


@app.command()
def fit(
    run: Annotated[Path, typer.Argument(help="The run file, a TOML.")],
    manifest: Annotated[
        list[Path] | None,
        typer.Option(help="manifest.json of the version to train on, or its folder; once more for each in [[mix]]."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder in which the run gets a folder of its own.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of that folder; default: the run's name and digest.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change the run file: schedule.steps=50")] = None,
    events: Annotated[Path | None, typer.Option(help="Append progress to this file, one JSON object a line.")] = None,
    parent: Annotated[int | None, typer.Option(help="Stop, with a checkpoint, when this process is gone.")] = None,
    as_json: Json = False,
) -> None:
    """Train (or go on from the newest checkpoint), evaluate, and write report.html."""
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
    from training import loop, outcome

    outcome.prompts(settings, version)
    trained, whole = loop.train(settings, version, books, group, reporter, stop)
    if whole:
        outcome.conclude(settings, version, books, trained, group, reporter)
    return whole


def _say(as_json: bool, books: Any, version: Any, places: dict[str, str]) -> None:
    table = books.table
    evaluation = table["evaluation"] or {}
    result = {
        "run": table["name"],
        "folder": str(books.folder),
        "manifest": str(version.folder / "manifest.json"),
        "status": table["status"],
        "steps": table["step"],
        "bits_per_byte": evaluation.get("bits_per_byte"),
        "ngrams": evaluation.get("ngrams", {}),
        **{key: evaluation[key] for key in ("accuracy", "macro_f1", "baseline") if key in evaluation},
        **places,
    }
    if as_json:
        print(json.dumps(result), flush=True)
        return
    for key, value in result.items():
        print(f"{key:<14} {value}")


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="A text to continue; may be given several times. A run of infill fills the gap that <|fim_middle|> "
            "marks in it, one of span those that <extra_id_0> and so on mark."
        ),
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to add at the most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Choose among the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Choose among the likeliest of this mass.")] = 0.95,
    return_sequences: Annotated[int, typer.Option(min=1, help="Continuations of each prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    as_json: Json = False,
) -> None:
    """Continue texts with the newest checkpoint of a run."""
    from training import journal, loop, models, objectives, vocabulary
    from training.classifier import Classifier
    from training.generate import generate as continued

    books, settings, version = journal.read(folder, verify=False)
    model = loop.load(settings, version, books)
    if isinstance(model, Classifier):
        raise TrainingError(f"{folder}: names the class of a text and continues none; `export` it to use it")
    objective = objectives.load(settings.objective, "[objective]")
    tokenizer, eot = vocabulary.extended(version.tokenizer_file, objective.extra_tokens), version.manifest.tokenizer.eot
    asked = prompt or [""]
    texts = [objectives.prompted(objective, text) for text in asked]
    pairs = models.has_encoder_and_decoder(model)  # what it reads ends as a document does
    made = continued(
        model,
        [[eot, *tokenizer.encode(text, add_special_tokens=False).ids, *[eot] * pairs] for text in texts],
        new_tokens=new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        return_sequences=return_sequences,
        seed=seed,
        eot=eot,
    )
    said = [[tokenizer.decode(c, skip_special_tokens=not pairs) for c in m] for m in made]
    found = [{"prompt": text, "continuations": them} for text, them in zip(texts, said, strict=True)]
    if as_json:
        print(json.dumps({"prompts": found}, ensure_ascii=False))
        return
    for entry in found:
        for continuation in entry["continuations"]:
            print(_visible(f"{entry['prompt']}{continuation}") + "\n")


def _visible(text: str) -> str:
    """What a model says is as hostile as what it read: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, in the layout that transformers loads.")],
    as_json: Json = False,
) -> None:
    """Write the newest checkpoint of a run as a Hugging Face folder."""
    from training import journal, loop, objectives
    from training.export import export as write

    books, settings, version = journal.read(folder, verify=False)
    model = loop.load(settings, version, books)
    write(
        model,
        tokenizer_file=version.tokenizer_file,
        eot=version.manifest.tokenizer.eot,
        length=model.length,
        folder=target,
        extra_tokens=objectives.load(settings.objective, "[objective]").extra_tokens,
    )
    print(json.dumps({"folder": str(target)}) if as_json else f"{target}")


@app.command()
def trace(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, done, under way or killed.")],
    step: Annotated[int, typer.Option(min=1, help="The step, counted from 1 as in metrics.jsonl.")],
    token: Annotated[int | None, typer.Option(min=1, help="Only the document behind the step's K-th token.")] = None,
    as_json: Json = False,
) -> None:
    """List the documents of a step's batch, the same for any number of processes."""
    from training.trace import trace as traced

    found = traced(folder, step, token)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    state = {True: "as it was read", False: "NOT WHAT WAS READ", None: "not checked"}[found["verified"]]
    print(f"step {step} of {found['run']}: {len(found['pieces'])} pieces, {found['tokens']} tokens, {state}")
    for piece in found["pieces"]:
        place = f"row {piece['row']} at {piece['start']}: {piece['tokens']} tokens from {piece['offset']}"
        named = (piece["source"], piece["language"] or "-", piece["doc_id"], piece["url"] or "")
        print(_visible("  ".join((place, *named)).rstrip()))


@app.command()
def where(folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """List the steps in which runs have read documents: their ids come on stdin as a JSON list, the answer is JSON."""
    from training.where import everywhere

    ids = json.load(sys.stdin)
    if not isinstance(ids, list) or not all(isinstance(doc_id, str) for doc_id in ids):
        raise TrainingError("stdin: a JSON list of document ids is wanted")
    print(json.dumps(everywhere(folders, ids), ensure_ascii=False))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Draw report.html again from report.json, beside the runs that are complete by now."""
    from training import compare
    from training import report as reports

    path = folder / "report.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    content["compared"] = compare.rows(folder.parent, content["version"]["manifest_sha256"])
    print(reports.write(folder, content))


def main() -> None:
    """Run a verb; what a person can put right is one sentence and exit code 2."""
    try:
        app()
    except TrainingError as error:
        sys.stderr.write(f"error: {_visible(str(error))}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
