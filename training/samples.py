"""What a trained model writes, for the report: continuations of texts, or answers beside what they should have been.

    causal, infill   the run file's prompts and beginnings of documents of the split, continued as [samples] says
    seq2seq, span    the same prompts, and documents of the split as the objective has the model read them (a text, or
                     one with gaps), answered with the likeliest token each time, beside the target
    instruct         the same: prompts as a user's, and conversations up to their last answer, beside that answer

A model of another objective writes nothing. All that is asked is laid out, and refused, before the first step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training import OutOfMemory, TrainingError, evaluate, machine, objectives, vocabulary
from training.batch import row_keys
from training.config import Run
from training.generate import BATCH, generate
from training.manifest import Version
from training.progress import Reporter
from training.shards import Split

LOOKED_AT = 8  # rows of the split for each document that is shown


class Asked(NamedTuple):
    """Tokens that a model reads, the document that they are of (None: a prompt of the run file), and the target."""

    doc_id: str | None
    tokens: list[int]
    target: list[int] | None = None


def asked(run: Run, version: Version) -> list[Asked]:
    """What the report will show; nothing where the objective's model writes nothing.

    Raises TrainingError where a text has no room for what is to be written.
    """
    objective = objectives.load(run.objective, "[objective]").over(version)
    pairs = getattr(objective, "pairs", False)
    if not (objective.causal or pairs):
        if run.samples.prompts:
            raise TrainingError(
                f"[samples]: prompts: the objective {run.objective['use']!r} makes a model that continues nothing"
            )
        return []
    settings, length, answers = run.samples, version.manifest.length, hasattr(objective, "shown")
    tokenizer = vocabulary.extended(version.tokenizer_file, objective.extra_tokens if pairs or answers else ())
    start, eot = version.manifest.tokenizer.start, version.manifest.tokenizer.eot
    texts = [objectives.prompted(objective, text) if pairs or answers else text for text in settings.prompts]
    coded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    found = [Asked(None, [start, *ids, *[eot] * pairs]) for ids in coded]
    documents = _pairs if pairs else _conversations if answers else _beginnings
    found += documents(run, version, objective)
    longest, new = max((len(each.tokens) for each in found), default=0), settings.new_tokens
    if pairs and max(longest, new) > length:
        raise TrainingError(
            f"[samples]: a prompt has {longest} tokens and {new} new ones are asked for, each at most the {length} of "
            "a row; lower samples.new_tokens or shorten samples.prompts"
        )
    if not pairs and longest + new > length:
        raise TrainingError(
            f"[samples]: a prompt of {longest} tokens and {new} new ones do not fit into the {length} of a row; "
            "lower samples.new_tokens or samples.prompt_tokens"
        )
    return found


def sample(run: Run, version: Version, model: Any, progress: Reporter) -> dict[str, Any] | None:
    """What the model writes to all that is `asked`; None where the run file asks for nothing.

    Fewer at once are tried where they do not fit into memory. Raises OutOfMemory where not even one does.
    """
    settings, wanted = run.samples, asked(run, version)
    if not wanted or not settings.new_tokens:
        return None
    objective = objectives.load(run.objective, "[objective]").over(version)
    pairs, known = getattr(objective, "pairs", False), version.manifest.tokenizer
    greedy = pairs or hasattr(objective, "shown")  # it has a target to be held against
    tokenizer = vocabulary.extended(version.tokenizer_file, objective.extra_tokens)
    options = settings.model_dump(include={"temperature", "top_k", "top_p", "return_sequences", "new_tokens"})
    if greedy:
        options |= {"temperature": 0.0, "top_k": None, "top_p": None, "return_sequences": 1}
    progress.phase("sample", len(wanted))
    found = _fitting(model, [each.tokens for each in wanted], {**options, "seed": run.seed, "eot": known.eot})
    progress.advance(len(wanted))

    def spelt(tokens: list[int]) -> str:
        inside = [t for t in tokens if t not in (known.start, known.eot)]
        text: str = tokenizer.decode(inside, skip_special_tokens=not greedy)
        return text

    entries = [
        {
            "prompt": spelt(each.tokens),
            "doc_id": each.doc_id,
            "target": None if each.target is None else spelt(each.target),
            "continuations": [spelt(tokens) for tokens in made],
        }
        for each, made in zip(wanted, found, strict=True)
    ]
    return {**options, "seed": run.seed, "prompts": entries}


def _fitting(
    model: Any, prompts: list[list[int]], options: dict[str, Any], batch: int = BATCH
) -> list[list[list[int]]]:
    """`generate` with as many sequences at once as fit, up to `batch`: how many never decides what is written."""
    try:
        with machine.fitting(options["new_tokens"], "samples.new_tokens", "new tokens a text"):
            return generate(model, prompts, **options, batch=batch)
    except OutOfMemory:
        if batch == 1:
            raise
    return _fitting(model, prompts, options, batch // 2)


def _conversations(run: Run, version: Version, objective: Any) -> list[Asked]:
    """Some conversations up to their last answer, and that answer, where what is to be written has room."""
    split, room = Split(version, run.evaluation.split), version.manifest.length - run.samples.new_tokens
    rows = split.take(evaluate.spread(len(split), LOOKED_AT * run.samples.documents))
    ids = version.documents["doc_id"]
    shown = objective.shown(rows)
    found = [Asked(ids[number].as_py(), read, answer) for number, read, answer in shown if len(read) <= room]
    count = run.samples.documents
    return found[:: max(1, len(found) // count) if count else 1][:count]


def _beginnings(run: Run, version: Version, objective: Any) -> list[Asked]:
    """The first tokens of some documents, one from each of as many rows evenly spread over the split."""
    count, tokens = run.samples.documents, run.samples.prompt_tokens
    rows = Split(version, run.evaluation.split)
    found: dict[int, list[int]] = {}
    for number in evaluate.spread(len(rows), LOOKED_AT * count):
        row = rows[int(number)]
        ends = [*row.starts[1:], row.used]
        whole = [j for j in range(len(row.starts)) if row.offsets[j] == 0 and ends[j] - row.starts[j] >= 2 * tokens]
        if whole and len(found) < count:
            start = row.starts[whole[0]]
            found.setdefault(int(row.documents[whole[0]]), row.tokens[start : start + tokens].tolist())
    ids = version.documents["doc_id"]
    return [Asked(ids[document].as_py(), begun) for document, begun in found.items()]


def _pairs(run: Run, version: Version, objective: Any) -> list[Asked]:
    """Some texts as the objective has them read, and what is to be written, from rows evenly spread over the split."""
    count = run.samples.documents
    split = Split(version, run.evaluation.split)
    rows = split.take(evaluate.spread(len(split), LOOKED_AT * count))
    if not len(rows):
        return []
    batch = {name: value.numpy() for name, value in objective.prepare(rows, row_keys(0, 0, rows.index)).items()}
    of_target = batch["pieces"].ravel()[batch["at"]]
    # Of each row the first piece that has a target.
    first: dict[int, int] = {}
    for piece in np.unique(of_target):
        first.setdefault(int(rows.piece_row[piece]), int(piece))
    ids = version.documents["doc_id"]
    return [
        Asked(
            ids[int(rows.documents[piece])].as_py(),
            _of(batch["encoder_tokens"], batch["encoder_pieces"] == piece),
            _of(batch["targets"], of_target == piece),
        )
        for piece in list(first.values())[:: max(1, len(first) // count) if count else 1][:count]
    ]


def _of(tokens: NDArray[Any], where: NDArray[np.bool_]) -> list[int]:
    found: list[int] = tokens[where].tolist()
    return found
