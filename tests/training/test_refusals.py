"""What a person can get wrong: one sentence that names the place and the fix, exit code 2, before the first step.

Each case is tried through the command's own `main`, and nothing it leaves behind may stand in the way of the next try.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.conftest import ROOT
from tests.training import runs
from tests.training.versions import sha256, write_manifest
from training import __main__, checkpoint
from training.manifest import file_digest

NAME = "mine"


@dataclass(frozen=True)
class Ground:
    """Where a case spoils something: a version, a run file, a finished run of them, its export, all copies."""

    folder: Path

    @property
    def version(self) -> Path:
        return self.folder / "v"

    @property
    def run_file(self) -> Path:
        return self.folder / "small.toml"

    @property
    def done(self) -> Path:
        return self.folder / "done"

    @property
    def hf(self) -> Path:
        return self.folder / "hf"

    @property
    def checkpoint(self) -> Path:
        return checkpoint.steps(self.done / "checkpoints")[-1]

    def arguments(self, *changes: str) -> list[str]:
        words = ["fit", str(self.run_file), "--manifest", str(self.version), "--runs", str(self.folder / "runs")]
        return [*words, "--name", NAME, *(word for change in changes for word in ("--set", change))]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Ground:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    runs.version(ground.version)
    run = runs.write_run(ground.folder)
    books = runs.fit(run, ground.version, ground.folder / "first", changes=("evaluation.orders=[2]",))
    books.folder.rename(ground.done)
    table = runs.state(ground.done, "run.json")
    table["version"]["manifest"] = "../v/manifest.json"
    (ground.done / "run.json").write_text(json.dumps(table), "utf-8")
    runs.command(1, "export", str(ground.done), str(ground.hf))
    return ground


@pytest.fixture
def ground(original, tmp_path) -> Ground:
    return Ground(Path(shutil.copytree(original.folder, tmp_path / "ground")))


def manifest_with(ground: Ground, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a manifest and seal it again, so that nothing else about it is wrong."""
    table = json.loads((ground.version / "manifest.json").read_text("utf-8"))
    change(table)
    write_manifest(ground.version, table)


def shard_of(ground: Ground) -> Path:
    return min((ground.version / "shards").iterdir())


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def tokenizer_with(path: Path, *more: str) -> None:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(list(more))
    tokenizer.save(str(path))


def larger_tokenizer(ground: Ground) -> None:
    tokenizer_with(ground.version / "tokenizer.json", "miller")
    manifest_with(ground, lambda m: m["tokenizer"].update(sha256=sha256(ground.version / "tokenizer.json")))


