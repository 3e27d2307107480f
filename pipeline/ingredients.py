"""What two versions are made of, and where that differs: recipe, sources and tokenizer, from their manifests alone.

A difference is a path, written as a change to a recipe is (`gopher.word_count.below`), and the value on either side;
None says that a side has no such thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Manifest = Mapping[str, Any]


class Difference(NamedTuple):
    """One thing that two versions do not have in common."""

    what: str
    a: Any
    b: Any


def recipe(a: Manifest, b: Manifest) -> list[Difference]:
    """Stages, their parameters and rules, and the other tables of the resolved recipes."""
    left, right = a["recipe"], b["recipe"]
    stages = [dict(_named(table["stages"])) for table in (left, right)]
    found = list(_stages(*stages))
    common = [[name for name in each if all(name in other for other in stages)] for each in stages]
    if common[0] != common[1]:
        found.append(Difference("order of the stages", ", ".join(common[0]), ", ".join(common[1])))
    for name in sorted((left.keys() | right.keys()) - {"stages"}):
        found += values(name, left.get(name), right.get(name))
    return found


def _named(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each stage under its name; one that is used again under its name and a number."""
    seen: Counter[str] = Counter()
    for stage in stages:
        name = stage["use"].rpartition(".")[2]
        seen[name] += 1
        yield name if seen[name] == 1 else f"{name}#{seen[name]}", stage


def _stages(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Difference]:
    for name in [*left, *(name for name in right if name not in left)]:
        if name not in left or name not in right:
            there = [_described(side[name]) if name in side else None for side in (left, right)]
            yield Difference(f"stage {name}", *there)
            continue
        yield from values(f"{name}.use", left[name]["use"], right[name]["use"])
        yield from values(f"{name}.params", left[name]["params"], right[name]["params"])
        yield from values(name, *(_rules(side[name]) for side in (left, right)))


def _described(stage: Mapping[str, Any]) -> str:
    bounds = [f"{column} {bound}" for column, bound in _rules(stage).items()]
    return "; ".join([f"{stage['use']} ({stage['kind']})", *bounds])


def _rules(stage: Mapping[str, Any]) -> dict[str, Any]:
    verbs = {"not in": "keep", "in": "drop"}
    return {f"{r['column']}.{verbs.get(r['operator'], r['operator'])}": r["bound"] for r in stage["rules"]}


def values(where: str, left: Any, right: Any) -> Iterator[Difference]:
    """Descends into tables; lists and plain values differ as wholes."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in [*left, *(name for name in right if name not in left)]:
            yield from values(f"{where}.{name}", left.get(name), right.get(name))
    elif left != right:
        yield Difference(where, left, right)


def sources(a: Manifest, b: Manifest) -> list[dict[str, Any]]:
    """Sources that only one version has, or whose revision differs: with files that came, went and changed."""
    left, right = ({source["name"]: source for source in each["sources"]} for each in (a, b))
    found = []
    for name in sorted(left.keys() | right.keys()):
        sides = left.get(name), right.get(name)
        known = ("revision", "documents", "text_bytes", "licence", "kind")
        if sides[0] and sides[1] and all(sides[0][each] == sides[1][each] for each in known):
            continue
        before, after = ({f["path"]: f["sha256"] for f in side["files"]} if side else {} for side in sides)
        files = {
            "added": sorted(after.keys() - before.keys()),
            "removed": sorted(before.keys() - after.keys()),
            "changed": sorted(path for path in before.keys() & after.keys() if before[path] != after[path]),
        }
        a_side, b_side = ({each: side[each] for each in known} if side else None for side in sides)
        found.append({"name": name, "a": a_side, "b": b_side, "files": files})
    return found


def tokenizer(a: Manifest, b: Manifest) -> list[Difference]:
    """Digest, size, and what the tokenizers were trained on."""
    return list(values("tokenizer", a["tokenizer"], b["tokenizer"]))
