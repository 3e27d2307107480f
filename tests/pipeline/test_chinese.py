"""Chinese: the stage `chinese` against a plain twin, scripts against OpenCC, C4's lines by characters, folded dedup."""

from __future__ import annotations

import collections
import math
import re
import unicodedata
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.examples import batch as documents
from pipeline.examples import related
from pipeline.kernels import chinese, unicode
from tests.laws import nasty
from tests.pipeline import twins
from tests.pipeline.test_c4 import sentences

PIECES = (
    *"磨坊的水轮转动着， 。 ！ ？ …… 「 」 【 】 （ ） 、 ： 1 ２ 九 Ⅷ a Ａ 国 國 龜 龟 𠀀 㐀 々 〇 ア ゥ é".split(),
    *(
        "更多",
        "展开",
        "展開 ",
        "read more",
        "Readmore",
        "。。。",
        "\n",
        "\n\n",
        "\u3000",
        " ",
        "\t",
        "\r\n",
        "\x00",
        "",
    ),
)
TEXTS = twins.long_lists(st.sampled_from(PIECES) | st.text(max_size=3), 60).map("".join)
PAGE = """水车是一种利用水流的动力机械。它由水轮、轴和磨盘组成，古代的人们用它来磨面、舂米。
根据史书记载，东汉时期已经有人用水排鼓风炼铁；到了唐代，水磨在各地十分普遍。
宋代以后，水车的种类越来越多：有筒车、翻车，也有牛转翻车。它们把河里的水提到高处，灌溉两岸的农田。
今天，大多数水车已经不再使用，但是在一些乡村里，游客仍然可以看到转动的轮子，听见石磨的声音。
水车的效率取决于水流的落差与流量：上射式水轮利用水的重量，效率最高；下射式水轮利用水的冲力，结构比较简单。
"""


def measured(use: str, texts: list[str], **params: Any) -> list[dict[str, Any]]:
    found = stage.load(use, params)(pa.record_batch([pa.array(texts, pa.large_string())], names=["text"]))
    return pa.table(found).to_pylist()


# The stage


def is_han(char: str) -> bool:
    name = unicodedata.name(char, "")
    unified = name.startswith(("CJK UNIFIED IDEOGRAPH-", "CJK COMPATIBILITY IDEOGRAPH-"))
    return unified or char in "々〇"


def twin(text: str) -> dict[str, float | None]:
    """Plain Python over the text, from the words of the docstring."""
    tally = collections.Counter(c for c in text if not c.isspace())
    count = sum(tally.values())
    rows = [row for row in text.split("\n") if row.strip()]
    alnum = [c for c in text if c.isalnum()]
    scripts = chinese.scripts()

    def over(part: float, whole: int) -> float | None:
        return part / whole if whole else None

    bracketed = sum(len("".join(found.split())) for row in rows for found in re.findall("【([^】]*)】", row))
    more = sum(bool(re.search("(?:更多|展开|展開|[Rr]ead ?more|。。。)[ \t\u3000]*$", row)) for row in text.split("\n"))
    han = sum(map(is_han, text))
    ended = len(sentences(text))
    return {
        "characters": count,
        "han_ratio": over(han, count),
        "line_length": over(count, len(rows)),
        "digit_ratio": over(sum(not c.isalpha() for c in alnum), len(alnum)),
        "punctuation_ratio": over(sum(unicodedata.category(c)[0] == "P" for c in text), count),
        "bracket_ratio": over(bracketed, count),
        "more_line_ratio": over(more, len(rows)),
        "unique_ratio": over(len(tally), count),
        "entropy": over(-sum(n * math.log(n / count) for n in tally.values()), count),
        "sentences": ended,
        "sentence_length": over(count, ended),
        "simplified_ratio": sum(scripts[ord(c)] == chinese.SIMPLIFIED for c in text) / max(han, 1),
        "traditional_ratio": sum(scripts[ord(c)] == chinese.TRADITIONAL for c in text) / max(han, 1),
    }


def agree(texts: list[str]) -> None:
    for text, found in zip(texts, measured("chinese", texts), strict=True):
        assert found == pytest.approx(twin(text), abs=1e-4), text[:300]


def known(text: str) -> bool:
    """Whether this Python's tables are of the Unicode that is shipped."""
    return bool((unicode.table()[unicode.code_points(text)] & unicode.ASSIGNED > 0).all())


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_it_is_the_plain_twin(texts):
    agree([text for text in texts if known(text)])


def test_it_is_the_twin_on_nasty_texts():
    agree([text for text in nasty.TEXTS.values() if known(text)])


