"""Span corruption against a plain twin of T5's code, its statistics, and that no token is lost."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training import runs
from tests.training.test_t5 import TABLES, model_of
from training import TrainingError, batch, objectives
from training.evaluate import documents_at
from training.manifest import open_version
from training.objectives import span
from training.objectives._text import Text
from training.shards import Rows

EOT, VOCABULARY, SENTINELS = 7, 50, 100


def objective_of(**table: Any) -> span.Objective:
    objective = span.Objective(**table)
    objective._vocab_size, objective._start, objective._eot = VOCABULARY, EOT, EOT
    return objective


def rows_of(sizes: list[list[int]], length: int, *, seed: int = 0, whole: bool = True) -> Rows:
    """Rows whose pieces have these sizes; whole documents begin and end with <eot>."""
    generator = np.random.default_rng(seed)
    tokens = np.full((len(sizes), length), 3, np.uint16)
    starts, rows = [], []
    for row, lengths in enumerate(sizes):
        ends = np.cumsum([0, *lengths])
        for start, end in itertools.pairwise(ends):
            piece = generator.integers(8, VOCABULARY, end - start)
            if whole:
                piece[[0, -1]] = EOT
            tokens[row, start:end] = piece
            starts.append(int(start))
            rows.append(row)
    flat = np.array([n for row in sizes for n in row], np.int32)
    used = np.array([sum(row) for row in sizes], np.int32)
    numbers = np.arange(len(flat), dtype=np.int32)
    return Rows(
        np.arange(len(sizes)), tokens, used, np.array(rows), np.array(starts, np.int32), flat, numbers + 5, numbers
    )


def pieces_of(rows: Rows) -> list[list[int]]:
    return [
        rows.tokens[row, start : start + length].tolist()
        for row, start, length in zip(rows.piece_row, rows.starts, rows.lengths, strict=True)
    ]


def keys_of(rows: Rows, seed: int = 0) -> np.ndarray[Any, Any]:
    return batch.row_keys(seed, 0, rows.index)


def read_back(prepared: objectives.Batch, count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Of each piece what the encoder reads, what the decoder reads, and what it has to write."""
    flat = prepared["pieces"].flatten()[prepared["at"]]
    return [
        (
            prepared["encoder_tokens"][prepared["encoder_pieces"] == number].tolist(),
            prepared["tokens"][prepared["pieces"] == number].tolist(),
            prepared["targets"][flat == number].tolist(),
        )
        for number in range(count)
    ]


def put_back(encoder: list[int], targets: list[int]) -> list[int]:
    """Each sentinel of the encoder replaced by what stands behind it in the targets."""
    gaps: dict[int, list[int]] = {}
    for token in targets[:-1]:
        if token >= VOCABULARY:
            gaps[token] = current = []
        else:
            current.append(token)
    assert list(gaps) == sorted(gaps) == [VOCABULARY + n for n in range(len(gaps))]
    assert [token for token in encoder if token >= VOCABULARY] == list(gaps) and all(gaps.values())
    return [t for token in encoder for t in (gaps[token] if token >= VOCABULARY else [token])]


sizes_of_rows = st.lists(st.lists(st.integers(1, 70), min_size=1, max_size=6), min_size=1, max_size=4)
parameters = st.fixed_dictionaries({"rate": st.floats(0.02, 0.9), "mean_length": st.floats(1, 9)}) | st.just({})


@settings(max_examples=150, deadline=None)
@given(sizes=sizes_of_rows, table=parameters, seed=st.integers(0, 1 << 30), whole=st.booleans(), room=st.integers(0, 9))
def test_putting_the_spans_back_gives_the_pieces_again(sizes, table, seed, whole, room):
    objective = objective_of(**table)
    rows = rows_of(sizes, max(map(sum, sizes)) + room, seed=seed, whole=whole)
    prepared = objective.prepare(rows, keys_of(rows, seed))
    found = read_back(prepared, len(rows.lengths))
    for piece, (encoder, decoder, targets) in zip(pieces_of(rows), found, strict=True):
        opened = piece[0] == EOT
        text = piece[opened : len(piece) - (piece[-1] == EOT and len(piece) > 1)]
        if len(text) < 2:
            assert (encoder, decoder, targets) == (piece, [], [])
            continue
        assert targets[-1] == EOT and EOT not in targets[:-1] and decoder == [EOT, *targets[:-1]]
        assert put_back(encoder, targets) == piece
        assert encoder[0] == piece[0] and encoder[:: len(encoder) - 1][0] < VOCABULARY
    wanted = np.repeat(rows.documents, [len(targets) for _, _, targets in found])
    places = objective.targets(rows, keys_of(rows, seed))
    assert documents_at(rows, places).tolist() == wanted.tolist()
    text = prepared["targets"].numpy() < VOCABULARY
    text &= prepared["targets"].numpy() != EOT
    assert (np.diff(places) >= 0).all() and (np.diff(places[text]) > 0).all()
    assert rows.tokens.reshape(-1)[places[text]].tolist() == prepared["targets"].numpy()[text].tolist()
    begins = rows.piece_row * rows.tokens.shape[1] + rows.starts
    assert wanted.tolist() == rows.documents[np.searchsorted(begins, places, side="right") - 1].tolist()
    assert len(prepared["at"].unique()) == len(prepared["at"]) == len(prepared["targets"])


