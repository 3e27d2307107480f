"""statement.json and statement.md: what a model that reads this version is trained on, for the public.

The sections are those of the European Commission's template for the public summary of training content (C(2025) 8311,
for Article 53(1)(d) of Regulation (EU) 2024/1689). What a manifest knows is filled in; what only the provider of a
model knows is null in the JSON and said to be missing on the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.escaping import clean, link, markdown, page, table
from pipeline.papers.attribution import licence_table
from pipeline.papers.facts import Amount, Facts

FORMAT = "gristmill.statement/1"
# The template asks for a tenth of the domains, the largest; for fewer of a small enterprise, and 1,000 are enough.
DOMAINS, SHARE = 1000, 0.1
SHOWN = 100
PROVIDER = "to be stated by the provider of the model"


def written(facts: Facts) -> str:
    """The JSON."""
    return page(statement(facts))


def statement(facts: Facts) -> dict[str, Any]:
    """The statement as plain data. Strings of strangers are printable and cut at 300 characters."""
    manifest = facts.manifest
    listed = list(facts.domains.items())[: max(DOMAINS, round(SHARE * len(facts.domains)))]
    collected = [period for source in manifest["sources"] if (period := source.get("collected"))]
    return {
        "format": FORMAT,
        "version": facts.address,
        "general": {
            "provider": None,
            "model": None,
            "modality": "text",
            "size": {**facts.total.table(), "truncated_tokens": facts.truncated},
            "size_category": _size(facts.total.tokens),
            "languages": _named(facts.languages, "language"),
            "latest_acquisition": max((period.rpartition("/")[2] for period in collected), default=None),
        },
        "sources": [_source(source, facts.licences[source["name"]]) for source in manifest["sources"]],
        "licences": _named(facts.by_licence, "licence"),
        "unknown_licence": facts.unknown.table(),
        "domains": {
            "number": len(facts.domains),
            "listed": _named(dict(listed), "domain"),
            "documents_with_address": facts.addressed.documents,
        },
        "synthetic": facts.born.table(),
        "user_data": None,
        "processing": {
            "stages": [
                {name: entry[name] for name in ("stage", "kind", "entered", "added", "dropped", "quarantined")}
                for entry in manifest["accounting"]
            ],
            "reservation_of_rights": None,
            "removal_of_illegal_content": None,
        },
    }


def _source(source: Mapping[str, Any], amounts: Mapping[str, Amount]) -> dict[str, Any]:
    return {
        **{name: clean(source[name], 2000) for name in ("name", "title", "homepage", "kind", "licence", "revision")},
        "collected": source.get("collected"),
        "read": {"documents": source["documents"], "text_bytes": source["text_bytes"]},
        "kept": sum(amounts.values(), Amount()).table(),
        "licences": _named(amounts, "licence"),
    }


def _named(amounts: Mapping[str, Amount], what: str) -> list[dict[str, Any]]:
    return [{what: clean(name), **amount.table()} for name, amount in amounts.items()]


def _size(tokens: int) -> str:
    """The template's three sizes of text."""
    if tokens < 10**9:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= 10**13 else "more than 10 trillion tokens"


def told(facts: Facts) -> str:
    """The same as Markdown."""
    return "\n".join(_lines(facts, statement(facts)))


def _lines(facts: Facts, said: Mapping[str, Any]) -> Iterator[str]:
    general, domains = said["general"], said["domains"]
    yield f"# Content of {markdown(said['version'])} as training data"
    yield ""
    yield "The sections follow the European Commission's template for the public summary of training content (Article"
    yield "53(1)(d) of Regulation (EU) 2024/1689). Figures are of the documents that were kept, from `manifest.json`"
    yield "and `documents.parquet`; `statement.json` says the same and lists more domains."
    yield ""
    yield "## 1. General information"
    yield ""
    yield f"- provider, model: {PROVIDER}"
    yield "- modality: text"
    yield f"- size: {facts.total.tokens:,} tokens, {facts.total.documents:,} documents ({general['size_category']})"
    yield f"- latest date of acquisition: {markdown(general['latest_acquisition'] or 'stated by no source')}"
    yield f"- languages: {', '.join(map(markdown, facts.languages))}"
    yield ""
    yield from _amounts("language", facts.languages)
    yield ""
    yield "## 2. Sources"
    yield ""
    yield from _sources(said["sources"])
    yield ""
    yield "### Licences"
    yield ""
    yield from licence_table(facts.by_licence, facts.total)
    yield ""
    yield f"### Domains: the largest {min(SHOWN, len(facts.domains)):,} of {domains['number']:,}, by bytes of text"
    yield ""
    yield f"{facts.addressed.documents:,} of {facts.total.documents:,} documents have an address."
    yield ""
    yield from _amounts("domain", dict(list(facts.domains.items())[:SHOWN]))
    yield ""
    yield "### Synthetic data and data of users"
    yield ""
    yield f"- made by augmentation: {facts.born.documents:,} documents, {facts.born.tokens:,} tokens"
    yield f"- data of users: {PROVIDER}"
    yield ""
    yield "## 3. Processing"
    yield ""
    rows = (
        (markdown(e["stage"]), *(f"{e[name]:,}" for name in ("entered", "added", "dropped", "quarantined")))
        for e in said["processing"]["stages"]
    )
    yield from table(("stage", "entered", "added", "dropped", "quarantined"), rows)
    yield ""
    yield f"- respect of reservations of rights: {PROVIDER}"
    yield f"- removal of illegal content: {PROVIDER}"
    yield ""


def _sources(sources: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            f"{markdown(s['title'])}, {link(s['homepage'])}",
            markdown(s["licence"]),
            markdown(s["collected"] or "not stated"),
            *(f"{amount:,}" for amount in (s["read"]["documents"], s["kept"]["documents"], s["kept"]["tokens"])),
        )
        for s in sources
    )
    return table(("source", "licence", "collected", "read", "kept", "tokens kept"), rows, 3)


def _amounts(what: str, amounts: Mapping[str, Amount]) -> list[str]:
    rows = ((markdown(name), *(f"{value:,}" for value in amount.values)) for name, amount in amounts.items())
    return table((what, "documents", "bytes of text", "tokens"), rows) if amounts else ["None."]
