"""The scores of a model as one page that stands alone, and as JSON: every number on the page is in scores.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import plots, report
from training.display import number
from training.files import write_text
from training.plots import Series

WORDS = {
    "raw": "accuracy",
    "normalised": "accuracy, by bytes",
    "unconditional": "accuracy, by the answer alone",
    "exact_match": "greedy match",
    "log_likelihood": "nats a byte",
    "bits_per_byte": "bits per byte",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "loss": "nats a text",
}
SHARES = ("accuracy", "raw", "normalised", "unconditional", "exact_match")


def write(folder: Path, result: dict[str, Any]) -> None:
    """scores.json and scores.html, each whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "scores.json", report.canonical(result) + "\n")
    write_text(folder / "scores.html", render(result))


def render(result: dict[str, Any]) -> str:
    """The page as HTML."""
    return report.environment().get_template("suites/scores.html").render(**result, rows=rows(result))


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each set, group of its items and metric; `beats` where chance lies below the interval."""
    found = []
    for one in result.get("sets", []):
        for group, entry in one["groups"].items():
            for metric, said in entry["metrics"].items():
                beats = said["chance"] is not None and number(said["low"]) > said["chance"]
                known = {"set": one["name"], "group": group, "items": entry["items"], "metric": WORDS[metric]}
                found.append({**known, **said, "beats": beats, "share": metric in SHARES})
    return found


def write_comparison(file: Path, found: dict[str, Any]) -> None:
    """The page of a comparison."""
    file.parent.mkdir(parents=True, exist_ok=True)
    template = report.environment().get_template("suites/comparison.html")
    write_text(file, template.render(**found, words=WORDS, shares=SHARES, curves=_curves(found)))


def _curves(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every validation of every run over the tokens that it had read."""
    runs = [run for side in found["sides"] for run in side["runs"]]
    made = []
    kinds = (
        ("loss", "Validation loss", "nats a target"),
        ("bits_per_byte", "Bits per byte", "bits"),
        ("accuracy", "Accuracy", "share"),
        ("macro_f1", "Macro F1", "F1"),
    )
    for name, title, unit in kinds:
        points = {
            run["name"]: [(one["tokens"], one[name]) for one in run["curve"] if one.get(name) is not None]
            for run in runs
        }
        series = [Series(run, some, marks=True) for run, some in points.items() if some]
        if series:
            text = f"{title} of every run over the tokens read."
            made.append((title, plots.lines(title, text, series, x="tokens", y=unit)))
    return made
