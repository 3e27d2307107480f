"""`where`: the steps that read a document, against every step laid out and looked through."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.training import runs
from training import config, journal, mix
from training.journal import Journal
from training.trace import trace
from training.where import everywhere, where

MIX = runs.RUN + '\n[[mix]]\nsource = "a"\nweight = 3\n[[mix]]\nversion = "other"\nweight = 1.5\n'


@pytest.fixture(scope="module")
def cut(tmp_path_factory, manifest) -> Journal:
    """A run that was stopped after 9 of 12 steps."""
    folder = tmp_path_factory.mktemp("runs")
    return runs.fit(runs.write_run(folder), manifest, folder, after=9)


def traced(folder: Path, steps: int) -> dict[str, list[tuple[int, int, int]]]:
    """(step, row, tokens) of every reading of every document, as `trace` lists them."""
    found: dict[str, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    for step in range(1, steps + 1):
        for piece in trace(folder, step)["pieces"]:
            found[piece["doc_id"]][(step, piece["row"])] += piece["tokens"]
    return {doc_id: [(*place, tokens) for place, tokens in places.items()] for doc_id, places in found.items()}


def test_it_names_the_steps_in_which_trace_shows_the_document_and_no_others(cut) -> None:
    wanted = traced(cut.folder, 9)
    _, _, version = journal.read(cut.folder, verify=False)
    ids = version.documents["doc_id"].to_pylist()
    said = where(cut.folder, ids)
    assert said["steps_done"] == 9 and said["version"] == version.address
    got = {d["doc_id"]: [tuple(s.values()) for s in d["steps"]] for d in said["documents"]}
    assert {doc_id: sorted(places) for doc_id, places in got.items() if places} == wanted
    assert set(got) == set(ids) and any(not places for places in got.values())
    assert {d["split"] for d in said["documents"] if d["steps"]} == {"train"}
    late = next(doc_id for doc_id, places in wanted.items() if min(places)[0] == 9)
    standing = sorted(path.name for path in cut.checkpoints.glob("step-*"))
    assert said["checkpoints"] == standing and len(standing) > 1
    assert where(cut.folder, [late])["checkpoints"] == ["step-00000009"]
    assert where(cut.folder, ["nobody:0"])["documents"] == [] == where(cut.folder, ["nobody:0"])["checkpoints"]


@pytest.mark.parametrize("text", [runs.RUN, MIX])
def test_readings_are_all_positions_of_the_rows_through_epochs_and_parts(tmp_path, text) -> None:
    first = runs.version(tmp_path / "one")
    other = runs.version(tmp_path / "two", name="other")
    manifests = [first, other] if "mix" in text else [first]
    stream = mix.Stream(*mix.opened(config.load(runs.write_run(tmp_path, text)), manifests, tmp_path, verify=False))
    before = 3 * len(stream.split) + 17
    everything = stream.rows(np.arange(before))
    for rows in ([0], [5, 3, len(stream.split) - 1], list(range(len(stream.split)))):
        positions, read = stream.readings(np.array(rows), before)
        assert positions.tolist() == np.flatnonzero(np.isin(everything, rows)).tolist()
        assert read.tolist() == everything[positions].tolist()


def test_the_command_answers_for_many_runs_without_torch_and_says_which_cannot_be_asked(cut, tmp_path) -> None:
    code = "import sys; from training.__main__ import main; sys.argv = ['training', 'where', *sys.argv[1:]]\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    ids = [piece["doc_id"] for piece in trace(cut.folder, 3)["pieces"]]
    (tmp_path / "broken").mkdir()
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(cut.folder), str(tmp_path / "broken")],
        input=json.dumps(ids),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    sound, broken = json.loads(done.stdout)
    assert [sound, broken] == everywhere([cut.folder, tmp_path / "broken"], ids)
    assert sound["problem"] is None and all(any(s["step"] == 3 for s in d["steps"]) for d in sound["documents"])
    assert "no run here" in broken["problem"]


def test_what_the_weights_before_had_read_is_told_as_far_as_that_run_is_there(cut, tmp_path, manifest) -> None:
    wanted = traced(cut.folder, 9)
    early = next(doc_id for doc_id, places in wanted.items() if min(places)[0] <= 8)
    late = next(doc_id for doc_id, places in wanted.items() if min(places)[0] > 8)
    place = cut.checkpoints / "step-00000008"
    file = runs.write_run(tmp_path)
    second = runs.fit(file, manifest, tmp_path / "second", after=2, changes=(f"init={place}",)).folder
    third = runs.fit(file, manifest, tmp_path / "third", after=2, changes=(f"init={second}",)).folder
    found = everywhere([cut.folder, second, third], [early, late])
    first = {"run": cut.folder.name, "step": 8, "documents": [early]}
    between = {"run": second.name, "step": 2, "documents": [d for d in (early, late) if d in traced(second, 2)]}
    assert [each["before"] for each in found] == [[], [first], [between, first]]
    [alone] = everywhere([third], [early])
    assert alone["before"] == [{**between, "documents": None}, {**first, "documents": None}]
    subprocess.run(
        [sys.executable, "-m", "training", "export", str(second), str(tmp_path / "hf")], check=True, cwd=ROOT
    )
    last = runs.fit(file, manifest, tmp_path / "last", after=2, changes=(f"init={tmp_path / 'hf'}",)).folder
    assert everywhere([last], [early])[0]["before"] == [{"run": None, "step": None, "documents": None}]
    (last / "before.json").write_text("{}")
    [refused] = everywhere([last], [early])
    assert "is not what run.json says" in refused["problem"]
