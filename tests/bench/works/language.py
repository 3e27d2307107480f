"""Language of every document: the stage `language` against fastText itself, on the same first 10,000 characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison

CHARACTERS = 10_000
COMPARISONS = [Comparison("language of every document", "gristmill", "fasttext", "corpus", at_least=5, aim=12)]


def gristmill(data: Path, folder: Path) -> Callable[[], dict[str, list[Any]]]:
    """The stage, a batch at a time, over the text as Arrow holds it."""
    from tests.bench.works.ours import batches, stages, warm

    (language,) = stages("language")
    warm(data, language)
    texts = list(batches(data))

    def work() -> dict[str, list[Any]]:
        found = [language(batch) for batch in texts]
        return {name: [value for part in found for value in part[name].to_pylist()] for name in ("lang", "score")}

    return work


def fasttext(data: Path, folder: Path) -> Callable[[], dict[str, list[Any]]]:
    """fastText's own `predict`, over Python strings: it takes nothing else."""
    import pyarrow.parquet as pq
    from fasttext.FastText import _FastText

    texts = pq.read_table(data, columns=["text"])["text"].to_pylist()
    predict = _FastText(str(data.parent / "lid.176.ftz")).f.predict
    predict("The mill turns.\n", 1, 0.0, "strict")

    def work() -> dict[str, list[Any]]:
        found = [predict(text[:CHARACTERS].replace("\n", " ") + "\n", 1, 0.0, "strict") for text in texts]
        return {
            "lang": [label[0][1].removeprefix("__label__") if label else None for label in found],
            "score": [min(label[0][0], 1.0) if label else None for label in found],
        }

    return work


def differences(ours: dict[str, list[Any]], theirs: dict[str, list[Any]], data: Path) -> str:
    """Labels and scores, document by document."""
    pairs = list(zip(ours["lang"], theirs["lang"], ours["score"], theirs["score"], strict=True))
    labels = sum(a != b for a, b, _, _ in pairs if a is not None)
    blank = sum(a is None and b is not None for a, b, _, _ in pairs)
    far = max((abs(c - d) for _, _, c, d in pairs if c is not None and d is not None), default=0.0)
    said = f"{len(pairs) - labels - blank:,} of {len(pairs):,} labels equal, scores within {far:.1g}"
    return said + (f"; {blank} texts without a visible character have no language here" if blank else "")


SIDES = {"gristmill": gristmill, "fasttext": fasttext}
