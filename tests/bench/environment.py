"""The peers' own virtual environments: made once in the cache folder, anew where the requirements have changed.

Each line is installed in turn, so a peer that does not install costs its own rows of the table and no others.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from pipeline.cache import cache_home

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Beside the packages of this environment, so that both sides have one torch.
BESIDE = Path(__file__).with_name("requirements-trainer.txt")


def peers(file: Path = REQUIREMENTS) -> tuple[Path, dict[str, str]]:
    """The Python of the peers' environment, and what pip said of each requirement that does not install."""
    ours = [path for path in sys.path if path.endswith("site-packages")] if file == BESIDE else []
    said = hashlib.sha256("\n".join([file.read_text("utf-8"), sys.version, *ours]).encode()).hexdigest()[:16]
    folder = cache_home() / "bench" / f"peers-{said}"
    python, ready = folder / "bin" / "python", folder / "failed.json"
    if not ready.exists():
        print(f"installing the peers of {file.name} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        if ours:
            packages = next(folder.glob("lib/python*/site-packages"))
            (packages / "beside.pth").write_text("\n".join(ours), "utf-8")
        failed = {line: error for line in requirements(file) if (error := _install(python, line))}
        ready.write_text(json.dumps(failed), "utf-8")
    return python, json.loads(ready.read_text("utf-8"))


def requirements(file: Path = REQUIREMENTS) -> list[str]:
    """The lines of a requirements file that name a package."""
    lines = file.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _install(python: Path, line: str) -> str:
    """Install one requirement; the last line of pip's error, empty if there was none."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", line]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1] if done.returncode else ""
