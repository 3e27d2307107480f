"""What the mill knows, laid out to be read: a version as a tree, a run, tables.

Every string that may come from a corpus, a card or a recipe is printed through `screen.plain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.runs import Run
from flows.screen import Screen, clean, plain, size
from pipeline import licences
from pipeline.manifest import Version

SHARDS, LANGUAGES = 20, 15


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
