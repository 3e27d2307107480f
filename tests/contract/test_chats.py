"""Conversations between the halves: what a card of kind `chat` says is told the model as the exported template does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from pipeline import recipe, references
from pipeline.schema import TURN
from pipeline.stage import ConfigError
from tests import builds
from training import chat, export, objectives
from training.manifest import open_version
from training.shards import Split

CARD = builds.CARD.replace('name = "grain"\nkind = "files"', 'name = "talk"\nkind = "chat"')
RECIPE = 'name = "talk"\nsources = ["talk.toml"]\n{stages}\n[tokens]\nvocab_size = 300\n[pack]\n{pack}\n'
EXAMPLES = 'layout = "examples"\nlength = 96\nsplit = {val = 0.2}'


def conversation(number: int) -> list[dict[str, str]]:
    """One exchange or two, one in three under a system's message; an extra question at the end of one in five."""
    said = [f"What does mill {number} grind?", f"It grinds {number} sacks.\n\n 磨坊 ", " And then?", "Flour."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    messages = messages[: 2 + 2 * (number % 2)]
    if number % 5 == 0:
        messages.append({"role": "user", "content": "Why?"})
    return [{"role": "system", "content": "Be brief."}, *messages] if number % 3 == 0 else messages


def laid(folder: Path, rows: list[Any], params: str = "", stages: str = "", pack: str = EXAMPLES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "talk.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    (folder / "talk.toml").write_text(CARD + params, "utf-8")
    (folder / "recipe.toml").write_text(RECIPE.format(stages=stages, pack=pack), "utf-8")
    return folder / "recipe.toml"


def built(path: Path) -> Any:
    return builds.build(recipe.load(str(path)), path.parent / "store")


def told(version: Any, folder: Path) -> tuple[dict[str, list[int]], Any]:
    """Tokens of every conversation by the id of its document, and the tokenizer of an export."""
    objective: Any = objectives.load({"use": "instruct"}, "").over(version)
    token = version.manifest.tokenizer
    model = objectives.build(objective, {"family": "gpt", "layers": 1, "width": 8, "heads": 1}, version, "[model]")
    export.export(
        model,
        tokenizer_file=version.tokenizer_file,
        eot=token.eot,
        length=version.manifest.length,
        folder=folder,
        extra_tokens=chat.NAMES,
        template=chat.TEMPLATE,
    )
    ids, found = version.documents["doc_id"].to_pylist(), {}
    for name in version.manifest.splits:
        split = Split(version, name)
        rows = split.take(np.arange(len(split)))
        for row, tokens, used, learnt in zip(rows.documents, *objective.told(rows), strict=True):
            assert learnt.any()
            found[ids[row]] = tokens[:used].tolist()
    return found, AutoTokenizer.from_pretrained(folder)


def test_a_card_is_built_and_told_as_the_template_renders_it(tmp_path):
    """Through a stage that rewrites and rules; a question that nobody answers is left out, and `meta` says so."""
    conversations = [conversation(number) for number in range(60)]
    bad = [{"messages": conversations[0][:1]}, {"messages": [{"role": "user", "content": f"a {TURN} b"}]}]
    stages = '[[stage]]\nuse = "normalise"\n[[stage]]\nuse = "exact"\ndrop.dup_rank = {above = 0}'
    made = built(laid(tmp_path / "v", [*({"messages": c} for c in conversations), *bad], stages=stages))
    quarantined = made.manifest["summaries"]["documents"]["quarantined"]
    assert quarantined == 2 and made.manifest["targets"]["truncated"] == 0
    found, theirs = told(open_version(made.folder), tmp_path / "hf")
    assert len(found) == 60
    for doc_id, tokens in found.items():
        messages = conversations[int(doc_id.rpartition(":")[2]) - 1]
        if messages[-1]["role"] == "user":
            messages = messages[:-1]
        # What is said is normalised as one text, and answers stand as they are.
        said = iter(TURN.join(m["content"] for m in messages if m["role"] != "assistant").strip().split(TURN))
        messages = [m if m["role"] == "assistant" else {**m, "content": next(said)} for m in messages]
        assert tokens == theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]


@pytest.mark.parametrize("form", ["instruction", "sharegpt"])
def test_other_forms_of_conversations(tmp_path, form):
    if form == "instruction":
        rows: list[Any] = [
            {"instruction": f"Grind {n}.", "input": "corn" * (n % 2), "output": f"Done {n}.", "sys": "Hi." * (n % 3)}
            for n in range(40)
        ]
        params = 'prompt = ["instruction", "input"]\nresponse = "output"\nsystem = "sys"\n'
    else:
        rows = [
            {"conversations": [{"from": "human", "value": f"Grind {n}."}, {"from": "gpt", "value": f"Done {n}."}]}
            for n in range(40)
        ]
        params = 'messages = "conversations"\nrole = "from"\ncontent = "value"\n'
        params += 'roles = {human = "user", gpt = "assistant"}\n'
    found, theirs = told(open_version(built(laid(tmp_path / "v", rows, params)).folder), tmp_path / "hf")
    assert len(found) == 40
    for doc_id, tokens in found.items():
        n = int(doc_id.rpartition(":")[2]) - 1
        messages = [{"role": "user", "content": f"Grind {n}."}, {"role": "assistant", "content": f"Done {n}."}]
        if form == "instruction" and n % 2:
            messages[0]["content"] += "\n\ncorn"
        if form == "instruction" and n % 3:
            messages.insert(0, {"role": "system", "content": "Hi." * (n % 3)})
        assert tokens == theirs.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]


