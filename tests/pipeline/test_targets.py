"""A target text goes from the card's column to the shard beside its document, and is counted where it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from pipeline.manifest import Version, shard_digest
from pipeline.stage import ConfigError
from tests import builds
from tests.conftest import ROOT
from training.manifest import open_version
from training.shards import Split

LENGTH = 24
EXAMPLES = {"pack": {"length": LENGTH, "layout": "examples", "split": {"val": 0.2}}}
SCHEMA = json.loads((ROOT / "catalogs" / "schemas" / "manifest.schema.json").read_text("utf-8"))


def corpus(folder: Path, columns: str) -> Path:
    """120 rows in two files, of Python's own reading: some targets are absent, null, empty or longer than a row."""
    rows = []
    for number in range(120):
        row = {"text": f"the mill {number} turns " + "round " * (number % 5), "label": str(number % 2)}
        row["summary"] = {3: None, 4: ""}.get(number % 10, f"mill {number}, " + "on and " * (number % 30))
        if number % 10 == 5:
            del row["summary"]
        rows.append(row)
    folder.mkdir()
    for number in range(2):
        lines = [json.dumps(row) for row in rows[number::2]]
        (folder / f"{number}.jsonl").write_text("\n".join(lines), "utf-8")
    (folder / "grain.toml").write_text(builds.CARD + f"columns = {{{columns}}}\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = corpus(tmp_path_factory.mktemp("c") / "c", 'text = "text", target = "summary?"')
    return builds.build(builds.make_recipe(folder, [], **EXAMPLES), tmp_path_factory.mktemp("s"), partition_bytes=2000)


def summaries(folder: Path) -> dict[str, str | None]:
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found[f"grain:{path.name}:{number}"] = json.loads(line).get("summary")
    return found


def test_every_target_is_found_beside_its_document(built, tmp_path):
    wanted = summaries(corpus(tmp_path / "c", 'text = "text"'))
    jsonschema.validate(built.manifest, SCHEMA)
    version = open_version(built.folder)
    tokenizer = Tokenizer.from_file(str(version.tokenizer_file))
    eot, ids = version.manifest.tokenizer.eot, version.documents["doc_id"].to_pylist()
    tokens = cut = without = 0
    for name in ("train", "val"):
        split = Split(version, name)
        rows = split.take(np.arange(len(split)))
        for i in range(len(rows)):
            text = wanted.pop(ids[rows.documents[i]])
            whole = [eot, *tokenizer.encode(text).ids, eot] if text else []
            assert rows.targets is not None
            kept = whole if len(whole) <= LENGTH else [*whole[: LENGTH - 1], eot]
            assert rows.targets.tokens[i, : rows.targets.used[i]].tolist() == kept
            tokens, cut = tokens + len(whole[:LENGTH]), cut + len(whole[LENGTH:])
            without += not whole
    assert not wanted and without == 36 and cut > 0
    assert built.manifest["targets"] == {"tokens": tokens, "truncated": cut}
    for split in built.manifest["splits"].values():
        assert all(shard_digest(built.folder / shard["file"]) == shard["digest"] for shard in split["shards"])


@pytest.mark.parametrize("columns", ['text = "text"', 'text = "text", target = "nothing?"'])
def test_without_a_target_the_version_is_what_it_was(tmp_path, columns):
    """No key in the manifest, no column in the shards."""
    made = builds.build(builds.make_recipe(corpus(tmp_path / "c", columns), [], **EXAMPLES), tmp_path / "s")
    assert "targets" not in made.manifest
    [first, *_] = made.manifest["splits"]["train"]["shards"]
    table = pa.ipc.open_file(str(made.folder / first["file"])).read_all()
    assert table.column_names == ["tokens", "label", "document"]


def test_partitions_and_workers_do_not_move_a_target(built, tmp_path):
    folder = corpus(tmp_path / "c", 'text = "text", target = "summary?"')
    recipe = builds.make_recipe(folder, [], **EXAMPLES)
    assert builds.build(recipe, tmp_path / "s", 2).manifest["version"] == built.manifest["version"]


def test_packed_rows_have_no_place_for_a_target_and_say_so(tmp_path):
    """One sentence that names the recipe, the card and both ways out; without the target it is read."""
    folder = corpus(tmp_path / "c", 'text = "text", target = "summary?"')
    with pytest.raises(ConfigError) as refused:
        builds.make_recipe(folder, [], pack={"length": LENGTH})
    words = ("test recipe [pack]", "'packed'", "'grain'", str(folder / "grain.toml"), 'layout = "examples"', "columns")
    assert all(word in str(refused.value) for word in words) and "\n" not in str(refused.value)
    (folder / "grain.toml").write_text(builds.CARD + 'columns = {text = "text"}\n', "utf-8")
    assert builds.make_recipe(folder, [], pack={"length": LENGTH}).pack.layout == "packed"
