"""Complete runs over a version side by side on the terminal: the table that the report of each shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows import show
from flows.runs import Run
from flows.screen import Screen

COLUMNS = (
    *("run", "family", "objective", "bits per byte", "bytes scored", "perplexity"),
    *("targets", "parameters", "tokens read", "tokens/s", "MFU"),
)
NOTE = (
    "Bits per byte are of the bytes scored: only runs with the same objective and the same targets compare by them "
    "(a causal model predicts every token from what stands before it, others a part of them from both sides)."
)


def beside(screen: Screen, found: Sequence[Run]) -> None:
    """The table, where there are two to compare: those with the same targets together, the fewest bits first."""
    rows = sorted((run.result for run in found if run.result), key=_order)
    if len(rows) > 1:
        show.listing(screen, "complete runs side by side", COLUMNS, [_cells(row) for row in rows])
        screen.say(show.plain(NOTE, "dim", limit=1000))


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    targets = (str(row.get(name)) for name in ("objective", "split", "targets", "bytes"))
    bits = row.get("bits_per_byte")
    return (*targets, (0, bits) if isinstance(bits, float) else (1, 0.0), str(row.get("name")))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    said = {name: show.number(row.get(name)) for name in row}
    family = f"{said['family']} {said['form']}".rstrip()
    kind = "" if said["measure"] == "perplexity" else f" {said['measure']}"
    counts = (said["targets"], said["parameters"], said["tokens_read"])
    scored = f"{_share(row.get('bytes'), row.get('split_bytes'))} of {said['split']}"
    speed = (show.number(row.get("tokens_per_second")), _share(row.get("mfu"), 1))
    judged = (said["bits_per_byte"], scored, f"{said['perplexity']}{kind}")
    return (said["name"], family, said["objective"], *judged, *counts, *speed)


def _share(part: object, whole: object) -> str:
    known = isinstance(part, int | float) and isinstance(whole, int | float) and whole
    return f"{part / whole:.1%}" if known else ""  # type: ignore[operator]
