"""Answer as one was taught to: instruction tuning, over conversations whose answers alone are learnt (Ouyang et al.
2022, arXiv 2203.02155, section 3.5; for the loss on answers alone Taori et al. 2023, Alpaca).

A row of examples with a target is a conversation: its text holds what is said to the model, its target the answers,
and where there are several turns end-of-text stands between them. One turn more in the text is a system's, the first.

    text     <eot> How? <eot> And then? <eot>       target   <eot> So. <eot> Thus. <eot>
    told     <eot> How? <|assistant|> So. <eot> And then? <|assistant|> Thus. <eot>

Laws: every token of an answer and the end-of-text that closes it are a target exactly once, and nothing else is; what
is told is what `chat.TEMPLATE` spells. A conversation that is longer than a row, told whole, is not learnt from, for a
part of it would teach to answer without the question or not to end; how many there are is in the books of the run.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PrivateAttr

from training import TrainingError, chat, models
from training.manifest import Version
from training.objectives import Batch, _places
from training.shards import Rows, Split
from training.shards.rows import Ints, Texts
from training.tables import Table

AT_ONCE = 4096  # rows that are looked at, at once, for how long they are


class Told(NamedTuple):
    """Conversations as they are told: tokens [B, T] of `used` [B], and which of them are to be learnt [B, T]."""

    tokens: Ints
    used: Ints
    learnt: NDArray[np.bool_]


class Objective(Table):
    """Instruction tuning; it has no parameters and draws nothing; `over` a version first."""

    causal: ClassVar[bool] = True
    ngrams: ClassVar[bool] = False
    answers: ClassVar[bool] = True
    measure: ClassVar[str] = "perplexity"
    extra_tokens: ClassVar[tuple[str, ...]] = chat.NAMES
    template: ClassVar[str] = chat.TEMPLATE
    _vocab_size: int = PrivateAttr()
    _eot: int = PrivateAttr()

    def over(self, version: Version) -> Objective:
        """The objective over a version's tokens. Raises TrainingError where the version has no answers."""
        if version.manifest.targets is None:
            raise TrainingError(
                f"[objective] (instruct): {version.address} has no answers; build it with [pack] layout = "
                '"examples" from a source of kind "chat", or one whose card maps a target (columns)'
            )
        bound = self.model_copy()
        bound._vocab_size, bound._eot = version.manifest.tokenizer.vocab_size, version.manifest.tokenizer.eot
        return bound

    def prompt(self, text: str) -> str:
        """A text as the user's, up to where the answer begins; one that is written out as a chat stays."""
        return text if any(name in text for name in chat.NAMES) else text + chat.ASSISTANT

    def targets(self, rows: Rows, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Flat places [N] in the rows: of each token to be written, that of the last token of its text."""
        row, _ = np.nonzero(self.told(rows).learnt)
        return row * rows.tokens.shape[1] + rows.used[row] - 1

    def prepare(self, rows: Rows, keys: NDArray[np.uint64]) -> Batch:
        """tokens, positions, pieces [B, T], T that of the longest conversation; at [N], the flat places before a
        target; targets [N], in order of place. Padding is piece -1."""
        told = self.told(rows)
        tokens, place, inside = _places.as_one_piece(told.tokens, told.used)
        row, column = np.nonzero(told.learnt)
        return {
            "tokens": torch.from_numpy(tokens),
            "positions": torch.from_numpy(np.where(inside, place, 0)),
            "pieces": torch.from_numpy(np.where(inside, np.arange(len(rows))[:, None], -1).astype(np.int32)),
            "at": torch.from_numpy(row * tokens.shape[1] + column - 1),
            "targets": torch.from_numpy(told.tokens[row, column].astype(np.int64)),
        }

    def work(self, rows: Rows, batch: Batch) -> models.Work:
        """What a batch has a model multiply: questions and answers."""
        return models.Work(int((batch["pieces"] >= 0).sum()), batch["tokens"].shape[1], len(batch["targets"]))

    def losses(self, model: Any, batch: Batch) -> torch.Tensor:
        """-log P of each target in nats, [N] float32."""
        return _places.losses(model, batch)

    def loss(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum of the losses and the number of targets."""
        return _places.loss(model, batch)

    def shown(self, rows: Rows) -> list[tuple[int, list[int], list[int]]]:
        """Of each row that is learnt from: its document, what is read up to the last answer, and that answer."""
        told, found = self.told(rows), []
        for number, (tokens, used, learnt) in enumerate(zip(*told, strict=True)):
            if learnt.any():
                begin = int(np.flatnonzero(~learnt[:used])[-1]) + 1
                found.append((int(rows.documents[number]), tokens[:begin].tolist(), tokens[begin:used].tolist()))
        return found

    def left_out(self, split: Split) -> int:
        """Rows of the split that are not learnt from: without an answer, or too long."""
        parts = (split.take(np.arange(i, min(i + AT_ONCE, len(split)))) for i in range(0, len(split), AT_ONCE))
        return sum(int((~self._whole(rows)).sum()) for rows in parts)

    def _whole(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are conversations, end with an answer, and fit into a row when they are told; what was cut does
        not."""
        answers, place = _answers(rows), np.arange(rows.tokens.shape[1])
        said, ours = (
            ((tokens == self._eot) & (place > 0) & (place < used[:, None])).sum(1)
            for tokens, used in ((rows.tokens, rows.used), (answers.tokens, answers.used))
        )
        told = rows.used + answers.used - 1
        whole: NDArray[np.bool_] = (ours > 0) & (said >= ours) & (said <= ours + 1) & (told <= rows.tokens.shape[1])
        return whole

    def told(self, rows: Rows) -> Told:
        """The conversations; one that is not learnt from is told as end-of-text alone."""
        answers, whole, length = _answers(rows), self._whole(rows), rows.tokens.shape[1]
        said, ours = (_turns(texts, whole, self._eot) for texts in (Texts(rows.tokens, rows.used), answers))
        system = (said.turns == ours.turns + 1) & whole  # of each row
        turn = np.concatenate([2 * (said.turn - system[said.row]), 2 * ours.turn + 1])
        row, mine = np.concatenate([said.row, ours.row]), np.repeat([False, True], [len(said.row), len(ours.row)])
        tokens = np.concatenate([said.tokens, ours.tokens]).astype(np.int64)
        # What ends a user's text is where the answer begins.
        tokens[(tokens == self._eot) & ~mine & (turn >= 0)] = self._vocab_size + chat.NAMES.index(chat.ASSISTANT)
        order = np.lexsort((turn, row))  # stable: tokens of a turn stay in their order
        row, tokens, mine = row[order], tokens[order], mine[order]
        used = 1 + np.bincount(row, minlength=len(rows))
        column = 1 + np.arange(len(row)) - (np.cumsum(used - 1) - (used - 1))[row]
        found = np.full((len(rows), length), self._eot, np.int64)
        learnt = np.zeros(found.shape, bool)
        found[row, column], learnt[row, column] = tokens, mine
        found[system, 0] = self._vocab_size + chat.NAMES.index(chat.SYSTEM)
        return Told(found, used, learnt)


class _Turns(NamedTuple):
    """Tokens of texts [N] but the first of each, with the row and the turn that each is of; the turns of each row."""

    tokens: Ints
    row: Ints
    turn: Ints
    turns: Ints


def _turns(texts: Texts, chosen: NDArray[np.bool_], eot: int) -> _Turns:
    place = np.arange(texts.tokens.shape[1])
    inside = (place > 0) & (place < texts.used[:, None]) & chosen[:, None]
    ends = inside & (texts.tokens == eot)
    row, column = np.nonzero(inside)
    turn = np.cumsum(ends, axis=1) - ends  # the end of a turn is of it
    return _Turns(texts.tokens[row, column], row, turn[row, column], ends.sum(1))


def _answers(rows: Rows) -> Texts:
    assert rows.targets is not None  # `over` has seen to it
    return rows.targets
