"""Suites of questions: likelihoods against plain forward passes, prompts, metrics, and what a bad suite says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training import exported
from tests.training.versions import make_version
from training import TrainingError, loading
from training.loading import Loaded
from training.manifest import ManifestError, Version, open_version
from training.parallel import Group
from training.progress import Silent
from training.suites import items, likelihood, prompts, scores, suite, taking
from training.suites.exposure import Exposure
from training.suites.items import Item
from training.suites.prompts import Request
from training.suites.suite import Set, Suite

ALONE = Group(0, 1, torch.device("cpu"))
TOPICS = "mill wheel water stone grain flour river 磨坊 小麦".split()


def an_item(number: int, choices: int = 4) -> dict[str, Any]:
    words = [TOPICS[(number + n) % len(TOPICS)] + f" of {'the ' * (n % 3)}{number}" for n in range(choices)]
    return {
        "contexts": [f"Question {number}: what does the mill grind?"],
        "continuations": words,
        "gold": number % choices,
    }


def version(folder: Path, given: list[dict[str, Any]]) -> Version:
    documents = [{"text": str(one), "item": json.dumps(one)} for one in given]
    return open_version(make_version(folder, documents, layout="examples", length=64, name=folder.name))


@pytest.fixture(scope="module")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return version(tmp_path_factory.mktemp("versions") / "riddles", [an_item(n, 2 + n % 3) for n in range(30)])


@pytest.fixture(scope="module")
def cloze(tmp_path_factory: pytest.TempPathFactory) -> Version:
    given = [{"contexts": [f"The mill {n}"], "continuations": ["turns" * (1 + n % 4)], "gold": 0} for n in range(12)]
    return version(tmp_path_factory.mktemp("versions") / "cloze", given)


@pytest.fixture(scope="module", params=["qwen3", "llama", "gpt2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return loading.load(exported.folder(tmp_path_factory.mktemp("models"), request.param), "cpu")


def some_requests(model: Loaded, count: int = 40, seed: int = 0) -> list[Request]:
    rng = np.random.default_rng(seed)
    contexts = [tuple(rng.integers(0, model.model.vocab_size, rng.integers(1, 30)).tolist()) for _ in range(count // 3)]
    return [
        Request(contexts[rng.integers(len(contexts))], tuple(rng.integers(0, 300, rng.integers(1, 20)).tolist()))
        for _ in range(count)
    ]


@torch.inference_mode()
def plainly(model: Any, request: Request) -> tuple[float, bool]:
    """One forward pass over one text."""
    whole = torch.tensor([[*request.context, *request.continuation]])
    logits = model.logits(model(whole[:, :-1], torch.arange(whole.shape[1] - 1)[None], None))[0].double()
    first = len(request.context) - 1
    found, wanted = logits[first:].log_softmax(-1), whole[0, first + 1 :]
    return float(found.gather(1, wanted[:, None]).sum()), bool((found.argmax(1) == wanted).all())


def test_likelihoods_are_those_of_a_plain_forward_pass(loaded: Loaded) -> None:
    requests = some_requests(loaded)
    # What greedy decoding writes has to be found too.
    context = requests[0].context
    greedy: list[int] = []
    for _ in range(5):
        place = torch.tensor([[*context, *greedy]])
        hidden = loaded.model(place, torch.arange(place.shape[1])[None], None)
        greedy.append(int(loaded.model.logits(hidden[:, -1]).argmax()))
    requests.append(Request(context, tuple(greedy)))
    answers = likelihood.score(loaded, requests, ALONE, Silent(), 7)
    wanted = [plainly(loaded.model, request) for request in requests]
    np.testing.assert_allclose(answers.nats, [nats for nats, _ in wanted], atol=1e-3)
    assert answers.greedy.tolist() == [same for _, same in wanted] and answers.greedy[-1]


def test_likelihoods_are_those_of_transformers(loaded: Loaded, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(exported.folder(tmp_path, loaded.name))
    for request in some_requests(loaded, 9):
        whole = torch.tensor([[*request.context, *request.continuation]])
        with torch.inference_mode():
            found = theirs(whole).logits[0].log_softmax(-1)
        places = range(len(request.context) - 1, whole.shape[1] - 1)
        wanted = sum(float(found[at, whole[0, at + 1]]) for at in places)
        assert likelihood.score(loaded, [request], ALONE, Silent()).nats[0] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("world", [2, 3, 7])
def test_any_number_of_processes_finds_the_same_bits(
    loaded: Loaded, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, parts = some_requests(loaded, 60), list[torch.Tensor]()
    alone = likelihood.score(loaded, requests, ALONE, Silent(), 4)

    def keep(self: Group, tensor: torch.Tensor) -> torch.Tensor:
        parts.append(tensor.clone())
        return tensor

    monkeypatch.setattr(Group, "sum_", keep)
    for rank in range(world):
        likelihood.score(loaded, requests, Group(rank, world, torch.device("cpu")), Silent(), 4)
    assert all(bool(part.any()) for part in parts), "a rank had nothing to do: the law would be empty"
    found = torch.stack(parts).sum(0)
    number = {request: n for n, request in enumerate(dict.fromkeys(requests))}
    assert [float(found[number[request], 0]) for request in requests] == alone.nats.tolist()


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_another_batch_agrees_to_a_thousandth_of_a_nat(loaded: Loaded, batch: int) -> None:
    requests = some_requests(loaded, 60)
    one, other = (likelihood.score(loaded, requests, ALONE, Silent(), n) for n in (32, batch))
    np.testing.assert_allclose(one.nats, other.nats, atol=1e-3)


def test_a_plan_asks_every_request_once_and_keeps_a_context_together(loaded: Loaded) -> None:
    requests = list(dict.fromkeys(some_requests(loaded, 90)))
    works = list(likelihood.plan(requests, 8))
    asked = [Request(work.contexts[row], tokens) for work in works for row, tokens in work.rows]
    assert sorted(asked, key=repr) == sorted(requests, key=repr)
    assert all(len(work.rows) <= 8 for work in works)
    fewest = {c: -(-sum(r.context == c for r in requests) // 8) for c in {r.context for r in requests}}
    assert all(sum(c in work.contexts for work in works) == n for c, n in fewest.items())
    long = [Request((1,) * 2048, (n,)) for n in range(8)]
    assert [len(work.rows) for work in likelihood.plan(long, 8)] == [2, 2, 2, 2]


# Prompts


def test_a_prompt_is_its_examples_and_the_item() -> None:
    pool = [Item(f"d{n}", (f"q{n}",), ("yes", "no"), n % 2) for n in range(6)]
    how = Set(set="s", description="Say.\n", prefix="Q: ", delimiter="\nA: ", between="\n--\n", shots=2, seed=3)
    found = prompts.shots(pool[0], pool, how)
    text = prompts.before(found, how)
    assert text == "Say.\n" + "".join(f"Q: q{i.doc_id[1]}\nA: {('yes', 'no')[i.gold]}\n--\n" for i in found)
    assert pool[0] not in found and found == prompts.shots(pool[0], pool[::-1], how)
    twin = Item("twin", pool[0].contexts, ("other",) * 2, 0)
    assert all(twin not in prompts.shots(pool[0], [*pool, twin], how.model_copy(update={"shots": 5})) for _ in range(1))
    with pytest.raises(TrainingError, match="9 shots are asked for, and there are 5"):
        prompts.shots(pool[0], pool, how.model_copy(update={"shots": 9}))
    orders = {tuple(i.doc_id for i in prompts.shots(item, pool, how)) for item in pool}
    assert len(orders) > 1, "every item has the same examples"


@pytest.mark.parametrize(
    "context", ["", "The mill", "The mill ", "The mill turns.\n\nAnswer: ", "磨坊在河边。小麦变", "n"]
)
@pytest.mark.parametrize("continuation", ["the wheel", " turns", "成面粉！", "😀", "aïve"])
def test_context_and_continuation_are_the_tokens_of_the_text(loaded: Loaded, context: str, continuation: str) -> None:
    made = prompts.pair(loaded, context, continuation)
    assert made.context and made.continuation
    bare = [loaded.start, *loaded.read(continuation, bare=True)]
    whole = loaded.encode(context + continuation) if context else bare
    start = [loaded.start] if context and made.context == (loaded.start,) and whole[:1] != [loaded.start] else []
    assert [*made.context, *made.continuation] == [*start, *whole]
    # Every byte of the continuation is predicted, and the white space before it.
    said = loaded.tokenizer.decode(list(made.context), skip_special_tokens=True)
    assert (context.rstrip() or context).startswith(said) or "\ufffd" in said


def test_a_number_and_a_word_both_have_to_say_the_space_before_them(loaded: Loaded) -> None:
    for answer in ("6", "wheel", "😀"):
        said = loaded.tokenizer.decode(list(prompts.pair(loaded, "What turns?\nAnswer: ", answer).continuation))
        assert said == f" {answer}"


def test_a_prompt_beyond_the_context_loses_its_beginning_and_is_counted(loaded: Loaded) -> None:
    how, text = Set(set="s"), ("the wheel of the mill and the flour " * 40).strip()
    asked = prompts.ask(loaded, Item("d", (text,), ("turns", "is round and round"), 0), [], how, alone=False)
    whole, room = loaded.encode(text + " is round and round"), loaded.model.length + 1
    assert asked.cut and [*asked.requests[1].context, *asked.requests[1].continuation] == whole[-room:]
    shorter = [*asked.requests[0].context, *asked.requests[0].continuation]
    assert shorter == loaded.encode(text + " turns")[len(whole) - room :]
    assert not prompts.ask(loaded, Item("d", (text[:70],), ("a", "b"), 0), [], how, alone=False).cut
    likelihood.score(loaded, asked.requests, ALONE, Silent())
    with pytest.raises(TrainingError, match=r"d: a continuation of .* and the model's context is 128"):
        prompts.ask(loaded, Item("d", ("q",), (text, "b"), 0), [], how, alone=False)


# Scores


def test_metrics_are_those_of_their_formulas() -> None:
    item = Item("d", ("q",), ("aa", "b" * 10, "ccc"), 1)
    asked = prompts.Asked(item, (), (), (2, 10, 3), False)
    nats, alone, greedy = [-3.0, -8.0, -5.0], [-1.0, -9.0, -5.0], [False] * 3
    metrics: Any = ("raw", "normalised", "unconditional")
    assert [scores.of_item(m, asked, nats, alone, greedy) for m in metrics] == [0, 1, 1]
    assert scores.of_item("raw", asked, [-3.0, -3.0, -3.0], alone, greedy) == 0  # of equals the first
    one = prompts.Asked(Item("d", ("q",), ("word",), 0), (), (), (4,), False)
    assert scores.of_item("exact_match", one, [-2.0], [], [True]) == 1
    assert scores.of_item("log_likelihood", one, [-2.0], [], [True]) == -0.5


def test_an_interval_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random(400) < 0.3).astype(float)
    low, high = scores.interval(values)
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert scores.interval(values) == (low, high) and scores.interval(np.ones(5)) == (1, 1)
    assert scores.chance("raw", np.array([2, 4])) == 0.375


# Suites


def taken(loaded: Loaded, versions: dict[str, Version], **changes: Any) -> list[taking.Taken]:
    asked = Suite.model_validate({"name": "s", "set": [{"set": name, **changes} for name in versions]})
    return taking.take(asked, loaded, versions, ALONE, Silent())


def test_a_suite_scores_every_item_of_every_set(loaded: Loaded, riddles: Version, cloze: Version) -> None:
    choice, word = taken(loaded, {"riddles": riddles, "cloze": cloze}, shots=2, seed=5)
    assert choice.table["doc_id"].to_pylist() == [item.doc_id for item in items.read(riddles)]
    known = choice.said["groups"]["all"]
    assert set(choice.said["groups"]) == {"all"} and known["items"] == 30
    for metric, said in known["metrics"].items():
        assert said["score"] == pytest.approx(np.mean(choice.table[metric].to_numpy()))
        assert said["low"] <= said["score"] <= said["high"]
        assert said["chance"] == pytest.approx(np.mean([1 / (2 + n % 3) for n in range(30)]))
    assert set(word.said["groups"]["all"]["metrics"]) == {"exact_match", "log_likelihood"}
    rows = choice.table.to_pylist()
    assert [int(np.argmax(row["nats"])) == row["gold"] for row in rows] == [bool(row["raw"]) for row in rows]
    limited = taken(loaded, {"riddles": riddles}, limit=7)[0].table["doc_id"].to_pylist()
    assert len(limited) == 7 and limited != choice.table["doc_id"].to_pylist()[:7]


def test_known_items_are_scored_apart(loaded: Loaded, riddles: Version) -> None:
    asked = Suite.model_validate({"name": "s", "set": [{"set": "riddles"}]})
    known = {item.doc_id: "contaminated" if n < 4 else "clean" for n, item in enumerate(items.read(riddles))}
    read = {"riddles": Exposure(known, ["other@0"])}
    (found,) = taking.take(asked, loaded, {"riddles": riddles}, ALONE, Silent(), exposures=read)
    groups = found.said["groups"]
    assert found.said["unsearched"] == ["other@0"]
    assert [groups[name]["items"] for name in taking.GROUPS] == [30, 26, 4]
    total = sum(groups[name]["items"] * groups[name]["metrics"]["raw"]["score"] for name in taking.GROUPS[1:])
    assert total / 30 == pytest.approx(groups["all"]["metrics"]["raw"]["score"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 's'", "no 'set'"),
        ("name = 's'\n[[set]]\nset = 'a'\nshot = 1", "unknown key 'set.0.shot'; did you mean 'shots'"),
        ("name = 's'\n[[set]]\nset = 'a'\n[[set]]\nset = 'a'", "two sets are called 'a'"),
        ("name = 's'\n[[set]]\nset = 'a'\nmetrics = ['f1']", "set.0.metrics.0"),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_suite_that_cannot_be_says_why(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.toml").write_text(text, "utf-8")
    with pytest.raises(TrainingError, match=said):
        suite.load(tmp_path / "s.toml")


def test_sets_that_cannot_be_asked_say_why(loaded: Loaded, riddles: Version, cloze: Version, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the set 'other' is not given; has: riddles"):
        taking.take(
            Suite.model_validate({"name": "s", "set": [{"set": "other"}]}),
            loaded,
            {"riddles": riddles},
            ALONE,
            Silent(),
        )
    with pytest.raises(TrainingError, match="is a cloze and has no 'raw'"):
        taken(loaded, {"cloze": cloze}, metrics=["raw"])
    plain = open_version(make_version(tmp_path / "plain", [{"text": "a"}] * 12))
    with pytest.raises(ManifestError, match="holds no evaluation items"):
        taken(loaded, {"plain": plain})
    broken = version(tmp_path / "broken", [{**an_item(n), "gold": 9 if n == 3 else 0} for n in range(12)])
    with pytest.raises(ManifestError, match=r"toy:000003: gold 9 of 4 choices"):
        taken(loaded, {"broken": broken})


def test_a_model_that_continues_nothing_is_refused(riddles: Version, tmp_path: Path) -> None:
    t5 = loading.load(exported.folder(tmp_path, "t5"), "cpu")
    with pytest.raises(TrainingError, match="encoder-decoder"):
        taken(t5, {"riddles": riddles})
