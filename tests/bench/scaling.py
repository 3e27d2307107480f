"""Whether a second worker helps where work is done page by page: `python tests/bench/scaling.py [--write]`.

Real builds (sources, one stage, packed shards) by one worker and by two, in turn: pages a second of the step that holds
the stage, by the wall clock, and how many times as many two workers get. The best of some rounds, which cannot
be better than the machine had room for: the last column says how many cores' CPU time two workers got in that step.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import extraction, recipe
from pipeline.build import Mill
from pipeline.runner import Local, workers
from pipeline.sources._charset import text_of
from pipeline.store import Store
from tests.bench import inputs, table
from tests.bench.judging import filter_of
from tests.bench.works.chain import CARD
from tests.given import HERE
from tests.laws.kinds.warc import response


class Case(NamedTuple):
    """A stage over an input of so many pages."""

    name: str
    stage: dict[str, Any]
    card: str
    pages: int


class Clock:
    """Seconds of the wall clock and of CPU, children's too, that the steps of a build take whose names are `asked`."""

    def __init__(self, asked: Callable[[str], bool] = lambda name: name.startswith("read")) -> None:
        self.asked = asked
        self.name, self.began = "", (0.0, 0.0)
        self.wall = self.cpu = 0.0

    def phase(self, name: str, total: int) -> None:
        now = time.perf_counter(), spent()
        if self.name and self.asked(self.name):
            self.wall += now[0] - self.began[0]
            self.cpu += now[1] - self.began[1]
        self.name, self.began = name, now

    def advance(self, done: int = 1) -> None:
        return


def spent() -> float:
    """CPU seconds of this process and of all below it."""
    return sum(_ticks(process) for process in _family(os.getpid())) / os.sysconf("SC_CLK_TCK")


def _ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def _family(process: int) -> Iterator[int]:
    yield process
    for thread in Path(f"/proc/{process}/task").glob("*"):
        try:
            below = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in below:
            yield from _family(int(child))


def pages_of(data: Path, copies: int) -> list[bytes]:
    """The pages of the benchmark of extraction, again and again."""
    pages = [gzip.decompress(path.read_bytes()) for path in sorted((data / "html").glob("*.html.gz"))]
    return pages * copies


def given(data: Path, folder: Path, copies: int) -> dict[str, tuple[str, int]]:
    """Cards and numbers of pages: HTML as JSON lines and as WARC, text as Parquet."""
    pages = pages_of(data, copies)
    with (folder / "pages.jsonl").open("wb") as file:
        for page in pages:
            row = {"text": text_of(page)[0], "content_type": "text/html"}
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    responses = [response(number, page) for number, page in enumerate(pages)]
    for part in range(4):
        (folder / f"pages-{part}.warc").write_bytes(b"".join(responses[part::4]))
    texts = pq.read_table(data / "corpus" / "debian_docs.parquet", columns=["text"])
    texts = texts.take(pa.array(range(0, texts.num_rows, 2)))
    inputs._tokenizer(data / "corpus" / "debian_docs.parquet", texts.slice(0, 500)).save(str(folder / "tokenizer.json"))
    pq.write_table(texts, folder / "texts.parquet", row_group_size=512)
    (folder / "lines.toml").write_text(CARD.format(path=folder / "pages.jsonl") + 'meta = ["content_type"]\n')
    warc = CARD.format(path=folder / "pages-*.warc").replace('kind = "files"', 'kind = "warc"')
    (folder / "warc.toml").write_text(warc)
    (folder / "texts.toml").write_text(CARD.format(path=folder / "texts.parquet"))
    sizes = {"lines": len(pages), "warc": len(pages), "texts": texts.num_rows}
    return {name: (str(folder / f"{name}.toml"), count) for name, count in sizes.items()}


def cases(data: Path, folder: Path, copies: int) -> list[Case]:
    """Every case."""
    found = given(data, folder, copies)
    model = {"model": str(filter_of(data, folder))}

    def case(name: str, use: str, source: str, **params: Any) -> Case:
        return Case(name, {"use": use, **params}, *found[source])

    return [
        case("`html`, trafilatura, of JSON lines", "html", "lines"),
        case("`html`, resiliparse, of JSON lines", "html", "lines", extractor="resiliparse"),
        case("`html`, trafilatura, of WARC", "html", "warc"),
        case("`classifier`, of Parquet", "classifier", "texts", **model),
        case("`language`, of Parquet", "language", "texts"),
        case("`lines_language`, of Parquet", "lines_language", "texts"),
        case("`toxicity`, of Parquet", "toxicity", "texts", words=[str(HERE / "words.txt")]),
        case("`perplexity`, of Parquet", "perplexity", "texts", model=str(HERE / "bigrams.arpa")),
    ]


def built(case: Case, tokenizer: Path, folder: Path, count: int, clock: Clock) -> Clock:
    """What the steps of the clock take `count` workers, in a fresh store."""
    checked = recipe.parse(
        {
            "name": "scaling",
            "sources": [case.card],
            "stage": [case.stage],
            "tokens": {"tokenizer": str(tokenizer)},
            "pack": {"length": 1024, "split": {"val": 0.05}},
        },
        "the bench's recipe",
        folder,
    )
    with workers(count, checked.foreign) as pool:
        Mill(Store(folder / "store"), Local(pool), clock, workers=count).build(checked)
    clock.phase("", 0)
    return clock


def compared(case: Case, tokenizer: Path, rounds: int) -> str:
    """A row of the table."""
    best: dict[int, Clock] = {}
    for _ in range(rounds):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found = built(case, tokenizer, Path(folder), count, Clock())
            extraction.running.close()
            best[count] = min(found, best.get(count, found), key=lambda clock: clock.wall)
    one, two = best[1], best[2]
    speeds = " | ".join(f"{case.pages / clock.wall:,.0f}" for clock in (one, two))
    return f"| {case.name} | {case.pages:,} | {speeds} | {one.wall / two.wall:.2f}x | {two.cpu / two.wall:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--copies", type=int, default=6, help="how often the pages of the benchmark are read")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    lines = ["| stage | pages | pages/s, 1 worker | pages/s, 2 workers | times | cores that 2 got |"]
    lines.append("|---|---|---|---|---|---|")
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(options.data, Path(folder), options.copies):
            if options.only in case.name:
                lines.append(compared(case, Path(folder) / "tokenizer.json", options.rounds))
                print(lines[-1], flush=True)
    if options.write:
        command = " ".join(["python tests/bench/scaling.py", *sys.argv[1:]])
        table.section("scaling", f"`{command}`, {date.today()}.\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
