"""Laws over every model family in the folder: isolation, causality, the same bits, and loud tables."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from training import TrainingError, config, models
from training.optim import Optimizer

# A family is built from those of these keys that its table has, and once more with each of its variants.
SMALL = {"layers": 2, "width": 32, "heads": 4}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "bert": [{"feed_forward": 40, "segments": 1, "norm_epsilon": 1e-5}],
    "gpt": [
        {"kv_heads": 2},
        {"kv_heads": 1, "head_width": 16, "feed_forward": 40, "tie_embeddings": False},
        {"form": "llama", "kv_heads": 2},
        {"form": "gpt2"},
        {"form": "gpt2", "feed_forward": 40, "tie_embeddings": False},
    ],
    "modernbert": [{"window": 8, "global_every": 2, "feed_forward": 40}, {"layers": 5, "norm_epsilon": 1e-2}],
    "t5": [{"decoder_layers": 1, "head_width": 16, "feed_forward": 40, "tie_embeddings": True}],
}
# Weights this many times those that a family starts from: its layers then do more than whisper.
LOUDER = {"t5": 1}
VOCABULARY, LENGTH = 61, 192
SIZES = [[1, 140, 40, 11], [192], [64, 64, 64]]
CASES = [(name, more) for name in models.available() for more in [{}, *VARIANTS.get(name, [])]]


def table(family: str, more: dict[str, Any]) -> dict[str, Any]:
    keys = importlib.import_module(f"training.models.{family}").Config.model_fields
    return {"family": family, **{key: value for key, value in SMALL.items() if key in keys}, **more}


def build(keys: dict[str, Any], seed: int = 3) -> Any:
    """A model whose layers do more than whisper."""
    model: Any = models.build(keys, vocab_size=VOCABULARY, length=LENGTH, where="[model]")
    model.initialise(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(LOUDER.get(keys["family"], 5))
    return model.eval()


def states(model: Any, tokens: torch.Tensor, positions: torch.Tensor, pieces: torch.Tensor | None) -> torch.Tensor:
    """Hidden states [B, T, width]; the decoder of an encoder-decoder reads the same tokens as its encoder."""
    arguments = (
        (tokens, pieces, tokens, pieces) if models.has_encoder_and_decoder(model) else (tokens, positions, pieces)
    )
    hidden: torch.Tensor = model(*arguments)
    return hidden


@pytest.fixture(params=CASES, ids=[f"{name}-{'-'.join(map(str, more.values())) or 'default'}" for name, more in CASES])
def keys(request) -> dict[str, Any]:
    return table(*request.param)


@pytest.fixture
def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, positions and pieces of rows of 192 tokens."""
    tokens = torch.randint(0, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in SIZES])
    sizes = torch.tensor([n for row in SIZES for n in row])
    numbers = torch.repeat_interleave(torch.arange(len(sizes), dtype=torch.int32), sizes)
    return tokens, positions, numbers.view(3, LENGTH)


def test_the_folder_is_the_registry():
    assert "gpt" in models.available()
    assert not {"layers", "_blocks"} & set(models.available())


def test_packing_changes_nothing(keys, rows):
    """Every piece has the hidden states that it has alone, with and without a number."""
    model, (tokens, positions, pieces) = build(keys), rows
    with torch.inference_mode():
        hidden = states(model, tokens, positions, pieces)
        for row, sizes in enumerate(SIZES):
            start = 0
            for size in sizes:
                place = (slice(row, row + 1), slice(start, start + size))
                for number in (None, pieces[place]):
                    alone = states(model, tokens[place], torch.arange(size)[None], number)
                    assert (hidden[place] - alone).abs().max() < 1e-5
                start += size


def test_the_names_of_pieces_mean_nothing(keys, rows):
    model, (tokens, positions, pieces) = build(keys), rows
    renamed = torch.stack([row - row[0] for row in pieces])
    with torch.inference_mode():
        assert torch.equal(states(model, tokens, positions, pieces), states(model, tokens, positions, renamed))


