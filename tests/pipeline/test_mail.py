"""E-mail: the readable part of each message in its own charset, and what is no letter in the ledger."""

from __future__ import annotations

import json
import mailbox
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import mail
from tests.laws.kinds.mail import box, letter

Row = dict[str, Any]


def read(path: Path, **params: Any) -> tuple[list[Row], list[Row]]:
    params = {"paths": [str(path)], **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in mail.survey(**params):
        for chunk in mail.read(item, source="s", licence=None, **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def one(tmp_path: Path, data: bytes, **params: Any) -> Row:
    (path := tmp_path / "a.eml").write_bytes(data)
    documents, rejects = read(path, **params)
    (row,) = documents + rejects
    return row


def test_message_becomes_a_document(tmp_path: Path) -> None:
    row = one(tmp_path, letter(7, "Der Müller mahlt.".encode("cp1252"), "text/plain; charset=iso-8859-1"))
    assert (row["doc_id"], row["text"]) == ("s:a.eml:0", "Der Müller mahlt.\n")
    assert json.loads(row["meta"]) == {
        "offset": 0, "content_type": "text/plain", "charset": "cp1252", "subject": "Mühle 7",
        "date": "2024-01-02T03:04:05+01:00",
    }  # fmt: skip
    people = json.loads(one(tmp_path, letter(7, b"x"), people=True)["meta"])
    assert (people["from"], people["to"]) == ("Jan <jan@mill.example>", "all@mill.example")


def test_plain_part_is_taken_and_attachments_are_left() -> None:
    message = EmailMessage()
    message["Subject"] = "磨坊"
    message.set_content("水車が回る\n", charset="iso-2022-jp")
    message.add_alternative("<p>HTML</p>", subtype="html")
    message.add_attachment(b"attached", maintype="text", subtype="plain", filename="a.txt")
    found = mail._document(message.as_bytes(), 0, False)
    assert found["text"] == "水車が回る\n" and json.loads(found["meta"])["subject"] == "磨坊"
    page = EmailMessage()
    page.set_content("<p>磨坊</p>", subtype="html", cte="base64")
    found = mail._document(page.as_bytes(), 0, False)
    assert found["text"] == "<p>磨坊</p>\n" and json.loads(found["meta"])["content_type"] == "text/html"


def test_mailbox_is_read_as_mailbox_reads_it(tmp_path: Path) -> None:
    (path := tmp_path / "a.mbox").write_bytes(box())
    documents, rejects = read(path)
    expected = list(mailbox.mbox(path))
    assert len(documents) + len(rejects) == len(expected) == 10
    assert documents[0]["text"] == "Der Müller mahlt 0.\nFrom the mill\n\n\n"
    offsets = [json.loads(row["meta"])["offset"] for row in documents]
    assert [path.read_bytes()[at:].startswith(b"From jan@") for at in offsets] == [True] * 8
    assert [(row["doc_id"], row["reason"]) for row in rejects] == [
        ("s:a.mbox:3", "no_text_part"), ("s:a.mbox:4", "empty_text"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (letter(1, b"\x89PNG", "image/png"), "no_text_part"),
        (letter(1, b"", "multipart/mixed; boundary=x"), "no_text_part"),
        (letter(1, b" \n"), "empty_text"),
        (letter(1, b"x" * 4000), "message_too_long"),
    ],
)
def test_what_is_no_letter_is_a_reject(tmp_path: Path, data: bytes, reason: str) -> None:
    assert one(tmp_path, data, maximum_message_bytes=3000)["reason"] == reason


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([
    b"From a@b Tue Jan  2 03:04:05 2024\n", b"Content-Type: multipart/mixed; boundary=x\n", b"--x\n", b"--x--\n", b"\n",
    b"Content-Type: text/plain; charset=utf-7\n", b"Content-Transfer-Encoding: base64\n", b"=?utf-8?b?/w==?=\n",
    b"Subject: =?nope?q?=FF?=\n", b"Date: Tue, 99 Foo\n", b"\xff\xfe\n", b"text\n", b"Content-Type: message/rfc822\n",
    b"Content-Disposition: \xff\n", b">From x\n", b"\0", b"Content-Type: ;;=\n", b"Date: 1 Jan 99999 00:00 +9999\n",
]), max_size=40).map(b"".join))  # fmt: skip
def test_whatever_comes_is_a_document_or_a_reject(tmp_path_factory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("mail")
    for name in ("a.mbox", "b.eml"):
        (folder / name).write_bytes(data)
        documents, rejects = read(folder / name)
        assert documents or rejects


def test_one_long_line_is_not_held(tmp_path: Path) -> None:
    (path := tmp_path / "a.mbox").write_bytes(box(5) + b"x" * (9 << 20) + b"\n\n" + box(5))
    documents, rejects = read(path, maximum_message_bytes=1 << 20)
    assert [row["doc_id"][-1] for row in documents] == list("012567")
    reasons = ["no_text_part", "message_too_long", "no_text_part", "empty_text"]
    assert [row["reason"] for row in rejects] == reasons
