"""The vocabulary: what it is trained on, ids against plain `tokenizers`, and text that spells a special token."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.stage import ConfigError
from pipeline.store import Store, read_parquet
from pipeline.tokens import encoding, vocabulary
from tests import builds
from tests.laws import nasty

TEXTS = [
    *("the mill wheel turns with water from that river and be kind to have a stone " * 9).split(". "),
    "磨坊的水轮转动着，人们把粮食送到磨坊。" * 5,
    "l'été, la mouture — 12 sacs de farine\n\tfor i in range(10): print('…')\n" * 5,
]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A small trained vocabulary on disk."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    vocabulary.train(TEXTS, 400).save(str(path))
    return path


# The sample


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    budget=st.integers(0, 300),
    seed=st.integers(0, 3),
    order=st.randoms(use_true_random=False),
)
def test_the_sample_is_the_first_documents_by_hash_that_fit(sizes, budget, seed, order):
    """Against plain prefix sums; and the order in which the documents come does not matter."""
    ids = [f"s:f:{number}" for number in range(len(sizes))]
    ranked = sorted(ids, key=lambda i: hashlib.blake2b(f"{seed}:{i}".encode(), digest_size=8).digest())
    sized = dict(zip(ids, sizes, strict=True))
    fitting = [n for n in range(len(ids) + 1) if sum(sized[i] for i in ranked[:n]) <= budget]
    expected = ranked[: max(fitting[-1], 1)]
    shuffled = list(ids)
    order.shuffle(shuffled)
    for given_ in (ids, shuffled):
        chosen = vocabulary.choose(given_, [sized[i] for i in given_], budget, seed)
        assert [given_[position] for position in chosen] == expected


def test_another_seed_takes_other_documents():
    ids = [f"s:f:{number}" for number in range(1000)]
    one, two = (set(vocabulary.choose(ids, [1] * 1000, 100, seed)) for seed in (1, 2))
    assert len(one) == len(two) == 100 and len(one & two) < 30


@pytest.mark.parametrize("lowercase", [False, True])
def test_a_build_trains_on_its_sample_and_says_so(tmp_path, lowercase):
    """The tokenizer of a version is what plain `tokenizers` trains on the documents that the hash chooses."""
    corpus = builds.write_corpus(tmp_path / "corpus", documents=120)
    tokens = {"vocab_size": 350, "sample": "9KB", "lowercase": lowercase}
    version = builds.build(builds.make_recipe(corpus, tokens=tokens), tmp_path / "store")
    store, index, texts = Store(tmp_path / "store"), version.index(), {}
    for part in version.build_keys().segments[-1].parts:
        table = read_parquet(store.file(part, "documents.parquet"), ["doc_id", "text"])
        texts.update(zip(*(table[name].to_pylist() for name in ("doc_id", "text")), strict=True))
    train = [row["doc_id"] for row in index.to_pylist() if row["split"] == "train"]
    chosen = vocabulary.choose(train, [len(texts[i].encode()) for i in train], 9_000, 5)
    sample = [texts[i] for i in sorted(train[position] for position in chosen)]
    said = version.manifest["tokenizer"]
    assert said["trained_on"]["documents"] == len(sample) < len(train)
    assert said["trained_on"]["bytes"] == sum(len(text.encode()) for text in sample) <= 9_000
    assert said["trained_on"].get("lowercase", False) == lowercase
    plain = plainly_trained(sample, 350, lowercase)
    assert (version.folder / "tokenizer.json").read_text("utf-8") == plain.to_str(pretty=True)
    assert said["vocab_size"] == plain.get_vocab_size() and said["eot"] == plain.token_to_id("<|endoftext|>")


def plainly_trained(texts: list[str], vocab_size: int, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase() if lowercase else None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    options = {"special_tokens": ["<|endoftext|>"], "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocab_size, **options))
    return tokenizer


# Ids


def test_ids_are_those_of_plain_tokenizers_between_two_ends(path):
    plain = Tokenizer.from_file(str(path))
    tokenizer = vocabulary.load(path)
    texts = [*TEXTS, *(text for text in nasty.TEXTS.values() if len(text) < 100_000), ""]
    for text, ids in zip(texts, vocabulary.encode(tokenizer, texts), strict=True):
        assert ids == [0, *plain.encode(text, add_special_tokens=False).ids, 0]


@given(text=st.text() | st.lists(st.sampled_from(["<|endoftext|>", "<|", "endoftext", "|>", " ", "a"])).map("".join))
def test_every_text_comes_back_and_holds_no_special_token(path, text):
    tokenizer = vocabulary.load(path)
    [ids] = vocabulary.encode(tokenizer, [text])
    assert ids[0] == ids[-1] == 0 and 0 not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1], skip_special_tokens=False) == text


@pytest.mark.parametrize("special", [True, False])
def test_a_spelt_special_token_is_text_whatever_the_file_calls_it(path, tmp_path, special):
    """Plain tokenizers make the token of it: a document could end itself."""
    table = json.loads(path.read_text("utf-8"))
    table["added_tokens"][0]["special"] = special
    (tmp_path / "t.json").write_text(json.dumps(table), "utf-8")
    text = "before<|endoftext|>after"
    assert 0 in Tokenizer.from_file(str(tmp_path / "t.json")).encode(text).ids
    [ids] = vocabulary.encode(vocabulary.load(tmp_path / "t.json"), [text])
    assert 0 not in ids[1:-1]


# A tokenizer that is given


def edited(path: Path, target: Path, **changes: Any) -> Path:
    table = {**json.loads(path.read_text("utf-8")), **changes}
    target.write_text(json.dumps(table), "utf-8")
    return target


def test_truncation_and_padding_of_a_given_tokenizer_are_switched_off(path, tmp_path):
    cut = Tokenizer.from_file(str(path))
    cut.enable_truncation(8)
    cut.enable_padding(length=8)
    cut.save(str(tmp_path / "cut.json"))
    texts = ["a", "the mill wheel turns " * 20]
    assert {len(found.ids) for found in cut.encode_batch(texts)} == {8}
    loaded = vocabulary.load(tmp_path / "cut.json")
    assert vocabulary.encode(loaded, texts) == vocabulary.encode(vocabulary.load(path), texts)


def surrounded(kind: str, path: Path, target: Path) -> Tokenizer:
    """A tokenizer in the manner of BERT, RoBERTa, Llama 3, T5 or GPT-2, by what its template puts around a text."""
    single, specials = {
        "bert": ("[CLS] $A [SEP]", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]),
        "roberta": ("<s> $A </s>", ["<s>", "</s>"]),
        "llama3": ("<|begin_of_text|> $A", ["<|begin_of_text|>", "<|end_of_text|>"]),
        "t5": ("$A </s>", ["</s>"]),
        "gpt2": ("$A", ["<|endoftext|>"]),
    }[kind]
    if kind == "bert":
        made = Tokenizer(models.WordPiece({token: n for n, token in enumerate([*specials, "the", "mill", "wheel"])}))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        table = json.loads(path.read_text("utf-8"))
        table["added_tokens"] = []
        vocab = {token: n for n, token in enumerate(t for t in table["model"]["vocab"] if t != "<|endoftext|>")}
        table["model"]["vocab"] = vocab
        made = Tokenizer.from_str(json.dumps(table))
        made.add_special_tokens(specials)
    ids = [(token, made.token_to_id(token)) for token in specials]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    made.save(str(target))
    return made


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama3", "t5", "gpt2"])
def test_a_document_begins_as_the_template_of_its_tokenizer_has_it(kind, path, tmp_path):
    """What models were trained with: up to the end, which every document has, the ids are those of `tokenizers`."""
    made = surrounded(kind, path, tmp_path / "t.json")
    loaded = vocabulary.load(tmp_path / "t.json")
    end = vocabulary.end_of_text(loaded)
    texts = ["the mill", "", "the mill wheel", "the"]
    expected = [made.encode(text).ids for text in texts]
    expected = [ids if ids and ids[-1] == end else [*ids, end] for ids in expected]
    if kind in ("t5", "gpt2"):  # which put nothing there
        expected = [[end, *ids] for ids in expected]
    assert vocabulary.encode(loaded, texts) == expected
    encoder = encoding.Encoder(loaded)
    assert (encoder.why_not is None) == (kind != "bert")
    ids, starts = encoder(pa.array(texts))
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(starts)] == expected
    # Text that spells what begins a document is text.
    spelt = made.id_to_token(expected[0][0])
    assert expected[0][0] not in vocabulary.encode(loaded, [f"the {spelt} mill"])[0][1:-1]


def test_a_version_says_what_begins_its_documents(path, tmp_path):
    corpus = builds.write_corpus(tmp_path / "corpus", documents=60)
    for kind in ("bert", "gpt2"):
        surrounded(kind, path, corpus / f"{kind}.json")
        tokens = {"tokenizer": f"{kind}.json"}
        made = builds.build(builds.make_recipe(corpus, tokens=tokens), tmp_path / kind)
        said, starts = made.manifest["tokenizer"], {"bert": 2}
        assert said.get("bos") == starts.get(kind)
        (shard, *_) = made.manifest["splits"]["train"]["shards"]
        rows = pa.ipc.open_file(str(made.folder / shard["file"])).read_all()
        columns = (rows[name].to_pylist() for name in ("tokens", "starts", "offsets"))
        first = {row[a] for row, *some in zip(*columns, strict=True) for a, part in zip(*some, strict=True) if not part}
        assert first == {said.get("bos", said["eot"])}


def test_gpt2_gives_its_own_ids(shared_data, tmp_path):
    folder = shared_data / "tokenizers" / "gpt2"
    model = models.BPE.from_file(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    gpt2 = Tokenizer(model)
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt2.decoder = decoders.ByteLevel()
    gpt2.add_special_tokens(["<|endoftext|>"])
    gpt2.save(str(tmp_path / "gpt2.json"))
    loaded = vocabulary.load(tmp_path / "gpt2.json")
    assert vocabulary.encode(loaded, ["Hello world", "a<|endoftext|>"])[0] == [50256, 15496, 995, 50256]
    assert vocabulary.token_type(loaded.get_vocab_size()) == "uint16" and vocabulary.end_of_text(loaded) == 50256


def test_a_given_tokenizer_is_taken_byte_by_byte(path, tmp_path):
    corpus = builds.write_corpus(tmp_path / "corpus", documents=60)
    (corpus / "mine.json").write_bytes(path.read_bytes())
    versions = [
        builds.build(builds.make_recipe(corpus, tokens={"tokenizer": "mine.json"}), tmp_path / name) for name in "ab"
    ]
    said = versions[0].manifest["tokenizer"]
    assert versions[0].manifest == versions[1].manifest and said["trained_on"] is None
    assert (versions[0].folder / "tokenizer.json").read_bytes() == path.read_bytes()
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not a file"),
        ("{}", "not a tokenizer.json"),
        ("not json", "not a tokenizer.json"),
        ("endless", "has none of <|endoftext|>"),
        ("gap", "they must be 0, 1, 2, ... without a gap"),
    ],
)
def test_a_tokenizer_that_will_not_do_is_named(path, tmp_path, content, said):
    corpus = builds.write_corpus(tmp_path / "corpus", documents=60)
    target = corpus / "mine.json"
    if content == "endless":
        edited(path, target, added_tokens=[])
        table = json.loads(target.read_text("utf-8"))
        del table["model"]["vocab"]["<|endoftext|>"]
        target.write_text(json.dumps(table), "utf-8")
    elif content == "gap":
        table = json.loads(path.read_text("utf-8"))
        table["model"]["vocab"][max(table["model"]["vocab"], key=table["model"]["vocab"].get)] = 70_000
        target.write_text(json.dumps(table), "utf-8")
    elif content:
        target.write_text(content, "utf-8")
    with pytest.raises(ConfigError) as error:
        builds.build(builds.make_recipe(corpus, tokens={"tokenizer": "mine.json"}), tmp_path / "store")
    assert "mine.json" in str(error.value) and said in str(error.value)


@pytest.mark.parametrize(("size", "kind"), [(65_536, "uint16"), (65_537, "uint32")])
def test_ids_are_as_wide_as_the_vocabulary_needs(size, kind):
    assert vocabulary.token_type(size) == kind


def test_added_tokens_of_a_given_tokenizer_that_are_not_special_stay_tokens(path, tmp_path):
    more = Tokenizer.from_file(str(path))
    more.add_tokens([AddedToken("MILLSTONE")])
    more.save(str(tmp_path / "more.json"))
    [ids] = vocabulary.encode(vocabulary.load(tmp_path / "more.json"), ["a MILLSTONE"])
    assert more.token_to_id("MILLSTONE") in ids
