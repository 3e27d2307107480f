"""`trace`: the documents of a step, against rows walked one by one, for steps that were read and that were not."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.training import runs
from training import TrainingError, order
from training.journal import Journal
from training.manifest import Version, open_version
from training.shards import Split
from training.trace import trace


@pytest.fixture(scope="module")
def cut(tmp_path_factory, manifest) -> Journal:
    """A run that was stopped after 9 of 12 steps."""
    folder = tmp_path_factory.mktemp("runs")
    return runs.fit(runs.write_run(folder), manifest, folder, after=9)


def walked(version: Version, step: int) -> list[tuple[str, str, str | None, int, int, list[int]]]:
    """doc_id, source, language, row, offset and tokens of every piece, one row after the other."""
    split, table = Split(version, "train"), version.documents.to_pylist()
    found = []
    for number, row in enumerate(order.rows(len(split), 3, np.arange((step - 1) * 6, step * 6))):
        packed = split[int(row)]
        for start, end, document, offset in zip(
            packed.starts, [*packed.starts[1:], packed.used], packed.documents, packed.offsets, strict=True
        ):
            said = table[document]
            tokens = packed.tokens[start:end].tolist()
            found.append((said["doc_id"], said["source"], said["language"], number, int(offset), tokens))
    return found


@pytest.mark.parametrize("step", [1, 2, 9, 12])
def test_it_lists_the_documents_that_the_step_was_trained_on(cut, manifest, step) -> None:
    said, wanted = trace(cut.folder, step), walked(open_version(manifest), step)
    assert (said["read"], said["verified"]) == ((True, True) if step <= 9 else (False, None))
    got = [tuple(p[k] for k in ("doc_id", "source", "language", "row", "offset", "tokens")) for p in said["pieces"]]
    assert got == [(*place, len(tokens)) for *place, tokens in wanted]
    assert said["tokens"] == sum(p["tokens"] for p in said["pieces"])
    if step <= 9:
        assert cut.entries("step")[step - 1]["tokens"] == said["tokens"]


def test_a_token_names_its_document(cut, manifest) -> None:
    owners = [doc_id for doc_id, *_, tokens in walked(open_version(manifest), 4) for _ in tokens]
    for token in (1, 2, 57, len(owners) - 1, len(owners)):
        [piece] = trace(cut.folder, 4, token)["pieces"]
        assert piece["doc_id"] == owners[token - 1]
        assert piece["first_token"] <= token < piece["first_token"] + piece["tokens"]
    with pytest.raises(TrainingError, match=rf"step 4 has tokens 1 to {len(owners)}$"):
        trace(cut.folder, 4, len(owners) + 1)
    with pytest.raises(TrainingError, match="steps 1 to 12"):
        trace(cut.folder, 13)


def test_a_link_that_was_altered_is_said(cut, tmp_path) -> None:
    lines = cut.metrics.read_text("utf-8").splitlines(keepends=True)
    kept = cut.metrics.read_text("utf-8")
    try:
        chain = json.loads(lines[2])["chain"]
        cut.metrics.write_text(kept.replace(chain, "0" * 32) + '{"kind": "step", "st', "utf-8")
        assert [trace(cut.folder, step)["verified"] for step in (2, 3, 4, 5)] == [True, False, False, True]
    finally:
        cut.metrics.write_text(kept, "utf-8")


def test_the_command_loads_no_torch_and_shows_what_is_hostile(cut) -> None:
    code = "import sys; from training.__main__ import main; sys.argv = ['training', 'trace', *sys.argv[1:]]\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules and 'rich.progress' not in sys.modules"
    command = [sys.executable, "-P", "-c", code, str(cut.folder), "--step", "3"]
    place = {"capture_output": True, "text": True, "cwd": ROOT, "env": {"PYTHONPATH": str(ROOT)}}
    plain = subprocess.run(command, **place)
    assert plain.returncode == 0, plain.stderr
    said = trace(cut.folder, 3)
    lines = plain.stdout.splitlines()
    assert lines[0].endswith("as it was read") and len(lines) == 1 + len(said["pieces"])
    assert all(piece["doc_id"] in line for piece, line in zip(said["pieces"], lines[1:], strict=True))
    listed = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert json.loads(listed.stdout) == said