def test_a_token_moves_its_own_piece_and_in_a_causal_family_only_what_follows(keys, rows):
    model, (tokens, positions, pieces) = build(keys), rows
    with torch.inference_mode():
        before = states(model, tokens, positions, pieces)
        for row, at in [(0, 0), (0, 77), (0, 140), (0, 181), (1, 100), (2, 127), (2, 128)]:
            other = tokens.clone()
            other[row, at] = (other[row, at] + 1) % VOCABULARY
            moved = (states(model, other, positions, pieces) != before).any(-1)
            may = pieces == pieces[row, at]
            if model.causal:
                may[row, :at] = False
            assert not moved[~may].any() and moved[may].all()


def test_a_cache_changes_nothing_whoever_stands_beside(keys, rows):
    """What is read piece by piece into a cache has the hidden states of the whole: rows of several lengths, that are
    cut, join others and drop out."""
    model, tokens, positions = build(keys), rows[0], torch.arange(LENGTH).expand(3, -1)
    if not hasattr(model, "cache"):
        assert not model.causal
        return
    pairs, lengths = models.has_encoder_and_decoder(model), [70, 9, 33]
    with torch.inference_mode():
        whole = states(model, tokens, positions, None)
        encoded = model.encode(tokens, None) if pairs else None

        def read(last, cache):
            if pairs:
                return model.decode(tokens[:, :last], None, encoded, None, cache)
            return model(tokens[:, :last], positions[:, :last], None, cache=cache)

        cache = model.cache(3)
        hidden = read(70, cache)
        assert (hidden - whole[:, :70]).abs().max() < 1e-5
        cache.cut(lengths)
        late = model.cache(3)
        read(5, late)
        late.cut([5, 5, 5])
        cache.join(late, [2, 0, 2])
        order, at = [0, 1, 2, 2, 0, 2], [*lengths, 5, 5, 5]
        for dropped in ([], [0], [1, 3], []):
            kept = cache.drop(dropped)
            order, at = [order[row] for row in kept], [at[row] for row in kept]
            assert cache.lengths == at
            part = torch.stack([tokens[row, n : n + 2] for row, n in zip(order, at, strict=True)])
            if pairs:
                found = model.decode(part, None, None, None, cache)
            else:
                places = torch.tensor([[n, n + 1] for n in at])
                found = model(part, places, None, cache=cache)
            expected = torch.stack([whole[row, n : n + 2] for row, n in zip(order, at, strict=True)])
            assert (found - expected).abs().max() < 1e-5
            at = [n + 2 for n in at]


