"""Masked language modelling: what is selected, what it becomes, where words begin, and a small encoder that learns."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training import runs
from tests.training.versions import train_tokenizer
from training import TrainingError, batch, config, evaluate, generate, loop, objectives, outcome, samples, vocabulary
from training.manifest import open_version
from training.ngram import KneserNey, flat_rows
from training.objectives import causal
from training.shards import Split

LENGTH = 32
CHINESE = "磨坊在河边。小麦变成面粉！水车转动，人们等待。"


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return open_version(runs.version(tmp_path_factory.mktemp("v") / "v", length=LENGTH, vocab_size=300))


@pytest.fixture(scope="module")
def split(version):
    return Split(version, "train")


def made(version, **parameters):
    return objectives.load({"use": "masked", **parameters}, "[objective]").over(version)


def keys_of(index, step=0):
    return batch.row_keys(7, step, np.asarray(index))


def masked_by_hand(objective, rows, keys):
    """What the batch says, beside what stood there: (row, column, stood, becomes) of each target."""
    prepared = objective.prepare(rows, keys)
    found = []
    for at, stood in zip(prepared["at"].tolist(), prepared["targets"].tolist(), strict=True):
        row, column = divmod(at, rows.tokens.shape[1])
        found.append((row, column, stood, int(prepared["tokens"][row, column])))
    return found


@pytest.mark.parametrize("whole_words", [False, True])
def test_shares_are_those_that_were_asked_for(version, split, whole_words):
    """Over 60 draws of all rows: 15 % selected, of them 80 / 10 / 10; and a draw is uniform over what spells text."""
    objective = made(version, whole_words=whole_words)
    rows = split.take(np.arange(len(split)))
    eot = version.manifest.tokenizer.eot
    position = rows.layout()[1]
    may = int(((position > 0) & (rows.tokens != eot)).sum())
    found = [f for step in range(60) for f in masked_by_hand(objective, rows, keys_of(rows.index, step))]
    count = len(found)
    assert math.isclose(count / (60 * may), 0.15, rel_tol=0.05)
    fates = [objective.mask == to for *_, to in found], [stood == to for *_, stood, to in found]
    masked, kept = (sum(fate) / count for fate in fates)
    replaced = [to for *_, stood, to in found if to not in (stood, objective.mask)]
    deviation = 4 / math.sqrt(count)
    assert abs(masked - 0.8) < 0.4 * deviation and abs(kept - 0.1) < 0.4 * deviation
    assert abs(len(replaced) / count - 0.1) < 0.4 * deviation
    assert eot not in {stood for *_, stood, _ in found}
    assert eot not in replaced and max(replaced) < objective.mask == version.manifest.tokenizer.vocab_size
    assert len(set(replaced)) > 0.9 * 299 * (1 - math.exp(-len(replaced) / 299))


@pytest.mark.parametrize("whole_words", [False, True])
def test_only_what_is_said_changes(version, split, whole_words):
    objective = made(version, whole_words=whole_words)
    rows = split.take(np.array([5, 0, len(split) - 1, 3]))
    keys = keys_of(rows.index)
    prepared = objective.prepare(rows, keys)
    places = objective.targets(rows, keys)
    assert prepared["at"].tolist() == places.tolist() == sorted(set(places.tolist()))
    flat, before = prepared["tokens"].flatten().numpy(), rows.tokens.reshape(-1)
    assert prepared["targets"].tolist() == before[places].tolist()
    untouched = np.setdiff1d(np.arange(before.size), places)
    assert np.array_equal(flat[untouched], before[untouched])
    plain = causal.Objective().prepare(rows, keys)
    assert torch.equal(prepared["positions"], plain["positions"]) and torch.equal(prepared["pieces"], plain["pieces"])
    ordinary = places[before[places] != version.manifest.tokenizer.eot]
    assert len(ordinary) == len(places) and np.isin(places, causal.Objective().targets(rows, keys)).all()
    assert set(places // LENGTH) <= {0, 1, 2, 3}


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_hang_on_the_row_and_its_key_alone(version, split, whole_words):
    """In whatever batch and order a row comes; another key gives other masks."""
    objective = made(version, whole_words=whole_words)
    index = np.array([9, 2, 14, 3, 0])
    rows, keys = split.take(index), keys_of(index)
    together = masked_by_hand(objective, rows, keys)
    for number, row in enumerate(index):
        alone = masked_by_hand(objective, split.take(np.array([row])), keys[number : number + 1])
        assert [f[1:] for f in alone] == [f[1:] for f in together if f[0] == number]
    assert together != masked_by_hand(objective, rows, keys_of(index, 1))
    golden = objective.targets(split.take(np.array([4])), np.array([12345], np.uint64))
    assert golden.tolist() == GOLDEN[whole_words]


GOLDEN = {False: [3, 4, 10, 16, 20], True: [4, 5, 16]}


def tokenizer_of(folder, texts, size):
    path = folder / "tokenizer.json"
    train_tokenizer(texts, size).save(str(path))
    return path


def words_of(path, text):
    """The words of a text, as bytes, by the rule of `vocabulary`."""
    ids = np.array([Tokenizer.from_file(str(path)).encode(text).ids])
    begins = vocabulary._vocabulary(path).words(ids, np.arange(ids.shape[1])[None])[0]
    spelt = vocabulary.spelling(path)
    found: list[bytes] = []
    for token, begin in zip(ids[0], begins, strict=True):
        found = [*found, spelt[token]] if begin else [*found[:-1], found[-1] + spelt[token]]
    assert b"".join(found).decode() == text
    return [word.decode(errors="replace") for word in found]


@pytest.mark.parametrize("size", [257, 300, 400])
def test_words_are_those_that_a_reader_sees(tmp_path, size):
    """Whatever the merges: single bytes or whole words."""
    path = tokenizer_of(tmp_path, ["the mill wheel turns grün naïve " * 3, CHINESE], size)
    english = words_of(path, "the mill, wheel\nturns grün (naïve) x2")
    assert [word.strip() for word in english if word.strip()] == [
        *("the", "mill", ",", "wheel", "turns", "grün", "(", "naïve", ")", "x2")
    ]
    chinese = words_of(path, "水车mill转。привет мир 한국어 x")
    if size == 257:
        wanted = ["水", "车", "mill", "转", "。", "привет", "мир", "한국어", "x"]
        assert [word.strip() for word in chinese if word.strip()] == wanted
    else:
        assert "mill" in chinese and chinese[-1].strip() == "x"


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A vocabulary of single bytes and merges, some of them of halves of characters."""
    return tokenizer_of(
        tmp_path_factory.mktemp("merged"), ["the mill grün naïve " * 3, CHINESE * 4, "привет мир " * 3], 330
    )


