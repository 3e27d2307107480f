"""A published BERT goes on to fill masked places in text of a domain, with its WordPiece and its own mask.

Gururangan et al. 2020, arXiv 2004.10964. Oracles: the word numbers of `tokenizers`, and BertForMaskedLM.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, pipeline

from tests.training import runs
from tests.training.test_initial import CONTINUED
from tests.training.versions import EOT
from training import TrainingError, batch, config, initial, loop, objectives, vocabulary
from training.manifest import open_version
from training.shards import Split

LENGTH = 32
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", EOT]
MASKED = ("objective.use=masked", "objective.whole_words=true", "objective.rate=0.3")


def word_piece(more: tuple[str, ...] = ()) -> Tokenizer:
    """A vocabulary in the manner of BERT, of the words of the runs, cut small."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([*runs.WORDS, "磨坊在河边，水车！", *more], trainer)
    return tokenizer


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v") / "v"
    return open_version(runs.version(folder, length=LENGTH, tokenizer=word_piece(), start="[CLS]"))


def published(folder: Path, version, kind=BertForMaskedLM) -> Path:
    """A BERT as `transformers` saves it, with the version's tokenizer beside it."""
    torch.manual_seed(5)
    size = version.manifest.tokenizer.vocab_size
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    made = kind(BertConfig(vocab_size=size, max_position_embeddings=LENGTH, **shape))
    with torch.no_grad():
        made.get_input_embeddings().weight.mul_(5)
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(version.tokenizer_file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def run_file(tmp_path_factory) -> Path:
    return runs.write_run(tmp_path_factory.mktemp("run"), CONTINUED)


TEXT = st.lists(st.sampled_from([*"milgrnd 磨坊河!,-'", "wheel", "grain", "Mill "]), max_size=30).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_tokens_spell_the_text_and_begin_its_words(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    if not (file := folder / "word_piece.json").is_file():
        word_piece().save(str(file))
    tokenizer, spelt = Tokenizer.from_file(str(file)), vocabulary.spelling(file)
    found = tokenizer.encode(text, add_special_tokens=False)
    read = "".join(text.lower().split())
    for number, (start, end) in zip(found.ids, found.offsets, strict=True):
        if number != tokenizer.token_to_id("[UNK]"):
            assert spelt[number].decode() == text[start:end].lower()
    if tokenizer.token_to_id("[UNK]") not in found.ids:
        assert b"".join(spelt[number] for number in found.ids).decode() == read
    tokens = np.array([found.ids], np.int64).reshape(1, -1)
    begins = vocabulary._vocabulary(file).words(tokens, np.arange(len(found.ids))[None])[0]
    words = found.word_ids
    assert begins.tolist() == [not n or words[n] != words[n - 1] for n in range(len(words))]


def test_another_vocabulary_is_refused_by_name(tmp_path):
    Tokenizer(models.WordLevel({"mill": 0}, unk_token="mill")).save(str(tmp_path / "t.json"))
    with pytest.raises(TrainingError, match=r"t\.json: a vocabulary that is neither byte-level nor WordPiece"):
        vocabulary.spelling(tmp_path / "t.json")


def test_the_mask_is_the_tokenizers_own(version):
    """No row of the model is added, and only what spells text is asked for or put in the place of another."""
    objective = objectives.load({"use": "masked", "rate": 0.4}, "").over(version)
    assert objective.extra_tokens == ()
    rows = Split(version, "train").take(np.arange(20))
    prepared = objective.prepare(rows, batch.row_keys(0, 0, rows.index))
    tokens, at, stood = prepared["tokens"].numpy(), prepared["at"].numpy(), prepared["targets"].numpy()
    changed = tokens.reshape(-1)[at]
    assert 0.7 < (changed == SPECIAL.index("[MASK]")).mean() < 0.9
    other = changed[(changed != SPECIAL.index("[MASK]")) & (changed != stood)]
    assert len(other) and min(other) >= len(SPECIAL) and min(stood) >= len(SPECIAL)
    assert tokens.max() < version.manifest.tokenizer.vocab_size


def test_it_begins_where_transformers_stands_and_is_its_model_again(version, run_file, tmp_path):
    """Loss of the first batch, and after some steps logits of the export: those of BertForMaskedLM."""
    folder = published(tmp_path / "bert", version)
    changes = (f"init={folder}", *MASKED, "schedule.steps=30", "precision.compute=float32")
    run = config.load(run_file, changes)
    objective = objectives.load(run.objective, "").over(version)
    model = objectives.build(objective, run.model, version, "")
    assert initial.fill(model, folder, version, extra_tokens=objective.extra_tokens) == []
    rows = Split(version, "train").take(np.arange(6))
    prepared = objective.prepare(rows, batch.row_keys(3, 0, rows.index))
    theirs = BertForMaskedLM.from_pretrained(folder).eval()
    mine = objective.losses(model.eval(), prepared)
    found = []
    for row, starts in enumerate(np.split(rows.starts, np.flatnonzero(np.diff(rows.piece_row)) + 1)):
        for a, b in itertools.pairwise([*starts.tolist(), int(rows.used[row])]):
            logits = theirs(prepared["tokens"][row : row + 1, a:b]).logits[0]
            places = [int(p) - row * LENGTH - a for p in prepared["at"] if row * LENGTH + a <= p < row * LENGTH + b]
            stood = torch.from_numpy(rows.tokens[row, a:b].astype(np.int64))
            found += torch.nn.functional.cross_entropy(logits, stood, reduction="none")[places].tolist()
    assert torch.allclose(mine, torch.tensor(found), atol=1e-5) and len(found) > 30

    books = runs.fit(run_file, version.folder / "manifest.json", tmp_path / "runs", changes=changes)
    assert "whose tokens spell no white space" in (books.folder / "report.html").read_text("utf-8")
    losses = runs.losses(books)
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 0.5
    runs.command(1, "export", str(books.folder), str(tmp_path / "hf"))
    again, tokenizer = (
        AutoModelForMaskedLM.from_pretrained(tmp_path / "hf"),
        AutoTokenizer.from_pretrained(tmp_path / "hf"),
    )
    assert tokenizer.mask_token == "[MASK]" and again.config.vocab_size == version.manifest.tokenizer.vocab_size
    told = loop.load(run, version, books)
    tokens = torch.tensor([tokenizer("the mill [MASK] turns with water")["input_ids"]])
    with torch.inference_mode():
        ours = told.logits(told(tokens, torch.arange(tokens.shape[1])[None], None))
        assert (ours - again.eval()(tokens).logits).abs().max() < 1e-4
    said = pipeline("fill-mask", str(tmp_path / "hf"), top_k=3)("the mill [MASK] turns with water")
    place = tokens[0].tolist().index(SPECIAL.index("[MASK]"))
    assert [entry["token"] for entry in said] == ours[0, place].topk(3).indices.tolist()


def test_without_the_head_that_fills_masks_one_is_drawn_and_said(version, run_file, tmp_path):
    """A BertModel has none: all else is taken to the bit, and what was learnt goes on into a classifier."""
    folder = published(tmp_path / "bert", version, kind=lambda table: BertForMaskedLM(table).bert)
    run = config.load(run_file, (f"init={folder}", *MASKED))
    objective = objectives.load(run.objective, "").over(version)
    drawn = [objectives.build(objective, run.model, version, "") for _ in range(3)]
    fresh = [initial.fill(model, folder, version, seed) for model, seed in zip(drawn, (1, 1, 2), strict=True)]
    head = ["head.bias", "head.dense.bias", "head.dense.weight", "head.norm.bias", "head.norm.weight"]
    assert fresh == [head] * 3
    kept = initial.source(folder).tensors()
    for name, parameter in drawn[0].named_parameters():
        twin, other = (dict(model.named_parameters())[name] for model in drawn[1:])
        assert torch.equal(parameter, twin) and torch.equal(parameter, other) == (name != "head.dense.weight")
        assert name in head or torch.equal(parameter, kept[name])
    manifest = version.folder / "manifest.json"
    books = runs.fit(run_file, manifest, tmp_path / "runs", changes=(f"init={folder}", *MASKED))
    same = Tokenizer.from_file(str(version.tokenizer_file))
    labelled = open_version(runs.version(tmp_path / "v", layout="examples", length=LENGTH, tokenizer=same))
    run = config.load(run_file, (f"init={books.folder}", "objective.use=classify"))
    model = objectives.build(objectives.load(run.objective, "").over(labelled), run.model, labelled, "")
    assert initial.fill(model, books.folder, labelled) == ["head.bias", "head.weight", "pooler.bias", "pooler.weight"]
    learnt = initial.source(books.folder).tensors()
    assert all(torch.equal(p, learnt[name]) for name, p in model.backbone.named_parameters())
