"""A row as it lies in its file, and rows laid out for a batch: the same for every layout.

    row i:   tokens   used   starts [pieces]   documents [pieces]   offsets [pieces]

A row of examples is one document: one piece, with a label and, where the version has them, a target text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]


class Row(NamedTuple):
    """Views of one row: piece j is tokens[starts[j]:starts[j + 1]] (the last one ends at `used`)."""

    tokens: Ints
    used: int
    starts: Ints
    documents: Ints
    offsets: Ints


class Texts(NamedTuple):
    """A text for each of B rows: tokens [B, length], padded, and used [B]."""

    tokens: Ints
    used: Ints


@dataclass(frozen=True)
class Rows:
    """B rows laid out for a batch, and their P pieces side by side in order of row and start.

    tokens [B, length], used [B], index [B] (number in the split); piece_row, starts, lengths, documents,
    offsets [P], where piece_row says which of the B rows a piece lies in. Of examples also labels [B], numbers into
    the manifest's (-1: none), and targets, the texts to be written; None where the layout or the version has none.
    """

    index: Ints
    tokens: Ints
    used: Ints
    piece_row: Ints
    starts: Ints
    lengths: Ints
    documents: Ints
    offsets: Ints
    labels: Ints | None = None
    targets: Texts | None = None

    def __len__(self) -> int:
        return len(self.index)

    def slice(self, first: int, last: int) -> Rows:
        """Rows [first, last) of these."""
        low, high = self.piece_row.searchsorted((first, last)).tolist()
        return Rows(
            self.index[first:last],
            self.tokens[first:last],
            self.used[first:last],
            self.piece_row[low:high] - first,
            self.starts[low:high],
            self.lengths[low:high],
            self.documents[low:high],
            self.offsets[low:high],
            None if self.labels is None else self.labels[first:last],
            None if self.targets is None else Texts(*(values[first:last] for values in self.targets)),
        )

    def by_length(self) -> Rows:
        """Rows of examples from the shortest on, so that neighbours need little padding; packed rows as they are."""
        if self.labels is None:
            return self
        order = np.argsort(self.used + (0 if self.targets is None else self.targets.used), kind="stable")
        return Rows(
            self.index[order],
            self.tokens[order],
            self.used[order],
            self.piece_row,  # a row is one piece
            self.starts[order],
            self.lengths[order],
            self.documents[order],
            self.offsets[order],
            self.labels[order],
            None if self.targets is None else Texts(*(values[order] for values in self.targets)),
        )

    def layout(self) -> tuple[Ints, Ints]:
        """(piece, position) of every place [B, length]: pieces numbered through the batch, padding one of its own
        with position -1."""
        count, length = self.tokens.shape
        begins = self.piece_row * length + self.starts
        padded = np.flatnonzero(self.used < length)
        edges = padded * length + self.used[padded]
        starts = np.sort(np.append(begins, edges))
        sizes = np.diff(starts, append=count * length)
        piece = np.repeat(np.arange(len(starts), dtype=np.int32), sizes)
        position = np.arange(count * length)
        position -= np.repeat(starts, sizes)
        position = position.reshape(count, length)
        for row in padded.tolist():
            position[row, self.used[row] :] = -1
        return piece.reshape(count, length), position
