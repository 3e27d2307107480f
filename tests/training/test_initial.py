"""A run goes on from weights that it can name: from our runs and checkpoints, and from Hugging Face folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM

from tests.training import runs
from tests.training.small_models import TABLES, decoder
from training import TrainingError, batch, checkpoint, config, export, initial, journal, loop, models, objectives, order
from training.manifest import Version, open_version
from training.shards import Split

LENGTH = 32
CONTINUED = runs.RUN[: runs.RUN.index("[model]")] + runs.RUN[runs.RUN.index("[batch]") :]


@pytest.fixture(scope="module")
def version(manifest) -> Version:
    return open_version(manifest)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    """A run file without [model]."""
    return runs.write_run(tmp_path_factory.mktemp("run"), CONTINUED)


def exported(folder: Path, version: Version, table: dict[str, Any] = TABLES["grouped"], **more: Any) -> Any:
    """A decoder with the version's vocabulary as a Hugging Face folder; returns the decoder."""
    tokenizer = version.manifest.tokenizer
    model = decoder(table, vocab_size=tokenizer.vocab_size, length=LENGTH, **more)
    export.export(model, tokenizer_file=version.tokenizer_file, eot=tokenizer.eot, length=LENGTH, folder=folder)
    return model


def filled(folder: Path, version: Version) -> Any:
    """The model that a run begins with."""
    table = models.described(initial.source(folder).model, "")
    model = models.build(table, vocab_size=version.manifest.tokenizer.vocab_size, length=LENGTH, where="")
    initial.fill(model, folder, version)
    return model


def same(left: Any, right: Any) -> bool:
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def first_loss(model: Any, version: Version) -> float:
    """Mean loss on the rows of the first step, in float32."""
    split = Split(version, "train")
    rows = split.take(order.rows(len(split), 3, batch.positions(0, 6)))
    objective = objectives.load({"use": "causal"}, "")
    with torch.inference_mode():
        total, count = objective.loss(model, objective.prepare(rows, np.zeros(6, np.uint64)))
    return float(total / count)


@pytest.mark.parametrize("name", ["grouped", "untied", "llama", "gpt2"])
def test_a_run_begins_with_the_weights_of_a_hugging_face_folder(manifest, version, run_file, tmp_path, name):
    model = exported(tmp_path / "hf", version, TABLES[name], scale=1)
    assert same(filled(tmp_path / "hf", version), model)
    changes = (f"init={tmp_path / 'hf'}", 'precision.compute="float32"', "evaluation.orders=[2]")
    done = runs.fit(run_file, manifest, tmp_path / "runs", changes=changes)
    assert runs.losses(done)[0] == pytest.approx(first_loss(model, version), abs=1e-5)
    assert done.complete and done.table["config"]["model"]["form"] == model.config.form


@pytest.mark.parametrize("form", ["qwen3", "llama", "gpt2"])
def test_trained_exported_imported_and_exported_again_are_the_same_tensors(manifest, version, tmp_path, form):
    run_file = runs.write_run(tmp_path)
    books = runs.fit(run_file, manifest, tmp_path / "runs", changes=(f"model.form={form}",))
    trained = loop.load(config.load(run_file, [f"model.form={form}"]), version, books)
    token = version.manifest.tokenizer
    place = {"tokenizer_file": version.tokenizer_file, "eot": token.eot, "length": LENGTH}
    export.export(trained, folder=tmp_path / "a", **place)
    assert same(filled(books.folder, version), trained)
    again = filled(tmp_path / "a", version)
    assert same(again, trained)
    export.export(again, folder=tmp_path / "b", **place)
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_what_transformers_saves_is_read_whole_in_shards_or_in_halves(version, tmp_path):
    """Their own save_pretrained: one file, many with an index, and bfloat16, whose numbers float32 holds exactly."""
    model = exported(tmp_path / "hf", version)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    for name, options in {"whole": {}, "shards": {"max_shard_size": "20KB"}}.items():
        theirs.save_pretrained(tmp_path / name, **options)
        shutil.copy(version.tokenizer_file, tmp_path / name)
        assert same(filled(tmp_path / name, version), model)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "halves")
    shutil.copy(version.tokenizer_file, tmp_path / "halves")
    halves = filled(tmp_path / "halves", version)
    assert halves.embedding.weight.dtype == torch.float32
    assert torch.equal(halves.embedding.weight, model.embedding.weight.bfloat16().float())


