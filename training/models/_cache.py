"""Keys and values of what was read, so that one more token costs one token's work.

Rows have lengths of their own, and come and go while others stay: prompts of several lengths are read side by side
(padded behind, then `cut`), rows of one cache `join` another, and those that are done are `drop`ped. What lies behind
the end of a row is nobody's: no token sees it, and the next one is written over it.

The law: a row's results depend on what is in that row alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

LEAST = 64  # places of a row at the least; more are made by doubling


class Store:
    """One tensor [layers, rows, heads, places, head_width] for keys or values, which grows by rows and by places."""

    def __init__(self, layers: int, heads: int, head_width: int, like: Tensor) -> None:
        self.data = like.new_zeros(layers, 0, heads, 0, head_width)

    def reserve(self, rows: int, places: int) -> None:
        """Have room for so many. New places hold zeros: whatever is hidden is still multiplied, and must be finite."""
        layers, had, heads, length, width = self.data.shape
        if rows <= had and places <= length:
            return
        rows = had if rows <= had else max(rows, 2 * had)
        places = length if places <= length else max(places, 2 * length, LEAST)
        data = self.data.new_zeros(layers, rows, heads, places, width)
        data[:, :had, :, :length] = self.data
        self.data = data

    def take(self, other: Store, rows: Sequence[int], places: int, at: int) -> None:
        """Copy rows of another store, up to `places`, to the rows from `at` on."""
        self.data[:, at : at + len(rows), :, :places] = other.data[:, list(rows), :, :places]

    def move(self, source: int, target: int, places: int) -> None:
        """Copy one row over another."""
        self.data[:, target, :, :places] = self.data[:, source, :, :places]


class Cache:
    """What the layers of a decoder have read: `rows` rows, of which each has its own length."""

    def __init__(self, layers: int, rows: int, heads: int, head_width: int, like: Tensor) -> None:
        self.device = like.device
        self.lengths = [0] * rows
        self._keys, self._values = (Store(layers, heads, head_width, like) for _ in range(2))
        self._begin: list[int] = []
        self._places: Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def empty(self) -> bool:
        """Nothing has been read yet."""
        return not any(self.lengths)

    def extend(self, count: int) -> None:
        """Make room for `count` more tokens in every row."""
        self._begin = self.lengths
        self.lengths = [length + count for length in self._begin]
        for store in (self._keys, self._values):
            store.reserve(self.rows, max(self.lengths))
        self._places = None
        if count > 1 or min(self._begin) < max(self._begin):
            begin = torch.tensor(self._begin, device=self.device)
            self._places = begin[:, None] + torch.arange(count, device=self.device)

    def mask(self) -> Tensor | None:
        """[B, 1, T, S]: what the tokens that were added last see, their own row up to themselves. None: all of it."""
        if self._places is None:
            return None
        return torch.arange(max(self.lengths), device=self.device) <= self._places[:, None, :, None]

    def places(self) -> Tensor:
        """Place [B, T] in its row of each token that was added last."""
        if self._places is None:
            return torch.tensor(self._begin, device=self.device)[:, None]
        return self._places

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add a layer's keys and values [B, T, G, D] of those tokens; returns all so far [B, S, G, D]."""
        count, whole, first = k.shape[1], max(self.lengths), self._begin[0]
        found = []
        for store, new in ((self._keys, k), (self._values, v)):
            held = store.data[layer, : self.rows]
            if all(begin == first for begin in self._begin):
                held[:, :, first : first + count] = new.transpose(1, 2)
            else:
                rows = torch.arange(self.rows, device=self.device)[:, None]
                held.transpose(1, 2)[rows, self.places()] = new.to(held.dtype)
            found.append(held[:, :, :whole].transpose(1, 2))
        return found[0], found[1]

    def cut(self, lengths: Sequence[int]) -> None:
        """Forget what each row has behind so many tokens."""
        self.lengths = list(lengths)

    def join(self, other: Cache, rows: Sequence[int]) -> None:
        """Add rows of another cache of the same model behind these; one may be added several times."""
        at, self.lengths = self.rows, self.lengths + [other.lengths[row] for row in rows]
        whole = max(self.lengths, default=0)
        for mine, theirs in ((self._keys, other._keys), (self._values, other._values)):
            mine.reserve(self.rows, whole)
            mine.take(theirs, rows, max((other.lengths[row] for row in rows), default=0), at)

    def drop(self, rows: Collection[int]) -> list[int]:
        """Forget rows. Returns which row of before each row is now: the last ones fill the gaps."""
        order = list(range(self.rows))
        for row in sorted(rows, reverse=True):
            last = len(order) - 1
            if row != last:
                self._move(last, row)
                order[row] = order[last]
            order.pop()
            self.lengths.pop()
        return order

    def _move(self, source: int, target: int) -> None:
        self.lengths[target] = self.lengths[source]
        for store in (self._keys, self._values):
            store.move(source, target, self.lengths[source])


class Reader(Cache):
    """The cache of a decoder that reads an encoder: with the keys and values of what was encoded, computed once."""

    def __init__(self, layers: int, rows: int, heads: int, head_width: int, like: Tensor) -> None:
        super().__init__(layers, rows, heads, head_width, like)
        self.encoded = [0] * rows  # tokens that each row's encoder has read
        self._across = [Store(layers, heads, head_width, like) for _ in range(2)]

    def read(self, layer: int, keys: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """A layer's keys and values [B, S, H, D] of the encoded texts; given once, they are kept."""
        whole = max(self.encoded)
        if keys is not None:
            for store, new in zip(self._across, keys, strict=True):
                store.reserve(self.rows, whole)
                store.data[layer, : self.rows, :, :whole] = new[:, :whole].transpose(1, 2)
        k, v = (store.data[layer, : self.rows, :, :whole].transpose(1, 2) for store in self._across)
        return k, v

    def across(self) -> Tensor:
        """[B, 1, 1, S]: which of the encoded tokens are there."""
        places = torch.arange(max(self.encoded), device=self.device)
        return (places < torch.tensor(self.encoded, device=self.device)[:, None])[:, None, None]

    def join(self, other: Cache, rows: Sequence[int]) -> None:
        assert isinstance(other, Reader)
        at, new = self.rows, [other.encoded[row] for row in rows]
        super().join(other, rows)
        self.encoded = [*self.encoded, *new]
        for mine, theirs in zip(self._across, other._across, strict=True):
            mine.reserve(self.rows, max(self.encoded, default=0))
            mine.take(theirs, rows, max(new, default=0), at)

    def drop(self, rows: Collection[int]) -> list[int]:
        order = super().drop(rows)
        self.encoded = self.encoded[: len(order)]
        return order

    def _move(self, source: int, target: int) -> None:
        super()._move(source, target)
        self.encoded[target] = self.encoded[source]
        for store in self._across:
            store.move(source, target, self.encoded[source])
