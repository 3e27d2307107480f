"""Laws 7 and 8 over every objective: exact resume, twice over; the same rows for one rank and for two."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.training import runs
from training import TrainingError, batch, checkpoint, config, objectives, order
from training.journal import Journal, _table
from training.manifest import open_version
from training.shards import Split

# Settings under which more of an objective is random or grows.
MORE: dict[str, tuple[str, ...]] = {
    "infill": ("objective.rate=0.9", 'model.form="gpt2"'),
    "classify": ("objective.dropout=0.2", "objective.word_dropout=0.2", "objective.r_drop=1.0"),
    "masked": ("objective.whole_words=true",),
}
LAYOUTS = {"classify": "examples", "instruct": "examples", "seq2seq": "examples"}

LENGTHS = {"instruct": 64}  # a question and its answer fit into a row


@pytest.fixture(scope="module", params=objectives.available())
def name(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def manifest(name, tmp_path_factory) -> Path:
    folder, length = tmp_path_factory.mktemp("version") / "v", LENGTHS.get(name, 32)
    return runs.version(folder, layout=LAYOUTS.get(name, "packed"), length=length)


@pytest.fixture(scope="module")
def objective(name) -> tuple[str, ...]:
    """Changes to the run file: a family that the objective fits, and more of what it draws."""
    asked = objectives.load({"use": name}, "[objective]")
    family = "t5" if getattr(asked, "pairs", False) else "gpt" if asked.causal else "bert"
    return f'objective.use="{name}"', f'model.family="{family}"', *MORE.get(name, ())


def flags(changes: tuple[str, ...]) -> list[str]:
    return [word for change in changes for word in ("--set", change)]


# What differs is the order of float32 sums alone: Muon orthogonalises in bfloat16, which magnifies a last bit.
EXACT = ('precision.compute="float32"', 'optimizer.use="adamw"')


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def whole(run_file, manifest, objective, tmp_path_factory) -> Journal:
    """A run that nothing disturbs."""
    return runs.fit(run_file, manifest, tmp_path_factory.mktemp("whole"), changes=objective)


def test_a_run_of_every_objective_is_told_as_the_schema_states(whole):
    schema = json.loads((ROOT / "catalogs/schemas/run.schema.json").read_text("utf-8"))
    jsonschema.validate(json.loads((whole.folder / "run.json").read_text("utf-8")), schema)


TIMED = ("seconds", "wait_seconds", "mfu")


def same(left: Journal, right: Journal) -> None:
    """Losses, validation, chain, weights and optimiser: all to the bit."""
    timeless = [[{k: v for k, v in e.items() if k not in TIMED} for e in j.entries("step")] for j in (left, right)]
    assert timeless[0] == timeless[1]
    assert left.entries("validation") == right.entries("validation")
    ends = [checkpoint.steps(j.checkpoints)[-1] for j in (left, right)]
    assert runs.state(ends[0])["chain"] == runs.state(ends[1])["chain"]
    tensors = [runs.tensors(end) for end in ends]
    assert tensors[0].keys() == tensors[1].keys() and len(tensors[0]) > 20
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


@pytest.mark.parametrize("stops", [[1], [5, 4], [4, 1, 3]])
def test_stopped_and_resumed_is_as_if_never_stopped(whole, run_file, manifest, objective, tmp_path, stops):
    for after in stops:
        runs.fit(run_file, manifest, tmp_path, after=after, changes=objective)
    done = runs.fit(run_file, manifest, tmp_path, changes=objective)
    assert done.table["resumed_at"] == np.cumsum(stops).tolist() and len(done.entries("step")) == 12
    same(whole, done)


def test_micro_batches_do_not_change_the_loss(run_file, manifest, objective, tmp_path):
    one = runs.fit(run_file, manifest, tmp_path / "one", changes=(*objective, *EXACT))
    other = runs.fit(run_file, manifest, tmp_path / "other", changes=(*objective, *EXACT, "batch.micro_rows=6"))
    assert other.folder.name == one.folder.name
    assert np.allclose(runs.losses(other), runs.losses(one), rtol=0, atol=2e-5)
    assert runs.state(checkpoint.steps(other.checkpoints)[-1])["chain"] == one.table["chain"]


def test_rows_laid_out_ahead_or_when_asked_for_are_the_same(whole, run_file, manifest, objective, tmp_path):
    other = runs.fit(run_file, manifest, tmp_path, changes=(*objective, "batch.ahead=0"))
    assert other.folder.name == whole.folder.name
    same(whole, other)


def test_killed_between_checkpoints_goes_on_from_the_last(whole, run_file, manifest, objective, tmp_path):
    """SIGKILL leaves lines in metrics.jsonl that no checkpoint leads to."""
    slow = "import time, training.loop as l; a = l.Loop.advance"
    slow += "; l.Loop.advance = lambda s, x: (time.sleep(.2), a(s, x))[1]"
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path), *flags(objective)]
    code = f"{slow}; import sys; sys.argv = ['training', *{arguments!r}]; from training.__main__ import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    books = Journal(tmp_path / whole.folder.name)
    # On a busy machine the checkpoint of step 4 may not be whole yet at step 6.
    while process.poll() is None and not (len(books.entries("step")) > 5 and checkpoint.steps(books.checkpoints)):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 6 <= len(books.entries("step")) < 12
    assert next(s.name for s in checkpoint.steps(books.checkpoints)) == "step-00000004"
    same(whole, runs.fit(run_file, manifest, tmp_path, changes=objective))


def test_resume_refuses_other_documents(run_file, manifest, objective, tmp_path):
    books = runs.fit(run_file, manifest, tmp_path, after=5, changes=objective)
    found = checkpoint.steps(books.checkpoints)[-1]
    table = runs.state(found)
    table["chain"] = "0" * 32
    (found / "state.json").write_text(json.dumps(table), "utf-8")
    with pytest.raises(TrainingError, match="other documents"):
        runs.fit(run_file, manifest, tmp_path, changes=objective)


def test_resume_refuses_a_flipped_byte_in_the_checkpoint(run_file, manifest, objective, tmp_path):
    books = runs.fit(run_file, manifest, tmp_path, after=3, changes=objective)
    [path] = checkpoint.steps(books.checkpoints)[-1].glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=path.name):
        runs.fit(run_file, manifest, tmp_path, changes=objective)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_out_the_same_rows(manifest, world):
    split = Split(open_version(manifest), "train")
    for step in (0, 7, 400):
        wanted = order.rows(len(split), 3, batch.positions(step, 7))
        shares = [order.rows(len(split), 3, batch.positions(step, 7, rank, world)) for rank in range(world)]
        assert np.concatenate(shares).tolist() == wanted.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_what_an_objective_draws_hangs_on_no_world_and_no_batch(run_file, manifest, objective, world):
    """The targets of a step, by row: laid out at once, or shared out and cut into micro-batches."""
    version = open_version(manifest)
    split, asked = Split(version, "train"), config.load(run_file, objective).objective
    drawn = objectives.load(asked, "[objective]").over(version)

    def targets(step: int, rank: int, world: int, size: int) -> list[tuple[int, ...]]:
        found = []
        rows = split.take(order.rows(len(split), 3, batch.positions(step, 7, rank, world)))
        for part in batch.micro_batches(rows, size):
            keys = batch.row_keys(3, step, part.index)
            prepared, places = drawn.prepare(part, keys), drawn.targets(part, keys)
            read = prepared["tokens"].reshape(-1)[prepared["at"]]
            row, column = part.index[places // split.length], places % split.length
            found += zip(row.tolist(), column.tolist(), prepared["targets"].tolist(), read.tolist(), strict=True)
        return found

    for step in (0, 7):
        shares = [targets(step, rank, world, 2) for rank in range(world)]
        assert [target for share in shares for target in share] == targets(step, 0, 1, 7)


@pytest.mark.slow
def test_two_ranks_train_like_one(whole, run_file, manifest, objective, tmp_path):
    """The same chain, so the same rows at each step; losses equal up to the order of float32 sums."""
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path)]
    done = runs.command(2, *arguments, *flags((*objective, *EXACT)), "--json")
    two = Journal(Path(json.loads(done.stdout.splitlines()[-1])["folder"]))
    one = runs.fit(run_file, manifest, tmp_path / "one", changes=(*objective, *EXACT))
    assert _table(two.folder / "run.json")["processes"] == 2
    assert runs.state(checkpoint.steps(one.checkpoints)[-1])["chain"] == whole.table["chain"]
    alike(one, two)


def alike(one: Journal, two: Journal) -> None:
    """The same rows at each step, the same losses and the same judgement."""
    ends = [runs.state(checkpoint.steps(j.checkpoints)[-1]) for j in (one, two)]
    assert ends[0]["chain"] == ends[1]["chain"]
    assert np.allclose(runs.losses(one), runs.losses(two), rtol=0, atol=2e-5)
    reports = [json.loads((j.folder / "report.json").read_text()) for j in (one, two)]
    judged = [r.get("evaluation") or r["classification"] for r in reports]
    assert abs(judged[0]["model"]["loss"] - judged[1]["model"]["loss"]) < 1e-3
    assert judged[0]["documents"] == judged[1]["documents"] > 20
    assert judged[0].get("ngrams") == judged[1].get("ngrams")


@pytest.mark.slow
def test_a_run_begun_by_one_rank_goes_on_with_two(run_file, manifest, objective, tmp_path):
    changes = (*objective, *EXACT)
    one = runs.fit(run_file, manifest, tmp_path / "one", changes=changes)
    runs.fit(run_file, manifest, tmp_path / "two", after=5, changes=changes)
    arguments = ["fit", str(run_file), "--manifest", str(manifest), "--runs", str(tmp_path / "two")]
    runs.command(2, *arguments, *flags(changes))
    two = Journal(tmp_path / "two" / one.folder.name)
    assert runs.losses(two)[:5] == runs.losses(one)[:5]
    alike(one, two)
