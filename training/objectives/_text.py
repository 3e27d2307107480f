"""The tokens of packed rows as texts: piece by piece, with what stands around a document set apart.

The tokens that open and close a document belong to no text: what cuts, hides or moves tokens leaves them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.shards import Rows

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Text(NamedTuple):
    """The real tokens of rows, end to end [N], and of each its row, its piece and its place in that; of each piece its
    first token's number [P] and how many tokens it has beside those around a document, `inside`."""

    tokens: Ints
    row: Ints
    piece: Ints
    place: Ints
    inside: Flags
    first: Ints
    size: Ints

    @classmethod
    def of(cls, rows: Rows, start: int, eot: int) -> Text:
        lengths = rows.lengths.astype(np.int64)
        first = np.cumsum(lengths) - lengths
        piece = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(piece)) - first[piece]
        row = rows.piece_row[piece].astype(np.int64)
        tokens = rows.tokens[row, rows.starts[piece] + place].astype(np.int64)
        ends = first + lengths - 1
        opened = tokens[first] == start
        closed = (tokens[ends] == eot) & (lengths > 1)
        inside = np.ones(len(tokens), bool)
        inside[first[opened]] = inside[ends[closed]] = False
        return cls(tokens, row, piece, place, inside, first, lengths - opened - closed)
