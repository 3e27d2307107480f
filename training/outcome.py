"""What a finished run has to say: its evaluation, the yardsticks, samples, and the report made of them.

The first rank alone does this, from the checkpoint's weights; the scores of the split are computed by all.
"""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import classification, compare, evaluate, lineage, machine, objectives, report, samples, vocabulary
from training.classification import Judged
from training.config import Run
from training.evaluate import Tally
from training.journal import Journal
from training.loop import Trained
from training.manifest import Version
from training.mix import Stream
from training.parallel import Group
from training.progress import Reporter

FORMAT = "gristmill.report/1"
VALIDATED = ("step", "loss", "bits_per_byte", "accuracy", "macro_f1", "documents")


def conclude(
    run: Run, version: Version, journal: Journal, trained: Trained, group: Group, progress: Reporter
) -> dict[str, Any] | None:
    """Evaluate, sample and write the report; marks the run complete. Returns the evaluation on the first rank."""
    settings = run.evaluation
    score = classification.scorer(trained.model)
    tally = score(trained.model, trained.objective, version, settings, run.precision, group, progress=progress)
    if not group.first:
        return None
    if isinstance(tally, Judged):
        name, evaluation = "classification", tally.described()
        said = _classified(evaluation)
    else:
        # Counting cannot be asked to fill a gap: where a text is not told in its own order there is no yardstick.
        orders = settings.orders if getattr(trained.objective, "ngrams", True) else []
        less = "[" + ",".join(map(str, sorted(orders)[:-1])) + "]"
        with machine.fitting(len(orders), "evaluation.orders", "orders of n-grams", less):
            read = rows_read(run, version, trained.steps)
            counted = evaluate.yardstick(tally, trained.objective, orders, read, progress)
        name, evaluation = "evaluation", {"measure": trained.objective.measure, **described(tally, orders, counted)}
        said = {
            **evaluation["model"],
            "ngrams": _bits(evaluation),
            **_scored(evaluation, version, run.objective["use"]),
        }
    evaluation["documents_file"] = tally.write(journal.folder / "evaluation")
    drawn = samples.sample(run, version, trained.model, progress)
    progress.phase("report", 1)
    told = _run(run, version, journal, trained, group)
    result = {"tokens_read": journal.tokens, "evaluation": said, "trained": _trained(told)}
    others = compare.rows(journal.folder.parent, version.sha256)
    content = {
        "format": FORMAT,
        "run": told,
        "version": _version(version),
        "corpus": {"accounting": version.manifest.accounting, "summaries": version.manifest.summaries},
        "training": _curves(journal),
        name: evaluation,
        "compared": compare.ordered([compare.row({**journal.table, **result}), *others]),
        "samples": drawn,
    }
    report.write(journal.folder, content)
    progress.advance()
    journal.write(status="complete", chain=trained.chain, **result)
    return evaluation


