"""What the verbs say to a person: how a run ended and what to do next, a step's documents, continuations.

What a model or a corpus says is as hostile as what it read: control characters are shown, not obeyed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a verb that trains nothing loads no torch
    from training.config import Run
    from training.manifest import Version
    from training.parallel import Group

# What the models of an objective continue, or whose gap they fill; those of others write nothing.
PROMPTS = {
    "causal": "The mill",
    "instruct": "What does a mill do?",
    "infill": "The mill<|fim_middle|> with the water",
    "seq2seq": "The mill turns",
    "span": "The mill <extra_id_0> with the water",
}


def visible(text: str) -> str:
    """The text with every character that is not printable as its escape; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def begun(
    run: Run,
    version: Version,
    model: Any,
    group: Group,
    step: int,
    folder: Path,
    learnt: int,
    left: Mapping[str, int] | None,
) -> str:
    """What is trained, on what, and where it is written; `learnt` of the model's parameters are trained, and `left`
    rows of all are not learnt from."""
    every = f"{model.parameter_counts()['parameters']:,} parameters"
    parameters = every if run.lora is None else f"{learnt:,} of {every} trained (lora)"
    return (
        f"{folder.name}: {run.model['family']}, {parameters}, "
        f"{run.objective['use']}; {f'on from step {step:,} of ' if step else ''}{run.schedule.steps:,} steps of "
        f"{run.batch.rows:,} rows of {version.manifest.length:,} tokens from {version.address}; "
        f"{run.precision.compute} on {group.device.type}{f' in {group.world} processes' if group.world > 1 else ''}; "
        f"into {folder}{_left(left)}"
    )


def _left(left: Mapping[str, int] | None) -> str:
    if not left or not left["rows"]:
        return ""
    return f"; {left['rows']:,} of {left['of']:,} rows have no answer or are too long, and are not learnt from"


def validated(step: int, numbers: Mapping[str, float]) -> str:
    """The scores of a validation in a line."""
    known = {"bits_per_byte": "bits per byte", "accuracy": "accuracy", "macro_f1": "macro F1"}
    said = "".join(f", {words} {numbers[name]:.3f}" for name, words in known.items() if name in numbers)
    return f"step {step:,}: validation loss {numbers['loss']:.3f}{said}"


def ended(result: Mapping[str, Any]) -> list[str]:
    """How a run ended, what it scores, where everything lies, and what to type next."""
    lines = [f"{result['run']}: {result['status']}, {result['steps']:,} steps"]
    if "accuracy" in result:
        commonest = result["baseline"]
        lines.append(
            f"  accuracy      {result['accuracy']:.3f}{_between(result, 'accuracy')}, macro F1 "
            f"{result['macro_f1']:.3f}{_between(result, 'macro_f1')}; naming every text {commonest['label']!r} gets "
            f"{commonest['accuracy']:.3f}"
        )
        if "calibration_error" in result:
            lines.append(f"  calibration   error {result['calibration_error']:.3f}, Brier {result['brier']:.3f}")
    elif result["bits_per_byte"] is not None:
        said = "".join(f", {order}-gram {bits:.3f}" for order, bits in result["ngrams"].items())
        lines.append(f"  bits per byte {result['bits_per_byte']:.3f}{said}")
    known = {"manifest": "read", "folder": "folder", "checkpoint": "checkpoint", "report": "report"}
    lines += [f"  {said:<13} {result[name]}" for name, said in known.items() if name in result]
    if "checkpoint" not in result:
        return lines
    folder, begin = shlex.quote(result["folder"]), "  python -P -m training"
    prompt = PROMPTS.get(result["objective"])
    writes = [f"{begin} generate {folder} --prompt {shlex.quote(prompt)}"] if prompt else []
    trace = f"{begin} trace {folder} --step {result['steps']}"
    return [*lines, "next:", *writes, f"{begin} export {folder} exported", trace]


def _between(result: Mapping[str, Any], name: str) -> str:
    bounds = result.get(f"{name}_interval")
    return f" [{bounds['low']:.3f}, {bounds['high']:.3f}]" if bounds else ""


