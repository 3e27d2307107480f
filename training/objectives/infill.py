"""Fill in the middle: a text is told with its middle at its end, so that a decoder learns to fill a gap.

Bavarian et al. 2022 (arXiv 2207.14255), section 3. With probability `rate` a piece is cut at two places, drawn
uniformly and independently of one another, into prefix, middle and suffix (each may be empty), and rearranged:

    piece     <eot> a b c d e f <eot>                   cut behind b and behind d
    PSM       <eot> [prefix] a b [suffix] e f [middle] c d <eot>
    SPM       <eot> [prefix] [suffix] e f [middle] a b c d <eot>

SPM, with probability `spm` of what is rearranged, is the paper's second variant (appendix D): prefix and middle stand
side by side, and both orders begin alike, so that what is learnt in one helps in the other. A few things differ from
the paper: cuts lie between tokens and not between characters, so a gap that begins inside a word is not learnt, and a
piece of a long document that ends before it does has no end-of-text token behind its middle.

The loss is that of every token, sentinels included, given all before it in its piece. A rearranged piece is three
tokens longer: rows are laid out as wide as they need, and the model has `extra_length` more positions. Laws: undoing
the rearrangement gives the piece again; `rate = 0` is `causal` to the bit; what is cut where hangs on the row's key
alone. The sentinels have the ids behind the tokenizer's and are named as by Qwen2.5-Coder (arXiv 2409.12186).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from training.manifest import Version
from training.objectives import Batch, causal
from training.objectives._text import Flags, Ints, Text
from training.order import uniform
from training.shards import Rows
from training.tables import Table

PREFIX, MIDDLE, SUFFIX = NAMES = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
MULTIPLE = 32  # rows that grew are padded to a multiple of this, so that a compiled model meets few shapes
PLAIN = causal.Objective()  # what is learnt from the rows as they are told
Share = Annotated[float, Field(ge=0, le=1)]


class Objective(Table):
    """Of the pieces, a share of `rate` is rearranged, and a share of `spm` of these as SPM; `over` a version first."""

    rate: Share = 0.5
    spm: Share = 0.5

    causal: ClassVar[bool] = True
    measure: ClassVar[str] = "perplexity"
    extra_tokens: ClassVar[tuple[str, ...]] = NAMES
    extra_length: ClassVar[int] = len(NAMES)
    _vocab_size: int = PrivateAttr()
    _start: int = PrivateAttr()
    _eot: int = PrivateAttr()

    @property
    def ngrams(self) -> bool:
        """Counts of texts as they stand say nothing of texts that are rearranged."""
        return self.rate == 0

    def over(self, version: Version) -> Objective:
        """The objective over a version's tokens."""
        bound, tokenizer = self.model_copy(), version.manifest.tokenizer
        bound._vocab_size, bound._start, bound._eot = tokenizer.vocab_size, tokenizer.start, tokenizer.eot
        return bound

    def prompt(self, text: str) -> str:
        """What a model reads to fill the gap that <|fim_middle|> marks in a text; a text that is written out with all
        three sentinels, or has no gap, stays."""
        before, gap, behind = text.partition(MIDDLE)
        return f"{PREFIX}{before}{SUFFIX}{behind}{MIDDLE}" if gap and PREFIX not in text else text

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> Ints:
        """Flat places [N] in the rows, in the order of the losses; of a sentinel that of its piece's first token."""
        told, origin = self.rearranged(rows, keys)
        found: Ints = origin[told.layout()[1] > 0]
        return found

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """As `causal.prepare`, of the rows as they are told."""
        return PLAIN.prepare(self.rearranged(rows, keys)[0], keys)

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        return PLAIN.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return PLAIN.loss(model, batch)

    def rearranged(self, rows: Rows, keys: NDArray[np.uint64]) -> tuple[Rows, Ints]:
        """The rows as they are told, and the flat place in the old rows [B, width] of what stands there now."""
        text = Text.of(rows, self._start, self._eot)
        cuts = self._cuts(text, rows, keys)
        before: Ints = np.cumsum(cuts.chosen) - cuts.chosen
        heads = np.searchsorted(rows.piece_row, np.arange(len(rows)))  # the first piece of each row
        starts = rows.starts + len(NAMES) * (before - before[heads][rows.piece_row])
        grown = len(NAMES) * np.bincount(rows.piece_row, cuts.chosen, len(rows)).astype(np.int64)
        used, length = rows.used + grown, rows.tokens.shape[1]
        width = length if used.max(initial=0) <= length else -(-int(used.max()) // MULTIPLE) * MULTIPLE

        tokens = np.full((len(rows), width), self._eot, np.int64)
        tokens[:, :length] = rows.tokens
        origin = np.zeros_like(tokens)
        column = starts[text.piece] + _places_in_piece(text, cuts)
        tokens[text.row, column] = text.tokens
        origin[text.row, column] = text.row * length + rows.starts[text.piece] + text.place
        row, start = rows.piece_row[cuts.chosen], starts[cuts.chosen]
        for number, place in enumerate(_sentinels_in_piece(text, cuts)):
            tokens[row, start + place] = self._vocab_size + number
            origin[row, start + place] = row * length + rows.starts[cuts.chosen]
        lengths = rows.lengths + len(NAMES) * cuts.chosen
        return Rows(rows.index, tokens, used, rows.piece_row, starts, lengths, rows.documents, rows.offsets), origin

    def _cuts(self, text: Text, rows: Rows, keys: NDArray[np.uint64]) -> _Cuts:
        mine, places = keys[rows.piece_row], (rows.starts + 1).astype(np.uint64)
        chance, order, one, other = (
            uniform(mine, places, "infill", name) for name in ("rate", "spm", "first", "second")
        )
        ends = np.sort((np.stack([one, other]) * (text.size + 1)).astype(np.int64), axis=0)
        return _Cuts((chance < self.rate) & (text.size > 0), order < self.spm, *ends)


class _Cuts(NamedTuple):
    """Of each piece [P]: whether it is rearranged, whether as SPM, and the tokens of its text before either cut."""

    chosen: Flags
    spm: Flags
    first: Ints
    second: Ints


def _places_in_piece(text: Text, cuts: _Cuts) -> Ints:
    """Where each token [N] stands in its piece when that is told."""
    chosen, spm, first, second, size = (values[text.piece] for values in (*cuts, text.size))
    opened = _opened(text)[text.piece]
    at = text.place - opened  # in the text
    behind = size - second  # tokens of the suffix
    moved = np.where(at >= second, 2 + at - second + np.where(spm, 0, first), 3 + at + behind)
    moved = np.where((at < first) & ~spm, 1 + at, moved) + opened
    moved = np.where(text.inside, moved, np.where(text.place == 0, 0, text.place + len(NAMES)))
    result: Ints = np.where(chosen, moved, text.place)
    return result


def _sentinels_in_piece(text: Text, cuts: _Cuts) -> tuple[Ints, Ints, Ints]:
    """Where prefix, middle and suffix begin in the pieces that are rearranged, in the order of their ids."""
    opened, size = _opened(text), text.size
    before = np.where(cuts.spm, 0, cuts.first)
    places = opened, 2 + before + size - cuts.second + opened, 1 + before + opened
    prefix, middle, suffix = (place[cuts.chosen] for place in places)
    return prefix, middle, suffix


def _opened(text: Text) -> Ints:
    """1 for each piece [P] that an end-of-text token opens, else 0."""
    return 1 - text.inside[text.first].astype(np.int64)
