"""One process or several: who am I, on what device, and sums over all of us.

torchrun says who we are through the environment; without it we are alone and nothing of torch.distributed
is loaded. The law: rows are shared out by arithmetic (`batch.positions`), and everything that decides (stop,
loss, weight) is summed over all ranks, so no rank ever acts alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from training import TrainingError
from training.config import Precision


@dataclass(frozen=True)
class Group:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sums over all ranks, in float64."""
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.world > 1:
            moved = tensor.to(self.device)
            torch.distributed.all_reduce(moved)
            tensor.copy_(moved)
        return tensor

    def wait(self) -> None:
        """Until every rank is here."""
        self.sum([0.0])

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose gradients are averaged over ranks after the last backward of a step."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


@contextlib.contextmanager
def joined(precision: Precision) -> Iterator[Group]:
    """Take our place among the processes that torchrun started, or be alone. Raises TrainingError."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(local)
    threads = precision.threads or max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    if world == 1:
        yield Group(0, 1, device)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", device_id=_bound(device))
    try:
        yield Group(rank, world, device)
    finally:
        torch.distributed.destroy_process_group()


def _device(local: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise TrainingError(f"process {local} has no GPU: {torch.cuda.device_count()} here; start fewer --processes")
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _bound(device: torch.device) -> torch.device | None:
    return device if device.type == "cuda" else None


def autocast(device: torch.device, compute: str) -> AbstractContextManager[object]:
    """Matrix products in bfloat16, where the run asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute == "bf16")


def quiet_gradients(model: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Gradients stay with their rank until the last micro-batch of a step."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        return model.no_sync()
    return contextlib.nullcontext()
