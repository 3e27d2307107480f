"""A supervised fastText model, read from its `.bin` or `.ftz` file without fastText (Joulin et al. 2016, arXiv
1607.01759; compressed models: arXiv 1612.03651).

The one law: a file is believed only as far as it is checked. Every size in it is held against the bytes that are
there, so a damaged or hostile file is a FastTextError, never an allocation without end. Quantised matrices are
expanded once: a row is what fastText itself adds up, norm times centroid, in float32.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.buffers import aligned

MAGIC, VERSIONS = 793712314, (11, 12)
LOSSES = {1: "hierarchical softmax", 2: "negative sampling", 3: "softmax", 4: "one-vs-all"}
SUPERVISED = 3
CENTROIDS = 256
MOST_DIMENSIONS = 4096
END_OF_SENTENCE = b"</s>"


class FastTextError(ValueError):
    """A file that is no supervised fastText model, or a damaged one; the message names the file."""


@dataclass(frozen=True)
class FastTextModel:
    """What prediction needs: `input` float32 [words + subword rows, dim], `output` float32 [labels, dim] (of
    hierarchical softmax: [labels - 1, dim], the inner nodes), and the dictionary.

    `pruned` maps a bucket to its row behind the words, where the model was pruned; else every bucket has a row.
    """

    dim: int
    loss: str
    buckets: int
    min_n: int
    max_n: int
    word_ngrams: int
    words: tuple[bytes, ...]
    labels: tuple[str, ...]
    label_counts: tuple[int, ...]
    pruned: dict[int, int] | None
    input: NDArray[np.float32]
    output: NDArray[np.float32]


def read(path: Path) -> FastTextModel:
    """Read a model. Raises FastTextError where the file is not one, is damaged, or was not trained on labels."""
    with path.open("rb") as opened:
        try:
            # A model of the usual two million buckets has 800 MB, which are held once: as the matrix.
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise FastTextError(f"{path}: damaged: empty") from error
    file = _Bytes(data, path)
    magic, version = file.take("<2i")
    if magic != MAGIC or version not in VERSIONS:
        raise FastTextError(f"{path}: not a fastText model (magic {magic}, version {version}; known: {VERSIONS})")
    dim, _, _, _, _, word_ngrams, loss, kind, buckets, min_n, max_n, _ = file.take("<12i")
    file.take("<d")
    if kind != SUPERVISED:
        raise FastTextError(f"{path}: holds word vectors, no labels: only supervised models can judge a text")
    if loss not in LOSSES or not 0 < dim <= MOST_DIMENSIONS or buckets < 0 or word_ngrams < 1:
        raise FastTextError(f"{path}: damaged: loss {loss}, dimension {dim}, buckets {buckets}, n-grams {word_ngrams}")
    if version == 11:
        max_n = 0  # models of that version have no subwords
    words, labels, counts, pruned = _dictionary(file)
    if pruned and max(pruned) >= buckets:
        raise FastTextError(f"{path}: damaged: bucket {max(pruned)} of {buckets}")
    quantised = bool(*file.take("<?"))
    if pruned is not None and not quantised:
        raise FastTextError(f"{path}: damaged: pruned, but not quantised")
    inputs = _matrix(file, quantised)
    outputs = _matrix(file, bool(*file.take("<?")) and quantised)
    file.end()
    # A hash of a subword or of an n-gram of words falls in any bucket; without a bucket there is none to fall in.
    hashed = buckets * (max_n > 0 or word_ngrams > 1)
    if (max_n > 0 or word_ngrams > 1) and not buckets:
        raise FastTextError(f"{path}: damaged: n-grams without a bucket")
    rows = len(words) + (max(pruned.values(), default=-1) + 1 if pruned is not None else hashed)
    if inputs.shape[0] < rows or inputs.shape[1] != dim or outputs.shape[1] != dim:
        raise FastTextError(f"{path}: damaged: matrices {inputs.shape}, {outputs.shape} for {rows} rows of {dim}")
    if outputs.shape[0] < len(labels) - (loss == 1) or not labels:
        raise FastTextError(f"{path}: damaged: {len(labels)} labels, output of {outputs.shape[0]} rows")
    return FastTextModel(
        dim, LOSSES[loss], buckets, min_n, max_n, word_ngrams, words, labels, counts, pruned, inputs, outputs
    )


def huffman(counts: tuple[int, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(left, right) int32 [2 n - 1]: the tree over n labels as fastText builds it; leaves 0 to n - 1 have -1, -1.

    Labels come in descending order of their counts; the root is node 2 n - 2.
    """
    n = len(counts)
    weight = [*counts, *[10**15] * (n - 1)]
    left, right = np.full(2 * n - 1, -1, np.int32), np.full(2 * n - 1, -1, np.int32)
    leaf, inner = n - 1, n
    for node in range(n, 2 * n - 1):
        chosen = []
        for _ in range(2):
            if leaf >= 0 and weight[leaf] < weight[inner]:
                chosen.append(leaf)
                leaf -= 1
            else:
                chosen.append(inner)
                inner += 1
        left[node], right[node] = chosen
        weight[node] = weight[chosen[0]] + weight[chosen[1]]
    return left, right


