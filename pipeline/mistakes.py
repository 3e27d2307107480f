"""What a person can put right, and how it is said: the place, what is wrong, and what there is instead.

It imports nothing, so a verb that only reads a file of a run is told apart from one that knows stages by the time it
takes to start.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class ConfigError(ValueError):
    """A recipe, card or run file says something that cannot be: the message names the place and the fix."""


def suggest(word: str, existing: Iterable[str]) -> str:
    """'; did you mean X? has: A, B, X' for an error about an unknown name."""
    existing = sorted(existing)
    near = difflib.get_close_matches(word, existing, n=1, cutoff=0.6) or _same_words(word, existing)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" has: {', '.join(existing) or 'nothing'}"


def _same_words(word: str, existing: list[str]) -> list[str]:
    """The name of which most words stand in `word` too, as another tool may call it; none where fewer than .6 do."""

    def words(name: str) -> set[str]:
        return {part.removesuffix("s") for part in re.findall(r"[a-z0-9]+", name.lower())}

    shares = [(len(words(name) & words(word)) / max(len(words(name)), 1), name) for name in existing]
    return [name for share, name in sorted(shares, reverse=True) if share >= 0.6][:1]
