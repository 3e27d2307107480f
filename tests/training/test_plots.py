"""Plots: well-formed and inside their box whatever the data, ticks are round, and values can be read off the axes."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training import axes, display, plots

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img onerror=',
    "a\x00b\x1b[2J",
    "\u202egnp.\u202c",
    "\ud800",
    "]]>&lt;\ufffe",
]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=60), st.text("磨坊W", max_size=90))
ANY = st.one_of(
    st.none(),
    st.floats(),
    st.integers(-(10**400), 10**400),
    st.sampled_from([0, 1e308, -1e308, 5e-324, 1e-300, math.inf, -math.inf, math.nan]),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.lists(st.tuples(ANY, ANY), max_size=8)


def checked(markup: str) -> ET.Element:
    """The plot as a tree, after the laws that hold for every plot."""
    root = ET.fromstring(markup)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert root.attrib["role"] == "img" and [child.tag for child in root][:2] == ["title", "desc"]
    known = {"svg", "title", "desc", "text", "line", "path", "rect", "circle"}
    assert {element.tag for element in root.iter()} <= known
    for element in root.iter():
        at = element.attrib
        across = [float(at[key]) for key in ("x", "x1", "x2", "cx") if key in at]
        down = [float(at[key]) for key in ("y", "y1", "y2", "cy") if key in at]
        if element.tag == "rect":
            assert float(at["width"]) >= 0 and float(at["height"]) >= 0
            across.append(across[0] + float(at["width"]))
            down.append(down[0] + float(at["height"]))
        if element.tag == "path":
            numbers = [float(word) for word in re.findall(r"[-+.\de]+|nan|inf", at["d"])]
            across, down = numbers[::2], numbers[1::2]
            assert len(across) == len(down) and re.fullmatch(r"(?:[ML]\S+ [^ML]+)*", at["d"])
        assert all(left <= place <= left + width for place in across), (element.tag, at)
        assert all(top <= place <= top + height for place in down), (element.tag, at)
    return root


@settings(max_examples=150, deadline=None)
@given(
    data=st.lists(st.tuples(TEXTS, POINTS, st.booleans()), max_size=6),
    words=TEXTS,
    flags=st.tuples(*[st.booleans()] * 3),
)
def test_lines_hold_for_any_data(data, words, flags):
    series = [plots.Series(name, points, marks) for name, points, marks in data]
    log_x, log_y, zero = flags
    root = checked(plots.lines(words, words, series, x=words, y=words, log_x=log_x, log_y=log_y, zero=zero))
    assert len(root.findall("path")) == len(series)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS, ANY, TEXTS), max_size=6), words=TEXTS)
def test_bars_hold_for_any_data(rows, words):
    assert len(checked(plots.bars(words, words, rows)).findall("rect")) == len(rows)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.builds(plots.Flow, TEXTS, ANY, ANY, ANY, ANY, ANY), max_size=6), words=TEXTS)
def test_waterfalls_hold_for_any_data(rows, words):
    checked(plots.waterfall(words, words, rows))


@settings(max_examples=150, deadline=None)
@given(
    edges=st.lists(TEXTS, max_size=8),
    series=st.dictionaries(TEXTS, st.lists(ANY, max_size=9), max_size=6),
    words=TEXTS,
)
def test_histograms_hold_for_any_data(edges, series, words):
    checked(plots.histogram(words, words, edges, series, x=words, y=words))


def round_number(value: Decimal) -> bool:
    """Whether it is 1, 2 or 5 times a power of ten."""
    return value > 0 and value.normalize().as_tuple().digits in ((1,), (2,), (5,))


@settings(max_examples=400, deadline=None)
@given(
    values=st.lists(st.one_of(FINITE, st.floats(-1e6, 1e6), st.floats(0.9999, 1.0001)), max_size=5),
    most=st.integers(4, 9),
)
def test_ticks_are_round_numbers_within_the_axis(values, most):
    low, high = axes.domain(values)
    assert low < high and all(low <= v <= high for v in values if abs(v) <= 1e300)
    found = axes.ticks(low, high, most)
    exact = [Decimal(repr(tick)) for tick in found]
    steps = {b - a for a, b in pairwise(exact)}
    assert (2 if most > 5 else 1) <= len(found) <= most and len(steps) <= 1
    room = (high - low) * 1e-6
    assert all(low - room <= tick <= high + room for tick in found)
    assert all(round_number(step) and all(tick % step == 0 for tick in exact) for step in steps)


@settings(max_examples=400, deadline=None)
@given(values=st.lists(st.one_of(FINITE, st.floats(1e-3, 1e3)), max_size=5), most=st.integers(4, 9))
def test_ticks_of_a_logarithmic_axis(values, most):
    low, high = axes.domain(values, log=True)
    assert 0 < low < high
    found = axes.log_ticks(low, high, most)
    assert found == sorted(set(found)) and 1 <= len(found) <= most
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in found)
    if high / low >= 1e3:
        assert all(Decimal(repr(tick)).normalize().as_tuple().digits == (1,) for tick in found)


def axis(root: ET.Element, side: str) -> list[tuple[float, float]]:
    """(place, value) of the labels of an axis, read off the picture as a person would."""
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    found = []
    for text in root.findall("text"):
        anchor, words = text.attrib.get("text-anchor"), text.text or ""
        if "class" in text.attrib or anchor != ("end" if side == "y" else "middle"):
            continue
        value = float(words.rstrip("kMBT")) * scale.get(words[-1], 1.0)
        found.append((float(text.attrib["y"]) - 4 if side == "y" else float(text.attrib["x"]), value))
    return found


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.01, 500)), min_size=2, max_size=20), log=st.booleans()
)
def test_a_value_can_be_read_off_the_axes(points, log):
    points = sorted(points)
    root = checked(plots.lines("t", "d", [plots.Series("a", points)], x="x", y="y", log_y=log))
    path = root.find("path").attrib["d"]
    places = [tuple(map(float, pair.split())) for pair in re.split("[ML]", path)[2:]]
    assert len(places) == len(points)
    for column, side in ((0, "x"), (1, "y")):
        bend = math.log if log and side == "y" else float
        marks = axis(root, side)
        if side == "x":
            marks = marks[:-1]  # a label at the edge is moved inwards
        if len(marks) < 2:
            continue
        (p0, v0), (p1, v1) = marks[0], marks[-1]
        slope = (bend(v1) - bend(v0)) / (p1 - p0)
        for place, point in zip(places, points, strict=True):
            assert abs(bend(v0) + slope * (place[column] - p0) - bend(point[column])) <= abs(slope) * 0.6


@given(values=st.lists(st.floats(0, 1e9), min_size=1, max_size=8).filter(lambda v: max(v) > 1e-3))
def test_bars_are_as_long_as_their_values(values):
    root = checked(plots.bars("t", "d", [(f"row {i}", v, "said") for i, v in enumerate(values)]))
    widths = [float(rect.attrib["width"]) for rect in root.findall("rect")]
    assert all(abs(w / max(widths) - v / max(values)) < 0.001 for w, v in zip(widths, values, strict=True))


@given(
    parts=st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), min_size=1, max_size=6).filter(
        lambda p: any(sum(one[:3]) for one in p)
    )
)
def test_each_row_of_a_waterfall_is_as_long_as_what_passed_there(parts):
    rows = [plots.Flow("s", max(a + b + c - d, 0), min(d, a + b + c), b, c, a) for a, b, c, d in parts]
    root = checked(plots.waterfall("t", "d", rows))
    drawn = [rect for rect in root.findall("rect") if float(rect.attrib["height"]) != 12]  # without the legend
    longest, unit = max(row.entered + row.added for row in rows), 0.0
    widths = [[float(rect.attrib["width"]) for rect in drawn[4 * i : 4 * i + 4]] for i in range(len(rows))]
    unit = max(sum(width[:3]) for width in widths) / longest
    for row, width in zip(rows, widths, strict=True):
        for amount, part in zip((row.left, row.dropped, row.quarantined, row.added), width, strict=True):
            assert abs(part - amount * unit) < 0.2


def test_attributes_are_escaped_too():
    assert plots._element("g", "<i>", class_='"><b>') == '<g class="&#34;&gt;&lt;b&gt;">&lt;i&gt;</g>'


def test_a_gap_is_a_gap_and_a_lonely_point_is_seen():
    points = [(1, 1.0), (2, None), (3, 2.0), (4, 3.0), (5, math.nan), (6, 1.5)]
    root = checked(plots.lines("t", "d", [plots.Series("a", points)], x="x", y="y"))
    runs = root.find("path").attrib["d"].split("M")[1:]
    assert [run.count("L") for run in runs] == [1, 2, 1]
    assert all(len(set(run.split("L"))) == 1 for run in (runs[0], runs[2]))


def test_labels_are_cut_to_fit_and_kept_whole_where_they_fit():
    rows = [("a label that nobody could read in so narrow a column as this one", 3, "3"), ("short", 1, "1")]
    words = [text.text for text in checked(plots.bars("t", "d", rows)).findall("text")]
    assert words[0].endswith("…") and rows[0][0].startswith(words[0][:-1]) and words[2] == "short"


@pytest.mark.parametrize(
    ("shown", "value", "said"),
    [
        (display.count, 1234567, "1,234,567"),
        (display.count, None, "n/a"),
        (display.figure, 4.5204, "4.520"),
        (display.figure, 0.0, "0"),
        (display.figure, 12.345, "12.35"),
        (display.figure, 123.45, "123.5"),
        (display.figure, 9204.3, "9,204"),
        (display.figure, 0.00125, "0.00125"),
        (display.figure, 1e304, "1.00e+304"),
        (display.figure, math.inf, "infinite"),
        (display.figure, math.nan, "n/a"),
        (display.bits, 1.51234, "1.5123"),
        (display.size, 999, "999 B"),
        (display.size, 12_345_678, "12.3 MB"),
        (display.size, 999_999, "1.0 MB"),
        (display.size, 8_323_948_544, "8.3 GB"),
        (display.edge, 32, "32 B"),
        (display.edge, 1024, "1 KiB"),
        (display.edge, 16 << 20, "16 MiB"),
        (display.edge, 1 << 30, "1 GiB"),
        (display.duration, 8.21, "8.2 s"),
        (display.duration, 59.97, "1 min 0 s"),
        (display.duration, 8041, "2 h 14 min"),
        (display.compact, 20_000, "20k"),
        (display.compact, 0.5, "0.5"),
        (display.setting, [0.9, 0.95], "0.9, 0.95"),
        (display.setting, {"a": True, "b": 1024}, "a = yes, b = 1,024"),
        (display.quoted, "a; rm -rf '/'", "'a; rm -rf '\"'\"'/'\"'\"''"),
        (display.visible, "a\u202eb\x00\ud800", "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩"),
        (display.visible, "tab\tline\n👨‍👩‍👧 می‌خواهم", "tab\tline\n👨‍👩‍👧 می‌خواهم"),
    ],
)
def test_values_are_formatted_for_people(shown, value, said):
    assert shown(value) == said


def test_shares_never_hide_what_is_there():
    assert display.percent(1, 3) == "33.3 %" and display.percent(1, 10**6) == "< 0.1 %"
    assert display.percent(0, 5) == "0.0 %" and display.percent(1, 0) == display.percent(None, 2) == "n/a"


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        " https://example.org",
        "https://example.org\n",
        "java\nscript:x",
        "//example.org",
        "https://",
        "https://[",
        "https://user:word@example.org",
        "https://example.org\\@evil.example",
        "https://ex\u202eample.org",
        "https://例え.jp",
        "ftp://example.org",
        "",
        None,
    ],
)
def test_only_plain_web_addresses_may_be_links(address):
    assert not display.web(address)
    assert display.web("https://example.org/a?b=c#d") and display.web("HTTP://example.org:80")
