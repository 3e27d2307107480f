"""What the defaults teach a model: `python tests/bench/learning.py [--only words,characters,masked] [--write]`.

Three lessons, each at equal tokens on the same shards, in the same order for each seed:

    words        200 steps of 16 rows of 256 (819,200 places), BPE of 8,192, 4 layers of width 256 (5 M parameters):
                 English documentation of the shared corpus, about half of it read once
    characters   2,000 steps of 12 rows of 64 targets, 4 layers of width 128 (.8 M parameters): tinyshakespeare, its
                 first 90 % to read and its last 10 % to predict (nanoGPT's budget for a CPU, by its README)
    masked       300 steps of 8 rows of 256 (614,400 places) of `words`, a fifth of the tokens masked, 3 layers of
                 width 192: the form of BERT at the learning rate that is best of several with the first seed, and
                 that of ModernBERT at the same one

The baseline of the first two is GPT-2's layers turned by AdamW on half a cosine to a tenth, as nanoGPT does, at the
learning rate that is best of several with the first seed. Each part of the defaults stands alone beside it, with the
first seed. The loss is that of the whole validation split in nats a token. Every run stays in the folder, so what was
stopped goes on, and nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench import table
from tests.bench.measuring import ROOT

LESSONS = Path(__file__).with_name("lessons")
SHARED = ROOT.parent / "shared" / "data"
GPT2 = ("model.form=gpt2",)
BERT = ("model.family=bert",)
COSINE = ("schedule.shape=cosine", "schedule.floor=0.1")
ADAMW = ("optimizer.use=adamw",)


@dataclass(frozen=True)
class Lesson:
    """What is read, how often with other seeds, the baseline's learning rates and its other settings."""

    name: str
    seeds: int
    rates: tuple[float, ...]
    extra: tuple[str, ...] = ()


WORDS = Lesson("words", 2, (0.0005, 0.001, 0.002))
CHARACTERS = Lesson("characters", 3, (0.001, 0.002, 0.004, 0.008), ("optimizer.betas=[0.9, 0.99]",))
MASKED = Lesson("masked", 2, (0.002, 0.005))


def version(lesson: Lesson, folder: Path) -> Path:
    """manifest.json of what the lesson reads, built from the shared data."""
    if lesson is not CHARACTERS:
        return built(LESSONS / "words-recipe.toml", folder)
    text = (SHARED / "lm" / "tinyshakespeare.txt").read_text("utf-8")
    edge = len(text) * 9 // 10
    place = folder / "play"
    place.mkdir(parents=True, exist_ok=True)
    (place / "train.txt").write_text(text[:edge], "utf-8")
    (place / "val.txt").write_text(text[edge:], "utf-8")
    byte_tokenizer(place / "bytes.json")
    # A document's split hangs on the hash of its id, which the name of the source is part of.
    for number in range(64):
        card, recipe = ((LESSONS / f"characters-{name}.toml").read_text("utf-8") for name in ("card", "recipe"))
        (place / f"play{number}.toml").write_text(card.replace("NAME", f"play{number}"), "utf-8")
        (place / "recipe.toml").write_text(recipe.replace("CARD", f"play{number}.toml"), "utf-8")
        manifest = built(place / "recipe.toml", folder)
        if json.loads(manifest.read_bytes())["splits"].get("val", {}).get("text_bytes") == len(text) - edge:
            return manifest
    raise SystemExit("no name puts the end of the play into validation")


def byte_tokenizer(path: Path) -> None:
    """A token for each byte, and one for the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: n for n, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab={**vocabulary, "<|endoftext|>": len(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(path))


def built(recipe: Path, folder: Path) -> Path:
    """The manifest of a recipe's version."""
    where = ["--store", str(folder / "store"), "--data", str(SHARED)]
    done = run([sys.executable, "-P", "-m", "flows", "build", str(recipe), *where, "--direct", "--json"])
    return Path(json.loads(done.splitlines()[-1])["manifest"])


