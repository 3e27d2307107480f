"""Run files: what is wrong with one is said with the place and what exists; what names a run."""

from __future__ import annotations

import pytest

from tests.training import runs
from training import TrainingError, config, models, objectives

VERSION = "0123456789abcdef"


def load(tmp_path, text=runs.RUN, *changes):
    return config.load(runs.write_run(tmp_path, text), changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rows = 6", "row = 6"), ["small.toml", "'batch.row'", "did you mean 'rows'", "micro_rows"]),
        (("[schedule]", "[shedule]"), ["'schedule'"]),
        (("rows = 6", 'rows = "6"'), ["batch.rows", "integer"]),
        (("steps = 12", "steps = 5"), ["schedule", "do not fit into 5 steps"]),
        (("seed = 3", "seed = -3"), ["seed", "greater than or equal to 0"]),
        (('name = "small"', 'name = "../up"'), ["name"]),
        (("seed = 3", "seed = "), ["not valid TOML"]),
    ],
)
def test_errors_name_the_file_the_key_and_what_exists(tmp_path, change, words):
    with pytest.raises(TrainingError) as error:
        load(tmp_path, runs.RUN.replace(*change))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"none\.toml: no such run file"):
        config.load(tmp_path / "none.toml")


def test_set_changes_one_value_and_no_other(tmp_path):
    plain = load(tmp_path)
    changed = load(tmp_path, runs.RUN, "schedule.steps=50", "model.family=gpt", "optimizer.use=adamw", "batch.rows=4")
    assert (changed.schedule.steps, changed.optimizer.use, changed.batch.rows) == (50, "adamw", 4)
    assert changed.model == plain.model and changed.schedule.warmup == plain.schedule.warmup
    for bad in ("steps", ".a=1", "seed.x=1"):
        with pytest.raises(TrainingError, match="--set"):
            load(tmp_path, runs.RUN, bad)


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        (("model.family=t5",), config.T5_MUON),
        (("model.family=t5", "optimizer.weight_decay=0"), config.T5_MUON),
        (("model.family=t5", "optimizer.learning_rate=0.03"), 0.03),
        (("model.family=t5", "optimizer.use=adamw"), config.RATES["adamw"]),
        (("model.family=gpt",), config.RATES["muon"]),
    ],
)
def test_a_t5_that_muon_turns_has_a_rate_of_its_own(tmp_path, changes, rate):
    text = runs.RUN.replace("learning_rate", "# learning_rate")
    assert load(tmp_path, text, *changes).optimizer.learning_rate == rate


def test_the_identity_knows_what_is_learnt_and_not_how_it_is_watched(tmp_path):
    same = [
        "batch.micro_rows=1",
        "checkpoint.every=1",
        "checkpoint.keep_best=true",
        'parallel.use="fsdp"',
        "parallel.activation_checkpointing=true",
        "evaluation.rows=2",
        "precision.threads=2",
        "samples.documents=0",
    ]
    other = ["seed=4", "batch.rows=7", "model.width=64", "schedule.steps=20", 'precision.compute="float32"']
    first = load(tmp_path).identity(VERSION)
    assert {load(tmp_path, runs.RUN, change).identity(VERSION) for change in same} == {first}
    found = {load(tmp_path, runs.RUN, change).identity(VERSION) for change in other}
    assert len(found | {first, load(tmp_path).identity("f" * 16)}) == len(other) + 2


def test_unknown_models_and_objectives_are_errors_that_list_what_exists():
    with pytest.raises(TrainingError, match=r"\[model\].*'gtp'.*did you mean 'gpt'"):
        models.build({"family": "gtp"}, vocab_size=300, length=32, where="[model]")
    with pytest.raises(TrainingError, match=r"unknown objective 'casual'; did you mean 'causal'"):
        objectives.load({"use": "casual"}, "[objective]")
    with pytest.raises(TrainingError, match=r"\[objective\] \(causal\): unknown key 'rate'"):
        objectives.load({"use": "causal", "rate": 0.1}, "[objective]")
