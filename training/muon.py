"""Muon for matrices of which every process holds some rows.

Momentum and weights stay sharded. The orthogonalisation needs the whole matrix, so the update is gathered, each
process orthogonalises it, and keeps its own rows: one gather a matrix and step, and no memory that lasts.
The law: whole matrices are torch.optim.Muon's to the bit, and sharded ones follow the same formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate


class Muon(torch.optim.Muon):
    """torch.optim.Muon, that takes sharded matrices too."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of every matrix that has a gradient."""
        if not any(isinstance(p, DTensor) for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, self.state[parameter], group)
        return None


def _update(parameter: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
    from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

    gradient = parameter.grad
    momentum = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
    momentum.lerp_(gradient, 1 - group["momentum"])
    update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
    whole = _zeropower_via_newtonschulz(update.full_tensor(), group["ns_coefficients"], group["ns_steps"], group["eps"])
    here = DTensor.from_local(whole.contiguous(), parameter.device_mesh, [Replicate()], run_check=False)
    rate = _adjust_lr(group["lr"], group["adjust_lr_fn"], parameter.shape)
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    parameter.add_(here.redistribute(placements=parameter.placements), alpha=-rate)
