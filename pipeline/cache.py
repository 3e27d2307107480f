"""The one folder outside a store that the data half writes to: things that can always be made or fetched again.

Compiled kernels and the language model lie here. Deleting it costs a few seconds and a download, never data.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """$GRISTMILL_CACHE, else gristmill/ under $XDG_CACHE_HOME or ~/.cache. Not created here."""
    if own := os.environ.get("GRISTMILL_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "gristmill"
