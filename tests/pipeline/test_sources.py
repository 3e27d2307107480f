"""Sources: what each kind of bad input becomes, and where documents of good input come from."""

from __future__ import annotations

import ast
import gc
import gzip
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.sources import Collector, Item, SourceError, _about, _columns, _docstrings, _parquet, files, installed
from pipeline.sources._rows import Mapped
from pipeline.sources._streams import FEED
from pipeline.stage import ConfigError

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]


def read(*paths: Path | str, **params: Any) -> tuple[list[Row], list[Row]]:
    """Documents and rejects of files."""
    params["paths"] = list(map(str, paths))
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in files.survey(**params):
        for chunk in files.read(item, source="s", licence="MIT", **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def reject(path: Path, **params: Any) -> tuple[str, str]:
    """Reason and detail of the one reject."""
    _, (found,) = read(path, **params)
    return found["reason"], found["detail"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


# Rows


def test_row_becomes_document(path: Path) -> None:
    row = {"content": "Mühle\0", "stars": 3, "link": "https://e.org", "year": 1850, "who": {"b": 1, "a": None}, "x": 0}
    path.write_bytes(orjson.dumps(row))
    columns = {"text": "content", "label": "stars", "url": "link"}
    (document,), rejects = read(path, columns=columns, meta=["year", "who", "absent"])
    assert not rejects and document == {
        "doc_id": "s:rows.jsonl:1",
        "text": "Mühle\0",
        "source": "s",
        "parent_id": None,
        "label": "3",
        "target": None,
        "item": None,
        "licence": "MIT",
        "url": "https://e.org",
        "meta": '{"who":{"a":null,"b":1},"year":1850}',
    }


def test_defaults_take_what_is_there(path: Path) -> None:
    path.write_text('{"text":"a","label":true,"licence":"CC0-1.0"}\r\n\n{"text":"b","label":null,"language":"de"}\n')
    first, second = read(path)[0]
    assert (first["doc_id"], first["label"], first["licence"]) == ("s:rows.jsonl:1", "true", "CC0-1.0")
    assert (second["doc_id"], second["label"], second["licence"]) == ("s:rows.jsonl:3", None, "MIT")
    (language,), _ = read(path, columns={"language": "language?"})[0][1:], None
    assert language["meta"] == '{"language":"de"}'


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (b'{"text": "a', "malformed_json", "unexpected end"),
        (b'{"text": NaN}', "malformed_json", ""),
        (b'["text"]', "not_an_object", "JSON list"),
        (b"null", "not_an_object", "JSON NoneType"),
        (b'{"title": "a"}', "missing_text", "no 'text'; has: title"),
        (b'{"text": null}', "missing_text", "'text' is null"),
        (b'{"text": ""}', "empty_text", "'text' is empty"),
        (b'{"text": 3}', "text_not_a_string", "'text' is a number"),
        (b'{"text": ["a"]}', "text_not_a_string", "'text' is a list"),
        (b'{"text": "\\ud83d!"}', "lone_surrogate", ""),
        (b'{"text": "\xff"}', "invalid_utf8", "invalid start byte at byte 10"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8", ""),
        (b'{"text": "a", "label": {}}', "label_not_a_scalar", "an object"),
        (b'{"text": "a", "url": 1}', "url_not_a_string", "a number"),
        (b"[" * 5000, "malformed_json", ""),
        (b"\0", "malformed_json", ""),
    ],
)
def test_bad_row_is_rejected_and_its_neighbours_kept(path: Path, line: bytes, reason: str, message: str) -> None:
    path.write_bytes(b'{"text": "before"}\n' + line + b'\n{"text": "after"}')
    documents, (found,) = read(path)
    assert [row["text"] for row in documents] == ["before", "after"]
    assert (found["doc_id"], found["reason"]) == ("s:rows.jsonl:2", reason)
    assert found["detail"].startswith("rows.jsonl row 2: ") and message in found["detail"]
    assert len(found["detail"]) <= 300 and found["detail"].isprintable()


def test_named_column_must_be_there_unless_it_ends_in_a_question_mark(path: Path) -> None:
    path.write_text('{"text": "a"}')
    assert reject(path, columns={"label": "stars"})[0] == "missing_label"
    assert read(path, columns={"label": "stars?"})[0][0]["label"] is None


def test_unknown_column_target_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"columns.*'text'"):
        sources.check_params(files.survey, {"paths": ["a"], "columns": {"txet": "a"}}, "card")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.md", "a.jsonl.gz", "a.txt.zst"])
