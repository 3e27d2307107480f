"""How a kernel is compiled: once for each machine and each state of this folder's sources.

numba keeps compiled code on disk and looks at one file's content only: a changed callee in another file would go on
running as it was. So the cache folder is named by a digest over every source in this folder, Python, numba and the
processor: what is stale is in another folder. Files are written whole and renamed, and every kernel is called with
one signature only (arrays from Arrow are read-only, results are not), so two processes that compile at the same
time write the same file. Cold compilation of all kernels takes about 8 s, loading them .4 s.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba import njit
from numba.cpython.unsafe import numbers
from numpy.typing import NDArray

from pipeline.cache import cache_home

Bytes = NDArray[np.uint8]
Table = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
# Inside kernels alone: the number of 0 bits below the lowest 1 bit, above the highest, in the type of the argument.
trailing_zeros: Any = numbers.trailing_zeros
leading_zeros: Any = numbers.leading_zeros


def kernel(function: Callable[..., Any]) -> Any:
    """Compile `function`, which makes no array, by njit(nogil=True, cache=True); without a writable cache, in memory.

    Arrays are not counted in it: numba would count each array at each call that is not inlined, up and down, and a
    locked instruction costs more than most of what is called. Making one is an error at compilation.
    """
    return _compiled(function, False)


def allocating_kernel(function: Callable[..., Any]) -> Any:
    """The same for a function that makes arrays."""
    return _compiled(function, True)


def _compiled(function: Callable[..., Any], counted: bool) -> Any:
    folder = _folder()
    options: dict[str, Any] = {"nogil": True, "_nrt": counted}
    if folder is None:
        return njit(**options)(function)
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return njit(cache=True, **options)(function)
    finally:
        config.CACHE_DIR = before


def state_digest() -> str:
    """Digest of all that compiled code depends on: sources of this folder, interpreter, compiler and processor."""
    features = llvmlite.binding.get_host_cpu_features().flatten()
    machine = [sys.version, numba.__version__, llvmlite.binding.get_host_cpu_name(), features]
    mill = hashlib.blake2b("\0".join(machine).encode(), digest_size=8)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        mill.update(path.name.encode() + b"\0" + path.read_bytes())
    return mill.hexdigest()


@functools.cache
def _folder() -> Path | None:
    base = Path(os.environ["NUMBA_CACHE_DIR"]) if os.environ.get("NUMBA_CACHE_DIR") else cache_home() / "kernels"
    folder = base / state_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder
