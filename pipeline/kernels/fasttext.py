"""The labels of a fastText model for a column of text (Joulin et al. 2016, arXiv 1607.01759), over its bytes.

What fastText does for one line is done for one document: tokens are cut at space, tab, line feed, carriage return,
vertical tab, form feed and NUL; the rows of every token and of its subwords are averaged, and the labels scored. A
token "</s>" ends the document and one that begins with "__label__" does not count, as there.

A token's rows are summed first and then added to the document, so that the sum of a token that comes again can be
kept. fastText adds row by row, which rounds otherwise by about 1e-6. Where the best label does not lead the next one
by MARGIN (a difference of logarithms), the document is summed again in fastText's own order.

The sums of tokens are kept in a `Memory` of bounded size, one for each thread. A token of up to 8 bytes is its own
key; a longer one is known by 64 bits of hash, and takes another's sum with probability 2^-64 a pair. What it holds
never changes a result. About 60 MB/s of English with lid.176, ten times fastText.
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
from pipeline.kernels.shingles import mix

Rows = NDArray[np.float32]
Ids = NDArray[np.int32]

MARGIN = np.float32(2e-3)
MEMORY_BYTES = 32 << 20
FNV_START, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
NGRAM_PRIME = np.uint64(116049371)
BEGIN, END = np.uint8(60), np.uint8(62)
EOS_KEY = np.uint64(int.from_bytes(END_OF_SENTENCE, "little"))
LABEL = frozen(np.frombuffer(b"__label__", np.uint8))
SEPARATOR = frozen(np.isin(np.arange(256), [0, 9, 10, 11, 12, 13, 32]))
FALL = np.uint64(0x9E3779B97F4A7C15)
ONE_32 = np.uint32(1)
SCORE = np.float32
HIERARCHICAL, SOFTMAX, INDEPENDENT = 0, 1, 2
NONE = np.int64(-1)
LOWEST = np.float32(-3.0e38)


@dataclass
class Memory:
    """Sums of tokens that were met before: keys, the number of rows of each sum, and the sums."""

    keys: Hashes
    slots: Ids
    counts: Ids
    sums: Rows
    used: Ints

    @classmethod
    def of(cls, dim: int) -> Memory:
        held = max(1024, MEMORY_BYTES // (4 * dim))
        size = 1 << int(2 * held - 1).bit_length()
        return cls(
            np.zeros(size, np.uint64),
            np.zeros(size, np.int32),
            np.zeros(held, np.int32),
            np.zeros((held, dim), np.float32),
            np.zeros(1, np.int64),
        )


class Labeller:
    """A model laid out for the kernel. May be called from several threads at once."""

    def __init__(self, model: FastTextModel) -> None:
        self.model = model
        self.labels = model.labels
        self._local = threading.local()
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
            *(memory.keys, memory.slots, memory.counts, memory.sums, memory.used),
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
    place = [(_fnv(word), number) for number, word in enumerate(words)]
    for code, number in place:
        slot = code & (size - 1)
        while keys[slot]:
            slot = (slot + 1) & (size - 1)
        keys[slot], ids[slot] = code + 1, number
    return keys, ids


def _fnv(word: bytes) -> int:
    code = int(FNV_START)
    for byte in word:
        code = ((code ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * int(FNV_PRIME)) & 0xFFFFFFFF
    return code


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
    keys: Hashes,
    slots: Ids,
    counts: Ids,
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
            n = _sum(
                *(data, offsets[d], offsets[d + 1], settings, rows, word_keys, word_ids, arena, word_starts),
                *(directory, keys, slots, counts, sums, used, hashes, token, hidden, again == 1),
            )
            if n == 0:
                break
            for q in range(dim):
                hidden[q] *= np.float32(1.0 / n)
            if settings[0] == HIERARCHICAL:
                found = _descend(hidden, output, left, right, n_labels, stack, path, best, best_score)
            else:
                found = _scan(hidden, output, n_labels, settings[0] == SOFTMAX, path, best, best_score)
            for j in range(min(found, k)):
                labels[d, j] = best[j]
                scores[d, j] = np.exp(best_score[j])
            sure = True
            for j in range(min(found - 1, k)):
                sure &= best_score[j] - best_score[j + 1] > MARGIN
            if sure:
                break


@kernel
def _sum(
    data: Bytes,
    start: int,
    end: int,
    settings: Ints,
    rows: Rows,
    word_keys: Hashes,
    word_ids: Ids,
    arena: Bytes,
    word_starts: Ints,
    directory: Hashes,
    keys: Hashes,
    slots: Ids,
    counts: Ids,
    sums: Rows,
    used: Ints,
    hashes: NDArray[np.uint32],
    token: Rows,
    hidden: Rows,
    exact: bool,
) -> int:
    """Sum the rows of all tokens into `hidden`; return how many. `exact` adds row by row, as fastText does."""
    dim = hidden.size
    for q in range(dim):
        hidden[q] = 0
    total = n_hashes = 0
    mask = keys.size - 1
    n_grams = settings[6]
    i = start
    while i < end:
        if SEPARATOR[data[i]]:
            i += 1
            continue
        begin = i
        h, word, shift = FALL, np.uint64(0), np.uint64(0)
        while i < end and not SEPARATOR[data[i]]:
            word |= np.uint64(data[i]) << shift
            shift += np.uint64(8)
            if shift == np.uint64(64):
                h = (h ^ word) * FALL
                h ^= h >> np.uint64(29)
                if i - begin >= 8:
                    word = np.uint64(0)
                    shift = np.uint64(0)
                else:
                    # The first eight bytes are kept as they are until it is known whether more follow.
                    if i + 1 < end and not SEPARATOR[data[i + 1]]:
                        word = np.uint64(0)
                        shift = np.uint64(0)
            i += 1
        size = i - begin
        key = word
        if size > 8:
            # The rest is folded in like the chunks before it, and the size is spread before it joins: a size or a last
            # byte that were only added could cancel each other.
            h = (h ^ word) * FALL
            key = mix((h ^ (h >> np.uint64(29))) + np.uint64(size) * NGRAM_PRIME) | np.uint64(1)
        if size == 4 and key == EOS_KEY:
            break
        if data[begin] == LABEL[0] and _is_label(data, begin, i):
            continue
        if n_grams > 1:
            hashes[n_hashes] = _hash(data, begin, i)
            n_hashes += 1
        if exact:
            total += _token(data, begin, i, settings, rows, word_keys, word_ids, arena, word_starts, directory, hidden)
            continue
        slot = np.int64(mix(key) >> np.uint64(20)) & mask
        while keys[slot] != np.uint64(0) and keys[slot] != key:
            slot = (slot + 1) & mask
        if keys[slot] == key:
            at = slots[slot]
            n = counts[at]
            if n > 0:
                _add(hidden, sums, np.int64(at))
        else:
            for q in range(dim):
                token[q] = 0
            n = _token(data, begin, i, settings, rows, word_keys, word_ids, arena, word_starts, directory, token)
            for q in range(dim):
                hidden[q] += token[q]
            if used[0] < counts.size and size <= 64:
                at = used[0]
                used[0] += 1
                keys[slot], slots[slot], counts[at] = key, at, n
                for q in range(dim):
                    sums[at, q] = token[q]
        total += n
    if settings[7] >= 0:
        total += 1
        _add(hidden, rows, settings[7])
    if n_grams > 1:
        hashes[n_hashes] = _EOS_HASH
        total += _word_ngrams(hashes, n_hashes + 1, settings, rows, directory, hidden)
    return total


_EOS_HASH = np.uint32(_fnv(END_OF_SENTENCE))


@kernel
def _is_label(data: Bytes, begin: int, end: int) -> bool:
    if end - begin < LABEL.size:
        return False
    q = 0
    while q < LABEL.size and data[begin + q] == LABEL[q]:
        q += 1
    return q == LABEL.size


@kernel
def _step(h: np.uint32, byte: np.uint8) -> np.uint32:
    """One byte of FNV-1a as fastText has it: the byte is signed."""
    return np.uint32((h ^ np.uint32(np.int32(np.int8(byte)))) * FNV_PRIME)


@kernel
def _hash(data: Bytes, begin: int, end: int) -> np.uint32:
    h = FNV_START
    for q in range(begin, end):
        h = _step(h, data[q])
    return h


@kernel
def _token(
    data: Bytes,
    begin: int,
    end: int,
    settings: Ints,
    rows: Rows,
    word_keys: Hashes,
    word_ids: Ids,
    arena: Bytes,
    word_starts: Ints,
    directory: Hashes,
    out: Rows,
) -> int:
    """Add the rows of one token to `out`: its own where it is known, then those of its subwords."""
    n = 0
    found = _word(data, begin, end, word_keys, word_ids, arena, word_starts)
    if found >= 0:
        n += 1
        _add(out, rows, found)
    min_n, max_n, pruned = settings[4], settings[5], settings[8] != 0
    size = end - begin
    buckets = np.uint32(settings[3])
    share = 1.0 / np.float64(buckets)
    # Position 0 is "<", 1 to size the token, size + 1 ">".
    for a in range(size + 2):
        if 0 < a <= size and data[begin + a - 1] & 0xC0 == 0x80:
            continue
        h, j = FNV_START, a
        for length in range(1, max_n + 1):
            if j >= size + 2:
                break
            h = _step(h, BEGIN if j == 0 else (END if j > size else data[begin + j - 1]))
            j += 1
            while j <= size and data[begin + j - 1] & 0xC0 == 0x80:
                h = _step(h, data[begin + j - 1])
                j += 1
            if length < min_n or (length == 1 and (a == 0 or j == size + 2)):
                continue
            # The remainder by a product: a quotient that is one too large or too small is set right.
            bucket = np.int64(h) - np.int64(np.float64(h) * share) * np.int64(buckets)
            if bucket < 0:
                bucket += np.int64(buckets)
            elif bucket >= np.int64(buckets):
                bucket -= np.int64(buckets)
            row = _ranked(np.uint64(bucket), directory) if pruned else settings[2] + bucket
            if row >= 0:
                n += 1
                _add(out, rows, row)
    return n


@kernel
def _word(
    data: Bytes, begin: int, end: int, word_keys: Hashes, word_ids: Ids, arena: Bytes, word_starts: Ints
) -> np.int64:
    """The number of a known word, or -1."""
    mask = word_keys.size - 1
    code = np.uint64(_hash(data, begin, end))
    slot = np.int64(code) & mask
    while word_keys[slot] != np.uint64(0):
        if word_keys[slot] == code + np.uint64(1):
            number = np.int64(word_ids[slot])
            first = word_starts[number]
            if word_starts[number + 1] - first == end - begin:
                q = 0
                while q < end - begin and arena[first + q] == data[begin + q]:
                    q += 1
                if q == end - begin:
                    return number
        slot = (slot + 1) & mask
    return NONE


@kernel
def _row(h: np.uint64, settings: Ints, directory: Hashes) -> np.int64:
    """The row of a subword's or n-gram's bucket, or -1 where the model was pruned of it."""
    bucket = h % np.uint64(settings[3])
    if settings[8] == 0:
        return settings[2] + np.int64(bucket)
    return _ranked(bucket, directory)


@kernel
def _ranked(bucket: np.uint64, directory: Hashes) -> np.int64:
    at = np.int64(bucket >> np.uint64(6))
    bits = directory[at, 0]
    place = np.uint64(1) << (bucket & np.uint64(63))
    if bits & place == np.uint64(0):
        return NONE
    x = bits & (place - np.uint64(1))
    # How many bits are set, by halves (Warren, Hacker's Delight, 5-1).
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64(directory[at, 1] + ((x * np.uint64(0x0101010101010101)) >> np.uint64(56)))


@kernel
def _add(out: Rows, rows: Rows, row: np.int64) -> None:
    """out += rows[row]; sixteen dimensions, which lid.176 has, without a loop."""
    if out.size == 16:
        for q in range(16):
            out[q] += rows[row, q]
    else:
        for q in range(out.size):
            out[q] += rows[row, q]


@kernel
def _word_ngrams(
    hashes: NDArray[np.uint32],
    n: int,
    settings: Ints,
    rows: Rows,
    directory: Hashes,
    out: Rows,
) -> int:
    """Add the rows of every run of 2 to `word_ngrams` tokens."""
    added = 0
    for i in range(n):
        h = np.uint64(np.int64(np.int32(hashes[i])))
        for j in range(i + 1, min(n, i + settings[6])):
            h = h * NGRAM_PRIME + np.uint64(np.int64(np.int32(hashes[j])))
            row = _row(h, settings, directory)
            if row >= 0:
                added += 1
                _add(out, rows, row)
    return added


@kernel
def _log(x: float) -> np.float32:
    """fastText's logarithm, which has no minus infinity."""
    return np.float32(np.log(x + 1e-5))


