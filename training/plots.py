"""Plots of a report as inline SVG: lines over a measured quantity, horizontal bars, a waterfall, a histogram.

The law: whatever the data (nothing, one point, NaN, a hostile label, 1e300), a plot is well-formed XML and every
coordinate lies inside its view box. A plot carries its words (<title>, <desc>) and no colours: the style sheet of
the page has those, a light and a dark set. All are 460 units wide, which a telephone shows at three quarters.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from training.axes import Scale, domain, ticks
from training.display import compact, count, number, visible

__all__ = ["Flow", "Series", "bars", "histogram", "lines", "ticks", "waterfall"]
WIDTH, RIGHT, FONT = 460.0, 444.0, 13.0


@dataclass(frozen=True)
class Series:
    """Points (x, y) in the order of x; a gap where one is not finite. `marks` draws a dot on each."""

    name: str
    points: Sequence[tuple[Any, Any]]
    marks: bool = False


@dataclass(frozen=True)
class Flow:
    """Documents at one stage: entered + added = left + dropped + quarantined."""

    label: str
    entered: Any
    added: Any
    dropped: Any
    quarantined: Any
    left: Any


def lines(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x: str,
    y: str,
    log_x: bool = False,
    log_y: bool = False,
    zero: bool = False,
    height: float = 250.0,
) -> Markup:
    """Line chart. `x` and `y` name the quantities and their units; x begins at nought, and with `zero` y does too."""
    points = [[(number(a), number(b)) for a, b in one.points] for one in series]
    legend, top = _legend([one.name for one in series])
    rows = Scale(*domain((b for p in points for _, b in p), log=log_y, zero=zero), height - 46, top + 32, log_y)
    left = _margin(rows)
    columns = Scale(*domain((a for p in points for a, _ in p), log=log_x, zero=not log_x), left, RIGHT, log_x)
    drawn = [_grid(rows, left, y)]
    marks = [(columns(value), compact(value)) for value in columns.ticks()]
    drawn.append(_foot(left, rows.start, marks, x))
    for kind, (one, data) in enumerate(zip(series, points, strict=True)):
        places = [(columns(a), rows(b)) if columns.holds(a) and rows.holds(b) else None for a, b in data]
        drawn.append(_element("path", class_=f"line s{kind % 4}", d=_path(places)))
        dots = [place for place in places if place and one.marks]
        drawn += [_element("circle", class_=f"dot s{kind % 4}", cx=p[0], cy=p[1], r=2.8) for p in dots]
    return _plot(title, description, height, *drawn, legend)


def _path(places: Sequence[tuple[float, float] | None]) -> str:
    """Moves and lines. A run begins with a line of no length: round caps make a dot of one that stands alone."""
    parts, pen = [], False
    for place in places:
        if place:
            at = f"{place[0]:.1f} {place[1]:.1f}"
            parts.append(f"L{at}" if pen else f"M{at}L{at}")
        pen = place is not None
    return "".join(parts)


def bars(title: str, description: str, rows: Sequence[tuple[str, Any, str]]) -> Markup:
    """Horizontal bars from nought: (label, value, the value in words); what is not finite has no bar."""
    left = _column([label for label, _, _ in rows], 0.42) + 14
    room = _column([said for _, _, said in rows], 0.3)
    scale = Scale(*domain([max(_amount(v), 0.0) for _, v, _ in rows], zero=True), left, RIGHT - room)
    drawn = []
    for place, (label, value, said) in enumerate(rows):
        y, end = 6.0 + 24 * place, scale(_amount(value))
        drawn.append(_text(left - 8, y + 13, _fitted(label, left - 8), text_anchor="end"))
        drawn.append(_bar(left, y, end, y + 16, 0))
        drawn.append(_text(end + 6, y + 13, _fitted(said, room), class_="value"))
    return _plot(title, description, 10.0 + 24 * max(len(rows), 1), *drawn)


def waterfall(title: str, description: str, rows: Sequence[Flow]) -> Markup:
    """One stacked bar a stage: left, dropped, quarantined; what joined there is a thin bar beneath its end."""
    legend, top = _legend(["left", "dropped", "quarantined", *["added"] * any(_amount(r.added) for r in rows)])
    left = _column([row.label for row in rows], 0.34) + 14
    room = _column([count(row.left) for row in rows], 0.3)
    scale = Scale(*domain([_amount(r.entered) + _amount(r.added) for r in rows], zero=True), left, RIGHT - room)
    drawn = []
    for place, row in enumerate(rows):
        y, begun = top + 10 + 26 * place, 0.0
        drawn.append(_text(left - 8, y + 12, _fitted(row.label, left - 8), text_anchor="end"))
        for kind, amount in enumerate((row.left, row.dropped, row.quarantined)):
            drawn.append(_bar(scale(begun), y, scale(begun + _amount(amount)), y + 15, kind))
            begun += _amount(amount)
        before = _amount(row.entered)
        drawn.append(_bar(scale(before), y + 16, scale(before + _amount(row.added)), y + 19, 3))
        drawn.append(_text(WIDTH - 2, y + 12, _fitted(count(row.left), room), class_="value", text_anchor="end"))
    return _plot(title, description, top + 14 + 26 * max(len(rows), 1), *drawn, legend)


def histogram(
    title: str,
    description: str,
    edges: Sequence[str],
    series: Mapping[str, Sequence[Any]],
    *,
    x: str,
    y: str,
    height: float = 250.0,
) -> Markup:
    """Grouped bars over bins; `edges` are the lower ends in words, and each series has a value a bin."""
    legend, top = _legend(list(series))
    heights = (_amount(value) for values in series.values() for value in values)
    rows = Scale(*domain(heights, zero=True), height - 46, top + 32)
    left = _margin(rows)
    width = (RIGHT - left) / max(len(edges), 1)
    marks = [(left + place * width, label) for place, label in enumerate(edges)]
    drawn, each = [_grid(rows, left, y), _foot(left, rows.start, marks, x)], width * 0.84 / max(len(series), 1)
    for kind, values in enumerate(series.values()):
        for place, value in enumerate(values[: len(edges)]):
            at = left + (place + 0.08) * width + kind * each
            drawn.append(_bar(at, rows(_amount(value)), at + each, rows(0.0), kind))
    return _plot(title, description, height, *drawn, legend)


def _grid(rows: Scale, left: float, name: str) -> Markup:
    """Horizontal grid lines with their values, and the quantity's name above."""
    parts = [_text(2, rows.end - 14, _fitted(name, WIDTH), class_="name")]
    for value in rows.ticks(8):
        parts.append(_element("line", class_="grid", x1=left, x2=RIGHT, y1=rows(value), y2=rows(value)))
        parts.append(_text(left - 6, rows(value) + 4, compact(value), text_anchor="end"))
    return Markup("").join(parts)