def test_empty_file_is_one_reject(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert reject(tmp_path / name) == ("empty_file", f"{name} row 0: the file has no row")


def test_blank_lines_are_no_rows_however_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ATOM_BYTES", 100)
    path.write_bytes(b" \n\r\n" * 400)
    assert reject(path)[0] == "empty_file"


def test_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfb")
    assert [row["text"] for row in read(tmp_path / "*")[0]] == ["a", "b"]


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"# A\r\n\n\xe4\xb8\xad\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"one") + gzip.compress(b" two"))
    assert [(row["doc_id"], row["text"]) for row in read(tmp_path / "*")[0]] == [
        ("s:a.md:0", "# A\r\n\n中\n"),
        ("s:b.txt.gz:0", "one two"),
    ]


# Streams


CHECKED = zstandard.ZstdCompressor(write_checksum=True)


def compressed(name: str, data: bytes) -> bytes:
    return gzip.compress(data) if name.endswith("gz") else CHECKED.compress(data)


ROWS = b"".join(orjson.dumps({"text": f"{n} {np.random.default_rng(n).bytes(60).hex()}"}) + b"\n" for n in range(900))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_members_in_a_row_are_one_stream(tmp_path: Path, name: str) -> None:
    cut = len(ROWS) // 2
    padding = b"\0" * 700 if name.endswith("gz") else b""
    (tmp_path / name).write_bytes(compressed(name, ROWS[:cut]) + compressed(name, ROWS[cut:]) + padding)
    documents, rejects = read(tmp_path / name)
    assert len(documents) == 900 and not rejects and documents[-1]["doc_id"] == f"s:{name}:900"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("lost", [1, 6, 5000, 150_000])
def test_truncated_stream_keeps_the_rows_before(tmp_path: Path, name: str, lost: int) -> None:
    """No row repeats: a repeated one would lie in the first block, and zstandard gives out whole blocks alone."""
    noise = np.random.default_rng(3).bytes(4500 * 60).hex()
    texts = [f"{n} {noise[120 * n : 120 * n + 120]}" for n in range(4500)]
    rows = [orjson.dumps({"text": text}) + b"\n" for text in texts]
    whole = compressed(name, b"".join(rows))
    (tmp_path / name).write_bytes(whole[:-lost])
    documents, (found,) = read(tmp_path / name)
    assert [row["text"] for row in documents] == texts[: len(documents)]
    # Hexadecimal digits take about half a byte each; a block is 128 KiB of plain bytes.
    held = len(b"".join(rows[: len(documents) + 1]))
    assert len(b"".join(rows)) - 2.1 * lost - (128 << 10) <= held
    assert lost > 8 or name.endswith("zst") or len(documents) == 4500
    assert found["reason"] == "truncated_stream" and found["doc_id"] == f"s:{name}:{len(documents) + 1}"
    assert f"{name} row {len(documents) + 1}: the compressed stream ends early" in found["detail"]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_damaged_stream_is_a_reject(tmp_path: Path, name: str) -> None:
    whole = bytearray(compressed(name, ROWS))
    whole[len(whole) // 2 : len(whole) // 2 + 300] = b"\xff" * 300
    (tmp_path / name).write_bytes(whole)
    assert read(tmp_path / name)[1][-1]["reason"] == "corrupt_stream"
    (tmp_path / name).write_bytes(b"this is not compressed")
    assert reject(tmp_path / name)[0] == "corrupt_stream"


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_rubbish_behind_a_stream_is_a_reject_and_padding_is_none(tmp_path: Path, name: str) -> None:
    whole = compressed(name, ROWS)
    (tmp_path / name).write_bytes(whole)
    documents, rejects = read(tmp_path / name)
    assert documents
    (tmp_path / name).write_bytes(whole + bytes(500))
    assert read(tmp_path / name) == (documents, rejects)
    (tmp_path / name).write_bytes(whole + b"trailing rubbish")
    found = read(tmp_path / name)
    assert (found[0], found[1][:-1]) == (documents, rejects) and found[1][-1]["reason"] == "corrupt_stream"


def test_long_line_is_skipped_unheld_and_the_next_is_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz"):
        data = b'{"text": "a"}\n{"text": "' + b"x" * 3000 + b'"}\n{"text": "c"}'
        (tmp_path / name).write_bytes(compressed(name, data) if name.endswith("gz") else data)
        documents, (found,) = read(tmp_path / name, maximum_row_bytes=2000)
        assert [row["doc_id"] for row in documents] == [f"s:{name}:1", f"s:{name}:3"]
        assert found["reason"] == "line_too_long" and "2,000" in found["detail"]
    (tmp_path / "c.txt").write_bytes(b"x" * 3000)
    assert reject(tmp_path / "c.txt", maximum_row_bytes=2000)[0] == "file_too_long"


BOMB = """
import resource, sys
from pipeline.sources import files
params = dict(paths=[sys.argv[1]], maximum_row_bytes=8 << 20)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chunks = [chunk for item in files.survey(**params) for chunk in files.read(item, source="s", licence=None, **params)]
reasons = [reason for chunk in chunks for reason in chunk.rejects["reason"].to_pylist()]
print(*reasons, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    zeros = bytes(16 << 20)
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(bytes(256 << 20)))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(zeros, 1) * 16)
    command = [sys.executable, "-c", BOMB, str(tmp_path / "*")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert out[:2] == ["line_too_long", "file_too_long"] and int(out[2]) < 80


@pytest.mark.slow
def test_a_line_of_five_gigabytes_is_passed_and_the_next_is_read(tmp_path: Path) -> None:
    """Of a file with a hole, which takes no room on the disk."""
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.write(b'{"text": "before"}\n')
        file.seek(5 << 30, 1)
        file.write(b'\n{"text": "after"}\n')
    code = BOMB.replace(
        "print(*reasons", "print(*(t for c in chunks for t in c.documents['text'].to_pylist()), *reasons"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.jsonl")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert out[:3] == ["before", "after", "line_too_long"] and int(out[3]) < 80


def test_line_of_many_megabytes_is_a_document(path: Path) -> None:
    text = "mühle " * 2_000_000
    path.write_bytes(orjson.dumps({"text": text}) + b'\n{"text":"end"}')
    documents, rejects = read(path)
    assert not rejects and documents[0]["text"] == text and documents[1]["doc_id"] == "s:rows.jsonl:2"


def test_feed_is_small_enough_for_zstandard() -> None:
    assert FEED // 4 * (128 << 10) <= 16 << 20


# Parquet


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_kinds_of_text(tmp_path: Path) -> None:
    for number, kind in enumerate([pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]):
        found, rejects = read(table(tmp_path / f"{number}.parquet", text=pa.array(["a", None, ""]).cast(kind)))
        assert [row["text"] for row in found] == ["a"]
        assert [row["reason"] for row in rejects] == ["missing_text", "empty_text"]


def test_parquet_meta_of_any_type(tmp_path: Path) -> None:
    import datetime
    import decimal

    columns = {"when": [datetime.date(2024, 1, 2)], "price": [decimal.Decimal("1.50")], "n": [float("nan")], "l": [[1]]}
    (document,), _ = read(table(tmp_path / "a.parquet", text=["a"], **columns), meta=sorted(columns))
    assert document["meta"] == '{"l":[1],"n":null,"price":"1.50","when":"2024-01-02"}'


def test_parquet_invalid_utf8_is_a_reject(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(3, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc"))
    documents, (found,) = read(table(tmp_path / "a.parquet", text=bad))
    assert [row["doc_id"] for row in documents] == ["s:a.parquet:0", "s:a.parquet:2"]
    assert (found["doc_id"], found["reason"]) == ("s:a.parquet:1", "invalid_utf8")


@pytest.mark.parametrize(
    ("columns", "params", "message"),
    [
        ({"body": ["a"], "id": [1]}, {}, r"a\.parquet: no column 'text'; has: body, id"),
        ({"text": ["a"]}, {"meta": ["when"]}, r"a\.parquet: no column 'when'; has: text"),
        ({"text": ["a"]}, {"columns": {"label": "star"}}, r"a\.parquet: no column 'star'; has: text"),
        ({"text": [1]}, {}, r"a\.parquet: column 'text' is int64, not text"),
    ],
)
def test_parquet_of_another_schema_is_refused(tmp_path: Path, columns: Row, params: Row, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(table(tmp_path / "a.parquet", **columns), **params)


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: has 2 columns named 'text'"):
        read(tmp_path / "a.parquet")


def test_corrupt_parquet_names_the_file(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", text=["some text"] * 10)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"a\.parquet: not a readable Parquet file"):
            read(path)
    path.write_bytes(whole[:4] + b"\xff" * 30 + whole[34:])
    with pytest.raises(SourceError, match=r"a\.parquet: damaged near row 0"):
        read(path)


def pieces(path: Path, monkeypatch: pytest.MonkeyPatch, target: int) -> list[Item]:
    monkeypatch.setattr(files, "ATOM_BYTES", target)
    return list(files.survey(paths=[str(path)]))


def rows_of(item: Item) -> list[Row]:
    chunks = list(files.read(item, source="s", licence="MIT", paths=[item.location]))
    return [row for chunk in chunks for row in chunk.documents.to_pylist()]


@pytest.mark.parametrize("size", [7, 1000])
def test_one_row_group_is_shared_out_between_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"{i} " * 20 for i in range(1000)]}), path, row_group_size=size)
    whole = read(path)[0]
    items = pieces(path, monkeypatch, 1000)
    assert len(items) > 20 and sum(item.size for item in items) == path.stat().st_size
    found = [rows_of(item) for item in items]
    assert [row for rows in found for row in rows] == whole and all(found)
    # Two workers take every other piece; a third goes backwards, so that no reader is of use to the next.
    apart = [*map(rows_of, items[::2]), *map(rows_of, items[1::2])]
    assert sorted(map(str, apart)) == sorted(map(str, found))
    assert [rows_of(item) for item in reversed(items)] == found[::-1]


def test_pieces_of_a_row_group_decode_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = pieces(table(tmp_path / "a.parquet", text=[f"text {n}" for n in range(9000)]), monkeypatch, 1 << 10)
    opened = []
    monkeypatch.setattr(_parquet, "_opened", lambda *a, real=_parquet._opened: opened.append(1) or real(*a))
    assert sum(len(rows_of(item)) for item in items) == 9000
    assert len(items) > 5 and len(opened) == 1


def test_file_replaced_between_its_pieces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "a.parquet", text=[f"text {n}" for n in range(1000)])
    first, second, *_ = pieces(path, monkeypatch, 1 << 10)
    assert rows_of(first)
    table(tmp_path / "b.parquet", text=[f"TEXT {n}" for n in range(1000)]).replace(path)
    with pytest.raises(SourceError, match="changed since it was surveyed"):
        rows_of(second)


WORDS = st.one_of(st.none(), st.sampled_from(["", "a", "Mühle", "\0"]))
LABELS = {pa.string(): WORDS, pa.int64(): st.one_of(st.none(), st.integers(-5, 5)), pa.bool_(): st.booleans()}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_columns_become_what_their_rows_become(data: st.DataObject) -> None:
    count, label = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([*LABELS]))
    kinds = {"text": data.draw(st.sampled_from([pa.string(), pa.large_string()])), "label": label}
    kinds |= dict.fromkeys(data.draw(st.sets(st.sampled_from(["url", "licence", "other"]))), pa.string())
    columns = {
        name: pa.array(data.draw(st.lists(LABELS.get(kind, WORDS), min_size=count, max_size=count)), kind)
        for name, kind in kinds.items()
    }
    wanted: dict[Any, str] = data.draw(st.sampled_from([{}, {"language": "url?"}, {"language": "label?"}]))
    meta = data.draw(st.sampled_from([[], ["other"], ["label", "other"]]))
    batch, mapped = pa.RecordBatch.from_pydict(columns), Mapped.of(wanted, meta)
    (fast,) = _columns.chunks(
        batch, 3, mapped, collector := Collector("s", "p", data.draw(st.sampled_from(["M", None])))
    )
    (slow,) = _columns._singly(batch, 3, mapped, collector)
    assert fast.documents.to_pylist() == slow.documents.to_pylist() and fast.rejects.equals(slow.rejects)
    assert fast.documents.schema == slow.documents.schema


def test_parquet_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    assert reject(table(tmp_path / "a.parquet", text=pa.array([], pa.string())))[0] == "empty_file"


# Paths


def test_logical_path_starts_at_the_first_wildcard(tmp_path: Path) -> None:
    (tmp_path / "a [1]" / "b").mkdir(parents=True)
    (tmp_path / "a [1]" / "b" / "c.txt").write_text("c")
    names = [f"{tmp_path}/a*/b/c.txt", f"{tmp_path}/*/*/*.txt", f"{tmp_path}/**/c.txt", f"{tmp_path}/a [1]/b/c.txt"]
    ids = [read(name)[0][0]["doc_id"] for name in names]
    assert ids == ["s:a [1]/b/c.txt:0"] * 3 + ["s:c.txt:0"]


def test_glob_that_matches_nothing_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(SourceError, match=r"none/\*\.txt matches no file; .* has: a\.txt"):
        read(tmp_path / "none" / "*.txt")
    with pytest.raises(SourceError, match="`paths` is empty"):
        read()


def test_two_files_of_one_logical_path_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("a")
    with pytest.raises(SourceError, match=r"would both be 'a\.txt'"):
        read(tmp_path / "one" / "*.txt", tmp_path / "two" / "*.txt")
    assert len(read(tmp_path / "one" / "*.txt", tmp_path / "one" / "a.txt")[0]) == 1
    with pytest.raises(SourceError, match="counts twice"):
        read(tmp_path / "one" / "*.txt", tmp_path / "*" / "a.txt")


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("secret")
    (tmp_path / "in" / "a.txt").symlink_to(tmp_path / "out.txt")
    with pytest.raises(SourceError, match=r"a\.txt is a link to .*out\.txt, outside"):
        read(tmp_path / "in" / "*.txt")
    (tmp_path / "in" / "a.txt").unlink()
    (tmp_path / "in" / "b.txt").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match="not a regular file"):
        read(tmp_path / "in" / "*.txt")
    (tmp_path / "alias").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in" / "b.txt").unlink()
    (tmp_path / "in" / "c.txt").write_text("c")
    assert read(tmp_path / "alias" / "*.txt")[0][0]["doc_id"] == "s:c.txt:0"


def test_unknown_format_and_odd_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf.gz").write_text("a")
    with pytest.raises(SourceError, match=r"unknown format '\.pdf\.gz'; has: \.jsonl"):
        read(tmp_path / "*")
    (tmp_path / "a.pdf.gz").rename(tmp_path / os.fsdecode(b"\xff.txt"))
    with pytest.raises(SourceError, match="not UTF-8"):
        read(tmp_path / "*")


def test_unreadable_file_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("{}")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "cut_lines", denied)
    with pytest.raises(SourceError, match=r"rows\.jsonl: cannot be read: .*Permission denied"):
        read(path)


def test_cut_is_aligned_and_numbers_go_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(ROWS)
    monkeypatch.setattr(files, "ATOM_BYTES", 10_000)
    items = list(files.survey(paths=[str(path)]))
    assert len(items) > 8 and all(10_000 <= item.size < 10_200 for item in items[:-1])
    for item in items:
        part = dict(item.part)
        piece = ROWS[part["offset"] : part["offset"] + part["bytes"]]
        assert piece.endswith(b"\n") and part["row"] == ROWS[: part["offset"]].count(b"\n") + 1


@pytest.mark.parametrize("name", ["sst2", "thucnews_zh"])
def test_labelled_sets(shared_data: Path, name: str) -> None:
    path = shared_data / "classification" / name / "train.parquet"
    documents, rejects = read(path)
    expected = pq.read_table(path).to_pylist()
    assert not rejects
    assert [(row["text"], row["label"]) for row in documents] == [(r["text"], str(r["label"])) for r in expected]


# Installed packages

SOURCE = '''
"""Title."""
@decorated
class A(B, metaclass=M):
    """Class doc."""
    x: int = 0
    @property
    def size(self):
        """How large."""
    def f(self, a, /, b=1, *args, c, d="x", e=None, **kw):
        """
        First.

            Indented.
        """
    @staticmethod
    async def g(x=np.inf, *, y=-1): "One line."
    class Inner:
        def h(cls): """H."""
try:
    import fast
except ImportError:
    def fallback(): r"""Slow \\d."""
else:
    with open() as f:
        def inside(): ("joined " "string")
def silent(): pass
def formatted(): f"""not a docstring"""
def number(): 3
'''

TEXT = """a.b

Title.

class A(B)
Class doc.

A.size
How large.

A.f(a, /, b=1, *args, c, d='x', e=None, **kw)
First.

    Indented.

A.g(x=np.inf, *, y=-1)
One line.

A.Inner.h()
H.

inside()
joined string

fallback()
Slow \\d.
"""


def test_docstrings_read_like_a_reference() -> None:
    assert sorted(_docstrings.document(SOURCE.encode(), "a.b").splitlines()) == sorted(TEXT.splitlines())  # type: ignore[union-attr]
    assert _docstrings.document(b"x = 1", "a") is None and _docstrings.document(b'""""""', "a") is None


def test_docstrings_hold_all_that_the_syntax_tree_has() -> None:
    for module in (json, importlib.metadata, ast):
        source = Path(str(module.__file__)).read_bytes()
        text = _docstrings.document(source, module.__name__) or ""
        found = [ast.get_docstring(n) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef | ast.Module)]
        assert all(doc.strip() in text for doc in found if doc)


DEEP = """
from pipeline.sources._docstrings import document
deep = ["(" * 5000, "-" * 100_000 + "1", "x" + "+x" * 50_000, "if a:\\n pass\\n" + "elif a:\\n pass\\n" * 9000]
deep += ["class A:\\n" + "".join(" " * n + "class A:\\n" for n in range(1, 200))]
deep += ["def f(x=" + "[" * 190 + "]" * 190 + "): 'D'"]
for source in deep:
    try:
        document(source.encode(), "a")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
"""


def test_deep_source_ends_in_an_error_or_a_result() -> None:
    subprocess.run([sys.executable, "-c", DEEP], check=True, cwd=ROOT)


def test_garbage_collection_goes_on_afterwards() -> None:
    _docstrings.document(b'"""a"""', "a")
    with pytest.raises(SyntaxError):
        _docstrings.document(b"(", "a")
    assert gc.isenabled()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(site: Path, name: str, modules: dict[str, str], fields: str = "", version: str = "1.0") -> Path:
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    for path, text in modules.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{fields}")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in modules))
    return info


def packages(**params: Any) -> tuple[list[Row], list[Row]]:
    params = {"standard_library": False, **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in installed.survey(**params):
        for chunk in installed.read(item, source="installed", licence="NOASSERTION", **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def test_module_becomes_document(site: Path) -> None:
    fields = "License-Expression: MIT\nProject-URL: Home Page, https://example.org\n\nThe *mill*.\n"
    install(site, "Grind_Stone", {"grind/core.py": '"""Core."""', "grind/__init__.py": '"""Init."""'}, fields)
    documents, rejects = packages()
    assert not rejects and [(row["doc_id"], row["text"]) for row in documents] == [
        ("installed:grind-stone/METADATA:0", "The *mill*."),
        ("installed:grind-stone/grind/__init__.py:0", "grind\n\nInit.\n"),
        ("installed:grind-stone/grind/core.py:0", "grind.core\n\nCore.\n"),
    ]
    assert {(row["licence"], row["url"], row["label"]) for row in documents} == {("MIT", "https://example.org", None)}
    assert documents[2]["meta"] == '{"distribution":"grind-stone","version":"1.0","module":"grind.core"}'


def test_rejects_name_file_and_line(site: Path) -> None:
    install(site, "bad", {"bad.py": '"""Doc."""\n\nprint "old"\n', "worse.py": "x" + "+x" * 100_000})
    _, rejects = packages()
    assert [row["reason"] for row in rejects] == ["syntax_error", "unparsable_module"]
    assert rejects[0]["detail"].startswith("bad/bad.py row 0: line 3: Missing parentheses")
    assert "RecursionError" in rejects[1]["detail"] and rejects[1]["doc_id"] == "installed:bad/worse.py:0"


def test_huge_module_is_rejected_unparsed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "MODULE_BYTES", 20)
    install(site, "big", {"big.py": '"""Doc."""' + "\nx = 1" * 9})
    assert "64 bytes of source; a module may have 20" in packages()[1][0]["detail"]


def test_editable_absent_and_nameless_distributions_do_no_harm(site: Path) -> None:
    install(site, "edited", {"__editable___edited_finder.py": '"""Maps to a place on this machine."""'})
    (install(site, "thin", {"thin.py": '"""Thin."""'}) / "RECORD").write_text(
        "thin.py,,\nabsent.py,,\n../../bin/x.py,,\n"
    )
    (site / "~ost-1.0.dist-info").mkdir()
    (site / "old.egg-info").write_text(
        "Metadata-Version: 1.0\nName: old\nVersion: 2\nDescription: An egg.\n        On two lines.\n"
    )
    assert [row["text"] for row in packages()[0]] == ["An egg.\nOn two lines.", "thin\n\nThin.\n"]


def test_first_distribution_of_a_name_counts(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("a", "b"):
        (site / place).mkdir()
        install(site / place, "Twin", {"twin.py": f'"""From {place}."""'})
    monkeypatch.setattr(sys, "path", [str(site / "b"), str(site / "a")])
    assert [row["text"] for row in packages()[0]] == ["twin\n\nFrom b.\n"]


def test_choice_of_distributions(site: Path) -> None:
    for name in ("alpha", "alpine", "beta", "gristmill"):
        install(site, name, {f"{name}.py": f'"""{name}."""', "tests/t.py": '"""t"""'})
    names = lambda **params: [row["doc_id"].split(":")[1] for row in packages(**params)[0]]  # noqa: E731
    assert names() == ["alpha/alpha.py", "alpine/alpine.py", "beta/beta.py"]
    assert names(distributions=["AL*"], exclude=["alpine"]) == ["alpha/alpha.py"]
    assert names(distributions=["beta"], skip_folders=[]) == ["beta/beta.py", "beta/tests/t.py"]
    assert names(minimum_characters=15) == ["alpine/alpine.py"]
    with pytest.raises(SourceError, match="no installed distribution matches 'bata'; did you mean 'beta'"):
        packages(distributions=["bata"])


def test_docstrings_as_texts_of_their_own_with_the_distribution_as_label(site: Path) -> None:
    module = '"""About mills."""\nclass Stone:\n    """A stone."""\n    def turn(self, times=1):\n        """Turn."""\n'
    install(site, "Old.Mill", {"mill.py": module, "silent.py": "x = 1", "bad.py": '"""x"""\ndef (:'}, "\nAll of it.\n")
    documents, rejects = packages(entries=True, labelled=True)
    found = [(row["doc_id"].split("/")[1], row["text"], row["label"]) for row in documents]
    assert found == [
        ("mill.py:0", "About mills.", "old-mill"),
        ("mill.py:1", "class Stone\nA stone.", "old-mill"),
        ("mill.py:2", "Stone.turn(times=1)\nTurn.", "old-mill"),
    ]
    assert [row["reason"] for row in rejects] == ["syntax_error"]
    plain = packages()[0]
    assert [row["label"] for row in plain] == [None, None] and plain[0]["text"] == "All of it."
    long = packages(entries=True, labelled=True, minimum_characters=15)[0]
    assert [row["doc_id"].rpartition(":")[2] for row in long] == ["1", "2"]


def test_limit_takes_a_fair_part_of_the_modules(site: Path) -> None:
    modules = {f"m{n:03}.py": f'"""Module {n:03} of many."""' for n in range(200)}
    install(site, "many", modules, "\nAll.\n")
    documents, _ = packages(maximum_source_bytes=1500)
    chosen = [row["doc_id"].split("/")[1][1:4] for row in documents[1:]]
    assert documents[0]["text"] == "All." and 45 <= len(chosen) <= 60
    assert chosen == sorted(chosen) and 15 < sum(name < "100" for name in chosen) < 45
    (site / "m999.py").write_text('"""Another."""')
    assert packages(maximum_source_bytes=1500)[0] == documents


def test_caches_do_not_count(site: Path) -> None:
    info = install(site, "cached", {"cached.py": '"""C."""'})
    before = list(installed.survey(standard_library=False))
    (site / "__pycache__").mkdir()
    (site / "__pycache__" / "cached.py").write_text('"""Stray."""')
    (info / "RECORD").write_text("cached.py,,\n__pycache__/cached.cpython-311.pyc,,\n__pycache__/cached.py,,\n")
    assert list(installed.survey(standard_library=False)) == before


def test_standard_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("json/decoder.py", "test/test_json.py", "site-packages/other.py", "__pycache__/x.py"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text('"""D."""')
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    (document,), _ = packages(standard_library=True)
    assert (document["doc_id"], document["licence"]) == ("installed:python/json/decoder.py:0", "PSF-2.0")
    assert document["text"] == "json.decoder\n\nD.\n"


@pytest.mark.parametrize(
    ("fields", "text", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\nLicense: BSD", "", "MIT OR Apache-2.0"),
        ("Classifier: License :: OSI Approved :: MIT License", "", "MIT"),
        ("License: ISC\nClassifier: License :: OSI Approved :: BSD License", "", "ISC"),
        ("License: BSD 3-Clause License\nClassifier: License :: OSI Approved :: BSD License", "", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: BSD License", "", "LicenseRef-BSD"),
        (
            "Classifier: License :: OSI Approved :: BSD License",
            "Redistributions in binary form must reproduce ...\nNeither the name of",
            "BSD-3-Clause",
        ),
        ("License: BSD", "Redistributions in binary form\n must reproduce the above", "BSD-2-Clause"),
        (
            "Classifier: License :: OSI Approved :: Apache Software License\n"
            "Classifier: License :: OSI Approved :: MIT License",
            "",
            "Apache-2.0 AND MIT",
        ),
        (
            "Classifier: License :: OSI Approved :: GNU General Public License (GPL)\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)",
            "",
            "GPL-2.0-or-later",
        ),
        ("License: The Apache License, Version 2.0", "", "Apache-2.0"),
        ("License: MPL-2.0 AND MIT", "", "MPL-2.0 AND MIT"),
        ("License: see the file", "", "NOASSERTION"),
        ("", "", "NOASSERTION"),
    ],
)
def test_licence(site: Path, fields: str, text: str, expected: str) -> None:
    info = install(site, "x", {}, f"{fields}\n\nA description.\n" if fields else "\nA description.\n")
    (info / "licenses").mkdir()
    (info / "licenses" / "LICENSE.txt").write_text(text)
    (info / "RECORD").write_text("x.py,,\n")
    assert packages()[0][0]["licence"] == expected


def test_licences_of_this_environment_are_expressions_that_a_parser_reads() -> None:
    licenses = pytest.importorskip("packaging.licenses")
    for distribution in importlib.metadata.distributions():
        found = _about.spdx(distribution.metadata, [])
        if found and found != "LicenseRef-BSD":
            licenses.canonicalize_license_expression(found)


# The registry


def test_unknown_kind_lists_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown kind 'file'; did you mean 'files'\? has: archive, chat, files, hub"
    ):
        sources.load("file")
    with pytest.raises(ConfigError, match="cannot be imported"):
        sources.load("nowhere.thing")
    (tmp_path / "kindless.py").write_text("def survey(): ...\n")
    (tmp_path / "mykinds.py").write_text("def survey(): ...\ndef read(item): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be imported"):
        sources.load("kindless.thing")


def test_item_survives_json() -> None:
    item = Item("a", "/x/a", 3, "00", (("offset", 0), ("xxh64", 2**64 - 1)))
    assert Item.from_dict(orjson.loads(orjson.dumps({**item.__dict__}))) == item
