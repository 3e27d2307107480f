"""The bench itself: its sides that are ours run on a small file, answers are compared, and the tables form. Untimed."""

from __future__ import annotations

import random
import sys
from importlib import import_module

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.stage import available
from tests import builds
from tests.bench import inputs, table
from tests.bench.comparison import Comparison
from tests.bench.measuring import OURS, Python, compare
from tests.bench.peers import WORKS, rows
from tests.bench.side import measured
from tests.bench.works.language import differences

TEXTS = [
    f"The miller of {place} grinds {grain} and keeps the books of every sack that comes and goes, in the {season}. " * 4
    for place in ("Dover", "Ghent", "Turin", "Basel")
    for grain in ("wheat", "rye", "barley", "oats and spelt")
    for season in ("spring", "summer", "autumn", "autumn")
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    documents = pa.table({"id": [f"d{n:03}" for n in range(len(TEXTS) + 1)], "text": [*TEXTS, "磨坊的轮子转动着。"]})
    pq.write_table(documents, folder / "given.parquet")
    return inputs.make(folder / "given.parquet", folder, 20, most=20_000)


@pytest.fixture(scope="module")
def prose(tmp_path_factory):
    """Texts that the filters of the whole chain let pass."""
    draw, folder = random.Random(4), tmp_path_factory.mktemp("prose")
    lines = [" ".join(draw.choice(builds.WORDS) for _ in range(14)).capitalize() + "." for _ in range(1200)]
    texts = ["\n".join(lines[n : n + 6]) for n in range(0, len(lines), 6)]
    pq.write_table(pa.table({"id": [f"d{n}" for n in range(200)], "text": texts}), folder / "given.parquet")
    return inputs.make(folder / "given.parquet", folder, 128, most=20_000)


def sides():
    for work in WORKS:
        found = import_module(f"tests.bench.works.{work}")
        yield from dict.fromkeys((work, row.ours, row.data) for row in found.COMPARISONS)


@pytest.mark.parametrize(("work", "side", "data"), sides())
def test_our_side_answers(files, prose, tmp_path, work, side, data):
    found = measured(work, side, (prose if work in ("chain", "workers") else files)[data], tmp_path)
    assert found["cpu"] >= 0 and found["peak"] > 1_000_000
    assert (tmp_path / "answer").stat().st_size > 0


def test_workers_and_the_form_of_the_input_change_no_answer_of_the_chain(prose, tmp_path):
    chain, workers = (import_module(f"tests.bench.works.{name}").SIDES for name in ("chain", "workers"))
    sides, found = chain | workers, []
    for side in ("gristmill", "gristmill_two", "gristmill_lines"):
        found.append(sides[side](prose["corpus"], tmp_path / side)())
        assert sum(cpu for _, cpu in found[-1].pop("seconds").values()) > 0
    assert found[0] == found[1] == found[2] and len(found[0]["kept"]) > 100


def test_two_processes_are_compared_and_the_table_forms(files, monkeypatch, tmp_path):
    work = import_module("tests.bench.works.language")
    row = work.COMPARISONS[0]
    python = Python(sys.executable, "/nowhere/python")
    ours, theirs, said = compare(
        python, "language", Comparison(row.title, OURS, OURS, "corpus", 5, 12), files["corpus"], 2
    )
    assert ours.cpu > 0 and theirs.peak > 0
    assert said.startswith("65 of 65 labels equal")
    monkeypatch.setattr(table, "RESULTS", tmp_path / "RESULTS.md")
    made = {
        "language": [{**vars(row), "bytes": 9, "mine": vars(ours), "theirs": vars(theirs), "ratio": 2, "answers": said}]
    }
    assert "| 2.0x | 5x / 12x |" in table.text(made, {"peer==1": "no such package"})
    table.write(made, {}, sys.executable, [])
    table.write({"other": made["language"]}, {}, sys.executable, ["--only", "other"])
    written = table.RESULTS.read_text("utf-8")
    assert written.index("## language") < written.index("## other") and written.count("65 of 65") == 2


def test_differences_are_told():
    ours, theirs = (
        {"lang": ["en", None, "de"], "score": [0.5, None, 1]},
        {"lang": ["en", "fr", "nl"], "score": [0.5, 1, 1]},
    )
    assert differences(ours, theirs, None) == (
        "1 of 3 labels equal, scores within 0; 1 texts without a visible character have no language here"
    )


def test_a_side_that_fails_is_a_row_with_its_error(files, monkeypatch):
    work = import_module("tests.bench.works.language")
    monkeypatch.setattr(work, "COMPARISONS", [Comparison("language", OURS, "absent", "corpus", 5)])
    (row,) = rows("language", Python(sys.executable, sys.executable), files, 1)
    assert "absent: KeyError: 'absent'" in table.of([row])


def test_whom_only_one_side_keeps_is_held_against_exact_similarity(files):
    from tests.bench.works.dedup import similarity

    ids = pq.read_table(files["corpus"])["id"].to_pylist()
    sets = [shingled(text) for text in TEXTS]
    best = [max(len(a & b) / len(a | b) for j, b in enumerate(sets) if j != i) for i, a in enumerate(sets)]
    assert similarity(files["corpus"], ids[:-1]) == dict(zip(ids, best, strict=False))
    assert min(best) < 1 == max(best)
    said = import_module("tests.bench.works.dedup").differences({"kept": ids[1:]}, {"kept": ids[:-1]}, files["corpus"])
    assert said == (
        "kept 64 and 64; only the peer drops 1, of which 1 have no document of Jaccard 0.75 or more; "
        f"only we drop 1, of which {int(best[0] < 0.75)} have none"
    )


def shingled(text):
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def test_a_filter_decides_what_its_bounds_make_of_the_signals():
    from tests.bench.works.signals import BOUNDS, differences

    sound = {name: [bound + (1 if breaks(0, 1) else -1) * bound / 2] for name, breaks, bound in BOUNDS["fineweb"]}
    ours = {f"fineweb.{name}": [*values, 0.0, *values, None] for name, values in sound.items()}
    assert differences(ours, {"fineweb": [True, False, False, False]}, None) == "decided alike: fineweb 3 of 4"


@pytest.mark.parametrize(("section", "package"), [("sources", "pipeline.sources"), ("stages", "pipeline.stages")])
def test_every_source_and_stage_has_its_speed_in_the_results(section, package):
    written = table.RESULTS.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = {line.split("|")[1].strip(" `") for line in written.splitlines() if line.startswith("|")}
    missing = [name for name in available(package) if name not in rows]
    assert not missing, f"no speed of {', '.join(missing)}: python tests/bench/{section}.py --write"