def _foot(left: float, base: float, marks: Sequence[tuple[float, str]], name: str) -> Markup:
    """The x axis with as many of the labels as fit, and the quantity's name below."""
    parts = [_element("line", class_="axis", x1=left, x2=RIGHT, y1=base, y2=base)]
    free = 0.0
    for place, label in marks:
        half = _extent(label) / 2
        centre = min(max(place, half), WIDTH - half)
        parts.append(_element("line", class_="axis", x1=place, x2=place, y1=base, y2=base + 4))
        if centre - half >= free:
            parts.append(_text(centre, base + 18, _fitted(label, WIDTH), text_anchor="middle"))
            free = centre + half + 8
    parts.append(_text(RIGHT, base + 38, _fitted(name, RIGHT), class_="name", text_anchor="end"))
    return Markup("").join(parts)


def _legend(names: Sequence[str]) -> tuple[Markup, float]:
    """A swatch and a name for each of several series, and the height that this takes."""
    parts, x, y = [], 2.0, 4.0
    for kind, name in enumerate(names if len(names) > 1 else []):
        shown = _fitted(name, WIDTH - 24)
        if x + 18 + _extent(shown) > WIDTH:
            x, y = 2.0, y + 18
        parts += [_bar(x, y, x + 12, y + 12, kind % 4), _text(x + 18, y + 11, shown)]
        x += 18 + _extent(shown) + 16
    return Markup("").join(parts), y + 14 if parts else 0.0


def _plot(title: str, description: str, height: float, *drawn: Markup) -> Markup:
    words = [_element("title", visible(title)), _element("desc", visible(description))]
    return _element("svg", *words, *drawn, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", class_="plot")


def _bar(x: float, y: float, right: float, bottom: float, kind: int) -> Markup:
    width, height = max(right - x, 0.0), max(bottom - y, 0.0)
    return _element("rect", class_=f"bar s{kind % 4}", x=x, y=y, width=width, height=height)


def _text(x: float, y: float, text: str, **attributes: str) -> Markup:
    return _element("text", visible(text), x=x, y=y, **attributes)


def _element(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element; every attribute is escaped, and so is every child that is not Markup."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(f"{value:.1f}" if isinstance(value, float) else value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{said}>{''.join(map(escape, children))}</{name}>")


def _margin(rows: Scale) -> float:
    """Room left of the y axis for the labels of its ticks."""
    return 14 + max(map(_extent, (compact(value) for value in rows.ticks(8))), default=0.0)


def _column(texts: Sequence[str], most: float) -> float:
    """Width for a column of texts, at most a share of the plot."""
    return min(max(map(_extent, texts), default=0.0), WIDTH * most)


def _amount(value: Any) -> float:
    """The number, or nought where it is not finite."""
    found = number(value)
    return found if math.isfinite(found) else 0.0


def _extent(text: str) -> float:
    """About the width of a text in a wide font of the plot's size."""
    return sum(FONT if unicodedata.east_asian_width(c) in "WF" else FONT * 0.6 for c in visible(text))


def _fitted(text: str, room: float) -> str:
    """The text, or its beginning and an ellipsis where it is too wide."""
    shown = str(visible(text))[:200]
    if _extent(shown) <= room:
        return shown
    while shown and _extent(shown) + FONT * 0.6 > room:
        shown = shown[:-1]
    return shown + "…"