def test_a_run_and_its_checkpoints_can_be_gone_on_from(manifest, version, run_file, tmp_path):
    first = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs")
    steps = checkpoint.steps(first.checkpoints)
    newest, older = (filled(folder, version) for folder in (first.folder, steps[0]))
    assert same(newest, filled(steps[-1], version)) and not same(newest, older)
    again = runs.fit(run_file, manifest, tmp_path / "more", changes=(f"init={first.folder}",))
    assert again.table["digest"] != first.table["digest"]
    assert runs.losses(again)[0] < runs.losses(first)[0] - 0.5
    _, run, _ = journal.read(again.folder)
    assert run.init.folder == str(first.folder)
    shutil.rmtree(first.folder)
    assert loop.load(run, version, again) is not None


def test_stopped_and_resumed_is_as_if_never_stopped(manifest, version, run_file, tmp_path):
    exported(tmp_path / "hf", version, TABLES["gpt2"], scale=1)
    changes = (f"init={tmp_path / 'hf'}",)
    whole = runs.fit(run_file, manifest, tmp_path / "whole", changes=changes)
    for after in (5, 3, None):
        parts = runs.fit(run_file, manifest, tmp_path / "parts", after=after, changes=changes)
    assert parts.table["resumed_at"] == [5, 8] and runs.losses(parts) == runs.losses(whole)
    ends = [checkpoint.read_weights(checkpoint.steps(j.checkpoints)[-1]) for j in (whole, parts)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_identity_knows_the_weights_and_not_where_they_lay(version, run_file, tmp_path):
    def identity(folder: str, *changes: str) -> str:
        return config.load(run_file, [f"init={tmp_path / folder}", *changes]).identity("0" * 16)

    exported(tmp_path / "a", version)
    exported(tmp_path / "b", version)
    exported(tmp_path / "c", version, seed=2)
    assert identity("a") == identity("b") != identity("c")
    assert identity("a", "model.width=64", "model.family=gpt") == identity("a")
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    tensors["model.norm.weight"][0] += 1e-6
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    assert identity("a") != identity("b")
    plain = runs.write_run(tmp_path)
    table = models.described(TABLES["grouped"] | {"family": "gpt"}, "")
    fresh = [f"model.{key}={json.dumps(value)}" for key, value in table.items()]
    assert config.load(plain, fresh).identity("0" * 16) != identity("a")


def test_padded_vocabularies_and_longer_contexts_are_cut(version, tmp_path):
    """The logits of the tokens that exist are those of the larger model."""
    size, table = version.manifest.tokenizer.vocab_size, TABLES["gpt2"]
    exported(tmp_path / "hf", version, table)
    large = decoder(table, vocab_size=size + 28, length=LENGTH + 16)
    family = export.hugging_face.of_model(large)
    save_file(family.theirs(large), tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(family.config(large, eot=0, length=48)), "utf-8")
    small = filled(tmp_path / "hf", version)
    tokens = torch.arange(LENGTH)[None] * 7
    with torch.inference_mode():
        logits = [m.logits(m(tokens, torch.arange(LENGTH)[None], None)) for m in (small, large)]
    assert logits[0].shape[-1] == size and (logits[0] - logits[1][..., :size]).abs().max() < 1e-5


def test_another_tokenizer_is_refused_and_another_hand_is_not(manifest, version, run_file, tmp_path):
    exported(tmp_path / "hf", version)
    file = tmp_path / "hf" / "tokenizer.json"
    table = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(table, sort_keys=True), "utf-8")
    filled(tmp_path / "hf", version)
    old = initial.tokenizer_digest(version.tokenizer_file, version.manifest.tokenizer.vocab_size)
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(file))
    theirs = initial.tokenizer_digest(file, version.manifest.tokenizer.vocab_size)
    with pytest.raises(TrainingError, match=rf"tokenizer\.json: .* {theirs} .*{old}; build"):
        runs.fit(run_file, manifest, tmp_path / "runs", changes=(f"init={tmp_path / 'hf'}",))
    file.unlink()
    with pytest.raises(TrainingError, match=r"tokenizer\.json: missing"):
        filled(tmp_path / "hf", version)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_a_pickle_is_never_opened(version, run_file, tmp_path, name):
    exported(tmp_path / "hf", version)
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / name)
    with pytest.raises(TrainingError, match=rf"holds its weights as a pickle \({name}\), which runs code"):
        config.load(run_file, [f"init={tmp_path / 'hf'}"])
    (tmp_path / "hf" / name).rename(tmp_path / "hf" / "model.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(TrainingError, match="not a safetensors file that can be read"):
        filled(tmp_path / "hf", version)


def test_shards_and_their_index_must_agree(version, tmp_path):
    exported(tmp_path / "hf", version)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "model.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"no weights here, neither model\.safetensors nor"):
        initial.source(tmp_path / "hf")
    save_file(tensors, tmp_path / "hf" / "part.safetensors")
    index = tmp_path / "hf" / "model.safetensors.index.json"

    def refused(files: Any, said: str) -> None:
        index.write_text(json.dumps({"weight_map": files}), "utf-8")
        with pytest.raises(TrainingError, match=said):
            filled(tmp_path / "hf", version)

    right = dict.fromkeys(tensors, "part.safetensors")
    refused({}, "no 'weight_map'")
    refused(right | {"more": "part.safetensors"}, "'more' is in the shard or in")
    refused(dict(list(right.items())[1:]), "is in the shard or in")
    refused(right | {"more": "other.safetensors"}, r"other\.safetensors: missing, though")
    refused(right | {"more": "../part.safetensors"}, r"'\.\./part\.safetensors' is no name")
    refused(right | {"more": "part.bin"}, r"'part\.bin' is no name")
    index.write_text(json.dumps({"weight_map": right}), "utf-8")
    filled(tmp_path / "hf", version)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model.width=32", r"\[model\]: width is 32, and that of the model in .* 64; leave \[model\] out"),
        ("model.widht=64", r"\[model\]: unknown key 'widht'; did you mean 'width'"),
        ("model.family=bart", r"\[model\]: family is 'bart'"),
        ("model=3", r"model: expected a table, got 3"),
        ("init=3", r"init: expected the name of a folder, got 3"),
        ("init.folder=x", r"'init' is a value"),
        ("init=/nowhere", r"init /nowhere: no run \(run\.json\), checkpoint .* Hugging Face folder"),
    ],
)
def test_a_run_file_that_cannot_go_on_is_refused(version, run_file, tmp_path, change, said):
    exported(tmp_path / "hf", version)
    with pytest.raises(TrainingError, match=said):
        config.load(run_file, [f"init={tmp_path / 'hf'}", change])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, r"config\.json: unknown model_type 'mamba'.* has: .*gpt2, llama, modernbert, qwen3"),
        ({"use_sliding_window": True}, r"config\.json: use_sliding_window True is not computed here"),
        ({"hidden_size": "64"}, r"hf \(gpt\): width: .*'64'"),
        ({"num_key_value_heads": 3}, "heads 4 is not a multiple of kv_heads 3"),
    ],
)
def test_a_config_that_is_not_ours_is_refused_with_its_place(version, run_file, tmp_path, change, said):
    exported(tmp_path / "hf", version)
    place = tmp_path / "hf" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(TrainingError, match=said):
        config.load(run_file, [f"init={tmp_path / 'hf'}"])


