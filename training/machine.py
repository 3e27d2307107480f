"""What a run ran on: said in run.json and in the report, and never part of a digest."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("gristmill", "torch", "numpy", "pyarrow", "safetensors", "tokenizers")


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


# Dense bfloat16 peak of a GPU in FLOP/s, by the maker's data sheet; for others no MFU is stated.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}


def peak_flops() -> float | None:
    """FLOP/s that this machine could do at the most, where that is known."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in PEAK.items() if part in name), None)


def threads() -> int:
    """Threads that one process computes with."""
    import torch

    return torch.get_num_threads()
