"""Neighbours that look at the same text are measured by one call.

A measuring stage whose module has `request(**params)` and `signals(counts, **params)` says what it asks of a column of
text and what it makes of the answer; the stage alone is the two, one after the other. So measured together or alone
gives the same bits, and where anything goes wrong here, the stages are run alone and the document that they cannot
bear is found by the one that it breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.contract import settle
from pipeline.stage import Stage

if TYPE_CHECKING:
    from pipeline.kernels.text import Ask


def measure(stages: Sequence[Stage], batch: pa.RecordBatch) -> tuple[pa.RecordBatch, list[str]]:
    """The batch with the signals of the first stages, as many as one call answers, and their names: none or two on."""
    group, ask = _group(stages)
    if len(group) < 2 or ask is None:
        return batch, []
    # Whoever has such stages has numba loaded.
    from pipeline.kernels.text import counts

    try:
        found = counts(batch["text"], ask)
        measured = [stage.module.signals(found, **stage.params) for stage in group]
    except Exception:
        return batch, []
    for stage, signals in zip(group, measured, strict=True):
        batch = settle(stage, batch, signals)
    return batch, [stage.name for stage in group]


def _group(stages: Iterable[Stage]) -> tuple[list[Stage], Ask | None]:
    group: list[Stage] = []
    whole: Ask | None = None
    for stage in stages:
        request = getattr(stage.module, "request", None)
        if stage.kind != "measure" or request is None:
            break
        ask: Ask = request(**stage.params)
        both = ask if whole is None else whole.with_(ask)
        if both is None:
            break
        group.append(stage)
        whole = both
    return group, whole
