"""The peers' MinHash dedup, from a Parquet file to one of the documents that they keep.

14 bands of 8 rows over word 5-grams, as FineWeb has them. Where a package gives sketches or bands alone, what its
documentation shows is around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BANDS, ROWS, WORDS, THRESHOLD = 14, 8, 5, 0.75
Work = Callable[[], dict[str, list[Any]]]


def datatrove(data: Path, folder: Path, language: Any = "eng") -> Work:
    """Its four steps through its local executor, one task each (one a band for the second), one worker."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline import dedup
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    logger.remove()
    config = dedup.MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS)
    load_word_tokenizer(language).word_tokenize("The mill turns.")
    signed, banded, gone, kept = (str(folder / name) for name in ("signed", "banded", "gone", "kept"))

    def read() -> ParquetReader:
        return ParquetReader(str(data.parent), glob_pattern=data.name, doc_progress=False, file_progress=False)

    steps = [
        (1, [read(), dedup.MinhashDedupSignature(signed, config=config, language=language)]),
        (BANDS, [dedup.MinhashDedupBuckets(signed, banded, config=config)]),
        (1, [dedup.MinhashDedupCluster(banded, gone, config=config)]),
        (1, [read(), dedup.MinhashDedupFilter(gone), ParquetWriter(kept, compression="zstd")]),
    ]

    def work() -> dict[str, list[Any]]:
        for number, (tasks, pipeline) in enumerate(steps):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
        return {"kept": ids(next((folder / "kept").glob("*.parquet")))}

    return work


def datatrove_whitespace(data: Path, folder: Path) -> Work:
    """The same with words split at white space, which is the fastest word tokenizer that it can be given."""
    return datatrove(data, folder, whitespace())


def whitespace() -> Any:
    """`str.split` as datatrove's word tokenizer. Its own WhitespaceTokenizer goes through spaCy."""
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer

    class Split(WhitespaceTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    return Split()


def text_dedup(data: Path, folder: Path) -> Work:
    """Its command `text_dedup.minhash` in this process, with its faster hash."""
    import datasets
    from text_dedup.minhash import main

    datasets.disable_progress_bars()
    out = folder / "kept"
    arguments = {
        "path": "parquet",
        "data_files": data,
        "split": "train",
        "cache_dir": folder / "cache",
        "output": out,
        "column": "text",
        "ngram": WORDS,
        "num_perm": BANDS * ROWS,
        "b": BANDS,
        "r": ROWS,
        "threshold": THRESHOLD,
        "hash_func": "xxh3",
        "num_proc": 1,
    }
    line = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]

    def work() -> dict[str, list[Any]]:
        main(line, standalone_mode=False)
        return {"kept": datasets.load_from_disk(str(out))["id"][:]}

    return work


def datasketch(data: Path, folder: Path) -> Work:
    """MinHash.update_batch with xxh32 and MinHashLSH: a document stays if no document before it shares a band."""
    import datasketch as sketches
    import xxhash

    first = sketches.MinHash(BANDS * ROWS, hashfunc=xxhash.xxh32_intdigest)

    def work() -> dict[str, list[Any]]:
        index = sketches.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        kept = []
        for name, text in documents(data):
            sketch = first.copy()
            if shingled := {shingle.encode() for shingle in shingles(text)}:
                sketch.update_batch(shingled)
                if index.query(sketch):
                    continue
                index.insert(name, sketch)
            kept.append(name)
        return write(data, folder, kept)

    return work


def rensa(data: Path, folder: Path) -> Work:
    """RMinHashDeduplicator.add_pairs: what its documentation begins with; it checks candidates by their sketches."""
    from rensa import RMinHashDeduplicator

    def work() -> dict[str, list[Any]]:
        known = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=BANDS * ROWS, use_lsh=True, num_bands=BANDS)
        names, kept = [], []
        for name, text in documents(data):
            names.append((name, shingles(text)))
            if len(names) == 1024:
                kept += [pair[0] for pair, new in zip(names, known.add_pairs(names), strict=True) if new]
                names = []
        kept += [pair[0] for pair, new in zip(names, known.add_pairs(names), strict=True) if new]
        return write(data, folder, kept)

    return work


def polars_textproc(data: Path, folder: Path) -> Work:
    """Its expression `minhash`, and polars: a document stays if in each band it is the first of its kind."""
    import polars as pl
    from polars_textproc import minhash

    pl.select(minhash(pl.Series(["The mill turns."]).str.to_lowercase()))

    def work() -> dict[str, list[Any]]:
        signed = pl.scan_parquet(data).with_columns(m=minhash(pl.col("text").str.to_lowercase(), window=WORDS))
        first = [pl.col("m").str.slice(32 * band, 32).is_first_distinct() for band in range(BANDS)]
        left = signed.filter(pl.col("m").is_null() | pl.all_horizontal(first)).drop("m").collect()
        left.write_parquet(folder / "kept.parquet")
        return {"kept": left["id"].to_list()}

    return work


def documents(data: Path) -> Iterator[tuple[str, str]]:
    """id and text, decoded as they are asked for."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(data).iter_batches(4096, columns=["id", "text"]):
        yield from zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True)


def shingles(text: str, words: Callable[[str], list[str]] = re.compile(r"\w+").findall) -> list[str]:
    """Word 5-grams of the lower-cased text; all of it where it is shorter."""
    found = words(text.lower())
    return [" ".join(found[i : i + WORDS]) for i in range(max(len(found) - WORDS + 1, min(len(found), 1)))]


def write(data: Path, folder: Path, kept: list[str]) -> dict[str, list[Any]]:
    """The kept documents as Parquet."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(data)
    left = table.filter(pc.is_in(table["id"], pa.array(kept, pa.string())))
    pq.write_table(left, folder / "kept.parquet", compression="zstd")
    return {"kept": kept}


def ids(path: Path) -> list[str]:
    """The column `id` of a Parquet file."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["id"])["id"].to_pylist()
