"""Fill in the middle against a plain twin of the paper's algorithm, and that no token is lost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.training import runs
from tests.training.small_models import decoder, tokens_of
from tests.training.test_span import EOT, VOCABULARY, keys_of, pieces_of, rows_of
from training import evaluate, objectives
from training.config import Evaluation, Precision
from training.evaluate import documents_at
from training.manifest import open_version
from training.objectives import causal, infill
from training.order import uniform
from training.parallel import joined
from training.shards import Rows, Split

PREFIX, MIDDLE, SUFFIX = range(VOCABULARY, VOCABULARY + 3)
Pieces = list[list[int]]


def objective_of(**table: Any) -> infill.Objective:
    objective = infill.Objective(**table)
    objective._vocab_size, objective._start, objective._eot = VOCABULARY, EOT, EOT
    return objective


def told(rows: Rows, objective: infill.Objective, seed: int = 0) -> tuple[objectives.Batch, Pieces]:
    """The batch, and the tokens of each of its pieces."""
    prepared = objective.prepare(rows, keys_of(rows, seed))
    real = objective.rearranged(rows, keys_of(rows, seed))[0]
    assert torch.equal(prepared["tokens"], torch.from_numpy(real.tokens))
    return prepared, pieces_of(real)


def twin(piece: list[int], chances: list[float], rate: float, spm: float) -> list[int]:
    """Section 3 of the paper on a list of tokens: `chances` are the four numbers in [0, 1) that decide."""
    opening = piece[:1] if piece[0] == EOT else []
    closing = piece[-1:] if piece[-1] == EOT and len(piece) > 1 else []
    text = piece[len(opening) : len(piece) - len(closing)]
    if not text or chances[0] >= rate:
        return piece
    first, second = sorted(int(chance * (len(text) + 1)) for chance in chances[2:])
    prefix, middle, suffix = text[:first], text[first:second], text[second:]
    if chances[1] < spm:
        return [*opening, PREFIX, SUFFIX, *suffix, MIDDLE, *prefix, *middle, *closing]
    return [*opening, PREFIX, *prefix, SUFFIX, *suffix, MIDDLE, *middle, *closing]


def undone(piece: list[int]) -> list[int]:
    """The piece as it was, from what it says alone."""
    if PREFIX not in piece:
        return piece
    opened, suffix, middle = (piece.index(token) for token in (PREFIX, SUFFIX, MIDDLE))
    closing = piece[-1:] if piece[-1] == EOT and middle < len(piece) - 1 else []
    last = len(piece) - len(closing)
    behind, filled = piece[suffix + 1 : middle], piece[middle + 1 : last]
    assert opened == (piece[0] == EOT) and opened < suffix < middle
    return [*piece[:opened], *piece[opened + 1 : suffix], *filled, *behind, *closing]


sizes_of_rows = st.lists(st.lists(st.integers(1, 70), min_size=1, max_size=6), min_size=1, max_size=4)
parameters = st.fixed_dictionaries({"rate": st.floats(0, 1), "spm": st.floats(0, 1)}) | st.just({})


@settings(max_examples=200, deadline=None)
@given(sizes=sizes_of_rows, table=parameters, seed=st.integers(0, 1 << 30), whole=st.booleans(), room=st.integers(0, 9))
def test_it_is_the_twin_and_undoing_it_gives_the_pieces_again(sizes, table, seed, whole, room):
    objective = objective_of(**table)
    rows = rows_of(sizes, max(map(sum, sizes)) + room, seed=seed, whole=whole)
    prepared, found = told(rows, objective, seed)
    keys = keys_of(rows, seed)[rows.piece_row]
    names = ("rate", "spm", "first", "second")
    drawn = [uniform(keys, (rows.starts + 1).astype(np.uint64), "infill", name).tolist() for name in names]
    expected = [
        twin(piece, list(chances), objective.rate, objective.spm)
        for piece, *chances in zip(pieces_of(rows), *drawn, strict=True)
    ]
    assert found == expected and [undone(piece) for piece in found] == pieces_of(rows)
    # Every token but the first of a piece is a target, predicted at the place before it, in its own document.
    assert prepared["targets"].tolist() == [token for piece in expected for token in piece[1:]]
    assert prepared["tokens"].flatten()[prepared["at"]].tolist() == [t for piece in expected for t in piece[:-1]]
    places = objective.targets(rows, keys_of(rows, seed))
    wanted = np.repeat(rows.documents, [len(piece) - 1 for piece in expected])
    assert documents_at(rows, places).tolist() == wanted.tolist()
    text = prepared["targets"].numpy() < VOCABULARY
    assert rows.tokens.reshape(-1)[places[text]].tolist() == prepared["targets"].numpy()[text].tolist()
    assert len(np.unique(places[text])) == text.sum()
    width = prepared["tokens"].shape[1]
    assert width == rows.tokens.shape[1] or width % 32 == 0
    assert prepared["positions"].max() < rows.tokens.shape[1] + objective.extra_length


@settings(max_examples=30, deadline=None)
@given(sizes=sizes_of_rows, seed=st.integers(0, 1 << 30), room=st.integers(0, 9))
def test_a_rate_of_nought_is_causal_to_the_bit(sizes, seed, room):
    objective, plain = objective_of(rate=0.0), causal.Objective()
    rows = rows_of(sizes, max(map(sum, sizes)) + room, seed=seed)
    ours, theirs = (each.prepare(rows, keys_of(rows)) for each in (objective, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert objective.targets(rows, keys_of(rows)).tolist() == plain.targets(rows, keys_of(rows)).tolist()
    assert objective.ngrams and not objective_of().ngrams


def test_shares_are_those_asked_for_and_cuts_are_uniform():
    """20,000 pieces of 10 tokens: chi-squared over the 66 pairs of cuts, 65 degrees of freedom; p > .001."""
    objective = objective_of(rate=0.7, spm=0.25)
    rows = rows_of([[10] * 10 for _ in range(2000)], 100, whole=False)
    cuts = objective._cuts(infill.Text.of(rows, EOT, EOT), rows, keys_of(rows))
    assert abs(cuts.chosen.mean() - 0.7) < 0.01 and abs(cuts.spm.mean() - 0.25) < 0.01
    assert abs(np.corrcoef(cuts.chosen, cuts.spm)[0, 1]) < 0.02
    pairs, counts = np.unique(np.stack([cuts.first, cuts.second]), axis=1, return_counts=True)
    expected = np.where(pairs[0] == pairs[1], 1, 2) * 20_000 / 121
    assert pairs.shape == (2, 66) and ((counts - expected) ** 2 / expected).sum() < 107


def test_cuts_hang_on_the_row_and_its_key_alone():
    objective = objective_of(rate=1.0)
    rows = rows_of([[30, 60, 10], [100], [5, 5, 80, 10]], 100)
    _, whole = told(rows, objective)
    keys, first = keys_of(rows), 0
    for row, count in enumerate([3, 1, 4]):
        alone, _ = objective.rearranged(rows.slice(row, row + 1), keys[row : row + 1])
        assert pieces_of(alone) == whole[first : first + count]
        first += count
    _, other = told(rows, objective, seed=1)
    assert sum(a != b for a, b in zip(whole, other, strict=True)) >= 6
    _, [one, two] = told(rows_of([[40, 40]], 80), objective)
    assert [t >= VOCABULARY for t in one] != [t >= VOCABULARY for t in two]


def test_the_loss_is_that_of_each_piece_alone_at_learned_positions():
    """A row that is full grows: its last position is one that only `extra_length` has room for."""
    objective = objective_of(rate=1.0)
    rows = rows_of([[30, 60, 1, 5], [96]], 96)
    prepared, pieces = told(rows, objective)
    assert prepared["tokens"].shape == (2, 128) and prepared["positions"].max() == 98
    model = decoder({"form": "gpt2", "layers": 2, "width": 32, "heads": 2}, vocab_size=VOCABULARY + 3, length=99)
    with torch.inference_mode():
        losses = objective.losses(model, prepared)
        total, weight = objective.loss(model, prepared)
        expected = []
        for piece in pieces:
            hidden = model(torch.tensor([piece]), torch.arange(len(piece))[None], None)
            said = torch.log_softmax(model.logits(hidden)[0], -1)
            expected += (-said[torch.arange(len(piece) - 1), torch.tensor(piece[1:], dtype=torch.int64)]).tolist()
    assert np.allclose(losses.numpy(), expected, atol=1e-4)
    assert weight == len(expected) and torch.isclose(total, losses.sum())


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        ("a <|fim_middle|> z", "<|fim_prefix|>a <|fim_suffix|> z<|fim_middle|>"),
        ("<|fim_middle|>z", "<|fim_prefix|><|fim_suffix|>z<|fim_middle|>"),
        ("<|fim_prefix|>a<|fim_suffix|>z<|fim_middle|>", "<|fim_prefix|>a<|fim_suffix|>z<|fim_middle|>"),
        ("<|fim_prefix|><|fim_suffix|>z<|fim_middle|>a", "<|fim_prefix|><|fim_suffix|>z<|fim_middle|>a"),
        ("a z", "a z"),
    ],
)
def test_a_gap_in_a_prompt_is_told_as_in_training(given_, read):
    assert objectives.prompted(infill.Objective(), given_) == read
    assert objectives.prompted(causal.Objective(), given_) == given_


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return runs.version(tmp_path_factory.mktemp("version") / "v", length=64)


def test_evaluation_counts_every_byte_of_text_once(manifest):
    """Sentinels stand for no byte; all text of a document that lies whole in a row is a target in either order."""
    version = open_version(manifest)
    model = decoder({"layers": 1, "width": 16, "heads": 1}, vocab_size=303, length=67, scale=1)
    tallies = {}
    for rate in (0.0, 1.0):
        objective = objectives.load({"use": "infill", "rate": rate}, "[objective]").over(version)
        with joined(Precision(threads=1)) as group:
            tallies[rate] = evaluate.score(model, objective, version, Evaluation(), Precision(), group)
    plain, rearranged = tallies[0.0], tallies[1.0]
    assert plain.size.tolist() == rearranged.size.tolist() and plain.size.sum() > 1000
    pieces = Split(version, "val").take(np.arange(len(Split(version, "val"))))
    grown = np.bincount(pieces.documents, minlength=len(plain.targets)) * 3
    assert (rearranged.targets - plain.targets).tolist() == grown.tolist()


GPT2 = ('model.form="gpt2"', 'objective.use="infill"')


def test_a_run_learns_reports_fills_and_exports(manifest, tmp_path):
    changes = (*GPT2, "objective.rate=0.9", "schedule.steps=40", "batch.rows=12")
    done = runs.fit(runs.write_run(tmp_path), manifest, tmp_path, changes=changes)
    losses = runs.losses(done)
    assert done.complete and np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])
    report = json.loads((done.folder / "report.json").read_text("utf-8"))
    assert report["evaluation"]["ngrams"] == [] and report["samples"]["prompts"]
    asked = "the mill<|fim_middle|> from that river"
    told_ = runs.command(1, "generate", str(done.folder), "--prompt", asked, "--new-tokens", "9", "--json")
    [entry] = json.loads(told_.stdout)["prompts"]
    assert entry["prompt"] == asked
    assert len(entry["continuations"]) == 1 and "<|" not in entry["continuations"][0]

    runs.command(1, "export", str(done.folder), str(tmp_path / "hf"))
    version = open_version(manifest)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    size = version.manifest.tokenizer.vocab_size
    assert tokenizer.convert_tokens_to_ids(list(infill.NAMES)) == [size, size + 1, size + 2]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert theirs.config.n_positions == 67 and theirs.config.vocab_size == size + 3
    assert theirs(tokens_of(1, 67, size + 3)).logits.isfinite().all()
    assert Tokenizer.from_file(str(version.tokenizer_file)).get_vocab_size() == size
