"""Signals of every document: gopher, repetition, fineweb and c4 as a build measures them, against filters that decide.

datatrove's filters stop at the first bound that is broken, so they do less than what ours does; each of them is given
every document. Compared is what each filter decides with what its bounds make of our signals.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.comparison import Comparison
from tests.bench.works.dedup_peers import whitespace

THREE = "signals of gopher, repetition and fineweb"
FOUR = "signals of gopher, repetition, fineweb and c4"
COMPARISONS = [
    Comparison(THREE, "gristmill", "datatrove_whitespace", "sample", 22, 40, "words by str.split"),
    Comparison(THREE, "gristmill", "datatrove", "sample", how="as it comes: spaCy's words"),
    Comparison(FOUR, "gristmill_c4", "datatrove_c4", "sample", 100, 200, "as it comes: spaCy's words and sentences"),
    Comparison(THREE, "gristmill", "polars_textproc", "corpus", 6, 12, "repetition signals alone"),
]
DATATROVE = {
    "gopher": "GopherQualityFilter",
    "repetition": "GopherRepetitionFilter",
    "fineweb": "FineWebQualityFilter",
    "c4": "C4QualityFilter",
}
BELOW, ABOVE = operator.lt, operator.gt
Bound = tuple[str, Callable[[Any, Any], Any], float]
# What datatrove's filters drop by default.
BOUNDS: dict[str, list[Bound]] = {
    "gopher": [
        ("word_count", BELOW, 50),
        ("word_count", ABOVE, 100_000),
        ("mean_word_length", BELOW, 3),
        ("mean_word_length", ABOVE, 10),
        ("hash_ratio", ABOVE, 0.1),
        ("ellipsis_ratio", ABOVE, 0.1),
        ("bullet_line_ratio", ABOVE, 0.9),
        ("ellipsis_line_ratio", ABOVE, 0.3),
        ("alphabetic_word_ratio", BELOW, 0.8),
        ("stop_word_count", BELOW, 2),
    ],
    "repetition": [
        ("duplicate_lines", ABOVE, 0.3),
        ("duplicate_paragraphs", ABOVE, 0.3),
        ("duplicate_line_characters", ABOVE, 0.2),
        ("duplicate_paragraph_characters", ABOVE, 0.2),
        *((f"top_{n}gram_characters", ABOVE, bound) for n, bound in ((2, 0.2), (3, 0.18), (4, 0.16))),
        *((f"duplicate_{n}gram_characters", ABOVE, (20 - n) / 100) for n in range(5, 11)),
    ],
    "fineweb": [
        ("punctuated_line_ratio", BELOW, 0.12),
        ("short_line_ratio", ABOVE, 0.67),
        ("duplicate_line_characters", ABOVE, 0.01),
        ("newline_ratio", ABOVE, 0.3),
    ],
    "c4": [("sentences", BELOW, 5), ("lorem_ipsum", ABOVE, 0), ("curly_bracket", ABOVE, 0)],
}
NGRAMS = [bound for bound in BOUNDS["repetition"] if "gram" in bound[0]]


def gristmill(
    data: Path, folder: Path, among: tuple[str, ...] = ("gopher", "repetition", "fineweb")
) -> Callable[[], dict[str, Any]]:
    """The stages one after another over each batch, as the runner has them."""
    from tests.bench.works.ours import batches, stages, through

    named = [name for name in among if name in measured(data)]
    loaded = stages(*named, dialect="datatrove")
    through(next(batches(data, 16)), loaded)
    read = list(batches(data))

    def work() -> dict[str, Any]:
        found = [through(batch, loaded) for batch in read]
        return {
            name: [value for batch in found for value in batch[name].to_numpy(zero_copy_only=False)]
            for name in found[0].schema.names
            if "." in name
        }

    return work


def gristmill_c4(data: Path, folder: Path) -> Callable[[], dict[str, Any]]:
    """The same and c4."""
    return gristmill(data, folder, tuple(BOUNDS))


def measured(data: Path) -> list[str]:
    """The stages that there are: `inputs.make` leaves their names beside the data, for peers are measured by them."""
    return (data.parent / "stages").read_text("utf-8").split()


def datatrove(
    data: Path, folder: Path, language: Any = "eng", among: tuple[str, ...] = ("gopher", "repetition", "fineweb")
) -> Callable[[], dict[str, list[bool]]]:
    """Its filters' own `filter`, over Documents in memory."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    named = [name for name in among if name in measured(data)]
    each = {name: getattr(filters, DATATROVE[name])(language=language) for name in named}
    documents = [Document(text, str(n)) for n, text in enumerate(strings(data))]
    for one in each.values():
        one.filter(Document("The mill turns. " * 40, "warm"))
    return lambda: {name: [one.filter(document) is True for document in documents] for name, one in each.items()}


