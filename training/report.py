"""The report of a run: one page for people and one JSON file for programs, made of the same content.

The law: every number on the page is in `report.json` and formatted, never computed anew except as a sum, a share or a
comparison of such numbers; whatever part is absent or null, the page stays whole. The page is one file that loads
nothing, runs nothing and forbids both to whatever a corpus put into it. About 50 ms and 100 KB for a thousand steps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup

from training import display, plots
from training.display import bits, count, edge, number, size
from training.files import write_text
from training.plots import Flow, Series

BARS = 12
PARTS = ("run", "version", "corpus", "training", "evaluation", "classification", "compared", "samples")
GAPS = ("masked", "span")  # objectives whose targets are a part of the text, filled in from both sides


def write(folder: Path, content: dict[str, Any]) -> Path:
    """Write report.json and report.html into a folder that exists, each whole; returns the page's path."""
    write_text(folder / "report.json", canonical(content) + "\n")
    write_text(folder / "report.html", render(content))
    return folder / "report.html"


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinities, which JSON lacks, are null, and surrogates escaped."""
    text = json.dumps(_finite(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def render(content: dict[str, Any]) -> str:
    """The page as HTML that stands alone. The shape of `content` is that of report.json; null means absent."""
    # As it is written down: the same page now, and when it is drawn again from report.json.
    present = _present(json.loads(canonical(content)))
    page = environment().get_template("report.html")
    return page.render(
        **{name: present.get(name) for name in PARTS},
        plots=_plots(present),
        gaps=_at(present, "run.objective") in GAPS,
        verdict=verdict(_at(present, "evaluation", {})),
        sources=_sources(present),
        languages=_ranked(_at(present, "corpus.summaries.languages", {}), "tokens"),
        bins=_bins(_at(present, "corpus.summaries.length_histogram", {})),
        clusters=_clusters(_at(present, "corpus.summaries.clusters.sizes", {})),
        judges=[f"{order}-gram" for _, order, _ in verdict(_at(present, "evaluation", {}))],
        groups={name: _group(present, name) for name in ("source", "language")},
    )


def verdict(evaluation: Mapping[str, Any]) -> list[tuple[str, Any, float]]:
    """For each n-gram: whether the model's bits per byte are fewer, in words; its order; its bits per byte."""
    own = number(_at(evaluation, "model.bits_per_byte"))
    found = []
    for entry in evaluation.get("ngrams", []):
        theirs = number(entry.get("bits_per_byte"))
        words = "beats" if own < theirs else "does not beat"
        compared = not (math.isnan(own) or math.isnan(theirs))
        found.append((words if compared else "cannot be compared with", entry.get("order"), theirs))
    return found


