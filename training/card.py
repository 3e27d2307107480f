"""What an exported model says of itself: README.md, a model card of the Hugging Face Hub, and ATTRIBUTION.md.

The licences of the texts that a run read travel with the model: by documents and tokens of the train split of each
version, from its document index, as sources and documents state them; and those of the texts behind the weights that
it began with (`lineage`). The licence of the model itself is for its owner to state, so the card leaves it out. The
law: the same run gives the same bytes, and no word of a corpus is obeyed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from training import lineage, mix
from training.config import Run
from training.display import visible, web
from training.journal import Journal
from training.lineage import Before, Source, Texts
from training.manifest import Version

Read = tuple[Version | Texts, Sequence[Source]]  # a version, and what was there to be read of it
LANGUAGE = re.compile(r"[a-z]{2,3}")
# What `transformers` calls the task of a family, and what the tags of the Hub call it.
TASKS = {"gpt": "text-generation", "bert": "fill-mask", "modernbert": "fill-mask", "t5": "text2text-generation"}


def papers(books: Journal, run: Run, version: Version) -> dict[str, str]:
    """The texts of README.md and ATTRIBUTION.md of the run of these books."""
    sources = mix.sources(run, version)
    read = [(each, lineage.read(each, sources[each.address])) for each in (version, *version.beside)]
    before = lineage.before(books)
    return {
        "README.md": "\n".join(_card(books.table, run, read, before)),
        "ATTRIBUTION.md": "\n".join(_attribution(books.table, read, before)),
    }


def _card(table: Mapping[str, Any], run: Run, read: Sequence[Read], before: Before | None) -> Iterator[str]:
    family, trained = str(run.model["family"]), table.get("trained") or {}
    classes = run.objective["use"] == "classify"
    everything = [source for _, sources in (*read, *_earlier(before)) for source in sources]
    languages = sorted({name for source in everything for name in source.languages})
    yield "---"
    yield "library_name: transformers"
    yield f"pipeline_tag: {'text-classification' if classes else TASKS.get(family, 'text-generation')}"
    if known := [name for name in languages if LANGUAGE.fullmatch(name)]:
        yield "language:"
        yield from (f"- {json.dumps(name)}" for name in known)
    yield "tags:"
    yield "- gristmill"
    yield "---"
    yield ""
    yield f"# {escaped(table['name'])}"
    yield ""
    parameters = f", {trained['parameters']:,} parameters" if trained.get("parameters") else ""
    yield f"A model of the family `{family}`{parameters}, trained by Gristmill with the objective"
    steps = f"step {table['step']:,} of {table['steps']:,}, {table['tokens_read']:,} tokens read"
    adapted = f", by LoRA (rank {run.lora.rank})" if run.lora else ""
    begun = f", from the weights `{run.init.weights}`" if run.init else ""
    yield f"`{run.objective['use']}`{adapted}{begun}: {steps}."
    yield ""
    yield from (f"- {escaped(name)}: {value}" for name, value in _scores(table.get("evaluation") or {}))
    yield f"- identity of the run: `{table['digest']}`"
    yield from (f"- read: `{each.address}`, sha256 of its manifest {each.sha256}" for each, _ in read)
    yield ""
    yield "## Data"
    yield ""
    yield "Licences are SPDX expressions, as sources and documents state them, of what was there to be trained on. They"
    yield "are licences of the texts; that of this model is for its owner to state. `ATTRIBUTION.md` names the sources."
    yield ""
    yield from _licences(source for _, sources in read for source in sources)
    yield ""
    if before is None:
        return
    yield "## Data of the weights before"
    yield ""
    for one in before.runs:
        versions = ", ".join(f"`{each.address}`" for each in one.texts)
        yield f"- run `{one.digest}`, {escaped(one.name)}: `{one.objective}` up to step {one.step:,}, of {versions}"
    yield from _unknown(before)
    if earlier := _earlier(before):
        yield ""
        yield from _licences(source for _, sources in earlier for source in sources)
        yield ""


def _scores(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("bits_per_byte", "perplexity", "accuracy", "macro_f1"):
        if isinstance(value := evaluation.get(name), int | float):
            yield f"{name.replace('_', ' ')} on {evaluation.get('split', 'val')}", f"{value:.4g}"


def _earlier(before: Before | None) -> list[Read]:
    """Versions that earlier runs had read, the last run first, each with the sources that no later one had read."""
    found: dict[str, tuple[Texts, dict[str, Source]]] = {}
    for texts in (each for run in (before.runs if before else ()) for each in run.texts):
        _, mine = found.setdefault(texts.address, (texts, {}))
        for source in texts.sources:
            mine.setdefault(source.name, source)
    return [(texts, [*mine.values()]) for texts, mine in found.values()]


def _unknown(before: Before) -> Iterator[str]:
    """That texts are missing here, where weights are of no known run."""
    if before.unknown:
        learnt = f"What the weights `{before.unknown}` had learnt from before"
        yield f"{learnt} is not listed here: see where they are from."


def _attribution(table: Mapping[str, Any], read: Sequence[Read], before: Before | None) -> Iterator[str]:
    yield f"# Attribution of {escaped(table['name'])}"
    yield ""
    yield "The texts that this model was trained on were written by others."
    yield ""
    yield from _licences(source for _, sources in read for source in sources)
    yield ""
    yield from _attributed(read)
    if before is None:
        return
    yield "# Texts of the weights before"
    yield ""
    yield "The weights that the run began with had learnt from these before."
    yield from _unknown(before)
    yield ""
    yield from _attributed(_earlier(before))


def _attributed(read: Sequence[Read]) -> Iterator[str]:
    for version, sources in read:
        for source in sources:
            home = source.homepage
            yield f"## {escaped(source.title)}"
            yield ""
            yield f"- name: {escaped(source.name)} of `{version.address}`"
            yield f"- home: {f'<{home}>' if web(home) and not set(str(home)) & set('<>') else escaped(home)}"
            yield f"- licence of documents that state none: {escaped(source.licence)}"
            yield f"- revision: `{source.revision}`"
            yield ""
            yield from _licences([source])
            yield ""


def _licences(sources: Iterable[Source]) -> Iterator[str]:
    """Licences by documents and tokens, the most tokens first, as a Markdown table."""
    documents, tokens = Counter[str](), Counter[str]()
    for one in (each for source in sources for each in source.licences):
        documents[one.licence] += one.documents
        tokens[one.licence] += one.tokens
    yield "| licence | documents | tokens | of all tokens |"
    yield "| --- | ---: | ---: | ---: |"
    for licence, count in sorted(tokens.items(), key=lambda row: (-row[1], row[0])):
        said = "NOASSERTION \\(nobody states one\\)" if licence == "NOASSERTION" else escaped(licence)
        share = count / (tokens.total() or 1)
        yield f"| {said} | {documents[licence]:,} | {count:,} | {share:.2%} |"


def escaped(value: object) -> str:
    """One line of text that Markdown and HTML show as it is."""
    text = " ".join(str(visible(value)).split())[:300]
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&:@$])", r"\\\1", text)
