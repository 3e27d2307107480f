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

from tests.bench import packed, table, verbs
from tests.bench.measuring import ROOT

LESSONS = Path(__file__).with_name("lessons")
PROMPTS = ("要安装软件包，", "点击", "在这一章中，", "今天的新闻：")


def limited(folder: Path, items: int) -> str:
    """The shipped suite, or one of so many questions a set."""
    if not items:
        return "chinese"
    text = (ROOT / "catalogs" / "suites" / "chinese.toml").read_text("utf-8")
    (folder / "chinese.toml").write_text(text.replace("\nset = ", f"\nlimit = {items}\nset = "), "utf-8")
    return str(folder / "chinese.toml")


def measured(folder: Path, data: Path, steps: int, items: int, threads: int) -> Iterator[str]:
    """The lines of the report."""
    store = folder / "store"
    manifest = verbs.built(LESSONS / "chinese-recipe.toml", store, data)
    changes = (f"schedule.steps={steps}", f"precision.threads={threads}")
    run = verbs.trained(LESSONS / "chinese-run.toml", manifest, store, f"chinese-{steps}", changes)
    books = json.loads((run / "run.json").read_bytes())
    told, tokens = books["evaluation"], books["tokens_read"]
    bits = ", ".join(
        f"{told[key]:.3f} {name}" for key, name in (("loss", "nats a token"), ("bits_per_byte", "bits a byte"))
    )
    yield f"{books['trained']['parameters']:,} parameters, {tokens:,} tokens read; on pages held out {bits}.\n"
    yield "| set | questions | metric | score | 95 % | chance |"
    yield "|---|---|---|---|---|---|"
    found = verbs.gristmill("eval", run, "--suite", limited(folder, items), "--store", store, "--data", data)
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
    asked = [part for prompt in PROMPTS for part in ("--prompt", prompt)]
    for each in verbs.gristmill("generate", run, *asked, "--new-tokens", 60, "--seed", 7)["prompts"]:
        yield f"| {each['prompt']} | {' '.join(each['continuations'][0].split()).replace('|', '/')} |"


def main() -> None:
    """Train, ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=packed.DATA)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--items", type=int, default=0, help="questions of each set (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where versions and runs lie and stay (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = (options.folder or Path(temporary)).absolute() / "chinese"
        lines = [*measured(folder, options.data.absolute(), options.steps, options.items, options.threads)]
    printed = "\n".join(lines)
    print(printed)
    if options.write:
        command = table.command("chinese", sys.argv[1:])
        table.section("chinese", f"`{command}`, {date.today()}, {table.machine()}.\n\n{printed}")


if __name__ == "__main__":
    main()
