"""The stage `gopher` against datatrove's own GopherQualityFilter, over words split at white space.

The filter is a black box that says yes or no. Bounded by exactly the value that the stage measured it must keep a
document, and by the next float it must drop it: so each quantity is found equal to the bit.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import rules, run, schema, sources, stage
from tests.laws import nasty
from tests.pipeline import twins

oracle = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
from datatrove.data import Document  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")

# signal: the filter's bound, and on which side of it a document falls
BOUNDS = {
    "word_count": ("min_doc_words", "below"),
    "mean_word_length": ("max_avg_word_length", "above"),
    "hash_ratio": ("max_symbol_word_ratio", "above"),
    "ellipsis_ratio": ("max_symbol_word_ratio", "above"),
    "bullet_line_ratio": ("max_bullet_lines_ratio", "above"),
    "ellipsis_line_ratio": ("max_ellipsis_lines_ratio", "above"),
    "alphabetic_word_ratio": ("max_non_alpha_words_ratio", "below"),
    "stop_word_count": ("min_stop_words", "below"),
}
PAPER = {
    "word_count": {"below": 50, "above": 100_000},
    "mean_word_length": {"below": 3, "above": 10},
    "hash_ratio": {"above": 0.1},
    "ellipsis_ratio": {"above": 0.1},
    "bullet_line_ratio": {"above": 0.9},
    "ellipsis_line_ratio": {"above": 0.3},
    "alphabetic_word_ratio": {"below": 0.8},
    "stop_word_count": {"below": 2},
}
REASONS = {
    "word_count < 50": "gopher_short_doc",
    "word_count > 100000": "gopher_long_doc",
    "mean_word_length < 3": "gopher_below_avg_threshold",
    "mean_word_length > 10": "gopher_above_avg_threshold",
    "hash_ratio > 0.1": "gopher_too_many_hashes",
    "ellipsis_ratio > 0.1": "gopher_too_many_ellipsis",
    "bullet_line_ratio > 0.9": "gopher_too_many_bullets",
    "ellipsis_line_ratio > 0.3": "gopher_too_many_end_ellipsis",
    "alphabetic_word_ratio < 0.8": "gopher_below_alpha_threshold",
    "stop_word_count < 2": "gopher_enough_stop_words",
}
PIECES = (
    *("the be to of and that have with The ofthe mill grain 12 # ## ... ..... … - • -x !?. — «» _ { } 'd it's".split()),
    *("磨 坊 〇 水轮。 「 」 カタ ー ไทย กัง หัน 한국 물레 été e\u0301 ß İ 𝔘 👩‍👧".split()),
    *(" ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\x85", "\u2028", "\x1c", "\x0b", "\x00", "\u200b", ""),
)
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=4), 60).map("".join) | twins.long_lists(
    st.sampled_from([piece for piece in PIECES if piece.strip()]), 80
).map(" ".join)


def white_space(text: str, _: str = "") -> list[str]:
    return text.split()


def by_script(text: str, _: str = "") -> list[str]:
    return twins.by_script(text)


@pytest.fixture(scope="module", params=[("whitespace", white_space), ("script", by_script)], ids=lambda param: param[0])
def units(request) -> Iterator[str]:
    """How words are cut; datatrove's own word tokenizer is replaced by a plain twin of it."""
    name, words = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "split_into_words", words)
        yield name


def documents(texts: Iterable[str]) -> sources.Chunk:
    rows = [{"doc_id": f"t:t:{number}", "text": text, "source": "t"} for number, text in enumerate(texts)]
    return sources.Chunk(schema.documents(rows), schema.ledger([]))


def measured(texts: list[str], units: str) -> list[dict[str, Any]]:
    """What the stage itself says, unrounded."""
    found = stage.load("gopher", {"units": units})(documents(texts).documents)
    return [
        dict(zip(found, values, strict=True)) for values in zip(*(v.to_pylist() for v in found.values()), strict=True)
    ]


def kept(text: str, **bounds: Any) -> bool:
    """Whether datatrove keeps a text under these bounds alone."""
    every = dict.fromkeys((*dict(BOUNDS.values()), "max_doc_words", "min_avg_word_length"))
    return oracle.GopherQualityFilter(**{**every, **bounds}).filter(Document(text=text, id="")) is True


def check(text: str, found: dict[str, Any]) -> None:
    """Every quantity of one text equals what the filter compares its bounds with."""
    for name, (bound, side) in BOUNDS.items():
        value = found[name]
        if value is None:
            assert undefined(text, name, bound), (name, text)
            continue
        inside = without(text, name)
        assert kept(inside, **{bound: value}), (name, value, text)
        outside = math.nextafter(value, math.inf if side == "below" else -math.inf)
        outside = value + 1 if isinstance(value, int) else outside
        assert not kept(inside, **{bound: outside}), (name, value, text)


def without(text: str, name: str) -> str:
    """The filter has one bound for "#" and for ellipses: to see the one, the other is written as a comma."""
    swapped = {"hash_ratio": str.maketrans("….", ",,"), "ellipsis_ratio": {ord("#"): ","}}
    return text.translate(swapped.get(name, {}))


