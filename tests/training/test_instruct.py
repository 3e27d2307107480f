"""Instruction tuning: the tokens of `apply_chat_template`, the loss of `transformers` on the answers, and a chat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training import runs
from tests.training.test_serving import served
from tests.training.versions import EOT, make_version
from training import TrainingError, chat, checkpoint, export, initial, journal, mix, objectives
from training.batch import row_keys
from training.manifest import Version, open_version
from training.shards import Split

GPT: dict[str, Any] = {"family": "gpt", "layers": 2, "width": 64, "heads": 4}
WORDS = "mill wheel grain flour stone river water miller sack bread oven field wheat barley sluice dam".split()
LENGTH = 64


def letters(word: str) -> tuple[str, str]:
    return f"How many letters has {word}?", f"The word {word} has {len(word)} letters."


def conversation(number: int) -> list[dict[str, str]]:
    """One question or two, one in three under a system message; contents with spaces, breaks and no Latin letters."""
    pairs = [letters(WORDS[number % len(WORDS)])]
    if number % 2:
        pairs.append((f" 磨坊 {number}\n\n\twhy ", f"因为 {number} <|assistant|> is text here\n"))
    system = [{"role": "system", "content": f"Be brief.\n{number}"}] if number % 3 == 1 else []
    roles = ("user", "assistant")
    return system + [{"role": r, "content": text} for pair in pairs for r, text in zip(roles, pair, strict=True)]


def document(messages: list[dict[str, str]]) -> dict[str, Any]:
    """A conversation as a version holds it: the turns of each side, with end-of-text between them."""
    sides = {side: [m["content"] for m in messages if (m["role"] == "assistant") == side] for side in (False, True)}
    return {"text": EOT.join(sides[False]), "target": EOT.join(sides[True])}


CONVERSATIONS = [conversation(number) for number in range(120)]


@pytest.fixture(scope="module")
def version(tmp_path_factory) -> Version:
    folder = tmp_path_factory.mktemp("version") / "v"
    documents = [document(messages) for messages in CONVERSATIONS]
    return open_version(make_version(folder, documents, length=LENGTH, layout="examples", vocab_size=500))


@pytest.fixture(scope="module")
def objective(version) -> Any:
    return objectives.load({"use": "instruct"}, "").over(version)


@pytest.fixture(scope="module")
def model(version, objective) -> Any:
    model = objectives.build(objective, GPT, version, "[model]")
    model.initialise(4)
    return model.eval()


@pytest.fixture(scope="module")
def exported(version, model, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("exported") / "hf"
    token = version.manifest.tokenizer
    export.export(
        model,
        tokenizer_file=version.tokenizer_file,
        eot=token.eot,
        length=LENGTH,
        folder=folder,
        extra_tokens=chat.NAMES,
        template=chat.TEMPLATE,
    )
    return folder


def conversations(rows: Any, version: Version) -> list[list[dict[str, str]]]:
    ids = version.documents["doc_id"].to_pylist()
    return [CONVERSATIONS[int(ids[number].partition(":")[2])] for number in rows.documents]


def plain(messages: list[dict[str, str]]) -> bool:
    """No message spells a token of the template: `transformers` takes such a text for the token."""
    return not any(chat.ASSISTANT in message["content"] for message in messages)


def test_a_row_is_told_as_the_exported_template_renders_it(version, objective, exported):
    theirs = AutoTokenizer.from_pretrained(exported)
    rows = Split(version, "train").take(np.arange(len(Split(version, "train"))))
    told, kinds = objective.told(rows), set()
    for number, messages in enumerate(conversations(rows, version)):
        tokens, learnt = told.tokens[number, : told.used[number]], told.learnt[number, : told.used[number]]
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        assert theirs.decode(tokens[learnt]) == "".join(answer + EOT for answer in answers)
        if plain(messages):
            kinds.add((len(messages), messages[0]["role"]))
            expected = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
            assert tokens.tolist() == expected
        else:
            kinds.add("spelt")
            marks = [len(theirs) - 2, len(theirs) - 1]
            assert sum(np.isin(tokens, marks)) == len(answers) + (messages[0]["role"] == "system")
    assert kinds == {(2, "user"), (3, "system"), "spelt"}


def test_several_turns_are_told_as_the_template_renders_them(tmp_path, objective, version, exported):
    """Without a message that spells a token, so that `transformers` reads them too."""
    theirs = AutoTokenizer.from_pretrained(exported)
    made = [[{**m, "content": m["content"].replace(chat.ASSISTANT, "it")} for m in c] for c in CONVERSATIONS]
    from tokenizers import Tokenizer

    place = make_version(
        tmp_path / "v",
        [document(messages) for messages in made],
        length=LENGTH,
        layout="examples",
        tokenizer=Tokenizer.from_file(str(version.tokenizer_file)),
    )
    mine = open_version(place)
    rows = Split(mine, "val").take(np.arange(12))
    told, ids, several = objective.told(rows), mine.documents["doc_id"].to_pylist(), 0
    for number, document_ in enumerate(rows.documents):
        messages = made[int(ids[document_].partition(":")[2])]
        expected = theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        assert told.tokens[number, : told.used[number]].tolist() == expected
        asked = theirs.apply_chat_template(messages[:-1], tokenize=True, add_generation_prompt=True, return_dict=True)
        assert expected[: len(asked["input_ids"])] == asked["input_ids"]
        several += len(messages) > 3
    assert several


def test_losses_are_those_of_transformers_on_the_answers(version, objective, model, exported):
    theirs = AutoModelForCausalLM.from_pretrained(exported).eval()
    rows = Split(version, "val").take(np.arange(8))
    told = objective.told(rows)
    with torch.inference_mode():
        ours = objective.losses(model, objective.prepare(rows, row_keys(0, 0, rows.index)))
        expected = []
        for tokens, used, learnt in zip(*told, strict=True):
            ids = torch.from_numpy(tokens[:used])[None]
            logits = theirs(input_ids=ids).logits[0, :-1]
            all_losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            expected.append(all_losses[torch.from_numpy(learnt[1:used])])
    assert (ours - torch.cat(expected)).abs().max() < 1e-4 and len(ours) > 50


def test_what_is_too_long_or_has_no_answer_is_left_out_and_counted(version, objective, tmp_path):
    """Told whole, a conversation is as long as both sides less one token; what does not fit is not learnt from."""
    texts = [{"text": "mill " * n, "target": "flour " * m} for n in (1, 20, 40) for m in (1, 20, 70)] * 4
    texts += [{"text": f"mill {n}", "target": ""} for n in range(4)]
    place = make_version(tmp_path / "v", texts, length=LENGTH, layout="examples", vocab_size=300)
    mine = open_version(place)
    bound: Any = objectives.load({"use": "instruct"}, "").over(mine)
    split = Split(mine, "train")
    rows = split.take(np.arange(len(split)))
    told = bound.told(rows)
    fits = (rows.used + rows.targets.used - 1 <= LENGTH) & (rows.targets.used > 1)
    learnt = told.learnt.any(1)
    assert learnt.tolist() == fits.tolist() and 0 < learnt.sum() < len(rows)
    assert bound.left_out(split) == int((~learnt).sum())
    assert (told.used[~learnt] == 1).all() and (told.used <= LENGTH).all()
    run = runs.write_run(tmp_path)
    changes = ('objective.use="instruct"', "schedule.steps=2", "schedule.warmup=0", "schedule.decay=0")
    done = runs.fit(run, place, tmp_path / "runs", changes=(*changes, "samples.documents=0"))
    assert done.table["left_out"] == {"rows": int((~learnt).sum()), "of": len(rows)}
    long = make_version(tmp_path / "long", [{"text": "a b " * 60, "target": "b"}] * 30, length=8, layout="examples")
    with pytest.raises(TrainingError, match=r"none of the 27 rows of 'train' has an answer and fits into 8"):
        runs.fit(run, long, tmp_path / "none", changes=changes)


def test_a_version_without_answers_is_refused(tmp_path):
    bare = make_version(tmp_path / "v", [{"text": "a mill"}] * 20, layout="examples")
    with pytest.raises(TrainingError, match=r"\(instruct\): .*has no answers; build it with"):
        objectives.load({"use": "instruct"}, "").over(open_version(bare))


@pytest.fixture(scope="module")
def tuned(version, tmp_path_factory) -> Any:
    """A decoder trained on the texts, then tuned on the conversations."""
    folder = tmp_path_factory.mktemp("tuned")
    quiet = ("samples.documents=0", "evaluation.orders=[2]", 'precision.compute="float32"')
    first = runs.fit(
        runs.write_run(folder / "first"),
        version.folder / "manifest.json",
        folder / "runs",
        changes=("schedule.steps=60", "model.width=64", *quiet),
    )
    begun = runs.RUN[: runs.RUN.index("[model]")] + runs.RUN[runs.RUN.index("[batch]") :]
    run = runs.write_run(folder / "second", begun)
    changes = (
        f"init={first.folder}",
        'objective.use="instruct"',
        "schedule.steps=160",
        "batch.rows=16",
        "batch.micro_rows=16",
        "samples.documents=2",
        'samples.prompts=["How many letters has mill?"]',
        "samples.new_tokens=24",
        'precision.compute="float32"',
    )
    return runs.fit(run, version.folder / "manifest.json", folder / "runs", changes=changes)


def test_it_learns_to_answer_and_serve_answers(tuned, tmp_path):
    losses = runs.losses(tuned)
    assert losses[-1] < 0.2 * losses[0]
    asked, expected = letters("river")
    runs.command(1, "export", str(tuned.folder), str(tmp_path / "hf"))
    for place in (tuned.folder, tmp_path / "hf"):
        with served(place) as (address, _):
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
            messages: Any = [{"role": "user", "content": asked}]
            found = client.chat.completions.create(model="m", messages=messages, temperature=0)
            assert found.choices[0].message.content == expected and found.choices[0].finish_reason == "stop"
            wrong = {"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}
            answer = httpx.post(f"{address}/v1/chat/completions", json=wrong)
            assert answer.status_code == 400 and "user cannot follow user" in answer.json()["error"]["message"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    read = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = theirs.generate(**read, max_new_tokens=30, do_sample=False)[0, read["input_ids"].shape[1] :]
    assert tokenizer.decode(made, skip_special_tokens=True) == expected


def test_the_report_shows_answers_beside_what_was_written(tuned):
    report = json.loads((tuned.folder / "report.json").read_text("utf-8"))
    first, *texts = report["samples"]["prompts"]
    assert first["prompt"] == "How many letters has mill?<|assistant|>" and "letters" in first["continuations"][0]
    assert len(texts) == 2 and all(entry["target"] for entry in texts)
    assert report["evaluation"]["ngrams"] == [] and report["evaluation"]["model"]["bits_per_byte"] > 0
    assert report["run"]["model"]["trained_parameters"] == report["run"]["model"]["parameters"]


def test_a_step_counts_what_is_said_and_what_is_answered(tuned):
    _, settings, version = journal.read(tuned.folder)
    objective: Any = objectives.load(settings.objective, "").over(version)
    told = [objective.told(mix.Stream(settings, version).step(step)).used.sum() for step in range(3)]
    assert [entry["tokens"] for entry in tuned.entries("step")][:3] == told


def test_tuning_goes_on_from_what_was_tuned(tuned, version):
    """Its two tokens are there already, and no longer the same."""
    assert tuple(initial.source(tuned.folder).extra_tokens or ()) == chat.NAMES
    weights = checkpoint.read_weights(checkpoint.steps(tuned.checkpoints)[-1])
    size = version.manifest.tokenizer.vocab_size
    assert len(weights["embedding.weight"]) == size + 2
    assert not torch.equal(weights["embedding.weight"][size], weights["embedding.weight"][size + 1])
