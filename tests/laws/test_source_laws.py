"""Laws of every source kind there is.

A kind gives its small input in `kinds/<kind>.py`: `prepare(folder)`, which may name variables of the environment, and
`change(folder)`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline import sources
from pipeline.schema import DOCUMENT, LEDGER
from pipeline.sources import Chunk, Item, SourceError
from pipeline.stage import available

Row = dict[str, Any]


@dataclass
class Case:
    """A kind with a prepared input."""

    kind: str
    module: ModuleType
    fixture: ModuleType
    folder: Path
    params: Row
    rows: int
    rejects: int
    cut: tuple[str, ...]

    def survey(self) -> list[Item]:
        return list(self.module.survey(**self.params))

    def read(self, item: Item) -> Iterator[Chunk]:
        return self.module.read(item, source="case", licence="CC0-1.0", **self.params)

    def all(self) -> tuple[list[Row], list[Row]]:
        """Documents and rejects of all items, in order."""
        return gather(chunk for item in self.survey() for chunk in self.read(item))


def gather(chunks: Iterator[Chunk]) -> tuple[list[Row], list[Row]]:
    documents: list[Row] = []
    rejects: list[Row] = []
    for chunk in chunks:
        documents += chunk.documents.to_pylist()
        rejects += chunk.rejects.to_pylist()
    return documents, rejects


def lay(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    path = Path(__file__).with_name("kinds") / f"{kind}.py"
    assert path.exists(), f"source kind {kind!r} has no input for the laws: write {path.name} in tests/laws/kinds"
    spec = importlib.util.spec_from_file_location(f"kinds_{kind}", path)
    assert spec and spec.loader
    fixture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixture)
    if fixture.SITE:
        folder = folder / fixture.SITE
        monkeypatch.setattr(sys, "path", [str(folder)])
    folder.mkdir(parents=True, exist_ok=True)
    made = fixture.prepare(folder)
    for name, value in made.pop("environment", {}).items():
        monkeypatch.setenv(name, value)
    return Case(kind, sources.load(kind), fixture, folder, **made)


@pytest.fixture(params=available("pipeline.sources"))
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return lay(request.param, tmp_path / "input", monkeypatch)


def test_rejects_and_documents_are_the_rows_met(case: Case) -> None:
    documents, rejects = case.all()
    assert (len(documents) + len(rejects), len(rejects)) == (case.rows, case.rejects)


def test_ids_are_unique_and_begin_with_the_source(case: Case) -> None:
    documents, rejects = case.all()
    ids = [row["doc_id"] for row in documents + rejects]
    assert len(set(ids)) == len(ids)
    assert all(doc_id.startswith("case:") and doc_id.rpartition(":")[2].isdigit() for doc_id in ids)
    assert not [doc_id for doc_id in ids if str(case.folder) in doc_id]


def test_chunks_have_the_schemas_and_rejects_say_why(case: Case) -> None:
    for item in case.survey():
        for chunk in case.read(item):
            assert chunk.documents.schema == DOCUMENT and chunk.rejects.schema == LEDGER
            assert chunk.documents.num_rows + chunk.rejects.num_rows > 0
            chunk.documents.validate(full=True)
            for row in chunk.rejects.to_pylist():
                path, number = row["doc_id"].split(":")[1:]
                assert (row["stage"], row["verdict"]) == ("source", "quarantined") and row["reason"].isidentifier()
                assert row["detail"].startswith(f"{path} row {number}: ") and str(case.folder) not in row["detail"]


def test_survey_is_sorted_and_items_of_a_file_make_the_whole(case: Case) -> None:
    items = case.survey()
    assert items == sorted(items, key=lambda item: (item.path, item.part))
    assert len({(item.path, item.part) for item in items}) == len(items)
    assert len({item.path for item in items}) == len({(item.path, item.sha256) for item in items})
    assert all(Item.from_dict(json.loads(json.dumps(asdict(item)))) == item for item in items)


def test_documents_are_in_order(case: Case) -> None:
    for rows in case.all():
        places = [row["doc_id"].split(":")[1:] for row in rows]
        assert places == sorted(places, key=lambda place: (place[0], int(place[1])))


def test_cuts_and_chunks_do_not_show(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    before, sizes = case.all(), [(item.path, item.size) for item in case.survey()]
    monkeypatch.setattr(case.module, "ATOM_BYTES", 150, raising=False)
    monkeypatch.setattr(sources, "CHUNK_ROWS", 3)
    items = case.survey()
    assert {item.path for item in items if item.part} == set(case.cut), "nothing was cut: the law would be empty"
    assert sizes == [(p, sum(item.size for item in items if item.path == p)) for p, _ in sizes]
    assert case.all() == before
    backwards = [list(case.read(Item.from_dict(asdict(item)))) for item in reversed(items)]
    assert gather(chunk for chunks in reversed(backwards) for chunk in chunks) == before


def test_twice_and_elsewhere_is_the_same(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, items = case.all(), case.survey()
    other = lay(case.kind, tmp_path / "else" / "where", monkeypatch)
    assert other.all() == first == other.all()
    assert [(i.path, i.size, i.sha256, i.part) for i in other.survey()] == [
        (i.path, i.size, i.sha256, i.part) for i in items
    ]


@pytest.mark.parametrize("atom", [150, 8 << 20])
def test_input_that_changed_since_the_survey_is_refused(case: Case, atom: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case.module, "ATOM_BYTES", atom, raising=False)
    items = case.survey()
    case.fixture.change(case.folder)
    with pytest.raises(SourceError, match="changed since"):
        gather(chunk for item in items for chunk in case.read(item))
    assert case.survey() != items


def test_nothing_is_imported_and_nothing_is_left(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.all()
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    files, modules = sorted(case.folder.rglob("*")), set(sys.modules)
    case.all()
    assert set(sys.modules) == modules
    assert sorted(case.folder.rglob("*")) == files and not list(scratch.iterdir())


def test_survey_and_read_take_the_same_parameters(case: Case) -> None:
    keywords = [
        {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
        for function in (case.module.survey, case.module.read)
    ]
    assert keywords[0] == {name: p for name, p in keywords[1].items() if name not in ("source", "licence")}
