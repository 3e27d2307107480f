"""Axes: from quantities to places, with round ticks. Pure arithmetic, no drawing.

The law: for any finite ends, ticks are 1, 2 or 5 times a power of ten apart (or powers of ten, with 2 and 5 between,
on a logarithmic axis), lie within the ends, and are at most as many as asked for; a place never lies outside its axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

LARGEST, SMALLEST = 1e300, 1e-290


@dataclass(frozen=True)
class Scale:
    """From a quantity between `low` and `high` to a place between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(max(v, SMALLEST)) if self.log else v for v in (self.low, self.high, value))
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value has a place: finite, and above nought on a logarithmic axis."""
        return math.isfinite(value) and (value > 0 or not self.log)

    def ticks(self, most: int = 6) -> list[float]:
        return log_ticks(self.low, self.high, most) if self.log else ticks(self.low, self.high, most)


def domain(values: Iterable[float], *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """Ends of an axis that holds the finite values: low < high; with `zero`, nought is on it.

    What lies beyond 1e300 is put at the end; a logarithmic axis passes over what is not above nought.
    """
    found = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(found), max(found)) if found else (1.0, 10.0) if log else (0.0, 1.0)
    low, high = (min(max(v, SMALLEST if log else -LARGEST), LARGEST) for v in (low, high))
    if log:
        return (low, high) if high > low * 1.001 else (low / 2, high * 2)
    low, high = (min(low, 0.0), max(high, 0.0)) if zero else (low, high)
    size = max(abs(low), abs(high))
    if high - low > max(1e-9 * size, SMALLEST):
        return low, high
    room = size * 0.05 if size * 0.05 > SMALLEST else 1.0
    return low if zero else low - room, high + room


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Neighbouring multiples of 1, 2 or 5 times a power of ten in [low, high]; one at least from `most` 4 on."""
    raw = (high - low) / max(most - 1, 1)
    power = math.floor(math.log10(raw))
    lead = next((m for m in (1, 2, 5) if m * 10.0**power >= raw * (1 - 1e-9)), 10)
    lead, power = (1, power + 1) if lead == 10 else (lead, power)
    step = lead * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [scaled(n * lead, power) for n in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten in [low, high], every so many of them; where there are few, 2 and 5 between; else as `ticks`."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first >= 2:
        return [scaled(1, n) for n in range(first, last + 1, math.ceil((last - first + 1) / most))]
    found = [scaled(m, n) for n in range(first - 1, last + 1) for m in (1, 2, 5)]
    found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return found if 3 <= len(found) <= most else ticks(low, high, most)


def scaled(lead: int, power: int) -> float:
    """lead * 10**power, as the float nearest to it: 3 * 0.1 would not be 0.3."""
    return float(lead * 10**power) if power >= 0 else lead / 10**-power
