"""The labels of a fastText model for a column of text (Joulin et al. 2016, arXiv 1607.01759), over its bytes.

What fastText does for one line is done for one document: tokens are cut at space, tab, line feed, carriage return,
vertical tab, form feed and NUL; the rows of every token and of its subwords are averaged, and the labels scored. A
token "</s>" ends the document and one that begins with "__label__" does not count, as there.

A token's rows are summed first and then added to the document, so that the sum of a token that comes again can be
kept. fastText adds row by row, which rounds otherwise by about 1e-6. Where the best label does not lead the next one
by MARGIN (a difference of logarithms), the document is summed again in fastText's own order.

The sums of tokens are kept in a `Memory` of bounded size, one for each thread. A token is known by 64 bits of hash;
of two with more than eight bytes one takes the other's sum with probability 2^-64. What it holds never changes a
result. With lid.176 about 130 MB/s over pages in forty languages, nine times fastText; the tokens of one language,
once met, go at 250 MB/s.
"""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa

from pipeline.fasttext_model import END_OF_SENTENCE, FastTextModel, huffman
from pipeline.kernels._jit import Bytes, Hashes, Ints, allocating_kernel
from pipeline.kernels.buffers import aligned, frozen, text_buffers
from pipeline.kernels.fasttext_memory import keep_all, lines_for
from pipeline.kernels.fasttext_rows import Memory, Rows, Scratch, sum_rows
from pipeline.kernels.fasttext_scores import MARGIN, descend, scan
from pipeline.kernels.fasttext_token import Ids, Layout
from pipeline.kernels.wide import after
from pipeline.memory import keeps

MEMORY_BYTES = 32 << 20
FILLED_ROWS = 1 << 16
MOST_CHARACTERS = 1 << 62
HIERARCHICAL, SOFTMAX, INDEPENDENT = 0, 1, 2