def twin(length: int, rate: float, mean_length: float, partition: Any) -> tuple[list[bool], int]:
    """`random_spans_noise_mask` of T5 in plain Python; `partition(items, parts)` stands for its random segmentation."""
    whole = max(length, 2)
    noise = min(max(round(whole * rate), 1), whole - 1)
    spans = max(round(noise / mean_length), 1)
    noise_lengths = partition(noise, spans)
    text_lengths = partition(whole - noise, spans)
    mask: list[bool] = []
    for text, gap in zip(text_lengths, noise_lengths, strict=True):
        mask += [False] * text + [True] * gap
    return mask[:length], spans


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=5), seed=st.integers(0, 1 << 30))
def test_masks_are_those_of_the_twin_given_the_same_partitions(lengths, seed):
    """The partitions that were drawn are read off the mask; everything else has to follow from them."""
    objective = objective_of()
    rows = rows_of([lengths], sum(lengths), seed=seed, whole=False)
    text = Text.of(rows, EOT, EOT)
    mask, begins = objective._mask(text, rows, keys_of(rows, seed))
    for number, length in enumerate(lengths):
        mine, starts = mask[text.piece == number], begins[text.piece == number]
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mine, [False]]).astype(int)))
        gaps = np.diff(edges)[::2].tolist()
        texts = np.diff([0, *edges])[::2].tolist()[: len(gaps)]
        given_ = iter([gaps, texts])

        def partition(items: int, parts: int, given_: Any = given_) -> list[int]:
            found = next(given_)
            assert (sum(found), len(found)) == (items, parts) and min(found) > 0
            return found

        if length == 1:
            assert not mine.any() and not starts.any()
            continue
        expected, spans = twin(length, 0.15, 3.0, partition)
        assert mine.tolist() == expected and starts.sum() == spans
        assert np.flatnonzero(starts).tolist() == edges[::2].tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_segments_are_begun_by_item_0_and_those_that_drew_least(data):
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    parts = [data.draw(st.integers(0, size)) for size in sizes]
    drawn = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 1 << 63, sum(sizes), np.uint64)
    first = np.cumsum([0, *sizes[:-1]])
    expected: list[int] = []
    for size, count, start in zip(sizes, parts, first, strict=True):
        if count:
            least = sorted(range(1, size), key=lambda j: drawn[start + j])[: count - 1]
            expected += np.diff([0, *sorted(least), size]).tolist()
    assert span.segments(np.array(sizes), np.array(parts), drawn, first).tolist() == expected


def test_all_partitions_are_equally_likely():
    """Chi-squared of 20,000 partitions of 6 items into 3 parts over the 10 that there are; p > .001."""
    rows = 20_000
    drawn = span.mix(np.arange(rows * 6, dtype=np.uint64))
    found = span.segments(np.full(rows, 6), np.full(rows, 3), drawn, np.arange(rows) * 6).reshape(rows, 3)
    kinds, counts = np.unique(found, axis=0, return_counts=True)
    assert len(kinds) == 10 and ((counts - rows / 10) ** 2 / (rows / 10)).sum() < 27.9


def test_share_and_mean_length_are_those_asked_for():
    for table, rate, mean in [({}, 0.15, 3.0), ({"rate": 0.5, "mean_length": 8.0}, 0.5, 8.0)]:
        objective = objective_of(**table)
        rows = rows_of([[514] for _ in range(64)], 514)
        prepared = objective.prepare(rows, keys_of(rows))
        sentinels = int((prepared["targets"] >= VOCABULARY).sum())
        hidden = len(prepared["targets"]) - sentinels - 64
        assert abs(hidden / (64 * 512) - rate) < 0.002 and abs(hidden / sentinels - mean) < 0.05
        gaps = prepared["encoder_tokens"] >= VOCABULARY
        place = gaps.float().nonzero()[:, 1].float()
        assert abs(place.mean() / gaps.any(0).nonzero().max() - 0.5) < 0.05


