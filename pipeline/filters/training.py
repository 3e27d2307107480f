"""fastText supervised training (Joulin et al. 2016, arXiv 1607.01759), the same bytes for the same texts and seed.

It runs in a process of its own: the library keeps state from one training to the next, prints, and does not heed
Ctrl-C. One thread, since several write to the same matrix at once; texts come in an order that the seed decides.

With one thread fastText draws the first tenth of its matrix and leaves the rest as the memory was: 0 in fresh pages of
the system, anything at all in a small model, whose training then ends in "Encountered NaN". So the process has the C
library hand out zeros.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from pipeline.filters.texts import LABEL
from pipeline.mistakes import ConfigError

# What the child runs; it reads nothing but its arguments.
CHILD = """
import json, sys
import fasttext.FastText
settings = json.loads(sys.argv[3])
model = fasttext.FastText.train_supervised(sys.argv[1], thread=1, verbose=0, **settings)
model.save_model(sys.argv[2])
"""
# glibc fills what it hands out with the complement of this byte.
ZEROS = {"MALLOC_PERTURB_": "255"}
MINIMUM = 2


@dataclass(frozen=True)
class Settings:
    """fastText's own names and defaults, but for `wordNgrams`, which DCLM sets to 2.

    `minn` and `maxn` are the shortest and longest n-gram of characters, 0 and 0 for none.
    """

    wordNgrams: int = 2
    minn: int = 0
    maxn: int = 0
    dim: int = 100
    epoch: int = 5
    lr: float = 0.1
    bucket: int = 2_000_000
    minCount: int = 1
    loss: str = "softmax"
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError for settings that cannot be."""
        if not (1 <= self.wordNgrams <= 10 and 0 <= self.minn <= self.maxn <= 20 and 1 <= self.dim <= 4096):
            raise ConfigError("word n-grams lie between 1 and 10, 0 <= min-n <= max-n <= 20, dimensions 1 to 4,096")
        if not (1 <= self.epoch <= 1000 and 0 < self.lr <= 10 and 1 <= self.bucket <= 100_000_000):
            raise ConfigError("epochs lie between 1 and 1,000, the learning rate above 0, buckets 1 to 100,000,000")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"the seed lies between 0 and 2,147,483,647, not {self.seed}")


def available() -> bool:
    """Whether the library is installed that trains; what it trained is applied without it."""
    return importlib.util.find_spec("fasttext") is not None


def train(texts: Mapping[str, Iterable[str]], settings: Settings, model: Path) -> None:
    """Write the model of some labels, each with its lines (`texts.line`), to the path `model`.

    Raises ConfigError where there is one label only, a label has a single text, a label is no word, or fastText is not
    there or fails.
    """
    settings.check()
    if not available():
        raise ConfigError("training a classifier needs fastText: pip install 'gristmill[filter]'")
    rows = [(label, text) for label, lines in sorted(texts.items()) for text in lines]
    counts = {label: sum(mine == label for mine, _ in rows) for label in texts}
    if len(counts) < 2:
        raise ConfigError(f"a classifier needs two labels, and there is one: {', '.join(counts) or 'none'}")
    if few := [label for label, count in counts.items() if count < MINIMUM]:
        raise ConfigError(f"label {few[0]!r} has {counts[few[0]]} text to train on; it needs {MINIMUM} or more")
    if wrong := [label for label in counts if not label or any(c.isspace() for c in label)]:
        raise ConfigError(f"a label is one word, and {wrong[0]!r} is not")
    rows.sort(key=lambda row: (xxhash.xxh3_128_digest(row[1].encode(), settings.seed), row[0]))
    with tempfile.TemporaryDirectory(prefix="gristmill-filter-") as folder:
        lines = Path(folder) / "train.txt"
        with lines.open("w", encoding="utf-8") as file:
            file.writelines(f"{LABEL}{label} {text}\n" for label, text in rows)
        command = [sys.executable, "-c", CHILD, str(lines), str(model), json.dumps(asdict(settings))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **ZEROS})
    if done.returncode or not model.is_file():
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigError(f"fastText did not train: {said[0]}; a lower learning rate, or fewer buckets, may do")
