"""The reader refuses what is not whole, and reads rows where they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.versions import index_digest, make_version, sha256, write_manifest
from training.manifest import ManifestError, open_version, table_digest
from training.shards import Split

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    {
        "text": f"Document {i} says {'very ' * (i % 23)}little.",
        "source": "ab"[i % 2],
        "language": ["en", "zh", None][i % 3],
    }
    for i in range(120)
]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_version(tmp_path_factory.mktemp("v") / "v", DOCUMENTS, length=16, vocab_size=290, shard_rows=20).parent


@pytest.fixture
def copy(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "v"))


def test_the_hand_made_version_follows_the_schema(sealed: Path) -> None:
    schema = json.loads((ROOT / "catalogs/schemas/manifest.schema.json").read_text())
    jsonschema.validate(json.loads((sealed / "manifest.json").read_text()), schema)


def test_every_piece_is_found_again_in_its_document(sealed: Path) -> None:
    version = open_version(sealed)
    index = version.documents
    found: dict[int, dict[int, list[int]]] = {}
    for name in ("train", "val"):
        for row in Split(version, name):
            assert row.starts[0] == 0
            ends = [*row.starts[1:], row.used]
            sources = set()
            for start, end, document, offset in zip(row.starts, ends, row.documents, row.offsets, strict=True):
                found.setdefault(int(document), {})[int(offset)] = row.tokens[start:end].tolist()
                sources.add(index["source"][int(document)].as_py())
                assert index["split"][int(document)].as_py() == name
            assert len(sources) == 1
    eot, counts = version.manifest.tokenizer.eot, index["tokens"].to_pylist()
    assert len(found) == len(DOCUMENTS)
    for document, pieces in found.items():
        whole = [token for offset in sorted(pieces) for token in pieces[offset]]
        assert whole[0] == whole[-1] == eot and len(whole) == counts[document]


def test_take_equals_row_by_row(sealed: Path) -> None:
    split = Split(open_version(sealed), "train")
    index = np.array([5, 0, len(split) - 1, 5, 17, 3])
    rows = split.take(index)
    for i, number in enumerate(index):
        one, row = rows.slice(i, i + 1), split[int(number)]
        assert one.tokens[0].tolist() == row.tokens.tolist() and one.used[0] == row.used
        for taken, views in zip((one.starts, one.documents, one.offsets), row[2:], strict=True):
            assert taken.tolist() == views.tolist()
        assert (one.starts + one.lengths).tolist() == [*row.starts[1:], row.used]
        assert (one.piece_row == 0).all()


def test_rows_are_views_of_the_mapped_file(sealed: Path) -> None:
    before = pa.total_allocated_bytes()
    split = Split(open_version(sealed, verify=False), "train")
    row = split[3]
    assert not row.tokens.flags.owndata and not row.tokens.flags.writeable
    assert pa.total_allocated_bytes() - before < 4096


def test_rows_are_located_in_their_shards(sealed: Path) -> None:
    split = Split(open_version(sealed), "train")
    assert len(split.shards) > 2
    shard, local = split.locate(np.arange(len(split)))
    for i in range(len(split)):
        assert split.shards[shard[i]].row(local[i]).tokens.tolist() == split[i].tokens.tolist()


def test_digest_of_the_index_agrees_with_its_twin(sealed: Path) -> None:
    table = open_version(sealed).documents
    assert table_digest(table) == index_digest(table)


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        write_manifest(folder, manifest)

    return edit


def _first_shard(folder: Path) -> Path:
    return min((folder / "shards").iterdir())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _rehash(folder: Path) -> None:
    """Someone rewrote a shard and its sha256, but the version stands for other content."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["splits"]["train"]["shards"][0]
    path = folder / entry["file"]
    table = pa.ipc.open_file(str(path)).read_all()
    used = np.array(table["used"].to_pylist())
    used[0] = max(1, used[0] - 1)
    table = table.set_column(1, "used", pa.array(used, pa.int32()))
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    entry["sha256"], entry["bytes"] = sha256(path), path.stat().st_size
    write_manifest(folder, manifest)