@kernel
def _insert(best: Ints, best_score: Rows, found: int, label: int, score: np.float32) -> int:
    """Put a label in its place among the best; return how many there are."""
    j = found if found < best.size else best.size - 1
    if found == best.size and score <= best_score[j]:
        return found
    while j > 0 and best_score[j - 1] < score:
        best[j], best_score[j] = best[j - 1], best_score[j - 1]
        j -= 1
    best[j], best_score[j] = label, score
    return min(found + 1, best.size)


@kernel
def _dot(hidden: Rows, output: Rows, row: int) -> np.float32:
    total = np.float32(0)
    for q in range(hidden.size):
        total += output[row, q] * hidden[q]
    return total


@kernel
def _descend(
    hidden: Rows,
    output: Rows,
    left: Ids,
    right: Ids,
    n_labels: int,
    stack: Ints,
    path: Rows,
    best: Ints,
    best_score: Rows,
) -> int:
    """The best leaves of the Huffman tree and one more, likelier branches first; return how many."""
    found = 0
    stack[0], path[0] = 2 * n_labels - 2, np.float32(0)
    depth = 1
    while depth > 0:
        depth -= 1
        node, score = stack[depth], path[depth]
        # A label that is further behind than MARGIN puts none of the first k in doubt.
        if found >= best.size - 1 and score < best_score[best.size - 2] - MARGIN:
            continue
        if left[node] < 0:
            found = _insert(best, best_score, found, node, score)
            continue
        f = np.float32(1.0 / (1.0 + np.exp(-_dot(hidden, output, node - n_labels))))
        down = score + _log(1.0 - f)
        up = score + _log(np.float64(f))
        # What lies on top of the stack is looked at first.
        first, second = (0, 1) if f > np.float32(0.5) else (1, 0)
        stack[depth + first], path[depth + first] = left[node], down
        stack[depth + second], path[depth + second] = right[node], up
        depth += 2
    return found