def test_a_tensor_too_many_or_of_another_shape_is_refused(version, tmp_path):
    exported(tmp_path / "hf", version)
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)

    def refused(changed: dict[str, torch.Tensor], said: str) -> None:
        save_file(changed, file)
        with pytest.raises(TrainingError, match=said):
            filled(tmp_path / "hf", version)

    refused({**tensors, "lm_head.weight": torch.ones_like(tensors["model.embed_tokens.weight"])}, "'head.weight'")
    refused({**tensors, "score.weight": torch.ones(2, 2)}, r"hf: 'score\.weight' is no tensor")
    refused({**tensors, "model.norm.weight": torch.ones(65)}, r"'norm\.weight' is \[65\], the model's is \[64\]")
    refused({**tensors, "model.norm.weight": torch.ones(1)}, r"'norm\.weight' is \[1\]")
    refused({name: t for name, t in tensors.items() if "k_norm" not in name}, "key_norm")
    fewer = tensors["model.embed_tokens.weight"][:-1].clone()
    refused({**tensors, "model.embed_tokens.weight": fewer}, r"hf: 'embedding\.weight' has 299 rows; .* need 300")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, file)
    filled(tmp_path / "hf", version)


def test_a_folder_without_any_checkpoint_yet(manifest, tmp_path):
    (tmp_path / "run").mkdir()
    books = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", after=1)
    shutil.rmtree(books.checkpoints)
    with pytest.raises(TrainingError, match="has no checkpoint yet"):
        initial.source(books.folder)


