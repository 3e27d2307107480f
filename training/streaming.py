"""The text of a sequence while it is written: whole characters only, and nothing that may become a stop string.

What has been said is never taken back, and all that was said is the text at the end. A token may hold half of a
character, so what ends in one waits for the next token (as text-generation-inference does); what could go on to be a
stop string waits until it cannot. The text ends before the first stop string.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer, decoders

HALF = "�"  # what a decoder writes for bytes that are no character, or not yet
CONTEXT = 6  # tokens of the prompt that a decoder is shown: some write a space only between words


class Stream:
    """Told token after token (`add`), says what is certain (`fresh`), and in the end the rest (`finish`).

    `ends` are tokens that spell nothing here; other special tokens are spelt where `special`.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        before: Sequence[int] = (),
        *,
        stops: Sequence[str] = (),
        ends: Collection[int] = (),
        special: bool = False,
    ) -> None:
        self.text = ""
        self.stopped = False
        self._tokenizer, self._stops, self._ends, self._special = tokenizer, [s for s in stops if s], ends, special
        self._tokens = list(before[-CONTEXT:])
        self._from, self._read, self._said = 0, len(self._tokens), 0
        self._given = 0  # characters behind `_read` that are in the text
        self._rest = ""  # what is behind them: half a character
        # Of bytes that are none, a byte-level decoder looks at the last alone again; byte fallback at all in a row.
        self._one = isinstance(tokenizer.decoder, decoders.ByteLevel)

    def add(self, token: int) -> bool:
        """One token more. Returns whether a stop string is complete; the text ends before it."""
        if self.stopped or token in self._ends:
            return self.stopped
        self._tokens.append(token)
        before, whole = self._decoded(self._from, self._read), self._decoded(self._from, None)
        fresh = whole[len(before) :]
        sure = fresh.removesuffix(HALF) if self._one else fresh.rstrip(HALF)
        length = len(self.text)
        self.text += sure[self._given :]
        self._given, self._rest = max(self._given, len(sure)), fresh[len(sure) :]
        if fresh and sure == fresh:
            self._from, self._read, self._given = self._read, len(self._tokens), 0
        return self._stop_after(length)

    def fresh(self) -> str:
        """What is certain since the last time that this was asked."""
        end = len(self.text) if self.stopped else len(self.text) - self._held()
        said, self._said = self.text[self._said : end], max(self._said, end)
        return said

    def finish(self) -> str:
        """What was not said yet, half a character included: nothing will follow."""
        if not self.stopped:
            self.text, self._rest = self.text + self._rest, ""
        said, self._said = self.text[self._said :], len(self.text)
        return said

    def _decoded(self, first: int, last: int | None) -> str:
        text: str = self._tokenizer.decode(self._tokens[first:last], skip_special_tokens=not self._special)
        return text

    def _stop_after(self, length: int) -> bool:
        """Look for stop strings that reach beyond the first `length` characters, and cut the text at the first."""
        whole = self.text + self._rest
        found = [whole.find(stop, max(0, length - len(stop) + 1)) for stop in self._stops]
        at = min((place for place in found if place >= 0), default=None)
        if at is not None:
            self.text, self._rest, self.stopped = whole[:at], "", True
        return self.stopped

    def _held(self) -> int:
        """How many characters at the end may begin a stop string."""
        longest = max(map(len, self._stops), default=1) - 1
        for count in range(min(longest, len(self.text) - self._said), 0, -1):
            if any(stop.startswith(self.text[-count:]) for stop in self._stops):
                return count
        return 0
