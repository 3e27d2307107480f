"""What a run ran on: said in run.json and in the report, and never part of a digest; and what to do when it ends."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from training import OutOfMemory

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
PACKAGES = ("gristmill", "torch", "numpy", "pyarrow", "safetensors", "tokenizers")


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step, which needs it again, rather than give it back to the system.

    By itself it maps large blocks and trims its heap, and a step on a CPU spends a tenth of its time on memory that is
    mapped and cleared once more. What a process takes at its peak is the same. Another allocator is left alone.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_TRIM_THRESHOLD, 1 << 30)
        set_option(M_MMAP_THRESHOLD, 1 << 25)  # its largest


def spin_briefly() -> None:
    """Have OpenMP's threads spin for some microseconds while they wait, and then sleep, where nothing else was asked.

    GNU's spin for milliseconds by themselves: as long as one of them waits for a core that another program has, the
    others burn theirs, and a step beside two busy programs took 19 times as long (tests/bench/beside.py). To be
    called before torch is loaded, whose OpenMP reads its environment once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_few_kernels() -> None:
    """Have oneDNN keep the kernels of 32 shapes that it met last, where it would keep 1,024.

    Attention over documents meets hundreds of shapes. All of them take 50 MB after 8 steps and 160 MB in the end, and
    to make one again takes less than a hundredth of a step. To be called before the first matrix product of a process.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, and the GPU if there is one."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": _processor(), "cores": len(os.sched_getaffinity(0)), "memory_bytes": memory, "gpu": gpu}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


# Dense bfloat16 peak of a GPU in FLOP/s, by the maker's data sheet; of all else it is measured.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}


def peak_flops(compute: str) -> dict[str, Any]:
    """What one process can do at the most, in FLOP/s, and where from: a data sheet, or matrix products."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = next((flops for part, flops in PEAK.items() if part in name), None)
    if known and compute == "bf16":
        return {"flops": known, "from": "data sheet"}
    return {"flops": _measured(compute, torch.get_num_threads()), "from": "measured"}


@lru_cache(maxsize=8)
def _measured(compute: str, threads: int, seconds: float = 0.2) -> float:
    """FLOP/s of the fastest of many products of square matrices, in what the run computes in."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 1024
    dtype = torch.bfloat16 if compute == "bf16" else torch.float32
    left, out = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best, end = math.inf, time.perf_counter() + seconds
    while math.isinf(best) or time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(left, left, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def code() -> str:
    """Digest of the trainer's own modules: what computed a run, where a version number says too little."""
    hasher = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        hasher.update(path.relative_to(Path(__file__).parent).as_posix().encode() + path.read_bytes())
    return hasher.hexdigest()


@lru_cache(maxsize=1)
def commit() -> dict[str, Any] | None:
    """The git commit of the checkout that the trainer runs from, and whether its modules differ; None elsewhere."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        command = ["git", "--no-optional-locks", "-C", str(here), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:  # installed below another project's checkout
        return None
    name, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    return {"id": name, "changed": bool(changed)} if name else None


# Variables that change how numbers are computed, or how fast, by how they begin.
VARIABLES = (
    *("CUBLAS_", "CUDA_", "CUDNN_", "GLOO_", "GOMP_", "KMP_", "LD_PRELOAD", "MALLOC_", "MKL_", "NCCL_", "NVIDIA_TF32"),
    *("OMP_", "OPENBLAS_", "PYTORCH_", "TORCHDYNAMO_", "TORCHINDUCTOR_", "TORCH_", "TRITON_"),
)


def environment() -> dict[str, str]:
    """What the process was told from outside that changes how it computes."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def threads() -> int:
    """Threads that one process computes with."""
    import torch

    return torch.get_num_threads()


@contextlib.contextmanager
def fitting(rows: int, key: str = "batch.micro_rows", what: str = "rows at once", less: str = "") -> Iterator[None]:
    """Raise OutOfMemory that says what to try where so many rows at once (or `what` else), as `key` of the run file
    says, do not fit into memory: half as many, or `less`. 0 rows are the weights alone."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        if not rows:
            raise OutOfMemory("out of memory with the weights alone; make [model] smaller") from error
        goes_on = "" if key == "batch.rows" else "; the run goes on"
        tried = less or (str(rows // 2) if rows > 1 else "")
        advice = f"try --set {key}={tried}{goes_on}" if tried else "make [model] smaller"
        raise OutOfMemory(f"out of memory with {rows} {what}; {advice}") from error