def test_gaps_hang_on_the_row_and_its_key_alone():
    objective = objective_of()
    rows = rows_of([[30, 60, 10], [100], [5, 5, 80, 10]], 100)
    keys = keys_of(rows)
    whole = read_back(objective.prepare(rows, keys), 8)
    first = 0
    for row, count in enumerate([3, 1, 4]):
        alone = read_back(objective.prepare(rows.slice(row, row + 1), keys[row : row + 1]), count)
        assert alone == whole[first : first + count]
        first += count
    other = read_back(objective.prepare(rows, keys_of(rows, 1)), 8)
    assert sum(a != b for a, b in zip(whole, other, strict=True)) == 3  # the others are short
    twins = rows_of([[40, 40]], 80)
    encoder = [piece for piece, _, _ in read_back(objective.prepare(twins, keys[:1]), 2)]
    assert [t >= VOCABULARY for t in encoder[0]] != [t >= VOCABULARY for t in encoder[1]]


def test_the_loss_is_that_of_each_pair_alone():
    objective = objective_of()
    rows = rows_of([[30, 60, 1, 9], [100]], 104)
    prepared = objective.prepare(rows, keys_of(rows))
    model = model_of(TABLES["defaults"], vocab_size=VOCABULARY + SENTINELS)
    with torch.inference_mode():
        losses = objective.losses(model, prepared)
        total, weight = objective.loss(model, prepared)
        expected = []
        for encoder, decoder, targets in read_back(prepared, 5):
            if targets:
                hidden = model(torch.tensor([encoder]), None, torch.tensor([decoder]), None)
                said = torch.log_softmax(model.logits(hidden)[0], -1)
                expected += (-said[torch.arange(len(targets)), targets]).tolist()
    assert np.allclose(losses.numpy(), expected, atol=1e-4)
    assert weight == len(expected) and torch.isclose(total, losses.sum())


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path):
    version = open_version(runs.version(tmp_path / "v", length=64))
    few = objectives.load({"use": "span", "sentinels": 2}, "[objective]")
    with pytest.raises(TrainingError, match=r"row of 64 tokens may have 3 gaps.*set objective\.sentinels to 3"):
        few.over(version)
    decoder = {"family": "gpt", "layers": 1, "width": 8, "heads": 1}
    pair = {"family": "t5", "layers": 1, "width": 8, "heads": 1}
    ours, theirs = (objectives.load({"use": use}, "[objective]") for use in ("span", "causal"))
    for objective, table in [(ours, decoder), (theirs, pair)]:
        with pytest.raises(TrainingError, match=r"\[model\]: the family (gpt|t5) "):
            objectives.build(objective, table, version, "[model]")
    model = objectives.build(ours, pair, version, "[model]")
    assert model.vocab_size == version.manifest.tokenizer.vocab_size + 100


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return runs.version(tmp_path_factory.mktemp("version") / "v", length=64)


T5 = ('model.family="t5"', 'objective.use="span"')


def test_a_run_learns_and_reports(manifest, tmp_path):
    done = runs.fit(runs.write_run(tmp_path), manifest, tmp_path, changes=(*T5, "schedule.steps=60", "batch.rows=12"))
    losses = runs.losses(done)
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])
    assert done.complete and (done.folder / "report.html").is_file()
    report = json.loads((done.folder / "report.json").read_text("utf-8"))
    assert report["evaluation"]["ngrams"] == []
    assert report["evaluation"]["model"]["loss"] < 5 and report["evaluation"]["targets"] > 100
    for entry in report["samples"]["prompts"]:
        assert "<extra_id_0>" in entry["prompt"] and entry["target"].startswith("<extra_id_0>") and entry["doc_id"]
        read, gaps = (re.split(r"<extra_id_\d+>", entry[name]) for name in ("prompt", "target"))
        whole = "".join(itertools.chain(*itertools.zip_longest(read, gaps[1:], fillvalue="")))
        number = int(entry["doc_id"].removeprefix("toy:"))
        words = [runs.WORDS[(number * 7 + j * j) % len(runs.WORDS)] for j in range(8 + number % 17)]
        assert len(whole) > 20 and whole in " ".join(words), "what was read and its target are the document"
    assert len(report["samples"]["prompts"]) == 2
    told = runs.command(1, "generate", str(done.folder), "--prompt", "the mill wheel", "--new-tokens", "6", "--json")
    [entry] = json.loads(told.stdout)["prompts"]
    assert entry["prompt"] == "the mill wheel" and len(entry["continuations"]) == 1
