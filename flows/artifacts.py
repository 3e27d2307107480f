"""What a flow run leaves to be read beside it in Prefect: the books as a table, the model's figures, the report.

Everything in them may come from a corpus or a recipe, so it is cleaned, and in Markdown also escaped. A key keeps
lower-case letters, digits and hyphens, all that Prefect allows, and never names two versions at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.screen import clean, size
from pipeline.escaping import markdown as escaped
from pipeline.manifest import Version

REASONS = 5


def waterfall(version: Version) -> None:
    """How many documents entered and left each stage, and why: a table artifact."""
    documents = version.manifest["summaries"]["documents"]
    kept = f"{documents['kept']:,} of {documents['ingested'] + documents['added']:,} documents kept"
    create_table_artifact(
        table=rows(version.manifest),
        key=key("waterfall", version.manifest["name"]),
        description=f"`{version.address}`: {kept}, {_tokens(version.manifest)}",
    )


def rows(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The accounting as a table: a row a stage, its reasons as one text."""
    table = []
    for entry in manifest["accounting"]:
        reasons = [f"{count:,} {clean(reason, 80)}" for reason, count in entry["reasons"].items()]
        said = "; ".join(reasons[:REASONS] + ([f"and {len(reasons) - REASONS} more"] if len(reasons) > REASONS else []))
        counts = {name: entry[name] for name in ("entered", "added", "dropped", "quarantined", "left")}
        table.append({"stage": clean(entry["stage"], 80), "kind": entry["kind"], **counts, "reasons": said})
    return table


def outcome(result: Mapping[str, Any]) -> None:
    """What the trained model scores and where everything lies: a Markdown artifact and a link to the report."""
    name = key("run", str(result["run"]))
    create_markdown_artifact(markdown=markdown(result), key=name, description=f"Run {clean(result['run'])}")
    create_link_artifact(
        link=Path(str(result["report"])).absolute().as_uri(), link_text="report.html", key=key("report", result["run"])
    )


def markdown(result: Mapping[str, Any]) -> str:
    """Bits per byte of the model and the n-grams beside it, and the paths."""
    scores = [("model", result.get("bits_per_byte"))]
    scores += [(f"{order}-gram", value) for order, value in dict(result.get("ngrams") or {}).items()]
    lines = ["| | bits per byte |", "|---|---|"]
    lines += [f"| {escaped(name)} | {value:.3f} |" for name, value in scores if isinstance(value, float)]
    lines += ["", *(f"- {name}: {escaped(result[name])}" for name in ("manifest", "checkpoint", "report"))]
    return f"# {escaped(result['run'])}\n\n" + "\n".join(lines) + "\n"


def key(what: str, name: str) -> str:
    """An artifact's key: `what` and the name, in the letters that Prefect allows."""
    return f"{what}-{re.sub(r'[^a-z0-9]+', '-', str(name).lower()).strip('-')}"


def _tokens(manifest: Mapping[str, Any]) -> str:
    tokens = sum(split["tokens"] for split in manifest["splits"].values())
    text = manifest["summaries"]["text_bytes"]["kept"]
    return f"{tokens:,} tokens of {size(text)} text"
