"""What if and apply at the front door: what they say to people, to scripts and on a page."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from flows import charts, pages
from pipeline import manifest as manifests
from pipeline.margins import Example, Margin
from pipeline.store import read_parquet
from pipeline.whatif import MOVES, Answer, Count, Group, Reason
from tests.flows.conftest import last

CHANGE = "gopher.word_count.below=10"
HOSTILE = '</td><script>alert(1)</script> \x1b[31m\u202e"><img src=x onerror=alert(1)>'


def test_whatif_says_who_would_be_kept_and_leaves_every_id_for_scripts(built, gristmill, tmp_path):
    store, made = built
    said = gristmill("whatif", "small", CHANGE, "--store", store).stdout
    assert made["address"] in said and "documents  160 -> " in said and "word_count < 20 -> word_count < 10" in said
    assert "below 20, as it is" in said and "below 10, as it would be" in said
    found = last(gristmill("whatif", "small", CHANGE, "--store", store, "--json"))
    entered = found["after"]["documents"] - found["before"]["documents"]
    assert found["before"]["documents"] == 160 and entered == found["moved"]["enters"] > 0
    assert sum(row["change"] == "enters" for row in found["moves"]) == entered
    assert found["after"]["tokens_unknown"] == entered and found["after"]["tokens"] == found["before"]["tokens"]
    page, table = tmp_path / "answer.html", tmp_path / "moves.parquet"
    found = last(gristmill("whatif", "small", CHANGE, "--store", store, "--html", page, "--out", table, "--json"))
    assert "moves" not in found and read_parquet(table).num_rows == sum(found["moved"].values())
    well_formed(page.read_text("utf-8"))


def test_a_grid_is_a_table_with_bars(built, gristmill):
    store, _ = built
    grid = ("--grid", "gopher.word_count.below=10:50:20")
    said = gristmill("whatif", "small", *grid, "--store", store).stdout
    assert len(re.findall(r"^ +(?:10|30|50) +\d+ .*█", said, re.MULTILINE)) == 3
    found = last(gristmill("whatif", "small", *grid, "--store", store, "--json"))
    assert [point["values"] for point in found["points"]] == [["10"], ["30"], ["50"]]
    assert found["points"][1]["documents"] == 160


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch", CHANGE], "no version of 'nosuch'"),
        (["small"], "say what to change"),
        (["small", "gopher.word_count=3"], "write STAGE.COLUMN.below=30"),
        (["small", "gopher.word_cout.below=3"], "did you mean 'word_count'"),
        (["small", "exact.dup_of.below=3"], "holds string"),
        (["small", CHANGE, "--html", "/nowhere/at/all.html"], "/nowhere/at/all.html: a file in a folder"),
        (["small", "--grid", "gopher.word_count.below=1"], "FIRST:LAST:STEP"),
        (["small", "--grid", "gopher.word_count.below=1:9:1", "--html", "a.html"], "--grid prints a table"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence_and_exit_code_2(built, gristmill, arguments, said):
    result = gristmill("whatif", *arguments, "--store", built[0], code=2)
    assert said in result.stderr and result.stderr.count("\n") == 1 and not result.stdout


def test_apply_builds_the_changed_recipe_and_reads_nothing_again(built, gristmill, tmp_path):
    shared, made = built
    store = shutil.copytree(shared, tmp_path / "store")
    asked = last(gristmill("whatif", "small", CHANGE, "--store", store, "--json"))
    done = last(
        gristmill("apply", "small", CHANGE, "--name", "looser", "--store", store, "--direct", "--workers", 1, "--json")
    )
    assert done["address"].startswith("looser@") and done["parent"] == made["address"]
    assert done["documents"]["kept"] == asked["after"]["documents"] and done["partitions_read_again"] == 0
    version = manifests.find(manifests.Store(store), "looser")
    assert version.manifest["summaries"]["text_bytes"]["kept"] == asked["after"]["text_bytes"]
    kept = set(version.index(["doc_id"])["doc_id"].to_pylist())
    assert {row["doc_id"] for row in asked["moves"] if row["change"] == "enters"} <= kept
    assert "say what to change" in gristmill("apply", "small", "--store", store, code=2).stderr
    assert "no stage 'gophr'" in gristmill("apply", "small", "gophr.a.below=1", "--store", store, code=2).stderr


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {tag, *(f"{name}=" for name, _ in attrs)}


def well_formed(page: str) -> None:
    """Nothing that runs or is fetched, no control character, and its pictures are XML."""
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "a", "link", "iframe"} & tags.found
    assert not [name for name in tags.found if name.startswith("on") or name in ("src=", "href=", "style=")]
    assert "url(" not in page and all(c.isprintable() or c == "\n" for c in page)
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert pictures
    for picture in pictures:
        inside(ElementTree.fromstring(picture))


def inside(picture: ElementTree.Element) -> None:
    """Every bar lies in the view box."""
    for bar in picture.iter("rect"):
        x, y, wide, high = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= charts.WIDTH and 0 <= y <= y + high <= charts.HEIGHT


def test_nothing_that_a_document_holds_acts_on_the_page():
    example = Example(HOSTILE, HOSTILE, HOSTILE, "kept", HOSTILE)
    margins = [
        Margin("a.b", {"keep": [HOSTILE]}, {}, 3, 0, values=[HOSTILE, "b"], counts=[2, 1], breaking=[example]),
        Margin("a.c", {"below": -1e300}, {"below": 3, "above": 1e300}, 3, 1, edges=[0, 1, 8], counts=[1, 2]),
        Margin("a.d", {}, {"below": 3}, 0, 9),
    ]
    moves = pa.table({name: ["enters" if name == "change" else HOSTILE] for name in MOVES})
    count = Count(1, 2, 3, 4)
    answer = Answer(HOSTILE, [HOSTILE], count, count, {"source": [Group(HOSTILE, count, count)]}, [], moves, margins)
    answer.reasons.append(Reason(HOSTILE, "dropped", HOSTILE, 1, 2))
    page = pages.answer(answer)
    assert "<img" not in page and page.count("&lt;script&gt;") > 5
    well_formed(page)
    assert charts.histogram(margins[2]) == ["nothing was measured"]
    assert all(line.isprintable() for margin in margins for line in charts.histogram(margin))


def test_the_bounds_of_a_histogram_stand_where_they_lie():
    margin = Margin(
        "a.c", {"below": 2, "above": 6}, {"below": 3, "above": 6}, 9, 0, edges=[0, 2, 4, 8], counts=[1, 4, 2]
    )
    lines = charts.histogram(margin)
    assert [line.rpartition("─ ")[2].split("│")[0].strip() for line in lines] == [
        "0",
        "below 2, as it is",
        "2",
        "below 3, as it would be",
        "4",
        "above 6, as it is",
    ]
    assert [charts.place(margin.edges, limit) for limit in (-1, 0, 3, 6, 8, 99)] == [0, 0, 1.5, 2.5, 3, 3]


def test_help_says_how_to_write_a_change(gristmill):
    assert "gristmill whatif" in gristmill("--help").stdout
    for verb in ("whatif", "apply"):
        said = gristmill(verb, "--help").stdout
        assert "STAGE.COLUMN.below=30" in said and "--json" in said and f"  gristmill {verb} quickstart" in said