def test_every_row_that_is_no_conversation_says_why(tmp_path):
    def one(*messages: tuple[Any, Any]) -> dict[str, Any]:
        return {"messages": [{"role": role, "content": content} for role, content in messages]}

    wrong = {
        "no_answer": one(("user", "a")),
        "unknown_role": one(("tool", "a"), ("assistant", "b")),
        "not_in_turn": one(("user", "a"), ("user", "b"), ("assistant", "c")),
        "system_not_first": one(("user", "a"), ("system", "b"), ("assistant", "c")),
        "empty_message": one(("user", "a"), ("assistant", " ")),
        "spells_end_of_text": one(("user", TURN), ("assistant", "b")),
        "message_not_a_string": one(("user", 3), ("assistant", "b")),
        "no_messages": {"messages": "a"},
    }
    rows = [*({"messages": conversation(number)} for number in range(20)), *wrong.values()]
    made = built(laid(tmp_path / "v", rows))
    reasons = next(stage for stage in made.manifest["accounting"] if stage["kind"] == "source")["reasons"]
    assert {name.rpartition(".")[2] for name in reasons} == set(wrong) and set(reasons.values()) == {1}


def test_recipes_that_tear_conversations_apart_are_refused(tmp_path):
    rows = [{"messages": conversation(number)} for number in range(20)]
    with pytest.raises(ConfigError, match=r"layout 'packed' has no place for the answers of card 'talk'"):
        recipe.load(str(laid(tmp_path / "a", rows, pack="length = 96")))
    stages = '[[stage]]\nuse = "exact"\n[[stage]]\nuse = "eda"'
    with pytest.raises(ConfigError, match=r"stage 2 \(eda\): card 'talk' holds conversations"):
        recipe.load(str(laid(tmp_path / "b", rows, stages=stages)))
    with pytest.raises(ConfigError, match=r"response and system stand beside prompt"):
        built(laid(tmp_path / "c", rows, 'response = "a"\n'))


def test_a_reference_has_the_same_texts_by_card_and_by_version(tmp_path):
    """Decontamination may be told a version or the card that it was built from."""
    rows = [{"messages": conversation(number)} for number in range(20)]
    made = built(laid(tmp_path / "v", rows))
    by_card, by_version = (
        sorted((row["text"], row["target"]) for row in references.rows(place))
        for place in (str(tmp_path / "v" / "talk.toml"), str(made.folder))
    )
    assert by_card == by_version and any(TURN in text for text, _ in by_card)
