"""A document's way through a version, laid out to be read: its verdict, what was measured, whom it lost to, its place.

Every string that may come from a corpus, a card or a recipe is printed through `screen.plain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.screen import Screen, plain, size
from flows.show import number

if TYPE_CHECKING:  # its kernels take longer to import than most pages to print
    from pipeline.catalog.losing import Lost
    from pipeline.catalog.queries import Why

PASSAGES = 20
VERDICTS = {"kept": "green", "dropped": "yellow", "quarantined": "red"}


def why(screen: Screen, address: str, found: Why) -> None:
    """A document's verdict, its path with what was measured, whom it lost to, and where it lies in the shards."""
    place = f" by {found.stage}: {found.reason}" if found.stage else ""
    tree = Tree(plain(found.doc_id, "bold"))
    tree.add(plain(f"{found.verdict}{place}", VERDICTS[found.verdict]))
    if found.detail:
        tree.add(plain(found.detail, limit=1000))
    tree.add(plain(f"in {address}", "dim"))
    _family(tree, found)
    for bridge in found.bridges[:PASSAGES]:
        tree.add(plain(_bridge(bridge), "yellow", limit=1000))
    _way(tree.add("path"), found)
    _cuts(tree, found)
    if found.index:
        known = {name: found.index.get(name) for name in ("split", "language", "licence", "label", "tokens")}
        tree.add(plain(", ".join(f"{name} {value}" for name, value in known.items() if value is not None)))
    for piece in found.places:
        offset = f", from its token {piece['offset']:,}" if piece.get("offset") else ""
        tree.add(plain(f"{piece['file']}: row {piece['row']:,}, position {piece['start']:,}{offset}"))
    if found.excerpt is not None:
        tree.add(plain(f"text: {found.excerpt}", "dim", limit=1000))
    screen.say(tree)
    if found.lost and found.lost.rows:
        _beside(screen, found.doc_id, found.lost)


def _bridge(row: Mapping[str, Any]) -> str:
    """What a build of all sources at once would have made of a document, and through whom."""
    if row["here"] == "kept":
        by = f" by way of {row['by']}" if row["by"] not in (None, row["dup_of"]) else ""
        return (
            f"bridge: {row['doc_id']} was there first and stays; in a build of all sources at once {row['stage']} "
            f"would drop it as a duplicate of {row['dup_of']}{by}"
        )
    return (
        f"bridge: {row['doc_id']} came later and is dropped by {row['stage']}"
        + (f" for {row['dup_of']}" if row["dup_of"] else "")
        + "; a build of all sources at once would keep it"
    )


def _way(branch: Tree, found: Why) -> None:
    """The stages that it came to: what was measured there, beside the rules over it."""
    for step in found.path:
        style = "" if step["verdict"] == "passed" else VERDICTS[step["verdict"]]
        stage = branch.add(plain(f"{step['stage']}: {step['verdict']}", style))
        for name, value in step["measured"].items():
            bounds = [f"{WORDS[r['operator']]} {_bound(r['bound'])}" for r in step["rules"] if r["column"] == name]
            stage.add(plain(f"{name} = {number(value)}{'  (' + ', '.join(bounds) + ')' if bounds else ''}"))


WORDS = {"below": "not below", "above": "not above", "not in": "one of", "in": "none of"}


def _bound(bound: object) -> str:
    return ", ".join(map(str, bound)) if isinstance(bound, list) else number(bound)


def _family(tree: Tree, found: Why) -> None:
    """Whom it duplicates, with the similarity; whom it was made from; what was made from it."""
    if lost := found.lost:
        said = f"duplicate of {lost.survivor}"
        if lost.jaccard is not None:
            said += f", Jaccard {number(lost.jaccard)}" + ("" if lost.verified else " (not compared in the build)")
        if lost.via not in (None, lost.survivor):
            said += f", by way of {lost.via}"
            said += f" (Jaccard {number(lost.via_jaccard)})" if lost.via_jaccard is not None else ""
        branch = tree.add(plain(f"{lost.stage}: {said}", "yellow"))
        rest = f" and {lost.size - len(lost.members):,} more" if lost.size > len(lost.members) else ""
        members = ", ".join(lost.members)
        branch.add(plain(f"cluster of {lost.size:,}, rank {lost.rank}: {members}{rest}", "dim", limit=2000))
    if found.parent_id:
        tree.add(plain(f"made from {found.parent_id}"))
    for child in found.children:
        tree.add(plain(f"made from it: {child}"))


def _beside(screen: Screen, doc_id: str, lost: Lost) -> None:
    """The document and its survivor side by side: what only one has in its colour, the rest dim."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    for title in (doc_id, lost.survivor):
        table.add_column(plain(title, limit=120), ratio=1, overflow="fold")
    for row in lost.rows:
        if row.kind == "skipped":
            table.add_row(plain(f"... {row.left} ...", "dim"), plain("...", "dim"))
        else:
            style = "dim" if row.kind == "equal" else ""
            table.add_row(
                _marked("-", row.left, row.left_marks, "red", row.kind == "left", style),
                _marked("+", row.right, row.right_marks, "green", row.kind == "right", style),
            )
    screen.say(table)


def _marked(
    sign: str, line: str | None, marks: Sequence[tuple[int, int]], colour: str, whole: bool, style: str
) -> Text:
    """A line with its marks in colour; signs say the same where there is no colour."""
    if line is None:
        return Text("")
    marks = [(0, len(line))] if whole else marks
    parts, at = [Text(f"{sign} " if marks else "  ", colour if marks else "")], 0
    for start, end in marks:
        parts += [plain(line[at:start], style), plain(line[start:end], colour)]
        at = end
    return Text.assemble(*parts, plain(line[at:], style))


def _cuts(tree: Tree, found: Why) -> None:
    """What was cut from it, and who else holds that."""
    if not found.cuts:
        return
    total = sum(cut.end - cut.start for cut in found.cuts)
    branch = tree.add(plain(f"{size(total)} cut in {len(found.cuts):,} passages", "yellow"))
    for cut in found.cuts[:PASSAGES]:
        held = f"in {cut.documents:,} documents, first in {cut.first}"
        entry = branch.add(plain(f"{cut.stage}: bytes {cut.start:,} to {cut.end:,}, {held}"))
        entry.add(plain(cut.excerpt, "dim"))
    if len(found.cuts) > PASSAGES:
        branch.add(plain(f"and {len(found.cuts) - PASSAGES:,} passages more"))
