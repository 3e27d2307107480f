"""Lines as RefinedWeb leaves them (Penedo et al. 2023, arXiv 2306.01116, appendix G.2).

What `refinedweb` flags goes, with its line feed; other lines stay as they were written. A page that a rule over
`refinedweb` drops is cleaned like any other. Let `refinedweb` stand before this stage: it measures the page as it came.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import replace
from pipeline.stage import rewrite
from pipeline.stages.gopher import Units
from pipeline.stages.refinedweb import flagged
from pipeline.stages.refinedweb import resources as resources


@rewrite
def refinedweb_lines(batch: pa.RecordBatch, *, units: Units = "whitespace") -> pa.RecordBatch:
    """Rewrite the texts that have a line that goes; `units` are those of `refinedweb`."""
    text = batch["text"]
    kept = flagged(text, units).kept
    if not kept:
        return batch
    rows = np.zeros(len(batch), bool)
    rows[list(kept)] = True
    left = ["\n".join(line for line in said if line is not None) for said in kept.values()]
    return replace(batch, text=pc.replace_with_mask(text, pa.array(rows), pa.array(left, text.type)))
