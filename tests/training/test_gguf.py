"""GGUF files: what is read back is the model, by `transformers` and, where it is installed, by llama.cpp itself."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from tests.training import exported, runs
from tests.training.small_models import decoder
from training import TrainingError, chat, gguf, loading

reader = pytest.importorskip("gguf")
TEXTS = [*exported.TEXTS, "it's 12345  tabs\tand\n\n lines, 3.5% of 2026年", "مرحبا Привет e\u0301 <|endoftext|>x", " "]
LLAMA_2 = {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False}


@pytest.fixture(scope="module", params=["qwen3", "llama", "gpt2"])
def folder(request, tmp_path_factory):
    return exported.folder(tmp_path_factory.mktemp(request.param), request.param)


def ours(place, texts):
    """The tokens of texts, and their logits by our model."""
    loaded = loading.load(place, "cpu")
    asked = [loaded.encode(text) for text in texts]
    with torch.no_grad():
        hidden = [loaded.model(torch.tensor([ids]), torch.arange(len(ids))[None], None) for ids in asked]
        return asked, [loaded.model.logits(each)[0] for each in hidden]


def test_transformers_reads_the_same_model_and_the_same_tokens(folder, tmp_path):
    gguf.export(folder, tmp_path / "m.gguf", "f32")
    config = load_gguf_checkpoint(str(tmp_path / "m.gguf"))["config"]
    # transformers 5.23 passes over the file's key_length, and over the context_length of gpt2.
    whole = json.loads((folder / "config.json").read_text())
    config |= {key: whole[key] for key in ("head_dim", "n_positions") if key in whole}
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    tensors = load_gguf_checkpoint(str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=theirs)["tensors"]
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    theirs.tie_weights()
    for ids, logits in zip(*ours(folder, TEXTS), strict=True):
        with torch.no_grad():
            assert (theirs(torch.tensor([ids])).logits[0] - logits).abs().max() < 1e-4
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    mine = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert read.encode(text, add_special_tokens=False) == mine.encode(text, add_special_tokens=False)
    assert read.bos_token_id == read.eos_token_id == mine.eos_token_id


def test_llama_cpp_writes_the_same_text(folder, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    gguf.export(folder, tmp_path / "m.gguf", "f32")
    theirs = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=128, logits_all=True, verbose=False, n_threads=1)
    for text, ids, logits in zip(TEXTS, *ours(folder, TEXTS), strict=True):
        assert theirs.tokenize(text.encode(), special=True) == ids
        theirs.reset()
        theirs.eval(ids)
        assert np.abs(theirs.scores[: len(ids)] - logits.numpy()).max() < 2e-2  # its activations are half precision


def test_the_shape_of_the_model_is_said_as_llama_cpp_reads_it(folder, tmp_path):
    """Every key of its loader, against config.json: `transformers` passes over some of them."""
    gguf.export(folder, tmp_path / "m.gguf")
    said = json.loads((folder / "config.json").read_text())
    form, gpt2 = said["model_type"], said["model_type"] == "gpt2"
    heads, width = said["n_head" if gpt2 else "num_attention_heads"], said["n_embd" if gpt2 else "hidden_size"]
    expected = {
        "context_length": 128,
        "block_count": said["n_layer" if gpt2 else "num_hidden_layers"],
        "embedding_length": width,
        "feed_forward_length": said["n_inner" if gpt2 else "intermediate_size"] or 4 * width,
        "attention.head_count": heads,
    }
    if gpt2:
        expected["attention.layer_norm_epsilon"] = said["layer_norm_epsilon"]
    else:
        each = said["head_dim"]
        expected |= {"attention.head_count_kv": said["num_key_value_heads"], "rope.freq_base": said["rope_theta"]}
        expected |= dict.fromkeys(("rope.dimension_count", "attention.key_length", "attention.value_length"), each)
        expected["attention.layer_norm_rms_epsilon"] = said["rms_norm_eps"]
    found = contents(tmp_path / "m.gguf")
    shape = {name.removeprefix(f"{form}."): value for name, value in found.items() if name.startswith(f"{form}.")}
    assert shape == pytest.approx(expected)
    assert found["general.architecture"] == form and found["general.name"] == folder.name
    assert [found_type(folder, tmp_path, weights) for weights in ("f32", "f16", "bf16")] == [0, 1, 32]


def found_type(folder, place, weights):
    gguf.export(folder, place / "m.gguf", weights)
    return contents(place / "m.gguf")["general.file_type"]


def contents(path):
    return {name: field.contents() for name, field in reader.GGUFReader(path).fields.items()}


def test_tokens_their_kinds_and_the_template_are_said(tmp_path):
    """A model may have more rows than there are tokens; what is special is never read from a text."""
    place = exported.folder(tmp_path, "qwen3")
    (place / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    loaded = loading.load(place, "cpu")
    size, vocabulary = loaded.tokenizer.get_vocab_size(), loaded.tokenizer.get_vocab()
    wider = dataclasses.replace(loaded, model=decoder(exported.FORMS["qwen3"], vocab_size=size + 2, length=128))
    gguf.write(wider, tmp_path / "m.gguf")
    found = contents(tmp_path / "m.gguf")
    assert found["tokenizer.ggml.model"] == "gpt2" and found["tokenizer.ggml.pre"] == "gpt-2"
    tokens = found["tokenizer.ggml.tokens"]
    assert {token: number for number, token in enumerate(tokens[:size])} == vocabulary
    assert len(set(tokens)) == len(tokens) == size + 2
    kinds, [eot] = found["tokenizer.ggml.token_type"], loaded.ends
    assert kinds[eot] == reader.TokenType.CONTROL and kinds[size:] == [reader.TokenType.UNUSED] * 2
    assert kinds.count(reader.TokenType.NORMAL) == size - 1
    merges = json.loads((place / "tokenizer.json").read_text())["model"]["merges"]
    assert found["tokenizer.ggml.merges"] == [" ".join(merge) for merge in merges]
    assert found["tokenizer.ggml.bos_token_id"] == found["tokenizer.ggml.eos_token_id"] == eot
    assert found["tokenizer.ggml.add_bos_token"] is True and found["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(("weights", "worst"), [("f16", 5e-4), ("bf16", 4e-3), ("q8_0", 4e-3)])
def test_matrices_are_held_as_asked_and_vectors_whole(tmp_path, weights, worst):
    folder = exported.folder(tmp_path, "qwen3")
    gguf.export(folder, tmp_path / "m.gguf", weights)
    gguf.export(folder, tmp_path / "whole.gguf", "f32")
    found, whole = (
        {t.name: t for t in reader.GGUFReader(tmp_path / name).tensors} for name in ("m.gguf", "whole.gguf")
    )
    for name, tensor in found.items():
        asked = weights.upper() if len(tensor.shape) > 1 else "F32"
        assert tensor.tensor_type.name == asked
        values, exact = reader.quants.dequantize(tensor.data, tensor.tensor_type), whole[name].data
        assert np.abs(values - exact).max() <= worst * np.abs(exact).max()
    assert (tmp_path / "m.gguf").stat().st_size < (tmp_path / "whole.gguf").stat().st_size


def test_the_same_model_gives_the_same_bytes_and_its_papers_travel(tmp_path):
    folder = exported.folder(tmp_path, "qwen3")
    (folder / "README.md").write_text("# A card\n", "utf-8")
    for name in ("a.gguf", "b.gguf"):
        gguf.export(folder, tmp_path / name)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    fields = reader.GGUFReader(tmp_path / "a.gguf").fields
    assert fields["gristmill.model_card"].contents() == "# A card\n"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2" and fields["general.architecture"].contents() == "qwen3"
    assert not list(tmp_path.glob(".*gguf*"))


def test_a_run_is_written_with_its_papers_and_its_template(tmp_path, training):
    manifest = runs.version(tmp_path / "v", layout="examples", length=64)
    changes = ('objective.use="instruct"', "schedule.steps=2", "schedule.warmup=0", "schedule.decay=0")
    done = runs.fit(runs.write_run(tmp_path), manifest, tmp_path / "runs", changes=changes)
    training("export", done.folder, tmp_path / "m.gguf", "--weights", "f32")
    training("export", done.folder, tmp_path / "hf")
    found = contents(tmp_path / "m.gguf")
    for name, key in (("README.md", "gristmill.model_card"), ("ATTRIBUTION.md", "gristmill.attribution")):
        assert found[key] == (tmp_path / "hf" / name).read_text("utf-8")
    kinds = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"], strict=True))
    assert {kinds[name] for name in chat.NAMES} == {reader.TokenType.CONTROL}
    assert found["tokenizer.chat_template"] == chat.TEMPLATE


def test_a_file_that_could_not_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    folder = exported.folder(tmp_path, "qwen3")
    gguf.export(folder, tmp_path / "m.gguf")
    before = (tmp_path / "m.gguf").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reader.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(OSError, match="No space"):
        gguf.export(folder, tmp_path / "m.gguf", "f32")
    assert (tmp_path / "m.gguf").read_bytes() == before and not list(tmp_path.glob(".*gguf*"))


def test_what_llama_cpp_has_no_form_for_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(TrainingError, match="decoders"):
        gguf.export(exported.folder(tmp_path / "t5", "t5"), tmp_path / "m.gguf")
    folder = exported.folder(tmp_path, "qwen3")
    with pytest.raises(TrainingError, match="give one of f32, f16, bf16, q8_0"):
        gguf.export(folder, tmp_path / "m.gguf", "q2_k")
    with pytest.raises(TrainingError, match="blocks of 32; choose f16"):
        gguf.export(exported.folder(tmp_path / "gpt2", "gpt2"), tmp_path / "m.gguf", "q8_0")
    file = folder / "tokenizer.json"
    table = json.loads(file.read_text())
    table["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [LLAMA_2, table["pre_tokenizer"]]}
    file.write_text(json.dumps(table))
    with pytest.raises(TrainingError, match="no name for"):
        gguf.export(folder, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("*gguf*")) and not list(tmp_path.glob(".*gguf*"))