def test_the_same_call_gives_the_same_bits_forward_and_backward(keys, rows):
    model, (tokens, positions, pieces) = build(keys), rows
    runs = []
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.logits(states(model, tokens, positions, pieces))
        logits.float().square().mean().backward()
        runs.append([logits, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert logits.shape == (3, LENGTH, VOCABULARY)


def test_initialise_is_a_function_of_the_seed(keys):
    torch.manual_seed(1)
    first = dict(build(keys).named_parameters())
    torch.manual_seed(2)
    again, other = dict(build(keys).named_parameters()), dict(build(keys, 4).named_parameters())
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name in first if first[name].ndim == 2]
    assert matrices and not any(torch.equal(first[name], other[name]) for name in matrices)


def test_building_draws_nothing_and_holds_no_chance_memory(keys):
    state = torch.get_rng_state()
    made = [models.build(keys, vocab_size=VOCABULARY, length=LENGTH, where="[model]") for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(made[0].named_parameters(), made[1].parameters(), strict=True))
    assert all(torch.equal(a, b) and a.dtype == torch.float32 and a.device.type == "cpu" for (_, a), b in pairs)
    assert all(a.unique().numel() == 1 for (_, a), _ in pairs)


def test_an_unknown_key_is_refused_and_the_keys_are_listed(keys):
    for key in list(keys)[1:]:
        with pytest.raises(TrainingError, match=rf"run\.toml \[model\].*unknown key '{key}x'.*{key}"):
            models.build({**keys, f"{key}x": 1}, vocab_size=VOCABULARY, length=LENGTH, where="run.toml [model]")
        with pytest.raises(TrainingError, match=rf"run\.toml \[model\].*{key}"):
            models.build({**keys, key: "many"}, vocab_size=VOCABULARY, length=LENGTH, where="run.toml [model]")


def test_a_number_that_cannot_be_and_a_key_that_is_missing_are_refused_by_name(keys):
    whole = {"family": keys["family"], **build(keys).config.model_dump()}
    numbers = {key: value for key, value in whole.items() if type(value) in (int, float)}
    for key, value in numbers.items():
        with pytest.raises(TrainingError, match=rf"run\.toml \[model\] \({keys['family']}\).*\b{key}\b.*-1"):
            models.build({**whole, key: type(value)(-1)}, vocab_size=9, length=8, where="run.toml [model]")
    for key in SMALL.keys() & keys.keys():
        left = {name: value for name, value in keys.items() if name != key}
        with pytest.raises(TrainingError, match=rf"run\.toml \[model\] \({keys['family']}\): no '{key}'; it has no"):
            models.build(left, vocab_size=9, length=8, where="run.toml [model]")


def test_a_family_is_named_and_known(keys):
    for family, said in ((None, "no 'family'"), (f"{keys['family']}x", f"unknown family '{keys['family']}x'")):
        with pytest.raises(TrainingError, match=rf"run\.toml \[model\]: {said}.* has: .*{keys['family']}"):
            models.build({**keys, "family": family}, vocab_size=9, length=8, where="run.toml [model]")


# One of each family, and of each form that it has: tracing takes seconds.
TRACED = {(name, more.get("form")): (name, more) for name, more in reversed(CASES)}


@pytest.mark.parametrize("case", TRACED.values(), ids=[f"{name}-{form or 'default'}" for name, form in TRACED])
def test_a_model_can_be_traced_whole(case, rows):
    model, (tokens, positions, pieces) = build({**table(*case), "layers": 1}), rows
    traced = torch.compile(lambda *given: states(model, *given), backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected = states(model, tokens, positions, pieces)
    hidden = traced(tokens, positions, pieces)
    assert (hidden - expected).abs().max() < 1e-4
    hidden.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_a_model_says_what_it_is_and_what_it_costs(keys):
    model = build(keys)
    assert model.length == LENGTH and isinstance(model.causal, bool)
    counts = model.parameter_counts()
    assert counts["parameters"] == sum(p.numel() for p in model.parameters()) > counts["embedding_parameters"] > 0
    work = models.Work(tokens=64, length=64, targets=9, encoder_tokens=64, encoder_length=64)
    more = {"tokens": 65, "length": 65, "targets": 10}
    assert all(model.flops(work) < model.flops(work._replace(**{name: value})) for name, value in more.items())
    resolved = {"family": keys["family"], **model.config.model_dump()}
    assert models.build(resolved, vocab_size=VOCABULARY, length=LENGTH, where="").config == model.config


def test_muon_turns_every_head_by_itself(keys):
    """Where all heads have one gradient, each moves as far as it would alone; turned together, they would share it."""
    model = build(keys)
    width = getattr(model.config, "head_width", model.config.width // model.config.heads)
    heads: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        kind = name.split(".")[-2]
        if kind in ("query", "key", "value", "output") and parameter.ndim == 2:
            heads[name] = axis = int(kind == "output")
            block = torch.randn(parameter.split(width, axis)[0].shape, generator=torch.Generator().manual_seed(1))
            parameter.grad = torch.cat([block] * (parameter.shape[axis] // width), axis)
    assert {name.split(".")[-2] for name in heads} == {"query", "key", "value", "output"}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    Optimizer(model, config.Optimizer(learning_rate=1.0, weight_decay=0.0)).step(1.0)
    for name, axis in heads.items():
        for head in (model.get_parameter(name).detach() - before[name]).split(width, axis):
            values = torch.linalg.svdvals(head) / (0.2 * max(head.shape) ** 0.5)
            assert values[0] < 1.3 and values[-1] > 0.6
