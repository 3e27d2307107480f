"""`diff` and `rebuild` as people and scripts meet them: pages, objects, exit codes, and text that would forge one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline import manifest as manifests
from tests import builds
from tests.flows.conftest import RECIPE, last

NAME, FORGED = "\x1b[31m[red]\u202ex.jsonl", "[bold red]forged[/]" + " words" * 12


@pytest.fixture(scope="module")
def two(tmp_path_factory, gristmill) -> tuple[Path, Path, list[str]]:
    """A store with a strict and a loose version of a corpus of which one short text and its id are hostile."""
    root = tmp_path_factory.mktemp("two")
    corpus = builds.write_corpus(root / "corpus", documents=120)
    (corpus / NAME).write_text(json.dumps({"text": FORGED, "label": "1", "url": "u"}), "utf-8")
    addresses = []
    for below in (20, 10):
        recipe = corpus / f"{below}.toml"
        recipe.write_text(RECIPE.replace("below = 20", f"below = {below}"), "utf-8")
        made = gristmill("build", recipe, "--store", root / "store", "--direct", "--workers", 1, "--json")
        addresses.append(last(made)["address"])
    return root / "store", corpus, addresses


def snapshot(store: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in store.rglob("*")}


def test_help_of_both_teaches_by_examples(gristmill):
    for verb in ("diff", "rebuild"):
        said = gristmill(verb, "--help").stdout
        assert "--json" in said and f"  gristmill {verb} " in said
    assert "gristmill diff A B" in gristmill("--help").stdout


def test_diff_is_a_page_for_people_that_no_document_can_forge(two, gristmill):
    store, _, (strict, loose) = two
    before = snapshot(store)
    said = gristmill("diff", strict, "small@latest", "--store", store, "--examples", 50).stdout
    assert f"{strict} -> {loose}" in said and "gopher.word_count.below" in said
    assert "added: kept now, and not before" in said and "dropped by gopher: word_count < 20 -> kept" in said
    assert "before: word_count=12" in said and "source: grain" in said and "language: en" in said
    assert "\\x1b[31m[red]\\u202ex.jsonl:1" in said and "\x1b" not in said and "\u202e" not in said
    assert FORGED in said
    assert snapshot(store) == before


def test_diff_leaves_every_count_for_scripts_and_as_many_documents_as_asked(two, gristmill):
    store, _, (strict, loose) = two
    for examples in (0, 1, 4):
        found = last(gristmill("diff", strict, loose, "--store", store, "--examples", examples, "--json"))
        n = found["documents"]
        assert n["a"] - n["removed"] + n["added"] == n["b"] and n["added"] > 4
        assert {"what": "gopher.word_count.below", "a": 20, "b": 10} in found["recipe"]
        [reason] = [r for r in found["reasons"] if (r["kind"], r["before"]["stage"]) == ("added", "gopher")]
        assert len(reason["examples"]) == examples
        assert reason["before"] == {"verdict": "dropped", "stage": "gopher", "reason": "word_count < 20"}
        assert sum(group["documents"] for group in reason["groups"]) == reason["documents"]
    same = last(gristmill("diff", loose, "small", "--store", store, "--json"))
    assert same["reasons"] == same["recipe"] == same["sources"] == [] and same["documents"]["same"] == n["b"]


def test_rebuild_says_that_all_is_equal_and_with_keep_where_it_lies(two, gristmill):
    store, _, (strict, _) = two
    before = snapshot(store)
    said = gristmill("rebuild", strict, "--check", "--store", store, "--workers", 1)
    digest = strict.partition("@")[2]
    assert said.stdout.count(digest) == 3 and f"{strict}: equal" in said.stdout
    assert {path for path in snapshot(store) if path != store} == before.keys() - {store}
    found = last(gristmill("rebuild", strict, "--check", "--keep", "--store", store, "--workers", 1, "--json"))
    assert found["equal"] and found["digests"] == [digest] * 2 and found["differences"] == []
    assert manifests.find(manifests.Store(Path(found["folder"])), "small").address == strict
    shutil.rmtree(found["folder"])


def test_rebuild_of_a_version_with_a_row_of_another_hand_is_exit_code_one(two, gristmill, tmp_path):
    store, _, (strict, _) = two
    shutil.copytree(store, tmp_path / "store")
    copy = manifests.Store(tmp_path / "store")
    address, file = builds.hand_sealed(copy, manifests.find(copy, strict), lambda rows: rows.slice(0, len(rows) - 1))
    result = gristmill("rebuild", address, "--check", "--store", copy.root, "--workers", 1, "--json", code=1)
    [difference] = last(result)["differences"]
    assert difference["place"]["file"] == file and difference["doc_id"].startswith("grain:")
    assert "differs in 1 place" in result.stderr


def test_bad_input_is_a_sentence_and_exit_code_two_and_nothing_is_written(two, gristmill, tmp_path):
    store, corpus, (strict, loose) = two
    other = tmp_path / "other"
    shutil.copytree(store, other)
    name, _, number = loose.partition("@")
    (other / "versions" / name / number / "build.json").unlink()
    before = snapshot(store), snapshot(other)

    def refused(*arguments: object, where: Path = store) -> str:
        result = gristmill(*arguments, "--store", where, code=2)
        assert result.stdout == "" and result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    assert "no version of 'smal'" in refused("diff", strict, "smal")
    assert "is no version of 'small'" in refused("diff", strict, "small@ffff")
    assert f"the books of {loose} are not in" in refused("diff", strict, loose, where=other)
    assert f"the books of {loose} are not in" in refused("rebuild", loose, "--check", where=other)
    path = other / "versions" / name / number
    assert "does not lie in the store" in refused("diff", strict, path)
    assert "does not lie in the store" in refused("rebuild", path, "--check")
    assert "say --check" in refused("rebuild", strict)
    source = corpus / "b.jsonl"
    sound = source.read_bytes()
    source.write_bytes(sound + b"\n")
    try:
        said = refused("rebuild", strict, "--check")
    finally:
        source.write_bytes(sound)
    assert str(source) in said and said.count("sha256") == 1 and "bring it back" in said
    assert (snapshot(store), snapshot(other)) == before
