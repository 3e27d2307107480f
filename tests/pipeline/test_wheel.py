"""Kind `wheel` against a small index on loopback: one wheel by name and version, read as an archive and never run."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.sources import SourceError, wheel
from tests import indices

TRAP = b"import pathlib; pathlib.Path(__file__).with_name('I was run').touch()"
FILES = {
    "grain/data/rye.txt": b"Rye grows on poor soil.",
    "grain/data/rows.jsonl": b'{"text": "barley", "stars": 3}\n',
    "grain/__init__.py": TRAP,
    "grain/.dotted.pth": TRAP,
    "setup.py": TRAP,
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (folder := tmp_path / "index").mkdir()
    indices.wheel(folder, "grain_data", "1.0", FILES)
    indices.wheel(folder, "grain_data", "1.1", {"grain/new.txt": b"newer"})
    (folder / "chaff-1.0.tar.gz").write_bytes(b"no wheel")
    indices.wheel(folder, "engine", "1.0", FILES, "cp39-cp39-win_amd64")
    server, address = indices.start(folder)
    made = {**indices.QUIET, "PIP_INDEX_URL": address, "GRISTMILL_CACHE": str(tmp_path / "cache")}
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    yield folder
    server.shutdown()
    server.server_close()


def read(distribution: str = "Grain.Data", version: str = "1.0", **params: Any) -> list[dict[str, Any]]:
    params = {"distribution": distribution, "version": version, **params}
    (item,) = wheel.survey(**params)
    found: list[dict[str, Any]] = []
    for chunk in wheel.read(item, source="s", licence="MIT", **params):
        assert not chunk.rejects.num_rows
        found += chunk.documents.to_pylist()
    return found


def test_the_wheel_of_that_version_is_read_and_none_of_it_is_run(index: Path, tmp_path: Path) -> None:
    before = list(sys.path)
    rye, barley = read(meta=["stars"])
    assert (rye["text"], rye["doc_id"]) == ("Rye grows on poor soil.", "s:grain_data-1.0-py3-none-any.whl:0")
    assert json.loads(barley["meta"]) == {"member": "grain/data/rows.jsonl", "row": 1, "stars": 3}
    assert [row["text"].encode() for row in read(members=["*.py"])] == [TRAP, TRAP]
    assert not list(tmp_path.rglob("I was run")) and sys.path == before and not {"grain", "setup"} & set(sys.modules)
    cached = sorted(path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").rglob("*.*"))
    assert [path for path in cached if not path.endswith("1.0")] == [
        f"wheels/grain-data/1.0/grain_data-1.0-py3-none-any.whl{end}" for end in ("", ".sha256")
    ]


def test_what_was_fetched_is_not_asked_for_again_and_must_stay(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read()
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert read() == first
    (path,) = (tmp_path / "cache").rglob("*.whl")
    path.write_bytes(path.read_bytes().replace(b"grain/data/rye", b"grain/data/rya"))
    with pytest.raises(SourceError, match=r"sha256 is \w{64}, and what was downloaded had \w{64}; remove it"):
        read()


def test_the_digest_of_the_card_is_held(index: Path) -> None:
    digest = hashlib.sha256((index / "grain_data-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert read(sha256=digest.upper()) == read()
    with pytest.raises(SourceError, match=f"sha256 is {digest}, and the card says {'0' * 64}"):
        read(sha256="0" * 64)


@pytest.mark.parametrize(
    ("distribution", "version", "said"),
    [
        (
            "grain-data",
            "7.7",
            r"grain-data==7\.7` failed: the index has no wheel of this version.*its wheels: 1\.0, 1\.1",
        ),
        ("nothing", "1.0", r"nothing==1\.0` failed: the index has no wheel of this version"),
        ("chaff", "1.0", r"chaff==1\.0` failed: the index has no wheel of this version"),
        ("engine", "1.0", r"engine==1\.0` failed: the index has no wheel of this version for this Python"),
        ("grain-data", ">=1.0", "is no exact version; pin one"),
        ("grain-data", "1.*", "is no exact version; pin one"),
        ("grain-data", "", "is no exact version; pin one"),
        ("--index-url", "1.0", "is no name of a distribution"),
        ("https://example.org/a.whl", "1.0", "is no name of a distribution"),
        ("grain-data[all]", "1.0", "is no name of a distribution"),
    ],
)
def test_each_failure_is_one_sentence(index: Path, tmp_path: Path, distribution: str, version: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as found:
        read(distribution, version)
    assert "\n" not in str(found.value) and not list((tmp_path / "cache").rglob("*.*l"))


def test_without_an_index_one_sentence_says_so(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    said = r"grain-data==1\.0` failed: its index cannot be reached; set PIP_INDEX_URL .* kind = \"archive\"$"
    with pytest.raises(SourceError, match=said) as found:
        read("grain-data")
    assert "\n" not in str(found.value)
