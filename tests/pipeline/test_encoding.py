"""Ids of the kernel against `tokenizers`, under every pre-tokenizer that it knows; and what it leaves to them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from pipeline.kernels.bpe import encode
from pipeline.kernels.bpe_memory import Memory
from pipeline.kernels.bpe_tables import cuts, piece_end
from pipeline.kernels.buffers import frozen
from pipeline.tokens import vocabulary
from pipeline.tokens.encoding import Encoder, _characters, why_not
from tests.laws import nasty
from tests.pipeline.forms import FORMS, PIECES, pre_tokenizer

TEXTS = [
    *("the mill wheel turns with water from that river and be kind to have a stone " * 9).split(". "),
    "磨坊的水轮转动着，人们把粮食送到磨坊。水車が回る。" * 5,
    "l'été, la mouture — 12 sacs de farine\n\tfor i in range(1024): print('…')\r\n\r\n  x" * 5,
    "I'll say they're what we've, he'd; IT'S I'M 'LL\n" * 5,
    "aaaa" * 40,
]
WORDS = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
# ASCII is read 64 bytes at a time where so many lie behind.
DOCUMENTS = st.lists(WORDS, max_size=6).map(lambda texts: [*texts, "=" * 64])


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return vocabulary.train(TEXTS, 700)


def made(base: Tokenizer, form: str = "byte-level", **changes: Any) -> Tokenizer:
    """A copy of a tokenizer with another pre-tokenizer and other settings of its model; as `load` leaves it."""
    table = json.loads(base.to_str())
    table["model"].update(changes)
    tokenizer = Tokenizer.from_str(json.dumps(table))
    tokenizer.pre_tokenizer = pre_tokenizer(form)
    tokenizer.encode_special_tokens = True
    return tokenizer


def same(tokenizer: Tokenizer, encoder: Encoder, texts: list[str], kind: pa.DataType | None = None) -> None:
    """The encoder's rows are those of plain `tokenizers`."""
    ids, starts = encoder(pa.array(texts, kind or pa.string()))
    assert starts[0] == 0 and starts[-1] == len(ids) and len(starts) == len(texts) + 1
    for row, expected in enumerate(vocabulary.encode(tokenizer, texts)):
        assert ids[starts[row] : starts[row + 1]].tolist() == expected


@pytest.fixture(scope="module", params=FORMS)
def pair(request, trained) -> tuple[Tokenizer, Encoder]:
    tokenizer = made(trained, request.param)
    encoder = Encoder(tokenizer)
    assert encoder.why_not is None
    return tokenizer, encoder


# Ids


@given(texts=DOCUMENTS)
def test_ids_are_those_of_tokenizers(pair, texts):
    """The encoder, and with it what it remembers, is the same for all examples."""
    same(*pair, texts)


def test_hostile_texts_have_their_ids(pair):
    same(*pair, [*TEXTS, *nasty.TEXTS.values()], pa.large_string())


def test_ids_do_not_depend_on_what_is_remembered(pair, monkeypatch):
    """A memory so small that it is overwritten again and again."""
    tokenizer, _ = pair
    tight = Encoder(tokenizer)
    small = Memory.empty(slots=4, far=2)
    monkeypatch.setattr(Memory, "empty", lambda: small)
    texts = [f"{word}{number} {'long' * (number % 30)} 磨坊水轮转动{number}" for number in range(200) for word in "ab"]
    same(tokenizer, tight, texts + texts)


@given(
    text=st.lists(st.sampled_from("abc")).map("".join)
    | st.lists(st.sampled_from("水车中éa ，"), max_size=60).map("".join),
    more=st.integers(1, 8),
    merges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=60),
    ignore=st.booleans(),
)
def test_any_list_of_merges(text, more, merges, ignore):
    """Merges in no good order, of parts of characters, made twice in two ways; entries that no merge reaches."""
    byte_level = {byte: character for character, byte in _characters().items()}
    entries = [byte_level[byte] for byte in dict.fromkeys((text or "a").encode())]
    pairs, alone = [], ["cab", "abcabc", *("".join(map(byte_level.get, word.encode())) for word in ("水车", "中，"))]
    for a, b in merges:
        left, right = entries[a % len(entries)], entries[b % len(entries)]
        if len(left + right) <= 64:
            pairs.append((left, right))
            entries += [left + right] if left + right not in entries else []
    pairs.reverse()
    every = dict.fromkeys(["<|endoftext|>", *byte_level.values(), *entries, *alone])
    tokenizer = Tokenizer(models.BPE({entry: n for n, entry in enumerate(every)}, pairs, ignore_merges=ignore))
    tokenizer.pre_tokenizer = pre_tokenizer("byte-level")
    same(tokenizer, Encoder(tokenizer), [text, text[:50], text * more, " ".join(text), "=" * 64])


