"""N-gram models made here: the formulas by brute force, KenLM's reading of the file, and a card that says the truth."""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import stage
from pipeline.filters import card, texts
from pipeline.mistakes import ConfigError
from pipeline.ngrams import artifact, counting, estimate
from pipeline.ngrams.artifact import Settings
from training.ngram import KneserNey, flat

kenlm = pytest.importorskip("kenlm")
Line = list[str]


def drawn(words: str, lines: int, seed: int) -> list[Line]:
    """Lines in which some words follow others more often than chance."""
    draw = random.Random(seed)
    made = []
    for _ in range(lines):
        line = [draw.choice(words)]
        while draw.random() < 0.8:
            at = words.index(line[-1])
            line.append(words[(at + draw.choice((1, 1, 1, 2, 3, 5))) % len(words)])
        made.append(line)
    return made


LINES = drawn("abcdefghijkl", 300, 1)


class Twin:
    """The definitions, one gram at a time."""

    def __init__(self, lines: list[Line], order: int) -> None:
        self.order, self.counts = order, {}
        raw = [Counter[tuple[str, ...]]() for _ in range(order + 1)]
        for line in lines:
            row = ["<s>", *line, "</s>"]
            for n in range(1, order + 1):
                raw[n].update(tuple(row[i : i + n]) for i in range(len(row) - n + 1))
        for n in range(1, order):
            left = defaultdict(set)
            for gram in raw[n + 1]:
                left[gram[1:]].add(gram[0])
            self.counts[n] = {g: c if g[0] == "<s>" else len(left[g]) for g, c in raw[n].items()}
        self.counts[order] = dict(raw[order])
        del self.counts[1]["<s>",]
        self.words = {gram[0] for gram in raw[1]} - {"<s>"} | {"<unk>"}
        self.discounts = {n: self._discounts(n) for n in self.counts}

    def _discounts(self, n: int) -> list[float]:
        t = [list(self.counts[n].values()).count(k) for k in (1, 2, 3, 4)]
        if 0 in t:
            return [0, 0.5, 1.0, 1.5]
        y = t[0] / (t[0] + 2 * t[1])
        found = [0, 1 - 2 * y * t[1] / t[0], 2 - 3 * y * t[2] / t[1], 3 - 4 * y * t[3] / t[2]]
        return found if all(0 < d <= k for k, d in enumerate(found) if k) else [0, 0.5, 1.0, 1.5]

    def probability(self, word: str, context: tuple[str, ...]) -> float:
        lower = self.probability(word, context[1:]) if context else 1 / len(self.words)
        n = len(context) + 1
        after = {gram[-1]: count for gram, count in self.counts[n].items() if gram[:-1] == context}
        if not after:
            return lower
        total = sum(after.values())
        freed = sum(self.discounts[n][min(count, 3)] for count in after.values())
        mine = after.get(word, 0)
        return (mine - self.discounts[n][min(mine, 3)]) / total + freed / total * lower


