"""The lessons of the bench: what is held out stays unseen, and intervals and baselines are what they say."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipeline import split
from tests.bench import labelled, simplifying, table
from tests.bench.bootstrap import difference, interval
from tests.bench.labelled import DataSet, Lesson

WORDS = "mill water stone grain wheel flour river basket bread field miller sack barn road horse rain".split()


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) + str(draw.randrange(100)) for _ in range(words))


def test_an_interval_of_one_seed_is_that_of_the_share():
    right = (np.random.default_rng(5).random((1, 4000)) < 0.8).astype(float)
    found = interval(right)
    error = 1.96 * np.sqrt(found.mean * (1 - found.mean) / 4000)  # of a binomial share
    assert found.mean == right.mean()
    assert np.allclose([found.mean - found.low, found.high - found.mean], error, rtol=0.1)


def test_seeds_that_disagree_widen_an_interval_and_equal_items_narrow_a_difference():
    draw = np.random.default_rng(6)
    items = (draw.random((1, 2000)) < 0.7).astype(float)
    agree, disagree = np.repeat(items, 3, 0), np.stack([items[0], 0 * items[0], 1 + 0 * items[0]])
    assert interval(disagree).high - interval(disagree).low > 5 * (interval(agree).high - interval(agree).low)
    better = np.maximum(items, draw.random((1, 2000)) < 0.05)
    apart = difference(better, items)
    assert apart.mean == pytest.approx(better.mean() - items.mean())
    assert 0 < apart.low < apart.mean < apart.high
    alone = interval(better).high - interval(better).low
    assert apart.high - apart.low < alone / 2
    assert difference(items, items) == (0, 0, 0)


def test_what_is_left_aside_moves_nobody_into_or_out_of_what_is_held_out():
    groups = [f"news:train.parquet:{n}" for n in range(2000)]
    for aside in ({"unused": 0.56}, {"val": 0.1}):
        for group in groups:
            held = split.choose(group, {"test": 0.2}) == "test"
            assert held == (split.choose(group, {"test": 0.2, **aside}) == "test")


def test_no_token_has_two_chinese_characters_and_nothing_is_lost(tmp_path):
    texts = ["计算机软件的安装", "计算机软件的使用 with GNOME 3", "软件，安装。"] * 20
    simplifying.characters(tmp_path / "t.json", texts, 600)
    tokenizer = Tokenizer.from_file(str(tmp_path / "t.json"))
    assert all(tokenizer.decode(tokenizer.encode(text).ids) == text for text in texts)
    for text in texts:
        for a, b in tokenizer.encode(text).offsets:
            assert len(re.findall(r"[一-鿿]", text[a:b])) <= 1
    assert len(tokenizer.encode("计算机软件").ids) == 5


def test_edits_are_the_least_that_lead_from_one_text_to_the_other():
    def brute(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(brute(a[1:], b) + 1, brute(a, b[1:]) + 1, brute(a[1:], b[1:]) + (a[0] != b[0]))

    draw = random.Random(3)
    for _ in range(100):
        a, b = ("".join(draw.choice("xyz") for _ in range(draw.randrange(6))) for _ in range(2))
        assert simplifying.edits(a, b) == brute(a, b)


def test_the_table_has_what_most_often_stands_there_and_lines_are_judged():
    train = [("發現", "发现"), ("發光", "发光"), ("發光", "髮光"), ("電腦軟體", "计算机软件呢")]
    by = simplifying.majority(train)
    assert by == {"發": "发", "現": "现", "光": "光"}
    right, errors = simplifying.judged([["发现", "发光亮"]], [("發現", "发现"), ("發光", "发光")])
    assert right.tolist() == [[1, 0]] and errors.tolist() == [[0, 0.5]]


def test_a_command_is_told_without_the_folders_of_a_machine():
    given = "--data-set sst2 --folder /x/y --backbone /m/minilm --open /o/en --data /z --write".split()
    assert table.command("b", given) == "python tests/bench/b.py --data-set sst2 --backbone minilm --open en --write"


@pytest.mark.slow
def test_open_text_holds_nothing_of_what_is_held_out(tmp_path, monkeypatch):
    draw, data = random.Random(8), tmp_path / "data"
    place = data / "classification" / "news"
    place.mkdir(parents=True)
    (data / "corpus").mkdir()
    (data / "lm").mkdir()
    texts = [sentence(draw, 20) for _ in range(300)]
    pq.write_table(pa.table({"text": texts, "label": [n % 2 for n in range(300)]}), place / "train.parquet")
    pages = [f"{sentence(draw, 300)} {text} {sentence(draw, 300)}" for text in texts]
    pq.write_table(pa.table({"text": pages, "lang_dir": ["en"] * 300}), data / "corpus" / "debian_docs.parquet")
    (data / "lm" / "wikitext2_valid.txt").write_text(sentence(draw, 500), "utf-8")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.jsonl").write_text(json.dumps({"text": f"{texts[0]} {sentence(draw, 300)}"}), "utf-8")
    monkeypatch.setitem(labelled.TOKENS, "en", "vocab_size = 600\nlowercase = true")
    lesson = Lesson(DataSet("news", "en", 64, labelled.WORDS), data, tmp_path / "lesson")
    manifest = labelled.open_text("en", [lesson], tmp_path / "open", tmp_path / "more", 64)
    assert {entry["name"] for entry in json.loads(manifest.read_bytes())["sources"]} == {
        "news",
        "pages",
        "wikitext",
        "mine",
    }
    tokenizer = Tokenizer.from_file(str(labelled.tokenizer_of(manifest)))
    version = lesson.labelled(labelled.tokenizer_of(manifest))
    test, train = (lesson.texts(version, name) for name in ("test", "train"))
    assert 30 < len(test.texts) < 90 and len(test.texts) + len(train.texts) == 300
    assert not set(test.texts) & set(train.texts)

    spelt = []
    splits = json.loads(manifest.read_bytes())["splits"].values()
    for shard in (shard for each in splits for shard in each["shards"]):
        rows = pa.ipc.open_file(pa.memory_map(str(manifest.parent / shard["file"]))).read_all()
        spelt.append(tokenizer.decode(rows["tokens"].combine_chunks().values.to_pylist(), skip_special_tokens=False))
    whole = " ".join(spelt)
    inner = [" ".join(text.split()[4:12]) for text in (*train.texts, *test.texts)]
    there = [text in whole for text in inner]
    assert sum(there[: len(train.texts)]) > 0.6 * len(train.texts)  # but for those that lie over the end of a row
    assert sum(there[len(train.texts) :]) == 0