@given(
    text=st.lists(st.sampled_from("水车中国人民éa"), min_size=1, max_size=20).map("".join),
    merges=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=60),
)
def test_a_text_may_be_cut_where_no_merge_reaches(text, merges):
    """The pieces of a text have the ids of the text: `tokenizers`, which cuts nowhere, says so of every cut."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level = {byte: character for character, byte in _characters().items()}
    data = text.encode()
    entries, pairs = [bytes([byte]) for byte in dict.fromkeys(data)], {}
    for a, b in merges:
        left, right = entries[a % len(entries)], entries[b % len(entries)]
        if len(left + right) <= 12:
            pairs[left, right] = len(pairs)
            entries += [left + right] if left + right not in entries else []

    def shown(entry: bytes) -> str:
        return "".join(byte_level[byte] for byte in entry)

    vocab = {entry: n for n, entry in enumerate(dict.fromkeys([*sorted(alphabet), *map(shown, entries)]))}
    model = models.BPE(vocab, [(shown(a), shown(b)) for a, b in pairs])
    joins, around = cuts(list(pairs))
    for behind in (b"", b"=" * 8):
        column, cut = np.frombuffer(data + behind, np.uint8), [0]
        while cut[-1] < len(data):
            cut.append(piece_end(frozen(column), cut[-1], len(data), frozen(joins), frozen(around)))
        pieces = [shown(data[a:b]) for a, b in pairwise(cut)]
        assert [t.id for p in pieces for t in model.tokenize(p)] == [t.id for t in model.tokenize(shown(data))]


def test_chinese_is_cut_into_words():
    """Where two words meet that no merge joins, though their characters' bytes are joined elsewhere."""
    words = ["中国", "人民", "水车"]
    merges = []
    for word in words:
        head, *rest = ([bytes([byte]) for byte in character.encode()] for character in word)
        for character in (head, *rest):
            merges += [(character[0], character[1]), (character[0] + character[1], character[2])]
        merges.append((word[0].encode(), word[1].encode()))
    joins, around = map(frozen, cuts(merges))
    data, found = frozen(np.frombuffer("水车人民中国中国=====".encode(), np.uint8)), [0]
    while found[-1] < 24:
        found.append(piece_end(data, found[-1], 24, joins, around))
    assert found == [0, 6, 12, 18, 24]


@pytest.mark.parametrize("ignore", [False, True])
def test_an_entry_that_no_merge_reaches(trained, ignore):
    table = json.loads(trained.to_str())
    vocab = {**table["model"]["vocab"], "zqzq": 700, "Ġmillstonesgrindingtheflour": 701, "é": 702}
    vocab = {entry: number for number, entry in enumerate(vocab)}
    tokenizer = made(trained, "gpt4", vocab=vocab, ignore_merges=ignore)
    texts = ["zqzq", "a millstonesgrindingtheflour zqzqzq", "millstonesgrindingtheflour"]
    same(tokenizer, Encoder(tokenizer), texts)
    assert (vocab["zqzq"] in tokenizer.encode("zqzq").ids) == ignore


@pytest.mark.parametrize("ignore", [False, True])
def test_a_piece_is_no_pre_token(ignore):
    """`ignore_merges` is for a pre-token alone, not for the same bytes in a longer one."""
    byte_level = {byte: character for character, byte in _characters().items()}
    entry = "".join(byte_level[byte] for byte in "中国".encode())
    # 国 is made first and takes the last byte of 中: what is left is none of the merges.
    pairs = [(entry[3], entry[4]), (entry[3:5], entry[5]), (entry[2], entry[3:]), (entry[0], entry[1])]
    every = ["<|endoftext|>", *byte_level.values(), *map("".join, pairs), entry]
    tokenizer = Tokenizer(models.BPE({entry: n for n, entry in enumerate(every)}, pairs, ignore_merges=ignore))
    tokenizer.pre_tokenizer = pre_tokenizer("byte-level")
    same(tokenizer, Encoder(tokenizer), ["中国", "中国人", "中国", "人中国", "=" * 64])
    same(tokenizer, Encoder(tokenizer), ["中国人", "中国", "=" * 64])


