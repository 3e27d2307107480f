"""Texts that break things: what a stage meets sooner or later in a crawl, each once.

Lone surrogates cannot be held by Arrow strings and sources refuse them; everything else of law 6 is here.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline.run import WORKING

PROSE = (
    "The mill wheel turns with water from that river, and it has to be kept free of leaves.\n"
    "People bring their grain to the stone; the stone grinds it to flour, and the flour goes home in sacks.\n"
    "- weigh the sacks\n- take the toll...\n• sweep the floor\n"
)
TEXTS = {
    "empty": "",
    "one space": " ",
    "all spaces": " \t\u00a0\u3000\u2003 " * 500,
    "line feeds": "\n" * 300,
    "nul": "a\x00b \x00 c\x00",
    "only nul": "\x00",
    "controls": "bell\x07 escape\x1b[0m unit\x1f next\x85line\x0bform\x0cfeed \x7f\x9f",
    "carriage returns": "one\r\ntwo\rthree\r\r\nfour",
    "byte order marks": "\ufefftext with \ufeff inside",
    "one letter": "a",
    "no final newline": "last line without an end",
    "final newline": "last line with an end\n",
    "blank lines": "a\n\n\n\n\n\n\nb  \n \n c",
    "megabyte line": "word another third " * 55_000,
    "megabyte word": "x" * 1_000_000,
    "megabyte of spaces": "a" + " " * 1_000_000 + "b",
    "repetition": "again " * 5_000,
    "prose": PROSE,
    "prose again": PROSE,
    "prose nearly": PROSE.replace("sweep the floor", "sweep every floor"),
    "hashes": "# a #b ## c\n#\n" * 30,
    "dots": "......\n... ..\n.. .\n…\nend...  \nend…\t\n. . .\n",
    "bullets": "\u2022 one\n- two\n -three\n\t\u2022\n\u2013 dash\n* star",
    "punctuation": "!!! ??? -- ;;; (...) \u201c\u201d",
    "nfc": "\u00e9t\u00e9 \u00c5ngstr\u00f6m \uac00\u1e69",
    "nfd": "e\u0301te\u0301 A\u030angstro\u0308m \u1100\u1161s\u0323\u0307",
    "misordered marks": "s\u0307\u0323 a\u0301\u0328 \u0301 begins with a mark",
    "compatibility": "\ufb01ne \u2460 \uff21\uff22\uff23 \u00bd \u212b \u2126 \u00a0nbsp",
    "dotted i": "\u0130stanbul \u0131l\u0131k STRASSE stra\u00dfe \u1e9e \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
    "hebrew": "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd, \u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da?",
    "arabic": "\u0627\u0644\u0633\u0651\u064e\u0644\u0627\u0645\u064f \u0639\u0644\u064a\u0643\u0645\u061f",
    "override": "\u202eright to left\u202c \u2066isolated\u2069",
    "persian joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "hindi": "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902 \u0932\u093f\u0916\u093e \u0939\u0941\u0906",
    "chinese": "磨坊的水轮转动着，人们把粮食送到磨坊。面粉装在袋子里带回家。",
    "chinese and english": "我用Python写了一个 mill（磨坊）程序，版本3.11。",
    "japanese": "水車は川の水で回る。人々は穀物を粉ひき小屋へ運んだ。カタカナーも。",
    "korean": "물레방아는 강물로 돌아간다. 사람들은 곡식을 가져온다.",
    "thai": "กังหันน้ำหมุนด้วยน้ำจากแม่น้ำ ผู้คนนำข้าวมาที่โรงสี",
    "khmer": "ម៉ាស៊ីនកិនស្រូវ",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466\U0001f1e9\U0001f1ea\u2764\ufe0f",
    "astral letters": "\U0001d518\U0001d52b\U0001d526 \U00020000\U0002a6d6 \U00010428",
    "newer than unicode 14": "a\U0001fae8\u0301b e\u0301\U00011f00e\u0301 \U00031350",
    "noncharacters": "\ufffe \uffff \U0010ffff \ue000 \ufffd",
    "line separators": "one\u2028two\u2029three\x1cfour\x1dfive\x1esix",
}


def batch() -> pa.RecordBatch:
    """Every nasty text, with the columns that travel with a document: labels on some, all three kinds of split."""
    rows = []
    for number, (name, text) in enumerate(TEXTS.items()):
        row = {"doc_id": f"nasty:{name}:{number}", "text": text, "source": "nasty", "licence": "CC0-1.0"}
        row["label"] = str(number % 2) if number % 3 else None
        row["split"] = (None, "train", "train", "train", "val")[number % 5]
        row["meta"] = f'{{"n":{number}}}' if number % 2 else None
        rows.append(row)
    return pa.RecordBatch.from_pylist(rows, WORKING)
