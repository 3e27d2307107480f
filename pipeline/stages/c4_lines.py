"""Lines as C4 leaves them (Raffel et al. 2020, arXiv 1910.10683, 2.2; TFDS, c4_utils.clean_page), in a dialect.

What stays are the lines that break none of the rules of `c4` for lines, without white space around them and without
citations ("[1]", "[edit]", "[citation needed]"), joined by line feeds. A page that a rule over `c4` drops is cleaned
like any other. Let `c4` stand before this stage: it measures the page as it came.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.schema import replace
from pipeline.stage import rewrite
from pipeline.stages.c4 import cleaned
from pipeline.stages.c4 import resources as resources
from pipeline.stages.gopher import Units


@rewrite
def c4_lines(
    batch: pa.RecordBatch,
    *,
    dialect: Literal["datatrove", "tfds"] = "datatrove",
    units: Units = "whitespace",
    terminal_punctuation: bool = True,
) -> pa.RecordBatch:
    """Rewrite every text; `units` are those of `c4`."""
    _, out, ends = cleaned(batch["text"], dialect, units, terminal_punctuation, writes=True)
    offsets = np.concatenate([[0], ends])
    last = int(offsets[-1])
    whole = pa.LargeStringArray.from_buffers(len(batch), pa.py_buffer(offsets), pa.py_buffer(out[:last]))
    return replace(batch, text=whole.cast(batch.schema.field("text").type))
