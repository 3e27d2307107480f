"""Web archives: the good records whole, each bad one in the ledger, wherever the file is cut or damaged."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import books
from pipeline.audit import audit
from pipeline.sources import warc
from pipeline.store import Store
from tests import builds

Row = dict[str, Any]


def read(path: Path, **params: Any) -> tuple[list[Row], list[Row]]:
    params = {"paths": [str(path)], **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in warc.survey(**params):
        for chunk in warc.read(item, source="s", licence=None, **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def record(
    content: bytes, kind: str = "response", mime: str = "application/http; msgtype=response", **more: str
) -> bytes:
    fields = {"WARC-Type": kind, "WARC-Target-URI": "https://example.org/", "Content-Type": mime, **more}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    length = "" if "Content-Length" in fields else f"Content-Length: {len(content)}\r\n"
    return f"WARC/1.0\r\n{head}{length}\r\n".encode() + content + b"\r\n\r\n"


def page(body: bytes, head: bytes = b"200 OK\r\nContent-Type: text/html", **more: str) -> bytes:
    return record(b"HTTP/1.1 " + head + b"\r\n\r\n" + body, **more)


def one(tmp_path: Path, data: bytes, **params: Any) -> tuple[str, str]:
    """Text, or the reason, of the only row."""
    (path := tmp_path / "one.warc").write_bytes(data)
    documents, rejects = read(path, **params)
    (row,) = documents + rejects
    return (row["text"], json.loads(row["meta"])["charset"]) if "text" in row else (row["reason"], row["detail"])


# Real archives


EDGES: dict[str, tuple[list[int], dict[int, str]]] = {
    "bad.arc": ([], {1: "bad_header", 2: "empty_text", 3: "bad_header"}),
    "example-bad-non-chunked.warc.gz": ([1270], {}),
    "example-bad.warc.gz.bad": ([1270], {5: "http_status"}),
    "example-digest.warc": ([], {0: "empty_file"}),
    "example-iana.org-chunked.warc": ([7221], {}),
    "example-resource.warc.gz": ([1303], {}),
    "example-space-in-target-uri.warc.gz": ([], {1: "not_text"}),
    "example-space-in-url.arc": ([1271], {}),
    "example-trunc.warc": ([], {2: "bad_length"}),
    "example-wget-bad-target-uri.warc.gz": ([1270, 49, 459], {}),
    "example-wrong-chunks.warc.gz": ([], {0: "digest_mismatch"}),
    "example.arc": ([1270], {}),
    "example.arc.gz": ([1270], {}),
    "example.warc": ([1270], {}),
    "example.warc.gz": ([1270], {}),
    "post-test.warc.gz": ([], {0: "not_text", 2: "not_text", 4: "not_text"}),
}


def test_every_real_edge_case_is_read_or_in_the_ledger(shared_data: Path) -> None:
    found = {}
    for path in sorted((shared_data / "warc" / "edge").iterdir()):
        documents, rejects = read(path)
        reasons = {int(row["doc_id"].rpartition(":")[2]): row["reason"] for row in rejects}
        found[path.name] = [len(row["text"]) for row in documents], reasons
    assert found == EDGES


def test_real_crawls_are_read_whole_as_fastwarc_reads_them(shared_data: Path) -> None:
    reader = pytest.importorskip("fastwarc.warc")
    for path in sorted((shared_data / "warc").glob("*.warc.gz")):
        documents, rejects = read(path)
        with path.open("rb") as file:
            expected = [
                (r.headers["WARC-Target-URI"].strip("<>"), r.stream_pos, len(r.reader.read()))
                for r in reader.ArchiveIterator(file, parse_http=True, auto_decode="all")
                if r.headers["WARC-Type"] in warc.TYPES
            ]
        assert not rejects and len(documents) == len(expected) > 15
        for row, (url, offset, size) in zip(documents, expected, strict=True):
            meta = json.loads(row["meta"])
            assert (row["url"], meta["offset"], len(row["text"].encode(meta["charset"]))) == (url, offset, size)


def test_wrong_chunks_are_taken_as_they_are_where_digests_are_not_checked(shared_data: Path) -> None:
    documents, rejects = read(shared_data / "warc" / "edge" / "example-wrong-chunks.warc.gz", verify_digests=False)
    assert not rejects and [len(row["text"]) for row in documents] == [1270]


def test_build_from_a_crawl_keeps_its_books(tmp_path: Path) -> None:
    """From a damaged archive to shards: HTML becomes text, and each bad record stands in the ledger."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    text = "<html><body><p>The mill wheel number {} turns with water from the river.</p></body></html>"
    pages = [page(text.format(n).encode()) for n in range(60)]
    members = [gzip.compress(p, mtime=0) for p in pages]
    members[20] = members[20][:60] + bytes(20) + members[20][80:]
    (folder / "a.warc.gz").write_bytes(b"".join(members)[:-30] + page(b"", b"404 Not Found"))
    card = 'name = "crawl"\nkind = "warc"\ntitle = "t"\ndescription = "d"\nhomepage = "https://example.org"\n'
    (folder / "crawl.toml").write_text(card + 'licence = "CC0-1.0"\nlanguages = ["en"]\n[params]\npaths = ["*.gz"]\n')
    stages = [{"use": "html", "extractor": "plain"}, {"use": "exact", "drop": {"dup_rank": {"above": 0}}}]
    recipe = builds.make_recipe(folder, stages, sources=["crawl.toml"])
    version = builds.build(recipe, tmp_path / "store")
    assert not audit(version, Store(tmp_path / "store")).problems
    rows = books.ledger(Store(tmp_path / "store"), version.build_keys()).to_pylist()
    assert {row["reason"] for row in rows} == {"corrupt_stream"} and len(rows) == 2