@dataclass
class _Bytes:
    """A file's bytes with a position; whoever asks for more than is left hears of it."""

    data: mmap.mmap
    path: Path
    at: int = 0

    def take(self, form: str) -> tuple[Any, ...]:
        self._need(struct.calcsize(form))
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def array(self, kind: str, count: int) -> NDArray[Any]:
        if count < 0:
            raise FastTextError(f"{self.path}: damaged: a size of {count} at byte {self.at}")
        self._need(np.dtype(kind).itemsize * count)
        found = np.frombuffer(self.data, kind, count, self.at)
        self.at += found.nbytes
        return found

    def word(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise FastTextError(f"{self.path}: damaged: a word without an end at byte {self.at}")
        found, self.at = self.data[self.at : end], end + 1
        return found

    def end(self) -> None:
        if self.at != len(self.data):
            raise FastTextError(f"{self.path}: damaged: {len(self.data) - self.at} bytes behind its end")

    def _need(self, size: int) -> None:
        if self.at + size > len(self.data):
            raise FastTextError(f"{self.path}: damaged or cut short: needs {size} bytes at byte {self.at}")


def _dictionary(
    file: _Bytes,
) -> tuple[tuple[bytes, ...], tuple[str, ...], tuple[int, ...], dict[int, int] | None]:
    size, n_words, n_labels = file.take("<3i")
    _, pruned_size = file.take("<2q")
    words, labels, counts = [], [], []
    for _ in range(size):
        word = file.word()
        count, kind = file.take("<qb")
        if kind == 0:
            words.append(word)
        else:
            labels.append(word.decode("utf-8", "replace"))
            counts.append(count)
    if (len(words), len(labels)) != (n_words, n_labels):
        raise FastTextError(f"{file.path}: damaged: {len(words)} words and {len(labels)} labels, not as stated")
    pairs = file.array("<i4", 2 * max(pruned_size, 0)).reshape(-1, 2)
    if pairs.size and pairs.min() < 0:
        raise FastTextError(f"{file.path}: damaged: a negative bucket")
    pruned = None if pruned_size < 0 else dict(pairs.tolist())
    return tuple(words), tuple(labels), tuple(counts), pruned


def _matrix(file: _Bytes, quantised: bool) -> NDArray[np.float32]:
    if not quantised:
        rows, columns = file.take("<2q")
        if columns > MOST_DIMENSIONS or columns < 1 or not 0 <= rows * columns * 4 <= len(file.data):
            raise FastTextError(f"{file.path}: damaged or cut short: a matrix of {rows} x {columns}")
        values = aligned((rows, columns), np.float32)
        values[:] = file.array("<f4", rows * columns).reshape(rows, columns)
        return values
    (normed,) = file.take("<?")
    rows, _ = file.take("<2q")
    (size,) = file.take("<i")
    codes = file.array("<u1", size)
    values = _expanded(file, codes, rows)
    if normed:
        codes = file.array("<u1", rows)
        values = _expanded(file, codes, rows) * values
    return values


def _expanded(file: _Bytes, codes: NDArray[np.uint8], rows: int) -> NDArray[np.float32]:
    """Rows of a product quantiser: each code names one of 256 centroids of its piece of the vector."""
    dim, pieces, width, last = file.take("<4i")
    if not (0 < dim <= MOST_DIMENSIONS and pieces > 0 and width > 0 and (pieces - 1) * width + last == dim):
        raise FastTextError(f"{file.path}: damaged: a quantiser of {dim} in {pieces} pieces of {width}, {last}")
    if codes.size != rows * pieces:
        raise FastTextError(f"{file.path}: damaged: {codes.size} codes for {rows} rows of {pieces}")
    centroids = file.array("<f4", dim * CENTROIDS)
    codes = codes.reshape(rows, pieces)
    values = aligned((rows, dim), np.float32)
    for piece in range(pieces):
        wide = width if piece < pieces - 1 else last
        begin = piece * CENTROIDS * width
        table = centroids[begin : begin + CENTROIDS * wide].reshape(CENTROIDS, wide)
        values[:, piece * width : piece * width + wide] = table[codes[:, piece]]
    return values
