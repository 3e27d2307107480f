"""The stage `url`: whose host is listed, which words stand in an address, and what a list must not say."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage
from pipeline.stages.url import host


def measured(urls: list[str | None], folder: Path, **lists: str) -> dict[str, list[int | None]]:
    files = {}
    for name, rows in lists.items():
        (folder / f"{name}.txt").write_text(rows, "utf-8")
        files[name] = str(folder / f"{name}.txt")
    bound = stage.load("url", files, "here")
    found = bound(pa.record_batch([pa.array(urls, pa.string())], ["url"]))
    return {name: values.to_pylist() for name, values in found.items()}


def test_a_host_counts_with_all_below_it_and_nobody_beside_it(tmp_path):
    urls = {
        "https://example.com/": 1,
        "http://www.EXAMPLE.com:8080/a?b": 1,
        "https://a.b.example.com./": 1,
        "https://badexample.com": 0,
        "https://example.com.evil.org": 0,
        "https://com": 0,
        "https://user:pass@spam.test/x": 1,
        "https://evil.org/?u=example.com": 0,
        "https://müller.example/": 1,
        "https://xn--mller-kva.example/": 1,
        "https://a.xxx": 1,
        "example.com/no-scheme": 1,
        "https://[::1]/": 0,
        "": None,
        "https:///path": None,
        "https://[bad": None,
    }
    listed = "# remark\nexample.com # why\n*.spam.test\nmüller.example\n.xxx\n"
    found = measured([*urls, None], tmp_path, hosts=listed)
    assert dict(zip(urls, found["host_listed"], strict=False)) == urls and found["host_listed"][-1] is None


def test_words_are_cut_and_subwords_are_not(tmp_path):
    urls = ["https://my-casino.com/Poker/poker", "https://x.org/thepokerroom", "https://a.org/po-ker", "https://a.org/"]
    found = measured(urls, tmp_path, words="poker\nCasino\n", subwords="poker\ncasino\n")
    assert found == {"listed_words": [3, 0, 0, 0], "listed_subwords": [2, 1, 1, 0]}


@given(st.from_regex(r"https?://([a-c]{1,3}\.){1,4}(com|org)(:[0-9]{1,4})?(/[a-z]{0,5})?", fullmatch=True))
def test_a_host_is_listed_where_a_suffix_of_labels_is(tmp_path_factory, address):
    from pipeline.stages import url

    listed = frozenset({"a.com", "b.c.org", "ab.org"})
    labels = str(urlsplit(address).hostname).split(".")
    suffixes = {".".join(labels[n:]) for n in range(len(labels))}
    assert url._under(str(host(address)), listed) == bool(suffixes & listed)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("com\n", "line 1: 'com' is a whole top-level domain; write .com if that is meant"),
        ("ok.org\nhttps://a.org/\n", "line 2: 'https://a.org/' is no host"),
        ("# nothing\n\n", "the list is empty"),
        ("*\n", "line 1: '*' is no host"),
    ],
)
def test_a_list_of_hosts_that_cannot_be_meant_is_refused(tmp_path, rows, words):
    with pytest.raises(stage.ConfigError, match=re.escape(words)):
        measured([], tmp_path, hosts=rows)


def test_a_stage_without_a_list_or_with_words_that_no_url_has_is_refused(tmp_path):
    with pytest.raises(stage.ConfigError, match="give at least one list: hosts, words, subwords"):
        stage.load("url", {}, "here")
    with pytest.raises(stage.ConfigError, match="line 1: 'two words' can stand in no URL's words"):
        measured([], tmp_path, words="two words\n")
