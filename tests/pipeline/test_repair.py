"""`normalise` with ftfy: wrong encodings are put right, what is right stays, and no suspect is missed."""

from __future__ import annotations

import ftfy
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.kernels.neighbours import suspected
from pipeline.stages import _repair
from tests.pipeline import twins

# Every character that ftfy's heuristic looks at, and what stands beside them.
LOOKED_AT = [chr(code) for code, kind in enumerate(_repair._categories().tolist()) if kind]
PIECES = st.sampled_from([*LOOKED_AT, *"aZ .,?!\n磨。，“”й"])
TEXTS = twins.long_lists(PIECES | st.text(max_size=2), 12).map("".join)
RIGHT = (
    "全角标点，保持原样：“引号”、‘单引号’、（括号）！？；——……《书名》～",
    "ＡＢＣ１２３ ｱｲｳ",
    "It’s “quoted” – and so — on… ﬁne ½ © ® 5 µm ± 3 °C £5 ¥100 €20",
    "été à l’école, «guillemets», Ñandú, Größe, São Paulo, naïve café",
    "Она сказала: «Привет!» — и ушла. Καλημέρα κόσμε.",
    "&lt;p&gt; is how HTML writes <p>, &amp; so on; AT&amp;T",
    "カタカナ「引用」、漢字。한국어 문장입니다. ภาษาไทย हिन्दी עברית العربية",
)
BROKEN = {
    "schÃ¶n": "schön",
    "l’humanitÃ©": "l’humanité",
    "â€œquotedâ€\x9d": "“quoted”",
    "ç£¨å\x9d\x8a": "磨坊",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚": "привет",
    "\x1b[31mred\x1b[0m": "red",
}


def arrays(*texts: str) -> pa.Array:
    return pa.array(texts, pa.large_string())


def normalised(*texts: str, **params: str) -> list[str]:
    batch = pa.record_batch([arrays(*texts)], names=["text"])
    return stage.load("normalise", params)(batch)["text"].to_pylist()


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_stays(text):
    assert normalised(text, repair="ftfy") == normalised(text) == [text]
    # Also in a text that ftfy gets to see, and on a line of its own.
    assert normalised(f"{text}\nschÃ¶n", repair="ftfy") == [f"{text}\nschön"]
    assert ftfy.fix_text(text, _repair.CONFIG) == text


@pytest.mark.parametrize("text", BROKEN)
def test_what_was_read_in_a_wrong_encoding_is_put_right(text):
    assert normalised(f"{text} and more", repair="ftfy") == [f"{BROKEN[text]} and more"]
    assert normalised(f"{text} and more") != [f"{BROKEN[text]} and more"]


def test_the_rubble_of_lost_characters_in_chinese_is_no_windows_1252():
    text = "您如果选\x8b©文本格式的数据库\x97段，将无法选择。"
    assert normalised(text, repair="ftfy") == normalised(text) == ["您如果选©文本格式的数据库段，将无法选择。"]


@given(text=TEXTS)
@example("œ1")
@example("a Ã b")
@example("вЂ™")
@example("ГўВЂВ™ a")
def test_who_is_no_suspect_is_left_alone_by_ftfy(text):
    if not suspected(arrays(text), _repair._categories())[0]:
        assert ftfy.fix_text(text, _repair.CONFIG) == text


def test_no_pair_and_no_triple_of_what_is_looked_at_is_missed():
    """All pairs, each also between a letter, a space, the beginning and the end."""
    texts = [f"{before}{a}{b}{after}" for a in LOOKED_AT for b in LOOKED_AT for before, after in (("", ""), ("a", "b"))]
    texts += [f" {a}{b} " for a in LOOKED_AT for b in "  aZ\u00a0磨"]
    quiet = [
        text for text, said in zip(texts, suspected(arrays(*texts), _repair._categories()), strict=True) if not said
    ]
    assert len(quiet) > 10_000
    assert not [text for text in quiet if ftfy.badness.is_bad(text)]


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_twice_is_once_and_neighbours_are_not_felt(texts):
    once = normalised(*texts, repair="ftfy")
    assert normalised(*once, repair="ftfy") == once
    assert once == [normalised(text, repair="ftfy")[0] for text in texts]


def test_chinese_pages_change_where_they_show_broken_text_alone(shared_data):
    table = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir"])
    pages = table.filter(pc.starts_with(table["lang_dir"], "zh"))["text"].to_pylist()
    pairs = zip(normalised(*pages), normalised(*pages, repair="ftfy"), strict=True)
    changed = [plain for plain, mended in pairs if plain != mended]
    assert len(pages) == 1848 and len(changed) == 2
    assert all("Ã©" in plain and "UTF-8" in plain for plain in changed)
