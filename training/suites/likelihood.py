"""log P(continuation | context) of many requests, and whether each is what greedy decoding would have written.

Requests with the same context share what was read of it: the context is read once, its keys and values stand before
every continuation. Those of about one length are read side by side.

The law: which requests are computed together hangs on the requests and on `batch` alone, never on how many processes
there are; so the same numbers come out, to the bit, where each has the same number of threads. Other threads or
another `batch` add up in another order: log-likelihoods then agree to .001 nats, and where two choices are closer than
that to one another, either may win.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training import TrainingError, machine
from training.loading import Loaded
from training.parallel import Group
from training.progress import Reporter
from training.suites.prompts import Request, Tokens

BATCH = 32
LONG = 512  # tokens of a context from which on fewer rows are read side by side, so that keys and values take no more
PLACES = 16  # tokens whose logits over the vocabulary are held at once, for each of `BATCH` rows


@dataclass(frozen=True)
class Answers:
    """nats: log-likelihood of each request [n]; greedy: whether each of its tokens was the likeliest [n]."""

    nats: NDArray[np.float64]
    greedy: NDArray[np.bool_]


@dataclass(frozen=True)
class Work:
    """Contexts that are read side by side, and the continuations behind them: (row of its context, tokens)."""

    contexts: tuple[Tokens, ...]
    rows: tuple[tuple[int, Tokens], ...]


def score(loaded: Loaded, requests: Sequence[Request], group: Group, progress: Reporter, batch: int = BATCH) -> Answers:
    """The answers, on every rank. Raises TrainingError for a model that continues no text."""
    check(loaded)
    number = {request: n for n, request in enumerate(dict.fromkeys(requests))}
    found = np.zeros((len(number), 2))
    for place, work in enumerate(plan(list(number), batch)):
        if place % group.world == group.rank:
            with machine.fitting(len(work.rows), "--batch"):
                answers = _answer(loaded.model, work)
            for (row, continuation), answer in zip(work.rows, answers, strict=True):
                found[number[Request(work.contexts[row], continuation)]] = answer
        progress.advance(len(work.rows))
    group.sum_(torch.from_numpy(found))
    mine = [number[request] for request in requests]
    return Answers(found[mine, 0], found[mine, 1] > 0)


def check(loaded: Loaded) -> None:
    """Raise TrainingError where likelihoods of continuations cannot be asked for."""
    loaded.writer()
    if loaded.pairs:
        raise TrainingError(
            f"{loaded.name}: an encoder-decoder was trained to fill gaps or write targets, and its likelihood of a "
            "continuation says nothing of what it knows; evaluate a causal model, or fine-tune it and read its report"
        )


def distinct(requests: Sequence[Request]) -> int:
    """How many rows `score` will advance by."""
    return len(set(requests))


def plan(requests: Sequence[Request], batch: int) -> Iterator[Work]:
    """Requests in groups of at most `batch` rows, those with one context together and the longest first.

    Of contexts beyond `LONG` tokens there are fewer rows in a group.
    """
    behind: dict[Tokens, list[Tokens]] = defaultdict(list)
    for request in requests:
        behind[request.context].append(request.continuation)
    contexts: list[Tokens] = []
    rows: list[tuple[int, Tokens]] = []
    for context in sorted(behind, key=lambda tokens: (-len(tokens), tokens)):
        some = sorted(behind[context], key=lambda tokens: (-len(tokens), tokens))
        while some:
            longest = len(contexts[0] if contexts else context)
            room = max(1, min(batch, batch * LONG // longest)) - len(rows)
            # What shares a context is torn apart only where it is more than a batch.
            if not room or (contexts and len(some) > room):
                yield Work(tuple(contexts), tuple(rows))
                contexts, rows = [], []
                continue
            contexts.append(context)
            rows += [(len(contexts) - 1, tokens) for tokens in some[:room]]
            some = some[room:]
    if rows:
        yield Work(tuple(contexts), tuple(rows))


@torch.inference_mode()
def _answer(model: Any, work: Work) -> list[tuple[float, float]]:
    """(nats, 1 where greedy) of each row."""
    cache = model.cache(len(work.contexts))
    sizes = [len(context) for context in work.contexts]
    tokens = _padded(work.contexts).to(cache.device)
    places = torch.arange(tokens.shape[1], device=cache.device).expand_as(tokens)
    hidden = model(tokens, places, None, cache=cache)
    ends = torch.tensor(sizes, device=cache.device) - 1
    rows = [row for row, _ in work.rows]
    last = hidden[torch.arange(len(sizes), device=cache.device), ends][rows][:, None]
    cache.cut(sizes)
    targets = _padded([continuation for _, continuation in work.rows]).to(cache.device)
    if targets.shape[1] > 1:
        behind = model.cache(0)
        behind.join(cache, rows)
        begin = torch.tensor([sizes[row] for row in rows], device=cache.device)[:, None]
        positions = begin + torch.arange(targets.shape[1] - 1, device=cache.device)
        # Padding stands behind what is read, and no position lies beyond the model's: what is there counts for nothing.
        positions = positions.clamp(max=model.length - 1)
        last = torch.cat([last, model(targets[:, :-1], positions, None, cache=behind)], 1)
    nats, greedy = _judged(model, last, targets)
    return [
        (float(nats[row, : len(one)].sum()), float(greedy[row, : len(one)].all()))
        for row, (_, one) in enumerate(work.rows)
    ]


def _judged(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """log P of every target [R, T] in nats, and whether it is the likeliest."""
    nats, greedy = [], []
    for first in range(0, targets.shape[1], PLACES):
        part = slice(first, first + PLACES)
        logits, wanted = model.logits(hidden[:, part]).float(), targets[:, part]
        found = logits.gather(2, wanted[..., None])[..., 0]
        nats.append((found - logits.logsumexp(2)).double().cpu().numpy())
        greedy.append((logits.argmax(2) == wanted).cpu().numpy())
    return np.concatenate(nats, 1), np.concatenate(greedy, 1)


def _padded(texts: Sequence[Tokens]) -> torch.Tensor:
    tokens = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = torch.tensor(text)
    return tokens
