"""How much more like a target corpus than like a raw one a document is: importance weights of DSIR.

Data selection with importance resampling (Xie et al. 2023, arXiv 2302.03169): words and pairs of neighbouring words are
hashed into 10,000 buckets, and a document's weight is log p_target - log p_raw of its features under two bags of them,
fitted to `target` and `raw` (references: cards, files, versions; `raw` is best a sample of what is built from):

    log_ratio[b] = log(target[b] / sum(target) + 1e-8) - log(raw[b] / sum(raw) + 1e-8)
    score        = sum over the features of a document of log_ratio[bucket]

    score      the log importance weight
    per_token  score over the number of features, null for a text without any: what is like the target at any length
    gumbel     score plus Gumbel noise: the k highest of it are k documents drawn without replacement by their weights
               (the paper's Gumbel top-k), so `drop.gumbel = {below = X}` resamples; `gristmill whatif` says which X
               keeps how much

The noise hangs on the text and `seed` alone, so two equal texts have the same. Each letter of a script without spaces
is a word (`kernels.hashed`), where DSIR's tokenizer would take a sentence for one.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import references
from pipeline.kernels.hashed import counted, weighed
from pipeline.kernels.unicode import table_digest
from pipeline.sources import SourceError
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

SMALL = 1e-8
# Logarithms are rounded: another machine's may differ in their last bit, and thousands of them are added.
DIGITS = 10
CHUNK = 1024
MOST_BUCKETS = 10_000_000


@measure(score="float64", per_token="float64", gumbel="float64")
def importance(
    batch: pa.RecordBatch, *, target: list[str], raw: list[str], buckets: int = 10_000, seed: int = 0
) -> dict[str, pa.Array]:
    """Measure every document. Raises SourceError where a reference cannot be read or has no text."""
    text = batch["text"]
    sums, features = weighed(text, log_ratio(target, raw, buckets))
    nothing = features == 0
    return {
        "score": pa.array(sums, pa.float64()),
        "per_token": pa.array(sums / np.maximum(features, 1), pa.float64(), mask=nothing),
        "gumbel": pa.array(sums + noise(text, seed), pa.float64()),
    }


def check(*, target: list[str], raw: list[str], buckets: int, seed: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    for name, named in (("target", target), ("raw", raw)):
        if not named:
            raise ValueError(f"{name} is empty: name at least one card, file or version")
        references.check(named)
    if not 2 <= buckets <= MOST_BUCKETS:
        raise ValueError(f"buckets must be from 2 to {MOST_BUCKETS:,}, not {buckets}")


def resources(*, target: list[str], raw: list[str], **params: object) -> dict[str, str]:
    """The content of the references, and the table of characters that decides what a token is."""
    found = references.digests([*target, *raw])
    parts = {"target": target, "raw": raw}
    named = {f"{part} {references.title(n)}": found[n] for part, names in parts.items() for n in names}
    return {"unicode14": table_digest(), **named}


def log_ratio(target: list[str], raw: list[str], buckets: int) -> NDArray[np.float64]:
    """float64 [buckets]: log p_target - log p_raw, fitted once for as long as the references are what they were."""
    names = (tuple(target), tuple(raw))
    return _fitted(*names, references.current([*target, *raw]), buckets)


@functools.lru_cache(4)
def _fitted(target: tuple[str, ...], raw: tuple[str, ...], state: tuple[str, ...], buckets: int) -> NDArray[np.float64]:
    logs = []
    for names in (target, raw):
        counts = np.zeros(buckets, np.int64)
        waiting: list[str] = []
        for name in names:
            for row in references.rows(name):
                if not isinstance(text := row.get("text"), str):
                    raise SourceError(f"{name}: a row has no text; it has {', '.join(row)}")
                waiting.append(text)
                if len(waiting) == CHUNK:
                    counts += counted(_column(waiting), buckets)
                    waiting.clear()
        counts += counted(_column(waiting), buckets)
        if not counts.any():
            raise SourceError(f"{', '.join(names)}: no text, so nothing can be like it")
        logs.append(np.log(counts / counts.sum() + SMALL))
    found: NDArray[np.float64] = np.round(logs[0] - logs[1], DIGITS)
    return found


def _column(texts: list[str]) -> pa.Array:
    return pa.array([text.encode("utf-8", "replace").decode() for text in texts], pa.large_string())


def noise(text: pa.Array, seed: int) -> NDArray[np.float64]:
    """float64 [n]: standard Gumbel noise of each text, -log(-log u) with u from its hash and the seed."""
    salt = f"gumbel:{seed}:".encode()
    drawn = [hashlib.blake2b(salt + one.as_buffer().to_pybytes(), digest_size=6).digest() for one in text]
    u = (np.array([int.from_bytes(raw, "big") for raw in drawn], np.float64) + 0.5) / (1 << 48)
    found: NDArray[np.float64] = -np.log(-np.log(u))
    return found


def examples(rule: Rule, limit: Any, *, target: list[str], raw: list[str], buckets: int, seed: int) -> Examples:
    """Texts ever more like the target, and ever more like what is raw: measured, and offered by their values."""
    from itertools import islice

    from pipeline.examples import chosen, measured

    params = {"target": target, "raw": raw, "buckets": buckets, "seed": seed}
    measure_of = measured(importance, rule.column, **params)
    if not log_ratio(target, raw, buckets).any():
        raise ValueError("target and raw are the same, so every weight is 0")
    texts = [row["text"][:400] for names in (target, raw) for row in islice(references.rows(names[0]), 8)]
    # A text by itself, its beginnings, which weigh less, and itself again and again, which weighs more.
    items = [(" ".join([text] * n),) for text in texts for n in (1, 4)]
    items += [(text[:n],) for text in texts for n in (1, 2, 3, 5, 8, 13, 21, 34, 55)]
    return chosen(rule, items, [measure_of(item) for item in items])