def run(command: Sequence[str]) -> str:
    """What a command prints on stdout."""
    quiet = {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **quiet})
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def loss(lesson: Lesson, manifest: Path, folder: Path, seed: int, changes: Sequence[str]) -> float:
    """Nats a token on the validation split after one run."""
    settings = [argument for change in (f"seed={seed}", *changes) for argument in ("--set", change)]
    file, runs = str(LESSONS / f"{lesson.name}-run.toml"), str(folder / "runs")
    where = ["--manifest", str(manifest), "--runs", runs, *settings, "--json"]
    done = run([sys.executable, "-P", "-m", "training", "fit", file, *where])
    books = json.loads((Path(json.loads(done.splitlines()[-1])["folder"]) / "run.json").read_bytes())
    found = float(books["evaluation"]["loss"])
    changed = " ".join(changes) or "the defaults"
    print(f"{lesson.name}: seed {seed}, {changed}: {found:.4f}", file=sys.stderr, flush=True)
    return found


def taught(lesson: Lesson, folder: Path) -> Iterator[tuple[str, list[float]]]:
    """What was changed, and the losses of its seeds: the baseline first."""
    manifest = version(lesson, folder)

    def losses(*changes: str, seeds: Sequence[int] = range(lesson.seeds)) -> list[float]:
        return [loss(lesson, manifest, folder, seed, changes) for seed in seeds]

    def turned(rate: float) -> tuple[str, ...]:
        return (*(() if lesson is MASKED else ADAMW), f"optimizer.learning_rate={rate}", *lesson.extra)

    older = BERT if lesson is MASKED else (*GPT2, *COSINE)
    first = {rate: losses(*older, *turned(rate), seeds=[0])[0] for rate in lesson.rates}
    best = min(lesson.rates, key=lambda rate: first[rate])
    rest = losses(*older, *turned(best), seeds=range(1, lesson.seeds))
    others = ", ".join(f"{first[rate]:.3f} at {rate}" for rate in lesson.rates if rate != best)
    baseline = [first[best], *rest]
    if lesson is MASKED:
        yield f"BERT's layers, Muon at {best} ({others} with the first seed)", baseline
        yield "the same, with ModernBERT's layers", losses(*turned(best))
        return
    yield f"GPT-2's layers, AdamW at {best} ({others} with the first seed)", baseline
    yield "the same, with our layers", losses(*turned(best), *COSINE, seeds=[0])
    yield "the same, with Muon", losses(*GPT2, *COSINE, seeds=[0])
    yield "the same, level and then down to 0", losses(*GPT2, *turned(best), seeds=[0])
    yield "the defaults: our layers, Muon, level and then down to 0", losses()


def rows(lesson: Lesson, folder: Path) -> str:
    """The lesson's table."""
    lines = [f"| {lesson.name} | loss | of each seed | beside the baseline |", "|---|---|---|---|"]
    baseline = None
    for what, losses in taught(lesson, folder):
        baseline = losses if baseline is None else baseline
        each = ", ".join(f"{value:.3f}" for value in losses)
        gained = statistics.mean(losses) - statistics.mean(baseline[: len(losses)])  # of the same seeds
        lines.append(f"| {what} | {statistics.mean(losses):.3f} | {each} | {gained:+.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Teach the lessons that are asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="words,characters,masked", help="lessons, separated by commas")
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    lessons = [lesson for lesson in (WORDS, CHARACTERS, MASKED) if lesson.name in options.only.split(",")]
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        found = {lesson.name: rows(lesson, folder) for lesson in lessons}
    print("\n\n".join(found.values()))
    if options.write:
        made = f"`python tests/bench/learning.py`, {date.today()}, {table.machine()}."
        for name, text in found.items():
            table.section(f"learning: {name}", f"{made}\n\n{text}")


if __name__ == "__main__":
    main()
