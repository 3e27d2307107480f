"""Mixtures: shares held over every prefix, each part in its own order, versions that fit one model, exact resume."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.training import runs, versions
from training import TrainingError, batch, checkpoint, config, mix, order
from training.journal import Journal
from training.manifest import open_version
from training.shards import Split

MIX = runs.RUN + '\n[[mix]]\nsource = "a"\nweight = 3\n[[mix]]\nversion = "other"\nweight = 1.5\n'


@pytest.fixture(scope="module")
def manifests(tmp_path_factory) -> list[Path]:
    """Two versions of other documents that share a tokenizer."""
    folder = tmp_path_factory.mktemp("versions")
    first = runs.version(folder / "v")
    tokenizer = Tokenizer.from_file(str(first.parent / "tokenizer.json"))
    texts = [{"text": f"other {i} " + "grain flour " * (i % 9), "doc_id": f"other:{i:04d}"} for i in range(200)]
    return [first, versions.make_version(folder / "w", texts, name="other", tokenizer=tokenizer)]


def opened(tmp_path: Path, manifests: list[Path], text: str = MIX, *changes: str):
    return mix.opened(config.load(runs.write_run(tmp_path, text), changes), manifests, tmp_path, verify=False)


def stream(tmp_path: Path, manifests: list[Path], text: str = MIX, *changes: str) -> mix.Stream:
    return mix.Stream(*opened(tmp_path, manifests, text, *changes))


WHOLE, DECIMAL = st.integers(1, 400), st.integers(1, 999).map(lambda n: n / 100)


@settings(max_examples=100, deadline=None)
@given(weights=st.one_of(st.lists(each, min_size=1, max_size=9) for each in (WHOLE, DECIMAL)))
def test_over_any_prefix_each_part_is_within_one_row_of_its_share(weights) -> None:
    parts = np.tile(mix.cycle(weights), 2)
    total = sum(Fraction(str(w)) for w in weights)
    n = np.arange(1, len(parts) + 1)
    for number, weight in enumerate(weights):
        share = Fraction(str(weight)) / total
        off = np.abs(np.cumsum(parts == number) * share.denominator - n * share.numerator)
        assert off.max() < share.denominator


def test_weights_that_never_repeat_are_refused_and_long_cycles_are_quick() -> None:
    with pytest.raises(TrainingError, match="write fewer digits"):
        mix.cycle([0.1234567, 1.0])
    assert len(mix.cycle([32769, 32767])) == mix.LONGEST
    assert mix.cycle([2, 4, 2]).tolist() == [1, 0, 1, 2]


def test_without_parts_the_order_is_that_of_the_split(tmp_path, manifests) -> None:
    plain = stream(tmp_path, manifests[:1], runs.RUN)
    positions = np.arange(3 * len(plain.split))
    assert np.array_equal(plain.rows(positions), order.rows(len(plain.split), 3, positions))
    assert plain.start == batch.chain_start(open_version(manifests[0]).manifest.version, 3, 6)


def test_each_part_reads_each_of_its_rows_once_an_epoch_and_only_them(tmp_path, manifests) -> None:
    mixed = stream(tmp_path, manifests)
    splits = [Split(open_version(m), "train") for m in manifests]
    a = [len(s) for s in splits[0].shards if s.entry.source == "a"]
    assert [len(part) for part in mixed.parts] == [sum(a), len(splits[1])]
    positions = np.arange(8 * len(splits[1]))
    part, nth = mixed.places(positions)
    rows = mixed.rows(positions)
    for number, wanted in enumerate((np.arange(sum(a)), len(splits[0]) + np.arange(len(splits[1])))):
        mine = rows[part == number]
        assert nth[part == number].tolist() == list(range(len(mine))) and len(mine) > 2 * len(wanted)
        for first in (0, len(wanted)):
            assert np.array_equal(np.sort(mine[first : first + len(wanted)]), wanted)
    assert [p["read"] for p in mixed.summary(17)] == np.bincount(part[: 17 * 6], minlength=2).tolist()


def test_a_parts_order_does_not_move_when_weights_or_other_parts_change(tmp_path, manifests) -> None:
    both = stream(tmp_path, manifests)
    alone = stream(tmp_path, manifests[:1], runs.RUN + '[[mix]]\nsource = "a"\n')
    part, _ = both.places(np.arange(300))
    ours = both.rows(np.arange(300))[part == 0]
    assert np.array_equal(ours, alone.rows(np.arange(len(ours))))
    assert both.start != stream(tmp_path, manifests, MIX.replace("1.5", "1")).start


def test_rows_and_documents_are_those_of_their_own_version(tmp_path, manifests) -> None:
    mixed = stream(tmp_path, manifests)
    taken = mixed.step(5)
    offsets = [0, open_version(manifests[0]).manifest.documents.rows]
    firsts = [0, len(Split(open_version(manifests[0]), "train"))]
    said = mixed.documents(taken.documents, ["doc_id", "source"]).to_pylist()
    piece = 0
    for number, row in enumerate(taken.index):
        owner = int(row >= firsts[1])
        version = open_version(manifests[owner])
        single = Split(version, "train")[int(row) - firsts[owner]]
        assert single.tokens.tolist() == taken.tokens[number].tolist()
        for document in single.documents:
            assert taken.documents[piece] == document + offsets[owner]
            assert said[piece]["doc_id"] == version.documents["doc_id"][int(document)].as_py()
            piece += 1
    assert piece == len(said)


def test_lookup_reads_the_rows_asked_for_in_any_order_and_of_many_row_groups(tmp_path) -> None:
    version = open_version(runs.version(tmp_path / "v"))
    table = version.documents
    pq.write_table(table, version.folder / version.manifest.documents.file, row_group_size=37)
    for numbers in ([], [299, 0, 0, 41], np.random.default_rng(3).integers(0, 300, 500).tolist()):
        found = version.lookup(np.array(numbers, np.int64), ["doc_id", "language"])
        assert found.equals(table.select(["doc_id", "language"]).take(pa.array(numbers, pa.int64())))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[mix]]\nversion = "othre"\n', ["[[mix]] 1", "'othre'", "did you mean 'other'"]),
        ('[[mix]]\nversion = "other"\nsource = "b"\n', ["[[mix]] 1", "no training rows", "has: toy"]),
        ('[[mix]]\nversion = "other"\n[[mix]]\nversion = "other"\n', ["stands there twice"]),
        ('[[mix]]\nsource = "a"\n', ["--manifest", "no [[mix]] of the run names other@"]),
        ("[[mix]]\nweight = 0\n", ["mix.0.weight", "greater than 0"]),
        ("[[mix]]\nweight = inf\n", ["mix.0.weight", "finite"]),
        ("[[mix]]\nwieght = 1\n", ["mix.0.wieght", "did you mean 'weight'"]),
    ],
)
def test_what_is_wrong_with_a_mixture_is_said_with_its_place(tmp_path, manifests, text, words) -> None:
    with pytest.raises(TrainingError) as error:
        stream(tmp_path, manifests, runs.RUN + text)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("change", [{"length": 16}, {"dtype": "uint32"}, {"tokenizer": None}])
def test_versions_that_one_model_cannot_read_are_refused(tmp_path, manifests, change) -> None:
    tokenizer = Tokenizer.from_file(str(manifests[0].parent / "tokenizer.json"))
    settings = {"name": "other", "tokenizer": tokenizer, **change}
    other = versions.make_version(tmp_path / "w", [{"text": "grain " * 9} for _ in range(30)], **settings)
    with pytest.raises(TrainingError, match=f"cannot be mixed: {next(iter(change))}"):
        opened(tmp_path, [manifests[0], other])


def test_a_manifest_is_named_by_its_path_and_the_identity_knows_only_its_content(tmp_path, manifests) -> None:
    text = MIX.replace('"other"', json.dumps(str(manifests[1])))
    by_path, version = opened(tmp_path, manifests[:1], text)
    by_name, _ = opened(tmp_path, manifests)
    assert by_path == by_name and [v.manifest.name for v in version.beside] == ["other"]
    assert by_path.identity("0" * 16) != opened(tmp_path, manifests, MIX.replace("3", "4"))[0].identity("0" * 16)
    _, version = opened(tmp_path, [], runs.RUN + f"[[mix]]\nversion = {json.dumps(str(manifests[1]))}\n")
    assert version.manifest.name == "other" and not version.beside
    with pytest.raises(TrainingError, match="give --manifest"):
        opened(tmp_path, [])


def test_a_mixed_run_resumes_exactly_and_two_ranks_read_the_same(tmp_path, manifests) -> None:
    exact = MIX.replace("[precision]", '[precision]\ncompute = "float32"')
    run = runs.write_run(tmp_path, exact.replace("[optimizer]", '[optimizer]\nuse = "adamw"'))
    whole = runs.fit(run, manifests, tmp_path / "whole")
    for after in (5, 3):
        runs.fit(run, manifests, tmp_path / "cut", after=after)
    cut = runs.fit(run, manifests, tmp_path / "cut")
    assert runs.losses(cut) == runs.losses(whole) and cut.table["resumed_at"] == [5, 8]
    given = list(itertools.chain(*(("--manifest", str(m)) for m in manifests)))
    done = runs.command(2, "fit", str(run), *given, "--runs", str(tmp_path / "two"), "--json")
    two = Journal(Path(json.loads(done.stdout.splitlines()[-1])["folder"]))
    chains = {runs.state(checkpoint.steps(books.checkpoints)[-1])["chain"] for books in (whole, cut, two)}
    assert len(chains) == 1 and two.folder.name == whole.folder.name
    assert np.allclose(runs.losses(whole), runs.losses(two), rtol=0, atol=1e-5)
    report = json.loads((whole.folder / "report.json").read_text())["run"]
    assert [part["read"] for part in report["mix"]] == [48, 24]
    runs.command(1, "generate", str(whole.folder), "--new-tokens", "3")
