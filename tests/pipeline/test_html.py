"""HTML to text: F1 against what people marked, pages that want to hang the mill, and what is left alone."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from unittest.mock import Mock

import pyarrow as pa
import pytest

from pipeline import extraction, schema
from pipeline.run import attempt
from pipeline.sources._charset import text_of
from pipeline.stage import ConfigError, load

PAGE = (
    "<html><head><title>t</title><style>p {}</style></head><body><nav><a href='/'>Home</a></nav><article><h1>Mills</h1>"
)
PAGE += "<p>The mill wheel turns in the river, and the miller grinds the grain of the whole valley.</p>" * 4
PAGE += "</article><footer>Imprint</footer></body></html>"


def batch(*texts: str, **meta: object) -> pa.RecordBatch:
    said = json.dumps(meta) if meta else None
    return schema.documents(
        {"doc_id": f"d{n}", "text": text, "source": "s", "meta": said} for n, text in enumerate(texts)
    )


def texts(found: pa.RecordBatch) -> list[str]:
    return found["text"].to_pylist()


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "plain"])
def test_text_of_a_page(extractor: str) -> None:
    (text,) = texts(load("html", {"extractor": extractor})(batch(PAGE)))
    assert text.count("The mill wheel turns in the river") in (1, 4) and "<" not in text and "p {}" not in text
    assert ("Imprint" in text) == (extractor == "plain")


def test_what_is_no_html_is_left_alone() -> None:
    stage = load("html", {"extractor": "plain"})
    plain = ["a < b and c > d", "List<String> x", "", "磨坊"]
    assert texts(stage(batch(*plain))) == plain
    assert texts(stage(batch(PAGE, content_type="text/plain"))) == [PAGE]
    assert texts(stage(batch("a < b", content_type="text/html"))) == ["a < b"]
    assert texts(stage(batch("<p>a</p>"))) == ["a"]


def test_parameters_that_cannot_be_are_errors() -> None:
    for params, message in (
        ({"extractor": "justext"}, "extractor"),
        ({"seconds": 0.0}, "seconds"),
        ({"extractor": "plain", "favour": "recall"}, "trafilatura alone"),
    ):
        with pytest.raises(ConfigError, match=message):
            load("html", params)


HOSTILE = {
    "deep": "<div>" * 100_000 + "text" + "</div>" * 100_000,
    "deep and unclosed": "<b><i>" * 50_000 + "text",
    "many attributes": "<p " + " ".join(f"a{n}=1" for n in range(50_000)) + ">text</p>",
    "many tables": "<table><tr><td>" * 900 + "text",
    "unclosed comment": "<p>text</p><!--" + "x" * 1_000_000,
    "nul": "<p>te\0xt</p>" * 100,
    "entities": "<p>" + "&amp;&#x0;&nbsp;&bogus;" * 20_000 + "</p>",
}


@pytest.mark.parametrize("extractor", ["trafilatura", "resiliparse", "plain"])
def test_hostile_pages_take_no_longer_than_their_time(extractor: str) -> None:
    """Each alone stands accused or has its text, and its neighbours have theirs."""
    stage, start = load("html", {"extractor": extractor, "seconds": 1.0}), time.monotonic()
    kept, accused = attempt(stage, batch(PAGE, *HOSTILE.values(), PAGE, content_type="text/html"), lambda _, out: out)
    assert texts(kept)[0] == texts(kept)[-1] == texts(stage(batch(PAGE)))[0]
    assert set(accused["doc_id"].to_pylist()) >= {"d1", "d2"} and kept.num_rows + accused.num_rows == len(HOSTILE) + 2
    assert "maximum_depth is 1,000" in accused["detail"][0].as_py()
    assert time.monotonic() - start < 40


def test_time_of_a_page_is_a_limit_and_the_next_page_is_read() -> None:
    """Quadratic in the parser's own code, where no signal handler of Python's would run."""
    stage = load("html", {"extractor": "resiliparse", "maximum_depth": 1_000_000, "seconds": 0.5})
    start = time.monotonic()
    with pytest.raises(extraction.ExtractionError, match=r"more than 0\.5 CPU seconds"):
        stage(batch(HOSTILE["deep"]))
    assert time.monotonic() - start < 60
    assert "mill wheel" in texts(stage(batch(PAGE)))[0]


def test_depth_counts_elements_and_not_tags() -> None:
    from pipeline.stages.html import depth

    assert depth("<p>a<br>" * 5000 + "<li>" * 5000, 1000) == 0
    assert depth("<div></div>" * 5000, 1000) == 1
    assert depth("<div>" * 1001, 1000) == 1001
    assert depth("<div>" * 1000 + "</div>" * 1000 + "<a>", 1000) == 1000


# Against gold


def shares(data: Path, extractor: str, words: int, **params: str) -> float:
    """F1 of precision and recall, each a mean over the pages, of n-grams: article-extraction-benchmark's measure."""
    gold = json.loads((data / "html" / "ground-truth.json").read_text("utf-8"))
    stage = load("html", {"extractor": extractor, **params})
    precision, recall = [], []
    for name, said in sorted(gold.items()):
        if (path := data / "html" / f"{name}.html.gz").exists():
            (text,) = texts(stage(batch(text_of(gzip.decompress(path.read_bytes()))[0])))
            found, expected = grams(text, words), grams(said["articleBody"], words)
            common = (found & expected).total()
            precision.append(common / found.total() if found else 0)
            recall.append(common / expected.total() if expected else 0)
    assert len(precision) > 90
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 2 * p * r / (p + r)


def grams(text: str, size: int) -> Counter[tuple[str, ...]]:
    found = re.findall(r"\w+", text)
    return Counter(tuple(found[n : n + size]) for n in range(max(1, len(found) - size + 1)) if found)


def test_f1_against_what_people_marked(shared_data: Path) -> None:
    assert shares(shared_data, "resiliparse", 1) >= 0.91
    assert 0.6 < shares(shared_data, "plain", 1) < 0.75


@pytest.mark.slow
def test_f1_of_trafilatura_against_what_people_marked(shared_data: Path) -> None:
    assert shares(shared_data, "trafilatura", 1) >= 0.95 and shares(shared_data, "trafilatura", 4) >= 0.95
    assert shares(shared_data, "trafilatura", 1, favour="precision") >= 0.965


def test_threads_that_ask_at_the_same_time_have_a_process_each() -> None:
    asked = extraction.Extraction()
    together = Barrier(2)
    page = "<html><body><p>" + "The mill turns. " * 200 + "</p></body></html>"

    def ask(number: int) -> str:
        together.wait(60)
        return "".join(asked.ask(f"{page}<p>{number} {n}", "plain", "balance", 20.0) for n in range(20))[-60:]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(ask, range(2)))
    assert [f"{number} 19" in text for number, text in enumerate(found)] == [True, True]
    assert len(set(asked.processes)) == 2
    asked.close()
    assert not asked.processes


def test_an_answer_that_nobody_waited_for_is_given_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = extraction.Extraction()
    assert asked.ask("<p>first", "plain", "balance", 20.0) == "first"
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "_read", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            asked.ask("<p>broken off", "plain", "balance", 20.0)
    assert asked.ask("<p>second", "plain", "balance", 20.0) == "second"
    asked.close()