def test_it_is_the_twin_on_real_pages(shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir"])
    pages = table.filter(pc.starts_with(table["lang_dir"], "zh"))["text"].to_pylist()
    agree(pages[::37])


def test_what_the_published_bounds_say_of_a_page_and_of_rubbish():
    [good, menu, boxes, foreign, again] = measured(
        "chinese",
        [
            PAGE,
            "首页\n新闻\n更多\n图片\n更多\n视频\n更多\n",
            "【新品上市，欢迎选购】热卖\n" * 9,
            "plain English " * 40,
            "磨坊" * 300,
        ],
    )
    assert good["characters"] >= 150 and good["han_ratio"] > 0.8 and good["line_length"] >= 10
    assert good["entropy"] > 3 and good["sentences"] >= 6 and good["unique_ratio"] > 0.1
    assert good["traditional_ratio"] == 0 < 0.2 < good["simplified_ratio"]
    assert menu["line_length"] < 10 and menu["more_line_ratio"] > 0.3 and menu["punctuation_ratio"] == 0
    assert boxes["bracket_ratio"] > 0.1 and foreign["han_ratio"] < 0.3
    assert again["entropy"] < 3 and again["sentences"] < 2 and again["unique_ratio"] <= 0.1


# Scripts


def test_every_pair_is_opencc_s():
    """But for variants of Taiwan and Hong Kong, which OpenCC takes by other tables."""
    opencc = pytest.importorskip("opencc")
    plain, taiwan, hong_kong = (opencc.OpenCC(name) for name in ("t2s.json", "tw2s.json", "hk2s.json"))
    lower = chinese.folded() & unicode.LOWER
    others = []
    for code in (*range(0x3400, 0xA000), *range(0x20000, 0x2A6E0)):
        char, held = chr(code), chr(int(lower[code]))
        if plain.convert(char) != held:
            others.append(char)
            assert held in (plain.convert(one.convert(char)) for one in (taiwan, hong_kong)), char
    assert len(others) < 12


def test_what_only_one_script_has():
    scripts = chinese.scripts()
    assert {scripts[ord(c)] for c in "国说这们发为龟"} == {chinese.SIMPLIFIED}
    assert {scripts[ord(c)] for c in "國說這們發為爲龜"} == {chinese.TRADITIONAL}
    # In both: same form, or a Simplified character that is another Traditional one.
    assert {scripts[ord(c)] for c in "水磨后里面干台云群著乾喆"} == {0}


def test_pages_in_either_script_are_told_apart(shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir"])
    for folders, mine, other in (
        (["zh-CN", "zh_CN"], "simplified_ratio", "traditional_ratio"),
        (["zh-TW"], "traditional_ratio", "simplified_ratio"),
    ):
        pages = table.filter(pc.is_in(table["lang_dir"], pa.array(folders)))["text"].to_pylist()
        found = [row for row in measured("chinese", pages) if row["han_ratio"] > 0.05]
        assert len(found) > 60
        assert all(row[mine] >= 0.1 and row[other] < 0.05 for row in found)


# C4 by characters


def test_lines_of_chinese_stay_by_characters_alone():
    text = f"{PAGE}首页\n更多内容……\n他说：“水轮转动着。”\n欢迎\n“磨坊。\n"
    [page] = measured("c4", [text])
    assert page["lines_kept"] == 0
    [page] = measured("c4", [text], units="script")
    assert page["lines_kept"] == 7 and page["lines_without_terminal_punctuation"] == 3
    assert page["sentences"] >= 8
    batch = pa.record_batch([pa.array([text, "One two three.\nOne two."])], names=["text"])
    assert stage.load("c4_lines", {"units": "script"})(batch)["text"].to_pylist() == [
        f"{PAGE}他说：“水轮转动着。”\n“磨坊。",
        "One two three.",
    ]


def test_a_long_paragraph_of_chinese_is_no_long_word():
    long, word = "磨坊的水轮转动着，" * 200 + "停了。", "x" * 1001 + " is long."
    for units, kept in (("whitespace", 0), ("script", 1)):
        counted = measured("c4", [long, word], units=units, terminal_punctuation=False)
        assert [row["lines_with_long_word"] for row in counted] == [1 - kept, 1]


@given(
    texts=st.lists(
        twins.long_lists(st.sampled_from(("a ", "b. ", "c! ", '"', "\n", "[1]", "...", "one two three.\n")), 40).map(
            "".join
        ),
        max_size=4,
    )
)
def test_where_no_letter_stands_alone_script_is_white_space(texts):
    for dialect in ("datatrove", "tfds"):
        assert measured("c4", texts, dialect=dialect, units="script") == measured("c4", texts, dialect=dialect)


# Dedup across scripts


def pair() -> tuple[str, str]:
    opencc = pytest.importorskip("opencc")
    return PAGE, opencc.OpenCC("s2tw.json").convert(PAGE)


@pytest.mark.parametrize("verify", [True, False])
def test_a_page_and_its_copy_in_the_other_script_share_a_cluster(verify):
    simplified, traditional = pair()
    assert simplified != traditional and measured("chinese", [traditional])[0]["traditional_ratio"] > 0.2
    met = documents([("One more page, about nothing of the kind at all.",), (traditional,), (simplified,)])
    apart = related(stage.load("near", {"verify": verify}), met)
    assert apart["cluster_size"].to_pylist() == [1, 1, 1]
    found = related(stage.load("near", {"fold_chinese": True, "verify": verify}), met).to_pylist()
    assert [row["cluster_size"] for row in found] == [1, 2, 2]
    assert found[2]["dup_of"] == found[1]["doc_id"] and found[2]["dup_rank"] == 1


def test_folding_moves_nothing_else(shared_data):
    """Pages without Chinese have the same sketches, but by another key."""
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir"])
    pages = table.filter(pc.is_in(table["lang_dir"], pa.array(["de", "ru", "th", "ko"])))["text"][:150]
    batch = pa.record_batch([pages.combine_chunks()], names=["text"])
    plain, folded = (stage.load("near", {"fold_chinese": fold}) for fold in (False, True))
    assert pa.table(plain(batch)).equals(pa.table(folded(batch)))
    assert plain.identity["resources"] != folded.identity["resources"]


def test_speech_has_ended_where_its_quotation_mark_closes():
    lines = ["“面发起来了吗？”", "「還沒有。」", "“摸摸盆”", "他说：", "”", "水凉了。", "‘好！’"]
    for units, share in (("whitespace", 1 / 7), ("script", 4 / 7)):
        assert measured("fineweb", ["\n".join(lines)], units=units)[0]["punctuated_line_ratio"] == pytest.approx(share)
