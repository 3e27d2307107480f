"""From items to tokens: the text of a prompt with its examples, and where the continuation begins in its tokens.

A prompt and its continuation are cut into tokens together, as a text would be. White space at the end of a prompt is
predicted with the continuation (as in lm-eval): a tokenizer joins it to a word and not to a number, and both must have
the same to say. The continuation is then every token from the first one on that the prompt alone does not begin with:
a character of Chinese may belong to the one before. A prompt that is longer than the context loses its
beginning, which is counted; all choices of an item see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training import TrainingError
from training.loading import Loaded
from training.suites.items import Item, rank
from training.suites.suite import Set

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """The continuation whose log-likelihood behind the context is wanted."""

    context: Tokens
    continuation: Tokens


@dataclass(frozen=True)
class Asked:
    """An item as it is put: a request a choice, one more each where the answer's own likelihood is wanted, the bytes
    of each continuation, and whether the prompt was cut."""

    item: Item
    requests: tuple[Request, ...]
    alone: tuple[Request, ...]
    sizes: tuple[int, ...]
    cut: bool


def shots(item: Item, pool: Sequence[Item], how: Set) -> list[Item]:
    """The examples before an item: never itself, nor one that asks the same, and the same ones for the same seed."""
    others = [other for other in pool if other.doc_id != item.doc_id and other.contexts != item.contexts]
    if len(others) < how.shots:
        raise TrainingError(
            f"set {how.called!r}: {how.shots} shots are asked for, and there are {len(others)} other items; "
            "lower shots, or name another set in shots_from"
        )
    order = sorted(others, key=lambda other: rank(how.seed, item.doc_id, other.doc_id))
    return order[: how.shots]


def before(examples: Sequence[Item], how: Set) -> str:
    """The text before an item's own."""
    texts = []
    for example in examples:
        context, continuation = example.choice(example.gold)
        texts.append(how.prefix + context + how.delimiter + continuation + how.between)
    return how.description + "".join(texts)


def ask(loaded: Loaded, item: Item, examples: Sequence[Item], how: Set, *, alone: bool) -> Asked:
    """The tokens of an item. Raises TrainingError for a continuation that is longer than the context."""
    front = before(examples, how)
    pairs = [item.choice(number) for number in range(item.choices)]
    texts = [(front + how.prefix + context + how.delimiter, continuation) for context, continuation in pairs]
    requests = [pair(loaded, *text) for text in texts]
    kept, cut = _fitted(loaded, requests, item)
    lone = [pair(loaded, how.unconditional, continuation) for _, continuation in pairs] if alone else []
    sizes = tuple(len(continuation.encode()) for _, continuation in pairs)
    return Asked(item, tuple(kept), tuple(_fitted(loaded, lone, item)[0]), sizes, cut)


def pair(loaded: Loaded, context: str, continuation: str) -> Request:
    """Cut a text into tokens and these in two."""
    if bare := context.rstrip():
        context, continuation = bare, context[len(bare) :] + continuation
    if not context:
        return Request((loaded.start,), tuple(loaded.read(continuation, bare=True)))
    alone, whole = loaded.encode(context), loaded.encode(context + continuation)
    same = next((n for n, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), min(len(alone), len(whole)))
    if not same:  # the very first token holds some of both
        return Request((loaded.start,), tuple(whole))
    same = min(same, len(whole) - 1)
    return Request(tuple(whole[:same]), tuple(whole[same:]))


def _fitted(loaded: Loaded, requests: Sequence[Request], item: Item) -> tuple[list[Request], bool]:
    """The requests without as much of the beginning of their contexts as there is no room for, the same of all."""
    length = loaded.model.length + 1  # the last token is predicted, and never read
    longest = max((len(request.continuation) for request in requests), default=0)
    if longest >= length:
        raise TrainingError(
            f"{item.doc_id}: a continuation of {longest:,} tokens, and the model's context is "
            f"{loaded.model.length:,}; leave the item out"
        )
    over = max((len(request.context) + len(request.continuation) - length for request in requests), default=0)
    if over <= 0:
        return list(requests), False
    return [Request(one.context[min(over, len(one.context) - 1) :], one.continuation) for one in requests], True