EXTRA = {
    "masked": ('model.family="bert"', 'objective.use="masked"'),
    "masked modernbert": ('model.family="modernbert"', 'objective.use="masked"'),
    "span": ('model.family="t5"', 'objective.use="span"', "objective.sentinels=20"),
    "infill": ('model.form="gpt2"', 'objective.use="infill"'),
}


@pytest.mark.parametrize("objective", EXTRA)
def test_an_export_with_tokens_of_its_objective_can_be_gone_on_from(manifest, version, run_file, tmp_path, objective):
    """Trained, exported, and begun with: every weight is the same, in a run of that objective as of none before."""
    changes = (*EXTRA[objective], "schedule.steps=2", "schedule.warmup=0", "schedule.decay=0", "evaluation.orders=[2]")
    first = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", changes=changes)
    runs.command(1, "export", str(first.folder), str(tmp_path / "hf"))
    begun = [change for change in changes if not change.startswith("model.")]
    run = config.load(run_file, [f"init={tmp_path / 'hf'}", *begun])
    asked = objectives.load(run.objective, "").over(version)
    model = objectives.build(asked, run.model, version, "")
    initial.fill(model, tmp_path / "hf", version, extra_tokens=asked.extra_tokens)
    assert same(model, loop.load(config.load(run_file, [f"init={first.folder}", *begun]), version, first))
    again = runs.fit(run_file, manifest, tmp_path / "more", changes=(f"init={tmp_path / 'hf'}", *begun))
    assert again.complete and runs.losses(again)[0] < runs.losses(first)[0]


def run_of(folder: Path) -> Any:
    """Our own folder, as `init` reads it, or its export."""
    runs.command(1, "export", str(folder), str(folder.parent / "exported"))
    return {"run": folder, "export": folder.parent / "exported"}


@pytest.mark.parametrize("form", ["qwen3", "gpt2"])
@pytest.mark.parametrize("tied", ["true", "false"])
def test_a_causal_model_goes_on_to_fill_in_the_middle(manifest, version, run_file, tmp_path, form, tied):
    """What it knew of its own tokens stays to the bit; a sentinel begins as their mean, in the table and in the head.

    Of the logits of `transformers` nothing changes but for three more columns.
    """
    changes = (f'model.form="{form}"', f"model.tie_embeddings={tied}")
    first = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", changes=changes)
    old = loop.load(config.load(runs.write_run(tmp_path), changes), version, first)
    objective = objectives.load({"use": "infill"}, "")
    size = version.manifest.tokenizer.vocab_size
    for place in run_of(first.folder).values():
        run = config.load(run_file, [f"init={place}", "objective.use=infill"])
        model = objectives.build(objective, run.model, version, "")
        fresh = initial.fill(model, place, version, extra_tokens=objective.extra_tokens)
        assert fresh == list(objective.extra_tokens)
        for name, parameter in old.named_parameters():
            new = dict(model.named_parameters())[name]
            assert torch.equal(new[: len(parameter)], parameter), name
            for row in new[len(parameter) :]:
                assert torch.allclose(row, parameter[-1] if "positions" in name else parameter.mean(0), atol=1e-7)
        tokens = torch.arange(LENGTH)[None] * 7
        with torch.inference_mode():
            logits = [m.logits(m.eval()(tokens, torch.arange(LENGTH)[None], None)) for m in (old, model)]
        assert logits[1].shape[-1] == size + 3 and torch.allclose(logits[0], logits[1][..., :size], atol=1e-6)
        assert torch.allclose(logits[1][..., size:], logits[0].mean(-1, keepdim=True), atol=1e-5)
    changes = (f"init={first.folder}", "objective.use=infill", "objective.rate=0")
    again = runs.fit(run_file, manifest, tmp_path / "more", changes=changes)
    assert again.complete and runs.losses(again)[0] < runs.losses(first)[0] - 0.3


