"""What a source more costs: `python tests/bench/living.py [--new installation-guide-arm64] [--data DIR]`.

Cuts the shared corpus into its sources, builds a version of all but one, and then measures CPU seconds of this process,
kernels loaded and start-up apart: the rest alone, the new source alone, all at once, and the new source added to the
version of the rest. The limit is the work of the source plus a tenth of that of the rest. The tokenizer is given and
canaries are left out, so that nothing counts but reading, measuring, comparing, encoding and packing.

Checked first: whoever is kept by all at once and not by adding, or the other way round, is a recorded bridge, and no
other; the audit holds; the version of the rest is in the new one as it was.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import recipe as recipes
from pipeline.audit import audit
from pipeline.build import Mill
from pipeline.extending import checking, operation, proof
from pipeline.manifest import Version
from pipeline.recipe import Recipe
from pipeline.runner import Local
from pipeline.store import Store, read_parquet

APART = "canaries"
CARD = """name = "{name}"
kind = "files"
title = "{name}"
description = "One source of the shared corpus."
homepage = "https://www.debian.org/doc/"
licence = "NOASSERTION"
languages = ["mul"]
[params]
paths = ["{name}.parquet"]
columns = {{text = "text"}}
"""


@dataclass
class Clock:
    """CPU seconds of this process by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    label: str = ""
    since: float = 0.0

    def phase(self, label: str, total: int) -> None:
        now = time.process_time()
        if self.label:
            self.seconds[self.label] = self.seconds.get(self.label, 0.0) + now - self.since
        self.label, self.since = label, now

    def advance(self, count: int = 1) -> None:
        """No task has a time of its own."""

    def total(self) -> float:
        """Seconds of all phases but the canaries'."""
        self.phase("", 0)
        return sum(seconds for label, seconds in self.seconds.items() if label != APART)


def cut(data: Path, folder: Path) -> list[str]:
    """Write a card and a file for each source of the corpus, the guide's two processors apart; returns their names."""
    table = pq.read_table(data / "corpus" / "debian_docs.parquet", columns=["id", "source", "text"])
    guides = pc.extract_regex(table["id"], r"(?P<guide>installation-guide-[a-z0-9]+)")
    table = table.set_column(1, "source", pc.coalesce(pc.struct_field(guides, "guide"), table["source"]))
    names: list[str] = sorted(pc.unique(table["source"]).to_pylist())
    for name in names:
        pq.write_table(table.filter(pc.equal(table["source"], name)), folder / f"{name}.parquet")
        (folder / f"{name}.toml").write_text(CARD.format(name=name), "utf-8")
    return names


def recipe(folder: Path, sources: Sequence[str], tokenizer: Path | None) -> Recipe:
    """The shipped recipe of the corpus over some of its sources."""
    table = tomllib.loads((recipes.shipped() / "debian-docs.toml").read_text("utf-8"))
    table["sources"] = [f"{name}.toml" for name in sources]
    table["tokens"] = {"tokenizer": str(tokenizer)} if tokenizer else {"vocab_size": 4096, "sample": "1MB"}
    return recipes.parse(table, "bench", folder)


def built(folder: Path, store: str, made: Recipe) -> tuple[Version, float]:
    """The version, and what it took."""
    clock = Clock()
    return Mill(Store(folder / store), Local(None), clock).build(made), clock.total()


def _add(store: Store, parent: Version, card: Path) -> tuple[Version, Clock]:
    clock = Clock()
    clock.phase("check", 1)
    planned = checking.check(store, checking.Request(parent.address, (str(card),)))
    return operation.extend(Mill(store, Local(None), clock), planned), clock


def trial(data: Path, folder: Path, new: str) -> Iterator[str]:
    """Lines of the report."""
    names = cut(data, folder)
    rest = [name for name in names if name != new]
    # Kernels are loaded, and the tokenizer is trained.
    first, _ = built(folder, "first", recipe(folder, names, None))
    tokenizer = first.folder.absolute() / first.manifest["tokenizer"]["file"]
    parent, of_rest = built(folder, "rest", recipe(folder, rest, tokenizer))
    alone, of_new = built(folder, "new", recipe(folder, [new], tokenizer))
    _add(Store(folder / "new"), alone, folder / f"{rest[-1]}.toml")  # its code is loaded, too
    whole, at_once = built(folder, "whole", recipe(folder, names, tokenizer))

    store = Store(folder / "rest")
    version, clock = _add(store, parent, folder / f"{new}.toml")
    added = clock.total()

    sides = [set(each.index(["doc_id"])["doc_id"].to_pylist()) for each in (version, whole)]
    listed = read_parquet(version.folder / "bridges.parquet").to_pylist()
    agrees = {row["doc_id"] for row in listed} == sides[0] ^ sides[1]
    problems = [*audit(version, store).problems, *proof.differences(version, parent)]
    limit = of_new + of_rest / 10
    came, old = (each.manifest["summaries"]["documents"]["ingested"] for each in (version, parent))
    yield f"{len(rest)} sources, {old:,} documents; {new} adds {came - old:,}; kept {len(sides[0]):,}"
    said = "agrees" if agrees else "DIFFERS"
    yield f"bridges: {len(listed):,}; kept otherwise at once: {len(sides[0] ^ sides[1]):,}; {said}"
    yield f"audit and proof: {problems[0] if problems else 'sound'}"
    yield f"{of_rest:6.2f} s  the rest alone"
    yield f"{of_new:6.2f} s  {new} alone"
    yield f"{at_once:6.2f} s  all at once"
    more = (added - of_new) / of_rest
    yield f"{added:6.2f} s  {new} added to the rest: beyond the source alone {more:+.1%} of the rest"
    yield f"{limit:6.2f} s  the limit: {'holds' if added <= limit else 'DOES NOT HOLD'}"
    yield json.dumps({label: round(seconds, 2) for label, seconds in clock.seconds.items()})


def main() -> None:
    """Run the trial and print its lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", default="installation-guide-arm64")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in trial(options.data, Path(folder), options.new):
            print(line, flush=True)


if __name__ == "__main__":
    main()
