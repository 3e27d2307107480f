"""SPDX expressions: what they mean to a rule, against a twin that evaluates trees, and what builds make of them."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import audit, books, licences
from pipeline.licences import Unreadable, allowed
from pipeline.manifest import Version
from pipeline.rules import Rule, licence_of, of_licence
from pipeline.stage import ConfigError
from pipeline.store import Store
from tests import builds

LICENCES = ("MIT", "CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0", "GPL-3.0-only", "LicenseRef-Mill", "MPL-1.1+")
ENTRIES = ("MIT", "CC-BY-*", "*-NC-*", "GPL-*", "LicenseRef-*", "MPL-1.1", "*")
UNREADABLE = ("CC0", "MIT AND", "(MIT", "public domain", "MIT/ISC", "MIT WITH MIT", "\u202eMIT", "MIT OR (" * 200, "+")
TREES = st.recursive(
    st.sampled_from(LICENCES), lambda inner: st.tuples(st.sampled_from(["AND", "OR"]), inner, inner), max_leaves=8
)


def written(tree: Any) -> str:
    return tree if isinstance(tree, str) else f"({written(tree[1])} {tree[0]} {written(tree[2])})"


def twin(tree: Any, allow: list[str] | None, deny: list[str] | None) -> bool:
    """The same verdict from the tree as it was drawn, with fnmatch."""
    if isinstance(tree, str):
        name = tree.removesuffix("+")
        denied = any(fnmatch.fnmatchcase(name, entry) for entry in deny or ())
        return not denied and (allow is None or any(fnmatch.fnmatchcase(name, entry) for entry in allow))
    return (all if tree[0] == "AND" else any)(twin(side, allow, deny) for side in tree[1:])


LISTS = st.none() | st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=3)


@settings(max_examples=300, deadline=None)
@given(TREES, LISTS, LISTS)
def test_an_expression_passes_as_its_tree_says(tree: Any, allow: list[str] | None, deny: list[str] | None) -> None:
    assert allowed(written(tree), allow, deny) == twin(tree, allow, deny)


@pytest.mark.parametrize(
    ("expression", "allow", "deny", "passes"),
    [
        ("MIT OR GPL-3.0-only", ["MIT"], None, True),
        ("MIT AND GPL-3.0-only", ["MIT"], None, False),
        ("MIT OR GPL-3.0-only", ["MIT"], ["MIT"], False),
        ("GPL-3.0-only OR MIT", None, ["GPL-*"], True),
        ("CC-BY-NC-4.0", ["CC-BY-*"], None, True),
        ("CC-BY-NC-4.0", ["CC-BY-*"], ["*-NC-*"], False),
        ("mit", ["MIT"], None, True),
        ("MIT-0", ["MIT"], None, False),
        ("GPL-2.0", ["GPL-2.0-only"], None, True),
        ("GPL-2.0-only", ["GPL-2.0"], None, True),
        ("GPL-2.0+", ["GPL-2.0-or-later"], None, True),
        ("Apache-2.0+", ["Apache-2.0"], None, True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"], None, True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["gpl-2.0-only WITH classpath-exception-2.0"], None, True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["* WITH Classpath-*"], None, True),
        ("GPL-2.0-only", ["GPL-2.0-only WITH Classpath-exception-2.0"], None, False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", None, ["GPL-*"], False),
        ("MIT AND (GPL-2.0-only WITH Classpath-exception-2.0 OR ISC)", ["MIT", "ISC"], None, True),
        ("NOASSERTION", ["MIT"], None, True),
        ("none", ["MIT"], None, True),
    ],
)
def test_what_passes(expression: str, allow: list[str] | None, deny: list[str] | None, passes: bool) -> None:
    assert allowed(expression, allow, deny) is passes


@pytest.mark.parametrize("expression", UNREADABLE)
def test_what_cannot_be_read_is_judged_by_nobody(expression: str) -> None:
    with pytest.raises(Unreadable):
        licences.parse(expression)
    assert allowed(expression, ["*"], None) is None
    with pytest.raises(ConfigError, match=r"my\.toml: licence: .* is no SPDX expression"):
        licences.check(expression, "my.toml: licence")


def test_an_error_names_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'CC0-1\.0'"):
        licences.check("CC0", "here")
    with pytest.raises(ConfigError, match=r"did you mean 'Apache-2\.0'"):
        licences.check("MIT OR Apache 2", "here")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("CC0", "did you mean 'CC0-1.0'"),
        ("GPL", "means GPL-1.0-or-later alone; write that, or GPL-* for all of them"),
        ("NOASSERTION", 'say unknown = "keep" or "drop"'),
        ("MIT OR ISC", "every one is an entry of its own"),
        ("", "is no entry"),
        ("CC-BX-*", "no licence of the SPDX list is called 'CC-BX-*'"),
        ("GPL-* WITH No-such-*", "is called 'No-such-*'"),
    ],
)
def test_an_entry_that_would_never_fire_is_an_error(entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        licences.check_entry(entry, "r.toml [licence] deny")
    assert said in str(error.value) and str(error.value).startswith("r.toml [licence] deny: ")


@pytest.mark.parametrize("entry", ["mit", "GPL-2.0", "CC-BY-*", "*", "LicenseRef-Mill", "LicenseRef-*", "GPL-* WITH *"])
def test_an_entry_is_a_licence_or_a_pattern(entry: str) -> None:
    licences.check_entry(entry, "here")


def test_a_column_is_judged_row_by_row_and_what_nobody_stated_is_unknown() -> None:
    column = pa.array(["MIT", None, "", " none ", "NOASSERTION", "CC0", "MIT", "ISC AND MIT"])
    filled = licences.filled(column)
    assert filled.to_pylist() == ["MIT", *["NOASSERTION"] * 4, "CC0", "MIT", "ISC AND MIT"]
    unknown, policy = of_licence({"allow": ["MIT"], "unknown": "drop"})
    assert unknown.broken(filled).to_pylist() == [False, True, True, True, True, False, False, False]
    assert policy.broken(filled).to_pylist() == [False, False, False, False, False, None, False, True]
    assert policy.broken(pa.chunked_array([filled[:3], filled[3:]])).to_pylist() == policy.broken(filled).to_pylist()
    kept, _ = of_licence({"unknown": "keep"})
    assert not any(kept.broken(filled).to_pylist())


def test_rules_and_table_say_the_same() -> None:
    for table in ({"unknown": "keep"}, {"allow": ["MIT"], "deny": ["GPL-*"], "unknown": "drop"}):
        assert licence_of(of_licence(table)) == table
    reasons = [rule.reason for rule in of_licence({"allow": ["MIT", "ISC"], "deny": ["GPL-*"], "unknown": "drop"})]
    assert reasons == ["licence unknown", "licence not in MIT, ISC or in GPL-*"]
    assert Rule("licence", "licence", "unlicensed", {"allow": None, "deny": None}).reason == "licence not allowed"


STATED = [
    *("MIT", "CC-BY-4.0", "MIT OR GPL-3.0-only", "CC-BY-SA-4.0 AND MIT", "CC-BY-NC-4.0", None, "", "NOASSERTION"),
    *("All rights reserved <script>", "GPL-2.0-only WITH Classpath-exception-2.0"),
]


def made(tmp_path: Any, **policy: Any) -> tuple[Store, Version]:
    """A version of texts under every licence of STATED, from a card that states none itself."""
    folder = builds.write_corpus(tmp_path / "corpus", 40)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    rows = [
        {"text": f"the mill {n} turns with water and the wheel {n * n} grinds grain", "licence": stated}
        for n, stated in enumerate(STATED * 12)
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    card = (folder / "grain.toml").read_text().replace('licence = "CC0-1.0"', 'licence = "NOASSERTION"')
    (folder / "grain.toml").write_text(
        card.partition("columns =")[0] + 'columns = {text = "text", licence = "licence"}\n'
    )
    recipe = builds.make_recipe(folder, [], **({"licence": policy} if policy else {}))
    return Store(tmp_path / "store"), builds.build(recipe, tmp_path / "store")


@pytest.mark.parametrize(("unknown", "left"), [("drop", 0), ("keep", 36)])
def test_a_build_drops_what_is_not_allowed_and_quarantines_what_cannot_be_read(tmp_path, unknown, left) -> None:
    store, version = made(tmp_path, allow=["MIT", "CC-BY-*"], deny=["*-NC-*", "*-SA-*"], unknown=unknown)
    ledger = books.ledger(store, version.build_keys()).to_pylist()
    reason = "licence not in MIT, CC-BY-* or in *-NC-*, *-SA-*"
    expected = {"dropped": {reason: 36}, "quarantined": {"licence is no SPDX expression": 12}}
    if unknown == "drop":
        expected["dropped"]["licence unknown"] = 36
    for verdict, reasons in expected.items():
        mine = [row for row in ledger if row["verdict"] == verdict]
        assert {r: sum(row["reason"] == r for row in mine) for r in {row["reason"] for row in mine}} == reasons
    assert {row["stage"] for row in ledger} == {"licence"}
    assert "licence=CC-BY-NC-4.0" in {row["detail"] for row in ledger}
    entry = version.manifest["accounting"][1]
    assert (entry["stage"], entry["kind"], entry["left"]) == ("licence", "licence", 36 + left)
    assert not audit.audit(version, store).problems
    kept = set(version.index(["licence"])["licence"].to_pylist())
    assert kept == {"MIT", "CC-BY-4.0", "MIT OR GPL-3.0-only"} | ({"NOASSERTION"} if left else set())


def test_without_a_licence_table_nobody_leaves(tmp_path) -> None:
    _, version = made(tmp_path)
    assert version.manifest["recipe"]["licence"] is None
    assert version.index().num_rows == len(STATED) * 12
