"""The Kneser-Ney baseline: probabilities sum to 1, and equal a twin written from the formulas with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.ngram import FALLBACK, KneserNey, flat

VOCAB = 6
texts = st.lists(st.lists(st.integers(0, VOCAB - 1), max_size=12), max_size=10)


class Twin:
    """Modified Kneser-Ney as the paper writes it: dictionaries of tuples, one context at a time."""

    def __init__(self, pieces, vocab_size, order):
        self.vocab_size, self.order = vocab_size, order
        self.counts = {k: self.count(pieces, k) for k in range(1, order + 1)}
        self.discount = {k: self.discounts(self.counts[k]) for k in self.counts}

    def count(self, pieces, k):
        raw, neighbours = Counter(), defaultdict(set)
        for number, piece in enumerate(pieces):
            for end in range(1, len(piece)):
                if end - k + 1 < 0:
                    continue
                gram = tuple(piece[end - k + 1 : end + 1])
                raw[gram] += 1
                before = piece[end - k] if end - k >= 0 else ("start of piece", number)
                neighbours[gram].add(before)
        return raw if k == self.order else {gram: len(seen) for gram, seen in neighbours.items()}

    @staticmethod
    def discounts(counts):
        n1, n2, n3, n4 = (sum(c == i for c in counts.values()) for i in (1, 2, 3, 4))
        if not (n1 and n2 and n3 and n4):
            return FALLBACK
        y = n1 / (n1 + 2 * n2)
        d = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return d if all(x > 0 for x in d) else FALLBACK

    def probability(self, word, context):
        k = min(len(context), self.order - 1) + 1
        return self.level(word, tuple(context[len(context) - k + 1 :]), k)

    def level(self, word, context, k):
        if k == 0:
            return 1 / self.vocab_size
        shorter = self.level(word, context[1:], k - 1)
        after = {gram[-1]: c for gram, c in self.counts[k].items() if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return shorter
        d = (0.0, *self.discount[k])
        c = after.get(word, 0)
        reserved = sum(d[min(x, 3)] for x in after.values())
        return (c - d[min(c, 3)]) / total + reserved / total * shorter


def probabilities(train, asked, order, highest=4, block=1 << 20):
    model = KneserNey(flat(asked), vocab_size=VOCAB, order=highest).read(lambda: [flat(train)], block=block)
    return np.exp(model.log_probabilities(order))


@given(texts, texts, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_equals_the_formulas(train, asked, order):
    twin = Twin(train, VOCAB, order)
    expected = [twin.probability(p[i], p[:i]) for p in asked for i in range(1, len(p))]
    np.testing.assert_allclose(probabilities(train, asked, order), expected, rtol=1e-12)


@given(texts, st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_sums_to_one_after_every_context(train, context, order):
    p = probabilities(train, [[*context, word] for word in range(VOCAB)], order)
    last = p[len(context) - 1 :: len(context)]  # the other targets are inside the context
    assert last.min() > 0
    assert math.isclose(last.sum(), 1.0, rel_tol=1e-12)


def natural(length=4000, seed=0):
    """Token pieces with a heavy tail and some order, so that counts of counts are all there."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.zipf(1.3, length), 200) - 1
    tokens = np.where(rng.random(length) < 0.5, (np.roll(tokens, 1) * 7 + 3) % 200, tokens)
    return np.split(tokens, np.sort(rng.choice(length, 60, replace=False)))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equals_the_formulas_where_the_discounts_are_estimated(order):
    train, asked = natural(), natural(150, seed=1)
    model = KneserNey(flat(asked), vocab_size=200, order=order).read(lambda: [flat(train)])
    twin = Twin([list(p) for p in train], 200, order)
    estimated = [k for k in range(1, order + 1) if model.discounts(k, highest=k == order) != FALLBACK]
    assert order in estimated
    for k in range(1, order + 1):
        assert model.discounts(k, highest=k == order) == pytest.approx(twin.discount[k])
    expected = [math.log(twin.probability(p[i], tuple(p[:i]))) for p in asked for i in range(1, len(p))]
    np.testing.assert_allclose(model.log_probabilities(), expected, rtol=1e-12)