@kernel
def _scan(hidden: Rows, output: Rows, n_labels: int, softmax: bool, values: Rows, best: Ints, best_score: Rows) -> int:
    """The best labels and one more by softmax, or by a sigmoid of each label alone; return how many."""
    most = LOWEST
    for r in range(n_labels):
        values[r] = _dot(hidden, output, r)
        most = max(most, values[r])
    total = np.float32(0)
    for r in range(n_labels):
        if softmax:
            values[r] = np.float32(np.exp(np.float64(values[r] - most)))
            total += values[r]
        else:
            values[r] = _sigmoid(values[r])
    found = 0
    for r in range(n_labels):
        found = _insert(best, best_score, found, r, _log(np.float64(values[r] / total if softmax else values[r])))
    return found


@kernel
def _sigmoid(x: np.float32) -> np.float32:
    """fastText's sigmoid: a table of 512 steps between -8 and 8."""
    if x < -8:
        return np.float32(0.0)
    if x > 8:
        return np.float32(1.0)
    step = np.int64((x + np.float32(8.0)) * np.float32(512) / np.float32(8.0) / np.float32(2.0))
    at = np.float32(np.float32(step * 16) / np.float32(512) - np.float32(8.0))
    return np.float32(1.0 / (1.0 + np.exp(np.float64(-at))))
