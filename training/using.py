"""The verbs that use a trained model: `generate`, prompts in and continuations out, and `serve`.

What a model writes is as hostile as what it read, and is shown escaped (`terminal.visible`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training import TrainingError, terminal

if TYPE_CHECKING:
    from training.decoding import Writing
    from training.loading import Loaded
    from training.sampling import Sampling
    from training.streaming import Stream

NEW_TOKENS = 128
BATCH = 32
ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run, one of its checkpoints, or a Hugging Face folder.")
]


PromptOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="A text to continue; as often as you like. Default: one of nothing."),
]
FileOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help='Prompts, one a line; in .jsonl strings, or objects with a "prompt". -: stdin.'),
]
NewTokensOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, help=f"Tokens to add at the most; default: {NEW_TOKENS}, or as many as the context has."
    ),
]
GreedyOption = Annotated[bool, typer.Option("--greedy", help="Take the likeliest token each time: --temperature 0.")]
TemperatureOption = Annotated[
    float, typer.Option(metavar="X", min=0, help="Below 1 the likeliest tokens win more often; 0: always.")
]
TopKOption = Annotated[
    int | None, typer.Option(metavar="K", min=1, help="Choose among the K likeliest tokens; default: all.")
]
TopPOption = Annotated[
    float | None, typer.Option(metavar="P", min=0, max=1, help="Choose among the likeliest that have mass P.")
]
MinPOption = Annotated[
    float | None,
    typer.Option(metavar="P", min=0, max=1, help="Only tokens at least P times as likely as the likeliest."),
]
PenaltyOption = Annotated[
    float, typer.Option(metavar="X", help="Above 1, tokens that the text has become less likely; 1: none.")
]
SequencesOption = Annotated[int, typer.Option(metavar="N", min=1, help="Continuations of each prompt.")]
StopOption = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="End before this text, wherever it comes; as often as you like."),
]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, help="The same seed gives the same text.")]
BatchOption = Annotated[
    int, typer.Option(metavar="N", min=1, help="Sequences that are written side by side; decides no text.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object, with tokens and why each continuation ended.")
]


def generate(
    folder: ModelArgument,
    prompt: PromptOption = None,
    file: FileOption = None,
    new_tokens: NewTokensOption = None,
    greedy: GreedyOption = False,
    temperature: TemperatureOption = 0.8,
    top_k: TopKOption = None,
    top_p: TopPOption = 0.95,
    min_p: MinPOption = None,
    repetition_penalty: PenaltyOption = 1.0,
    return_sequences: SequencesOption = 1,
    stop: StopOption = None,
    seed: SeedOption = 0,
    batch: BatchOption = BATCH,
    as_json: JsonOption = False,
) -> None:
    """Continue texts with a trained model.

    One continuation appears while it is written; several when they are done, in the order of the prompts. Filters are
    those of transformers, in its order; the same seed gives the same text, whatever is written beside it. A prompt that
    is longer than the context is refused, never cut; an empty one begins a text.

    A run of infill fills the gap that <|fim_middle|> marks, one of span those that <extra_id_0> and so on mark, and one
    of seq2seq writes the target of a text, one of instruct the answer to a user's. Masked and classifying runs write
    nothing. A run reads a text as a document, behind the end-of-text token; in a Hugging Face folder the tokenizer says
    what stands around it.

    \b
      gristmill generate mine --prompt "A mill is" --return-sequences 3 --top-k 50
      gristmill generate mine --prompt "A mill is" --greedy --new-tokens 20 --stop .
      gristmill generate filled --prompt "A mill<|fim_middle|> grain." --json
      printf 'A mill\\nThe river\\n' | gristmill generate exported --file - --seed 7 --json
    """
    from training import loading
    from training.sampling import Sampling

    sampling = Sampling(0 if greedy else temperature, top_k, top_p, min_p, repetition_penalty, seed)
    prompts = _prompts(prompt or [], file)
    loaded = loading.load(folder)
    loaded.writer()
    asked = _asked(loaded, prompts, sampling, new_tokens, return_sequences, stop or [])
    _show(loaded, asked, batch, None if as_json else _Printer(asked))
    if as_json:
        print(json.dumps({"prompts": _table(prompts, asked, return_sequences)}, ensure_ascii=False))


def serve(
    folder: ModelArgument,
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen at; 0.0.0.0: all of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0: any that is free.")] = 8000,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What requests call the model; default: the folder's name.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Sequences that are written side by side.")] = BATCH,
    queue: Annotated[int, typer.Option(metavar="N", min=1, help="Sequences that may wait; beyond them: 429.")] = 1024,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Tokens that a request may ask for; default: what the context has."),
    ] = None,
    max_body: Annotated[int, typer.Option(metavar="BYTES", min=1, help="Largest request; beyond it: 413.")] = 4_000_000,
) -> None:
    """Answer the OpenAI API over HTTP with a trained model.

    /v1/completions, /v1/chat/completions where the tokenizer has a chat template or the run is of instruct, both with
    streaming, /v1/classify for a classifier, /v1/models, /health, /metrics (Prometheus). Requests are written side by
    side and join between two tokens. Ctrl-C or SIGTERM takes no more and finishes what runs. Nobody is asked who they
    are: put a proxy before it that does, before others can reach it.

    \b
      gristmill serve mine --port 8000
      gristmill serve exported --host 0.0.0.0 --name mill --batch 64 --max-tokens 512
      curl http://127.0.0.1:8000/v1/completions -d '{"model": "mine", "prompt": "A mill is", "max_tokens": 20}'
    """
    from training import serving

    limits = serving.Limits(batch=batch, queue=queue, max_tokens=max_tokens, body=max_body)
    serving.serve(folder, host, port, name, limits)


@dataclass
class Asked:
    """A continuation that is asked for: what is shown before it, what is written, and its text so far."""

    before: str
    writing: Writing
    stream: Stream


def _asked(
    loaded: Loaded, texts: list[str], sampling: Sampling, new_tokens: int | None, sequences: int, stops: list[str]
) -> list[Asked]:
    """Everything that is to be written. Raises TrainingError where a prompt has no room."""
    from training.decoding import Writing, room
    from training.generate import fits
    from training.generate import sequences as numbers
    from training.streaming import Stream

    found = []
    names = [f"prompt {number + 1}" if len(texts) > 1 else "the prompt" for number in range(len(texts))]
    put = [loaded.prompted(text) for text in texts]
    prompts = [loaded.read(text, what) for text, what in zip(put, names, strict=True)]
    # An answer, a translation or what fills a gap is no end of the prompt: it stands on a line of its own.
    befores = [
        text if text == said and not loaded.pairs else f"{text}\n" for text, said in zip(texts, put, strict=True)
    ]
    numbered = numbers(prompts, sequences)
    for before, what, ids, its in zip(befores, names, prompts, numbered, strict=True):
        most = min(NEW_TOKENS, room(loaded.model, ids, what)) if new_tokens is None else new_tokens
        fits(loaded.model, ids, most, what)
        for number in its:
            stream = Stream(
                loaded.tokenizer,
                [] if loaded.pairs else ids,
                stops=stops,
                ends=loaded.ends,
                special=loaded.pairs,
            )
            found.append(Asked(before, Writing(ids, sampling, most, loaded.ends, number, stream.add), stream))
    return found


def _show(loaded: Loaded, asked: list[Asked], batch: int, printer: _Printer | None) -> None:
    """Write all that is asked, and print it as it comes; Ctrl-C ends it with exit code 130."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _write(loaded, asked, batch, printer)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        raise typer.Exit(130) from None


