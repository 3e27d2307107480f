"""The thread that owns the model: all requests are worked on side by side, and new ones join between two tokens.

A writer's batch is a `decoding.Batch` (continuous batching: Yu et al. 2022, "Orca", section 3.2); a classifier's is
what waits at that moment. Requests wait in the order in which they came. Whoever asks hears of each change by a
callback from this thread, and may leave at any time: what was asked for is then written no further.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.decoding import Batch, Writing
from training.loading import Loaded
from training.streaming import Stream

READ = 8192  # prompt tokens that are read between two tokens of those who write
SIDE_BY_SIDE = 64  # texts that are classified at once
FAILED = "error"


class Full(Exception):
    """So much waits that nothing more is taken."""


@dataclass(eq=False)
class Part:
    """One sequence of a request. `tell` is called with what is certain of its text since the last time, and with why
    it ended, or None; with `pieces` false once, at its end."""

    writing: Writing
    stream: Stream
    tell: Callable[[Part, str, str | None], None]
    pieces: bool
    gone: bool = False

    def say(self) -> None:
        """Tell what is new."""
        ended = self.writing.ended
        if ended:
            self.tell(self, self.stream.finish(), ended)
        elif self.pieces and (text := self.stream.fresh()):
            self.tell(self, text, None)


@dataclass(eq=False)
class Text:
    """A text to classify: `tell` is called with the probabilities of the classes, or None where that failed."""

    tokens: Sequence[int]
    tell: Callable[[list[float] | None], None]
    gone: bool = False


class Engine(threading.Thread):
    """Works through what is asked until it is closed and all is done. `queue` items may wait, no more."""

    def __init__(self, loaded: Loaded, batch: int, queue: int) -> None:
        super().__init__(daemon=True, name="engine")
        self.loaded, self.size, self.queue = loaded, batch, queue
        self.running = 0
        self._waiting: deque[Any] = deque()
        self._closed = False
        self._change = threading.Condition()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ask(self, items: Sequence[Part] | Sequence[Text]) -> None:
        """Take on a request, all of it or nothing. Raises Full."""
        with self._change:
            if self._closed or len(self._waiting) + len(items) > self.queue:
                raise Full
            self._waiting.extend(items)
            self._change.notify()

    def close(self) -> None:
        """Take nothing more; the thread ends when all is done."""
        with self._change:
            self._closed = True
            self._change.notify()

    def run(self) -> None:
        work = self._classify if self.loaded.classifier else self._write
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
            work()

    def _next(self, most: int, tokens: int, size: Callable[[Any], int]) -> list[Any]:
        """The first items that wait, at most so many with so many tokens, but one at the least; those whose client has
        gone are passed over."""
        found: list[Any] = []
        with self._change:
            while self._waiting and len(found) < most:
                if self._waiting[0].gone:
                    self._waiting.popleft()
                    continue
                tokens -= size(self._waiting[0])
                if found and tokens < 0:
                    break
                found.append(self._waiting.popleft())
        return found

    def _write(self) -> None:
        """Write until nobody waits and nothing runs. What breaks fails those that run, and nobody else."""
        batch = Batch(self.loaded.model, self.loaded.start)
        parts: dict[Writing, Part] = {}
        try:
            while True:
                fresh = self._next(self.size - len(batch.rows), READ, lambda part: len(part.writing.prompt))
                parts.update({part.writing: part for part in fresh})
                batch.drop(lambda writing: parts[writing].gone)
                self.running = len(batch.rows) + len(fresh)
                if fresh:
                    batch.add([part.writing for part in fresh])
                elif batch.rows:
                    batch.step()
                else:
                    return
                for writing, part in list(parts.items()):
                    if not part.gone:
                        part.say()
                    if writing.ended or part.gone:
                        del parts[writing]
        except Exception as error:
            _trouble(error)
            for part in parts.values():
                part.tell(part, "", FAILED)
        finally:
            self.running = 0

    def _classify(self) -> None:
        texts = self._next(SIDE_BY_SIDE, READ, lambda text: len(text.tokens))
        self.running = len(texts)
        try:
            found: Sequence[list[float] | None] = shares(self.loaded.model, [text.tokens for text in texts])
        except Exception as error:
            _trouble(error)
            found = [None] * len(texts)
        for text, probabilities in zip(texts, found, strict=True):
            text.tell(probabilities)
        self.running = 0


@torch.inference_mode()
def shares(model: Any, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Probability of each class for each text, side by side in one batch."""
    if not texts:
        return []
    device, longest = next(model.parameters()).device, max(map(len, texts))
    tokens = torch.zeros(len(texts), longest, dtype=torch.int64)
    pieces = torch.full((len(texts), longest), -1, dtype=torch.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)], pieces[row, : len(text)] = torch.tensor(text), row
    positions = torch.where(pieces >= 0, torch.arange(longest), 0)
    last = torch.tensor([row * longest + len(text) - 1 for row, text in enumerate(texts)])
    logits = model(*(x.to(device) for x in (tokens, positions, pieces, last)))
    found: list[list[float]] = logits.double().softmax(-1).tolist()
    return found


def _trouble(error: Exception) -> None:
    """Nobody who asked can put this right: it goes to the log."""
    import logging

    logging.getLogger("uvicorn.error").error("a batch failed", exc_info=error)