def test_threads_have_the_same_ids(trained):
    """Each with its own encoder, at the same time."""
    tokenizer, texts = made(trained, "gpt4"), [*TEXTS * 40, *nasty.TEXTS.values()]
    alone = [part.tolist() for part in Encoder(tokenizer)(pa.array(texts))]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda encoder: encoder(pa.array(texts)), [Encoder(tokenizer) for _ in range(8)]))
    assert all([part.tolist() for part in parts] == alone for parts in found)


def test_memory_is_of_fixed_size(trained):
    memory = Memory.empty()
    before = [(part.ctypes.data, part.nbytes) for part in memory]
    text = pa.array([f"{number} {number * 7919:x} 磨{number}" for number in range(100_000)])
    encode(text, Encoder(made(trained))._merges, 0, 0, memory)
    assert [(part.ctypes.data, part.nbytes) for part in memory] == before
    assert sum(part.nbytes for part in memory) == (1 << 16) * 64 + (1 << 13) * 256 == 6_291_456


def test_merges_as_strings(trained):
    """tokenizer.json before 2024 wrote a merge as "a b"."""
    table = json.loads(trained.to_str())
    table["model"]["merges"] = [" ".join(merge) for merge in table["model"]["merges"]]
    tokenizer = Tokenizer.from_str(json.dumps(table))
    same(tokenizer, Encoder(tokenizer), TEXTS)


@given(texts=DOCUMENTS)
def test_a_space_before_every_text(trained, texts):
    tokenizer = made(trained)
    tokenizer.pre_tokenizer = pre_tokenizer("byte-level", prefix=True)
    encoder = Encoder(tokenizer)
    assert encoder.why_not is None
    same(tokenizer, encoder, ["", " a", "\ta", *texts])


@pytest.fixture(scope="module", params=[normalizers.NFC(), normalizers.Lowercase()], ids=["composed", "lowercase"])
def normal(request, trained) -> tuple[Tokenizer, Encoder]:
    tokenizer = made(trained, "qwen")
    tokenizer.normalizer = request.param
    encoder = Encoder(tokenizer)
    assert encoder.why_not is None
    return tokenizer, encoder


@given(texts=DOCUMENTS)
def test_normal_forms(normal, texts):
    odd = ["e\u0301", "\u1100\u1161", "plain", "\U00016d67\U00016d67", "ΟΔΟΣ", "\u0130I", "<|ENDOFTEXT|>", "\ua7dc"]
    same(*normal, [*odd, *texts])


