"""What a trained filter says of itself: checked where it is read, and written out for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.digests import digest
from pipeline.mistakes import ConfigError

FORMAT = "gristmill.filter/1"


def sealed(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card with the digest of its content."""
    plain = {name: value for name, value in card.items() if name != "digest"}
    return {**plain, "digest": digest(plain)}


def read(path: Path, form: str = FORMAT) -> dict[str, Any]:
    """The card of a filter, or of what has another format. Raises ConfigError where it is none, or was changed."""
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a card: {error}") from error
    if not isinstance(card, dict) or card.get("format") != form:
        raise ConfigError(f"{path}: no card of format {form}")
    if card != sealed(card):
        raise ConfigError(f"{path}: was changed: its digest is not that of its content; train it again")
    return card


def page(card: Mapping[str, Any], name: str) -> str:
    """The card for people, in Markdown."""
    held = card["held_back"]
    low, high = held["auc_interval"]
    lines = [
        f"# Filter {name}",
        "",
        f"Scores a text between 0 and 1 as `{card['label']}` against `{card['against']}`, by fastText. Model sha256 "
        f"`{card['model']['sha256']}`, card `{card['digest']}`.",
        "",
        f"On {held['positive']:,} and {held['negative']:,} held-back texts the area under the ROC curve is "
        f"**{held['auc']:.3f}** ({held['level']:.0%} interval {low:.3f} to {high:.3f}, bootstrap).",
        "",
        "| keep from | negative kept | all kept | precision | recall |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['threshold']:.5f} | {row['negative_kept']:.1%} | {row['kept']:.1%} | {row['precision']:.3f} | "
        f"{row['recall']:.3f} |"
        for row in held["thresholds"]
    ]
    lines += ["", "Precision hangs on how many of each label there are, and in a corpus there are not as many.", ""]
    lines += ["| label | source | licence | documents | trained on | held back |", "|---|---|---|---|---|---|"]
    for side in card["data"]:
        names = ", ".join(source["name"] for source in side["sources"])
        licence = ", ".join(sorted({source["licence"] for source in side["sources"]}))
        counts = f"{side['documents']:,} | {side['trained']:,} | {side['held_back']:,}"
        lines.append(f"| {side['label']} | {names} | {licence} | {counts} |")
    settings = ", ".join(f"{name} {value}" for name, value in card["settings"].items())
    return "\n".join([*lines, "", f"fastText: {settings}.", ""])