def arithmetic(pieces, seed):
    """A text without a generator: a linear congruence with a heavy tail, each token half led by the one before."""
    state, text = seed, []
    for number in range(pieces):
        piece = [0]
        for _ in range(5 + 7 * number % 23):
            state = (1103515245 * state + 12345) % 2**31
            fresh = 1 + int((state / 2**31) ** 4 * 150)
            piece.append((7 * piece[-1] + 3) % 150 + 1 if state // 64 % 2 else fresh)
        text.append([*piece, 0])
    return text


# From the ARPA files of KenLM 0.3.0's lmplz (--discount_fallback) over the same text, one document a line, token 0
# standing for <s> and </s> and one more word for its <unk>: log10 of the questions' probability, and the discounts.
KENLM = {
    2: (-833.12883, (0.5, 1, 1.5), (0.74224, 1.0903, 1.42689)),
    3: (-862.87991, (0.5, 1, 1.5), (0.78493, 0.963561, 1.36735), (0.840338, 1.00614, 1.31932)),
    4: (
        -865.76628,
        (0.5, 1, 1.5),
        (0.78493, 0.963561, 1.36735),
        (0.86426, 1.03758, 1.34888),
        (0.896547, 1.06052, 1.49612),
    ),
}


@pytest.mark.parametrize("order", KENLM)
def test_equals_kenlm(order):
    model = KneserNey(flat(arithmetic(40, 99)), vocab_size=152, order=4).read(lambda: [flat(arithmetic(600, 1))])
    total, *discounts = KENLM[order]
    assert model.log_probabilities(order).sum() / math.log(10) == pytest.approx(total, abs=1e-4)
    for k, expected in enumerate(discounts, start=1):
        assert model.discounts(k, highest=k == order) == pytest.approx(expected, rel=1e-5)


@given(st.integers(1, 500), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_blocks_and_chunks_change_nothing(block, chunks):
    train, asked = natural(1500), natural(300, seed=1)
    parts = [flat(train[i::chunks]) for i in range(chunks)]
    whole = KneserNey(flat(asked), vocab_size=200, order=4).read(lambda: [flat(train)])
    parted = KneserNey(flat(asked), vocab_size=200, order=4).read(lambda: parts, block=block)
    for order in (1, 2, 3, 4):
        assert np.array_equal(whole.log_probabilities(order), parted.log_probabilities(order))


def test_a_lower_order_is_the_same_alone_or_beside_higher_ones():
    train, asked = natural(1500), natural(300, seed=1)
    for order in (1, 2, 3):
        alone = KneserNey(flat(asked), vocab_size=200, order=order).read(lambda: [flat(train)])
        beside = KneserNey(flat(asked), vocab_size=200, order=4).read(lambda: [flat(train)])
        assert np.array_equal(alone.log_probabilities(), beside.log_probabilities(order))


def test_a_context_never_crosses_a_piece():
    train = [[0, 1, 2], [3, 4]]
    joined = [[0, 1, 2, 3, 4]]
    question = [[2, 3]]  # in the pieces 3 never follows anything
    assert probabilities(train, question, 2)[0] < probabilities(joined, question, 2)[0]
    assert probabilities(train, question, 2)[0] == pytest.approx(Twin(train, VOCAB, 2).probability(3, (2,)))


@pytest.mark.parametrize("train", [[], [[]], [[3]], [[], [1], []]])
def test_nothing_to_count_is_the_uniform_distribution(train):
    assert probabilities(train, [[0, 1, 2], [5, 5]], 3) == pytest.approx(1 / VOCAB)


@pytest.mark.parametrize("asked", [[], [[]], [[2]]])
def test_nothing_to_ask(asked):
    assert probabilities([[0, 1, 2, 3]], asked, 3).shape == (0,)


def test_a_vocabulary_of_one_is_certain():
    model = KneserNey(flat([[0, 0, 0]]), vocab_size=1, order=3).read(lambda: [flat([[0, 0, 0, 0]])])
    assert np.exp(model.log_probabilities()) == pytest.approx(1.0)


def test_large_vocabularies_do_not_overflow_the_keys():
    vocab = 200_000  # 18 bits a token: four of them do not fit a packed 64-bit key
    rng = np.random.default_rng(3)
    high = [list(vocab - 1 - rng.integers(0, 30, 40)) for _ in range(8)]
    low = [[vocab - 1 - int(t) for t in piece] for piece in high]  # the same text with small numbers
    a = KneserNey(flat(high[:2]), vocab_size=vocab, order=4).read(lambda: [flat(high[2:])])
    b = KneserNey(flat(low[:2]), vocab_size=vocab, order=4).read(lambda: [flat(low[2:])])
    np.testing.assert_allclose(a.log_probabilities(), b.log_probabilities(), rtol=1e-12)


def test_wrong_questions_are_refused():
    with pytest.raises(ValueError, match="token 9 is not in a vocabulary of 6"):
        probabilities([[0, 9]], [[0, 1]], 2)
    with pytest.raises(ValueError, match="order 5 was not counted"):
        probabilities([[0, 1]], [[0, 1]], 5)