class Trap:
    """Unpickled, it ends the test run's trust: it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def pickled(path: Path, sprung: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(sprung)))


def pickle_for_weights(ground: Ground) -> None:
    (ground.hf / "model.safetensors").unlink()
    pickled(ground.hf / "pytorch_model.bin", ground.folder / "sprung")


def pickle_named_safetensors(ground: Ground) -> None:
    pickled(ground.hf / "model.safetensors", ground.folder / "sprung")


def pickle_in_checkpoint(ground: Ground) -> None:
    pickled(ground.checkpoint / ".metadata", ground.folder / "sprung")


def pickle_as_shard(ground: Ground) -> None:
    [shard] = ground.checkpoint.glob("*.safetensors")
    pickled(shard, ground.folder / "sprung")
    path = ground.checkpoint / "state.json"
    table = json.loads(path.read_text("utf-8"))
    table["files"][shard.name] = file_digest(shard)
    path.write_text(json.dumps(table), "utf-8")


def another_models_tensors(ground: Ground) -> None:
    tensors = load_file(ground.hf / "model.safetensors")
    save_file({**tensors, "model.norm.weight": torch.ones(33)}, ground.hf / "model.safetensors")


def in_run_file(old: str, new: str) -> Callable[[Ground], None]:
    def change(ground: Ground) -> None:
        text = ground.run_file.read_text("utf-8")
        assert old in text
        ground.run_file.write_text(text.replace(old, new), "utf-8")

    return change


def nothing(ground: Ground) -> None: ...


Spoil = Callable[[Ground], Any]
HF, DONE = "init={0.hf}", "init={0.done}"
# What is spoilt, changes to the run file, and what the sentence has to say: the place, what is wrong, what to do.
CASES: dict[str, tuple[Spoil, list[str], list[str]]] = {
    "no manifest": (
        lambda g: (g.version / "manifest.json").unlink(),
        [],
        ["v", "no manifest here", "did not complete"],
    ),
    "manifest is no JSON": (
        lambda g: (g.version / "manifest.json").write_text("{"),
        [],
        ["manifest.json", "not JSON", "copy the version again or build it again"],
    ),
    "manifest of an unknown format": (
        lambda g: manifest_with(g, lambda m: m.update(format="gristmill.manifest/9")),
        [],
        ["manifest.json", "'gristmill.manifest/9' is not known", "reads 'gristmill.manifest/1'"],
    ),
    "manifest that asks for more": (
        lambda g: manifest_with(g, lambda m: m.update(view={})),
        [],
        ["manifest.json: view", "not permitted"],
    ),
    "manifest that was edited": (
        lambda g: (g.version / "manifest.json").write_text(
            (g.version / "manifest.json").read_text().replace('"name":"toy"', '"name":"joy"')
        ),
        [],
        ["manifest.json", "it was edited, build it again"],
    ),
    "missing shard": (lambda g: shard_of(g).unlink(), [], [".arrow: missing", "copy the version again, whole"]),
    "changed shard": (lambda g: flipped(shard_of(g)), [], [".arrow: altered", "copy it again"]),
    "changed tokenizer": (
        lambda g: tokenizer_with(g.version / "tokenizer.json", "miller"),
        [],
        ["tokenizer.json: altered", "copy it again"],
    ),
    "tokenizer that does not fit the manifest": (
        larger_tokenizer,
        [],
        ["tokenizer.json: 301 tokens where the manifest says 300"],
    ),
    "vocabulary larger than the dtype": (
        lambda g: manifest_with(g, lambda m: m["tokenizer"].update(vocab_size=70_000)),
        [],
        ["manifest.json", "a vocabulary of 70000 does not fit the dtype uint16"],
    ),
    "no run file": (lambda g: g.run_file.unlink(), [], ["small.toml: no such run file"]),
    "run file is no TOML": (in_run_file("seed = 3", "seed = "), [], ["small.toml: not valid TOML"]),
    "unknown table": (in_run_file("[schedule]", "[shedule]"), [], ["'shedule'; did you mean 'schedule'"]),
    "unknown key": (in_run_file("rows = 6", "row = 6"), [], ["small.toml", "'batch.row'", "did you mean 'rows'"]),
    "unknown key of the model": (nothing, ["model.widht=3"], ["[model] (gpt)", "'widht'", "did you mean 'width'"]),
    "unknown family": (nothing, ["model.family=gtp"], ["[model]", "'gtp'", "did you mean 'gpt'"]),
    "unknown objective": (nothing, ["objective.use=casual"], ["[objective]", "'casual'", "did you mean 'causal'"]),
    "unknown key of the objective": (nothing, ["objective.rate=.1"], ["[objective] (causal)", "'rate'"]),
    "family and objective do not fit": (nothing, ["objective.use=masked"], ["[model]", "change one of the two"]),
    "unknown split": (nothing, ["evaluation.split=dev"], ["no split 'dev'; has: train, val"]),
    "samples without room": (
        nothing,
        ["samples.new_tokens=30"],
        ["[samples]", "do not fit into the 32 of a row", "lower samples.new_tokens"],
    ),
    "--set is no change": (nothing, ["schedule"], ["--set schedule: write it like schedule.steps=50"]),
    "init is nothing": (nothing, ["init=/nowhere"], ["init /nowhere", "run.json", "config.json"]),
    "init of another model": (
        nothing,
        [DONE, "model.width=64"],
        ["small.toml [model]: width is 64", "32", "leave [model] out"],
    ),
    "init of another family": (
        nothing,
        [HF, "model.family=bert"],
        ["small.toml [model]: family is 'bert'", "'gpt'", "leave [model] out"],
    ),
    "init whose tensors are another model's": (
        another_models_tensors,
        [HF],
        ["hf", "'norm.weight' is [33], the model's is [32]", "another model"],
    ),
    "init with another tokenizer": (
        lambda g: tokenizer_with(g.hf / "tokenizer.json", "miller"),
        [HF],
        ["tokenizer.json", "digest", "build a version with the model's tokenizer"],
    ),
    "init without a tokenizer": (
        lambda g: (g.hf / "tokenizer.json").unlink(),
        [HF],
        ["hf/tokenizer.json: missing"],
    ),
    "init from a pickle": (
        pickle_for_weights,
        [HF],
        ["hf", "as a pickle (pytorch_model.bin)", "save_pretrained(..., safe_serialization=True)"],
    ),
    "init from a pickle by another name": (
        pickle_named_safetensors,
        [HF],
        ["model.safetensors: not a safetensors file"],
    ),
    "pickle beside a checkpoint": (
        pickle_in_checkpoint,
        [DONE],
        [".metadata: is no part of the checkpoint; remove it"],
    ),
    "pickle in a checkpoint": (pickle_as_shard, [DONE], ["step-00000012", "not safetensors that can be read"]),
    "checkpoint that was altered": (
        lambda g: flipped(next(g.checkpoint.glob("*.safetensors"))),
        [DONE],
        ["missing or altered", "remove"],
    ),
    "model that does not fit into memory": (
        nothing,
        ["model.width=4000000", "model.heads=1000000"],
        ["out of memory with the weights alone; make [model] smaller"],
    ),
    "step that does not fit into memory": (
        nothing,
        ["batch.rows=1000000000000", "batch.micro_rows=1000000000000"],
        ["out of memory with 1000000000000 rows at once; try --set batch.rows=500000000000"],
    ),
}


def refused(arguments: list[str], monkeypatch, capsys) -> str:
    """The sentence, after it was seen to be one line and code 2."""
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    *before, said = capsys.readouterr().err.splitlines(keepends=True)
    assert ended.value.code == 2, said
    assert not before or (len(before) == 1 and " rows of 32 tokens from toy@" in before[0]), before  # as it begins
    assert said.startswith("error: ") and said.endswith("\n") and len(said) < 600, said
    return said


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_a_sentence_and_blocks_nothing(original, ground, monkeypatch, capsys, case):
    spoil, changes, words = CASES[case]
    spoil(ground)
    said = refused(ground.arguments(*(change.format(ground) for change in changes)), monkeypatch, capsys)
    assert all(word in said for word in words), said
    assert not (ground.folder / "sprung").exists()
    assert not list((ground.folder / "runs").glob("*/metrics.jsonl")), "a step was done"
    # The next try, put right, under the same name.
    shutil.rmtree(ground.version)
    shutil.copytree(original.version, ground.version)
    shutil.copy(original.run_file, ground.run_file)
    monkeypatch.setattr(__main__, "_run", lambda *given: False)  # as far as the first step
    monkeypatch.setattr(sys, "argv", ["training", *ground.arguments()])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130, capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_refused(ground, monkeypatch, capsys):
    shutil.copytree(ground.done / "checkpoints", ground.folder / "runs" / NAME / "checkpoints")
    said = refused(ground.arguments("seed=9"), monkeypatch, capsys)
    assert "step-00000012: belongs to another run; remove it" in said


def test_a_name_that_another_run_has_is_refused(ground, monkeypatch, capsys):
    shutil.copytree(ground.done, ground.folder / "runs" / NAME)
    said = refused(ground.arguments("seed=9"), monkeypatch, capsys)
    assert "mine: holds another run (" in said and "seed 3, not 9" in said and "give --name, or remove it" in said


@pytest.mark.parametrize("start", [["training", "fit"], ["flows", "train", "--direct"]], ids=["training", "flows"])
@pytest.mark.parametrize("case", ["changed shard", "init whose tensors are another model's"])
def test_a_user_reads_that_sentence_and_nothing_else(ground, start, case):
    """As processes of their own: no warning and no traceback beside it."""
    spoil, changes, words = CASES[case]
    spoil(ground)
    given = ["--manifest", str(ground.version), *(w for c in changes for w in ("--set", c.format(ground)))]
    given += ["--store", str(ground.folder)] if "flows" in start else ["--runs", str(ground.folder / "runs")]
    done = subprocess.run(
        [sys.executable, "-P", "-m", *start, str(ground.run_file), *given],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.count("error: ") == 1 and all(word in done.stderr for word in words), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
