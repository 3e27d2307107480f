"""Write token by token with a cache of keys and values: sequences side by side, which come and go by themselves.

An encoder-decoder reads a prompt whole and writes another text, from the start token on. A prompt that several
sequences continue is read once. `generate` runs a batch until all is written, the server as long as it lives.

The law: a sequence's tokens are those that it would have alone (but for the last bits of a matrix product, which
differ with the number of rows). A prompt is read in one pass, in memory that grows as its length does (that of t5's
encoder as its square): 8,192 tokens take 110 MB, and 16,384 250 MB, on a CPU with 4 layers of width 128.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from training import TrainingError
from training.models import has_encoder_and_decoder
from training.sampling import Sampling, drawn, filtered, named, penalised, uniform


class TooLong(TrainingError):
    """A text, or what is to follow it, has no room in the model's context."""


LENGTH, STOP = "length", "stop"  # why a sequence ended, in the words of the OpenAI API


@dataclass(eq=False)
class Writing:
    """One sequence: what it continues, how, and what is written so far (the token that ended it included).

    `sequence` tells sequences of one prompt and seed apart. `heard` is told each token, and ends the sequence by
    answering True.
    """

    prompt: Sequence[int]
    sampling: Sampling
    new_tokens: int
    ends: frozenset[int]
    sequence: int = 0
    heard: Callable[[int], bool] | None = None
    tokens: list[int] = field(default_factory=list)
    ended: str | None = None

    @cached_property
    def name(self) -> str:
        return named(self.prompt)

    def add(self, token: int) -> None:
        """One token more; the sequence may have ended with it."""
        self.tokens.append(token)
        stopped = self.heard is not None and self.heard(token)
        if stopped or token in self.ends:
            self.ended = STOP
        elif len(self.tokens) >= self.new_tokens:
            self.ended = LENGTH


class Batch:
    """The sequences that a model, in `eval`, writes side by side.

    `start` is the token from which a decoder that reads an encoder begins.
    """

    def __init__(self, model: Any, start: int) -> None:
        self.model, self.start = model, start
        self.pairs = has_encoder_and_decoder(model)
        self.rows: list[Writing] = []
        with torch.inference_mode():
            self._cache = model.cache(0)

    @torch.inference_mode()
    def add(self, writings: Sequence[Writing]) -> None:
        """Read the prompts of sequences and write the first token of each; then drop what has ended."""
        fresh = [writing for writing in writings if writing.ended is None]
        if not fresh:
            return
        prompts = list({tuple(writing.prompt): None for writing in fresh})
        cache, logits = self._read(prompts)
        number = {prompt: row for row, prompt in enumerate(prompts)}
        rows = [number[tuple(writing.prompt)] for writing in fresh]
        self._cache.join(cache, rows)
        self.rows += fresh
        self._write(fresh, logits[rows])

    @torch.inference_mode()
    def step(self) -> None:
        """Write one token more of each sequence; then drop what has ended."""
        if not self.rows:
            return
        cache = self._cache
        tokens = torch.tensor([[writing.tokens[-1]] for writing in self.rows], device=cache.device)
        if self.pairs:
            hidden = self.model.decode(tokens, None, None, None, cache)
        else:
            positions = torch.tensor(cache.lengths, device=cache.device)[:, None]
            hidden = self.model(tokens, positions, None, cache=cache)
        self._write(self.rows, self.model.logits(hidden[:, -1]).float())

    @torch.inference_mode()
    def drop(self, gone: Callable[[Writing], bool]) -> None:
        """Take out sequences, whatever they still had to write."""
        rows = [row for row, writing in enumerate(self.rows) if gone(writing)]
        if rows:
            self.rows = [self.rows[row] for row in self._cache.drop(rows)]

    def _read(self, prompts: list[tuple[int, ...]]) -> tuple[Any, Tensor]:
        """A cache of what was read, a row a prompt, and the logits [B, vocabulary] of what follows."""
        cache = self.model.cache(len(prompts))
        lengths = [len(prompt) for prompt in prompts]
        tokens = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        tokens = tokens.to(cache.device)
        places, sizes = torch.arange(tokens.shape[1], device=cache.device), torch.tensor(lengths, device=cache.device)
        if self.pairs:
            numbers = -(places >= sizes[:, None]).int()
            start = torch.full_like(tokens[:, :1], self.start)
            hidden = self.model.decode(start, None, self.model.encode(tokens, numbers), numbers, cache)[:, -1]
        else:
            hidden = self.model(tokens, places.expand_as(tokens), None, cache=cache)
            hidden = hidden[torch.arange(len(prompts), device=cache.device), sizes - 1]
            cache.cut(lengths)
        return cache, self.model.logits(hidden).float()

    def _write(self, rows: Sequence[Writing], logits: Tensor) -> None:
        """Choose the next token of each sequence; those with equal settings together."""
        alike: dict[Sampling, list[int]] = {}
        for row, writing in enumerate(rows):
            alike.setdefault(writing.sampling, []).append(row)
        chosen = dict[int, int]()
        for sampling, some in alike.items():
            found = self._choose(sampling, [rows[row] for row in some], logits if len(alike) == 1 else logits[some])
            chosen |= zip(some, found.tolist(), strict=True)
        for row, writing in enumerate(list(rows)):
            writing.add(chosen[row])
        self.drop(lambda writing: writing.ended is not None)

    def _choose(self, sampling: Sampling, rows: list[Writing], logits: Tensor) -> Tensor:
        if sampling.repetition_penalty != 1:
            seen = [[*([self.start] if self.pairs else w.prompt), *w.tokens] for w in rows]
            logits = penalised(logits, seen, sampling.repetition_penalty)
        if sampling.temperature == 0:
            return logits.argmax(-1)
        points = [uniform(sampling.seed, w.name, w.sequence, len(w.tokens)) for w in rows]
        return drawn(filtered(logits, sampling), points)


def room(model: Any, prompt: Sequence[int], what: str = "the prompt") -> int:
    """How many tokens can follow a prompt.

    Raises TrainingError where the model writes nothing, or the prompt is empty, of other tokens, or too long.
    """
    pairs = has_encoder_and_decoder(model)
    if not (model.causal or pairs):
        raise TrainingError(f"{type(model).__module__} sees both ways and continues no text; a causal family does")
    if not len(prompt):
        raise TrainingError(f"{what} has no tokens; begin it with the end-of-text token")
    if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
        raise TrainingError(f"{what} has a token outside [0, {model.vocab_size}); is the tokenizer another?")
    left = model.length if pairs else model.length - len(prompt)
    if len(prompt) > model.length or not left:
        raise TooLong(
            f"{what} has {len(prompt):,} tokens, and the model's context is {model.length:,}, of which at least one is "
            "written; cut the prompt"
        )
    return int(left)
