"""A version of the shared corpus to train on: the shipped recipe debian-docs at one row length, real text and pieces.

The store lies in the cache folder and is addressed by content, so only the first build takes a minute, and another
row length packs again and does nothing else.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from pipeline.cache import cache_home

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
VOCABULARY = 8192


def version(length: int, data: Path = DATA) -> Path:
    """The manifest of the corpus below `data`, in rows of `length` tokens of a vocabulary of 8,192."""
    folder = cache_home() / "bench" / "packed"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"debian-docs-{length}"
    recipe = (ROOT / "catalogs" / "recipes" / "debian-docs.toml").read_text("utf-8")
    for key, value in (("name", f'"{name}"'), ("vocab_size", str(VOCABULARY)), ("length", str(length))):
        recipe, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", recipe)
        if found != 1:
            sys.exit(f"recipe debian-docs has {found} lines of {key}; one is to be changed")
    (folder / f"{name}.toml").write_text(recipe, "utf-8")
    command = [sys.executable, "-m", "flows", "build", f"{name}.toml", "--data", str(data), "--store", "store"]
    done = subprocess.run([*command, "--direct", "--json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(command)}")
    return Path(json.loads(done.stdout.splitlines()[-1])["manifest"])