def letter(character: str) -> bool:
    """The rule of `vocabulary`, by code points."""
    code = ord(character)
    return character.isalnum() if code < 0x80 else 0xC0 <= code < 0x2000 or 0xA000 <= code < 0xE000


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(
        st.one_of(st.sampled_from("the mill,\n'x" + CHINESE + "üïмир한"), st.characters(codec="utf-8")), min_size=1
    )
)
def test_words_begin_where_characters_say(merged, text):
    """Against the text itself: a token begins a word where it begins a character that is, or follows, no letter."""
    spelt = vocabulary.spelling(merged)
    ids = Tokenizer.from_file(str(merged)).encode(text).ids
    begins = vocabulary._vocabulary(merged).words(np.array([ids]), np.arange(len(ids))[None])[0]
    offsets = np.cumsum([0, *(len(spelt[token]) for token in ids)])[:-1].tolist()
    starts = np.cumsum([0, *(len(character.encode()) for character in text)])[:-1].tolist()
    wanted = {
        start
        for n, (start, character) in enumerate(zip(starts, text, strict=True))
        if n == 0 or not letter(character) or not letter(text[n - 1])
    }
    assert [offset in wanted for offset in offsets] == begins.tolist()


def test_whole_words_are_selected_whole(version, split):
    objective = made(version, whole_words=True, rate=0.4)
    rows = split.take(np.arange(30))
    position = rows.layout()[1]
    begins = vocabulary.of(version).words(rows.tokens, position)
    chosen = np.zeros(rows.tokens.size, bool)
    chosen[objective.targets(rows, keys_of(rows.index))] = True
    chosen = chosen.reshape(rows.tokens.shape)
    inside = ~begins & (position > 1)
    assert inside.sum() > 50
    assert np.array_equal(chosen[inside], np.roll(chosen, 1, axis=1)[inside])
    assert 0.2 < chosen.sum() / (position > 0).sum() < 0.6


