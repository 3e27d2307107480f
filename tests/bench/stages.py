"""How fast each stage there is works: `python tests/bench/stages.py [--data DIR] [--only NAMES] [--write]`.

MB of text for each CPU second of one core (processes that a stage asks count too), compilation apart: every fifth page
of documentation for all, pages of HTML for `html`. A stage that compares documents is measured twice: as it sketches,
and over a whole build that has this stage alone, from Parquet to what stays. A stage that must be given something has
what tests give it (`tests/given`), but for the classifier, which is one in DCLM's set-up.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.run import widen
from pipeline.schema import documents
from pipeline.sources._charset import text_of
from pipeline.stage import Stage, available, load
from tests.bench import inputs, table
from tests.bench.judging import filter_of
from tests.bench.scaling import Case, Clock, built, spent
from tests.bench.works.chain import CARD
from tests.given import GIVEN

LEAST = 1.0
AFTER = ("canaries", "vocabulary", "encode", "pack", "seal")


def speed(stage: Stage, batch: pa.RecordBatch) -> float:
    """MB of text a CPU second: the best of three, each of at least a second."""
    stage(batch.slice(0, 8))
    size, taken = pc.sum(pc.binary_length(batch["text"])).as_py(), []
    for _ in range(3):
        rounds, start = 0, spent()
        while (now := spent() - start) < LEAST:
            stage(batch)
            rounds += 1
        taken.append(now / rounds)
    return size / min(taken) / 1e6


def texts(data: Path, use: str) -> pa.RecordBatch:
    """What a stage is given."""
    if use == "html":
        pages = sorted((data / "html").glob("*.html.gz"))
        found = [text_of(gzip.decompress(path.read_bytes()))[0] for path in pages]
    else:
        rows = pq.read_table(data / "corpus" / "debian_docs.parquet", columns=["text"])["text"]
        found = rows.take(pa.array(range(0, len(rows), 5))).to_pylist()
    kind = '{"content_type":"text/html"}' if use == "html" else None
    made = [
        {"doc_id": f"d{n:06}", "text": t, "url": f"https://a.debian.org/{n}", "source": "d", "meta": kind, "label": "a"}
        for n, t in enumerate(found)
    ]
    batch = widen(documents(made))
    # Only labelled documents of train have children.
    place = batch.schema.get_field_index("split")
    return batch.set_column(place, "split", pa.array(["train"] * batch.num_rows, pa.string()))


def whole(stage: Stage, batch: pa.RecordBatch, params: dict[str, Any], folder: Path) -> float:
    """MB of text a CPU second of a build with this stage alone, up to where tokens begin."""
    folder.mkdir()
    rows = pa.table({"text": batch["text"]})
    pq.write_table(rows, folder / "texts.parquet", row_group_size=512)
    (card := folder / "texts.toml").write_text(CARD.format(path=folder / "texts.parquet"))
    inputs._tokenizer(folder, rows.slice(0, 200)).save(str(folder / "tokenizer.json"))
    case = Case(stage.use, {"use": stage.use, **params}, str(card), batch.num_rows)
    clock = built(case, folder / "tokenizer.json", folder, 1, Clock(lambda name: name not in AFTER))
    return float(pc.sum(pc.binary_length(batch["text"])).as_py()) / clock.cpu / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these stages; their rows are replaced")
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    lines = ["| stage | kind | MB/s | a build with it alone, MB/s |", "|---|---|---|---|"]
    print("\n".join(lines))
    began = time.perf_counter()
    for use in available():
        if not set(options.only or [use]) & {use}:
            continue
        with tempfile.TemporaryDirectory() as place:
            folder, params = Path(place), GIVEN.get(use, {})
            if use == "classifier":
                params = {"model": str(filter_of(options.data, folder))}
            stage, batch = load(use, params), texts(options.data, use)
            alone, sketched = "-", speed(stage, batch)
            if stage.kind == "relate":
                speeds = [whole(stage, batch, params, folder / f"build {n}") for n in range(2)]
                alone = f"{max(speeds):,.0f}"
            lines.append(f"| `{use}` | {stage.kind} | {sketched:,.0f} | {alone} |")
        print(lines[-1], flush=True)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.write:
        command = " ".join(["python tests/bench/stages.py", *sys.argv[1:]])
        before = table.RESULTS.read_text("utf-8").partition("\n## stages\n")[2].partition("\n## ")[0]
        rows = {line.split("|")[1]: line for line in [*before.splitlines(), *lines[2:]] if line.startswith("| `")}
        said = f"`{command}` (rows of other stages are older), " if options.only else f"`{command}`, "
        body = "\n".join([*lines[:2], *(rows[name] for name in sorted(rows))])
        table.section("stages", f"{said}{date.today()}, {table.machine()}.\n\n{body}")


if __name__ == "__main__":
    main()
