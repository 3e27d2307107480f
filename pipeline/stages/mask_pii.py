"""A mask in the place of personal data and secrets: what they were can be told from nothing that stays.

Each of `_personal`'s kinds has one mask, `<email>`, `<phone>` and so on, whatever it stood for, so a mask says that
somebody was named and not who. `pii` with the same parameters counts what is masked; let it stand before this stage.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import replace
from pipeline.stage import rewrite
from pipeline.stages._personal import KINDS, look, masked
from pipeline.stages._personal import check as check
from pipeline.stages._personal import resources as resources


@rewrite
def mask_pii(
    batch: pa.RecordBatch, *, kinds: list[str] | None = None, countries: list[str] | None = None
) -> pa.RecordBatch:
    """Rewrite the texts that hold any; `kinds` are all by default, `countries` (of phones without a "+") none."""
    text = batch["text"]
    found = look(text, KINDS if kinds is None else kinds, countries or ())
    changed = {row: masked(value, spans) for row, value, spans in found}
    if not changed:
        return batch
    rows = np.zeros(len(batch), bool)
    rows[list(changed)] = True
    return replace(batch, text=pc.replace_with_mask(text, pa.array(rows), pa.array(changed.values(), text.type)))
