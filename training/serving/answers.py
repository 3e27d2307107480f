"""What is answered to a completion or a chat: the bodies of the OpenAI API, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from training.serving.engine import Part


class Form:
    """The bodies of answers, as OpenAI has them: whole, or in chunks."""

    def __init__(
        self, model: str, chat: bool, parts: Sequence[Part], echoed: list[str] | None, n: int, read_: int
    ) -> None:
        self.chat, self.echoed, self.n, self._read, self._parts = chat, echoed, n, read_, parts
        self.number = {part: number for number, part in enumerate(parts)}
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": None,
        }

    def whole(self, texts: list[str], ends: list[str]) -> dict[str, Any]:
        """The answer at once."""
        choices = []
        for number, (text, ended) in enumerate(zip(texts, ends, strict=True)):
            said = {"message": {"role": "assistant", "content": text, "refusal": None}}
            said = said if self.chat else {"text": self.echo(number) + text}  # type: ignore[dict-item]
            choices.append({"index": number, **said, "logprobs": None, "finish_reason": ended})
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage()}

    def echo(self, number: int) -> str:
        return self.echoed[number // self.n] if self.echoed else ""

    def chunk(self, number: int, text: str, ended: str | None, begins: bool) -> dict[str, Any]:
        """A piece of one text, or its end."""
        if self.chat:
            role = {"role": "assistant"} if begins else {}
            said: dict[str, Any] = {"delta": {**role, **({"content": text} if text or begins else {})}}
        else:
            said = {"text": (self.echo(number) if begins else "") + text}
        return self._chunk([{"index": number, **said, "logprobs": None, "finish_reason": ended}])

    def last(self) -> dict[str, Any]:
        """The chunk that tells how many tokens there were."""
        return {**self._chunk([]), "usage": self.usage()}

    def usage(self) -> dict[str, int]:
        made = sum(len(part.writing.tokens) for part in self._parts)
        return {"prompt_tokens": self._read, "completion_tokens": made, "total_tokens": self._read + made}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk" if self.chat else "text_completion", "choices": choices}
