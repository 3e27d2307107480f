"""The percentile bootstrap (Efron & Tibshirani 1993, section 13.3): how often is drawn again, and what lies between."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


def bounds(drawn: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Low and high of what was drawn again, which hold LEVEL of it between them."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
