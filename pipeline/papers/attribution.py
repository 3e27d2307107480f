"""ATTRIBUTION.md: whose texts a version holds, under which licences, and what was done to them.

Licences such as CC BY ask for the title, the source, the licence and a word on changes; the address of every single
document is in the document index.
"""

from __future__ import annotations

from pipeline.escaping import link, markdown, table
from pipeline.papers.facts import Amount, Facts, identifiers, stated

SPDX = "https://spdx.org/licenses/"


def written(facts: Facts) -> str:
    """The page."""
    lines = [
        f"# Attribution of {markdown(facts.address)}",
        "",
        "The texts of this version were written by others. Licences are SPDX expressions, as sources and documents",
        f"state them. Licence and address of every document are the columns `licence` and `url` of {_index(facts)}.",
        "",
        *licence_table(facts.by_licence, facts.total),
        "",
        "## Sources",
        "",
    ]
    for source in facts.manifest["sources"]:
        lines += _source(source, facts.licences[source["name"]])
    lines += ["## Changes", "", *changes(facts), ""]
    if names := [name for name in identifiers(list(facts.by_licence)) if not name.lower().startswith("licenseref-")]:
        lines += ["## Texts of the licences", "", *(f"- {markdown(n)}: <{SPDX}{n}.html>" for n in names), ""]
    return "\n".join(lines)


def licence_table(amounts: dict[str, Amount], total: Amount) -> list[str]:
    """Licences by documents and tokens, as lines of a Markdown table."""
    rows = [
        (
            markdown(stated(expression)),
            f"{amount.documents:,}",
            f"{amount.tokens:,}",
            f"{amount.tokens / total.tokens:.2%}" if total.tokens else "",
        )
        for expression, amount in amounts.items()
    ]
    return table(("licence", "documents", "tokens", "of all tokens"), rows)


def changes(facts: Facts) -> list[str]:
    """What was done to the texts, in the recipe's order."""
    rewriting = [
        f"`{entry['use']}`" for entry in facts.manifest["recipe"]["stages"] if entry["kind"] in ("rewrite", "extend")
    ]
    rewriting += [f"`{name}`" for name in facts.manifest["summaries"].get("cuts", {})]
    told = f"Texts were changed by the stages {', '.join(rewriting)}" if rewriting else "No stage changed a text"
    kept = facts.manifest["summaries"]["documents"]
    return [
        f"{told}. Of {kept['ingested'] + kept['added']:,} documents {kept['kept']:,} were kept; what was kept lies",
        "here as tokens of `tokenizer.json`, not as text.",
    ]


def _index(facts: Facts) -> str:
    return f"`{facts.manifest['documents']['file']}`"


def _source(source: dict[str, object], amounts: dict[str, Amount]) -> list[str]:
    kept = sum(amounts.values(), Amount())
    lines = [
        f"### {markdown(source['title'])}",
        "",
        f"- name: {markdown(source['name'])}, at home at {link(str(source['homepage']))}",
        f"- licence of documents that state none: {markdown(stated(str(source['licence'])))}",
        f"- kept: {kept.documents:,} of {source['documents']:,} documents, {kept.tokens:,} tokens",
        f"- revision: `{source['revision']}`",
        "",
    ]
    return [*lines, *licence_table(amounts, kept), ""] if len(amounts) > 1 else lines
