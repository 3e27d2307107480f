"""Files that stages are given in tests that run over every stage, where they cannot do without.

filter.bin and filter.json come from the samples that ship:
    gristmill train-filter given --positive catalogs/samples/en.jsonl --negative catalogs/samples/de.jsonl --out given
        --documents 24 --hold-back 0.4 --dim 4 --bucket 400 --lr 0.5 --epoch 100
bigrams.arpa has the commonest words and pairs of words of six English samples, discounted by half a count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GIVEN: dict[str, dict[str, Any]] = {
    "classifier": {"model": str(HERE / "filter.bin")},
    "perplexity": {"model": str(HERE / "bigrams.arpa")},
    "toxicity": {"words": [str(HERE / "words.txt")]},
    "url": {"hosts": str(HERE / "hosts.txt"), "words": str(HERE / "url_words.txt")},
}