def traced(found: Mapping[str, Any]) -> list[str]:
    """The documents of a step, a line a piece."""
    state = {True: "as it was read", False: "NOT WHAT WAS READ", None: "not checked"}[found["verified"]]
    head = f"step {found['step']} of {found['run']}: {len(found['pieces'])} pieces, {found['tokens']:,} tokens, {state}"
    lines = [head]
    for piece in found["pieces"]:
        place = f"row {piece['row']} at {piece['start']}: {piece['tokens']} tokens from {piece['offset']}"
        named = (piece["source"], piece["language"] or "-", piece["doc_id"], piece["url"] or "")
        lines.append("  ".join((place, *named)).rstrip())
    return lines


def scored(result: Mapping[str, Any]) -> list[str]:
    """The scores of a model, a line each, and where they lie."""
    from training.suites.page import rows

    step = result["model"]["step"]
    lines = [f"{result['model']['name']}{f', step {step:,}' if step is not None else ''}"]
    found = rows(dict(result))
    width = max((len(row["set"]) for row in found), default=0)
    for row in found:
        numbers = [row[name] for name in ("score", "low", "high")]
        share = 100 if row["share"] else 1
        said = ["n/a" if value is None else f"{value * share:.{1 if row['share'] else 3}f}" for value in numbers]
        chance = "" if row["chance"] is None else f", chance {row['chance'] * 100:.1f}"
        group = "" if row["group"] == "all" else f", {row['group']}"
        lines.append(
            f"  {row['set']:<{width}}  {row['metric']:<29} {said[0]:>6}  [{said[1]}, {said[2]}]{chance}  "
            f"({row['items']:,} items{group})"
        )
    cut = {one["name"]: one["cut"] for one in result.get("sets", []) if one["cut"]}
    lines += [
        f"  {name}: {count:,} prompts were longer than the context and lost their beginning"
        for name, count in cut.items()
    ]
    lines += [
        f"  {one['name']}: what is not contaminated is in no group, for nobody has looked for it in "
        f"{', '.join(one['unsearched'])}"
        for one in result.get("sets", [])
        if one["unsearched"]
    ]
    if told := result.get("prediction"):
        lines.append(
            f"  {told['split']} of {told['version']}: {told['bits_per_byte']:.4f} bits per byte, {told['measure']} "
            f"{told['perplexity']:.2f}, {told['targets']:,} targets"
        )
        for kind in ("source", "language", "domain"):
            for name, entry in list(told[f"by_{kind}"].items())[:12]:
                lines.append(f"    {kind:<9} {name:<28} {entry['bits_per_byte']:.4f}")
    return [*lines, f"scores: {result['folder']}"]


def compared(result: Mapping[str, Any]) -> list[str]:
    """Scores of each side, then what sets the others apart from the first."""
    from training.suites.page import SHARES, WORDS

    def said(entry: Mapping[str, Any], sign: str = "") -> str:
        times, places = (100, 1) if entry["metric"] in SHARES else (1, 4)
        score, low, high = (f"{entry[name] * times:{sign}.{places}f}" for name in ("score", "low", "high"))
        return f"{score:>8}  [{low}, {high}]  ({entry['items']:,} items)"

    lines = []
    for side in result["sides"]:
        runs = side["runs"]
        read = f"{runs[0]['tokens_read']:,} tokens, {sum(run['seconds'] for run in runs):,.0f} s, {runs[0]['version']}"
        lines.append(f"{side['name']}: {runs[0]['parameters']:,} parameters, {read}")
        mine = [entry for entry in result["scores"] if entry["side"] == side["name"]]
        lines += [f"  {one['what']:<28} {WORDS[one['metric']]:<29} {said(one)}" for one in mine]
    for one in result["differences"]:
        apart = "" if one["low"] <= 0 <= one["high"] else "  apart"
        lines.append(f"{one['side']} less {one['to']}: {one['what']}, {WORDS[one['metric']]} {said(one, '+')}{apart}")
    if not result["differences"] and len(result["sides"]) > 1:
        lines.append("nothing was answered by all of them under the same conditions: score each with the same suite")
    return [*lines, f"page: {result['page']}"]