class Labeller:
    """A model laid out for the kernel. May be called from several threads at once."""

    def __init__(self, model: FastTextModel) -> None:
        self.model = model
        self.labels = model.labels
        self.forget()
        keeps(self)
        words = [*model.words]
        rows, directory = _subwords(model)
        left, right = huffman(model.label_counts) if model.loss == "hierarchical softmax" else (_EMPTY, _EMPTY)
        kinds = {"hierarchical softmax": HIERARCHICAL, "softmax": SOFTMAX}
        ends = words.index(END_OF_SENTENCE) if END_OF_SENTENCE in words else -1
        settings = [
            kinds.get(model.loss, INDEPENDENT),
            len(model.labels),
            len(words),
            model.buckets,
            model.min_n,
            model.max_n,
            model.word_ngrams,
            ends,
            model.pruned is not None,
        ]
        arena = np.frombuffer(b"".join(words), np.uint8)
        starts = np.cumsum([0, *map(len, words)], dtype=np.int64)
        word_lines = lines_for(len(words))
        keep_all(frozen(arena), frozen(starts), word_lines)
        self._layout = Layout(
            frozen(np.array(settings, np.int64)),
            frozen(rows),
            frozen(model.output),
            word_lines,
            frozen(arena),
            frozen(starts),
            frozen(directory),
            frozen(_filled(model)),
            frozen(left),
            frozen(right),
        )

    def forget(self) -> None:
        """Let the tokens go that every thread met."""
        self._local = threading.local()

    def __call__(self, text: pa.Array, k: int = 1, characters: int = MOST_CHARACTERS) -> tuple[Ids, Rows]:
        """(labels int32 [n, k], probabilities float32 [n, k]) of the first `characters` of each text, best first; -1
        and 0 where there are fewer.

        Raises ValueError for k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        data, offsets = text_buffers(text)
        memory = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = _memory(self.model.dim)
        labels = np.full((len(text), k), -1, np.int32)
        scores = np.zeros((len(text), k), np.float32)
        longest = int(np.diff(offsets).max(initial=0))
        scratch = Scratch.of(self.model.dim, longest, longest // 2 + 2 if self.model.word_ngrams > 1 else 1)
        label(data, offsets, characters, self._layout, memory, scratch, labels, scores)
        return labels, scores


_EMPTY = np.zeros(0, np.int32)


def _memory(dim: int) -> Memory:
    held = max(1024, MEMORY_BYTES // (4 * dim))
    return Memory(lines_for(held), aligned((held, dim), np.float32), np.zeros(1, np.int64))


def _subwords(model: FastTextModel) -> tuple[Rows, Hashes]:
    """(rows, directory): the matrix with its subword rows in the order of their buckets, and for each 64 buckets a bit
    for each that has one and the row of the first, uint64 [2, buckets / 64 + 1]; of a model with every bucket, empty.

    Rows begin at multiples of 64 bytes: with 16 dimensions a row is one line of the processor's cache.
    """
    directory = np.zeros((2, 0), np.uint64)
    if model.pruned is None:
        return model.input, directory
    order = np.arange(model.input.shape[0])
    buckets = np.array(sorted(model.pruned), np.int64)
    first = len(model.words)
    order[first : first + buckets.size] = first + np.array([model.pruned[b] for b in buckets.tolist()], np.int64)
    bits = np.zeros((model.buckets // 64 + 1) * 64, np.uint8)
    bits[buckets] = 1
    words = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
    counts = np.add.reduceat(bits, np.arange(0, bits.size, 64), dtype=np.int64)
    directory = np.stack([words, (first + np.cumsum(counts) - counts).astype(np.uint64)])
    rows = aligned(model.input.shape, np.float32)
    rows[:] = model.input[order]
    return rows, directory


def _filled(model: FastTextModel) -> Hashes:
    """A bit for each bucket whose row is not all zeros, 64 in a word; of a model with subwords, or pruned, empty.

    Training with one thread leaves the rows of n-grams that were never met as they were: zeros, which need not be read.
    """
    if model.max_n > 0 or model.pruned is not None:
        return np.zeros(0, np.uint64)
    rows = model.input[len(model.words) :]
    bits = np.zeros((len(rows) // 64 + 1) * 64, np.uint8)
    for first in range(0, len(rows), FILLED_ROWS):
        bits[first : min(first + FILLED_ROWS, len(rows))] = rows[first : first + FILLED_ROWS].any(axis=1)
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


@allocating_kernel
def label(
    data: Bytes,
    offsets: Ints,
    characters: int,
    model: Layout,
    memory: Memory,
    scratch: Scratch,
    labels: Ids,
    scores: Rows,
) -> None:
    """Fill labels[document] and scores[document] for every document."""
    dim, k = model.rows.shape[1], labels.shape[1]
    hidden = np.zeros(dim, np.float32)
    best, best_score = np.empty(k + 1, np.int64), np.empty(k + 1, np.float32)
    loss, n_labels = model.settings[0], model.settings[1]
    stack = np.empty(2 * n_labels + 1, np.int64)
    path, shares = np.empty(2 * n_labels + 1, np.float32), np.empty(2 * n_labels + 1, np.float32)
    for d in range(offsets.size - 1):
        start = offsets[d]
        end = after(data, start, offsets[d + 1], characters)
        for again in range(2):
            n = sum_rows(data, start, end, model, memory, scratch, hidden, again == 1)
            if n == 0:
                break
            for q in range(dim):
                hidden[q] *= np.float32(1.0 / n)
            if loss == HIERARCHICAL:
                found = descend(
                    hidden, model.output, model.left, model.right, n_labels, stack, path, shares, best, best_score
                )
            else:
                found = scan(hidden, model.output, n_labels, loss == SOFTMAX, path, best, best_score)
            for j in range(min(found, k)):
                labels[d, j] = best[j]
                scores[d, j] = np.exp(best_score[j])
            sure = True
            for j in range(min(found - 1, k)):
                sure &= best_score[j] - best_score[j + 1] > MARGIN
            if sure:
                break