def read(path: Path) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Logarithms to 10 of an ARPA file: of probabilities and of weights."""
    probability, weight = {}, {}
    for row in path.read_text("utf-8").splitlines():
        parts = row.split("\t")
        if len(parts) > 1:
            gram = tuple(parts[1].split(" "))
            probability[gram] = float(parts[0])
            weight[gram] = float(parts[2]) if len(parts) > 2 else 0.0
    return probability, weight


def asked(file: tuple[dict, dict], word: str, context: tuple[str, ...]) -> float:
    probability, weight = file
    if (*context, word) in probability:
        return probability[*context, word]
    return weight.get(context, 0.0) + asked(file, word, context[1:])


def written(lines: list[Line], order: int, path: Path) -> counting.Counted:
    counted = counting.count(lines, order)
    estimate.write(estimate.estimate(counted), path)
    return counted


@pytest.mark.parametrize("order", [2, 3, 4])
def test_every_probability_is_that_of_the_formulas(tmp_path: Path, order: int) -> None:
    counted, twin = written(LINES, order, tmp_path / "m.arpa"), Twin(LINES, order)
    file = read(tmp_path / "m.arpa")
    assert [len(grams) for grams in counted.orders] == [
        len(twin.counts[n]) + (2 if n == 1 else 0) for n in range(1, order + 1)
    ]
    contexts = {gram[:-1] for gram in file[0]} | {("b", "zz")[:order - 1], ("zz",)}  # fmt: skip
    some = sorted(contexts)[:: max(1, len(contexts) // 60)]
    for context, word in product(some, sorted(twin.words)):
        mine = 10 ** asked(file, word, context)
        assert mine == pytest.approx(twin.probability(word, context), rel=5e-6), (context, word)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_sum_to_one_after_every_context(tmp_path: Path, order: int) -> None:
    counted = written(LINES[:120], order, tmp_path / "m.arpa")
    file = read(tmp_path / "m.arpa")
    words = [word for word in counted.words if word != "<s>"]
    for context in {gram[:-1] for gram in file[0]}:
        assert math.fsum(10 ** asked(file, word, context) for word in words) == pytest.approx(1, abs=1e-5), context


def test_kenlm_reads_the_file_and_scores_lines_alike(tmp_path: Path) -> None:
    written(LINES, 4, tmp_path / "m.arpa")
    file, model = read(tmp_path / "m.arpa"), kenlm.Model(str(tmp_path / "m.arpa"))
    assert model.order == 4
    for line in [*drawn("abcdefghijklx", 50, 2), ["x"], ["a", "x", "x", "x", "x", "b"]]:
        row = ["<s>", *(word if (word,) in file[0] else "<unk>" for word in line), "</s>"]
        mine = [asked(file, row[i], tuple(row[max(0, i - 3) : i])) for i in range(1, len(row))]
        theirs = [score for score, _, _ in model.full_scores(" ".join(line))]
        assert mine == pytest.approx(theirs, abs=2e-6)


def test_the_trainers_yardstick_says_the_same(tmp_path: Path) -> None:
    """`training.ngram` over the same lines, <s> and <unk> being one token that is never a target."""
    counted = counting.count(LINES, 3)
    model = estimate.estimate(counted)
    number = {word: row - 1 for row, word in enumerate(counted.words)} | {"<s>": 1}
    pieces = [[number[word] for word in ("<s>", *line, "</s>")] for line in LINES]
    yardstick = KneserNey(flat(pieces), vocab_size=len(counted.words) - 1, order=3).read(lambda: [flat(pieces)])
    estimate.write(model, tmp_path / "m.arpa")
    file, theirs = read(tmp_path / "m.arpa"), iter(yardstick.log_probabilities())
    for line in LINES:
        row = ["<s>", *line, "</s>"]
        for i in range(1, len(row)):
            mine = asked(file, row[i], tuple(row[max(0, i - 2) : i])) * math.log(10)
            assert mine == pytest.approx(next(theirs), abs=1e-5)


def test_few_lines_hostile_words_and_none(tmp_path: Path) -> None:
    counted = written([["a"], [], ["<s>", "</s>", "<unk>"], ["a", "</s>", "麦"]], 3, tmp_path / "m.arpa")
    assert counted.words == ["<s>", "</s>", "<unk>", "a", "麦"] and (counted.sentences, counted.tokens) == (2, 3)
    file = read(tmp_path / "m.arpa")
    for context in {gram[:-1] for gram in file[0]}:
        assert math.fsum(10 ** asked(file, w, context) for w in counted.words[1:]) == pytest.approx(1, abs=1e-5)
    assert kenlm.Model(str(tmp_path / "m.arpa")).score("a 麦") < 0
    empty = counting.count([], 3)
    assert (empty.words, empty.sentences, [len(grams) for grams in empty.orders]) == (
        list(counting.SPECIAL),
        0,
        [3, 0, 0],
    )


# The artifact


def laid(path: Path, seed: int, words: str = "abcdefghijkl") -> Path:
    lines = drawn(words, 400, seed)
    rows = ("\n".join(" ".join(line) for line in lines[n : n + 4]) for n in range(0, 400, 4))
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    return path


def given(path: Path) -> texts.Labelled:
    return texts.read("text", [str(path)], 0, of=artifact.text_of)


def test_the_same_texts_give_the_same_artifact_whatever_their_order(tmp_path: Path) -> None:
    path = laid(tmp_path / "a.jsonl", 1)
    first = artifact.make(tmp_path / "one", given(path), Settings())
    lines = path.read_text("utf-8").splitlines(keepends=True)
    random.Random(3).shuffle(lines)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jsonl").write_text("".join([*lines, lines[0], '{"text": " \\n"}\n']), "utf-8")
    again = artifact.make(tmp_path / "two", given(tmp_path / "other" / "a.jsonl"), Settings())
    assert again["model"] == first["model"] and again["percentiles"] == first["percentiles"]
    assert artifact.make(tmp_path / "one", given(path), Settings()) == first
    assert card.read(tmp_path / "one" / "card.json", artifact.FORMAT) == first
    with pytest.raises(ConfigError, match="holds something else"):
        artifact.make(tmp_path / "one", given(path), Settings(order=4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "one", "other", "two"]


def test_head_and_tail_are_percentiles_of_the_reference(tmp_path: Path) -> None:
    near, far = given(laid(tmp_path / "near.jsonl", 1)), given(laid(tmp_path / "far.jsonl", 2, "lkjihgfedcba"))
    made = artifact.make(tmp_path / "m", near, Settings(head=20, tail=75), far)
    bound = {"head": made["head"], "tail": made["tail"]}
    found = stage.load("perplexity", {"model": str(tmp_path / "m" / "model.arpa"), **bound}, "here")
    batch = pa.record_batch([pa.array(list(far.texts.values()), pa.large_string())], ["text"])
    columns = {name: values.to_pylist() for name, values in found(batch).items()}
    shares = Counter(columns["bucket"])
    assert (shares["head"], shares["tail"]) == (
        sum(p <= made["head"] for p in columns["perplexity"]),
        sum(p > made["tail"] for p in columns["perplexity"]),
    )
    assert shares["head"] == pytest.approx(0.20 * len(far.texts), abs=1.5)
    assert shares["tail"] == pytest.approx(0.25 * len(far.texts), abs=1.5)
    assert np.all(np.diff(made["percentiles"]) >= 0) and made["reference"]["judged"] == len(far.texts)
    assert made["held_back"]["perplexity"] < made["percentiles"][10], "its own language is less surprising"
    page = (tmp_path / "m" / "card.md").read_text("utf-8")
    assert f"`head = {made['head']}`" in page and "near" in page


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"order": 1}, "order lies between 2 and 6"),
        ({"order": 7}, "order lies between 2 and 6"),
        ({"units": "letters"}, "whitespace or script"),
        ({"hold_back": 0.0}, "share between 0 and 1"),
        ({"head": 70.0}, "0 < head <= tail < 100"),
        ({"hold_back": 0.001}, "texts are held back, and it takes 10"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        artifact.make(tmp_path / "m", given(laid(tmp_path / "a.jsonl", 1)), Settings(**settings))
    assert not (tmp_path / "m").exists()