def _write(loaded: Loaded, asked: list[Asked], batch: int, printer: _Printer | None) -> None:
    from training.generate import write

    for _ in write(loaded.model, [each.writing for each in asked], loaded.start, batch):
        if printer:
            printer.go_on()
    if printer:
        printer.go_on()


class _Printer:
    """Prints continuations in their order, each as far as it is certain."""

    def __init__(self, asked: list[Asked]) -> None:
        self._left, self._begun = list(reversed(asked)), False

    def go_on(self) -> None:
        while self._left:
            each = self._left[-1]
            if not self._begun:
                self._say(each.before)
                self._begun = True
            self._say(each.stream.fresh())
            if not each.writing.ended:
                break
            self._say(each.stream.finish())
            sys.stdout.write("\n\n")
            self._left.pop()
            self._begun = False
        sys.stdout.flush()

    @staticmethod
    def _say(text: str) -> None:
        sys.stdout.write(terminal.visible(text))


def _table(texts: list[str], asked: list[Asked], sequences: int) -> list[dict[str, Any]]:
    table = []
    for number, text in enumerate(texts):
        some = asked[number * sequences : (number + 1) * sequences]
        for each in some:
            each.stream.finish()
        table.append(
            {
                "prompt": text,
                "continuations": [each.stream.text for each in some],
                "tokens": [each.writing.tokens for each in some],
                "ended": [each.writing.ended for each in some],
            }
        )
    return table


def _prompts(given: list[str], file: str | None) -> list[str]:
    """The prompts of the command line, then those of the file; where there are neither, one of nothing."""
    prompts = [*given, *(_lines(file) if file else [])]
    if not prompts and file:
        raise TrainingError(f"{'stdin' if file == '-' else file}: holds no prompt; give one a line")
    return prompts or [""]


def _lines(file: str) -> list[str]:
    """The prompts of a file. Raises TrainingError naming the line that holds none."""
    what = "stdin" if file == "-" else file
    try:
        whole = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = whole.decode("utf-8")
    except OSError as error:
        raise TrainingError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise TrainingError(f"{what}: not UTF-8 at byte {error.start}; prompts are UTF-8 text") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    return [_of_json(line, f"{file}:{n}") for n, line in enumerate(lines, 1)] if file.endswith(".jsonl") else lines


def _of_json(line: str, place: str) -> str:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"{place}: not JSON ({error})") from error
    found = found.get("prompt") if isinstance(found, dict) else found
    if not isinstance(found, str):
        raise TrainingError(f'{place}: expected a string, or an object with a string "prompt"')
    return found
