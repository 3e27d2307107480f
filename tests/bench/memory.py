"""How much memory a build takes: `python tests/bench/memory.py SHARED_FOLDER --bytes 2GB --memory 1GB --workers 2`.

Makes a corpus of about so many bytes of text from the shared one, builds it without Prefect, and samples the resident
memory of the command and of all that it starts. Every copy but the first takes the even lines of one document and the
odd lines of another, so that the words stay those of the language and hardly any two documents are near duplicates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.memory import tree_memory
from pipeline.recipe import parse_size

CARD = """
name = "docs"
kind = "files"
title = "Documentation, many times over"
description = "Lines of the shared documents, mixed."
homepage = "https://www.debian.org/doc/"
licence = "GPL-2.0-only AND CC-BY-SA-3.0 AND MPL-2.0"
languages = ["mul"]
[params]
paths = ["DOCS/*.parquet"]
"""


def corpus(source: Path, folder: Path, size: int) -> int:
    """Write files of one row group each until they hold `size` bytes of text; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = pq.read_table(source, columns=["text"])["text"].to_pylist()
    lines = [text.split("\n") for text in texts]
    written = files = 0
    while written < size:
        made = list(_until(_copy(texts, lines, files), size - written))
        written += sum(len(text.encode()) for text in made)
        pq.write_table(pa.table({"text": made}), folder / f"{files:03}.parquet", row_group_size=len(made))
        files += 1
    return written


def _copy(texts: list[str], lines: list[list[str]], number: int) -> Iterator[str]:
    for index, mine in enumerate(lines):
        other = lines[(index + 7919 * number) % len(lines)]
        yield texts[index] if number == 0 else "\n".join(mine[::2] + other[1::2])


def _until(texts: Iterator[str], size: int) -> Iterator[str]:
    for text in texts:
        if size <= 0:
            return
        size -= len(text.encode())
        yield text


def write_recipe(folder: Path, docs: Path) -> Path:
    """The shipped recipe of the shared corpus, over these files."""
    (folder / "docs.toml").write_text(CARD.replace("DOCS", str(docs.absolute())))
    shipped = (Path(__file__).parents[2] / "catalogs/recipes/debian-docs.toml").read_text("utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(shipped.replace('sources = ["debian-docs"]', 'sources = ["docs.toml"]'), "utf-8")
    return recipe


def watched(command: list[str]) -> tuple[int, float, dict[str, object]]:
    """Peak resident bytes of a command and its descendants together, its seconds, and its last line of JSON."""
    began, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as out:
        child = subprocess.Popen(command, stdout=out)
        while child.poll() is None:
            peak = max(peak, tree_memory(child.pid))
            time.sleep(0.02)
        if child.returncode:
            sys.exit(f"exit code {child.returncode}: {' '.join(command)}")
        out.seek(0)
        last = out.read().splitlines()[-1]
    return peak, time.perf_counter() - began, json.loads(last)


def main() -> None:
    """Make the corpus where it is not there yet, build it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--folder", type=Path, help="where corpus and store lie; default: a temporary folder")
    parser.add_argument("--bytes", default="2GB")
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        docs = folder / options.bytes
        if not docs.is_dir():
            size = corpus(options.shared / "data/corpus/debian_docs.parquet", docs, parse_size(options.bytes))
            print(f"made {size:,} bytes of text in {len(list(docs.iterdir()))} files", flush=True)
        recipe = write_recipe(folder, docs)
        store = Path(tempfile.mkdtemp(dir=temporary))
        command = [sys.executable, "-m", "flows", "build", str(recipe), "--store", str(store), "--direct", "--json"]
        command += ["--workers", str(options.workers), "--memory", options.memory]
        peak, seconds, said = watched(command)
    print(f"peak {peak:,} bytes of {parse_size(options.memory):,} allowed, {seconds:.0f} s, {said['documents']}")
    print(f"the build says {said['peak_memory_bytes']:,}")


if __name__ == "__main__":
    main()
