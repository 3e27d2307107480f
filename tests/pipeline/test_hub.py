"""Kind `hub` against a small Hub on loopback: which files are read, and each failure as one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import recipe
from pipeline.catalog import cards
from pipeline.schema import TURN
from pipeline.sources import SourceError, chat, hub
from pipeline.stage import ConfigError
from tests import builds, hubs

Row = dict[str, Any]
HEAD = """name = "talk"
kind = "hub"
title = "Talk"
description = "Of mills."
homepage = "https://example.org"
licence = "CC0-1.0"
languages = ["en"]
"""
FILES = {
    "data/train-00000-of-00001.jsonl": "train",
    "data/test-00000-of-00001.jsonl": "test",
    "en/part.jsonl": "en",
    "README.md": "# Grain",
}
CARD = {
    "configs": [
        {"config_name": "en", "data_files": [{"split": "train", "path": "en/*.jsonl"}], "default": True},
        {
            "config_name": "all",
            "data_files": [
                {"split": "train", "path": ["data/train*", "en/*"]},
                {"split": "test", "path": "data/test*"},
            ],
        },
        {"config_name": "rest", "data_dir": "data"},
    ]
}  # fmt: skip


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for dataset in ("plain", "carded", "coded"):
        for name, text in FILES.items():
            (path := tmp_path / "mills" / dataset / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"content": text, "stars": 1}) if name.endswith("jsonl") else "# Grain")
    (tmp_path / "mills" / "coded" / "coded.py").write_text("raise SystemExit('I was run')")
    with hubs.hub(tmp_path, {"carded": CARD, "coded": {}}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield tmp_path


def read(dataset: str, **params: Any) -> list[tuple[str, str]]:
    """Ids and texts."""
    params = {"dataset": f"mills/{dataset}", "revision": hubs.REVISION, "columns": {"text": "content"}, **params}
    found: list[Row] = []
    for item in hub.survey(**params):
        for chunk in hub.read(item, source="s", licence=None, **params):
            assert not chunk.rejects.num_rows
            found += chunk.documents.to_pylist()
    return [(row["doc_id"].removeprefix("s:"), row["text"]) for row in found]


TRAIN, TEST = ("data/train-00000-of-00001.jsonl:1", "train"), ("data/test-00000-of-00001.jsonl:1", "test")
EN = ("en/part.jsonl:1", "en")


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("dataset", "params", "expected"),
    [
        ("plain", {}, [TRAIN]),
        ("plain", {"split": ["train", "test"]}, [TEST, TRAIN]),
        ("plain", {"files": ["en/*"]}, [EN]),
        ("carded", {}, [EN]),
        ("carded", {"subset": "all"}, [TRAIN, EN]),
        ("carded", {"subset": "all", "split": "test"}, [TEST]),
        ("carded", {"subset": "rest", "split": "test"}, [TEST]),
    ],
)
def test_subset_and_split_choose_the_files(served, streaming, dataset, params, expected) -> None:
    assert read(dataset, streaming=streaming, **params) == expected


ROWS = [
    {"instruction": "Grind.", "input": "Corn.", "output": "Done.", "system": "Be brief.", "kind": "work"},
    {"instruction": "Rest.", "input": "", "output": "Yes.", "system": "", "kind": "rest"},
    {"instruction": "Say nothing.", "input": "", "output": "", "system": "", "kind": "rest"},
]
PAIRS: chat.Form = {"prompt": ["instruction", "input"], "response": "output", "system": "system"}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_conversations_are_those_of_kind_chat(served: Path, form: str) -> None:
    """Row by row and reject by reject, from the Hub as from a file."""
    place = served / "mills" / "talk"
    place.mkdir()
    if form == "jsonl":
        (place / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), place / "train.parquet")
    given: Row = {"dataset": "mills/talk", "revision": hubs.REVISION, "chat": PAIRS, "meta": ["kind"]}
    plain: Row = {"paths": [str(place / f"train.{form}")], "meta": ["kind"], **PAIRS}
    found: list[list[Row]] = []
    for kind, params in ((hub, given), (chat, plain)):
        chunks = [chunk for i in kind.survey(**params) for chunk in kind.read(i, source="s", licence=None, **params)]
        tables = (pa.Table.from_batches([getattr(c, name) for c in chunks]) for name in ("documents", "rejects"))
        found.append([row for table in tables for row in table.to_pylist()])
    hubs_own, files_own = ([{k: v for k, v in row.items() if k != "doc_id"} for row in rows] for rows in found)
    assert hubs_own == files_own and [row["doc_id"][-1] for row in found[0]] == [row["doc_id"][-1] for row in found[1]]
    assert [row["text"] for row in hubs_own[:2]] == [f"Be brief.{TURN}Grind.\n\nCorn.", "Rest."]
    assert json.loads(hubs_own[0]["meta"]) == {"kind": "work"} and len(hubs_own) == 3


# A row of each data set as its card on the Hub shows it, and what a model is asked.
LETTERS = ["A", "B", "C", "D"]
GRAIN = {"text": ["corn", "a stone", "rain", "a wheel"], "label": LETTERS}
EVALUATED: dict[str, tuple[Row, str, str]] = {
    "arc-easy-hub": (
        {"id": "x", "question": "What is ground?", "choices": GRAIN, "answerKey": "A"},
        "Question: What is ground?\nAnswer:",
        "corn",
    ),
    "arc-challenge": (
        {"question": "Which turns?", "choices": {**GRAIN, "label": list("1234")}, "answerKey": "4"},
        "Question: Which turns?\nAnswer:",
        "a wheel",
    ),
    "commonsense-qa-hub": (
        {"question": "What falls?", "question_concept": "fall", "choices": GRAIN, "answerKey": "C"},
        "Question: What falls?\nAnswer:",
        "rain",
    ),
    "openbookqa": (
        {"question_stem": "Corn is ground between", "choices": GRAIN, "answerKey": "B"},
        "Corn is ground between",
        "a stone",
    ),
    "mmlu": (
        {"question": "Who grinds?", "subject": "mills", "choices": ["miller", "fish"], "answer": 0},
        "Question: Who grinds?\nAnswer:",
        "miller",
    ),
    "hellaswag": (
        {"ind": 1, "ctx": "The miller", "endings": ["swims", "grinds"], "label": "1"},
        "The miller",
        "grinds",
    ),
    "boolq-hub": (
        {"question": "does a mill turn", "passage": "Mills turn.", "answer": True},
        "Mills turn.\nQuestion: does a mill turn?\nAnswer:",
        "yes",
    ),
    "belebele-zh": (
        {"flores_passage": "磨坊在河边。", "question": "磨坊在哪里？", "correct_answer_num": "2"}
        | {f"mc_answer{n}": answer for n, answer in enumerate(("山上", "河边", "海里", "天上"), 1)},
        "磨坊在河边。\n问题：磨坊在哪里？\n答案：",
        "河边",
    ),
    "ceval-computer-network": (
        {"id": 0, "question": "TCP 在", "A": "链路层", "B": "网络层", "C": "传输层", "D": "应用层", "answer": "C"},
        "题目：TCP 在\nA. 链路层\nB. 网络层\nC. 传输层\nD. 应用层",
        "C",
    ),
    "xcopa-zh-hub": (
        {"premise": "水车停了。", "choice1": "河水干了。", "choice2": "下雨了。", "question": "cause", "label": 0},
        "水车停了。因为",
        "河水干了。",
    ),
}


def test_every_card_of_choices_on_the_hub_asks(served: Path) -> None:
    found = [card.name for card in map(cards.load, cards.available()) if card.kind == "hub" and card.params["items"]]
    assert found == sorted(EVALUATED)


@pytest.mark.parametrize("name", EVALUATED)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_set_of_the_hub_asks_what_its_card_says(served: Path, name: str, form: str) -> None:
    """A card that ships, over a row as the data set has them: the query, and the answer that is right."""
    (place := served / "mills" / "asked").mkdir()
    row, query, answer = EVALUATED[name]
    if form == "jsonl":
        (place / "train.jsonl").write_text(json.dumps(row), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([row]), place / "train.parquet")
    told = {key: value for key, value in cards.load(name).params.items() if key in ("items", "meta")}
    params = {"dataset": "mills/asked", "revision": hubs.REVISION, **told}
    [chunk] = [chunk for i in hub.survey(**params) for chunk in hub.read(i, source="s", licence=None, **params)]
    assert not chunk.rejects.num_rows, chunk.rejects.to_pylist()
    [document] = chunk.documents.to_pylist()
    item = json.loads(document["item"])
    assert item["contexts"] == [query] and item["continuations"][item["gold"]] == answer
    assert document["text"].startswith(query) and document["text"].endswith(answer)


def test_a_row_is_not_told_in_two_ways(served: Path) -> None:
    with pytest.raises(ConfigError, match="columns and chat: each says what a row becomes; leave one of them out"):
        read("plain", chat=PAIRS)


def test_a_build_knows_conversations_of_the_hub(served: Path, tmp_path: Path) -> None:
    """Each turn is encoded by itself, and no layout but examples has room for the answers."""
    place = served / "mills" / "talk"
    place.mkdir()
    told = [[{"role": role, "content": f"{role} {n}"} for role in ("user", "assistant") * 2] for n in range(40)]
    rows = "\n".join(json.dumps({"messages": messages}) for messages in told)
    (place / "train.jsonl").write_text(rows, "utf-8")
    card = HEAD + f'[params]\ndataset = "mills/talk"\nrevision = "{hubs.REVISION}"\nchat = {{}}\n'
    (tmp_path / "talk.toml").write_text(card, "utf-8")
    table = {"name": "talk", "sources": ["talk.toml"], "tokens": {"vocab_size": 300}}
    with pytest.raises(ConfigError, match="layout 'packed' has no place for the answers of card 'talk'"):
        recipe.parse(table, "r", tmp_path)
    table["pack"] = {"layout": "examples", "length": 64, "split": {"val": 0.3}}
    made = builds.build(recipe.parse(table, "r", tmp_path), tmp_path / "store")
    shard = pa.ipc.open_file(str(made.folder / made.manifest["splits"]["train"]["shards"][0]["file"])).read_all()
    eot = made.manifest["tokenizer"]["eot"]
    for name in ("tokens", "target"):
        assert {list(row).count(eot) for row in shard[name].to_pylist()} == {3}, "before, between and behind two turns"


def test_downloads_are_kept_and_streams_are_not(served: Path) -> None:
    read("plain", streaming=True)
    assert not (served / "cache").exists()
    read("plain")
    assert [p.name for p in (served / "cache").rglob("*.jsonl")] == ["train-00000-of-00001.jsonl"]


@pytest.mark.parametrize(
    ("dataset", "params", "message"),
    [
        ("coded", {}, r"mills/coded needs its own code, coded\.py, to run: refused"),
        ("plain", {"revision": "main"}, rf"'main' moves; pin what it is now: revision = \"{hubs.REVISION}\""),
        ("plain", {"revision": "f" * 40}, "the Hub has no revision 'fff"),
        ("nothing", {}, "no such data set on http://127"),
        ("plain", {"split": "tset"}, "no split 'tset' in subset 'default'; did you mean 'test'"),
        ("plain", {"subset": "en"}, "no subset 'en'; it has but one, default"),
        ("carded", {"subset": "al"}, "no subset 'al'; did you mean 'all'"),
        ("plain", {"files": ["*.csv"]}, r"no file is like \*\.csv; has: README.md"),
    ],
)
def test_failures_are_one_sentence(served: Path, dataset: str, params: Row, message: str) -> None:
    with pytest.raises(SourceError, match=message) as found:
        read(dataset, **params)
    assert "\n" not in str(found.value)


def test_no_hub_in_reach_is_one_sentence(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        SourceError, match=r"the Hub at http://127\.0\.0\.1:9 cannot be reached \(.*HF_ENDPOINT"
    ) as found:
        read("plain")
    assert "\n" not in str(found.value)


def test_token_is_sent_to_the_hub_alone(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sources import _stores

    address = hub.endpoint()
    assert _stores._token(f"{address}/datasets/mills/plain/resolve/x") == "hf_secret"
    assert _stores._token("https://elsewhere.example/datasets/x") is None
    assert _stores._token(f"{address}.example.org/datasets/x") is None