# Damage


PAGES = [page(b"<p>page %d %s</p>" % (n, random.Random(n).randbytes(40 + 30 * n).hex().encode())) for n in range(8)]
TEXTS = [p.split(b"\r\n\r\n")[2].decode() for p in PAGES]
FORMS = {
    "plain": b"".join(PAGES),
    "members": b"".join(gzip.compress(p, mtime=0) for p in PAGES),
    "one member": gzip.compress(b"".join(PAGES), mtime=0),
}
SIZES = {"plain": [len(p) for p in PAGES], "members": [len(gzip.compress(p, mtime=0)) for p in PAGES]}
NAMES = {"plain": "a.warc", "members": "a.warc.gz", "one member": "a.warc.gz"}


def inflated(data: bytes) -> int:
    """How many pages come out whole of the beginning of one gzip member."""
    plain = zlib.decompressobj(31).decompress(data)
    return sum(len(b"".join(PAGES[: n + 1]).rstrip(b"\r\n")) <= len(plain) for n in range(len(PAGES)))


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from(sorted(FORMS)), data=st.data())
def test_cut_anywhere_loses_the_record_that_is_cut_and_says_so(tmp_path_factory, form: str, data: Any) -> None:
    whole = FORMS[form]
    cut = data.draw(st.integers(1, len(whole) - 1))
    (path := tmp_path_factory.mktemp("cut") / NAMES[form]).write_bytes(whole[:cut])
    documents, rejects = read(path)
    assert [row["text"] for row in documents] == TEXTS[: len(documents)]
    if form == "one member":
        assert inflated(whole[:cut]) - 1 <= len(documents) <= inflated(whole[:cut])
        assert [row["reason"] for row in rejects] == ["truncated_stream" if cut >= 10 else "rubbish"]
        return
    ends = [sum(SIZES[form][: n + 1]) - (4 if form == "plain" else 0) for n in range(len(PAGES))]
    assert len(documents) == sum(end <= cut for end in ends)
    starts = [sum(SIZES[form][:n]) for n in range(len(PAGES))]
    inside = any(start < cut < end for start, end in zip(starts, ends, strict=True))
    assert len(rejects) == inside, (cut, rejects)
    assert inside <= ("ends early" in str(rejects) or "no record" in str(rejects) or "bytes of" in str(rejects) or
                      "no gzip member" in str(rejects))  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(form=st.sampled_from(["plain", "members"]), data=st.data())