def _classified(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of a classification: its numbers, and the names of the classes."""
    calibration = evaluation["calibration"]
    return {
        **evaluation["model"],
        **{f"{name}_interval": bounds for name, bounds in evaluation["interval"].items()},
        "calibration_error": calibration["error"],
        "brier": calibration["brier"],
        **{key: evaluation[key] for key in ("split", "documents", "targets", "baseline", "labels")},
        "ngrams": {},
    }


def rows_read(run: Run, version: Version, steps: int) -> NDArray[np.int64]:
    """Numbers of the distinct training rows that `steps` steps read, ascending."""
    stream = Stream(run, version)
    count = len(stream.split)
    if steps * run.batch.rows >= count and not run.mix:
        return np.arange(count, dtype=np.int64)
    return np.unique(stream.rows(np.arange(steps * run.batch.rows)))


def described(tally: Tally, orders: list[int], counted: int) -> dict[str, Any]:
    """The tally as a report states it: in all, by source and by language."""

    def group(column: str) -> dict[str, Any]:
        return {
            name: {
                **tally.counts(chosen),
                **tally.numbers("model", chosen),
                "ngrams": {str(n): tally.numbers(f"ngram{n}", chosen)["bits_per_byte"] for n in orders},
            }
            for name, chosen in tally.by(column).items()
        }

    ngrams = [{"order": n, **tally.numbers(f"ngram{n}"), "tokens_read": counted} for n in orders]
    whole = {"split": tally.split, **tally.counts(), "model": tally.numbers("model"), "ngrams": ngrams}
    return {**whole, "by_source": group("source"), "by_language": group("language")}


def _scored(evaluation: dict[str, Any], version: Version, objective: str) -> dict[str, Any]:
    """What the evaluation was about: which targets, and the bytes that they stand for, of all of the split."""
    known = ("measure", "split", "documents", "targets", "bytes")
    said = {name: evaluation[name] for name in known}
    split = version.manifest.splits[evaluation["split"]]
    # A text to be written counts whole, and is no part of the texts that are read.
    whole = said["bytes"] if objective in ("seq2seq", "instruct") else split.text_bytes
    return {**said, "split_bytes": whole}


def _trained(run: dict[str, Any]) -> dict[str, Any]:
    """What was trained, in the columns of a comparison."""
    model = run["model"]
    return {
        "family": model["family"],
        "form": model.get("form"),
        "objective": run["objective"],
        "parameters": model["parameters"],
        "trained_parameters": model["trained_parameters"],
        "tokens_per_second": run["tokens_per_second"],
        "mfu": run["mfu"],
    }


def _bits(evaluation: dict[str, Any]) -> dict[str, float]:
    return {str(n["order"]): n["bits_per_byte"] for n in evaluation["ngrams"]}


def _run(run: Run, version: Version, journal: Journal, trained: Trained, group: Group) -> dict[str, Any]:
    steps = journal.entries("step")
    tokens, seconds = sum(s["tokens"] for s in steps), sum(s["seconds"] for s in steps)
    # The first steps warm up caches and compile; the median is not theirs.
    speed = float(np.median([s["tokens"] / s["seconds"] for s in steps])) if steps else None
    counts = {**trained.model.parameter_counts(), "trained_parameters": trained.parameters}
    parts = Stream(run, version).summary(trained.steps)
    return {
        "name": journal.folder.name,
        "digest": journal.table["digest"],
        "seed": run.seed,
        "objective": run.objective["use"],
        "objective_table": objectives.described(run.objective),
        "model": {**run.model, **trained.model.config.model_dump(), **counts},
        "lora": None if run.lora is None else run.lora.model_dump(mode="json"),
        "optimizer": run.optimizer.model_dump(mode="json"),
        "schedule": run.schedule.model_dump(mode="json"),
        "steps": trained.steps,
        "rows_per_step": run.batch.rows,
        "length": version.manifest.length,
        "tokens_seen": tokens,
        "refused_steps": len(journal.entries("refused")),
        "epochs": trained.steps * run.batch.rows / sum(part["rows"] for part in parts),
        "mix": parts,
        "seconds": seconds,
        "tokens_per_second": speed,
        "mfu": float(np.median([s["mfu"] for s in steps])) if steps else None,
        "peak": journal.table["peak"],
        "processes": group.world,
        "threads": machine.threads(),
        "precision": run.precision.compute,
        "hardware": journal.table["hardware"],
        "packages": journal.table["packages"],
        "chain": trained.chain,
        "checkpoint": f"checkpoints/step-{trained.steps:08d}",
        "resumed_at": journal.table["resumed_at"],
        "init": _init(run, journal),
    }


def _init(run: Run, journal: Journal) -> dict[str, Any] | None:
    """The weights that a run began with, and the runs behind them: those that are known, the last one first."""
    before = lineage.before(journal)
    if run.init is None or before is None:
        return None
    known = [
        {**one.model_dump(exclude={"texts"}), "versions": [each.address for each in one.texts]} for one in before.runs
    ]
    return {"weights": run.init.weights, "runs": known, "unknown": before.unknown}


def _version(version: Version) -> dict[str, Any]:
    table = version.manifest.model_dump(mode="json")
    known = ("name", "version", "layout", "length", "parents")
    sources = ("name", "title", "kind", "licence", "homepage", "revision", "documents", "text_bytes")
    splits = ("rows", "tokens", "documents", "text_bytes", "truncated", "digest")
    return {
        "address": version.address,
        "manifest_sha256": version.sha256,
        **{name: table[name] for name in known},
        "tokenizer": {
            **{name: table["tokenizer"][name] for name in ("vocab_size", "trained_on")},
            "word_piece": vocabulary.is_word_piece(version.tokenizer_file),
        },
        "sources": [{name: source[name] for name in sources} for source in table["sources"]],
        "splits": {name: {key: split[key] for key in splits} for name, split in table["splits"].items()},
    }


def _curves(journal: Journal) -> dict[str, Any]:
    """The loss of every step (thinned to about a thousand points) and every validation, over tokens read."""
    steps = journal.entries("step")
    ends = np.cumsum([s["tokens"] for s in steps])
    every = max(1, len(steps) // 1000)
    curve = [
        {
            "tokens": int(end),
            "tokens_per_second": s["tokens"] / s["seconds"],
            **{name: s[name] for name in ("step", "loss", "learning_rate", "gradient_norm")},
        }
        for s, end in zip(steps, ends, strict=True)
        if s["step"] % every == 0 or s["step"] == len(steps)
    ]
    numbers, read = [s["step"] for s in steps], [0, *ends.tolist()]
    validation = [
        {
            "tokens": int(read[bisect.bisect_right(numbers, v["step"])]),
            **{name: v[name] for name in VALIDATED if name in v},
        }
        for v in journal.entries("validation")
    ]
    return {"curve": curve, "validation": validation}


def paths(journal: Journal) -> dict[str, str]:
    """Where the checkpoint and the report of a finished run lie."""
    found = journal.folder
    checkpoint = found / "checkpoints" / f"step-{journal.table['steps']:08d}"
    named = {"checkpoint": checkpoint, "report": found / "report.html", "report_json": found / "report.json"}
    return {name: str(path) for name, path in named.items()}
