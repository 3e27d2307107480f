"""The verb `generate`: transformers' own continuations of what was exported, and what a person is told."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.training import exported, runs
from training import TrainingError, checkpoint, loading, using
from training.generate import generate

WORDS = "the mill wheel turns 磨坊 在 河边 flour 😀 of and naïve , . ! 123".split()
PROMPTS = [" ".join(WORDS[(n * 5 + k * k) % len(WORDS)] for k in range(1 + n % 23)) for n in range(50)]
GREEDY = {"temperature": 0.0, "top_k": None, "top_p": None, "return_sequences": 1, "seed": 0}


@pytest.fixture(scope="module", params=exported.FORMS)
def folder(request, tmp_path_factory):
    return exported.folder(tmp_path_factory.mktemp("exported"), request.param)


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return exported.folder(tmp_path_factory.mktemp("qwen3"), "qwen3")


@pytest.fixture(scope="module")
def done(manifest, tmp_path_factory):
    return runs.fit(runs.write_run(tmp_path_factory.mktemp("run")), manifest, tmp_path_factory.mktemp("runs"))


def theirs_of(folder):
    kind = AutoModelForSeq2SeqLM if folder.name == "t5" else AutoModelForCausalLM
    return kind.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_of_fifty_prompts_are_those_of_transformers(folder, penalty):
    """Each prompt by itself there; here ragged, 16 side by side, the next as one ends."""
    loaded, (theirs, tokenizer) = loading.load(folder), theirs_of(folder)
    asked = [loaded.encode(text) for text in PROMPTS]
    assert len({len(ids) for ids in asked}) > 15 and asked == tokenizer(PROMPTS)["input_ids"]
    known = {"new_tokens": 24, "eot": loaded.start, "ends": loaded.ends, "repetition_penalty": penalty, "batch": 16}
    found = generate(loaded.model, asked, **GREEDY, **known)
    different = set()
    for ids, [mine] in zip(asked, found, strict=True):
        given = torch.tensor([ids])
        more = {"max_new_tokens": 24, "do_sample": False, "repetition_penalty": penalty}
        with torch.inference_mode():
            said = theirs.generate(given, attention_mask=torch.ones_like(given), **more)[0].tolist()
        assert mine == said[1 if folder.name == "t5" else len(ids) :]
        different.add(tuple(mine))
    assert len(different) > 20


def test_the_verb_says_what_transformers_says_with_its_stop_strings(folder, training):
    theirs, tokenizer = theirs_of(folder)
    prompt, stop = "the mill", " "
    options = ("--greedy", "--new-tokens", 30)
    [entry] = json.loads(training("generate", folder, "--prompt", prompt, *options, "--stop", stop, "--json"))[
        "prompts"
    ]
    ids = tokenizer([prompt], return_tensors="pt")["input_ids"]
    known = {"max_new_tokens": 30, "do_sample": False, "tokenizer": tokenizer, "stop_strings": [stop]}
    made = theirs.generate(ids, attention_mask=torch.ones_like(ids), **known)[0]
    made = made[1:] if folder.name == "t5" else made[ids.shape[1] :]
    assert entry["tokens"] == [made.tolist()]
    whole = tokenizer.decode(made, skip_special_tokens=True)
    assert entry["continuations"] == [whole.partition(stop)[0]]
    assert entry["ended"] == ["stop" if len(made) < 30 else "length"]


def test_a_run_and_its_checkpoint_continue_alike(done, training):
    options = ("--prompt", "the mill", "--greedy", "--new-tokens", 8, "--json")
    newest = checkpoint.steps(done.checkpoints)[-1]
    said = [
        json.loads(training("generate", place, *options))["prompts"][0]["tokens"] for place in (done.folder, newest)
    ]
    assert said[0] == said[1]
    earlier = checkpoint.steps(done.checkpoints)[0]
    first, last = (loading.load(place).model.state_dict() for place in (earlier, newest))
    assert earlier != newest and any(not torch.equal(first[name], last[name]) for name in first)


KINDS = {
    **{form: (f'model.form="{form}"',) for form in ("qwen3", "llama", "gpt2")},
    "span": ('model.family="t5"', 'objective.use="span"'),
    "seq2seq": ('model.family="t5"', 'objective.use="seq2seq"'),
    "instruct": ('objective.use="instruct"',),
}
ASKED = ["", "the mill", "water from that river", "grinds grain <extra_id_0> flour", "磨坊 naïve 😀", " people  wait\n"]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, manifest, tmp_path_factory):
    """The kind, and the folder of a run of it."""
    place, changes = tmp_path_factory.mktemp(request.param), KINDS[request.param]
    if request.param in ("seq2seq", "instruct"):
        manifest = runs.version(place / "v", layout="examples", length=64)
    few = ("schedule.steps=40", "evaluation.orders=[2]", "samples.documents=0")
    return request.param, runs.fit(runs.write_run(place), manifest, place / "runs", changes=(*changes, *few)).folder


def test_a_run_and_its_export_in_transformers_continue_alike(trained, training, tmp_path):
    """Text in, through the exported tokenizer, which says what stands around it; after `instruct` by its template."""
    kind, folder = trained
    training("export", folder, tmp_path / "hf")
    options = [word for prompt in ASKED for word in ("--prompt", prompt)]
    ours = json.loads(training("generate", folder, *options, "--greedy", "--new-tokens", 12, "--json"))["prompts"]
    pairs = "t5" in str(KINDS[kind])
    theirs = (AutoModelForSeq2SeqLM if pairs else AutoModelForCausalLM).from_pretrained(tmp_path / "hf").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    put = loading.load(folder).prompted
    for prompt, entry in zip(ASKED, ours, strict=True):
        assert entry["prompt"] == prompt
        read = tokenizer(put(prompt), return_tensors="pt")  # after `span` with its gap
        if kind == "instruct":
            messages = [{"role": "user", "content": prompt}]
            form = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
            read = tokenizer.apply_chat_template(messages, **form)
        given = read["input_ids"]
        known = {"attention_mask": torch.ones_like(given), "max_new_tokens": 12, "do_sample": False}
        made = theirs.generate(given, **known)[0, 1 if pairs else given.shape[1] :]
        assert entry["tokens"] == [made.tolist()]
        if not pairs:
            assert entry["continuations"] == [tokenizer.decode(made, skip_special_tokens=True)]
    assert len({tuple(entry["tokens"][0]) for entry in ours}) > 2
    shown = training("generate", folder, *options, "--greedy", "--new-tokens", 12)
    between = "\n" if pairs or kind == "instruct" else ""  # an answer has a line of its own
    texts = [(using.terminal.visible(entry["prompt"]), *entry["continuations"]) for entry in ours]
    assert shown == "".join(f"{prompt}{between}{using.terminal.visible(text)}\n\n" for prompt, text in texts)


def test_export_holds_weights_as_it_is_told(done, training, tmp_path):
    for options, kind in (((), "float32"), (("--weights", "bf16"), "bfloat16")):
        training("export", done.folder, tmp_path / "hf", *options)
        assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == kind
    said = training("export", done.folder, tmp_path / "hf", "--weights", "q8_0", code=2)
    assert "weights 'q8_0': a folder holds f32, bf16, f16" in said


def test_the_terminal_shows_what_json_holds_in_the_order_of_the_prompts(qwen3, training):
    options = ("--prompt", "the mill", "--prompt", "磨坊", "--return-sequences", 3, "--seed", 5, "--new-tokens", 9)
    table = json.loads(training("generate", qwen3, *options, "--json"))["prompts"]
    expected = "".join(
        f"{entry['prompt']}{using.terminal.visible(text)}\n\n" for entry in table for text in entry["continuations"]
    )
    for batch in (1, 4, 32):
        assert training("generate", qwen3, *options, "--batch", batch) == expected
    assert len({text for entry in table for text in entry["continuations"]}) == 6


def test_prompts_come_from_a_file_and_from_stdin(qwen3, training, tmp_path, monkeypatch):
    (tmp_path / "p.txt").write_text("the mill\r\nthe river\n", "utf-8")
    (tmp_path / "p.jsonl").write_text('"the mill"\n{"prompt": "the river", "id": 3}\n', "utf-8")
    options = ("--new-tokens", 5, "--json")
    given = []
    for more in (
        ("--prompt", "the mill", "--prompt", "the river"),
        ("--file", tmp_path / "p.txt"),
        ("--file", tmp_path / "p.jsonl"),
        ("--prompt", "the mill", "--file", "-"),
    ):
        with (tmp_path / "p.txt").open() as file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", file)
            given.append(training("generate", qwen3, *options, *more))
    assert given[0] == given[1] == given[2] != given[3]
    assert [entry["prompt"] for entry in json.loads(given[3])["prompts"]] == ["the mill", "the mill", "the river"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.txt", b"", "p.txt: holds no prompt; give one a line"),
        ("p.txt", b"ab\xff", "p.txt: not UTF-8 at byte 2"),
        ("p.jsonl", b'"a"\n{"text": "b"}\n', 'p.jsonl:2: expected a string, or an object with a string "prompt"'),
        ("p.jsonl", b'"a"\n{\n', "p.jsonl:2: not JSON"),
    ],
)
def test_a_file_without_prompts_is_refused_by_line(qwen3, training, tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in training("generate", qwen3, "--file", tmp_path / name, code=2)
    assert "nowhere.txt: cannot be read" in training("generate", qwen3, "--file", "nowhere.txt", code=2)


def test_a_prompt_of_nothing_begins_a_text(qwen3, training):
    entries = json.loads(training("generate", qwen3, "--prompt", "", "--greedy", "--new-tokens", 5, "--json"))[
        "prompts"
    ]
    loaded = loading.load(qwen3)
    [[tokens]] = generate(loaded.model, [[loaded.start]], new_tokens=5, eot=loaded.start, **GREEDY)
    assert entries[0]["tokens"] == [tokens] and entries[0]["prompt"] == ""


def test_a_prompt_beyond_the_context_is_refused_and_never_cut(folder, training):
    length = loading.load(folder).model.length
    said = training("generate", folder, "--prompt", "the mill " * 64, code=2)
    assert re.search(rf"error: the prompt has \d+ tokens, and the model's context is {length}", said)
    assert said.count("\n") == 1


def test_a_prompt_of_a_million_tokens_is_refused_at_once(qwen3):
    """Without cutting it into tokens: it cannot have fewer than its bytes over those of the longest token."""
    loaded = loading.load(qwen3)
    began = time.process_time()
    with pytest.raises(TrainingError, match=r"prompt 2 has at least \d+,\d\d\d tokens, .* context is 128"):
        using._asked(loaded, ["a", "the mill " * 500_000], using_sampling(), None, 1, [])
    assert time.process_time() - began < 1


def using_sampling():
    from training.sampling import Sampling

    return Sampling()


def test_the_context_is_filled_where_nobody_says_how_far(qwen3, training):
    text = "the mill " * 20
    [entry] = json.loads(training("generate", qwen3, "--prompt", text, "--json"))["prompts"]
    ids = loading.load(qwen3).encode(text)
    assert len(entry["tokens"][0]) == 128 - len(ids) and entry["ended"] == ["length"]
    said = training("generate", qwen3, "--prompt", text, "--new-tokens", 128, code=2)
    assert f"ask for at most {128 - len(ids)} new tokens, or cut the prompt" in said


def test_what_a_model_says_cannot_move_the_cursor(qwen3, training, monkeypatch):
    """A model that writes escapes: they are shown."""
    written = "\x1b[2Ja\u202eb\r\x07磨"
    loaded = loading.load(qwen3)
    ids = iter(loaded.read(written, bare=True))
    monkeypatch.setattr("training.decoding.Batch._choose", lambda *_: torch.tensor([next(ids)]))
    said = training("generate", qwen3, "--prompt", "a\x1b[31m", "--new-tokens", len(loaded.read(written, bare=True)))
    assert said == "a\\x1b[31m\\x1b[2Ja\\u202eb\\r\\x07磨\n\n"


def test_half_a_character_is_held_back(qwen3, monkeypatch):
    loaded, said = loading.load(qwen3), []
    ids = loaded.read("a鎧b", bare=True)
    assert len(ids) > 3
    rest = iter(ids)
    monkeypatch.setattr("training.decoding.Batch._choose", lambda *_: torch.tensor([next(rest)]))
    monkeypatch.setattr(using._Printer, "_say", staticmethod(said.append))
    asked = using._asked(loaded, ["x"], using_sampling(), len(ids), 1, [])
    using._write(loaded, asked, 1, using._Printer(asked))
    assert [piece for piece in said if piece] == ["x", "a", "鎧", "b"]


def test_a_prompt_that_is_no_text_is_refused(qwen3, training):
    """Bytes of the command line that are no UTF-8 come as lone surrogates."""
    assert "is no Unicode text at character 2" in training("generate", qwen3, "--prompt", "ab\udcff", code=2)


def test_what_is_no_model_is_told_by_what_could_be(tmp_path, training):
    said = training("generate", tmp_path, "--prompt", "a", code=2)
    assert "no run (run.json), checkpoint (state.json) or Hugging Face folder (config.json) is here" in said


@pytest.mark.parametrize("option", [("--top-k", 0), ("--temperature", -1), ("--repetition-penalty", 0), ("--min-p", 2)])
def test_an_option_that_cannot_be_is_refused(qwen3, training, option):
    assert option[0].strip("-").replace("-", "_") in training("generate", qwen3, *option, code=2).replace("-", "_")


def test_a_masked_run_writes_nothing(manifest, tmp_path, training):
    changes = ('objective.use="masked"', 'model.family="bert"')
    done = runs.fit(runs.write_run(tmp_path / "run"), manifest, tmp_path / "runs", changes=changes)
    said = training("generate", done.folder, "--prompt", "a", code=2)
    assert "a bert model sees both ways and continues no text; give one of a causal family or t5" in said
