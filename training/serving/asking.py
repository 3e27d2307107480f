"""From a checked body to sequences or texts that the engine can take: tokens, room in the context, settings."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from training import TrainingError
from training.decoding import TooLong, Writing, room
from training.generate import fits
from training.loading import Loaded
from training.sampling import Sampling
from training.serving import Limits, chat
from training.serving.engine import Part, Text
from training.serving.protocol import Asking, Chat, Classify, Completion, Refusal
from training.streaming import Stream


@dataclass(frozen=True)
class Prompt:
    """A prompt: its tokens, and the text that `echo` repeats."""

    tokens: Sequence[int]
    text: str


def completion(loaded: Loaded, body: Completion) -> list[Prompt]:
    """The prompts of a completion. Raises Refusal."""
    _writer(loaded)
    found = []
    for number, given in enumerate(body.prompts):
        with _checked("prompt"):
            if isinstance(given, str):
                found.append(Prompt(loaded.read(loaded.prompted(given), f"prompt {number}"), given))
            else:
                room(loaded.model, given, f"prompt {number}")
                found.append(Prompt(given, loaded.tokenizer.decode(given, skip_special_tokens=False)))
    if not found:
        raise Refusal(400, "Parameter 'prompt': holds no prompt", param="prompt", code="invalid_value")
    return found


def dialogue(loaded: Loaded, body: Chat, name: str) -> list[Prompt]:
    """The one prompt of a chat. Raises Refusal where the tokenizer has no chat template."""
    _writer(loaded)
    template = loaded.template
    if template is None:
        said = f"The tokenizer of '{name}' has no chat template, so it takes no messages; use /v1/completions"
        raise Refusal(400, said, param="messages", code="no_chat_template")
    messages = [message.plain() for message in body.messages]
    with _checked("messages"):
        text = chat.rendered(template, messages, loaded.special or {})
        return [Prompt(loaded.read(text, "the chat", bare=True), text)]


def texts(loaded: Loaded, body: Classify, name: str) -> list[Sequence[int]]:
    """The tokens of texts to classify. Raises Refusal."""
    if not loaded.classifier:
        raise Refusal(400, f"'{name}' writes texts and has no classes; use /v1/completions", code="not_a_classifier")
    found: list[Sequence[int]] = []
    for number, text in enumerate(body.texts):
        with _checked("input"):
            tokens = loaded.read(text, f"text {number}")
        if len(tokens) > loaded.model.length:
            said = f"text {number} has {len(tokens):,} tokens, and the model's context is {loaded.model.length:,}"
            raise Refusal(400, said, param="input", code="context_length_exceeded")
        found.append(tokens)
    return found


def parts(
    loaded: Loaded,
    prompts: Sequence[Prompt],
    body: Asking,
    limits: Limits,
    most: int | None,
    tell: Callable[[Part, str, str | None], None],
) -> list[Part]:
    """The sequences of a request, `n` a prompt; `most` tokens each, None: as many as there is room for."""
    if most is not None and limits.max_tokens is not None and most > limits.max_tokens:
        said = f"Parameter 'max_tokens': {most} is above {limits.max_tokens}, the most that this server writes"
        raise Refusal(400, said, param="max_tokens", code="invalid_value")
    sampling, count = _sampling(body), body.n or 1
    found, before = [], Counter[tuple[int, ...]]()
    for number, prompt in enumerate(prompts):
        with _checked("prompt" if isinstance(body, Completion) else "messages"):
            left = room(loaded.model, prompt.tokens, f"prompt {number}")
            new = min(left, limits.max_tokens or left) if most is None else most
            fits(loaded.model, prompt.tokens, new, f"prompt {number}")
        for sequence in range(count):
            stream = Stream(
                loaded.tokenizer,
                [] if loaded.pairs else prompt.tokens,
                stops=body.stops,
                ends=loaded.ends,
                special=loaded.pairs,
            )
            name = before[tuple(prompt.tokens)] * count + sequence
            writing = Writing(prompt.tokens, sampling, new, loaded.ends, name, stream.add)
            found.append(Part(writing, stream, tell, bool(body.stream)))
        before[tuple(prompt.tokens)] += 1
    if len(found) > limits.queue:
        said = f"{len(found)} texts are asked for at once, and this server takes {limits.queue}"
        raise Refusal(400, said, param="n", code="invalid_value")
    return found


def items(tokens: Sequence[Sequence[int]], tell: Callable[[int, Any], None]) -> list[Text]:
    """Texts that tell their number with their probabilities."""
    return [Text(each, partial(tell, number)) for number, each in enumerate(tokens)]


def _sampling(body: Asking) -> Sampling:
    """The settings of a request; without a seed it has one that nobody else has."""
    temperature = 1.0 if body.temperature is None else body.temperature
    top_k = body.top_k if body.top_k and body.top_k > 0 else None  # 0 and -1 are how others say none
    seed = secrets.randbits(62) if body.seed is None else body.seed
    return Sampling(temperature, top_k, body.top_p, body.min_p, body.repetition_penalty, seed)


def _writer(loaded: Loaded) -> None:
    try:
        loaded.writer()
    except TrainingError as error:
        raise Refusal(400, str(error), code="not_a_writer") from error


@contextmanager
def _checked(param: str) -> Iterator[None]:
    """What is refused inside is said as the API says it."""
    try:
        yield
    except TooLong as error:
        raise Refusal(400, str(error), param=param, code="context_length_exceeded") from error
    except TrainingError as error:
        raise Refusal(400, str(error), param=param, code="invalid_value") from error