def test_more_sentinels_than_there_were_begin_as_the_mean(version, manifest, run_file, tmp_path):
    """Of a run of span corruption: the sentinels that it had keep their weights, in the run as in its export."""
    changes = ('model.family="t5"', 'objective.use="span"', "objective.sentinels=20", "schedule.steps=3")
    first = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", changes=(*changes, "schedule.decay=0"))
    more = objectives.load({"use": "span", "sentinels": 25}, "")
    run = config.load(run_file, [f"init={first.folder}", "objective.use=span"])
    model = objectives.build(more, run.model, version, "")
    fresh = initial.fill(model, first.folder, version, extra_tokens=more.extra_tokens)
    assert fresh == list(more.extra_tokens[20:])
    table = initial.source(first.folder).tensors()["embedding.weight"]
    assert torch.equal(model.embedding.weight[:-5], table) and len(table) == version.manifest.tokenizer.vocab_size + 20
    assert torch.allclose(model.embedding.weight[-5:], table.mean(0).expand(5, -1), atol=1e-7)


def test_rows_of_a_padded_vocabulary_are_no_sentinels(version, tmp_path):
    """They mean nothing, whatever stands there: the tokenizer says what is known."""
    size = version.manifest.tokenizer.vocab_size
    exported(tmp_path / "hf", version)
    large = decoder(TABLES["grouped"], vocab_size=size + 28, length=LENGTH)
    family = export.hugging_face.of_model(large)
    save_file(family.theirs(large), tmp_path / "hf" / "model.safetensors")
    config_file = tmp_path / "hf" / "config.json"
    config_file.write_text(json.dumps(family.config(large, eot=0, length=LENGTH)), "utf-8")
    objective = objectives.load({"use": "infill"}, "")
    model = objectives.build(objective, models.described(initial.source(tmp_path / "hf").model, ""), version, "")
    assert initial.fill(model, tmp_path / "hf", version, extra_tokens=objective.extra_tokens)
    known = large.embedding.weight[:size]
    assert torch.allclose(model.embedding.weight[size:], known.mean(0).expand(3, -1), atol=1e-6)


def test_tokens_behind_the_tokenizer_are_the_objectives_or_nobodys(version, tmp_path):
    """Those of another objective would have weights that mean something else; with none asked for they are cut."""
    token = version.manifest.tokenizer
    names = objectives.load({"use": "infill"}, "").extra_tokens
    model = decoder(TABLES["grouped"], vocab_size=token.vocab_size + 3, length=LENGTH)
    place = {"tokenizer_file": version.tokenizer_file, "eot": token.eot, "length": LENGTH}
    export.export(model, folder=tmp_path / "hf", extra_tokens=names, **place)
    smaller = filled(tmp_path / "hf", version)
    assert torch.equal(smaller.embedding.weight, model.embedding.weight[:-3])
    with pytest.raises(
        TrainingError, match=r"'<\|fim_prefix\|>' stands behind .* the objective has '<\|mask\|>'; go on"
    ):
        initial.fill(smaller, tmp_path / "hf", version, extra_tokens=["<|mask|>"])
    tokenizer = Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    tokenizer.add_tokens(["miller"])
    tokenizer.save(str(tmp_path / "hf" / "tokenizer.json"))
    with pytest.raises(TrainingError, match="build a version with the model's tokenizer"):
        filled(tmp_path / "hf", version)
