"""A small GPT over Chinese pages, asked XCOPA and CMMLU: `python tests/bench/chinese.py [--steps N] [--write]`.

The pages are the Chinese ones of the shared corpus, each text once, Simplified or Traditional. What they share with a
question of the two sets is looked for and left in: questions that the model has read are scored apart. The table is
that of `gristmill eval RUN --suite chinese`, with `--items` of as many questions of a set, by the hash of their ids;
below it stands what the model writes, drawn at temperature .8 from the likeliest 95 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from flows.evaluating import RECIPE
from tests.bench import packed, table, verbs
from tests.bench.measuring import ROOT

LESSONS = Path(__file__).with_name("lessons")
PROMPTS = ("要安装软件包，", "点击", "在这一章中，", "今天的新闻：", "北京是", "这本书")
SUITE = ROOT / "catalogs" / "suites" / "chinese.toml"
SETS = ("xcopa-zh", "cmmlu", "cmmlu-dev")


def limited(folder: Path, items: int) -> Path:
    """The shipped suite, or one of so many questions a set."""
    if not items:
        return SUITE
    text = SUITE.read_text("utf-8").replace("\nset = ", f"\nlimit = {items}\nset = ")
    (folder / SUITE.name).write_text(text, "utf-8")
    return folder / SUITE.name


def built(folder: Path, data: Path, more: Path | None) -> tuple[Path, dict[str, Path]]:
    """The manifest of the text, and those of the questions."""
    recipe, store = folder / "recipe.toml", folder / "store"
    if verbs.has_pipeline():
        cards = verbs.cards(folder, more, "zh")
        text = (LESSONS / "chinese-recipe.toml").read_text("utf-8")
        recipe.write_text(text.replace('["debian-docs"]', json.dumps(["debian-docs", *cards])), "utf-8")
        for name in SETS:
            card = RECIPE.format(name=json.dumps(name), card=json.dumps(name))
            (folder / f"recipe-{name}.toml").write_text(card, "utf-8")
    sets = {name: verbs.built(folder / f"recipe-{name}.toml", store, data) for name in SETS}
    return verbs.built(recipe, store, data), sets


def measured(folder: Path, data: Path, options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report."""
    manifest, sets = built(folder, data, options.open)
    size = {"model.layers": options.layers, "model.width": options.width, "model.heads": options.width // 64}
    rows = {"batch.rows": options.rows, "batch.micro_rows": options.rows}
    given = {"schedule.steps": options.steps, "precision.threads": options.threads, **size, **rows}
    name = f"chinese-{options.layers}-{options.width}-{options.rows}-{options.steps}"
    changes = [f"{key}={value}" for key, value in given.items()]
    run = verbs.trained(LESSONS / "chinese-run.toml", manifest, folder / "store", name, changes)
    books = json.loads((run / "run.json").read_bytes())
    told, tokens = books["evaluation"], books["tokens_read"]
    bits = ", ".join(
        f"{told[key]:.3f} {name}" for key, name in (("loss", "nats a token"), ("bits_per_byte", "bits a byte"))
    )
    yield f"{books['trained']['parameters']:,} parameters, {tokens:,} tokens read; on pages held out {bits}.\n"
    yield "| set | questions | metric | score | 95 % | chance |"
    yield "|---|---|---|---|---|---|"
    asked = [part for name, version in sets.items() for part in ("--set", f"{name}={version.parent}")]
    found = verbs.trainer("eval", run, "--suite", limited(folder, options.items), *asked, "--batch", options.batch)
    for one in found["sets"]:
        for group, entry in one["groups"].items():
            if group != "all" and entry["items"] in (0, one["groups"]["all"]["items"]):
                continue  # the same questions, or none
            which = one["name"] if group == "all" else f"{one['name']}, {group}"
            for metric, score in entry["metrics"].items():
                numbers = [score[key] for key in ("score", "low", "high", "chance")]
                said = ["-" if number is None else f"{number:.3f}" for number in numbers]
                yield f"| {which} | {entry['items']:,} | {metric} | {said[0]} | {said[1]} to {said[2]} | {said[3]} |"
    yield "\n| prompt | what the model writes |\n|---|---|"
    prompts = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    for each in verbs.trainer("generate", run, *prompts, "--new-tokens", 60, "--seed", 7)["prompts"]:
        yield f"| {each['prompt']} | {' '.join(each['continuations'][0].split()).replace('|', '/')} |"


def main() -> None:
    """Train, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=packed.DATA)
    parser.add_argument("--open", type=Path, help="a folder of .jsonl files of text to be learnt as well")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=192, help="of the model, a multiple of 64")
    parser.add_argument("--rows", type=int, default=4, help="rows of 512 tokens a step")
    parser.add_argument("--batch", type=int, default=32, help="questions at once")
    parser.add_argument("--items", type=int, default=0, help="questions of each set (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--build", action="store_true", help="build the versions, and train nothing")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute() / "chinese"
        folder.mkdir(parents=True, exist_ok=True)
        if options.build:
            print(*built(folder, options.data.absolute(), options.open))
            return
        lines = [*measured(folder, options.data.absolute(), options)]
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        command = table.command("chinese", sys.argv[1:])
        table.section("chinese", f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
