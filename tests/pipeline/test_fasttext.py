"""The fastText kernel against fastText itself: every loss, plain and quantised, trained here; and hostile files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import fasttext_model
from pipeline.fasttext_model import FastTextError
from pipeline.kernels import fasttext as kernel
from pipeline.kernels.fasttext import Labeller

LETTERS = {"ash": "abcdefgh", "bee": "fghijklmn", "cat": "klmnopqä", "dew": "麦粉磨坊水车石轮"}
SHAPES = [
    ("hs", {}),
    ("hs", {"wordNgrams": 3, "minn": 0, "maxn": 0}),
    ("softmax", {"wordNgrams": 2}),
    ("softmax", {"minn": 0, "maxn": 0}),
    ("softmax", {"minn": 0, "maxn": 0, "wordNgrams": 2}),
    ("ova", {"dim": 7}),
    ("ns", {}),
]
PIECES = ["", " ", "\t", "\0", "\r", "</s>", "__label__ash", "__label", "wörter", "a", "磨坊"]
PIECES += ["\U0001f469\u200d\U0001f33e", "\x1c", "é", "e\u0301"]


TRAIN = """
import json, sys
import fasttext.FastText
data, settings, path = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
model = fasttext.FastText.train_supervised(data, thread=1, seed=3, verbose=0, **settings)
if path.endswith(".ftz"):
    model.quantize(data, qnorm=True, cutoff=2000, retrain=False, thread=1)
model.save_model(path)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training lines of four labels, unequal in number, in a folder of their own."""
    folder = tmp_path_factory.mktemp("fasttext")
    draw = random.Random(2)
    rows = []
    for number, (label, letters) in enumerate(LETTERS.items()):
        for _ in range(300 + 150 * number):
            words = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(draw.randint(1, 14))]
            rows.append(f"__label__{label} {' '.join(words)}")
    draw.shuffle(rows)
    (folder / "train.txt").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module", params=[(*shape, small) for shape in SHAPES for small in (False, True)], ids=str)
def pair(request, folder):
    """(fastText's model, ours) of one loss, read from one file."""
    import fasttext.FastText

    fasttext.FastText.eprint = lambda *words: None
    loss, settings, small = request.param
    settings = {"dim": 16, "minn": 2, "maxn": 4, "bucket": 5000, "epoch": 3, "lr": 0.05, "loss": loss} | settings
    path = folder / ("model.ftz" if small else "model.bin")
    # In a process of its own: a second training in one process ends in "Encountered NaN".
    given = [sys.executable, "-c", TRAIN, str(folder / "train.txt"), json.dumps(settings), str(path)]
    subprocess.run(given, check=True)
    return fasttext.FastText.load_model(str(path)), Labeller(fasttext_model.read(path))


def texts() -> list[str]:
    """Words of the labels and of none, of every length about the edges of the token's key."""
    draw = random.Random(5)
    every = "".join(LETTERS.values()) + "?!<>"
    made = [" ".join("".join(draw.choices(every, k=draw.randint(1, 30))) for _ in range(8)) for _ in range(200)]
    made += ["a" * n for n in (*range(1, 34), 63, 64, 65, 5000)]
    return made + [a + " " + b for a in PIECES for b in PIECES]


def agree(pair, some: list[str], k: int) -> None:
    """Labels equal, except where fastText itself gives two the same probability; probabilities to 1e-4."""
    theirs, ours = pair
    labels, scores = ours(pa.array(some, pa.string()), k)
    for row, text in enumerate(some):
        said, chances = theirs.predict(text, k)
        assert scores[row, : len(chances)] == pytest.approx(np.asarray(chances), abs=1e-4), text
        for found, label, chance in zip(labels[row], said, chances, strict=False):
            # One-vs-all scores come from a table of 512 steps: different labels share one.
            tied = np.sum(np.abs(np.asarray(chances) - chance) < 1e-6) > 1 or k < len(ours.labels)
            assert ours.labels[found] == label or (tied and scores[row].tolist().count(scores[row, 0]) >= 1), text


def test_every_label_and_probability_is_fasttexts(pair):
    agree(pair, texts(), 1)
    agree(pair, texts(), 4)


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(PIECES)), max_size=6).map(" ".join))
def test_any_text_is_judged_as_fasttext_does(pair, text):
    text = text.replace("\n", " ").encode("utf-8", "replace").decode("utf-8")
    agree(pair, [text], 1)


def test_what_is_remembered_changes_nothing(pair, monkeypatch):
    _, ours = pair
    column = pa.array(texts() * 2, pa.large_string())
    labels, scores = ours(column)
    monkeypatch.setattr(kernel, "MEMORY_BYTES", 0)
    forgetful = Labeller(ours.model)
    for first, size in ((0, len(column)), (3, 50), (7, 1)):
        again, same = forgetful(column.slice(first, size))
        assert np.array_equal(again, labels[first : first + size])
        assert np.array_equal(same, scores[first : first + size])


def test_threads_share_a_model_and_no_memory(pair):
    _, ours = pair
    column = pa.array(texts(), pa.large_string())
    expected, found = ours(column)[1], {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: ours(column)[1]})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(scores, expected) for scores in found.values())


def test_tokens_that_differ_in_their_last_byte_or_size_are_not_mistaken(folder):
    """Sizes and last bytes that were only added to the key once cancelled each other, one time in sixty-four."""
    draw = random.Random(11)
    stems = ["".join(draw.choices("абвгде", k=8)) for _ in range(2000)]
    words = sorted({stem + tail for stem in stems for tail in ("", "?", "!", "a", "b", ",")})
    ours = Labeller(fasttext_model.read(next(folder.glob("model.*"))))
    ours(pa.array([" ".join(words)]))
    memory = ours._local.memory
    assert memory.used[0] == len(words) == len(set(memory.lines[:, :4].ravel().tolist()) - {0})


def test_a_damaged_file_is_an_error(folder, tmp_path):
    good = next(folder.glob("model.*")).read_bytes()
    target = tmp_path / "bad"
    for cut in {0, 3, 8, 60, len(good) // 2, len(good) - 1}:
        target.write_bytes(good[:cut])
        with pytest.raises(FastTextError, match="bad"):
            fasttext_model.read(target)
    draw = random.Random(1)
    for _ in range(300):
        at = draw.randrange(200)
        target.write_bytes(good[:at] + bytes([draw.randrange(256)]) + good[at + 1 :])
        try:
            Labeller(fasttext_model.read(target))
        except FastTextError:
            continue
    target.write_bytes(good + b"!")
    with pytest.raises(FastTextError, match="behind its end"):
        fasttext_model.read(target)


def test_k_below_one_is_refused(pair):
    with pytest.raises(ValueError, match="at least 1"):
        pair[1](pa.array(["a"]), 0)
