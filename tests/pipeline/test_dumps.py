"""Dumps in XML: what pages and posts become, and that neither entities, nor long texts, nor cuts are held or lost."""

from __future__ import annotations

import bz2
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.sources import SourceError
from tests.laws.kinds import mediawiki as wiki
from tests.laws.kinds import stackexchange as exchange

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]


def read(kind: str, path: Path, **params: Any) -> tuple[list[Row], list[Row]]:
    module, params = sources.load(kind), {"paths": [str(path)], **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in module.survey(**params):
        for chunk in module.read(item, source="s", licence="MIT", **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def reject(kind: str, path: Path, data: bytes, **params: Any) -> tuple[str, str]:
    path.write_bytes(data)
    _, (found,) = read(kind, path, **params)
    return found["reason"], found["detail"]


def test_page_becomes_a_document(tmp_path: Path) -> None:
    (path := tmp_path / "a.xml").write_text(wiki.dump(), "utf-8")
    documents, rejects = read("mediawiki", path)
    assert [row["doc_id"] for row in documents] == [f"s:a.xml:{n}" for n in (0, 1, 2, 6, 7, 8, 9, 10, 11)]
    assert documents[1]["text"] == "'''Mühle 1''' mahlt <ref>x</ref> & dreht."
    assert documents[1]["url"] == "https://de.wikipedia.org/wiki/M%C3%BChle_1_%26_Rad"
    assert json.loads(documents[1]["meta"]) == {
        "title": "Mühle 1 & Rad", "namespace": 0, "page": 1, "revision": 901,
        "date": "2024-01-02T03:04:05Z", "content_type": "text/x-wiki",
    }  # fmt: skip
    assert [(row["doc_id"], row["reason"]) for row in rejects] == [("s:a.xml:3", "empty_text")]
    texts = [row["text"] for row in read("mediawiki", path, namespaces=[0, 1], redirects=True)[0]]
    assert texts[3:5] == ["talk", "#REDIRECT [[x]]"]


def test_last_revision_of_a_page_counts(tmp_path: Path) -> None:
    more = "<revision><id>1</id><text>old</text></revision>"
    (path := tmp_path / "a.xml").write_text(wiki.HEAD + wiki.page(1, "new", 0, more) + "</mediawiki>", "utf-8")
    (document,), _ = read("mediawiki", path)
    assert document["text"] == "new" and json.loads(document["meta"])["revision"] == 901


def test_post_becomes_a_document(tmp_path: Path) -> None:
    (path := tmp_path / "Posts.xml").write_text(exchange.posts(), "utf-8")
    documents, rejects = read("stackexchange", path, site="https://mills.example.org/")
    first, second, *_ = documents
    assert (first["text"], first["licence"], first["url"]) == (
        "<p>Mühle?</p>", "CC-BY-SA-4.0", "https://mills.example.org/q/0",
    )  # fmt: skip
    assert json.loads(first["meta"]) == {
        "id": 0, "kind": "question", "title": "A & B", "tags": ["mill", "wheel"], "score": -2,
        "date": "2024-01-02T03:04:05.678", "content_type": "text/html",
    }  # fmt: skip
    assert json.loads(second["meta"])["parent"] == 0 and second["url"].endswith("/a/1")
    assert second["text"] == "<p>Wie mahlt die Mühle 1?</p>\n"
    assert len(documents) == 8 and [row["reason"] for row in rejects] == ["empty_text"]
    assert len(read("stackexchange", path, kinds=["answer"], minimum_score=3)[0]) == 2


LAUGHS = (
    '<!DOCTYPE z [<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)) + "]>"
)
OUTSIDE = '<!DOCTYPE z [<!ENTITY a9 SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("kind", ["mediawiki", "stackexchange"])
@pytest.mark.parametrize("head", [LAUGHS, OUTSIDE, '<!DOCTYPE z SYSTEM "http://127.0.0.1/z.dtd">'])
def test_entities_are_refused(tmp_path: Path, kind: str, head: str) -> None:
    body = wiki.HEAD + wiki.page(1, "x").replace(">x<", ">&a9;<") + "</mediawiki>"
    if kind == "stackexchange":
        body = '<posts><row Id="1" PostTypeId="1" Body="&a9;"/></posts>'
    assert reject(kind, tmp_path / "a.xml", (head + body).encode())[0] == "document_type"
    assert "undefined entity" in reject(kind, tmp_path / "a.xml", body.encode())[1]


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["mediawiki", "stackexchange"]), packed=st.booleans(), data=st.data())
def test_cut_anywhere_keeps_what_was_whole_and_says_so(tmp_path_factory, kind: str, packed: bool, data: Any) -> None:
    text = (wiki.dump() if kind == "mediawiki" else exchange.posts()).encode()
    whole = bz2.compress(text) if packed else text.rstrip()
    cut = data.draw(st.integers(0, len(whole) - 1))
    folder = tmp_path_factory.mktemp("cut")
    (folder / "whole.xml").write_bytes(text)
    (path := folder / f"a.xml{'.bz2' * packed}").write_bytes(whole[:cut])
    documents, rejects = read(kind, path)
    expected = [row["text"] for row in read(kind, folder / "whole.xml")[0]]
    assert [row["text"] for row in documents] == expected[: len(documents)]
    assert rejects[-1]["reason"] in ("malformed_xml", "truncated_stream")


LARGE = """
import resource, sys
from pipeline import sources
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kind, name, limit = sys.argv[1:4]
module, params = sources.load(kind), {"paths": [sys.argv[4]], name: 1 << 20}
for item in module.survey(**params):
    for chunk in module.read(item, source="s", licence=None, **params):
        print(chunk.documents.num_rows, *chunk.rejects["reason"].to_pylist())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)
"""


@pytest.mark.parametrize("kind", ["mediawiki", "stackexchange"])
def test_text_without_end_is_not_held(tmp_path: Path, kind: str) -> None:
    body, limit = "x" * (150 << 20), "maximum_page_bytes"
    if kind == "mediawiki":
        text = wiki.HEAD + wiki.page(1, body) + wiki.page(2, "after") + "</mediawiki>"
    else:
        text, limit = (
            "<posts>" + exchange.row(1, 1, body) + exchange.row(2, 1, "after") + "</posts>",
            "maximum_row_bytes",
        )
    (path := tmp_path / "a.xml").write_text(text)
    command = [sys.executable, "-c", LARGE, kind, limit, "", str(path)]
    found, memory = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert found == ("1 page_too_long" if kind == "mediawiki" else "0 record_too_long") and int(memory) < 60


def test_deep_nesting_and_other_names_are_refused(tmp_path: Path) -> None:
    assert reject("mediawiki", tmp_path / "a.xml", b"<a>" * 100_000)[0] == "malformed_xml"
    (tmp_path / "a.json").write_bytes(b"")
    with pytest.raises(SourceError, match="no dump by its name"):
        read("mediawiki", tmp_path / "a.json")


@pytest.mark.parametrize("kind", ["mediawiki", "stackexchange", "archive"])
def test_7z_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.xml.7Z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(SourceError, match=r"a\.xml\.7Z: 7-Zip archives are not read; .* \.bz2 .* 7z x -so .* \| zstd"):
        read(kind, tmp_path / "a.xml.7Z")
