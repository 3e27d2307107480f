"""Rows of examples: found again in their documents, laid out in any order, and refused where a promise breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow as pa
import pytest

from pipeline.manifest import shard_digest
from tests.conftest import ROOT
from tests.training import runs
from tests.training.versions import blake, sha256, write_manifest
from training.manifest import ManifestError, open_version
from training.shards import Split


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.version(tmp_path_factory.mktemp("v") / "v", layout="examples", length=16, shard_rows=20).parent


def test_the_hand_made_version_follows_the_schema_and_both_halves_mean_its_digests(sealed):
    manifest = json.loads((sealed / "manifest.json").read_text())
    jsonschema.validate(manifest, json.loads((ROOT / "catalogs/schemas/manifest.schema.json").read_text()))
    for split in manifest["splits"].values():
        assert all(shard_digest(sealed / shard["file"]) == shard["digest"] for shard in split["shards"])


def test_every_row_is_its_document_with_its_label(sealed):
    version = open_version(sealed)
    index, labels = version.documents.to_pylist(), version.manifest.labels
    eot, seen = version.manifest.tokenizer.eot, []
    for name in ("train", "val"):
        split = Split(version, name)
        assert len(split.shards) > 1
        rows = split.take(np.arange(len(split)))
        for i, row in enumerate(split):
            document = index[int(row.documents[0])]
            seen.append(document["doc_id"])
            assert document["split"] == name and row.used == min(document["tokens"], 16) and row.tokens[0] == eot
            assert rows.tokens[i, : row.used].tolist() == row.tokens.tolist()
            assert (rows.tokens[i, row.used :] == eot).all() and rows.used[i] == row.used
            label = int(rows.labels[i])
            assert (labels[label] if label >= 0 else None) == document["label"]
    assert sorted(seen) == sorted(row["doc_id"] for row in index)


def test_take_in_any_order_and_slices_of_it_are_the_same_rows(sealed):
    split = Split(open_version(sealed), "train")
    index = np.array([5, 0, len(split) - 1, 5, 41, 3])
    rows = split.take(index)
    for i, number in enumerate(index):
        one, alone = rows.slice(i, i + 1), split.take(np.array([number]))
        for name in ("tokens", "used", "piece_row", "starts", "lengths", "documents", "offsets", "labels"):
            assert getattr(one, name).tolist() == getattr(alone, name).tolist()
        assert all(np.array_equal(a, b) for a, b in zip(one.targets, alone.targets, strict=True))
    piece, position = rows.layout()
    assert ((position >= 0).sum(1) == rows.used).all() and len(np.unique(piece[position >= 0])) == len(index)


def test_rows_are_views_of_the_mapped_file(sealed):
    before = pa.total_allocated_bytes()
    row = Split(open_version(sealed, verify=False), "train")[3]
    assert not row.tokens.flags.owndata and not row.tokens.flags.writeable
    assert pa.total_allocated_bytes() - before < 4096


def _column(name: str, change: Callable[[list[Any]], Any]) -> Callable[[Path], None]:
    """Change a column of the first shard and seal the version again: its digests are right, its promises broken."""

    def edit(folder: Path) -> None:
        path = min((folder / "shards").iterdir())
        table = pa.ipc.open_file(str(path)).read_all()
        values = table[name].to_pylist()
        change(values)
        columns = {n: table[n] for n in table.column_names} | {name: pa.array(values, table.schema.field(name).type)}
        batch = pa.table(columns).combine_chunks().to_batches()[0]
        with pa.ipc.new_file(str(path), batch.schema) as writer:
            writer.write_batch(batch)
        manifest = json.loads((folder / "manifest.json").read_text())
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                if folder / shard["file"] == path:
                    found = {"bytes": path.stat().st_size, "sha256": sha256(path), "digest": shard_digest(path)}
                    shard.update(found)
            split["digest"] = blake(json.dumps([s["digest"] for s in split["shards"]], separators=(",", ":")).encode())
        write_manifest(folder, manifest)

    return edit


def _flipped(folder: Path) -> None:
    path = min((folder / "shards").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        write_manifest(folder, manifest)

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_column("label", lambda v: v.__setitem__(2, 3)), "label 3, which is none of the 3"),
        (_column("label", lambda v: v.__setitem__(2, -2)), "label -2, which is none of the 3"),
        (_manifest(lambda m: m.update(labels=m["labels"][:2])), "label 2, which is none of the 2"),
        (_manifest(lambda m: m.update(labels=None)), "which is none of the 0"),
        (_column("document", lambda v: v.__setitem__(0, 10**6)), "document outside"),
        (_column("tokens", lambda v: v[0].__setitem__(1, 60000)), "token of a row outside the vocabulary"),
        (_column("tokens", lambda v: v.__setitem__(0, [])), "a row has fewer than 1"),
        (_column("tokens", lambda v: v.__setitem__(0, [1] * 17)), "more than 16 tokens"),
        (_column("target", lambda v: v[0].__setitem__(1, 60000)), "token of a target outside the vocabulary"),
        (_column("target", lambda v: v.__setitem__(0, [1] * 17)), "a target has .* more than 16 tokens"),
        (_manifest(lambda m: m["targets"].update(tokens=7)), "the manifest says 7"),
        (_manifest(lambda m: m.pop("targets")), "column 'target' is list"),
        (_manifest(lambda m: m.update(layout="packed")), "neither labels nor targets"),
        (_flipped, "altered"),
    ],
)
def test_a_broken_promise_is_one_sentence(sealed, tmp_path, damage, words):
    folder = Path(shutil.copytree(sealed, tmp_path / "v"))
    damage(folder)
    with pytest.raises(ManifestError, match=words) as refused:
        open_version(folder)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