def test_damage_anywhere_costs_no_other_record(tmp_path_factory, form: str, data: Any) -> None:
    """Eight bytes are overwritten: of 8 records at least 6 stay (two lie side by side), and what is lost is told."""
    whole = bytearray(FORMS[form])
    at = data.draw(st.integers(0, len(whole) - 8))
    whole[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    (path := tmp_path_factory.mktemp("cut") / NAMES[form]).write_bytes(whole)
    documents, rejects = read(path)
    texts = [row["text"] for row in documents]
    assert len(set(texts) & set(TEXTS)) >= 6
    assert len(documents) == 8 or rejects


@pytest.mark.parametrize("member", [0, 3, 7])
@pytest.mark.parametrize("extra", [0, 1, 200, 5000, 60_000])
def test_a_header_that_takes_other_members_for_its_own_costs_one(tmp_path: Path, member: int, extra: int) -> None:
    """The flag of an extra field is set, and its length is what the damage says (RFC 1952, 2.3)."""
    whole = bytearray(FORMS["members"])
    start = sum(SIZES["members"][:member])
    whole[start + 3] = 4
    whole[start + 10 : start + 12] = extra.to_bytes(2, "little")
    (path := tmp_path / NAMES["members"]).write_bytes(whole)
    documents, rejects = read(path)
    assert [row["text"] for row in documents] == [text for n, text in enumerate(TEXTS) if n != member]
    assert len(rejects) == 1 and rejects[0]["reason"] in ("corrupt_stream", "truncated_stream")


def test_flipped_byte_is_found_by_the_digest(tmp_path: Path) -> None:
    content = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>the miller grinds</p>"
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    good = record(content, WARC_Block_Digest=digest)
    assert one(tmp_path, good)[0] == "<p>the miller grinds</p>"
    assert one(tmp_path, good.replace(b"miller", b"killer"))[0] == "digest_mismatch"
    assert one(tmp_path, good.replace(b"miller", b"killer"), verify_digests=False)[0] == "<p>the killer grinds</p>"


@pytest.mark.parametrize(
    "rubbish", [b"rubbish", b"\x1f", b"\x1f\x8b", b"\x00\x00x", b"\x1f\x8b\x08", b"\xff" * 100_000]
)
def test_trailing_rubbish_is_one_reject_and_padding_is_none(tmp_path: Path, rubbish: bytes) -> None:
    (path := tmp_path / "a.warc.gz").write_bytes(FORMS["members"] + rubbish)
    documents, (found,) = read(path)
    assert [row["text"] for row in documents] == TEXTS and found["reason"] == "rubbish"
    path.write_bytes(FORMS["members"] + b"\0" * 5000)
    assert not read(path)[1]


def test_length_that_is_wrong_costs_its_record_alone(tmp_path: Path) -> None:
    for length in (3, 2000):
        wrong = page(b"<p>wrong</p>", **{"Content-Length": str(length)})
        (path := tmp_path / "a.warc").write_bytes(PAGES[0] + wrong + b"".join(PAGES[1:]))
        documents, (found,) = read(path)
        assert [row["text"] for row in documents] == TEXTS and found["reason"] == "bad_length", length
        assert found["doc_id"] == "s:a.warc:1"


def test_zstd_is_read_and_a_cut_told(tmp_path: Path) -> None:
    whole = zstandard.compress(FORMS["plain"])
    (path := tmp_path / "a.warc.zst").write_bytes(whole)
    assert [row["text"] for row in read(path)[0]] == TEXTS
    path.write_bytes(whole[:-4])
    assert [row["reason"] for row in read(path)[1]] == ["truncated_stream"]


def test_long_record_is_passed_unheld(tmp_path: Path) -> None:
    (path := tmp_path / "a.warc").write_bytes(PAGES[0] + page(b"x" * 5000) + PAGES[1])
    documents, (found,) = read(path, maximum_record_bytes=1000)
    assert [row["text"] for row in documents] == TEXTS[:2] and found["reason"] == "record_too_long"


# Pages


@pytest.mark.parametrize(
    ("stated", "body", "expected"),
    [
        ("; charset=gb2312", "<p>磨坊的水車，㐂</p>".encode("gb18030"), "<p>磨坊的水車，㐂</p>"),
        ("; charset=utf-8", "<p>Der Müller mahlt für Käufer übers Jahr</p>".encode("cp1252"), None),
        ("; charset=iso-8859-1", "<p>“Müller”</p>".encode("cp1252"), "<p>“Müller”</p>"),
        ("; charset=iso-8859-1", "<p>Мельник мелет</p>".encode(), "<p>Мельник мелет</p>"),
        ("", "<meta charset=shift_jis><p>水車が回る</p>".encode("cp932"), None),
        ("", b'<meta http-equiv=x content="text/html; charset=windows-1251">' + "Мука".encode("cp1251"), None),
        ("", "\ufeff<p>水車</p>".encode("utf-16-le"), "<p>水車</p>"),
        ("; charset=nonsense", "<p>水車</p>".encode(), "<p>水車</p>"),
        ("; charset=utf-8", "水車".encode() * 50 + b"\xe6", "水車" * 50 + "\ufffd"),
    ],
)
def test_charset_is_what_the_bytes_bear_out(tmp_path: Path, stated: str, body: bytes, expected: str | None) -> None:
    text, charset = one(tmp_path, page(body, b"200 OK\r\nContent-Type: text/html" + stated.encode()))
    assert text == (expected or body.decode(charset))
    assert any(word in text for word in ("Müller", "水車", "Мука", "Мельник", "磨坊"))


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        (b"Transfer-Encoding: chunked", b"5\r\n<p>th\r\n8;x=y\r\ne mill<p\r\n0\r\n\r\n", "<p>the mill<p"),
        (b"Transfer-Encoding: chunked", b"<p>not chunked</p>", "<p>not chunked</p>"),
        (b"Content-Encoding: gzip", gzip.compress(b"<p>a</p>", mtime=0), "<p>a</p>"),
        (b"Content-Encoding: gzip", b"<p>undone before</p>", "<p>undone before</p>"),
        (b"Content-Encoding: deflate", zlib.compress(b"<p>a</p>"), "<p>a</p>"),
        (b"Content-Encoding: deflate", zlib.compress(b"<p>a</p>")[2:-4], "<p>a</p>"),
        (b"Transfer-Encoding: chunked", b"50\r\n<p>the", "truncated_body"),
        (b"Transfer-Encoding: chunked", b"5\r\n<p>th\r\n", "truncated_body"),
        (b"Content-Encoding: gzip", gzip.compress(b"<p>a</p>" * 99, mtime=0)[:-9], "truncated_body"),
        (b"Content-Encoding: gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff", "corrupt_body"),
        (b"Content-Encoding: gzip", gzip.compress(bytes(1 << 20), mtime=0), "body_too_long"),
        (b"Content-Encoding: br", b"\x8b\x01\x80", "unknown_coding"),
        (b"", b" \r\n ", "empty_text"),
    ],
)
def test_codings_of_a_body(tmp_path: Path, head: bytes, body: bytes, expected: str) -> None:
    data = page(body, b"200 OK\r\nContent-Type: text/html\r\n" + head)
    assert one(tmp_path, data, maximum_record_bytes=100_000)[0] == expected


def test_what_is_no_page_is_named(tmp_path: Path) -> None:
    assert one(tmp_path, record(b"no http"))[0] == "bad_http"
    assert one(tmp_path, page(b"a", b"404 Not Found"))[0] == "http_status"
    assert one(tmp_path, page(b"a", b"404 Not Found\r\nContent-Type: text/plain"), statuses=[404])[0] == "a"
    assert one(tmp_path, page(b"{}", b"200 OK\r\nContent-Type: application/json"))[0] == "not_text"
    assert one(tmp_path, page(b"<p>a</p>", b"200 OK"))[0] == "<p>a</p>"
