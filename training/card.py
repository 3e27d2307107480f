"""What an exported model says of itself: README.md, a model card of the Hugging Face Hub, and ATTRIBUTION.md.

The licences of the texts that a run read travel with the model: by documents and tokens of the train split of each
version, from its document index, as sources and documents state them. The licence of the model itself is for its owner
to state, so the card leaves it out. The law: the same run gives the same bytes, and no word of a corpus is obeyed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from training import mix
from training.config import Run
from training.display import visible, web
from training.manifest import Version

UNKNOWN = ("", "NOASSERTION", "NONE")
LANGUAGE = re.compile(r"[a-z]{2,3}")
# What `transformers` calls the task of a family, and what the tags of the Hub call it.
TASKS = {"gpt": "text-generation", "bert": "fill-mask", "modernbert": "fill-mask", "t5": "text2text-generation"}


def papers(table: Mapping[str, Any], run: Run, version: Version) -> dict[str, str]:
    """The texts of README.md and ATTRIBUTION.md; `table` is the run's run.json."""
    sources = mix.sources(run, version)
    read = {each.address: _read(each, sources[each.address]) for each in (version, *version.beside)}
    return {
        "README.md": "\n".join(_card(table, run, version, read)),
        "ATTRIBUTION.md": "\n".join(_attribution(table, run, (version, *version.beside), read)),
    }


def _read(version: Version, sources: set[str] | None) -> pa.Table:
    """source, language, licence and tokens of the documents of a version's train split, of `sources` or of all."""
    index = version.documents.select(["source", "language", "licence", "tokens", "split"])
    index = index.filter(pc.equal(index["split"], "train"))
    if sources is not None:
        index = index.filter(pc.is_in(index["source"], pa.array(sorted(sources), pa.string())))
    stated = pc.utf8_trim_whitespace(pc.fill_null(index["licence"], ""))
    unknown = pc.is_in(pc.utf8_upper(stated), pa.array(UNKNOWN))
    return index.set_column(2, "licence", pc.if_else(unknown, "NOASSERTION", stated))


def _card(table: Mapping[str, Any], run: Run, version: Version, read: Mapping[str, pa.Table]) -> Iterator[str]:
    family, trained = str(run.model["family"]), table.get("trained") or {}
    classes = run.objective["use"] == "classify"
    languages = sorted({name for each in read.values() for name in each["language"].unique().to_pylist() if name})
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
    yield from (
        f"- read: `{each.address}`, sha256 of its manifest {each.sha256}" for each in (version, *version.beside)
    )
    yield ""
    yield "## Data"
    yield ""
    yield "Licences are SPDX expressions, as sources and documents state them, of what was there to be trained on. They"
    yield "are licences of the texts; that of this model is for its owner to state. `ATTRIBUTION.md` names the sources."
    yield from _before(run)
    yield ""
    yield from _licences(pa.concat_tables(read.values()))
    yield ""


def _scores(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("bits_per_byte", "perplexity", "accuracy", "macro_f1"):
        if isinstance(value := evaluation.get(name), int | float):
            yield f"{name.replace('_', ' ')} on {evaluation.get('split', 'val')}", f"{value:.4g}"


def _before(run: Run) -> Iterator[str]:
    """That texts are missing here, where the run did not begin with weights of its own."""
    if run.init:
        learnt = f"What the weights `{run.init.weights}` had learnt from before"
        yield f"{learnt} is not listed here: see where they are from."


def _attribution(
    table: Mapping[str, Any], run: Run, versions: Sequence[Version], read: Mapping[str, pa.Table]
) -> Iterator[str]:
    yield f"# Attribution of {escaped(table['name'])}"
    yield ""
    yield "The texts that this model was trained on were written by others."
    yield from _before(run)
    yield ""
    yield from _licences(pa.concat_tables(read.values()))
    yield ""
    for version in versions:
        for source in version.manifest.sources:
            mine = read[version.address]
            mine = mine.filter(pc.equal(mine["source"], source["name"]))
            if not mine.num_rows:
                continue
            yield f"## {escaped(source['title'])}"
            yield ""
            home = source["homepage"]
            yield f"- name: {escaped(source['name'])} of `{version.address}`"
            yield f"- home: {f'<{home}>' if web(home) and not set(home) & set('<>') else escaped(home)}"
            yield f"- licence of documents that state none: {escaped(source['licence'])}"
            yield f"- revision: `{source['revision']}`"
            yield ""
            yield from _licences(mine)
            yield ""


def _licences(documents: pa.Table) -> Iterator[str]:
    """Licences by documents and tokens, the most tokens first, as a Markdown table."""
    sums = documents.group_by("licence").aggregate([([], "count_all"), ("tokens", "sum")])
    rows = zip(*(sums[name].to_pylist() for name in ("licence", "count_all", "tokens_sum")), strict=True)
    whole = pc.sum(documents["tokens"]).as_py() or 1
    yield "| licence | documents | tokens | of all tokens |"
    yield "| --- | ---: | ---: | ---: |"
    for licence, count, tokens in sorted(rows, key=lambda row: (-row[2], row[0])):
        said = "NOASSERTION \\(nobody states one\\)" if licence == "NOASSERTION" else escaped(licence)
        yield f"| {said} | {count:,} | {tokens:,} | {tokens / whole:.2%} |"


def escaped(value: object) -> str:
    """One line of text that Markdown and HTML show as it is."""
    text = " ".join(str(visible(value)).split())[:300]
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&:@$])", r"\\\1", text)
