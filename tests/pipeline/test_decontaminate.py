"""Evaluation items in a corpus: found as a slow twin finds them, reported, cut or dropped: law 4.

The twin compares words as strings, every n-gram of every item with every one of every document.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import contamination, manifest, references
from pipeline.audit import audit
from pipeline.catalog import queries
from pipeline.kernels.overlap import find, grams, indexed
from pipeline.manifest import Version
from pipeline.recipe import Recipe
from pipeline.sources import SourceError
from pipeline.stage import ConfigError
from pipeline.stages._evaluation import items
from pipeline.store import Store, read_parquet
from tests import builds
from tests.contract.test_manifest import SCHEMA
from tests.laws import nasty
from tests.pipeline import twins
from tests.pipeline.test_forgetting import forget
from training.manifest import open_version

NGRAM, SHORT = 13, 8
TEXTS = st.lists(st.sampled_from([*"aBé磨水ก\u0301.,-\u00a0 \n", "word", "Ünd", "3", "\u200d"]), max_size=40).map(
    "".join
)


def words(text: str) -> list[str]:
    """Words as GPT-3 compares them; each letter of a script without spaces is one."""
    found = []
    for run in twins.by_script(text):
        word = ""
        for char in run:
            if char.isalnum() or twins.spaceless(char) or (twins.is_mark(char) and word):
                word += char.lower()[0]
        found += [word] if word else []
    return found


def runs(text: str, size: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[k : k + size]) for k in range(len(found) - size + 1)]


@given(text=TEXTS, size=st.integers(1, 5))
def test_every_ngram_is_that_of_the_twin_and_its_span_says_so(text: str, size: int) -> None:
    found, expected = grams(pa.array([text], pa.large_string()), size), runs(text, size)
    assert len(found.keys) == len(expected)
    raw = text.encode()
    for start, end, gram in zip(found.starts, found.ends, expected, strict=True):
        assert words(raw[start:end].decode()) == list(gram)
    pairs = set(zip(found.keys.tolist(), found.checks.tolist(), expected, strict=True))
    assert len(pairs) == len(set(expected)) == len({pair[:2] for pair in pairs})


@functools.cache
def nasty_pairs() -> tuple[Any, set[tuple[str, ...]]]:
    """Every pair of words of the nasty texts, as what `find` looks for and as the twin knows them."""
    known = grams(pa.array(nasty.TEXTS.values(), pa.large_string()), 2)
    _, first = np.unique(np.stack([known.keys, known.checks]), axis=1, return_index=True)
    wanted = {gram for text in nasty.TEXTS.values() for gram in runs(text, 2)}
    return indexed(known.keys[first], known.checks[first], [2]), wanted


@given(texts=st.lists(TEXTS, max_size=4), around=st.integers(0, 4))
def test_what_is_found_is_what_the_twin_finds(texts: list[str], around: int) -> None:
    index, wanted = nasty_pairs()
    found = find(pa.array(texts, pa.large_string()), index, around)
    for number, text in enumerate(texts):
        mine = slice(found.bounds[number], found.bounds[number + 1])
        assert len(found.grams[mine]) == sum(gram in wanted for gram in runs(text, 2))
        raw = text.encode()
        for start, end in zip(found.starts[mine], found.ends[mine], strict=True):
            assert 0 <= start < end <= len(raw) and raw[:start].decode() + raw[start:end].decode() + raw[end:].decode()


QUESTIONS = [
    "Which of the seven mills along the upper river was the first that ground rye for the monks of the old abbey?",
    "How many sacks does a cart with two wheels carry up the hill",
    "Why does stone wear?",
    "磨坊的第三块石头是从哪一座山上运下来的，又是谁把它放到水轮旁边的？",
]
ANSWERS = ["the one below the bridge", "eleven sacks of wheat at most", "it does", "是北山，由石匠老王放的"]
INSTRUCTION = "Read what follows with care and say which of the answers that are given is the right one."


def write(folder: Path) -> Path:
    """A corpus of random words in which some documents hold items: whole, in part, too often, in other letters."""
    draw = random.Random(8)
    texts = [" ".join(draw.choice(builds.WORDS) + str(draw.randrange(60)) for _ in range(80)) for _ in range(120)]
    planted: dict[int, str] = {
        3: f"{QUESTIONS[0]} {ANSWERS[0]}",
        17: f"Q: {QUESTIONS[0].upper()}",
        31: f"{QUESTIONS[1]}? {ANSWERS[1]}",
        44: QUESTIONS[3] + ANSWERS[3],
        45: QUESTIONS[2] + " " + ANSWERS[2],
        60: " ".join(QUESTIONS[0].split()[2:15]),
        61: " ".join(QUESTIONS[0].split()[2:14]),
        77: f"{QUESTIONS[0]} {ANSWERS[0]} and once more: {QUESTIONS[0]} {ANSWERS[0]} and {QUESTIONS[1]} {ANSWERS[1]}",
        **dict.fromkeys(range(80, 95), "a verse that everybody knows by heart and says at the door of the mill"),
        99: INSTRUCTION,
    }
    for number, text in planted.items():
        half = texts[number].split()
        texts[number] = " ".join([*half[:40], text, *half[40:]])
    rows = [{"query": q, "choices": [a, "nobody knows"], "gold": 0} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    rows.append(
        {"query": "Who said a verse that everybody knows by heart and says at the door of the mill", "choices": ["all"]}
    )
    rows += [
        {"query": f"{INSTRUCTION} Number {n} is {draw.choice(builds.WORDS)}", "choices": [f"{n}"]} for n in range(9)
    ]
    (folder / "grain.toml").write_text(builds.CARD, "utf-8")
    (folder / "sets").mkdir()
    (folder / "sets" / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for number in range(3):
        lines = [json.dumps({"text": text}) for text in texts[number::3]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


def recipe(folder: Path, **params: Any) -> Recipe:
    stage = {"use": "decontaminate", "sets": [str(folder / "sets" / "asked.jsonl")], "most_items": 8, **params}
    return builds.make_recipe(folder, [{"use": "normalise"}, stage], pack={"length": 64, "split": {"val": 0.2}})


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def built(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Version, Store]:
    store = tmp_path_factory.mktemp("store")
    return builds.build(recipe(corpus), store), Store(store)


def texts(store: Store, parts: list[str]) -> dict[str, str]:
    tables = [read_parquet(store.file(part, "documents.parquet"), ["doc_id", "text"]) for part in parts]
    return dict(zip(*(pa.concat_tables(tables)[name].to_pylist() for name in ("doc_id", "text")), strict=True))


def wanted(folder: Path, most_items: int = 8) -> dict[int, set[tuple[str, ...]]]:
    """The n-grams of each item that the twin looks for."""
    found: dict[int, set[tuple[str, ...]]] = {}
    for item in items(str(folder / "sets" / "asked.jsonl")):
        whole = [f"{context} {ending}" for context in item.contexts for ending in item.endings]
        longest = max(len(words(text)) for text in whole)
        size = NGRAM if max(len(words(text)) for text in item.contexts) >= NGRAM else SHORT if longest >= SHORT else 0
        found[item.row] = {gram for text in whole for gram in runs(text, size)} if size else set()
    count = Counter(gram for mine in found.values() for gram in mine)
    return {row: {gram for gram in mine if count[gram] <= most_items} for row, mine in found.items()}


def common(folder: Path, most_items: int = 8) -> int:
    """How many n-grams of the items too many of them have."""
    every, few = wanted(folder, 10**6), wanted(folder, most_items)
    return len(set.union(*every.values()) - set.union(*few.values()))


def brute(
    documents: dict[str, str], looked: dict[int, set[tuple[str, ...]]], most: int = 10
) -> dict[tuple[int, str], int]:
    """{(row, doc_id): n-grams} of what documents share with items, but for what is common."""
    every = set.union(*looked.values())
    held = {
        doc_id: {g for size in (NGRAM, SHORT) for g in runs(text, size)} & every for doc_id, text in documents.items()
    }
    many = Counter(gram for mine in held.values() for gram in mine)
    met = {}
    for row, mine in looked.items():
        for doc_id, grams_ in held.items():
            if both := {gram for gram in mine & grams_ if many[gram] <= most}:
                met[row, doc_id] = len(both)
    return met


def test_the_report_is_what_the_twin_finds(corpus, built):
    version, store = built
    met = brute(texts(store, version.build_keys().segments[0].parts), wanted(corpus))
    rows = read_parquet(version.folder / contamination.FILE).to_pylist()
    assert {(row["row"], row["doc_id"]): row["ngrams"] for row in rows if row["doc_id"]} == met
    assert len({row for row, _ in met}) == 3 and len(met) >= 7
    assert [row["row"] for row in rows if row["fate"] == "too short"] == [2]
    before = texts(store, version.build_keys().segments[0].parts)
    for row in rows:
        if row["doc_id"]:
            raw = before[row["doc_id"]].encode()[row["start"] : row["end"]].decode()
            assert words(raw) == words(row["ngram"]) and len(words(raw)) == row["size"]
    said = version.manifest["contamination"]
    [one] = said["sets"]
    assert (one["name"], one["items"], one["too_short"], one["met"], one["contaminated"]) == ("asked", 14, 1, 3, 0)
    assert (
        one["common"] == common(corpus) > 0
        and said["removed"]
        and said["documents"] == len({doc_id for _, doc_id in met})
    )


def test_no_item_is_left_in_what_is_packed(corpus, built):
    """Law 4, by the twin: also not where what stood around a passage now stands together."""
    version, store = built
    before, after = (texts(store, segment.parts) for segment in version.build_keys().segments)
    looked = wanted(corpus)
    assert brute(before, looked) and not brute(after, looked)
    report = audit(version, store)
    assert report.problems == [] and any("evaluation items" in check for check in report.checks)
    jsonschema.validate(version.manifest, SCHEMA)
    assert open_version(version.folder).manifest.contamination is not None
    assert not list(manifest.verify(version))


def test_an_item_keeps_its_id_and_its_place_says_why(corpus, built):
    version, store = built
    rows = read_parquet(version.folder / contamination.FILE).to_pylist()
    known = {item.row: item for item in items(str(corpus / "sets" / "asked.jsonl"))}
    assert {(row["item"], row["text_digest"]) for row in rows} == {
        (known[row["row"]].id, known[row["row"]].text_digest) for row in rows
    }
    assert len({item.id for item in known.values()}) == len(known)
    cut = next(row for row in rows if row["fate"] == "cut")
    assert queries.why(store, version, cut["doc_id"]).cuts[0].stage == "decontaminate"


@pytest.mark.parametrize(
    ("params", "fates"),
    [
        ({"drop": {"cut_bytes": {"above": 0}}}, {"dropped", "too short"}),
        ({"drop": {"cut_spans": {"above": 1}}}, {"cut", "dropped", "too short"}),
        ({"remove": False}, {"kept", "too short"}),
    ],
    ids=["drop", "drop some", "report"],
)
def test_what_becomes_of_a_document_is_the_recipes_to_say(corpus, tmp_path, params, fates):
    version = builds.build(recipe(corpus, **params), tmp_path)
    store = Store(tmp_path)
    assert audit(version, store).problems == []
    rows = read_parquet(version.folder / contamination.FILE).to_pylist()
    assert {row["fate"] for row in rows} == fates
    index = version.index(["doc_id", "split"])
    kept = dict(zip(*(index[name].to_pylist() for name in index.column_names), strict=True))
    for row in rows:
        assert (row["doc_id"] in kept) == (row["fate"] in ("kept", "cut")) and row["split"] == kept.get(row["doc_id"])
    contaminated = {row["row"] for row in rows if row["fate"] == "kept"}
    assert version.manifest["contamination"]["sets"][0]["contaminated"] == len(contaminated)
    if "remove" in params:
        before, after = (texts(store, segment.parts) for segment in version.build_keys().segments)
        assert before == after and contaminated == {0, 1, 3}


@pytest.mark.parametrize(
    "settings",
    [{"batch_rows": 7}, {"partition_bytes": 4_000, "memory": 1 << 14}, {"count": 2, "partition_bytes": 9_000}],
    ids=["batch", "partition-memory", "workers"],
)
def test_same_bits_however_the_work_is_cut(corpus, built, tmp_path, settings):
    assert builds.build(recipe(corpus), tmp_path, **settings).manifest == built[0].manifest


def test_the_content_of_a_set_is_in_the_key_and_where_it_lies_is_not(corpus, tmp_path):
    one = recipe(corpus).steps[1].stage.identity
    (corpus / "elsewhere").mkdir()
    other = corpus / "elsewhere" / "asked.jsonl"
    other.write_text((corpus / "sets" / "asked.jsonl").read_text())
    two = recipe(corpus, sets=[str(other)]).steps[1].stage.identity
    assert one["resources"] == two["resources"]
    other.write_text(other.read_text() + '\n{"text": "one item more"}')
    assert recipe(corpus, sets=[str(other)]).steps[1].stage.identity["resources"] != one["resources"]


def test_a_version_is_a_set(corpus, built, tmp_path):
    """The rows of a version of examples are items, read back from their tokens."""
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "grain.toml").write_text(builds.CARD + 'columns = {text = "query", target = "answer"}\n')
    rows = [{"query": q, "answer": a} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    (tmp_path / "items" / "0.jsonl").write_text("\n".join(map(json.dumps, rows * 4)))
    made = builds.make_recipe(tmp_path / "items", [], pack={"layout": "examples", "length": 512, "split": {"val": 0.3}})
    folder = str(builds.build(made, tmp_path / "store").folder)
    whole = {(row["text"], row["target"]) for row in references.rows(folder)}
    assert whole == set(zip(QUESTIONS, ANSWERS, strict=True))
    version = builds.build(recipe(corpus, sets=[folder], most_items=100), tmp_path / "other")
    found = {r["doc_id"] for r in read_parquet(version.folder / contamination.FILE).to_pylist() if r["fate"] == "cut"}
    assert len(found) >= 6


@pytest.mark.parametrize(
    ("params", "words_"),
    [
        ({"sets": []}, "sets is empty"),
        ({"sets": ["eval/asked.jsonl"]}, r"write \{data\}/... or an absolute path"),
        ({"sets": ["arc-eazy"]}, "'arc-eazy' is no card"),
        ({"sets": ["/a/asked.jsonl", "/b/asked.jsonl"]}, "two references would be called 'asked'"),
        ({"short": 14}, "short and ngram must be"),
        ({"most_documents": 0}, "most_documents and most_items 1 or more"),
    ],
)
def test_what_cannot_be_is_said_at_once(corpus, params, words_):
    with pytest.raises(ConfigError, match=words_):
        recipe(corpus, **params)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.jsonl", None, "is not there"),
        ("bad.jsonl", "{not json", "bad.jsonl row 1"),
        ("odd.jsonl", '{"prompt": "a"}', "row 0: no evaluation item: it has prompt; known are query, choices"),
        ("a.arrow", "x", "is not read here"),
        ("a.parquet", "x", "cannot be read"),
    ],
)
def test_a_set_that_cannot_be_read_says_where(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=said):
        list(items(str(tmp_path / name)))


def test_who_is_forgotten_is_in_no_report(corpus, built, tmp_path):
    version, store = built
    shutil.copytree(store.root, tmp_path / "store")
    rows = read_parquet(version.folder / contamination.FILE).to_pylist()
    victim = next(row["doc_id"] for row in rows if row["fate"] == "cut")
    new = forget(Store(tmp_path / "store"), "test", doc=(victim,))
    left = read_parquet(new.folder / contamination.FILE).to_pylist()
    split = {row["doc_id"]: row["split"] for row in rows}
    assert left == [row for row in rows if row["doc_id"] != victim] and victim in split
    assert new.manifest["contamination"]["digest"] != version.manifest["contamination"]["digest"]
    assert audit(new, Store(tmp_path / "store")).problems == []


def test_an_edited_report_is_noticed(built, tmp_path):
    version, _ = built
    copy = shutil.copytree(version.folder, tmp_path / "copy")
    table = pq.read_table(copy / contamination.FILE)
    pq.write_table(table.slice(1), copy / contamination.FILE)
    assert any("contamination.parquet" in problem for problem in manifest.verify(Version(copy, version.manifest)))
