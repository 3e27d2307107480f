"""What a question to a version answers, laid out to be read: counts, reasons, a histogram, the documents at the line.

Each function returns plain data for `--json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from flows import charts, closing
from flows import show as layout
from flows.screen import Screen, plain, size
from flows.show import number
from pipeline import addresses, whatif
from pipeline import manifest as manifests
from pipeline.margins import Example, Margin
from pipeline.stage import ConfigError
from pipeline.store import Store, room, write_parquet, write_text
from pipeline.whatif import Answer, Count, Point

if TYPE_CHECKING:
    from pipeline.remaking import Remade

GROUPS, REASONS, MOVES = 12, 30, 10


def ask(
    screen: Screen, root: Path, address: str, changes: list[str], most: int, out: Path | None, html: Path | None
) -> dict[str, Any]:
    """Answer, show, and write what is to be written. Raises what `whatif.ask` raises."""
    if not changes:
        raise ConfigError("say what to change, for example: gristmill whatif quickstart gopher.word_count.below=30")
    for path in filter(None, (out, html)):
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise ConfigError(f"{path}: a file in a folder that exists is written, and this is none")
    store = Store(root)
    answer = whatif.ask(store, addresses.find(store, address)[0], changes, most)
    _show(screen, answer)
    found = data(answer)
    with room(root):
        if out:
            write_parquet(out, answer.moves)
            screen.say(f"{answer.moves.num_rows:,} documents whose end is another: {out}")
            found["out"] = str(out)
        if html:
            from flows import pages

            write_text(html, pages.answer(answer))
            screen.say(f"page: {html}")
            found["html"] = str(html)
    if screen.as_json and not out:
        found["moves"] = answer.moves.to_pylist()
    return found


def data(answer: Answer) -> dict[str, Any]:
    """An answer as plain data, without the documents."""
    return {
        "version": answer.address,
        "changes": answer.changes,
        "before": asdict(answer.before),
        "after": asdict(answer.after),
        "moved": answer.moved(),
        "by": {name: [asdict(group) for group in groups] for name, groups in answer.groups.items()},
        "reasons": [asdict(reason) for reason in answer.reasons],
        "margins": [asdict(margin) for margin in answer.margins],
    }


def sweep(screen: Screen, root: Path, address: str, changes: list[str], axes: list[str]) -> dict[str, Any]:
    """Sweep and show one or two grids. Raises what `whatif.sweep` raises."""
    store = Store(root)
    version, _ = addresses.find(store, address)
    points = list(whatif.sweep(store, version, changes, axes))
    paths = [axis.partition("=")[0].strip() for axis in axes]
    screen.say(plain(f"{version.address}{were(changes)}", "bold"))
    most = max((point.documents or 0 for point in points), default=0)
    rows = [(*point.values, *_point(point, most)) for point in points]
    layout.listing(screen, "kept", (*paths, "documents", "bytes", ""), rows)
    return {"version": version.address, "changes": changes, "axes": paths, "points": [asdict(p) for p in points]}


def refuse_files(out: Path | None, html: Path | None) -> None:
    """A grid is a table on the screen. Raises ConfigError."""
    if out or html:
        raise ConfigError("--grid prints a table (--json gives its points); --out and --html are for a single question")


def recipe(
    root: Path, address: str, changes: list[str], name: str | None, out: Path | None, folder: str | None
) -> Remade:
    """Write the changed recipe. Raises ConfigError or StoreError."""
    from pipeline import remaking

    if not changes and name is None:
        raise ConfigError("say what to change, for example: gristmill apply quickstart gopher.word_count.below=30")
    store = Store(root)
    version, _ = addresses.find(store, address)
    return remaking.write(store, version, changes, name, out, Path(folder) if folder else None)


def applied(screen: Screen, root: Path, remade: Remade, made: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a build with the changed rules made, and what it had to measure again."""
    store = Store(root)
    old, new = (
        set(manifests.find(store, where).build_keys().segments[0].parts) for where in (remade.parent, made["manifest"])
    )
    closing.built(screen, made)
    screen.say(f"  recipe      {remade.path}")
    again = f"{len(new - old):,} of {len(new):,} partitions: a source or the code is not what it was"
    screen.say(f"  read again  {again if new - old else 'nothing'}")
    return {**made, "recipe": str(remade.path), "parent": remade.parent, "partitions_read_again": len(new - old)}


def were(changes: Sequence[str]) -> str:
    return f", were {', '.join(changes)}" if changes else ""


