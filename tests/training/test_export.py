"""An exported folder is the model: transformers loads it offline, with the same logits and the same ids."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    pipeline,
)

from tests.training.small_models import TABLES, decoder, tokens_of
from tests.training.versions import EOT, train_tokenizer
from training import TrainingError, export, generate, initial, loading, models

TEXTS = [
    "",
    "The mill wheel turns.",
    "  two  spaces , and a comma .  don't 'quote' \"it\" n't 's",
    "磨坊在河边。小麦变成面粉！\u3000",
    "tabs\tand\r\nlines\n\n\nend ",
    f"{EOT}spelt{EOT}{EOT} twice",
    "<|im_start|>user [INST] </s> <unk> <pad>",
    "family \U0001f469\u200d\U0001f467 e\u0301 \u00e9 \ufb01 \u00bd \x00\x01\x7f \u202eabc",
    "<script>alert(1)</script> \\n %s {{x}}",
]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("nothing may ask the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer([*TEXTS, "the wheel of the mill and the flour " * 9], 320).save(str(path))
    return path


def eot_of(path):
    return Tokenizer.from_file(str(path)).token_to_id(EOT)


def written(folder, tokenizer_file, table=TABLES["grouped"], **more):
    """An export and the model behind it."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    model = decoder(table, vocab_size=tokenizer.get_vocab_size(), length=128)
    eot = tokenizer.token_to_id(EOT)
    export.export(model, tokenizer_file=tokenizer_file, eot=eot, length=128, folder=folder, **more)
    return model


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_transformers_loads_the_same_model(tmp_path, tokenizer_file, table):
    model = written(tmp_path / "out", tokenizer_file, table)
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    names = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM", "gpt2": "GPT2LMHeadModel"}
    assert type(theirs).__name__ == names[model.config.form] and theirs.dtype == torch.float32
    tokens = tokens_of(2, 128, model.vocab_size)
    with torch.inference_mode():
        ours = model.logits(model(tokens, torch.arange(128).expand(2, -1), None))
        assert (ours - theirs.eval()(tokens).logits).abs().max() < 1e-5
    tied = theirs.lm_head.weight is theirs.get_input_embeddings().weight
    assert tied == model.config.tie_embeddings
    config, eot = AutoConfig.from_pretrained(tmp_path / "out"), eot_of(tokenizer_file)
    assert config.max_position_embeddings == 128
    assert config.bos_token_id == config.eos_token_id == eot
    said = theirs.generation_config
    assert (said.bos_token_id, said.eos_token_id, said.pad_token_id) == (eot, eot, eot)


SMALL = {"layers": 2, "width": 48, "heads": 3}


