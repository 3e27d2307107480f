"""What the mill knows, laid out to be read: a version as a tree, a document's way through it, what a command made.

Every string that may come from a corpus, a card or a recipe is printed through `screen.plain`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.runs import Run
from flows.screen import Screen, clean, plain, size
from pipeline import licences
from pipeline.manifest import Version

if TYPE_CHECKING:  # its kernels take longer to import than most pages to print
    from pipeline.catalog.losing import Lost
    from pipeline.catalog.queries import Why

SHARDS, LANGUAGES, PASSAGES = 20, 15, 20
VERDICTS = {"kept": "green", "dropped": "yellow", "quarantined": "red"}


def version(screen: Screen, found: Version, readers: Sequence[Run]) -> None:
    """A version as a tree: sources, stages with counts and reasons, splits with shards, the runs that read it."""
    table = found.manifest
    tree = Tree(plain(found.address, "bold"))
    tree.add(plain(found.folder / "manifest.json", "dim"))
    _sources(tree.add("sources"), table["sources"])
    came = tree.add(plain(books(table["summaries"]["documents"])))
    _stages(came, table["accounting"], table["summaries"].get("cuts", {}))
    for line in canaries(table["summaries"].get("canaries")):
        tree.add(plain(line, limit=1000))
    for line in extended(table.get("extended")):
        tree.add(plain(line, limit=1000))
    for line in [*items(table.get("contamination")), *mixture(table.get("mix"))]:
        tree.add(plain(line, limit=1000))
    text = table["summaries"]["text_bytes"]
    _languages(tree, table["summaries"]["languages"])
    tree.add(plain(f"licences: {_licences(table['summaries'])}"))
    tokenizer = table["tokenizer"]
    tree.add(plain(f"text: {size(text['ingested'])} came, {size(text['kept'])} kept"))
    tree.add(plain(f"tokenizer: {tokenizer['vocab_size']:,} tokens, {_trained_on(tokenizer['trained_on'])}"))
    _splits(tree.add(plain(f"{table['layout']}, {table['length']:,} tokens a row")), table["splits"])
    if readers:
        branch = tree.add("runs")
        for run in readers:
            branch.add(plain(run_line(run)))
    screen.say(tree)


def items(said: Mapping[str, Any] | None) -> list[str]:
    """What was found of evaluation items, a line for each set."""
    if not said:
        return []
    left = "none is left" if said["removed"] else "the version holds them"
    return [
        f"{one['name']}: {one['met']:,} of {one['items']:,} evaluation items met ({left}; {said['file']})"
        for one in said["sets"]
    ]


def mixture(said: Mapping[str, Any] | None) -> list[str]:
    """What was asked of each group of train and what was got, by tokens."""
    return [
        f"{' in '.join([group['source'], *([group['language']] if 'language' in group else [])])}: "
        f"{group['got']['share']:.2%} of the tokens of train, {group['asked']['share']:.2%} asked"
        for group in (said or {"groups": []})["groups"]
    ]


def books(documents: Mapping[str, int]) -> str:
    """The law of the books in a line."""
    came = f"{documents['ingested']:,} documents ingested"
    came += f" + {documents['added']:,} added" if documents["added"] else ""
    return came + " = " + " + ".join(f"{documents[name]:,} {name}" for name in ("kept", "dropped", "quarantined"))


def extended(said: Mapping[str, Any] | None) -> list[str]:
    """What the version extends, a line each, and how many documents would fare otherwise in a build at once."""
    if not said:
        return []
    lines = [f"extends {done['parent']} by {', '.join(done['sources'])}" for done in said["operations"]]
    count = said["documents"]
    bridges = f"{count:,} documents would end otherwise in a build of all sources at once ({said['file']}, why)"
    return [*lines, bridges if count else "the very documents that a build of all sources at once keeps"]


def canaries(said: Mapping[str, Any] | None) -> list[str]:
    """What came of trying each rule on documents made for it, a line each: all, the untested, the dead."""
    if not said or not said["rules"]:
        return []
    of: dict[str, list[str]] = {}
    for name, outcome in said["rules"].items():
        of.setdefault(outcome["verdict"], []).append(name)
    untested = of.pop("untested", [])
    lines = [f"canaries: {len(of.pop('fires', [])):,} of {len(said['rules']):,} rules fire where they must"]
    lines += [f"untested, for want of examples that reach them: {', '.join(untested)}"] if untested else []
    return lines + [f"{verdict}, and allowed: {', '.join(names)}" for verdict, names in of.items()]


def _languages(tree: Tree, languages: Mapping[str, Mapping[str, int]]) -> None:
    ordered = sorted(languages.items(), key=lambda pair: (-pair[1]["documents"], pair[0]))
    said = ", ".join(f"{name} {counts['documents']:,}" for name, counts in ordered[:LANGUAGES])
    rest = f" and {len(ordered) - LANGUAGES} more" if len(ordered) > LANGUAGES else ""
    tree.add(plain(f"languages: {said}{rest}"))


def _licences(summaries: Mapping[str, Any]) -> str:
    """The commonest licences, and in any case of how many documents nobody states one."""
    counts = licences.counted(summaries)
    unknown = counts.pop(licences.UNKNOWN, 0)
    said = [f"{clean(name, 80)} {count:,}" for name, count in list(counts.items())[:LANGUAGES]]
    said += [f"{len(counts) - LANGUAGES} more"] if len(counts) > LANGUAGES else []
    return ", ".join([*said, f"not stated {unknown:,}"])


def _trained_on(sample: Mapping[str, Any] | None) -> str:
    if not sample:
        return "given by the recipe"
    case = ", in lower case" if sample.get("lowercase") else ""
    return f"trained on {sample['documents']:,} documents, {size(sample['bytes'])}{case}"


def _sources(branch: Tree, sources: Iterable[Mapping[str, Any]]) -> None:
    for source in sources:
        counts = f"{source['documents']:,} documents, {size(source['text_bytes'])}, {len(source['files']):,} files"
        entry = branch.add(plain(f"{source['name']}: {source['title']} ({source['licence']})"))
        entry.add(plain(f"{counts}, revision {source['revision'][:16]}"))


def _stages(branch: Tree, accounting: Iterable[Mapping[str, Any]], cuts: Mapping[str, Mapping[str, int]]) -> None:
    for entry in accounting:
        change = f"{entry['entered']:,} -> {entry['left']:,}" if entry["entered"] != entry["left"] else "all pass"
        stage = branch.add(plain(f"{entry['stage']} ({entry['kind']}): {change}"))
        if entry["added"]:
            stage.add(plain(f"{entry['added']:,} added"))
        for reason, count in entry["reasons"].items():
            stage.add(plain(f"{count:,}  {reason}"))
        if cut := cuts.get(entry["stage"]):
            counts = f"{cut['spans']:,} passages of {cut['documents']:,} documents"
            stage.add(plain(f"{size(cut['bytes'])} cut in {counts}"))


def _splits(branch: Tree, splits: Mapping[str, Any]) -> None:
    for name, split in splits.items():
        cut = f", {split['truncated']:,} truncated" if split["truncated"] else ""
        counts = f"{split['documents']:,} documents, {split['tokens']:,} tokens in {split['rows']:,} rows{cut}"
        entry = branch.add(plain(f"{name}: {counts}"))
        for shard in split["shards"][:SHARDS]:
            entry.add(plain(f"{shard['file']}  {shard['source']}, {shard['rows']:,} rows, {size(shard['bytes'])}"))
        if len(split["shards"]) > SHARDS:
            entry.add(plain(f"and {len(split['shards']) - SHARDS:,} shards more"))


def run_line(run: Run) -> str:
    """A run in a line: how far it is and what it scores."""
    score = f", {run.bits_per_byte:.3f} bits per byte" if run.bits_per_byte is not None else ""
    return f"{run.name}: {run.status}, step {run.table.get('step', '?')} of {run.table.get('steps', '?')}{score}"


def run(screen: Screen, found: Run) -> None:
    """A run: how far it is, the version that it read, its scores and where it lies."""
    tree = Tree(plain(run_line(found), "bold"))
    tree.add(plain(f"read {found.address}"))
    evaluation = found.table.get("evaluation")
    if isinstance(evaluation, dict):
        branch = tree.add("evaluation")
        for name, value in evaluation.items():
            branch.add(plain(f"{name}: {_value(value)}"))
    for entry in found.table.get("evaluations", []):
        branch = tree.add(plain(f"{entry['suite'] or entry['split']}, step {entry['step']:,}"))
        for one in entry["sets"]:
            scores = one["groups"]["all"]["metrics"].items()
            branch.add(plain(f"{one['name']}: {', '.join(_scored(metric, said) for metric, said in scores)}"))
    tree.add(plain(found.folder, "dim"))
    screen.say(tree)


def _value(value: object) -> str:
    """A number, an interval, a list or a table on one line."""
    if isinstance(value, Mapping):
        if value.keys() == {"low", "high"}:
            return f"[{number(value['low'])}, {number(value['high'])}]"
        return ", ".join(f"{key} {number(each)}" for key, each in value.items()) or "none"
    return ", ".join(map(clean, value)) if isinstance(value, list) else number(value) or "none"


def _scored(metric: str, said: Mapping[str, Any]) -> str:
    chance = "" if said["chance"] is None else f", chance {number(said['chance'])}"
    return f"{metric} {number(said['score'])} [{number(said['low'])}, {number(said['high'])}{chance}]"


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


def number(value: object) -> str:
    """Whole numbers with separators, others with four significant digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def listing(screen: Screen, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A titled table of plain cells, or the word that there is nothing."""
    screen.say(Text(title, "bold"))
    if not rows:
        screen.say("  none")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("", *columns):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row("", *(plain("" if cell is None else cell, limit=120) for cell in row))
    screen.say(table)


def built(screen: Screen, made: Mapping[str, Any]) -> None:
    """What a build made: its address, the books in a line, tokens, and where the manifest lies."""
    screen.say(plain(made["address"], "bold"))
    screen.say("  " + books(made["documents"]))
    tokens = ", ".join(f"{split['tokens']:,} tokens in {name}" for name, split in made["splits"].items())
    cut = sum(split["truncated"] for split in made["splits"].values())
    lost = f"; {cut:,} more were cut out of texts longer than a row, before their end-of-text" if cut else ""
    screen.say(f"  {tokens}{lost}")
    if unknown := made["unknown_licence"]:
        screen.say(f"  licences    {unknown:,} of the kept documents state none; [licence] in the recipe can drop them")
    for line in canaries(made.get("canaries")):
        screen.say(f"  {line}")
    if peak := made.get("peak_memory_bytes"):
        screen.say(f"  memory      {size(peak)} at most, all processes together")
    screen.say(f"  manifest    {made['manifest']}")


def trained(screen: Screen, result: Mapping[str, Any]) -> None:
    """What a run made: the model against the n-grams in bits per byte, and where everything lies."""
    screen.say(plain(f"{result['run']}, {result['steps']:,} steps", "bold"))
    scores = [("model", result.get("bits_per_byte"))]
    scores += [(NGRAMS.get(order, f"{order}-gram"), bits) for order, bits in dict(result.get("ngrams") or {}).items()]
    said = ", ".join(f"{name} {bits:.3f}" for name, bits in scores if isinstance(bits, float))
    if "accuracy" in result:
        commonest, bounds = result["baseline"]["accuracy"], result.get("accuracy_interval")
        between = f" [{bounds['low']:.3f}, {bounds['high']:.3f}]" if bounds else ""
        screen.say(f"  accuracy: {result['accuracy']:.3f}{between}, of the commonest class {commonest:.3f}")
    else:
        screen.say(f"  bits per byte: {said or 'not measured'}")
    for name in ("checkpoint", "report"):
        screen.say(f"  {name:<11} {result[name]}")


NGRAMS = {"2": "bigram", "3": "trigram"}


def after_training(screen: Screen, store: str, result: Mapping[str, Any]) -> None:
    """What to try after a run, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    screen.say("next:")
    screen.say(f"  gristmill show {shlex.quote(str(result['run']))}{place}")
    screen.say(f"  gristmill trace {shlex.quote(str(result['run']))} --step {result['steps']}{place}")
    screen.say(f"  python -P -m training export {shlex.quote(str(result['folder']))} exported")


def next_steps(
    screen: Screen, store: str, made: Mapping[str, Any], result: Mapping[str, Any], doc_id: str | None
) -> None:
    """What to try after a quickstart, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    screen.say("next:")
    screen.say(f"  gristmill show {made['name']}{place}")
    if doc_id and doc_id.isprintable():
        screen.say(f"  gristmill why {shlex.quote(doc_id)}{place}")
    screen.say(f"  gristmill audit {made['name']}{place}")
    screen.say(f"  gristmill generate {shlex.quote(str(result['folder']))} --prompt 'The mill'")
    screen.say(f"  gristmill train quickstart --set schedule.steps=2000{place}")


def serve_classifier(
    screen: Screen, store: str, made: Mapping[str, Any], result: Mapping[str, Any], exported: str
) -> None:
    """Where a classifier was exported to, how to serve and ask it, and what to try next, ready to be pasted."""
    place = "" if store == ".gristmill" else f" --store {shlex.quote(store)}"
    asked = {"model": Path(exported).name, "input": "Return the eigenvalues of a symmetric matrix."}
    body = shlex.quote(json.dumps(asked))
    screen.say(f"  {'exported':<11} {exported}")
    screen.say("next:")
    screen.say(f"  gristmill serve {shlex.quote(exported)} --port 8000")
    screen.say(f"  curl -s http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' -d {body}")
    screen.say(f"  gristmill show {shlex.quote(str(result['run']))}{place}")
    screen.say(f"  gristmill show {made['name']}{place}")
