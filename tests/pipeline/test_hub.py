"""Kind `hub` against a small Hub on loopback: which files are read, and each failure as one clear sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources import SourceError, hub
from tests import hubs

Row = dict[str, Any]
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
