"""Continue texts: greedy, or drawn after temperature, top-k and top-p, with a cache of keys and values.

An encoder-decoder reads a prompt whole and writes another text, from the end-of-text token on.

The law: what is drawn for a sequence depends on (seed, prompt number, sequence number, position) and its own
tokens alone, so batches decide nothing. Filters come in the order of `transformers`: temperature, top-k, top-p
(nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751), and keep the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from training import TrainingError
from training.models import has_encoder_and_decoder
from training.order import derive

Choose = Callable[[Tensor, list[tuple[int, int]], list[int]], Tensor]
BATCH = 32  # sequences continued at once


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    return_sequences: int,
    seed: int,
    eot: int,
    batch: int = BATCH,
) -> list[list[list[int]]]:
    """For each prompt, `return_sequences` continuations of at most `new_tokens` tokens, without the prompt.

    A continuation that ended itself has `eot` as its last token. Temperature 0 takes the likeliest token.
    Raises TrainingError for settings that cannot be, for an empty prompt, for a token outside the vocabulary,
    where prompt and continuation are longer than the context that the model is made for, and for a model that
    writes nothing.
    """
    _check(model, prompts, new_tokens, return_sequences)
    choose = chooser(temperature, top_k, top_p, seed)
    wanted = [(number, sequence) for number in range(len(prompts)) for sequence in range(return_sequences)]
    made: list[list[list[int]]] = [[] for _ in prompts]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for first in range(0, len(wanted), batch):
                part = wanted[first : first + batch]
                found = _continue(model, [prompts[number] for number, _ in part], part, new_tokens, choose, eot)
                for (number, _), tokens in zip(part, found, strict=True):
                    made[number].append(tokens)
    finally:
        model.train(training)
    return made


def _check(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int, return_sequences: int) -> None:
    pairs = has_encoder_and_decoder(model)
    if not (model.causal or pairs):
        raise TrainingError(f"{type(model).__module__} sees both ways and continues no text; a causal family does")
    if new_tokens < 0 or return_sequences < 1:
        raise TrainingError(f"new_tokens {new_tokens} must be 0 or more, return_sequences {return_sequences} 1 or more")
    for number, prompt in enumerate(prompts):
        if not len(prompt):
            raise TrainingError(f"prompt {number} has no tokens; begin it with the end-of-text token")
        if not all(0 <= token < model.vocab_size for token in prompt):
            raise TrainingError(
                f"prompt {number} has a token outside [0, {model.vocab_size}); is the tokenizer another?"
            )
        if pairs and max(len(prompt), new_tokens) > model.length:
            raise TrainingError(
                f"prompt {number} has {len(prompt)} tokens, and {new_tokens} new ones are asked for: the model reads "
                f"and writes at most {model.length} each"
            )
        if not pairs and len(prompt) + new_tokens > model.length:
            raise TrainingError(
                f"prompt {number} has {len(prompt)} tokens: with {new_tokens} new ones it is longer than the "
                f"model's context of {model.length}; ask for at most {max(0, model.length - len(prompt))} new "
                f"tokens, or cut the prompt"
            )


def _continue(
    model: Any,
    prompts: list[Sequence[int]],
    names: list[tuple[int, int]],
    new_tokens: int,
    choose: Choose,
    eot: int,
) -> list[list[int]]:
    """Continue one batch. Prompts are padded in front, as a piece of its own, so all rows end together."""
    forward, tokens, positions, pieces = _begun(model, prompts, new_tokens, eot)
    made: list[list[int]] = [[] for _ in prompts]
    open_ = set(range(len(prompts)))
    for _ in range(new_tokens):
        hidden = forward(tokens, positions, pieces)
        at = positions[:, -1:] + 1
        tokens = choose(model.logits(hidden[:, -1]).float(), names, at[:, 0].tolist())[:, None]
        positions, pieces = at, pieces[:, -1:]
        for row, token in enumerate(tokens[:, 0].tolist()):
            if row in open_:
                made[row].append(token)
                if token == eot:
                    open_.remove(row)
        if not open_:
            break
    return made


def _begun(
    model: Any, prompts: list[Sequence[int]], new_tokens: int, eot: int
) -> tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]:
    """What gives hidden states of tokens, positions and pieces, and the first of these."""
    count, longest = len(prompts), max(map(len, prompts))
    pairs = has_encoder_and_decoder(model)
    cache = model.cache(count, new_tokens if pairs else longest + new_tokens)
    tokens, positions, pieces = _padded(prompts, longest, cache.device)
    if not pairs:
        return partial(model, cache=cache), tokens, positions, pieces
    encoded, numbers = model.encode(tokens, pieces), pieces

    def forward(tokens: Tensor, positions: Tensor, pieces: Tensor) -> Tensor:
        hidden: Tensor = model.decode(tokens, pieces, encoded, numbers, cache)
        return hidden

    return forward, torch.full_like(tokens[:, :1], eot), torch.zeros_like(positions[:, :1]), pieces[:, -1:]


def _padded(prompts: list[Sequence[int]], longest: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, positions and pieces [B, longest]; padding is piece 0, a prompt piece 1."""
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    positions, pieces = torch.zeros_like(tokens), torch.zeros_like(tokens, dtype=torch.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        positions[row, longest - len(prompt) :] = torch.arange(len(prompt))
        pieces[row, longest - len(prompt) :] = 1
    return tokens.to(device), positions.to(device), pieces.to(device)


def chooser(temperature: float, top_k: int | None, top_p: float | None, seed: int) -> Choose:
    """How the next token is chosen. Raises TrainingError for settings that cannot be."""
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise TrainingError(f"temperature {temperature} must be 0 (greedy) or above")
    if top_k is not None and top_k < 1:
        raise TrainingError(f"top_k {top_k} must be 1 or above; leave it out to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise TrainingError(f"top_p {top_p} must be above 0 and at most 1; leave it out to keep all tokens")
    if temperature == 0:
        return lambda logits, names, positions: logits.argmax(-1)
    return partial(_draw, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)


def _draw(
    logits: Tensor,
    names: list[tuple[int, int]],
    positions: list[int],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
) -> Tensor:
    """Invert the distribution function at one uniform number a row."""
    kept = filtered(logits, temperature, top_k, top_p)
    mass = kept.double().softmax(-1).cumsum(-1)
    points = [uniform(seed, *name, position) for name, position in zip(names, positions, strict=True)]
    # Below the sum of all by construction, so the token found always has mass of its own.
    level = torch.tensor(points, dtype=torch.float64, device=mass.device)[:, None] * mass[:, -1:]
    return torch.searchsorted(mass, level, right=True)[:, 0]


def uniform(seed: int, prompt: int, sequence: int, position: int) -> float:
    """The number in [0, 1) that decides one token: 53 bits."""
    return (derive("sample", seed, prompt, sequence, position) >> 11) / (1 << 53)


def filtered(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits [B, vocabulary] over the temperature, -inf where a token is not among the likeliest k or mass p."""
    logits = logits / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if top_p is not None and top_p < 1:
        ascending, order = logits.sort()
        beyond = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        beyond[:, -1] = False
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -math.inf)
    return logits
