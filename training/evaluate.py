"""How well a model predicts a split: nats, perplexity and bits per byte, in all, by source and by language.

Everything is summed by document first, and each larger number is a sum over documents: so every number of a
report can be followed back to them (`evaluation/SPLIT.parquet`). The n-gram yardsticks are scored on exactly
the same targets.

    bits per byte = nats / (ln 2 * bytes),   bytes = those that the scored targets stand for

A byte is counted when its token is a target: the first token of a piece that continues a long document is
none, so neither its nats nor its bytes count. The end-of-text token is a target of no bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from training import TrainingError, machine
from training.batch import row_keys
from training.config import Evaluation, Precision
from training.manifest import Version
from training.ngram import Flat, KneserNey, flat_rows
from training.objectives import Batch, Objective
from training.parallel import Group, autocast
from training.progress import Reporter, Silent
from training.shards import Rows, Split
from training.vocabulary import spelling

Doubles = NDArray[np.float64]


@dataclass
class Tally:
    """Per document of the index: nats of its targets by each judge, the targets, and the bytes they stand for."""

    version: Version
    split: str
    targets: Doubles
    size: Doubles
    nats: dict[str, Doubles] = field(default_factory=dict)

    @classmethod
    def empty(cls, version: Version, split: str) -> Tally:
        count = version.manifest.documents.rows
        return cls(version, split, np.zeros(count), np.zeros(count))

    def numbers(self, judge: str, chosen: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """loss (nats a target), perplexity and bits_per_byte over the chosen documents."""
        pick = slice(None) if chosen is None else chosen
        nats, targets, size = (float(a[pick].sum()) for a in (self.nats[judge], self.targets, self.size))
        loss = nats / targets if targets else math.nan
        bits = nats / math.log(2) / size if size else math.nan
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": bits}

    def counts(self, chosen: NDArray[np.bool_] | None = None) -> dict[str, int]:
        pick = slice(None) if chosen is None else chosen
        scored = int(np.count_nonzero(self.targets[pick]))
        return {"documents": scored, "targets": int(self.targets[pick].sum()), "bytes": int(self.size[pick].sum())}

    def by(self, column: str) -> dict[str, NDArray[np.bool_]]:
        """Which scored documents have each value of a column of the index, or the domain of its address; null is
        'unknown'."""
        given = self.version.documents["url" if column == "domain" else column].to_pylist()
        found = map(_domain, given) if column == "domain" else given
        values = np.array([v or "unknown" for v in found], object)
        return {name: (values == name) & (self.targets > 0) for name in sorted(set(values[self.targets > 0]))}

    def write(self, folder: Path) -> str:
        """One row a scored document, in the order of the index; returns the file's name."""
        rows = pa.array(np.flatnonzero(self.targets > 0))
        table = self.version.documents.select(["doc_id", "source", "language", "licence"]).take(rows)
        for name, values in (("targets", self.targets), ("bytes", self.size)):
            table = table.append_column(name, pa.array(values.astype(np.int64)).take(rows))
        for judge, values in self.nats.items():
            table = table.append_column(f"nats_{judge}", pa.array(values).take(rows))
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{self.split}.parquet", compression="zstd")
        return f"{folder.name}/{self.split}.parquet"


def score(
    model: Any,
    objective: Objective,
    version: Version,
    settings: Evaluation,
    precision: Precision,
    group: Group,
    *,
    rows: int | None = None,
    progress: Reporter | None = None,
) -> Tally:
    """Score `rows` rows of the split, spread evenly over it (all where None), shared out over the ranks.

    Every rank returns the whole tally. Raises TrainingError where the split is empty.
    """
    split = Split(version, settings.split)
    tally = Tally.empty(version, settings.split)
    nats, extra = np.zeros_like(tally.targets), np.zeros(len(objective.extra_tokens))
    sizes = np.append(token_bytes(version.tokenizer_file), extra)

    def enter(part: Rows, document: NDArray[np.int64], batch: Batch, losses: torch.Tensor) -> None:
        np.add.at(nats, document, losses.double().cpu().numpy())
        np.add.at(tally.targets, document, 1)
        np.add.at(tally.size, document, sizes[batch["targets"].numpy()])

    judge(model, objective, objective.losses, enter, split, settings, precision, group, rows=rows, progress=progress)
    tally.nats["model"] = nats
    for values in (nats, tally.targets, tally.size):
        group.sum_(torch.from_numpy(values))
    return tally


