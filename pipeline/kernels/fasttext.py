"""The labels of a fastText model for a column of text (Joulin et al. 2016, arXiv 1607.01759), over its bytes.

What fastText does for one line is done for one document: tokens are cut at space, tab, line feed, carriage return,
vertical tab, form feed and NUL; the rows of every token and of its subwords are averaged, and the labels scored. A
token "</s>" ends the document and one that begins with "__label__" does not count, as there.

A token's rows are summed first and then added to the document, so that the sum of a token that comes again can be
kept. fastText adds row by row, which rounds otherwise by about 1e-6. Where the best label does not lead the next one
by MARGIN (a difference of logarithms), the document is summed again in fastText's own order.

The sums of tokens are kept in a `Memory` of bounded size, one for each thread. A token of up to 8 bytes is its own
key; a longer one is known by 64 bits of hash, and takes another's sum with probability 2^-64 a pair. What it holds
never changes a result. With lid.176 about 75 MB/s over pages in forty languages, five times fastText; the tokens of one
language, once met, go at 180 MB/s.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.fasttext_model import END_OF_SENTENCE, FastTextModel, huffman
from pipeline.kernels._jit import Bytes, Hashes, Ints, kernel
from pipeline.kernels.buffers import frozen, text_buffers
from pipeline.kernels.fasttext_rows import Ids, Rows, fnv, sum_rows
from pipeline.kernels.fasttext_scores import MARGIN, descend, scan
from pipeline.memory import keeps

MEMORY_BYTES = 32 << 20
HIERARCHICAL, SOFTMAX, INDEPENDENT = 0, 1, 2


@dataclass
class Memory:
    """Sums of tokens that were met before. Of each token `places` has its key, and the number of its sum with that of
    the rows in it above; both lie in one line of the processor's cache."""

    places: Hashes
    sums: Rows
    used: Ints

    @classmethod
    def of(cls, dim: int) -> Memory:
        held = max(1024, MEMORY_BYTES // (4 * dim))
        size = 1 << int(2 * held - 1).bit_length()
        return cls(
            np.zeros((size, 2), np.uint64),
            np.zeros((held, dim), np.float32),
            np.zeros(1, np.int64),
        )


class Labeller:
    """A model laid out for the kernel. May be called from several threads at once."""

    def __init__(self, model: FastTextModel) -> None:
        self.model = model
        self.labels = model.labels
        self.forget()
        keeps(self)
        words = [*model.words]
        keys, ids = _word_table(words)
        rows, directory = _subwords(model)
        left, right = huffman(model.label_counts) if model.loss == "hierarchical softmax" else (_EMPTY, _EMPTY)
        kinds = {"hierarchical softmax": HIERARCHICAL, "softmax": SOFTMAX}
        ends = words.index(END_OF_SENTENCE) if END_OF_SENTENCE in words else -1
        self._settings = frozen(
            np.array(
                [
                    kinds.get(model.loss, INDEPENDENT),
                    len(model.labels),
                    len(words),
                    model.buckets,
                    model.min_n,
                    model.max_n,
                    model.word_ngrams,
                    ends,
                    model.pruned is not None,
                ],
                np.int64,
            )
        )
        arena = b"".join(words)
        starts = np.cumsum([0, *map(len, words)], dtype=np.int64)
        arrays: tuple[NDArray, ...] = (
            rows,
            model.output,
            keys,
            ids,
            np.frombuffer(arena, np.uint8),
            starts,
            directory,
            left,
            right,
        )
        self._arrays = tuple(map(frozen, arrays))

    def forget(self) -> None:
        """Let the tokens go that every thread met."""
        self._local = threading.local()

    def __call__(self, text: pa.Array, k: int = 1) -> tuple[Ids, Rows]:
        """(labels int32 [n, k], probabilities float32 [n, k]), best first; -1 and 0 where there are fewer.

        Raises ValueError for k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        data, offsets = text_buffers(text)
        memory = getattr(self._local, "memory", None)
        if memory is None:
            memory = self._local.memory = Memory.of(self.model.dim)
        labels = np.full((len(text), k), -1, np.int32)
        scores = np.zeros((len(text), k), np.float32)
        longest = int(np.diff(offsets).max(initial=0)) // 2 + 2 if self.model.word_ngrams > 1 else 1
        label(
            data,
            offsets,
            self._settings,
            *self._arrays,
            *(memory.places, memory.sums, memory.used),
            np.empty(longest, np.uint32),
            labels,
            scores,
        )
        return labels, scores


_EMPTY = np.zeros(0, np.int32)


def _word_table(words: list[bytes]) -> tuple[Hashes, Ids]:
    """Open addressing from FNV-1a hash to word: (hash + 1 uint64, word int32), a power of two in size."""
    size = 1 << (4 * len(words) + 3).bit_length()
    keys, ids = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    place = [(fnv(word), number) for number, word in enumerate(words)]
    for code, number in place:
        slot = code & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], ids[slot] = code + 1, number
    return keys, ids


def _subwords(model: FastTextModel) -> tuple[Rows, Hashes]:
    """(rows, directory): the matrix with its subword rows in the order of their buckets, and for each 64 buckets the
    row of the first and a bit for each that has one, uint64 [buckets / 64 + 1, 2]; of a model with every bucket, empty.

    Rows begin at multiples of 64 bytes: with 16 dimensions a row is one line of the processor's cache.
    """
    order = np.arange(model.input.shape[0])
    directory = np.zeros((0, 2), np.uint64)
    if model.pruned is not None:
        buckets = np.array(sorted(model.pruned), np.int64)
        first = len(model.words)
        order[first : first + buckets.size] = first + np.array([model.pruned[b] for b in buckets.tolist()], np.int64)
        bits = np.zeros((model.buckets // 64 + 1) * 64, np.uint8)
        bits[buckets] = 1
        words = np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)
        counts = np.add.reduceat(bits, np.arange(0, bits.size, 64), dtype=np.int64)
        directory = np.stack([words, (first + np.cumsum(counts) - counts).astype(np.uint64)], axis=1)
    room = np.empty(model.input.size + 16, np.float32)
    skip = -(room.ctypes.data // 4) % 16
    rows = room[skip : skip + model.input.size].reshape(model.input.shape)
    rows[:] = model.input[order]
    return rows, directory


@kernel
def label(
    data: Bytes,
    offsets: Ints,
    settings: Ints,
    rows: Rows,
    output: Rows,
    word_keys: Hashes,
    word_ids: Ids,
    arena: Bytes,
    word_starts: Ints,
    directory: Hashes,
    left: Ids,
    right: Ids,
    places: Hashes,
    sums: Rows,
    used: Ints,
    hashes: NDArray[np.uint32],
    labels: Ids,
    scores: Rows,
) -> None:
    """Fill labels[document] and scores[document] for every document."""
    dim, k = rows.shape[1], labels.shape[1]
    hidden, token = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
    best, best_score = np.empty(k + 1, np.int64), np.empty(k + 1, np.float32)
    n_labels = settings[1]
    stack, path = np.empty(2 * n_labels + 1, np.int64), np.empty(2 * n_labels + 1, np.float32)
    for d in range(offsets.size - 1):
        for again in range(2):
            n = sum_rows(
                *(data, offsets[d], offsets[d + 1], settings, rows, word_keys, word_ids, arena, word_starts),
                *(directory, places, sums, used, hashes, token, hidden, again == 1),
            )
            if n == 0:
                break
            for q in range(dim):
                hidden[q] *= np.float32(1.0 / n)
            if settings[0] == HIERARCHICAL:
                found = descend(hidden, output, left, right, n_labels, stack, path, best, best_score)
            else:
                found = scan(hidden, output, n_labels, settings[0] == SOFTMAX, path, best, best_score)
            for j in range(min(found, k)):
                labels[d, j] = best[j]
                scores[d, j] = np.exp(best_score[j])
            sure = True
            for j in range(min(found - 1, k)):
                sure &= best_score[j] - best_score[j + 1] > MARGIN
            if sure:
                break
