"""Span corruption: an encoder reads a text with gaps, and a decoder writes what stood in them.

Raffel et al. 2020 (arXiv 1910.10683), section 3.1.4, with the arithmetic of `random_spans_noise_mask` in their code: a
share `rate` of a text falls into spans of `mean_length` tokens on average, text and gaps take turns beginning with
text, and all masks of these numbers are equally likely.

    piece     <eot> a b c d e f g <eot>
    encoder   <eot> a [0] d e [1] g <eot>
    decoder   [0] b c [1] f <eot>            which reads <eot> [0] b c [1] f

Sentinel [k] has the id vocab_size + k, behind the tokens of the version's own tokenizer. The end-of-text tokens around
a document are never a gap; a piece of fewer than two other tokens has none, and nothing to write. As in T5 a gap ends
every text, so a text of one gap (up to 30 tokens by default) always has it there. Law: putting the
spans back in place of their sentinels gives the piece again, and the gaps of a row hang on its key alone.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from training import TrainingError
from training.manifest import Version
from training.objectives import Batch, _places
from training.objectives._text import Text
from training.order import derive, mix
from training.shards import Rows
from training.tables import Table

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
MULTIPLE = 32  # rows are padded to a multiple of this, so that a compiled model meets few shapes


class Objective(Table):
    """Gaps of `mean_length` tokens take a share of `rate` of a piece, at most `sentinels` of them, each of which has a
    token of its own behind the vocabulary."""

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    mean_length: Annotated[float, Field(ge=1)] = 3.0
    sentinels: Annotated[int, Field(ge=1)] = 100

    causal: ClassVar[bool] = False
    pairs: ClassVar[bool] = True
    ngrams: ClassVar[bool] = False
    measure: ClassVar[str] = "perplexity"
    _vocab_size: int = PrivateAttr()
    _start: int = PrivateAttr()
    _eot: int = PrivateAttr()

    @property
    def extra_tokens(self) -> tuple[str, ...]:
        """Names of the sentinels, those of T5."""
        return tuple(f"<extra_id_{number}>" for number in range(self.sentinels))

    def over(self, version: Version) -> Objective:
        """The objective over a version's tokens. Raises TrainingError where a row may need more sentinels."""
        length, tokenizer = version.manifest.length, version.manifest.tokenizer
        most = int(self.gaps(np.arange(length + 1))[1].max())
        if most > self.sentinels:
            raise TrainingError(
                f"[objective] (span): a row of {length} tokens may have {most} gaps, but there are {self.sentinels} "
                f"sentinels; set objective.sentinels to {most} or raise objective.mean_length"
            )
        bound = self.model_copy()
        bound._vocab_size, bound._start, bound._eot = tokenizer.vocab_size, tokenizer.start, tokenizer.eot
        return bound

    def gaps(self, length: Ints) -> tuple[Ints, Ints]:
        """(tokens in gaps, gaps) of texts of these lengths; a text of fewer than two tokens has none."""
        whole = np.maximum(length, 2)
        noise = np.clip(np.rint(whole * self.rate), 1, whole - 1).astype(np.int64)
        spans = np.maximum(np.rint(noise / self.mean_length), 1).astype(np.int64)
        spans = np.minimum(spans, whole - noise)  # text stands before each gap
        enough = length >= 2
        return noise * enough, spans * enough

    def prompt(self, text: str) -> str:
        """A text with gaps, which are written as sentinels; by default there is one at its end."""
        return text if self.extra_tokens[0] in text else text + self.extra_tokens[0]

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> Ints:
        """Flat places [N] in the rows: of a sentinel that of the first token behind it, of <eot> that before it."""
        text = Text.of(rows, self._start, self._eot)
        at, written = _written(text, *self._mask(text, rows, keys))
        place = text.row * rows.tokens.shape[1] + rows.starts[text.piece] + text.place
        return np.repeat(place[at], written)

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """encoder_tokens, encoder_pieces [B, T]; tokens, pieces [B, U] of the decoder; at [N], its flat places before
        a target; targets [N], in order of place. Padding is piece -1 of both."""
        text = Text.of(rows, self._start, self._eot)
        noise, begins = self._mask(text, rows, keys)
        # Of each token in a gap: how many gaps of its piece begin before it; so the sentinel where one begins.
        before: Ints = np.cumsum(begins) - begins
        number: Ints = before - before[text.first][text.piece]
        ids = np.where(begins, self._vocab_size + number, text.tokens)
        kept = ~noise | begins
        shape, place = _side_by_side(text.row[kept], len(rows))
        encoder = _filled(shape, place, ids[kept], self._eot), _filled(shape, place, text.piece[kept], -1)

        at, written = _written(text, noise, begins)
        end = np.cumsum(written)
        targets = np.full(written.sum(), self._eot, np.int64)
        targets[end - written] = ids[at]
        targets[end - written + begins[at]] = text.tokens[at]
        piece = np.repeat(text.piece[at], written)
        read = np.roll(targets, 1)  # every piece ends with <eot>, so the next one begins with it
        shape, place = _side_by_side(np.repeat(text.row[at], written), len(rows))
        decoder = _filled(shape, place, read, self._eot), _filled(shape, place, piece, -1)
        return {
            "encoder_tokens": torch.from_numpy(encoder[0]),
            "encoder_pieces": torch.from_numpy(encoder[1].astype(np.int32)),
            "tokens": torch.from_numpy(decoder[0]),
            "pieces": torch.from_numpy(decoder[1].astype(np.int32)),
            "at": torch.from_numpy(place),
            "targets": torch.from_numpy(targets),
        }

    def _mask(self, text: Text, rows: Rows, keys: NDArray[np.uint64]) -> tuple[Flags, Flags]:
        """Of every token: whether it lies in a gap, and whether one begins with it."""
        noise, spans = self.gaps(text.size)
        places = (rows.starts[text.piece] + text.place + 1).astype(np.uint64)
        named = [mix(keys ^ np.uint64(derive("span", kind))) for kind in ("text", "gap")]
        draws = [mix(name[text.row] ^ mix(places)) for name in named]
        parts = [
            segments(items, spans, drawn, text.first)
            for items, drawn in zip((text.size - noise, noise), draws, strict=True)
        ]
        lengths = np.stack(parts, 1).reshape(-1)  # text and gap take turns
        inside = text.inside & (spans > 0)[text.piece]
        flags, begins = (np.zeros(len(text.tokens), bool) for _ in range(2))
        flags[inside] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        begins[np.flatnonzero(inside)[(np.cumsum(lengths) - lengths)[1::2]]] = True
        return flags, begins

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        return _places.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return _places.loss(model, batch)