def _point(point: Point, most: int) -> tuple[str, str, str]:
    if point.documents is None:
        return "", "", f"{point.unmeasured:,} documents would have to be measured"
    return f"{point.documents:,}", size(point.text_bytes or 0), charts.bar(point.documents, most)


def _show(screen: Screen, answer: Answer) -> None:
    screen.say(plain(f"{answer.address}{were(answer.changes)}", "bold", limit=1000))
    before, after = answer.before, answer.after
    screen.say(f"  documents  {before.documents:,} -> {after.documents:,} ({after.documents - before.documents:+,})")
    screen.say(f"  bytes      {size(before.text_bytes)} -> {size(after.text_bytes)}")
    screen.say(f"  tokens     {before.tokens:,} -> {tokens(after)}")
    screen.say(f"  {moved(answer)}")
    for name, groups in answer.groups.items():
        if groups:
            columns = (name, "documents", "bytes", "tokens", "would be", "bytes", "tokens")
            rows = [(group.name, *_counts(group.before), *_counts(group.after)) for group in groups[:GROUPS]]
            layout.listing(screen, f"by {name}{more(len(groups), GROUPS)}", columns, rows)
    reasons = [(f"{r.before:,}", f"{r.after:,}", r.stage, r.verdict, r.reason) for r in answer.reasons[:REASONS]]
    title = f"why documents leave{more(len(answer.reasons), REASONS)}"
    layout.listing(screen, title, ("before", "would be", "stage", "verdict", "reason"), reasons)
    for margin in answer.margins:
        _margin(screen, margin)
    ends = [(row["change"], row["doc_id"], end(row, "before"), end(row, "after")) for row in first(answer, MOVES)]
    title = f"documents whose end is another{more(answer.moves.num_rows, MOVES)}"
    layout.listing(screen, title, ("", "document", "before", "would be"), ends)


def moved(answer: Answer) -> str:
    """How many enter and leave, in a line."""
    entering, leaving, others = answer.moved().values()
    return f"{entering:,} would enter, {leaving:,} would leave, {others:,} would leave for another reason"


def _counts(count: Count) -> tuple[str, str, str]:
    return f"{count.documents:,}", size(count.text_bytes), tokens(count)


def tokens(count: Count) -> str:
    """Tokens of those that were encoded, and of how many nobody knows."""
    return f"{count.tokens:,}{f' (+ {count.tokens_unknown:,} not encoded)' if count.tokens_unknown else ''}"


def more(count: int, limit: int) -> str:
    return f" (the first {limit} of {count:,})" if count > limit else ""


def end(row: Mapping[str, Any], side: str) -> str:
    """'kept', or the stage and the reason."""
    return f"{row[f'{side}_stage']}: {row[f'{side}_reason']}" if row[f"{side}_stage"] else str(row[side])


def first(answer: Answer, most: int) -> list[dict[str, Any]]:
    """Some of those whose end is another: who enters, then who leaves, then the others."""
    rows: list[dict[str, Any]] = answer.moves.slice(0, most).to_pylist()
    return rows


def said(bounds: Mapping[str, Any]) -> str:
    """'below 50, above 100,000', or that there is none."""
    words = [f"{verb} {', '.join(map(str, b)) if isinstance(b, list) else number(b)}" for verb, b in bounds.items()]
    return ", ".join(words) or "no bound"


def about(margin: Margin) -> str:
    """A changed column in a line."""
    blind = f", {margin.unmeasured:,} unmeasured" if margin.unmeasured else ""
    return f"{margin.signal}: {said(margin.old)} -> {said(margin.new)} ({margin.measured:,} documents{blind})"


def _margin(screen: Screen, margin: Margin) -> None:
    screen.say(plain(about(margin), "bold", limit=1000))
    for line in charts.histogram(margin):
        screen.say(Text("  " + line))
    for title, examples in (("next to it, passing", margin.passing), ("next to it, breaking", margin.breaking)):
        if examples:
            screen.say(plain(f"  {title}", "dim"))
        for example in examples:
            _example(screen, example)


def ends(example: Example) -> str:
    """What becomes of a document, in a line."""
    return example.after if example.before == example.after else f"{example.before} -> {example.after}"


def _example(screen: Screen, example: Example) -> None:
    screen.say(plain(f"    {number(example.value)}  {example.doc_id}  {ends(example)}", limit=400))
    screen.say(plain(f"      {example.excerpt}", "dim", limit=160))
