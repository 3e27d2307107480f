"""How far a text can be compressed: its bytes over those that gzip makes of them, level 6, the header counted.

Text of one language in whole sentences lies about 2 for a paragraph and 3 to 5 for pages; lists of the same line, lies
far above, and noise below (Whisper drops transcripts above 2.4, of some sentences each). A short text has a low ratio
by its header alone, so bound it together with a length.

Compressed bytes hang on the library. Arrow's own is used, whose version is in the key: a build with another one is
another build, never a silent difference. It holds no lock. An empty text has no ratio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.stage import measure

if TYPE_CHECKING:
    from pipeline.examples import Examples
    from pipeline.rules import Rule

LEVEL = 6


@measure(ratio="float64")
def compression(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Measure every document."""
    codec = pa.Codec("gzip", LEVEL)
    found = []
    for text in batch["text"]:
        data = text.as_buffer()
        found.append(data.size / codec.compress(data).size if data is not None and data.size else None)
    return {"ratio": pa.array(found, pa.float64())}


def resources(**params: object) -> dict[str, str]:
    """The version of the library that compresses."""
    return {"pyarrow": pa.__version__}


def examples(rule: Rule, limit: Any) -> Examples:
    """Words that differ, one word again and again, and a few letters; their ratios are measured."""
    from pipeline.examples import chosen, cycled, fresh, lines

    texts = ["m", "mi", *(lines(fresh(0, n)) for n in (1, 3, 10, 100)), *(lines(cycled(n)) for n in (10, 100, 1000))]
    texts += ["mill " * (1 << n) for n in range(12)]
    batch = pa.record_batch([pa.array(texts, pa.large_string())], ["text"])
    values = compression(batch)["ratio"].to_pylist()
    return chosen(rule, [(text,) for text in texts], [round(value, 6) for value in values])