def test_normal_forms_of_every_character(normal):
    """Some are known to one side's Unicode alone, and Arrow's lower case of one is another."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    same(*normal, ["".join(characters[at : at + 64]) for at in range(0, len(characters), 64)])


@given(texts=st.lists(st.lists(st.sampled_from([*PIECES, "MILL", "MILLSTONE", "é"])).map("".join), max_size=5))
def test_added_tokens_that_are_not_special_stay_tokens(trained, texts):
    tokenizer = made(trained)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("MILLSTONE"), AddedToken("é", lstrip=True)])
    encoder = Encoder(tokenizer)
    assert encoder.why_not is None
    same(tokenizer, encoder, ["a MILLSTONE", "plain", "e\u0301", *texts])


def test_a_large_vocabulary_has_ids_of_four_bytes(trained):
    table = json.loads(trained.to_str())
    size = len(table["model"]["vocab"])
    vocab = table["model"]["vocab"] | {f"filler{n}": size + n for n in range(70_000 - size)}
    moved = {entry: 69_999 - number for entry, number in vocab.items()}
    table["added_tokens"][0]["id"] = moved["<|endoftext|>"]
    table["model"]["vocab"] = moved
    tokenizer = Tokenizer.from_str(json.dumps(table))
    tokenizer.encode_special_tokens = True
    encoder = Encoder(tokenizer)
    assert encoder(pa.array(["a"]))[0].dtype == np.uint32 and encoder.why_not is None
    same(tokenizer, encoder, TEXTS)


# Shapes of a column


def test_columns_that_are_empty_null_or_sliced(pair):
    tokenizer, encoder = pair
    for kind in (pa.string(), pa.large_string()):
        assert [x.tolist() for x in encoder(pa.array([], kind))] == [[], [0]]
        ids, starts = encoder(pa.array([None, "a", None], kind))
        assert starts.tolist() == [0, 2, 5, 7]
        ids, starts = encoder(pa.array(TEXTS, kind)[2:4])
        assert ids.tolist() == [n for row in vocabulary.encode(tokenizer, TEXTS[2:4]) for n in row]


def test_a_million_documents_of_one_character(trained):
    ids, starts = Encoder(made(trained))(pa.array(["a", "b"] * 500_000))
    [[eot, a, _], [_, b, _]] = vocabulary.encode(trained, ["a", "b"])
    assert (ids.reshape(-1, 6) == [eot, a, eot, eot, b, eot]).all() and (np.diff(starts) == 3).all()


PARTS = [b"\xe4\xb8", b"\xe5", b"\x80", b"\xb8\xad", b"\xc3", b"a", b" ", "中，".encode()]


@given(
    data=st.lists(st.sampled_from(PARTS)).map(b"".join) | st.binary(max_size=40),
    after=st.binary(min_size=1, max_size=9),
)
def test_invalid_text_is_read_to_its_end_and_no_further(pair, data, after):
    """What lies behind the document changes nothing; pre-tokens are side by side and their ids are the bytes."""
    tokenizer, encoder = pair
    found = []
    for behind in (b"", after, after * 70, b"\xbf" * 9, b"\xbf" * 80):
        offsets = pa.py_buffer(np.array([0, len(data)], np.int64))
        text = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data + behind)])
        found.append(encoder(text)[0].tolist())
    assert all(ids == found[0] for ids in found)
    entries = {number: entry for entry, number in tokenizer.get_vocab().items()}
    characters = _characters()
    assert bytes(characters[c] for number in found[0][1:-1] for c in entries[number]) == data


# What is left to `tokenizers`


def test_what_the_kernel_cannot_is_said_and_left_to_tokenizers(trained):
    odd = {
        "dropout": made(trained, dropout=0.5),
        "end_of_word_suffix": made(trained, end_of_word_suffix="@@"),
        "WordLevel": Tokenizer(models.WordLevel({"<|endoftext|>": 0, "a": 1, "?": 2}, unk_token="?")),
        "Strip": made(trained),
        "pre-tokenizer": made(trained),
        "every byte": made(trained, vocab={"<|endoftext|>": 0, "a": 1}, merges=[]),
        "truncates": made(trained),
    }
    odd["Strip"].normalizer = normalizers.Strip()
    odd["pre-tokenizer"].pre_tokenizer = pre_tokenizers.Whitespace()
    odd["truncates"].enable_truncation(3)
    for reason, tokenizer in odd.items():
        assert reason in (why_not(tokenizer) or "")
        if reason != "dropout":
            same(tokenizer, Encoder(tokenizer), ["a", "A mill", ""])
    assert why_not(trained) is None


# Real text


def gpt2(folder: Path, form: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe")))
    tokenizer.pre_tokenizer = pre_tokenizer(form)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.encode_special_tokens = True
    return tokenizer


def corpus(shared_data: Path) -> list[str]:
    return pq.read_table(shared_data / "corpus" / "debian_docs.parquet", columns=["text"])["text"].to_pylist()


def house(texts: list[str]) -> Tokenizer:
    """A tokenizer that knows the words of what it encodes, Chinese too."""
    tokenizer = vocabulary.train(texts[::40], 32_000)
    tokenizer.encode_special_tokens = True
    return tokenizer


def all_the_same(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoder = Encoder(tokenizer)
    assert encoder.why_not is None
    for first in range(0, len(texts), 1000):
        same(tokenizer, encoder, texts[first : first + 1000])


@pytest.mark.parametrize("form", FORMS)
def test_real_documents(shared_data, form):
    all_the_same(gpt2(shared_data / "tokenizers" / "gpt2", form), corpus(shared_data)[::150])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_all_real_documents(shared_data, form):
    all_the_same(gpt2(shared_data / "tokenizers" / "gpt2", form), corpus(shared_data))


@pytest.mark.slow
def test_all_real_documents_by_a_tokenizer_of_their_own(shared_data):
    texts = corpus(shared_data)
    all_the_same(house(texts), texts)


@pytest.mark.slow
def test_a_line_of_a_hundred_megabytes(trained):
    """Twice the same half of 50 MB: its ids come twice."""
    half = "The mill wheel turns with water from that river. " * 1_020_000
    ids, _ = Encoder(made(trained))(pa.array([half + half], pa.large_string()))
    inner = ids[1:-1].reshape(2, -1)
    assert (inner[0] == inner[1]).all()
    sample = vocabulary.encode(made(trained), [half[: 49 * 1000]])[0][1:-1]
    assert inner[0][: len(sample)].tolist() == sample
