"""The sheet of paper between the halves: what `pipeline` writes, the schema allows and `training` reads."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from flows import show
from flows.screen import Screen
from pipeline.manifest import Version, shard_digest, table_digest, verify
from tests import builds
from tests.conftest import ROOT
from tests.training import runs, versions
from training.manifest import ManifestError, open_version
from training.shards import Split

SCHEMA = json.loads((ROOT / "catalogs" / "schemas" / "manifest.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    corpus = builds.write_corpus(tmp_path_factory.mktemp("corpus"))
    return builds.build(builds.make_recipe(corpus), tmp_path_factory.mktemp("store"))


def test_the_schema_is_a_schema_and_holds_for_what_the_mill_writes(built):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(built.manifest, SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m.pop("splits"),
        lambda m: m.update(clock="2026-01-01"),
        lambda m: m.update(format="gristmill.manifest/2"),
        lambda m: m["splits"]["train"]["shards"][0].update(file="../elsewhere.arrow"),
        lambda m: m["splits"]["train"]["shards"][0].update(sha256="0"),
        lambda m: m["tokenizer"].update(eot=-1),
        lambda m: m["summaries"]["canaries"].update(digest="0"),
    ],
)
def test_schema_and_trainer_refuse_the_same_damage(built, tmp_path, damage):
    manifest = json.loads(json.dumps(built.manifest))
    damage(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SCHEMA)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        open_version(tmp_path, verify=False)


def test_both_readers_notice_an_edited_canary(built, tmp_path):
    manifest = json.loads(json.dumps(built.manifest))
    manifest["summaries"]["canaries"]["allowed"] = ["gopher.word_count.below"]
    jsonschema.validate(manifest, SCHEMA)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ManifestError, match=r"summaries\.canaries is not as it was written; it was edited"):
        open_version(tmp_path, verify=False)
    assert any("canaries" in problem for problem in verify(Version(built.folder, manifest)))


def test_the_trainer_reads_what_the_mill_wrote(built):
    version = open_version(built.folder)
    index = built.index()
    for name, said in built.manifest["splits"].items():
        split = Split(version, name)
        assert len(split) == said["rows"]
        used = sum(int(split[i].used) for i in range(len(split)))
        assert used == said["tokens"]
        seen = {int(d) for i in range(len(split)) for d in split[i].documents}
        assert {index["split"][d].as_py() for d in seen} == {name} and len(seen) == said["documents"]


@pytest.mark.parametrize("lowercase", [False, True])
def test_show_and_the_report_say_that_texts_are_read_in_lower_case(tmp_path, lowercase):
    corpus = builds.write_corpus(tmp_path / "corpus")
    tokens = {"vocab_size": 350, "lowercase": lowercase}
    made = builds.build(builds.make_recipe(corpus, tokens=tokens), tmp_path / "store")
    version, screen = open_version(made.folder), Screen()
    with screen.out.capture() as said:
        show.version(screen, made, [])
    assert ("in lower case" in said.get()) == lowercase
    books = runs.fit(runs.write_run(tmp_path / "run"), version.folder / "manifest.json", tmp_path / "runs")
    assert ("in lower case" in (books.folder / "report.html").read_text("utf-8")) == lowercase


def test_both_halves_mean_the_same_digests(tmp_path):
    """A version made by hand, by code that shares nothing with either half, has the digests that both compute."""
    texts = [{"text": f"wheel {i} turns " * (1 + i % 7), "source": "ab"[i % 2]} for i in range(50)]
    version = open_version(versions.make_version(tmp_path / "v", texts))
    for split in version.manifest.splits.values():
        for shard in split.shards:
            assert shard_digest(version.folder / shard.file) == shard.digest
    assert table_digest(version.documents) == version.manifest.documents.digest


def test_other_tools_open_the_shards(built):
    import datasets
    import polars

    shards = [built.folder / shard["file"] for shard in built.manifest["splits"]["train"]["shards"]]
    rows = built.manifest["splits"]["train"]["rows"]
    ours = pa.concat_tables([pa.ipc.open_file(str(path)).read_all() for path in shards])
    tokens = np.stack(ours["tokens"].to_numpy())
    assert pa.dataset.dataset([str(path) for path in shards], format="arrow").to_table().num_rows == rows
    frame = polars.concat([polars.read_ipc(path) for path in shards])
    assert np.array_equal(np.stack(frame["tokens"].to_numpy()), tokens)
    loaded = datasets.load_dataset("arrow", data_files=[str(path) for path in shards], split="train")
    assert np.array_equal(np.array(loaded["tokens"]), tokens)