def judge(
    model: Any,
    objective: Objective,
    ask: Callable[[Any, Batch], torch.Tensor],
    enter: Callable[[Rows, NDArray[np.int64], Batch, torch.Tensor], None],
    split: Split,
    settings: Evaluation,
    precision: Precision,
    group: Group,
    *,
    rows: int | None,
    progress: Reporter | None,
) -> None:
    """Ask the model about this rank's share of the split's rows, and enter every answer.

    `ask(model, batch)` gives one answer a target; `enter(rows, documents, batch, answers)` has the document of each.
    Raises TrainingError where the split is empty, or the rows at once do not fit into memory.
    """
    wanted = spread(len(split), rows)
    if not len(wanted):
        raise TrainingError(f"split {split.name!r} has no row to evaluate on")
    mine = wanted[len(wanted) * group.rank // group.world : len(wanted) * (group.rank + 1) // group.world]
    progress = progress or Silent()
    progress.phase("evaluate", len(wanted))
    model.eval()
    with torch.inference_mode(), autocast(group.device, precision.compute):
        for first in range(0, len(mine), settings.micro_rows):
            part = split.take(mine[first : first + settings.micro_rows])
            keys = row_keys(0, 0, part.index)
            with machine.fitting(len(part), "evaluation.micro_rows"):
                batch = objective.prepare(part, keys)
                answers = ask(model, {k: v.to(group.device) for k, v in batch.items()})
            enter(part, documents_at(part, objective.targets(part, keys)), batch, answers)
            progress.advance(len(part) * group.world)
    model.train()


def _domain(url: str | None) -> str | None:
    """The host of an address, in lower case."""
    try:
        return urlsplit(url or "").hostname
    except ValueError:
        return None


def spread(count: int, rows: int | None) -> NDArray[np.int64]:
    """At most `rows` of `count` row numbers, evenly spaced."""
    chosen = count if rows is None else min(rows, count)
    return np.arange(chosen, dtype=np.int64) * count // max(chosen, 1)


def documents_at(rows: Rows, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The document of the token at each flat place of [B, length]."""
    begins = rows.piece_row * rows.tokens.shape[1] + rows.starts
    return rows.documents.astype(np.int64)[np.searchsorted(begins, places, side="right") - 1]


@lru_cache(maxsize=4)
def token_bytes(tokenizer: Path) -> Doubles:
    """Bytes of text that each token of a byte-level vocabulary stands for; added tokens stand for none."""
    return np.array([len(text) for text in spelling(tokenizer)], np.float64)


def yardstick(
    tally: Tally, objective: Objective, orders: list[int], read: NDArray[np.int64], progress: Reporter
) -> int:
    """Score modified Kneser-Ney n-grams, trained on the training rows `read`, on the objective's targets in the split.

    Adds a judge 'ngramN' to the tally for each order; returns the number of training tokens counted.
    """
    if not orders:
        return 0
    version, split = tally.version, Split(tally.version, "train", *tally.version.beside)
    chunks = [read[i : i + 4096] for i in range(0, len(read), 4096)]
    asked = Split(version, tally.split)
    rows = asked.take(np.arange(len(asked)))
    progress.phase("n-grams", 1 + len(orders))
    model = KneserNey(flat_rows(rows), vocab_size=version.manifest.tokenizer.vocab_size, order=max(orders))

    def text() -> Iterator[Flat]:
        return (flat_rows(split.take(chunk)) for chunk in chunks)

    model.read(text)
    progress.advance()
    places = objective.targets(rows, row_keys(0, 0, rows.index))
    document = documents_at(rows, places)
    among = np.searchsorted(np.flatnonzero(rows.layout()[1] > 0), places)
    for order in orders:
        nats = np.zeros_like(tally.targets)
        np.add.at(nats, document, -model.log_probabilities(order)[among])
        tally.nats[f"ngram{order}"] = nats
        progress.advance()
    return int(sum(split.take(chunk).used.sum() for chunk in chunks))