def _written(text: Text, noise: Flags, begins: Flags) -> tuple[Ints, Ints]:
    """Numbers of the tokens in gaps, and how many targets each stands for: itself, its sentinel if a gap begins with
    it, and <eot> if it is the last of its piece."""
    at = np.flatnonzero(noise)
    last = np.diff(text.piece[at], append=-1) != 0
    return at, 1 + begins[at] + last


def segments(items: Ints, parts: Ints, drawn: NDArray[np.uint64], first: Ints) -> Ints:
    """Lengths of `parts[p]` parts, none empty, into which items [p] fall; all such partitions are equally likely.

    Item j of p draws `drawn[first[p] + j]`: a part begins with item 0 and with those others that drew least. Pieces of
    no parts are left out. Returns the lengths of all parts end to end.
    """
    chosen = np.flatnonzero(parts)
    items, parts = items[chosen], parts[chosen]
    start = np.cumsum(items) - items
    owner = np.repeat(np.arange(len(items)), items)
    item = np.arange(len(owner)) - start[owner]
    rank = np.empty(len(owner), np.int64)
    rank[np.lexsort((drawn[first[chosen][owner] + item], item > 0, owner))] = item
    return np.diff(np.flatnonzero(rank < parts[owner]), append=len(owner))


def _side_by_side(row: Ints, rows: int) -> tuple[tuple[int, int], Ints]:
    """Shape [rows, width] in which tokens of these ascending row numbers fit side by side, and their flat places."""
    count = np.bincount(row, minlength=rows)
    width = -(-max(1, int(count.max())) // MULTIPLE) * MULTIPLE
    return (rows, width), np.arange(len(row)) - (np.cumsum(count) - count)[row] + row * width


def _filled(shape: tuple[int, int], place: Ints, values: Ints, padding: int) -> Ints:
    """An int64 array of `padding` with values at flat places."""
    out = np.full(shape, padding, np.int64)
    out.reshape(-1)[place] = values
    return out