def _other_index(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    index = open_version(folder).documents
    shuffled = index.take(pa.array(np.arange(index.num_rows)[::-1]))
    pq.write_table(shuffled, folder / "documents.parquet")
    manifest["documents"]["sha256"] = sha256(folder / "documents.parquet")
    write_manifest(folder, manifest)


def _in_place(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"name":"toy"', '"name":"joy"'))


BAD: list[tuple[Callable[[Path], Any], str]] = [
    (_edit(lambda m: m.update(format="gristmill.manifest/2")), "format 'gristmill.manifest/2' is not known"),
    (_edit(lambda m: m.update(view={"fim": {}})), "view: Extra inputs are not permitted"),
    (_edit(lambda m: m.pop("layout")), "layout: Field required"),
    (_edit(lambda m: m.update(length="16")), "length: Input should be a valid integer"),
    (_edit(lambda m: m["tokenizer"].update(vocab_size=70_000)), "does not fit the dtype uint16"),
    (_edit(lambda m: m["tokenizer"].update(eot=290)), "outside the vocabulary"),
    (_edit(lambda m: m["tokenizer"].update(vocab_size=291)), "290 tokens where the manifest says 291"),
    (_edit(lambda m: m["splits"]["train"].update(rows=1)), "splits.train"),
    (_edit(lambda m: m["splits"]["val"]["shards"][0].update(file="../x.arrow")), "stay inside it"),
    (_in_place, "it was edited"),
    (lambda f: (f / "manifest.json").unlink(), "no manifest here"),
    (lambda f: (f / "manifest.json").write_text("{"), "not JSON"),
    (lambda f: _first_shard(f).unlink(), "missing, though the manifest lists it"),
    (lambda f: _cut(_first_shard(f)), "bytes where the manifest says"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: altered"),
    (lambda f: _cut(f / "documents.parquet"), "documents.parquet: altered"),
    (_rehash, "the digest of its columns is not the manifest's"),
    (_other_index, "the digest of its values is not the manifest's"),
]


@pytest.mark.parametrize("spoil,message", BAD, ids=[message[:30] for _, message in BAD])
def test_what_is_not_whole_is_refused_by_name(copy: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(copy)
    with pytest.raises(ManifestError) as caught:
        open_version(copy)
    said = str(caught.value)
    assert message in said and str(copy) in said and "\n" not in said


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_anywhere_in_a_shard_is_refused(sealed: Path, data: st.DataObject) -> None:
    path = _first_shard(sealed)
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    try:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << data.draw(st.integers(0, 7)))]) + raw[at + 1 :])
        with pytest.raises(ManifestError, match=path.name):
            open_version(sealed)
    finally:
        path.write_bytes(raw)


def _spoil_shard(folder: Path, **columns: Any) -> None:
    """Replace columns of the first train shard and re-seal, so that only the layout's promises are broken."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["splits"]["train"]["shards"][0]
    path = folder / entry["file"]
    table = pa.ipc.open_file(str(path)).read_all().combine_chunks()
    for name, change in columns.items():
        values = change(table[name].to_pylist())
        table = table.set_column(table.column_names.index(name), name, pa.array(values, table[name].type))
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    entry["sha256"], entry["bytes"] = sha256(path), path.stat().st_size
    write_manifest(folder, manifest)


BROKEN: list[tuple[dict[str, Callable[[Any], Any]], str]] = [
    ({"used": lambda v: [0, *v[1:]]}, "uses fewer than 1 or more than 16"),
    ({"used": lambda v: [17, *v[1:]]}, "uses fewer than 1 or more than 16"),
    ({"starts": lambda v: [[1, *v[0][1:]], *v[1:]]}, "do not start at 0 and ascend"),
    ({"documents": lambda v: [[99, *v[0][1:]], *v[1:]]}, "names a document outside"),
    ({"offsets": lambda v: [[-1, *v[0][1:]], *v[1:]]}, "names a document outside"),
    ({"tokens": lambda v: [[290] * 16, *v[1:]]}, "a token outside the vocabulary of 290"),
    ({"used": lambda v: [None, *v[1:]]}, "null values"),
    ({"starts": lambda v: [[*v[0], 15], *v[1:]]}, "differ in number"),
    ({n: lambda v: [[], *v[1:]] for n in ("starts", "documents", "offsets")}, "a row without a document piece"),
]


@pytest.mark.parametrize("columns,message", BROKEN, ids=[message for _, message in BROKEN])
def test_a_shard_that_breaks_the_layout_is_refused(copy: Path, columns: Any, message: str) -> None:
    _spoil_shard(copy, **columns)
    with pytest.raises(ManifestError, match=message):
        open_version(copy)


def test_an_unknown_split_lists_what_exists(sealed: Path) -> None:
    with pytest.raises(ManifestError, match="no split 'dev'; has: train, val"):
        Split(open_version(sealed, verify=False), "dev")
