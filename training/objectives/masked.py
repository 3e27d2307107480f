"""Fill in what is masked: masked language modelling (Devlin et al. 2019, arXiv 1810.04805, section 3.1).

Each token, or with `whole_words` each word (the rule is in `vocabulary`), is selected with probability `rate`. Of
the selected tokens 80 % become the mask, 10 % a token drawn from all that spell text, and 10 % stay; the loss is
that of the token that stood there. With whole words the three are drawn token by token, as in the authors' release.

Law: what is selected and what it becomes is a function of the row and its key alone. A special token, padding and
the first token of a piece (which no n-gram could predict) are never selected, so the targets are some of the causal
ones. The mask is the tokenizer's own (BERT's `[MASK]`), or else an id behind its last, and the model has one row more.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from training import vocabulary
from training.manifest import Version
from training.objectives import Batch, _places
from training.order import uniform
from training.shards import Rows
from training.tables import Table
from training.vocabulary import MASK, Vocabulary

MASKED, REPLACED = 0.8, 0.1  # shares of the selected; the rest stays


class Objective(Table):
    """A share of `rate` of all tokens is selected, whole words at a time if `whole_words`; `over` a version first."""

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    whole_words: bool = False

    causal: ClassVar[bool] = False
    measure: ClassVar[str] = "pseudo-perplexity"
    _vocabulary: Vocabulary = PrivateAttr()

    def over(self, version: Version) -> Objective:
        """The objective over a version's tokens. Raises TrainingError where they are neither byte-level nor
        WordPiece."""
        bound = self.model_copy()
        bound._vocabulary = vocabulary.of(version)
        return bound

    @property
    def extra_tokens(self) -> tuple[str, ...]:
        """The mask, where the tokenizer has none."""
        return (MASK,) if self._vocabulary.mask is None else ()

    @property
    def mask(self) -> int:
        """The id of the mask: the tokenizer's, or the first behind it."""
        own = self._vocabulary.mask
        return self._vocabulary.size if own is None else own

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Flat places [N] of the selected tokens, ascending."""
        return np.flatnonzero(self._selected(rows, rows.layout()[1], keys))

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """tokens (with masks), positions, pieces [B, T]; at [N], flat places; targets [N], what stood there."""
        piece, position = rows.layout()
        at = np.flatnonzero(self._selected(rows, position, keys))
        flat = rows.tokens.astype(np.int64)
        stood = flat.reshape(-1)[at]
        fate, drawn = (_uniform(keys, name, rows.tokens.shape[1]).reshape(-1)[at] for name in ("fate", "token"))
        ordinary = self._vocabulary.ordinary
        other = ordinary[(drawn * len(ordinary)).astype(np.int64)]
        becomes = np.where(fate < MASKED, self.mask, np.where(fate < MASKED + REPLACED, other, stood))
        flat.reshape(-1)[at] = becomes
        return {
            "tokens": torch.from_numpy(flat),
            "positions": torch.from_numpy(np.maximum(position, 0)),
            "pieces": torch.from_numpy(piece),
            "at": torch.from_numpy(at),
            "targets": torch.from_numpy(stood),
        }

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        return _places.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return _places.loss(model, batch)

    def _selected(self, rows: Rows, position: NDArray[np.integer[Any]], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which places [B, T] are selected."""
        may = (position > 0) & ~self._vocabulary.special[rows.tokens]
        chance = _uniform(keys, "select", position.shape[1])
        if self.whole_words:
            begins = self._vocabulary.words(rows.tokens, position)
            first = np.maximum.accumulate(np.where(begins, np.arange(position.shape[1]), 0), axis=1)
            chance = np.take_along_axis(chance, first, axis=1)
        selected: NDArray[np.bool_] = may & (chance < self.rate)
        return selected


def _uniform(keys: NDArray[np.uint64], what: str, length: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each place of each row [B, length]."""
    return uniform(keys[:, None], np.arange(1, length + 1, dtype=np.uint64), "masked", what)