def undefined(text: str, name: str, bound: str) -> bool:
    """A quantity that the stage leaves null is one that the filter cannot compute."""
    if name == "mean_word_length":
        # The filter's mean of nothing is NaN, which breaks no bound.
        return kept(text, max_avg_word_length=1e-9) and kept(text, min_avg_word_length=1e9)
    with pytest.raises(ZeroDivisionError):
        kept(without(text, name), **{bound: 0.5})
    return True


def names() -> list[str]:
    """The nasty texts, but where another Python knows more characters than the mill does."""
    known = unicodedata.unidata_version == "14.0.0"
    return [name for name in nasty.TEXTS if known or "newer" not in name]


@pytest.mark.parametrize("name", names())
def test_every_quantity_of_a_nasty_text(name, units):
    text = nasty.TEXTS[name]
    check(text, measured([text], units)[0])


@given(data=st.data())
def test_every_quantity_of_any_text(units, data):
    text = data.draw(TEXTS)
    check(text, measured([text], units)[0])


def test_every_quantity_of_real_documents(units, real):
    for text, found in zip(real[::12], measured(real[::12], units), strict=True):
        check(text, found)


def judge(texts: list[str], units: str) -> list[str]:
    """What becomes of each text by the paper's bounds, from stored signals as in a build: a reason, or "kept"."""
    gopher = stage.load("gopher", {"units": units})
    bounds = rules.parse("gopher", {"drop": PAPER}, gopher.signals, "here")
    ledger = rules.judge(run.run([documents(texts)], [gopher], [], 100).signals, bounds)
    left = dict(zip(ledger["doc_id"].to_pylist(), ledger["reason"].to_pylist(), strict=True))
    assert set(ledger["verdict"].to_pylist()) <= {"dropped"}, "word_count speaks before what is not defined"
    return [left.get(f"t:t:{number}", "kept") for number in range(len(texts))]


def agree(texts: list[str], units: str) -> Counter[str]:
    """Verdict and reason of every text are datatrove's."""
    filter_ = oracle.GopherQualityFilter()
    found = judge(texts, units)
    for text, reason in zip(texts, found, strict=True):
        said = filter_.filter(Document(text=text, id=""))
        assert said == (True if reason == "kept" else (False, REASONS[reason])), (reason, text[:300])
    return Counter(found)


# A text that passes, and for each rule one that breaks it first.
GOOD = "the mill and the water have turned with a great wheel of wood near that old river " * 5
BROKEN: dict[str, Callable[[], str]] = {
    "word_count < 50": lambda: " ".join(GOOD.split()[:49]) + " — ! ...",
    "word_count > 100000": lambda: "the and " * 50_001,
    "mean_word_length < 3": lambda: "of a " * 60,
    "mean_word_length > 10": lambda: GOOD + "millstonemaker " * 400,
    "hash_ratio > 0.1": lambda: GOOD + "#" * 10,
    "ellipsis_ratio > 0.1": lambda: GOOD + "…...." * 5,
    "bullet_line_ratio > 0.9": lambda: "\n".join(f"{' ' * (n % 3)}{'-•'[n % 2]} {GOOD}" for n in range(20)),
    "ellipsis_line_ratio > 0.3": lambda: "\n".join([f"{GOOD}...", GOOD, f"{GOOD}… ", GOOD, GOOD]),
    "alphabetic_word_ratio < 0.8": lambda: GOOD + "2024 " * 25,
    "stop_word_count < 2": lambda: "the mill turned round again near old wooden bridges " * 9,
}


@pytest.mark.parametrize("reason", BROKEN)
def test_each_rule_speaks_as_datatrove_does(reason, units):
    assert agree([GOOD, BROKEN[reason]()], units) == Counter({"kept": 1, reason: 1})


def test_verdicts_on_nasty_and_real_documents(units, real):
    found = agree([*(nasty.TEXTS[name] for name in names()), *real], units)
    assert len(found) > 6 and found["kept"] > 50, found


@given(data=st.data())
def test_verdicts_on_any_text(units, data):
    texts = data.draw(st.lists(TEXTS, max_size=5))
    agree([*texts, *(GOOD + text for text in texts)], units)


@pytest.fixture(scope="module")
def real(shared_data) -> list[str]:
    """About 1,300 documents of 42 languages, and two thousand characters of each where it is long."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])
    return [text[:20_000] for text in table["text"].to_pylist()[::21] if text]


def test_verdicts_on_the_sample_corpus(units):
    texts = sample_texts()
    if not texts:
        pytest.skip("catalogs/samples is not there")
    agree(texts, units)


def sample_texts() -> list[str]:
    try:
        from pipeline.catalog import cards

        card = cards.load("samples")
        chunks = [chunk for item in sources.survey(card) for chunk in sources.read(card, item)]
    except (sources.SourceError, stage.ConfigError):
        return []
    return [text for chunk in chunks for text in chunk.documents["text"].to_pylist()]
