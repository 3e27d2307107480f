"""Personal data: what is found and what is not, on made texts, on synthetic people with gold spans, on hostile text."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import stage as stages
from pipeline.stage import ConfigError
from pipeline.stages._personal import KINDS, MASKS, candidates, find, masked
from pipeline.stages.pii import SPECIMENS

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\n-----END RSA PRIVATE KEY-----"
FOUND = {
    "secret": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH",
        "sk-proj-" + "Zz9_" * 10,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        KEY,
    ],
    "email": ["miller@example.org", "first.last+tag@mail.example.co.uk", "邮箱miller@example.cn。"],
    "iban": ["GB82WEST12345698765432", "gb82 west 1234 5698 7654 32", "DE89370400440532013000 and more"],
    "chinese_id": ["11010519491231002X", "身份证11010519491231002X，"],
    "card": ["4111111111111111", "4111-1111-1111-1111", "3782 822463 10005"],
    "ip": ["93.184.216.34", "http://93.184.216.34:80/", "2606:2800:220:1:248:1893:25c8:1946", "2a00:1450:4001::200e"],
    "phone": [
        "+44 20 7946 0018",
        "+1 (212) 555-2368",
        "(212) 555-2368",
        "13812345678",
        "138-1234-5678",
        "010-62345678",
    ],
}
OTHERS = [
    "see miller@ or @miller, and a@b",
    "GB83WEST12345698765432",  # its check digits are wrong
    "110105194912310021",  # its check is X
    "110105194913310029",  # there is no such month
    "4111111111111112",
    "0,4111111111111111",
    "192.168.1.1 10.0.0.1 127.0.0.1 203.0.113.9 255.255.255.0 1.2.3 93.184.216.34.5 300.1.1.1",
    "4.2.13.1 Partitions",
    "::1 fe80::1:2:3 2001:db8::1:2:3 12:30:45 std::vector::a",
    "2024-11-25 12:30:00 and 25/11/2024, 1914 - 1918",
    "3.14159265358979 1234567890 0x1234567890",
    "sk-learn and gh_pages, task-oriented-language-models-are-here",
]
COUNTRIES = ["CN", "US"]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_each_kind_is_found_and_is_no_other(kind, text):
    [found] = find(f"so: {text}", KINDS, COUNTRIES)
    assert found.kind == kind and candidates(pa.array([text])) == [0]


@pytest.mark.parametrize("text", OTHERS)
def test_what_proves_nothing_is_left(text):
    assert find(text, KINDS, COUNTRIES) == []


def test_a_mask_says_the_kind_alone():
    text = f"Write to miller@example.org or call +44 20 7946 0018.\n{KEY}\n"
    found = find(text, KINDS, ())
    assert masked(text, found) == "Write to <email> or call <phone>.\n<secret>\n"


def test_a_phone_is_one_of_the_countries_asked_for():
    assert not find("(212) 555-2368", KINDS, []) and not find("(212) 555-2368", KINDS, ["GB"])
    assert [f.kind for f in find("(212) 555-2368", KINDS, ["US"])] == ["phone"]


pieces = st.one_of(
    st.sampled_from([text for texts in FOUND.values() for text in texts] + OTHERS + list(SPECIMENS.values())),
    st.text("0123456789-+(). :@aAxGB/\n，", max_size=30),
)


@given(st.lists(pieces, max_size=6), st.sampled_from([" ", "", "\n"]))
def test_what_was_masked_is_gone_and_was_counted(parts, between):
    text = between.join(parts)
    params = {"countries": COUNTRIES}
    batch = pa.record_batch([pa.array([text])], ["text"])
    counts = {name: column[0].as_py() for name, column in stages.load("pii", params)(batch).items()}
    after = stages.load("mask_pii", params)(batch)
    result = after["text"][0].as_py()
    assert counts["total"] == sum(counts[kind] for kind in KINDS)
    for kind in KINDS:
        assert result.count(MASKS[kind]) == counts[kind]
    found = find(text, KINDS, COUNTRIES)
    assert Counter(f.kind for f in found) == +Counter({kind: counts[kind] for kind in KINDS})
    rest = text
    for begin, end, kind in reversed(found):
        rest = rest[:begin] + MASKS[kind] + rest[end:]
    assert rest == result
    assert not found or candidates(batch["text"]) == [0]


@pytest.mark.parametrize(
    "unit",
    ["1", "1 ", "a@", "a.", "1.", "1:", "(1", "+", "eyJ.", "GB82 ", "-----BEGIN PRIVATE KEY-----\n", "a-", "x@a-."],
)
def test_a_hostile_text_comes_to_an_end(unit):
    """A pattern that tries again for each character would take hours for these."""
    find(unit * (300_000 // len(unit)), KINDS, COUNTRIES)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"kinds": ["mail"]}, "no kind 'mail'"),
        ({"countries": ["UK"]}, "no country 'UK'"),
        ({"kinds": []}, "kinds is empty"),
    ],
)
def test_what_there_is_not_is_refused(params, said):
    for use in ("pii", "mask_pii"):
        with pytest.raises(ConfigError, match=said):
            stages.load(use, params, "[[stages]] 1")


def test_synthetic_people(shared_data):
    """Spans of presidio-research; a number of these that holds no Luhn or lies outside 2000::/3 is none of ours."""
    gold = {
        "EMAIL_ADDRESS": "email",
        "CREDIT_CARD": "card",
        "IBAN_CODE": "iban",
        "IP_ADDRESS": "ip",
        "PHONE_NUMBER": "phone",
    }
    wanted, hit, found, right = Counter(), Counter(), Counter(), Counter()
    for each in json.loads((shared_data / "pii" / "synth_dataset_v2.json").read_bytes()):
        mine = find(each["full_text"], KINDS, ["CN", "GB", "US"])
        spans = [(s["start_position"], s["end_position"], gold.get(s["entity_type"])) for s in each["spans"]]
        for begin, end, kind in spans:
            wanted[kind] += 1
            hit[kind] += any(f.kind == kind and f.begin < end and begin < f.end for f in mine)
        for f in mine:
            found[f.kind] += 1
            right[f.kind] += any(f.kind == kind and f.begin < end and begin < f.end for begin, end, kind in spans)
    assert {kind: (hit[kind], wanted[kind], right[kind], found[kind]) for kind in gold.values()} == {
        "email": (49, 49, 49, 49),
        "card": (135, 136, 135, 135),
        "iban": (21, 21, 21, 21),
        "ip": (13, 14, 13, 13),
        "phone": (36, 92, 36, 37),
    }


def test_rows_that_are_passed_over_have_nothing(shared_data):
    text = pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])["text"].slice(0, 3000)
    text = text.combine_chunks()
    seen = set(candidates(text))
    assert not [row for row, value in enumerate(text.to_pylist()) if row not in seen and find(value, KINDS, COUNTRIES)]
