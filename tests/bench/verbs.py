"""The verbs of Gristmill as a bench calls them: a process each, and what it says under --json.

What a bench trains on may be built on one machine and learnt on another, which has a GPU and no pipeline: there a
version is the one that was built before, in the folder that was taken along.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.measuring import ROOT

PATHS = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
QUIET = {"OMP_WAIT_POLICY": "passive", "PYTHONPATH": PATHS, "HF_HUB_OFFLINE": "1"}


def gristmill(*words: object) -> dict[str, Any]:
    """What a verb says under --json. Ends the bench where it fails."""
    return _said("flows", *words)


def trainer(*words: object) -> dict[str, Any]:
    """The same of the trainer's own verbs."""
    return _said("training", *words)


def _said(module: str, *words: object) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", module, *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **QUIET})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def built(recipe: Path, store: Path, data: Path) -> Path:
    """The manifest of a recipe's version; where there is no pipeline, of the one that was built of it before."""
    known = recipe.with_suffix(".manifest")
    if has_pipeline():
        manifest = Path(gristmill("build", recipe, "--store", store, "--data", data, "--direct")["manifest"])
        known.write_text(os.path.relpath(manifest, recipe.parent), "utf-8")
    elif not known.is_file():
        sys.exit(f"{recipe} was not built before, and this machine has no pipeline to build it: see {known.name}")
    return (recipe.parent / known.read_text("utf-8")).resolve()


def has_pipeline() -> bool:
    """Whether versions can be built here."""
    return importlib.util.find_spec("prefect") is not None


def trained(file: Path, manifest: Path, store: Path, name: str, changes: Sequence[str]) -> Path:
    """The folder of a run, which is trained unless it was: then nothing is done again."""
    folder, began = store / "runs" / name, time.monotonic()
    settings = [part for change in changes for part in ("--set", change)]
    trainer("fit", file, "--manifest", manifest, "--runs", store / "runs", "--name", name, *settings)
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return folder


def card(folder: Path, name: str, paths: Sequence[str], language: str, columns: Sequence[str] = ("text",)) -> str:
    """Write the card of a source of files, whose columns have the names of ours; returns its file's name."""
    lines = [
        f'name = "{name}"',
        'kind = "files"',
        f'title = "{name}"',
        'description = "Text of a lesson of the bench."',
        'homepage = "https://example.org"',
        'licence = "NOASSERTION"',
        f'languages = ["{language}"]',
        "[params]",
        f"paths = {json.dumps(list(paths))}",
        f"columns = {{{', '.join(f'{column} = {json.dumps(column)}' for column in columns)}}}",
    ]
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n", "utf-8")
    return f"{name}.toml"


def cards(folder: Path, more: Path | None, language: str) -> list[str]:
    """Cards of the files of JSON lines in a folder of open text, each a source."""
    files = sorted(more.absolute().glob("*.jsonl")) if more else []
    return [card(folder, file.stem.replace("_", "-"), [str(file)], language) for file in files]


def pages(data: Path, languages: Sequence[str]) -> list[str]:
    """The texts of the shared corpus in the folders of these languages."""
    table = pq.read_table(data / "corpus" / "debian_docs.parquet", columns=["text", "lang_dir"])
    texts: list[str] = table.filter(pc.is_in(table["lang_dir"], pa.array(languages)))["text"].to_pylist()
    return texts


def lines(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
