"""Continue texts: greedy, or drawn as `sampling` says, with a cache of keys and values.

An encoder-decoder reads a prompt whole and writes another text, from the end-of-text token on.

The law: what is drawn for a sequence depends on (seed, prompt, sequence number, position) and its own tokens alone, so
batches decide nothing; greedy tokens are those of `transformers.generate`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from training import TrainingError, decoding
from training.decoding import Batch, TooLong, Writing
from training.models import has_encoder_and_decoder
from training.sampling import Sampling

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
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    ends: Collection[int] | None = None,
    batch: int = BATCH,
) -> list[list[list[int]]]:
    """For each prompt, `return_sequences` continuations of at most `new_tokens` tokens, without the prompt.

    A continuation that ended itself has one of `ends` (by default `eot` alone) as its last token. Temperature 0 takes
    the likeliest token. A prompt that is asked twice goes on with other sequences.
    Raises TrainingError for settings that cannot be, for an empty prompt, for a token outside the vocabulary,
    where prompt and continuation are longer than the context that the model is made for, and for a model that
    writes nothing.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed)
    if new_tokens < 0 or return_sequences < 1:
        raise TrainingError(f"new_tokens {new_tokens} must be 0 or more, return_sequences {return_sequences} 1 or more")
    for number, prompt in enumerate(prompts):
        fits(model, prompt, new_tokens, f"prompt {number}")
    known = frozenset([eot] if ends is None else ends)
    made = [
        [Writing(prompt, sampling, new_tokens, known, number) for number in numbers]
        for prompt, numbers in zip(prompts, sequences(prompts, return_sequences), strict=True)
    ]
    if new_tokens:
        for _ in write(model, [writing for some in made for writing in some], eot, batch):
            pass
    return [[writing.tokens for writing in some] for some in made]


def sequences(prompts: Iterable[Sequence[int]], each: int) -> Iterator[range]:
    """The numbers of the `each` sequences of every prompt: one that is asked twice goes on with others."""
    asked = Counter[tuple[int, ...]]()
    for prompt in prompts:
        first = asked[tuple(prompt)] * each
        asked[tuple(prompt)] += 1
        yield range(first, first + each)


def write(model: Any, writings: Sequence[Writing], start: int, batch: int = BATCH) -> Iterator[None]:
    """Write sequences to their ends, at most `batch` of them side by side; the next begins where one has ended.

    Yields after every token of theirs.
    """
    waiting, side = deque(writings), Batch(model, start)
    training = model.training
    model.eval()
    try:
        while waiting or side.rows:
            free = min(batch - len(side.rows), len(waiting))
            if free:
                side.add([waiting.popleft() for _ in range(free)])
            else:
                side.step()
            yield
    finally:
        model.train(training)


def fits(model: Any, prompt: Sequence[int], new_tokens: int, what: str) -> None:
    """Raises TooLong where the context has no room for a prompt and so many tokens behind it."""
    room = decoding.room(model, prompt, what)
    if new_tokens <= room:
        return
    if has_encoder_and_decoder(model):
        raise TooLong(
            f"{what} has {len(prompt)} tokens, and {new_tokens} new ones are asked for: the model reads "
            f"and writes at most {model.length} each"
        )
    raise TooLong(
        f"{what} has {len(prompt)} tokens: with {new_tokens} new ones it is longer than the "
        f"model's context of {model.length}; ask for at most {room} new tokens, or cut the prompt"
    )
