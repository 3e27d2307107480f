"""One process or several: who am I, on what device, what do I hold of the model, and sums over all of us.

torchrun says who we are through the environment; alone, nothing of torch.distributed is started unless the model
is to be sharded. The law: rows are shared out by arithmetic (`batch.positions`), and everything that decides
(stop, loss, weight) is summed over all ranks, so no rank ever acts alone.

    ddp    weights whole in every process, gradients averaged after the last backward of a step
    fsdp   weights, gradients and optimiser in shards of rows (FSDP2: Zhao et al. 2023, arXiv 2304.11277), one
           group a layer and one for the rest, gathered for as long as they are computed with

What is compiled on a CPU, or in shards, is each layer by itself: layers of one form share what was compiled once, and
what lies between them (gathering shards, attention over documents of any length, the summed loss) runs as it is. On a
GPU it is the whole model with its loss.

Sharded layers are gathered in the type of the matrix products and their gradients summed in float32; embeddings
and the last norm are gathered in float32, since they are computed with in float32 without shards too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training import TrainingError, machine
from training.config import Parallel, Precision
from training.models import _blocks


@dataclass(frozen=True)
class Group:
    """This process among its peers, that hold shards of one model, or each the whole of it.

    `writers` is the group in which checkpoints are written, beside the training.
    """

    rank: int
    world: int
    device: torch.device
    shards: bool = False
    writers: Any = None

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

    def wrap(self, model: nn.Module, precision: Precision, parallel: Parallel) -> nn.Module:
        """The model whose gradients are averaged over ranks after the last backward of a step.

        Sharding replaces the parameters of `model`: an optimiser comes after it. Raises TrainingError.
        """
        blocks = [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]
        by_block = self.shards or self.device.type == "cpu"
        if precision.compile and by_block:
            _blocks.leave_alone()
            for block in blocks:
                block.forward = _in_training(torch.compile(block.forward), block.forward)
        if parallel.activation_checkpointing:
            for block in blocks:
                block.forward = _in_training(_computed_again(block.forward), block.forward)
        if precision.compile and not by_block:
            model.compile()
        if self.shards:
            return _sharded(model, blocks, self, precision.compute)
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def _sharded(model: nn.Module, blocks: list[nn.Module], group: Group, compute: str) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(group.device.type, (group.world,))
    narrow = torch.bfloat16 if compute == "bf16" else None
    # The residual stream and the rotations stay as they are: only weights are gathered narrow.
    policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))
    return model


def _in_training(forward: Any, otherwise: Any) -> Any:
    """`forward` where gradients are wanted: evaluation and generation meet many shapes, and keep nothing."""

    def run(*arguments: Any, **named: Any) -> Any:
        return (forward if torch.is_grad_enabled() else otherwise)(*arguments, **named)

    return run


def _computed_again(forward: Any) -> Any:
    """A forward that keeps its inputs alone, and is run again for the backward pass (Chen et al. 2016)."""
    from torch.utils.checkpoint import checkpoint

    def run(*arguments: Any, **named: Any) -> Any:
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **named)

    return run


@torch.no_grad()
def gather(model: Any, into: nn.Module) -> None:
    """Fill a plain model with the parameters of a sharded one; every rank must take part."""
    for parameter, target in zip(model.parameters(), into.parameters(), strict=True):
        target.copy_(parameter.full_tensor())


@contextlib.contextmanager
def joined(precision: Precision, parallel: Parallel | None = None) -> Iterator[Group]:
    """Take our place among the processes that torchrun started, or be alone. Raises TrainingError."""
    parallel = parallel or Parallel()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(local)
    threads = precision.threads or max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(threads)
    if device.type == "cpu":
        machine.keep_freed_memory()
        machine.keep_few_kernels()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Fresh memory is written before it is read here; filling it first takes up to a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if world == 1 and parallel.use != "fsdp":
        yield Group(0, 1, device)
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, device_id=_bound(device), store=_store(world), rank=rank, world_size=world
    )
    try:
        yield Group(rank, world, device, parallel.use == "fsdp", torch.distributed.new_group(backend="gloo"))
    finally:
        torch.distributed.destroy_process_group()


def _store(world: int) -> torch.distributed.Store:
    """Where the processes find one another; alone (shards are counted in a group all the same) nobody has to.

    torchrun's static rendezvous keeps its store over a restart: without a prefix of their own the new processes
    would look for the dead ones.
    """
    if world == 1:
        return torch.distributed.HashStore()
    store, _, _ = next(torch.distributed.rendezvous("env://"))
    return torch.distributed.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


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


def quiet_gradients(model: Any, last: bool) -> AbstractContextManager[object]:
    """Gradients stay with their rank until the last micro-batch of a step."""
    if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        return model.no_sync()
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last)
        model.set_is_last_backward(last)
    return contextlib.nullcontext()
