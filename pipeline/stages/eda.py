"""More labelled text to train on: random swap and random deletion of words (Easy Data Augmentation, Wei and Zou 2019).

Children are made of labelled originals in the training split only: a child of a validation document would leak, and a
child of a child drifts. Odd children have swap * n pairs of words exchanged (at least one), even ones lose each word
with probability `deletion`; where one rate is 0 all are made by the other. A word stands between white space; in
scripts without spaces each letter is one, with the punctuation behind it. A child that equals its parent or an earlier
one is not made, so there may be fewer than `children`.

What is drawn hangs on (seed, doc_id, number of the child) alone: not on batch, partition or order. The paper's synonym
replacement and insertion need a thesaurus of the language and are left out; it finds most of the gain without them at
rates of .05 to .1, in sets of a few hundred to a few thousand documents.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from pipeline.kernels.random import stream
from pipeline.kernels.unicode import ALNUM, MARK, SPACE, SPACELESS, code_points, table, table_digest
from pipeline.stage import extend


@extend
def eda(
    batch: pa.RecordBatch, *, children: int = 4, swap: float = 0.1, deletion: float = 0.1, seed: int = 7
) -> pa.RecordBatch:
    """Append the children of every labelled training document, `doc_id#eda1`, `doc_id#eda2`, ...

    All other columns are the parent's. Needs the column `split`, which is known behind a relating stage.
    """
    parents, ids, texts = [], [], []
    columns = (batch[name].to_pylist() for name in ("doc_id", "parent_id", "label", "split"))
    for row, (doc_id, parent_id, label, split) in enumerate(zip(*columns, strict=True)):
        if parent_id is None and label is not None and split == "train":
            for number, text in _children(batch["text"][row].as_py(), doc_id, children, swap, deletion, seed):
                parents.append(row)
                ids.append(f"{doc_id}#eda{number}")
                texts.append(text)
    if not parents:
        return batch
    born = batch.take(pa.array(parents))
    for name, values in (("doc_id", ids), ("parent_id", born["doc_id"]), ("text", texts)):
        field = batch.schema.field(name)
        values = values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)
        born = born.set_column(batch.schema.get_field_index(name), field, values)
    return pa.concat_batches([batch, born])


def check(*, children: int, swap: float, deletion: float, seed: int) -> None:
    """Raise ValueError for parameters that cannot be."""
    if children < 1 or not 0 <= swap <= 1 or not 0 <= deletion < 1 or swap == deletion == 0:
        raise ValueError(
            f"children must be at least 1, swap at most 1, deletion below 1 and one of the rates above 0, not "
            f"children={children}, swap={swap}, deletion={deletion}"
        )


def resources(**params: object) -> dict[str, str]:
    """The table of characters that says where a word ends."""
    return {"unicode14": table_digest()}


def pieces(text: str) -> list[tuple[int, int]]:
    """Bounds of the words of a text: runs between white space, cut before each letter of a script without spaces and
    before a letter or digit that follows one."""
    flags = table()[code_points(text)]
    space, alone = flags & SPACE > 0, flags & SPACELESS > 0
    telling = np.where(space | alone | (flags & ALNUM > 0), np.arange(flags.size), -1)
    before = np.maximum.accumulate(np.concatenate([[-1], telling]))[:-1]
    after_alone = (before >= 0) & alone[before]
    begins = ~space & np.concatenate([[True], space])[:-1]
    begins |= alone | (after_alone & (flags & ALNUM > 0) & (flags & MARK == 0))
    starts = np.flatnonzero(begins)
    # A word ends where the next one begins or at the first white space, whichever comes first.
    spaces = np.append(np.flatnonzero(space), flags.size)
    ends = np.minimum(np.append(starts[1:], flags.size), spaces[np.searchsorted(spaces, starts)])
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _children(text: str, doc_id: str, children: int, swap: float, deletion: float, seed: int) -> list[tuple[int, str]]:
    bounds = pieces(text)
    made: dict[str, int] = {text: 0}
    for number in range(1, children + 1):
        if len(bounds) < 2:
            break
        key = hashlib.blake2b(f"{seed}:{number}:{doc_id}".encode(), digest_size=8).digest()
        draws = stream(int.from_bytes(key, "big"), 2 * len(bounds) + 2).tolist()
        swaps = swap > 0 and (number % 2 == 1 or deletion == 0)
        child = _swapped(text, bounds, swap, draws) if swaps else _thinned(text, bounds, deletion, draws)
        made.setdefault(child, number)
    return [(number, child) for child, number in made.items() if number]


def _swapped(text: str, bounds: list[tuple[int, int]], rate: float, draws: list[int]) -> str:
    """Exchange max(1, rate * n) random pairs of words; what stands between words stays."""
    words = [text[a:b] for a, b in bounds]
    for k in range(max(1, int(rate * len(words)))):
        i, j = (draw * len(words) >> 64 for draw in draws[2 * k : 2 * k + 2])
        words[i], words[j] = words[j], words[i]
    begins = [a for a, _ in bounds[1:]] + [len(text)]
    gaps = [text[end:begin] for (_, end), begin in zip(bounds, begins, strict=True)]
    return text[: bounds[0][0]] + "".join(word + gap for word, gap in zip(words, gaps, strict=True))


def _thinned(text: str, bounds: list[tuple[int, int]], rate: float, draws: list[int]) -> str:
    """Delete each word with probability `rate`, and the white space on one side of it; one word is left in any case."""
    kept = [draw >> 11 >= rate * (1 << 53) for draw in draws[: len(bounds)]]
    if not any(kept):
        kept[draws[len(bounds)] * len(bounds) >> 64] = True
    begins, left = [a for a, _ in bounds[1:]] + [len(text)], ""
    for (a, b), begin, stays in zip(bounds, begins, kept, strict=True):
        # The white space behind stays where there is none before: no two words are made one.
        left += text[a:begin] if stays else text[b:begin] if left and not left[-1].isspace() else ""
    return left.strip()
