"""README.md: a data set card of the Hugging Face Hub, by which `datasets.load_dataset(FOLDER)` reads the splits.

The front matter is YAML that the Hub reads; the licences and languages in it are those of its own lists, and what is on
none of them is said below. See https://huggingface.co/docs/hub/datasets-cards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.escaping import markdown, scalar, table
from pipeline.papers.attribution import licence_table
from pipeline.papers.facts import Facts, identifiers

# Of the Hub's list of licences, by SPDX identifiers in lower case without -only and -or-later.
HUB = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 gpl-2.0 gpl-3.0 isc
    lgpl-2.1 lgpl-3.0 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 osl-3.0 pddl postgresql unlicense wtfpl zlib
    """.split()
)
RENAMED = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}
# What the Hub reads as a language: a code of ISO 639.
LANGUAGE = re.compile(r"[a-z]{2,3}")
SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def written(facts: Facts) -> str:
    """The card."""
    return "\n".join(["---", *_front(facts), "---", "", *_body(facts)])


def _front(facts: Facts) -> Iterator[str]:
    manifest = facts.manifest
    yield f"pretty_name: {scalar(facts.address)}"
    yield from _list("license", licences(facts))
    if "other" in licences(facts):
        yield "license_name: several"
        yield "license_link: ATTRIBUTION.md"
    if known := sorted(name for name in facts.languages if LANGUAGE.fullmatch(name)):
        yield from _list("language", known)
    yield from _list("size_categories", [size_category(sum(s["rows"] for s in manifest["splits"].values()))])
    yield from _list("task_categories", _tasks(manifest))
    yield from _list("tags", ["gristmill", "tokenized"])
    yield "configs:"
    yield "- config_name: default"
    yield "  data_files:"
    for name in manifest["splits"]:
        yield f"  - split: {scalar(name)}"
        # No name of a split has a hyphen, so none is the beginning of another's files.
        yield f"    path: {scalar(f'shards/{name}-*.arrow')}"


def licences(facts: Facts) -> list[str]:
    """The licences of the documents as the Hub calls them: `other` where it has no name, `unknown` where nobody has."""
    found = set()
    for name in identifiers(list(facts.by_licence)):
        plain = re.sub(r"-(only|or-later)$", "", name.lower())
        plain = RENAMED.get(plain, plain)
        found.add(plain if plain in HUB else "other")
    if facts.unknown.documents:
        found.add("unknown")
    return sorted(found) or ["other"]


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    place = len(str(rows)) - 4
    if place < 0:
        return "n<1K"
    return f"{SIZES[place]}<n<{SIZES[place + 1]}" if place + 1 < len(SIZES) else "n>1T"


def columns(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a shard, in words."""
    number = f"row number in `{manifest['documents']['file']}`"
    if manifest["layout"] == "packed":
        return {
            "tokens": f"{manifest['length']:,} tokens; behind `used` of them the end of text pads the row",
            "used": "tokens before the padding",
            "starts": "where in the row each document, or piece of one, begins",
            "documents": f"of each piece its document: {number}",
            "offsets": "at which token of its document each piece begins",
        }
    target = {"target": "tokens of the text to be written"} if manifest.get("targets") else {}
    return {
        "tokens": f"the tokens of one document, at most {manifest['length']:,}",
        "label": "its class: a place in `labels` of `manifest.json`, -1 where it has none",
        "document": number,
        **target,
    }


def _tasks(manifest: Mapping[str, Any]) -> list[str]:
    if manifest["layout"] == "examples" and manifest["labels"]:
        return ["text-classification"]
    return ["text-generation"] if manifest.get("targets") else ["fill-mask", "text-generation"]


def _list(key: str, values: list[str]) -> Iterator[str]:
    yield f"{key}:"
    yield from (f"- {scalar(value)}" for value in values)


def _body(facts: Facts) -> Iterator[str]:
    manifest = facts.manifest
    kept = manifest["summaries"]["documents"]
    yield f"# {markdown(facts.address)}"
    yield ""
    cut = f" ({facts.truncated:,} of them cut off at the length of a row)" if facts.truncated else ""
    yield f"{facts.total.documents:,} documents, {facts.total.tokens:,} tokens{cut}, sealed by Gristmill:"
    yield "`manifest.json` states the recipe, the sources and a digest of every file. Rows hold tokens of"
    yield "`tokenizer.json`, and `documents.parquet` has a row for each document, with its source, language, licence"
    yield "and address."
    yield ""
    yield "```python"
    yield "import datasets, tokenizers"
    yield ""
    yield 'splits = datasets.load_dataset("PATH OF THIS FOLDER")'
    yield 'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")'
    yield 'print(tokenizer.decode(splits["train"][0]["tokens"]))'
    yield "```"
    yield ""
    rows = (
        (markdown(name), *(f"{split[key]:,}" for key in ("rows", "documents", "tokens", "text_bytes")))
        for name, split in manifest["splits"].items()
    )
    yield from table(("split", "rows", "documents", "tokens", "bytes of text"), rows)
    yield ""
    yield from table(("column", "what it holds"), ((f"`{n}`", what) for n, what in columns(manifest).items()), 2)
    yield ""
    yield "## Licences"
    yield ""
    yield "As sources and documents state them, in SPDX. `ATTRIBUTION.md` has the sources, `statement.md` the domains."
    yield ""
    yield from licence_table(facts.by_licence, facts.total)
    yield ""
    yield "## How it was made"
    yield ""
    yield f"{kept['ingested']:,} documents ingested and {kept['added']:,} added = {kept['kept']:,} kept, "
    yield f"{kept['dropped']:,} dropped and {kept['quarantined']:,} quarantined."
    yield ""
    counts = ("entered", "added", "dropped", "quarantined")
    stages = (
        (markdown(entry["stage"]), markdown(entry["kind"]), *(f"{entry[name]:,}" for name in counts))
        for entry in manifest["accounting"]
    )
    yield from table(("stage", "kind", *counts), stages, 2)
    yield ""
