"""The scores of a model as one page that stands alone, and as JSON: every number on the page is in scores.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import report
from training.display import number
from training.files import write_text

WORDS = {
    "raw": "accuracy",
    "normalised": "accuracy, by bytes",
    "unconditional": "accuracy, by the answer alone",
    "exact_match": "greedy match",
    "log_likelihood": "nats a byte",
}


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
                found.append({**known, **said, "beats": beats, "share": metric != "log_likelihood"})
    return found