@cache
def environment() -> Environment:
    """Templates escape everything, and `visible` comes before that on every value that is printed."""
    made = Environment(
        loader=PackageLoader("training", "."),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=display.visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for each in (bits, count, size, display.counted, display.duration, display.figure, display.quoted, display.setting):
        made.filters[each.__name__] = each
    made.filters["ranked"] = _ranked
    made.filters["thinned"] = thinned
    made.globals["percent"] = display.percent
    made.tests["web"] = display.web
    return made


def thinned(rows: Sequence[Any], most: int = 12) -> list[Any]:
    """At most so many of the rows, evenly spread, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place * (len(rows) - 1) // (most - 1)] for place in range(most)]


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _present(value: Any) -> Any:
    """The content without what is null."""
    if isinstance(value, Mapping):
        return {name: _present(v) for name, v in value.items() if v is not None}
    return [_present(v) for v in value] if isinstance(value, list | tuple) else value


def _at(table: Any, path: str, otherwise: Any = None) -> Any:
    """The value at a dotted path, or else `otherwise`."""
    for name in path.split("."):
        if not isinstance(table, Mapping) or name not in table:
            return otherwise
        table = table[name]
    return table


def _ranked(table: Mapping[str, Any], by: str = "") -> list[tuple[str, Any]]:
    """The entries of a table, the largest (or those with the largest `by`) first, then by name."""
    entries = table.items() if isinstance(table, Mapping) else []
    return sorted(entries, key=lambda e: (-(number(e[1].get(by) if by else e[1]) or 0.0), e[0]))


def _sources(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the cards say of each source, with what was kept of it."""
    kept = _at(content, "corpus.summaries.by_source", {})
    carded = {card.get("name", ""): card for card in _at(content, "version.sources", [])}
    return [{"name": name, **carded.get(name, {}), "kept": kept.get(name, {})} for name in {**carded, **kept}]


def _bins(table: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """Lower end, the bin in words, documents ingested and kept there; without the empty bins at either end."""
    edges, *counts = (table.get(name, []) for name in ("edges", "ingested", "kept"))
    rows = list(zip(edges, *counts, strict=False))
    full = [place for place, row in enumerate(rows) if any(row[1:])]
    words = [f"{edge(a)} to {edge(b)}" for a, b in pairwise(edges)]
    words += [f"{edge(last)} and more" for last in edges[-1:]]
    chosen = range(full[0], full[-1] + 1) if full else range(0)
    return [(edge(rows[place][0]), words[place], *rows[place][1:]) for place in chosen]


def _clusters(sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Sizes in words, clusters, documents in them: each size to 8, then 9 to 16, 17 to 32 and so on."""
    found: dict[tuple[int, int], list[int]] = {}
    for name, clusters in sorted((n, c) for n, c in sizes.items() if n.isdecimal()):
        documents = int(name)
        upper = documents if documents <= 8 else 1 << (documents - 1).bit_length()
        total = found.setdefault((documents if documents <= 8 else upper // 2 + 1, upper), [0, 0])
        total[0] += clusters
        total[1] += clusters * documents
    return [(f"{a}" if a == b else f"{a} to {b}", n, inside) for (a, b), (n, inside) in sorted(found.items())]


def _group(content: Mapping[str, Any], by: str) -> list[tuple[str, Any, list[float], float]]:
    """Name, numbers, bits per byte of the n-grams and the lowest bits of any judge, by group; most bytes first."""
    orders, rows = [str(order) for _, order, _ in verdict(_at(content, "evaluation", {}))], []
    for name, entry in _ranked(_at(content, f"evaluation.by_{by}", {}), "bytes"):
        others = [number(_at(entry, f"ngrams.{order}")) for order in orders]
        said = [number(entry.get("bits_per_byte")), *others]
        rows.append((name, entry, others, min((v for v in said if math.isfinite(v)), default=math.nan)))
    return rows


def _plots(content: Mapping[str, Any]) -> dict[str, Markup]:
    """Every plot that there are numbers for."""
    return {name: plot for make in MAKERS for name, plot in make(content).items()}


def _corpus(content: Mapping[str, Any]) -> dict[str, Markup]:
    made, summaries = {}, _at(content, "corpus.summaries", {})
    if stages := _at(content, "corpus.accounting", []):
        names = ("stage", "entered", "added", "dropped", "quarantined", "left")
        flows = [Flow(*(stage.get(name) for name in names)) for stage in stages]
        text = f"From {count(flows[0].entered)} documents read to {count(flows[-1].left)} kept, stage by stage."
        made["waterfall"] = plots.waterfall("Documents by stage", text, flows)
    if languages := _ranked(summaries.get("languages", {}), "tokens")[:BARS]:
        rows = [(name, entry.get("tokens"), count(entry.get("tokens"))) for name, entry in languages]
        made["languages"] = plots.bars("Tokens by language", f"The {len(rows)} with the most tokens.", rows)
    if bins := _bins(summaries.get("length_histogram", {})):
        series = {"ingested": [row[2] for row in bins], "kept": [row[3] for row in bins]}
        text = "Documents by bytes of text, as they came and as they were kept; each bin is twice as wide as the last."
        edges = [row[0] for row in bins]
        made["lengths"] = plots.histogram("Length of documents", text, edges, series, x="bytes of text", y="documents")
    if clusters := _clusters(_at(summaries, "clusters.sizes", {})):
        rows = [(words, amount, count(amount)) for words, amount, _ in clusters]
        made["clusters"] = plots.bars("Duplicate clusters", "Clusters by the number of documents in them.", rows)
    return made


def _training(content: Mapping[str, Any]) -> dict[str, Markup]:
    curve, checks = (_at(content, f"training.{name}", []) for name in ("curve", "validation"))

    def points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[Any, Any]]:
        return [(row.get("tokens"), row.get(name)) for row in rows]

    made, unit = {}, "text" if _at(content, "classification") else "token"
    if curve or checks:
        series = [Series("training", points(curve, "loss")), Series("validation", points(checks, "loss"), marks=True)]
        series = [one for one in series if one.points]
        text = "Loss over the tokens read, with every validation."
        made["loss"] = plots.lines("Loss", text, series, x="tokens", y=f"nats a {unit}", log_y=True)
    single = {
        "learning_rate": ("Learning rate", "learning rate", {"zero": True}),
        "gradient_norm": ("Gradient norm", "norm before clipping", {"log_y": True}),
        "tokens_per_second": ("Throughput", "tokens a second", {"zero": True}),
    }
    for name, (title, axis, options) in single.items():
        if curve:
            one = [Series(title, points(curve, name))]
            made[name] = plots.lines(title, f"{title} over the tokens read.", one, x="tokens", y=axis, **options)
    return made


def _evaluation(content: Mapping[str, Any]) -> dict[str, Markup]:
    evaluation = _at(content, "evaluation", {})
    if not evaluation:
        return {}
    own = _at(evaluation, "model.bits_per_byte")
    rows = [("model", own, bits(own)), *((f"{n}-gram", b, bits(b)) for _, n, b in verdict(evaluation))]
    if len(rows) == 1:  # nothing to hold it against
        return {}
    return {"judges": plots.bars("Bits per byte", "The model and the n-grams on the same text; less is better.", rows)}


def _classification(content: Mapping[str, Any]) -> dict[str, Markup]:
    made = {}
    if bins := _at(content, "classification.calibration.bins", []):
        found = [(entry.get("probability"), entry.get("accuracy")) for entry in bins]
        series = [Series("model", found, marks=True), Series("as sure as right", [(0, 0), (1, 1)])]
        text = "Share of right answers over the mean probability of the class that was named, bin by bin."
        made["reliability"] = plots.lines("Reliability", text, series, x="probability", y="share right", zero=True)
    checks = _at(content, "training.validation", [])
    series = [
        Series(words, [(row.get("step"), row.get(name)) for row in checks], marks=True)
        for name, words in (("accuracy", "accuracy"), ("macro_f1", "macro F1"))
        if any(row.get(name) is not None for row in checks)
    ]
    if series:
        text = "Accuracy and macro F1 of every validation, over steps."
        made["learning"] = plots.lines("Learning curve", text, series, x="steps", y="share", zero=True)
    losses = [(row.get("step"), row.get("loss")) for row in checks]
    if series and losses:
        text = "Loss of every validation, over steps."
        one = [Series("loss", losses, marks=True)]
        made["validation_loss"] = plots.lines("Validation loss", text, one, x="steps", y="nats a text", zero=True)
    return made


MAKERS = (_corpus, _training, _evaluation, _classification)