def test_an_objective_and_a_family_that_do_not_fit_are_refused(version):
    for use, family, said in (
        ("masked", "gpt", "gpt sees what stands before .* sees both sides"),
        ("causal", "bert", "bert sees both sides .* sees what stands before"),
    ):
        objective = objectives.load({"use": use}, "[objective]").over(version)
        table = {"family": family, "layers": 1, "width": 16, "heads": 2}
        with pytest.raises(TrainingError, match=said):
            objectives.build(objective, table, version, "[model]")
    with pytest.raises(TrainingError, match=r"\[objective\] \(masked\): unknown key 'rat'; did you mean 'rate'"):
        objectives.load({"use": "masked", "rat": 0.2}, "[objective]")
    with pytest.raises(TrainingError, match=r"rate: .*less than 1"):
        objectives.load({"use": "masked", "rate": 1.0}, "[objective]")


@pytest.fixture(scope="module")
def finished(version, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    changes = ('model.family="bert"', 'objective.use="masked"', "schedule.steps=40")
    return runs.fit(runs.write_run(folder), version.folder / "manifest.json", folder, changes=changes)


def test_a_small_encoder_learns_and_reports(finished, version):
    losses = runs.losses(finished)
    assert np.mean(losses[-5:]) < np.mean(losses[:3]) - 1
    report = json.loads((finished.folder / "report.json").read_text())
    evaluation = report["evaluation"]
    assert evaluation["measure"] == "pseudo-perplexity" and report["samples"] is None
    page = (finished.folder / "report.html").read_text()
    assert "pseudo-perplexity a token" in page and "saw both sides of each" in page
    table = pq.read_table(finished.folder / evaluation["documents_file"])
    assert int(np.sum(table["targets"])) == evaluation["targets"] > 50
    rows = Split(version, "val").take(np.arange(len(Split(version, "val"))))
    places = made(version).targets(rows, batch.row_keys(0, 0, rows.index))
    assert evaluation["targets"] == len(places)
    documents = evaluate.documents_at(rows, places)
    ids = [version.documents["doc_id"][int(d)].as_py() for d in np.unique(documents)]
    assert table["doc_id"].to_pylist() == ids


def test_n_grams_are_scored_on_the_masked_places_alone(finished, version):
    report = json.loads((finished.folder / "report.json").read_text())
    train = Split(version, "train")
    rows = Split(version, "val").take(np.arange(len(Split(version, "val"))))
    run = config.check(config.Run, finished.table["config"], "run.json")
    read = flat_rows(train.take(outcome.rows_read(run, version, 40)))
    model = KneserNey(flat_rows(rows), vocab_size=300, order=2).read(lambda: [read])
    nats = np.zeros(rows.tokens.size)
    nats[causal.Objective().targets(rows, rows.index)] = -model.log_probabilities(2)
    places = made(version).targets(rows, batch.row_keys(0, 0, rows.index))
    said = report["evaluation"]["ngrams"][0]
    assert said["order"] == 2 and math.isclose(said["loss"], nats[places].mean(), rel_tol=1e-9)


def test_it_continues_no_text_and_says_so(finished, version):
    run = config.check(config.Run, finished.table["config"], "run.json")
    model = loop.load(run, version, finished)
    assert model.vocab_size == 301
    with pytest.raises(TrainingError, match="sees both ways and continues no text"):
        generate.generate(
            model, [[1]], new_tokens=1, temperature=0, top_k=None, top_p=None, return_sequences=1, seed=0, eot=0
        )


def test_prompts_that_nothing_will_continue_are_refused_before_the_first_step(version, tmp_path):
    run = config.load(runs.write_run(tmp_path), ['objective.use="masked"'])
    assert samples.asked(run, version) == []
    asked = config.load(runs.write_run(tmp_path), ['objective.use="masked"', 'samples.prompts=["the mill"]'])
    with pytest.raises(TrainingError, match=r"\[samples\]: prompts: .*'masked' makes a model that continues"):
        samples.asked(asked, version)
