"""Extend, as one act: the new sources read, the outputs beside the old ones, and the version sealed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import canaries, recorded
from pipeline.books import BRIDGES, BuildKeys
from pipeline.build import Mill
from pipeline.extending.chain import chain
from pipeline.extending.checking import Plan
from pipeline.manifest import Version, table_digest
from pipeline.plan import Input
from pipeline.seal import seal
from pipeline.sources import survey
from pipeline.store import Store, read_parquet


def extend(mill: Mill, planned: Plan, inputs: Sequence[Input] | None = None) -> Version:
    """Build and seal the version with the new sources, from `inputs` where they are known.

    Raises what `Mill.build` raises; until the new version is sealed nothing that stood has changed.
    """
    store, recipe, version = mill.store, planned.recipe, planned.version
    tried = canaries.task(store, recipe)
    mill.do("canaries", [tried])
    canaries.judge(recipe, store.result(tried)["rules"])
    mill.progress.phase("find input", 1)
    inputs = [Input(card, tuple(survey(card))) for card in planned.new] if inputs is None else inputs
    mill.progress.advance()
    keys = chain(mill, recipe, planned.keys, inputs)
    keys.canaries = tried
    mill.progress.phase("seal", 1)
    done = {"parent": version.address, "sources": [card.name for card in planned.new]}
    before = version.manifest.get("extended", {"operations": []})["operations"]
    lineage = {
        "parents": [*version.manifest["parents"], version.address],
        **{name: version.manifest[name] for name in ("forgotten",) if name in version.manifest},
        "extended": entry(store, keys, [*before, done]),
    }
    made = seal(store, recipe, recorded.planned(store, recipe, keys), keys, lineage)
    mill.progress.advance()
    return made


def entry(store: Store, keys: BuildKeys, operations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a manifest says of how it was extended, and of the bridges."""
    table = read_parquet(store.file(keys.bridges, BRIDGES))
    known = {"file": BRIDGES, "digest": table_digest(table), "documents": table.num_rows}
    return {**known, "operations": list(operations)}


def inputs_of(inputs: Sequence[Input], names: Sequence[str]) -> list[Input]:
    """Those of some sources, in the order of the names."""
    of = {given.card.name: given for given in inputs}
    return [of[name] for name in names]