@pytest.mark.parametrize(
    ("family", "extra", "kind"),
    [
        ("bert", ("<|mask|>",), AutoModelForMaskedLM),
        ("modernbert", ("<|mask|>",), AutoModelForMaskedLM),
        ("t5", tuple(f"<extra_id_{k}>" for k in range(5)), AutoModelForSeq2SeqLM),
    ],
)
def test_the_tokens_of_an_objective_travel_with_its_model(tmp_path, tokenizer_file, family, extra, kind):
    """The ids behind the tokenizer's are spelt in the folder, and transformers gives our logits at them."""
    plain = Tokenizer.from_file(str(tokenizer_file))
    size, eot = plain.get_vocab_size(), eot_of(tokenizer_file)
    model = models.build({"family": family, **SMALL}, vocab_size=size + len(extra), length=128, where="[model]")
    model.initialise(3)
    place = {"tokenizer_file": tokenizer_file, "eot": eot, "length": 128, "folder": tmp_path / "out"}
    with pytest.raises(TrainingError, match=f"{size} tokens and 0 of the objective, but the model has {size}?"):
        export.export(model, **place)
    export.export(model, extra_tokens=extra, **place)
    tokenizer, theirs = AutoTokenizer.from_pretrained(tmp_path / "out"), kind.from_pretrained(tmp_path / "out").eval()
    assert tokenizer.convert_tokens_to_ids(list(extra)) == [size + k for k in range(len(extra))]
    assert tokenizer.mask_token == (None if family == "t5" else extra[0])
    tokens = torch.tensor([tokenizer(f"The mill {extra[-1]} turns. The wheel")["input_ids"]])
    assert size + len(extra) - 1 in tokens[0]
    with torch.inference_mode():
        if family != "t5":
            said = theirs(tokens).logits
            ours = model.logits(model(tokens, torch.arange(tokens.shape[1])[None], None))
        else:
            said = theirs(input_ids=tokens, decoder_input_ids=tokens).logits
            pieces = torch.zeros_like(tokens, dtype=torch.int32)
            ours = model.logits(model.decode(tokens, pieces, model.encode(tokens, pieces), pieces))
    assert (ours - said).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_the_pipeline_fill_mask_says_what_the_model_says(tmp_path, tokenizer_file, family):
    size, eot = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size(), eot_of(tokenizer_file)
    model = models.build({"family": family, **SMALL}, vocab_size=size + 1, length=128, where="[model]")
    model.initialise(3)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    place = {"tokenizer_file": tokenizer_file, "eot": eot, "length": 128, "folder": tmp_path / "out"}
    export.export(model, extra_tokens=("<|mask|>",), **place)
    filling = pipeline("fill-mask", str(tmp_path / "out"), top_k=size)
    text = f"The mill {filling.tokenizer.mask_token} turns."
    said = {entry["token"]: entry["score"] for entry in filling(text)}
    tokens = torch.tensor([filling.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        logits = model.logits(model(tokens, torch.arange(tokens.shape[1])[None], None))
    ours = logits[0, tokens[0].tolist().index(size)].softmax(-1)
    assert ours.max() > 2 / size and len(said) == size
    assert all(abs(float(ours[token]) - score) < 1e-5 for token, score in said.items())


@pytest.mark.parametrize("name", ["defaults", "llama", "gpt2"])
def test_the_pipeline_text_generation_continues_as_the_model_does(tmp_path, tokenizer_file, name):
    size, eot = Tokenizer.from_file(str(tokenizer_file)).get_vocab_size(), eot_of(tokenizer_file)
    model = decoder(TABLES[name], vocab_size=size, length=64)
    export.export(model, tokenizer_file=tokenizer_file, eot=eot, length=64, folder=tmp_path / "out")
    writing = pipeline("text-generation", str(tmp_path / "out"))
    [said] = writing("The mill turns", max_new_tokens=12, do_sample=False, return_tensors=True)
    read = writing.tokenizer("The mill turns")["input_ids"]
    options = {"temperature": 0.0, "top_k": None, "top_p": None, "return_sequences": 1, "seed": 0, "eot": eot}
    ours = generate.generate(model, [read], new_tokens=12, **options)
    assert said["generated_token_ids"] == read + ours[0][0]


def unlike_gpt2(path):
    """A tokenizer of another make, that a loader which rebuilds it from its class would not hit."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(tokenizer_models.BPE({token: i for i, token in enumerate([*alphabet, EOT])}, []))
    tokenizer.normalizer = normalizers.Replace("wheel", "gear")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([EOT])
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("make", ["trained", "unlike"])
def test_the_tokenizer_gives_the_same_ids_and_the_text_back(tmp_path, tokenizer_file, make):
    file = tokenizer_file if make == "trained" else unlike_gpt2(tmp_path / "tokenizer.json")
    written(tmp_path / "out", file)
    ours, theirs = Tokenizer.from_file(str(file)), AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        ids = ours.encode(text).ids
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs(text)["input_ids"] == [ours.token_to_id(EOT), *ids]
        assert theirs.decode(ids) == (text if make == "trained" else text.replace("wheel", "gear"))
    assert len(theirs) == ours.get_vocab_size() and theirs.model_max_length == 128
    assert theirs.bos_token == theirs.eos_token == EOT
    assert theirs.bos_token_id == theirs.eos_token_id == ours.token_to_id(EOT)


def test_files_names_and_bytes(tmp_path, tokenizer_file):
    for name in ("a", "b"):
        written(tmp_path / name, tokenizer_file, papers={"README.md": "# A card\n", "ATTRIBUTION.md": "x"})
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(export.FILES)
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    assert (tmp_path / "a" / "README.md").read_text() == "# A card\n"
    mine, its = (json.loads(path.read_text()) for path in (tmp_path / "a" / "tokenizer.json", tokenizer_file))
    assert {**mine, "post_processor": None} == {**its, "post_processor": None}
    with safe_open(tmp_path / "a" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
    assert "lm_head.weight" not in names and "model.layers.0.self_attn.q_norm.weight" in names
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000.0
    # transformers 4 would otherwise take the spaces before punctuation out of what it decodes.
    assert json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())["clean_up_tokenization_spaces"] is False
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_export_leaves_what_was_there(tmp_path, tokenizer_file, monkeypatch):
    written(tmp_path / "out", tokenizer_file)
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "save_file", full)
        for name in ("out", "new"):
            with pytest.raises(OSError, match="No space"):
                written(tmp_path / name, tokenizer_file, TABLES["untied"])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    written(tmp_path / "out", tokenizer_file, TABLES["untied"])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before


def test_what_no_export_wrote_is_never_removed(tmp_path, tokenizer_file):
    (tmp_path / "out").mkdir()
    written(tmp_path / "out", tokenizer_file)
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(TrainingError, match=r"holds 'thesis.tex', which no export wrote; name another folder"):
        written(tmp_path / "out", tokenizer_file)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="is no folder"):
        written(tmp_path / "file", tokenizer_file)


def test_a_tokenizer_or_a_model_that_does_not_belong_is_refused(tmp_path, tokenizer_file):
    place = {"tokenizer_file": tokenizer_file, "length": 128, "folder": tmp_path / "out"}
    small = decoder(TABLES["defaults"])
    with pytest.raises(TrainingError, match=r"320 tokens and 0 of the objective, but the model has 97"):
        export.export(small, eot=0, **place)
    with pytest.raises(TrainingError, match=r"has no token 320"):
        export.export(decoder(TABLES["defaults"], vocab_size=320), eot=320, **place)
    with pytest.raises(TrainingError, match=r"not a tokenizer\.json"):
        export.export(small, eot=0, **{**place, "tokenizer_file": tmp_path / "none"})
    with pytest.raises(TrainingError, match="has no export"):
        export.export(torch.nn.Linear(2, 2), eot=0, **place)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("weights", "kind"), [("bf16", torch.bfloat16), ("f16", torch.float16)])
def test_a_folder_holds_its_weights_as_asked(tmp_path, tokenizer_file, weights, kind):
    """Half as large; `transformers` takes the type from config.json, and we read the same numbers."""
    model = written(tmp_path / "out", tokenizer_file, weights=weights)
    written(tmp_path / "whole", tokenizer_file)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("out", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.dtype == kind
    tensors = initial.source(tmp_path / "out").tensors()
    for name, parameter in model.named_parameters():
        assert torch.equal(tensors[name].float(), parameter.detach().to(kind).float()), name
    loaded = loading.load(tmp_path / "out", "cpu").model
    tokens = tokens_of(2, 64, model.vocab_size)
    with torch.inference_mode():
        ours = loaded.logits(loaded(tokens, torch.arange(64).expand(2, -1), None))
        assert ours.dtype == torch.float32 and (ours - theirs.float()(tokens).logits).abs().max() < 1e-4


def test_weights_that_a_folder_cannot_hold_are_refused(tmp_path, tokenizer_file):
    with pytest.raises(TrainingError, match=r"'q8_0': a folder holds f32, bf16, f16; a target that ends in \.gguf"):
        written(tmp_path / "out", tokenizer_file, weights="q8_0")
    model = decoder(TABLES["grouped"], vocab_size=320, length=128)
    with torch.no_grad():
        model.layers[1].attention.query.weight[0, 0] = 1e6
    with pytest.raises(TrainingError, match=r"layers\.1\..*q_proj\.weight has values that f16 cannot hold"):
        export.export(model, tokenizer_file=tokenizer_file, eot=0, length=128, folder=tmp_path / "out", weights="f16")
    assert not (tmp_path / "out").exists()
