"""A T5 that writes Simplified Chinese from Traditional: `python tests/bench/simplifying.py [--steps N] [--write]`.

Texts are runs of two to eight Chinese characters from the titles of THUCNews, the Chinese pages of the shared corpus
and, with `--open FOLDER`, JSON lines that lie there, as they were written, each once; OpenCC (s2twp: Taiwan's
characters and Taiwan's words) makes the Traditional side, which is read. Those in which both are equal are left out. So
most characters are to be copied or replaced one by one, some words are others, and what was written is what is right. A
fiftieth is held out, by the hash of ids. Beside the model stand

    copy        the text as it was read
    table       of each character what most often stands in its place in train, over pairs of equal length
    OpenCC      its own way back (tw2sp): rules and dictionaries that people wrote

Right is a text that is equal to what was written. The error rate of characters is edits (insertions, deletions,
replacements) by the characters of what is right, the mean over texts. Intervals are of 2,000 draws of seeds and texts.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.bench import packed, table, verbs
from tests.bench.bootstrap import Scores, interval

PHRASE = re.compile(r"[一-鿿]+")
SHORTEST, LONGEST = 2, 8  # characters
VOCABULARY = 8192
END = "<|endoftext|>"
MOST = 150_000  # texts, the first by their hashes
RECIPE = """name = "simplify"
sources = ["pairs.toml"]
[[stage]]
use = "exact"
drop.dup_rank = {above = 0}
[tokens]
tokenizer = "characters.json"
[pack]
layout = "examples"
length = 16
split = {test = 0.02}
"""
RUN = """name = "simplify"
[model]
family = "t5"
layers = {layers}
width = {width}
heads = {heads}
tie_embeddings = true
[objective]
use = "seq2seq"
[batch]
rows = {rows}
micro_rows = {rows}
[optimizer]
use = "adamw"
learning_rate = {rate}
[schedule]
steps = {steps}
[evaluation]
split = "test"
every = {steps}
[checkpoint]
every = {steps}
keep = 1
[samples]
prompt_tokens = 8
new_tokens = 8
"""
Pair = tuple[str, str]


def pairs(data: Path, more: Path | None = None) -> list[Pair]:
    """Traditional and Simplified forms of texts, where they differ."""
    import opencc

    titles = pq.read_table(data / "classification" / "thucnews_zh" / "train.parquet")["text"].to_pylist()
    texts = [*titles, *verbs.pages(data, ["zh-CN"])]
    for file in sorted(more.glob("*.jsonl")) if more else []:
        texts += [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]
    found = dict.fromkeys(itertools.chain.from_iterable(map(PHRASE.findall, texts)))
    convert = opencc.OpenCC("s2twp").convert
    fitting = (text for text in found if SHORTEST <= len(text) <= LONGEST)
    made = [(there, text) for text in fitting if (there := convert(text)) != text]
    return sorted(made, key=lambda pair: hashlib.blake2b(pair[1].encode()).digest())[:MOST]


def version(folder: Path, data: Path, more: Path | None) -> tuple[Path, list[Pair], list[Pair]]:
    """The manifest of the pairs, and those of train and of test."""
    if verbs.has_pipeline():
        made = pairs(data, more)
        verbs.lines(folder / "pairs.jsonl", ({"text": there, "target": line} for there, line in made))
        verbs.card(folder, "pairs", ["pairs.jsonl"], "zh", ("text", "target"))
        characters(folder / "characters.json", [text for pair in made for text in pair], VOCABULARY)
        (folder / "recipe.toml").write_text(RECIPE, "utf-8")
    manifest = verbs.built(folder / "recipe.toml", folder / "store", data)
    rows = map(json.loads, (folder / "pairs.jsonl").read_text("utf-8").splitlines())
    found = [(row["text"], row["target"]) for row in rows]
    index = pq.read_table(manifest.parent / "documents.parquet", columns=["doc_id", "split"]).to_pylist()
    # Lines of a file are counted from 1.
    sides = {
        split: [found[int(row["doc_id"].rsplit(":", 1)[1]) - 1] for row in index if row["split"] == split]
        for split in ("train", "test")
    }
    return manifest, sides["train"], sides["test"]


def characters(path: Path, texts: Sequence[str], vocabulary: int) -> None:
    """Write a byte-level BPE in which no token has more than one Chinese character, the commonest one each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