def datatrove_whitespace(data: Path, folder: Path) -> Callable[[], dict[str, list[bool]]]:
    """The same with words split at white space."""
    return datatrove(data, folder, whitespace())


def datatrove_c4(data: Path, folder: Path) -> Callable[[], dict[str, list[bool]]]:
    """As it comes, and c4 behind, which cleans the text that it keeps."""
    return datatrove(data, folder, among=tuple(BOUNDS))


def polars_textproc(data: Path, folder: Path) -> Callable[[], dict[str, Any]]:
    """Its expression `repetition_signals` over a column in memory."""
    import polars as pl
    from polars_textproc import repetition_signals

    texts = pl.DataFrame({"text": strings(data)})
    measure = texts.lazy().select(repetition_signals(pl.col("text")).alias("found"))
    texts.head(4).select(repetition_signals(pl.col("text")))
    return lambda: measure.collect()["found"].struct.unnest().to_dict(as_series=False)


def strings(data: Path) -> list[str]:
    """The texts as Python strings."""
    import pyarrow.parquet as pq

    return pq.read_table(data, columns=["text"])["text"].to_pylist()


def differences(ours: dict[str, Any], theirs: dict[str, Any], data: Path) -> str:
    """How many documents each filter decides alike."""
    if "top_2_gram_char_ratio" not in theirs:
        return "decided alike: " + ", ".join(
            f"{name} {alike(kept(ours, name, BOUNDS[name]), decided)}" for name, decided in theirs.items()
        )
    if f"repetition.{NGRAMS[0][0]}" not in ours:
        return "there is no stage repetition to compare with"
    columns = {
        f"repetition.{name}": theirs[name.replace("duplicate", "dup").replace("gram_characters", "_gram_char_ratio")]
        for name, _, _ in NGRAMS
    }
    same = alike(kept(ours, "repetition", NGRAMS), kept(columns, "repetition", NGRAMS))
    return f"decided alike by n-grams: {same}; its words are \\w+ and ours stand between white space"


def kept(values: dict[str, Any], stage: str, bounds: Sequence[Bound]) -> list[bool]:
    """Whether each document breaks none of the bounds of a stage; what is not defined breaks one."""
    import numpy as np

    columns = [np.array(values[f"{stage}.{name}"], float) for name, _, _ in bounds]
    broken = [
        breaks(column, bound) | np.isnan(column) for column, (_, breaks, bound) in zip(columns, bounds, strict=True)
    ]
    return (~np.any(broken, axis=0)).tolist()


def alike(mine: list[bool], other: list[bool]) -> str:
    """Documents that both keep or both drop, of all."""
    same = sum(a == b for a, b in zip(mine, other, strict=True))
    return f"{same:,} of {len(other):,}"


SIDES = {
    "gristmill": gristmill,
    "gristmill_c4": gristmill_c4,
    "datatrove": datatrove,
    "datatrove_c4": datatrove_c4,
    "datatrove_whitespace": datatrove_whitespace,
    "polars_textproc": polars_textproc,
}
