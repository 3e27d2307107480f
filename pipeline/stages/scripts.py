"""In which scripts a text is written: of its letters the share of each, by Unicode's blocks (`kernels.scripts`).

A page in Russian with a menu in English has both; a name in Han in an English page is a small share. Simplified and
traditional Chinese are both `han`. A text without a letter has nulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.kernels.scripts import NAMES, letters
from pipeline.kernels.unicode import table_digest
from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule


@measure(**dict.fromkeys(NAMES, "float64"))
def scripts(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Measure every document."""
    found = letters(batch["text"])
    whole = found.sum(axis=1)
    shares = found / np.maximum(whole, 1)[:, None]
    return {name: pa.array(shares[:, n], pa.float64(), mask=whole == 0) for n, name in enumerate(NAMES)}


def resources(**params: object) -> dict[str, str]:
    """The table that says what a letter is."""
    return {"unicode14": table_digest()}


def examples(rule: Rule, limit: Any) -> Examples:
    """Letters of the script among those of another."""
    from pipeline.examples import WHOLE, ladder

    own = dict(zip(NAMES, "mαжאبकไ가の磨ა", strict=True))[rule.column]
    rest = "磨" if own == "m" else "m"
    return ladder(rule, limit, lambda k: " ".join(own * k + rest * (WHOLE - k)), lambda k: k / WHOLE, most=WHOLE)