def majority(train: Sequence[Pair]) -> dict[str, str]:
    """What most often stands in the place of each character, over the pairs of equal length."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for there, line in train:
        if len(there) == len(line):
            for a, b in zip(there, line, strict=True):
                counts[a][b] += 1
    return {a: counter.most_common(1)[0][0] for a, counter in counts.items()}


def edits(written: str, right: str) -> int:
    """The edit distance of two texts (Levenshtein 1966), in characters."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(written, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def written(folder: Path, run: Path, test: Sequence[Pair]) -> list[str]:
    """What `gristmill generate` makes of the texts, the likeliest token each time."""
    prompts = folder / f"prompts-{run.name}.jsonl"
    verbs.lines(prompts, ({"prompt": there} for there, _ in test))
    asked = ("--file", prompts, "--greedy", "--new-tokens", 14, "--batch", 256)
    found = verbs.trainer("generate", run, *asked)["prompts"]
    return [each["continuations"][0] for each in found]


def judged(written: Sequence[Sequence[str]], test: Sequence[Pair]) -> tuple[Scores, Scores]:
    """[seeds, texts]: whether each text is right, and its error rate."""
    lines = [line for _, line in test]
    right = [[a == b for a, b in zip(some, lines, strict=True)] for some in written]
    errors = [[edits(a, b) / len(b) for a, b in zip(some, lines, strict=True)] for some in written]
    return np.array(right, np.float64), np.array(errors, np.float64)


def measured(folder: Path, data: Path, options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report."""
    import opencc

    manifest, train, test = version(folder, data, options.open)
    size = {"layers": options.layers, "width": options.width, "heads": options.width // 64}
    (folder / "run.toml").write_text(
        RUN.format(steps=options.steps, rate=options.rate, rows=options.rows, **size), "utf-8"
    )
    name = f"t5-{options.layers}-{options.width}-{options.rows}-{options.steps}-{options.rate}"

    def model(seed: int) -> list[str]:
        changes = (f"seed={seed}", f"precision.threads={options.threads}")
        run = verbs.trained(folder / "run.toml", manifest, folder / "store", f"{name}-{seed}", changes)
        return written(folder, run, test)

    with ThreadPoolExecutor(options.jobs) as pool:
        models = [*pool.map(model, range(1, options.seeds + 1))]
    by = majority(train)
    there = [text for text, _ in test]
    found = {
        "copy": [there],
        "table": [["".join(by.get(char, char) for char in text) for text in there]],
        "OpenCC": [[*map(opencc.OpenCC("tw2sp").convert, there)]],
    }
    found[f"t5, {options.steps:,} steps, {len(models)} seeds"] = models
    yield f"{len(train):,} texts to learn from, {len(test):,} held out.\n"
    yield "| side | texts that are right | 95 % | error rate of characters | 95 % |"
    yield "|---|---|---|---|---|"
    for name, some in found.items():
        right, errors = judged(some, test)
        yield f"| {name} | {interval(right)} | {interval(errors)} |"
    yield "\n| read | right | t5, first seed |\n|---|---|---|"
    for number in range(0, len(test), max(1, len(test) // 6)):
        yield f"| {test[number][0]} | {test[number][1]} | {models[0][number]} |".replace("\n", " ")


def main() -> None:
    """Train, write, judge and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=packed.DATA)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--open", type=Path, help="a folder of .jsonl files of text to take texts from as well")
    parser.add_argument("--rows", type=int, default=128, help="texts a step")
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128, help="of the model, a multiple of 64")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--build", action="store_true", help="build the version, and train nothing")
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute() / "simplify"
        folder.mkdir(parents=True, exist_ok=True)
        if options.build:
            print(version(folder, options.data.absolute(), options.open)[0])
            return
        lines = [*measured(folder, options.data.absolute(), options)]
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        command = table.command("simplifying", sys.argv[1:])
        table.section("simplifying", f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
