"""Formats that `files` reads beside JSON lines and Parquet: delimited tables, Arrow, HTML, bz2 and xz."""

from __future__ import annotations

import bz2
import csv
import io
import lzma
import random
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import SourceError
from tests.pipeline.test_sources import ROOT, Row, read, reject

PACK = {".bz2": bz2.compress, ".xz": lzma.compress}


# Tables


def test_rows_of_a_table_become_documents(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbftext,stars,url\r\n"The mill, said ""he"",\nturns.",3,https://e.org\r\n\r\nMehl,1,\r\n'
    )
    (tmp_path / "b.tsv").write_text("text\tstars\turl\na, b\t2\thttps://e.org/2", "utf-8")
    documents, rejects = read(tmp_path / "*", columns={"label": "stars"})
    assert not rejects
    assert [(row["doc_id"], row["text"], row["label"], row["url"]) for row in documents] == [
        ("s:a.csv:1", 'The mill, said "he",\nturns.', "3", "https://e.org"),
        ("s:a.csv:2", "Mehl", "1", None),
        ("s:b.tsv:1", "a, b", "2", "https://e.org/2"),
    ]


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b"a", "wrong_columns", "1 values in 2 columns"),
        (b"a,b,c", "wrong_columns", "3 values in 2 columns"),
        (b'"a"b,c', "malformed_row", "expected after"),
        (b"M\xfchle,1", "invalid_utf8", "\\udcfc"),
        (b",1", "empty_text", "'text' is empty"),
        (b"x" * 3000 + b",1", "line_too_long", "2,000"),
        (b'"' + b"x\n" * 3000 + b'",1', "line_too_long", "2,000"),
    ],
)
def test_bad_table_row_is_rejected_and_its_neighbours_kept(tmp_path: Path, line: bytes, reason: str, message: str):
    (tmp_path / "a.csv").write_bytes(b"text,label\nbefore,1\n" + line + b"\nafter,2")
    documents, rejects = read(tmp_path / "a.csv", maximum_row_bytes=2000)
    assert documents[0]["text"] == "before" and rejects[0]["doc_id"] == "s:a.csv:2"
    assert rejects[0]["reason"] == reason and message in rejects[0]["detail"]
    # Behind quotes that were given up, the closing ones open others.
    assert documents[-1]["text"] == "after" or (line.startswith(b'"x') and rejects[-1]["reason"] == "malformed_row")


def test_table_without_the_column_says_so_at_each_row_and_without_rows_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body\na\n")
    assert reject(tmp_path / "a.csv")[0] == "missing_text"
    for content in ("", "text,label\n"):
        (tmp_path / "a.csv").write_text(content)
        assert reject(tmp_path / "a.csv")[0] == "empty_file"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_table_is_read_as_it_was_written(tmp_path_factory, texts: list[str]) -> None:
    (path := tmp_path_factory.mktemp("csv") / "a.csv").write_bytes(table(texts))
    documents, rejects = read(path)
    assert not rejects and [row["text"] for row in documents] == [text.replace("\r\n", "\n") for text in texts]


def table(texts: list[str]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in texts)])
    return file.getvalue().replace("\r\n", "\n").encode()


# Arrow


def arrow(path: Path, data: pa.Table, stream: bool = False, rows: int | None = None) -> Path:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=rows)
    return path


def test_arrow_files_of_both_flavours_give_what_parquet_gives(tmp_path: Path) -> None:
    data = pa.table({"text": [f"row {n}" if n % 7 else None for n in range(9000)], "label": list(range(9000))})
    arrow(tmp_path / "file.arrow", data, rows=5000)
    arrow(tmp_path / "stream.arrow", data, stream=True, rows=700)
    feather.write_feather(data, str(tmp_path / "packed.feather"), compression="zstd")
    views = data.set_column(0, "text", data["text"].cast(pa.string_view()))
    arrow(tmp_path / "views.arrow", views)
    pa.parquet.write_table(data, tmp_path / "table.parquet")
    expected, missing = numbered(tmp_path / "table.parquet")
    assert len(expected) + len(missing) == 9000
    for name in ("file.arrow", "stream.arrow", "packed.feather", "views.arrow"):
        assert numbered(tmp_path / name) == (expected, missing), name


def numbered(path: Path) -> tuple[list[Row], list[str]]:
    """Documents by their row alone, and the rows that are none."""
    documents, rejects = read(path)
    return [{**row, "doc_id": row["doc_id"].rpartition(":")[2]} for row in documents], [
        row["doc_id"].rpartition(":")[2] for row in rejects
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"body": ["a"]}, "no column 'text'; has: body"), ({"text": [1]}, "column 'text' is int64, not text")],
)
def test_arrow_of_another_schema_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=f"a.arrow: {message}"):
        read(arrow(tmp_path / "a.arrow", pa.table(columns)))


@pytest.mark.parametrize("stream", [False, True])
def test_damaged_arrow_is_an_error_that_names_the_file(tmp_path: Path, stream: bool) -> None:
    """In another process: what is damaged must not take the interpreter with it."""
    whole = arrow(tmp_path / "a.arrow", pa.table({"text": ["some text"] * 100}), stream).read_bytes()
    chance = random.Random(1)
    for number in range(12):
        at = chance.randrange(8, len(whole) - 8)
        bad = whole[:at] if number % 3 == 0 else whole[:at] + chance.randbytes(8) + whole[at + 8 :]
        (tmp_path / f"{number:02}.arrow").write_bytes(bad)
    command = [sys.executable, "-c", TRY, *map(str, sorted(tmp_path.glob("[0-9]*.arrow")))]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.splitlines()
    assert len(found) == 12 and all(line == "read" or ".arrow: " in line for line in found), found
    assert sum(line != "read" for line in found) >= 4


TRY = """
import sys
from pipeline.sources import SourceError
from tests.pipeline.test_sources import read
for path in sys.argv[1:]:
    try:
        read(path)
        print("read")
    except SourceError as error:
        print(str(error).replace(chr(10), " "))
"""


# HTML, bz2, xz


def test_html_file_is_one_document_in_its_own_charset(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes("<meta charset=gbk><p>磨坊</p>".encode("gbk"))
    (tmp_path / "b.htm.bz2").write_bytes(bz2.compress("<p>Müller</p>".encode()))
    assert [row["text"][-9:] for row in read(tmp_path / "*")[0]] == ["<p>磨坊</p>", "üller</p>"]


@pytest.mark.parametrize("compression", sorted(PACK))
def test_bz2_and_xz_are_read_and_a_cut_or_damage_told(tmp_path: Path, compression: str) -> None:
    chance = random.Random(1)
    text = "".join(chance.choices(string.ascii_lowercase + " \n", k=50_000))
    whole = PACK[compression](text[:9].encode()) + PACK[compression](text[9:].encode())
    (path := tmp_path / f"a.txt{compression}").write_bytes(whole)
    assert [row["text"] for row in read(path)[0]] == [text]
    path.write_bytes(whole[:-20])
    assert reject(path)[0] == "truncated_stream"
    path.write_bytes(whole[:9000] + bytes(100) + whole[9100:])
    assert reject(path)[0] == "corrupt_stream"
    path.write_bytes(PACK[compression](bytes(24 << 20)))
    assert reject(path, maximum_row_bytes=1 << 20)[0] == "file_too_long"
