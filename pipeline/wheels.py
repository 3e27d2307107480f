"""Wheels of Python packages as plain data: pip downloads them, nothing is installed, and no code of them runs.

Which index that is, is pip's own setting (PIP_INDEX_URL, pip.conf): a card or a recipe cannot name a server.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOWNLOAD = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:", "--retries=2"]
_UNREACHED = re.compile(
    r"connection broken by|Could not fetch URL|Max retries exceeded|not a trusted or secure host", re.IGNORECASE
)


class DownloadError(RuntimeError):
    """A wheel cannot be had; the message is one clause that says why."""


def download(name: str, version: str, folder: Path) -> Path:
    """The wheel of an exact version, put into a folder that has none. Raises DownloadError."""
    wanted = f"{name}=={version}"
    command = [sys.executable, "-m", "pip", "download", *DOWNLOAD, "--dest", str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise DownloadError(f"`pip download {wanted}` failed: {_why(done.stderr or done.stdout)}")
    return wheels[0]


def _why(said: str) -> str:
    """What pip's many lines come to."""
    if "No module named pip" in said:
        return "this Python has no pip (python -m ensurepip)"
    if _UNREACHED.search(said):
        return "its index cannot be reached"
    if found := re.search(r"\(from versions: (.*)\)", said):
        has = "" if found[1] == "none" else f"; its wheels: {found[1][-200:]}"
        return f"the index has no wheel of this version for this Python{has}"
    return " ".join(said.strip().splitlines()[-1:])[:300] or "it says nothing"
