"""Continuations: transformers' own when greedy; its filters, and the softmax's shares, when drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.training.small_models import TABLES, decoder, in_transformers, tokens_of
from tests.training.test_t5 import TABLES as T5
from tests.training.test_t5 import model_of as t5_of
from training import TrainingError
from training.decoding import Batch, Writing
from training.generate import generate
from training.sampling import Sampling, drawn, filtered, named, penalised, uniform

PROMPTS = [[0, 5, 9], [0], [0, 44, 3, 3, 71, 12, 90, 33, 2], [0, 17, 60, 8]]
NOBODY = 96  # a token taken as the end of text where none should come


def continued(model, prompts=PROMPTS, **settings_):
    defaults = {
        "new_tokens": 12,
        "temperature": 0.0,
        "top_k": None,
        "top_p": None,
        "return_sequences": 1,
        "seed": 7,
        "eot": NOBODY,
    }
    return generate(model, prompts, **{**defaults, **settings_})


@pytest.fixture(scope="module")
def model():
    return decoder(TABLES["grouped"])


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_greedy_is_that_of_transformers_token_by_token(table):
    """Each prompt by itself there; here all in one batch, with an end that comes early in some."""
    model = decoder(table)
    theirs = in_transformers(model)
    free = [c for [c] in continued(model, new_tokens=30, eot=-1)]
    assert len({tuple(c) for c in free}) == len(PROMPTS) and all(len(c) == 30 for c in free)
    for eot in (NOBODY, free[0][4], free[2][9]):
        found = [c for [c] in continued(model, new_tokens=30, eot=eot)]
        for prompt, tokens in zip(PROMPTS, found, strict=True):
            asked = torch.tensor([prompt])
            options = {"max_new_tokens": 30, "do_sample": False, "eos_token_id": eot, "pad_token_id": eot}
            said = theirs.generate(asked, attention_mask=torch.ones_like(asked), **options)
            assert said[0, len(prompt) :].tolist() == tokens
        if eot != NOBODY:
            assert min(map(len, found)) < 30 and all(eot not in c[:-1] for c in found)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    temperature=st.floats(0.05, 5),
    top_k=st.none() | st.integers(1, 60),
    top_p=st.none() | st.floats(0.01, 1),
    min_p=st.none() | st.floats(0, 1),
    penalty=st.just(1.0) | st.floats(0.1, 3),
)
def test_filters_are_those_of_transformers_in_its_order(seed, temperature, top_k, top_p, min_p, penalty):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 40, generator=generator) * 3
    logits[:, 7] = logits[:, 3]
    seen = torch.randint(0, 40, (5, 9), generator=generator)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone()) if penalty != 1 else logits
    expected = TemperatureLogitsWarper(temperature)(None, expected)
    if top_k is not None:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = TopPLogitsWarper(top_p)(None, expected)
    if min_p is not None:
        expected = MinPLogitsWarper(min_p)(None, expected)
    before = logits.clone()
    found = filtered(penalised(logits, seen.tolist(), penalty), Sampling(temperature, top_k, top_p, min_p, penalty))
    assert torch.equal(found, expected) and torch.equal(logits, before)
    assert found.isfinite().any(-1).all()


@pytest.mark.parametrize("options", [{"top_k": 50}, {"top_p": 0.95}, {"top_k": 50, "top_p": 0.95}, {"min_p": 0.2}])
def test_draws_have_the_shares_that_transformers_would_draw_by(options):
    """6,000 first tokens of one prompt: chi-square against the probabilities of transformers' own model and filters,
    6 sigma. Weights near those of the beginning leave many tokens with a share."""
    count, prompt = 6000, PROMPTS[2]
    flat = decoder(TABLES["grouped"], vocab_size=400, scale=2)
    given_ = {"new_tokens": 1, "temperature": 0.9, "return_sequences": count, "batch": 1000, **options}
    [made] = continued(flat, [prompt], **given_, eot=-1)
    asked = {"max_new_tokens": 1, "do_sample": True, "temperature": 0.9, "top_k": 0, "eos_token_id": 399} | options
    with torch.inference_mode():
        said = in_transformers(flat).generate(
            torch.tensor([prompt]), output_scores=True, return_dict_in_generate=True, pad_token_id=399, **asked
        )
    shares = said.scores[0][0].double().softmax(-1).numpy()
    drawn = np.bincount([tokens[0] for tokens in made], minlength=400)
    assert drawn[shares == 0].sum() == 0 and (shares > 0).sum() < 400
    likely = shares * count >= 5
    assert likely.sum() >= 15
    drawn, expected = (np.append(x[likely], x[~likely].sum()) for x in (drawn, shares * count))
    drawn, expected = drawn[expected > 0], expected[expected > 0]
    chi, freedom = ((drawn - expected) ** 2 / expected).sum(), len(expected) - 1
    assert chi < freedom + 6 * np.sqrt(2 * freedom)


def test_the_numbers_behind_draws_are_uniform_and_all_differ():
    names = [
        (seed, prompt, sequence, at)
        for seed in range(2)
        for prompt in (named([number]) for number in range(10))
        for sequence in range(10)
        for at in range(50)
    ]
    numbers = np.array([uniform(*name) for name in names])
    assert len(set(numbers)) == len(numbers) and numbers.min() >= 0 and numbers.max() < 1
    hits = np.histogram(numbers, 20, (0, 1))[0]
    assert ((hits - 500) ** 2 / 500).sum() < 19 + 6 * np.sqrt(38)


def test_the_likeliest_is_all_that_is_left_of_k_1_or_a_tiny_p(model):
    greedy = continued(model)
    assert continued(model, temperature=1.3, top_k=1) == greedy
    assert continued(model, temperature=1.3, top_p=1e-9) == greedy
    assert continued(model, temperature=1e-4) == greedy


@pytest.mark.parametrize(("point", "token"), [(0.0, 1), (0.499, 1), (0.501, 3), (1 - 2**-53, 3)])
def test_a_token_without_mass_is_never_drawn(point, token):
    """The edges of the distribution function: the first and the last token were filtered away."""
    logits = torch.tensor([[-9.0, 2.0, -9.0, 2.0, -9.0], [-9.0, 7.3, -9.0, 7.3, -9.0]])
    for temperature in (0.3, 1.0, 3.7):
        assert drawn(filtered(logits, Sampling(temperature, top_k=2)), [point] * 2).tolist() == [token, token]


def test_the_highest_number_finds_a_token_though_rounding_keeps_the_sum_below_1():
    logits = torch.randn(200, 997, generator=torch.Generator().manual_seed(0))
    assert (logits.double().softmax(-1).cumsum(-1)[:, -1] < 1 - 2**-53).any()
    assert drawn(filtered(logits, Sampling()), [1 - 2**-53] * 200).max() < 997


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0, "repetition_penalty": 1.3}], ids=["drawn", "greedy"])
@pytest.mark.parametrize("family", ["gpt", "t5"])
def test_who_comes_and_goes_beside_a_sequence_moves_nothing(model, family, options):
    """Sequences of several lengths and settings join and leave one batch; each writes what it writes alone."""
    if family == "t5":
        model = t5_of(T5["uneven"])
    settings_ = [Sampling(**{"temperature": 0.8, "seed": number, **options}) for number in range(3)]
    prompts = [tokens_of(1, 3 + 7 * n % 40, seed=n)[0].tolist() for n in range(12)]

    def writings():
        return [
            Writing(prompt, settings_[n % 3], 4 + 5 * n % 17, frozenset([NOBODY]), n)
            for n, prompt in enumerate(prompts)
        ]

    alone, together = writings(), writings()
    for writing in alone:
        side = Batch(model, 0)
        side.add([writing])
        while side.rows:
            side.step()
    side, left = Batch(model, 0), list(together)
    gone = together[5]
    while left or side.rows:
        side.add([left.pop() for _ in range(min(len(left), 1 + len(left) % 3))])
        side.step()
        side.drop(lambda writing: writing is gone and len(writing.tokens) > 3)
    assert len(gone.tokens) < len(alone[5].tokens)
    for mine, beside in zip(alone, together, strict=True):
        assert beside is gone or (mine.tokens, mine.ended) == (beside.tokens, beside.ended)
        assert mine.tokens[: len(beside.tokens)] == beside.tokens


def test_a_seed_is_a_text_and_a_neighbour_or_a_batch_moves_nothing(model):
    options = {"temperature": 1.0, "top_k": 50, "top_p": 0.95, "return_sequences": 3}
    made = continued(model, **options)
    assert continued(model, **options) == made
    assert continued(model, **options, batch=1) == made and continued(model, **options, batch=5) == made
    assert continued(model, PROMPTS[:2], **options) == made[:2]
    assert [m[:2] for m in made] == continued(model, **{**options, "return_sequences": 2})
    assert [[c[:5] for c in m] for m in made] == continued(model, **options, new_tokens=5)
    assert continued(model, **{**options, "seed": 8}) != made
    texts = [tuple(c) for m in made for c in m]
    assert len(set(texts)) == len(texts)
    assert continued(model, PROMPTS[:0:-1], **options) == made[:0:-1], "nor does its place"
    same = continued(model, [PROMPTS[0], PROMPTS[0]], **options)
    assert same[0] == made[0] != same[1], "asked again, it goes on with other sequences"


def test_it_leaves_the_model_and_the_global_generator_as_they_were(model):
    model.train()
    state = torch.get_rng_state()
    continued(model, temperature=1.0)
    assert model.training and torch.equal(state, torch.get_rng_state())
    model.eval()
    continued(model)
    assert not model.training


def test_the_context_may_be_filled_and_never_passed():
    model = decoder(TABLES["defaults"], length=20)
    [[tokens]] = continued(model, [PROMPTS[2]], new_tokens=11)
    assert len(tokens) == 11
    said = r"prompt 1 has 9 tokens: with 12 .* context of 20; ask for at most 11 new tokens, or cut the prompt"
    with pytest.raises(TrainingError, match=said):
        continued(model, [PROMPTS[0], PROMPTS[2]], new_tokens=12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": [[0], []]}, "prompt 1 has no tokens; begin it with the end-of-text token"),
        ({"prompts": [[0, 97]]}, r"prompt 0 has a token outside \[0, 97\)"),
        ({"temperature": -0.1}, "temperature -0.1 must be 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": 0}, "top_k 0 must be 1"),
        ({"top_p": 0.0}, "top_p 0.0 must be above 0"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"min_p": 1.5}, "min_p 1.5 must be in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0.0 must be above 0"),
        ({"return_sequences": 0}, "return_sequences 0"),
        ({"new_tokens": -1}, "new_tokens -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(model, change, said):
    with pytest.raises(TrainingError, match=said):
        continued(model, **change)


def test_no_prompts_and_no_new_tokens_are_nothing(model):
    assert continued(model, []) == []
    assert continued(model, new_tokens=0) == [[[]]] * 4


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("name", ["grouped", "gpt2"])
def test_a_prompt_twice_as_long_is_read_in_twice_the_memory(name):
    """And no more: nothing is made whose size is the square of a prompt's."""
    model, found = decoder(TABLES[name], length=4200), []
    for length in (2048, 4096):
        prompt = torch.randint(0, NOBODY, (length,), generator=torch.Generator().manual_seed(2)).tolist()
        with Largest() as largest:
            continued(model, [prompt], new_tokens=2)
        found.append(largest.numbers)
    assert found[1] <= 2.1 * found[0]
