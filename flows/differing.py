"""A diff and a rebuild laid out to be read, and as plain data for scripts.

Ids, reasons and texts come from corpora: everything is printed through `screen.plain`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text
from rich.tree import Tree

from flows import show
from flows.screen import Screen, plain, size
from pipeline.compare import Comparison
from pipeline.diff import Diff, Reason

STYLES = {"added": "green", "removed": "yellow", "changed": "cyan", "moved": "dim"}
WORDS = {
    "added": "added: kept now, and not before",
    "removed": "removed: kept before, and not now",
    "changed": "changed: kept in both with another text",
    "moved": "kept in neither, for another reason",
}
REASONS, GROUPS, LISTED = 12, 6, 20


def plain_data(found: Diff) -> dict[str, Any]:
    """A diff for scripts: every count, and the documents that are shown."""
    table = asdict(found)
    for name in ("recipe", "tokenizer"):
        table[name] = [difference._asdict() for difference in getattr(found, name)]
    return table


def diff(screen: Screen, found: Diff) -> None:
    """A table of what came, went and changed, what differs in what the versions are made of, then the reasons."""
    screen.say(plain(f"{found.a} -> {found.b}", "bold"))
    columns = ("a", "removed", "added", "other text", "same text", "b")
    n = found.documents
    rows: list[Sequence[object]] = [
        ("documents", f"{n['a']:,}", _gone(n["removed"]), _more(n["added"]), "", "", f"{n['b']:,}")
    ]
    for name in ("tokens", "text_bytes"):
        table: Mapping[str, int] = getattr(found, name)
        more = (_more(table[each]) for each in ("added", "changed", "same"))
        rows.append((name.replace("_", " "), f"{table['a']:,}", _gone(table["removed"]), *more, f"{table['b']:,}"))
    show.listing(screen, "kept", ("", *columns), rows)
    screen.say(
        f"{n['same'] + n['changed']:,} kept in both, {n['changed']:,} of them with another text; "
        f"{n['moved']:,} kept in neither for another reason"
    )
    for split in found.splits:
        screen.say(f"{split['documents']:,} documents kept in both went from {split['a']} to {split['b']}")
    _made_of(screen, found)
    for kind in WORDS:
        _reasons(screen, kind, [reason for reason in found.reasons if reason.kind == kind])


def _more(count: int) -> str:
    return f"{count:+,}" if count else ""


def _gone(count: int) -> str:
    return f"-{count:,}" if count else ""


def _made_of(screen: Screen, found: Diff) -> None:
    for title, differences in (("recipe", found.recipe), ("tokenizer", found.tokenizer)):
        if differences:
            rows = [(what, _value(a), _value(b)) for what, a, b in differences[:LISTED]]
            show.listing(screen, title, ("", "a", "b"), rows)
            if len(differences) > LISTED:
                screen.say(f"  and {len(differences) - LISTED:,} more")
    for source in found.sources:
        sides = [
            f"{s['documents']:,} documents of revision {s['revision'][:16]}" if s else "none"
            for s in (source["a"], source["b"])
        ]
        files = ", ".join(f"{len(paths):,} files {how}" for how, paths in source["files"].items() if paths)
        screen.say(plain(f"source {source['name']}: {sides[0]} -> {sides[1]}{'; ' + files if files else ''}"))
    if found.reasons and not (found.recipe or found.sources or found.tokenizer):
        screen.say("recipe, sources and tokenizer are the same: the code or a model behind a stage differs")


def _value(value: Any) -> str:
    """A value for people; of a long digest the beginning."""
    words = "none" if value is None else str(value)
    return words[:16] if re.fullmatch(r"[0-9a-f]{32,}", words) else words


def _reasons(screen: Screen, kind: str, reasons: Sequence[Reason]) -> None:
    if not reasons:
        return
    total = sum(reason.documents for reason in reasons)
    tree = Tree(plain(f"{WORDS[kind]} ({total:,} documents)", f"bold {STYLES[kind]}"))
    for reason in reasons[:REASONS]:
        branch = tree.add(plain(_line(reason)))
        for column in ("source", "language"):
            branch.add(plain(f"{column}: {_grouped(reason, column)}"))
        for example in reason.examples:
            _example(branch, example)
    if len(reasons) > REASONS:
        rest = sum(reason.documents for reason in reasons[REASONS:])
        tree.add(plain(f"and {len(reasons) - REASONS:,} reasons more ({rest:,} documents); --json has all"))
    screen.say(tree)


def _line(reason: Reason) -> str:
    before, after = (_fate(each) for each in (reason.before, reason.after))
    more = f", {reason.tokens:+,} tokens, {'-' if reason.text_bytes < 0 else '+'}{size(abs(reason.text_bytes))}"
    moved = "another text" if reason.kind == "changed" else f"{before} -> {after}"
    return f"{reason.documents:,}  {moved}{more if reason.kind != 'moved' else ''}"


def _fate(fate: Mapping[str, str | None]) -> str:
    match fate["verdict"]:
        case "kept":
            return "kept"
        case "absent":
            return str(fate["reason"])
        case _:
            return f"{fate['verdict']} by {fate['stage']}: {fate['reason']}"


def _grouped(reason: Reason, column: str) -> str:
    counts: Counter[str] = Counter()
    for row in reason.groups:
        counts[row[column]] += row["documents"]
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = f" and {len(ordered) - GROUPS} more" if len(ordered) > GROUPS else ""
    return ", ".join(f"{name} {count:,}" for name, count in ordered[:GROUPS]) + rest


def _example(branch: Tree, example: Mapping[str, Any]) -> None:
    measured = [
        f"{word}{example[name]}"
        for word, name in (("before: ", "measured_a"), ("now: ", "measured_b"))
        if example[name]
    ]
    entry = branch.add(plain("  ".join([example["doc_id"], *measured])))
    before, after = example["excerpt_a"], example["excerpt_b"]
    if before and after and before != after:
        entry.add(Text.assemble(plain("- ", "red"), plain(before, "dim")))
        entry.add(Text.assemble(plain("+ ", "green"), plain(after, "dim")))
    elif before or after:
        entry.add(plain(after or before, "dim"))


def rebuilt(screen: Screen, found: Comparison) -> None:
    """Both digests of the version and of every split; what differs, or that nothing does."""
    rows = [("version", *found.digests), *((name, *digests) for name, digests in found.splits.items())]
    show.listing(
        screen, "content digests", ("", "as it stands", "built again"), [tuple(map(_value, row)) for row in rows]
    )
    for difference in found.differences:
        screen.say(plain(f"  {difference.said}", "red", limit=2000))
    if found.folder:
        screen.say(plain(f"built again in {found.folder}", "dim"))
    said = "equal: built again, it is the same" if found.equal else f"differs in {len(found.differences)} places"
    screen.say(plain(f"{found.version}: {said}", "bold"))
