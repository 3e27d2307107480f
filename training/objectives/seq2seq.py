"""Write one text from another: sequence to sequence (Sutskever et al. 2014), over examples that have a target.

    encoder   <eot> a b c <eot>
    decoder   x y <eot>                which reads <eot> x y

A decoder begins with <eot>, also where another token opens documents. Law: every token of a target but what opens it
is predicted exactly once, from the row's text and the target's tokens before it. A row without a target is read and
has nothing to write.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PrivateAttr

from training import TrainingError
from training.manifest import Version
from training.objectives import Batch, _places
from training.shards import Rows
from training.shards.rows import Texts
from training.tables import Table


class Objective(Table):
    """Sequence to sequence; it has no parameters and draws nothing."""

    causal: ClassVar[bool | None] = False
    pairs: ClassVar[bool] = True
    ngrams: ClassVar[bool] = False
    answers: ClassVar[bool] = True
    measure: ClassVar[str] = "perplexity"
    extra_tokens: ClassVar[tuple[str, ...]] = ()
    _eot: int = PrivateAttr()

    def over(self, version: Version) -> Objective:
        """Raises TrainingError where the version has no targets."""
        if version.manifest.targets is None:
            raise TrainingError(
                f"[objective] (seq2seq): {version.address} has no targets; map the target in the source's card "
                '(columns) and build the version with [pack] layout = "examples"'
            )
        bound = self.model_copy()
        bound._eot = version.manifest.tokenizer.eot
        return bound

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Flat places [N] in the rows: of each token to be written, that of the last token of its text."""
        row, _ = _written(_texts(rows))
        return row * rows.tokens.shape[1] + rows.used[row] - 1

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """encoder_tokens, encoder_pieces [B, T]; tokens, pieces [B, U] of the decoder; at [N], its flat places before
        a target; targets [N], in order of place. Padding is piece -1 of both."""
        texts = _texts(rows)
        encoder, _, read = _places.as_one_piece(rows.tokens, rows.used)
        decoder, _, known = _places.as_one_piece(texts.tokens, np.maximum(texts.used, 1))
        decoder[:, 0] = self._eot
        number = np.arange(len(rows), dtype=np.int32)[:, None]
        row, place = _written(texts)
        return {
            "encoder_tokens": torch.from_numpy(encoder),
            "encoder_pieces": torch.from_numpy(np.where(read, number, np.int32(-1))),
            "tokens": torch.from_numpy(decoder),
            "pieces": torch.from_numpy(np.where(known, number, np.int32(-1))),
            "at": torch.from_numpy(row * decoder.shape[1] + place - 1),
            "targets": torch.from_numpy(texts.tokens[row, place].astype(np.int64)),
        }

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        return _places.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return _places.loss(model, batch)


def _texts(rows: Rows) -> Texts:
    assert rows.targets is not None  # `over` has seen to it
    return rows.targets


def _written(texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and place of every token that is to be written."""
    row, place = np.nonzero(np.arange(1, texts.tokens.shape[1]) < texts.used[:, None])
    return row, place + 1
