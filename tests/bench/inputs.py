"""The inputs of a run of the bench: Parquet files of `id` and `text` in one folder, with what both sides read.

    corpus    the whole data file
    sample    some of its rows for peers that would take minutes: runs of 64 rows, spread evenly
    english   its rows that are English: hardly anything but ASCII, and `the` once in 200 bytes
    chinese   its rows that are Chinese: more than half of the bytes are Han characters, and there are no kana
    code      the modules of this Python's standard library

The last three are cut at MOST bytes. Beside them lie the names of the stages that there are, fastText's lid.176.ftz
and tokenizer.json: GPT-2's, where it lies in tokenizers/gpt2 beside the data's folder, else one that is trained here.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipeline.models import language_model
from pipeline.stage import available
from pipeline.tokens import vocabulary

RUN, MOST, ENTRIES = 64, 10_000_000, 4096


def make(data: Path, folder: Path, sample: int, most: int = MOST) -> dict[str, Path]:
    """Write every input below `folder`. Returns their paths by name."""
    table = pq.read_table(data, columns=["id", "text"]).combine_chunks()
    tables = {
        "corpus": table,
        "sample": table.take(pa.array(spread(table.num_rows, sample))),
        "english": _first(table.filter(_english(table["text"])), most),
        "chinese": _first(table.filter(_chinese(table["text"])), most),
        "code": _first(pa.table(dict(zip(("id", "text"), zip(*_modules(most), strict=True), strict=True))), most),
    }
    for name, rows in tables.items():
        pq.write_table(rows, folder / f"{name}.parquet", compression="zstd", row_group_size=4096)
    shutil.copy(language_model(), folder / "lid.176.ftz")
    (folder / "stages").write_text(" ".join(available()), "utf-8")
    _tokenizer(data, tables["sample"]).save(str(folder / "tokenizer.json"))
    return {name: folder / f"{name}.parquet" for name in tables}


def spread(rows: int, wanted: int) -> list[int]:
    """About `wanted` of `rows` row numbers, ascending, in runs of neighbours."""
    runs = max(1, min(wanted, rows) // RUN)
    begins = np.linspace(0, max(rows - RUN, 0), runs).astype(int)
    return sorted({row for begin in begins for row in range(begin, min(begin + RUN, rows))})


def text_bytes(path: Path) -> int:
    """Bytes of text in an input."""
    return int(pc.sum(pc.binary_length(pq.read_table(path, columns=["text"])["text"])).as_py() or 0)


def _english(text: pa.ChunkedArray) -> pa.ChunkedArray:
    size = pc.binary_length(text)
    wide = pc.subtract(size, pc.utf8_length(text))
    articles = pc.count_substring(text, " the ")
    return pc.and_(
        pc.less_equal(pc.multiply(wide, 100), size),
        pc.greater_equal(pc.multiply(articles, 200), pc.max_element_wise(size, 1)),
    )


def _chinese(text: pa.ChunkedArray) -> pa.ChunkedArray:
    rest = pc.binary_length(pc.replace_substring_regex(text, r"\p{Han}", ""))
    kana = pc.match_substring_regex(text, r"[\p{Hiragana}\p{Katakana}]")
    return pc.and_(pc.less(pc.multiply(rest, 2), pc.binary_length(text)), pc.invert(kana))


def _first(table: pa.Table, most: int) -> pa.Table:
    """The rows from the first on, up to `most` bytes of text and at least one."""
    sizes = pc.binary_length(table["text"]).to_numpy().astype(np.int64)
    return table.slice(0, max(1, int(np.searchsorted(np.cumsum(sizes), most, side="right"))))


def _modules(most: int) -> Iterator[tuple[str, str]]:
    """Path and text of modules of the standard library, until there are `most` bytes of them."""
    root, size = Path(sysconfig.get_paths()["stdlib"]), 0
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.parts or size >= most:
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:  # some of its tests are written so on purpose
            continue
        size += len(text)
        yield str(path.relative_to(root)), text


def _tokenizer(data: Path, sample: pa.Table) -> Tokenizer:
    """GPT-2's tokenizer if its files are there, else a small one of the same kind."""
    given = data.parent.parent / "tokenizers" / "gpt2"
    if not given.is_dir():
        return vocabulary.train(sample["text"].to_pylist(), ENTRIES)
    tokenizer = Tokenizer(models.BPE.from_file(str(given / "encoder.json"), str(given / "vocab.bpe")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([vocabulary.END_OF_TEXT])
    return tokenizer
