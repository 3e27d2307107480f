"""Where a document lies and who has read it, and what lies behind a token: found, laid out, and as plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text
from rich.tree import Tree

from flows import listing
from flows.screen import Screen, plain
from pipeline import addresses
from pipeline.forgetting.statement import behind
from pipeline.manifest import Version
from pipeline.stage import ConfigError
from pipeline.store import Store, StoreError

LISTED = 24


def document(
    screen: Screen, root: Path, doc_id: str, address: str | None, readers: Callable[[], list[dict[str, Any]]]
) -> dict[str, Any]:
    """Place in a version, and what `readers` says of every run. Raises ConfigError where the version never met it."""
    store = Store(root)
    version, _ = addresses.find(store, address or listing.newest(store))
    result = _placed(store, version, doc_id)
    result["runs"] = [_reading(run) for run in readers()]
    _show(screen, result)
    return result


def _placed(store: Store, version: Version, doc_id: str) -> dict[str, Any]:
    """Where a version has a document, or how it left."""
    from pipeline.catalog import queries

    placed = queries.place(version, doc_id)
    fate = None
    if placed is None:
        found = queries.why(store, version, doc_id)
        fate = {name: getattr(found, name) for name in ("verdict", "stage", "reason", "detail")}
    index, places = placed or (None, [])
    return {"doc_id": doc_id, "version": version.address, "index": index, "places": places, "left": fate}


def _reading(run: dict[str, Any]) -> dict[str, Any]:
    """One run's answer about one document."""
    if run["problem"]:
        return run
    steps = [step for each in run["documents"] for step in each["steps"]]
    known = {name: run[name] for name in ("run", "folder", "version", "steps_done", "checkpoints", "problem")}
    before = [{**each, "documents": each["documents"] and len(each["documents"])} for each in run["before"]]
    return {**known, "held": bool(run["documents"]), "steps": steps, "before": before}


def _show(screen: Screen, found: dict[str, Any]) -> None:
    tree = Tree(plain(found["doc_id"], "bold"))
    if found["left"]:
        left = found["left"]
        words = f"not in {found['version']}: {left['verdict']} by {left['stage']}, {left['reason']}"
        tree.add(plain(words, "yellow"))
    else:
        branch = tree.add(plain(f"in {found['version']}, split {found['index']['split']}"))
        for piece in found["places"][:LISTED]:
            tokens = f"{piece['tokens']:,} tokens, the document's from {piece['offset']:,} on"
            branch.add(plain(f"{piece['file']}: row {piece['row']:,}, position {piece['start']:,}: {tokens}"))
        if (more := len(found["places"]) - LISTED) > 0:
            branch.add(f"and {more:,} more pieces, which --json lists")
    for run in found["runs"]:
        tree.add(plain(_said(run), "red" if run["problem"] else ""))
    if not found["runs"]:
        tree.add("no run lies in this store")
    screen.say(tree)


def _said(run: dict[str, Any]) -> str:
    if run["problem"]:
        return f"{run['run']}: cannot be asked: {run['problem']}"
    before = "".join(f"; {behind(each, 'it')}" for each in run["before"])
    if not run["steps"]:
        why = "has not read it" if run["held"] else "reads a version that does not hold it"
        return f"{run['run']}: {why} ({run['steps_done']:,} steps of {run['version']}){before}"
    steps = sorted({step["step"] for step in run["steps"]})
    listed = ", ".join(f"{step:,}" for step in steps[:LISTED])
    more = f" and {len(steps) - LISTED:,} more" if len(steps) > LISTED else ""
    kept = f"; in checkpoints {', '.join(run['checkpoints'])}" if run["checkpoints"] else ""
    return f"{run['run']}: read in {'step' if len(steps) == 1 else 'steps'} {listed}{more}{kept}{before}"


def token(screen: Screen, root: Path, found: dict[str, Any], number: int) -> dict[str, Any]:
    """The document and the source line behind a token of a step, as far as the trainer has `found` them."""
    from pipeline.catalog.behind import behind

    [piece] = found["pieces"]
    store = Store(root)
    result = {**found, "source_line": None, "source_problem": None}
    try:
        version = addresses.sealed(store, found["manifests"][piece["version"]])
        line = behind(store, version, piece["doc_id"], piece["offset"] + number - piece["first_token"])
        result["source_line"] = asdict(line)
    except (ConfigError, StoreError, OSError) as error:
        result["source_problem"] = str(error)
    _show_token(screen, result, piece)
    return result


def _show_token(screen: Screen, found: dict[str, Any], piece: dict[str, Any]) -> None:
    state = {True: "as it was read", False: "NOT WHAT WAS READ", None: "not checked"}[found["verified"]]
    tree = Tree(plain(f"step {found['step']} of {found['run']}: {found['tokens']:,} tokens, {state}", "bold"))
    named = (piece["source"], piece["language"] or "-", piece["doc_id"], piece["url"] or "")
    tree.add(plain("  ".join(named).rstrip()))
    place = f"row {piece['row']} at {piece['start']}: {piece['tokens']} tokens from {piece['offset']}"
    tree.add(plain(place))
    line = found["source_line"]
    if line is None:
        tree.add(plain(found["source_problem"], "yellow", limit=1000))
    else:
        if line["file"]:
            tree.add(plain(f"{line['file']}: row {line['row']}", limit=1000))
        if line["text"] is None:
            tree.add(plain(line["token"] or "the text is not in the store"))
        else:
            text, start, end = line["text"], line["start"], line["end"]
            parts = (plain(text[:start]), plain(text[start:end], "reverse"), plain(text[end:]))
            tree.add(Text.assemble(f"line {line['line']:,}: ", *parts))
    screen.say(tree)
