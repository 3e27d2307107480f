"""A histogram with its bounds drawn: as lines of text for a terminal, as inline SVG for a page.

The law of `training.plots` holds: whatever the values, the SVG is well-formed and lies inside its view box, and it has
no colours of its own.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from markupsafe import Markup, escape

from flows.screen import clean
from flows.show import number
from pipeline.margins import Margin

BAR, ROWS = 40, 20
WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 720, 240, 60, 712, 44, 210
TICKS, LETTER = 6, 7


def bar(count: int, most: int) -> str:
    """A bar of blocks, an eighth at least for anything there is."""
    eighths = max(round(8 * BAR * count / most), 1) if count and most else 0
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def histogram(margin: Margin) -> list[str]:
    """Lines of text: a bar for each bin from its edge up, and a line at each bound as it is and as it would be."""
    if not margin.counts:
        return ["nothing was measured"]
    if margin.values:
        most = max(margin.counts)
        pairs = zip(margin.values, margin.counts, strict=True)
        rows = [f"{clean(value, 16):>16} │{bar(count, most)} {count:,}" for value, count in pairs]
        return [*rows, f"{'others':>16} │ {margin.others:,}"] if margin.others else rows
    step = -(-len(margin.counts) // ROWS)
    counts = [sum(margin.counts[at : at + step]) for at in range(0, len(margin.counts), step)]
    edges, most = margin.edges[:-1:step], max(counts)
    lines = [f"{label(edge):>16} │{bar(count, most)} {count:,}" for edge, count in zip(edges, counts, strict=True)]
    for limit, words in sorted(marks(margin), reverse=True):
        lines.insert(bisect.bisect_left(edges, limit), f"{'':>16} ┼{'─' * 12} {words}")
    return lines


def marks(margin: Margin) -> list[tuple[float, str]]:
    """(limit, what it is) of every bound of numbers."""
    found = []
    for now, bounds in ((True, margin.old), (False, margin.new)):
        for verb, limit in bounds.items():
            same = margin.old.get(verb) == margin.new.get(verb)
            if not isinstance(limit, list) and (now or not same):
                found.append((limit, f"{verb} {number(limit)}, {'as it is' if now else 'as it would be'}"))
    return found


def label(edge: float) -> str:
    """An edge or a tick: whole numbers whole."""
    return number(int(edge) if edge == int(edge) else edge)


def svg(margin: Margin) -> Markup:
    """The same as a picture, WIDTH x HEIGHT; empty where nothing was measured."""
    if not margin.counts:
        return Markup("")
    wide, most = (RIGHT - LEFT) / len(margin.counts), max(margin.counts) or 1
    names = [clean(value, 40) for value in margin.values] or [label(edge) for edge in margin.edges]
    parts = []
    for at, count in enumerate(margin.counts):
        high = (FOOT - TOP) * count / most
        shape = f'x="{LEFT + at * wide:.1f}" y="{FOOT - high:.1f}" width="{max(wide - 1, 0.5):.1f}" height="{high:.1f}"'
        parts.append(f"<rect {shape}><title>{escape(names[at])}: {count:,}</title></rect>")
    parts.append(f'<path class="axis" d="M{LEFT} {FOOT}H{RIGHT}"/>')
    parts.append(f'<text class="end" x="{LEFT - 6}" y="{TOP + 4}">{most:,}</text>')
    parts.append(f'<text class="end" x="{LEFT - 6}" y="{FOOT}">0</text>')
    middle = wide / 2 if margin.values else 0
    for at in range(0, len(names), 1 if margin.values else -(-len(names) // TICKS)):
        short = clean(names[at], max(int(wide / LETTER), 2)) if margin.values else names[at]
        parts.append(f'<text x="{LEFT + at * wide + middle:.1f}" y="{FOOT + 16}">{escape(short)}</text>')
    for row, (limit, words) in enumerate(sorted(marks(margin)) if margin.edges else ()):
        parts.append(_bound(LEFT + wide * place(margin.edges, limit), row, words))
    title = f"<title>{escape(margin.signal)}: documents by value</title>"
    return Markup(f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{title}{"".join(parts)}</svg>')


def place(edges: Sequence[float], limit: float) -> float:
    """Where a value lies on the axis, counted in bins."""
    at = min(max(bisect.bisect_right(edges, limit) - 1, 0), len(edges) - 2)
    return min(max(at + (limit - edges[at]) / (edges[at + 1] - edges[at]), 0.0), len(edges) - 1.0)


def _bound(x: float, row: int, words: str) -> str:
    kind = "old" if words.endswith("as it is") else "new"
    y = 12 + 13 * (row % 3)
    side = ("end", -4) if x > (LEFT + RIGHT) / 2 else ("start", 4)
    line = f'<path class="{kind}" d="M{x:.1f} {y - 9}V{FOOT}"/>'
    return f'{line}<text class="{side[0]} {kind}" x="{x + side[1]:.1f}" y="{y}">{escape(words)}</text>'
