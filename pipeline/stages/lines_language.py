"""Whether a text is written in one language: that of each of its lines, by fastText's lid.176, weighed by length.

    main_share   of the characters of the lines that are judged, those of lines in the commonest language
    languages    how many languages have at least `least_share` of them

A line is judged that has `characters` or more. An untranslated paragraph in a translated page shows here, where the
language of the whole page does not tell of it. Short lines are told wrong more often (of sentences one in five,
`tests/bench/lid.py`): take the bound from a sample of your pages. A text without such a line has nulls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import scores
from pipeline.models import LANGUAGE_MODEL
from pipeline.stage import measure
from pipeline.stages.language import identifier

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule


@measure(main_share="float64", languages="int32")
def lines_language(batch: pa.RecordBatch, *, characters: int = 30, least_share: float = 0.05) -> dict[str, pa.Array]:
    """Measure every document. Raises ModelError where the model cannot be had."""
    lines = pc.split_pattern(batch["text"], "\n")
    rows, flat = pc.list_parent_indices(lines).to_numpy(), pc.utf8_trim_whitespace(lines.flatten())
    sizes = pc.utf8_length(flat).to_numpy(zero_copy_only=False)
    judged = np.flatnonzero(sizes >= characters)
    rows, sizes = rows[judged], sizes[judged]
    known = scores.labels(identifier())
    found = np.zeros((batch.num_rows, len(known)), np.int64)
    if judged.size:
        labels, _ = identifier()(flat.take(pa.array(judged)))
        told = labels[:, 0] >= 0
        np.add.at(found, (rows[told], labels[told, 0]), sizes[told])
    whole = found.sum(axis=1)
    shares = found / np.maximum(whole, 1)[:, None]
    blind = whole == 0
    return {
        "main_share": pa.array(shares.max(axis=1, initial=0), pa.float64(), mask=blind),
        "languages": pa.array((shares >= least_share).sum(axis=1), pa.int32(), mask=blind),
    }


def check(*, characters: int, least_share: float) -> None:
    """Raise ValueError for parameters that cannot be."""
    if characters < 1 or not 0 < least_share <= 1:
        raise ValueError("characters are at least 1, least_share lies above 0 and at most at 1")


def resources(**params: object) -> dict[str, str]:
    """The pinned model file."""
    return {LANGUAGE_MODEL["name"]: LANGUAGE_MODEL["sha256"]}


def examples(rule: Rule, limit: Any, **params: Any) -> Examples:
    """A paragraph in each of ever more languages, and the first again and again among the others."""
    from pipeline.examples import chosen
    from pipeline.stages._specimens import LANGUAGES, shipped

    texts = [" ".join(shipped(lang).split()) for lang in LANGUAGES]
    mixed = ["\n".join(texts[:n]) for n in range(1, len(texts) + 1)]
    mixed += ["\n".join([*texts[:1] * n, *texts[1:]]) for n in (2, 4, 8, 16, 32, 64)]
    found = lines_language(pa.record_batch([pa.array(mixed, pa.large_string())], ["text"]), **params)
    return chosen(
        rule, [(text,) for text in mixed], [v if v is None else round(v, 6) for v in found[rule.column].to_pylist()]
    )
