"""The figures as Markdown, and RESULTS.md, where each work keeps its latest table."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("RESULTS.md")
HEAD = """# Results of the bench

Made by `python tests/bench/peers.py --write`. Ratio: the peer's median CPU seconds over ours, same file, same run, one
core each, runs in turn; of several workers seconds of the wall clock on as many cores. MB of text a CPU
second; start-up (imports, models, compiled kernels) is not in it and stands in its own column. Peak memory is that of
the process, start-up included.
"""
COLUMNS = "work | against | text MB | ratio | at least / aim | ours MB/s | theirs MB/s | start-up s | peak MB | answers"


def text(found: Mapping[str, Sequence[Mapping[str, Any]]], failed: Mapping[str, str]) -> str:
    """Every work's table, and the peers that did not install."""
    return "\n\n".join(
        [*(of(rows) for rows in found.values()), *(f"{k} does not install: {v}" for k, v in failed.items())]
    )


def of(rows: Sequence[Mapping[str, Any]]) -> str:
    """One work's table."""
    lines = [f"| {COLUMNS} |", "|" + "---|" * (COLUMNS.count("|") + 1)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    against = row["peer"] + (f" ({row['how']})" if row["how"] else "")
    wanted = " / ".join(f"{x:g}x" for x in (row["at_least"], row["aim"]) if x is not None) or "-"
    cells = [row["title"], against, f"{row['bytes'] / 1e6:.1f}"]
    if "error" in row:
        return [*cells, "-", wanted, "-", "-", "-", "-", row["error"].replace("|", "/")[:300]]
    sides = row["mine"], row["theirs"]
    speeds = [f"{row['bytes'] / 1e6 / side['cpu']:.3g}" for side in sides]
    start_up = " / ".join(f"{side['start_up']:.1f}" for side in sides)
    peak = " / ".join(f"{side['peak'] / 1e6:.0f}" for side in sides)
    ratio = f"{row['ratio']:.1f}x" if row["ratio"] >= 2 else f"{row['ratio']:.2g}x"
    return [*cells, ratio, wanted, *speeds, start_up, peak, row["answers"]]


def write(
    found: Mapping[str, Sequence[Mapping[str, Any]]], failed: Mapping[str, str], python: str, arguments: Sequence[str]
) -> None:
    """Merge the works into RESULTS.md: those that were run are replaced, the others stay."""
    command = " ".join(["python tests/bench/peers.py", *arguments])
    for work, rows in found.items():
        made = f"`{command}`, {date.today()}, {machine()}. {versions(python)}."
        missing = [f"{name} does not install: {error}" for name, error in failed.items()]
        section(work, "\n\n".join([made, of(rows), *missing]))


def section(name: str, body: str) -> None:
    """Put one section into RESULTS.md, in the place of the one of that name or at the end."""
    before = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
    sections = {part.split("\n", 1)[0]: part for part in re.split(r"(?m)^## ", before)[1:]}
    sections[name] = f"{name}\n\n{body}\n\n"
    RESULTS.write_text(HEAD + "\n" + "".join(f"## {part}" for part in sections.values()).rstrip() + "\n", "utf-8")


def command(script: str, arguments: Sequence[str]) -> str:
    """What was called, without the folders of this machine: those of a model and of open text by their names."""
    said, rest = [f"python tests/bench/{script}.py"], iter(arguments)
    for argument in rest:
        if argument in ("--folder", "--data"):
            next(rest)
        else:
            said.append(Path(argument).name if said[-1] in ("--backbone", "--open") else argument)
    return " ".join(said)


def machine() -> str:
    """Processor, cores and Python."""
    said = Path("/proc/cpuinfo").read_text("utf-8")
    model = re.search(r"model name\s*:\s*(.+)", said)
    cores = said.count("processor\t")
    return f"{model[1].strip() if model else platform.machine()}, {cores} cores, Python {platform.python_version()}"


def versions(python: str) -> str:
    """Names and versions of the peers, as they are installed."""
    names = "datasketch datatrove fasttext-numpy2 polars polars-textproc pyarrow rensa text-dedup tiktoken tokenizers"
    code = (
        "import importlib.metadata as m, sys\n"
        "for n in sys.argv[1:]:\n"
        " try: print(n, m.version(n))\n"
        " except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([python, "-c", code, *names.split()], capture_output=True, text=True, check=True)
    return ", ".join(done.stdout.split("\n")[:-1])
