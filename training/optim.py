"""What turns gradients into weights: AdamW, and Muon for the matrices of the layers; one schedule for both.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix; its update is
scaled to the size that AdamW's has, .2 sqrt(max(rows, columns)) (Liu et al. 2025, arXiv 2502.16982, section
2.2), so one learning rate serves both. Embeddings, the head and vectors stay with AdamW. Weights of matrices
decay, vectors do not.

The law: `state` and `restore` are inverses to the bit, whatever parameters a model has.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from training import TrainingError
from training.config import Optimizer as Settings
from training.config import Schedule
from training.models.layers import Linear
from training.muon import Muon
from training.sharded import is_sharded


def factor(schedule: Schedule, step: int) -> float:
    """What 0-based `step` multiplies the learning rate by; each shape begins level and its next step would be `floor`.

    Warmup-stable-decay: Hu et al. 2024, arXiv 2404.06395. Half a cosine: Loshchilov and Hutter 2017, arXiv 1608.03983.
    """
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    decay = schedule.decay if schedule.shape == "wsd" else schedule.steps - schedule.warmup - 1
    left = schedule.steps - step
    if left > decay:
        return 1.0
    height = left / (decay + 1)
    if schedule.shape == "cosine":
        height = (1 - math.cos(math.pi * height)) / 2
    return schedule.floor + (1 - schedule.floor) * height


class Optimizer:
    """The optimisers of one model, stepped together; they hold what learns and nothing of what is frozen.

    Of tables that learn by their last `fresh` rows alone (`lora`) they hold these; `state` spells them whole, so that a
    run goes on wherever its tables are cut into shards, of which nothing is left out.
    """

    def __init__(self, model: nn.Module, settings: Settings, fresh: int = 0) -> None:
        self.parameters = dict(model.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        matrices, tables, vectors = _by_use(model)
        self._ends: dict[torch.Tensor, nn.Parameter] = {}  # the last rows of a table, in its memory, and the table
        if fresh:
            tables = [self._end(table, fresh) for table in tables]
        embedding_rate = settings.embedding_learning_rate or settings.learning_rate
        adamw = [
            {"params": tables, "lr": embedding_rate, "weight_decay": 0.0},
            {"params": vectors, "lr": embedding_rate, "weight_decay": 0.0},
        ]
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if settings.use == "muon":
            heads = _heads(model)
            split: dict[tuple[int, int] | None, list[nn.Parameter]] = {}
            for matrix in matrices:
                split.setdefault(heads.get(id(matrix)), []).append(matrix)
            self.parts["muon"] = Muon(
                [{"params": group, "heads": kind} for kind, group in split.items()],
                lr=settings.learning_rate,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        else:
            adamw.append({"params": matrices, "lr": settings.learning_rate, "weight_decay": settings.weight_decay})
        if groups := [group for group in adamw if group["params"]]:
            self.parts["adamw"] = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)
        self.average = Average(model, settings.average) if settings.average is not None else None
        self._rates = {name: [group["lr"] for group in part.param_groups] for name, part in self.parts.items()}

    def _end(self, table: nn.Parameter, rows: int) -> nn.Parameter:
        """The last rows of a table; a sharded one itself, for a shard has any of them."""
        sharded: bool = is_sharded(table)
        if sharded:
            return table
        end = nn.Parameter(table.detach()[-rows:])
        self._ends[end], self.names[id(end)] = table, self.names[id(table)]
        return end

    def step(self, scale: float, number: int = 0) -> None:
        """Update 0-based `number`, at `scale` times the learning rates; gradients are gone afterwards."""
        for end, table in self._ends.items():
            end.grad = None if table.grad is None else table.grad[-len(end) :]
        for name, part in self.parts.items():
            for group, rate in zip(part.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * scale
            part.step()
        if self.average:
            self.average.add(number)
        self.forget()

    def forget(self) -> None:
        """Drop all gradients."""
        for part in self.parts.values():
            part.zero_grad(set_to_none=True)
        for table in self._ends.values():
            table.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that the next step needs, by 'optimiser/parameter/what'."""
        averages = self.average.state() if self.average else {}
        return averages | {
            f"{kind}/{self.names[id(parameter)]}/{what}": self._whole(parameter, value)
            for kind, part in self.parts.items()
            for parameter, values in part.state.items()
            for what, value in values.items()
        }

    def _whole(self, parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """A tensor of a parameter's state; of a table's end that of the table, 0 where nothing learns."""
        if parameter not in self._ends or not value.ndim:
            return value
        whole = torch.zeros_like(self._ends[parameter], dtype=value.dtype, requires_grad=False)
        whole[-len(value) :] = value
        return whole

    def blank(self, name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        """Room for a tensor of `state`, sharded as its parameter is."""
        parameter = self.parameters.get(name.partition("/")[2].rpartition("/")[0])
        if parameter is not None and parameter.shape == shape:
            return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
        return torch.zeros(shape, dtype=dtype)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take up a saved state. Raises TrainingError where it belongs to other parameters or another optimiser."""
        left = dict(state)
        for kind, part in self.parts.items():
            for parameter in (p for group in part.param_groups for p in group["params"]):
                prefix = f"{kind}/{self.names[id(parameter)]}/"
                mine = {name.removeprefix(prefix): left.pop(name) for name in list(left) if name.startswith(prefix)}
                if parameter in self._ends:
                    mine = {
                        what: value[-len(parameter) :].clone() if value.ndim else value for what, value in mine.items()
                    }
                part.state[parameter] = {what: value.to(parameter.device) for what, value in mine.items()}
        if self.average:
            self.average.restore(left)
        if left:
            raise TrainingError(f"the optimiser of the checkpoint holds {sorted(left)[0]!r}, which this run has not")


class Average:
    """An exponential moving average of a model's weights (Polyak and Juditsky 1992), in float32 beside them.

        average += (1 - min(decay, (1 + n) / (10 + n))) (weights - average)   after update n, from 0

    so that a short run is no average of its first weights (the ramp of TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.averages = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def add(self, number: int) -> None:
        """Take in the weights after 0-based update `number`."""
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.averages.values()), [w.detach() for w in self.weights.values()], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages, in place."""
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.averages[name])
            self.averages[name].copy_(kept)

    def state(self) -> dict[str, torch.Tensor]:
        return {f"average/{name}/weight": average for name, average in self.averages.items()}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take the averages out of a saved state. Raises TrainingError where one is not there."""
        for name, average in self.averages.items():
            if (found := state.pop(f"average/{name}/weight", None)) is None:
                raise TrainingError(f"the checkpoint holds no average of {name!r}; optimizer.average was not set")
            average.copy_(found)


def _by_use(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Of what learns: matrices of the layers; embeddings and heads, whose rows are tokens; vectors."""
    vocabulary = {
        id(parameter)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.rpartition(".")[2] == "head"
        for parameter in module.parameters(recurse=False)
    }
    matrices: list[nn.Parameter] = []
    tables: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in vocabulary:
            tables.append(parameter)
        else:
            (matrices if parameter.ndim == 2 else vectors).append(parameter)
    return matrices, tables, vectors


def _heads(model: nn.Module) -> dict[int, tuple[int, int]]:
    """Where a matrix holds heads, by its id: the axis of them, and their width."""
    linears = (module for module in model.modules() if isinstance(module, Linear))
    return {id(linear.weight): linear.heads for linear in linears if linear.heads is not None}


def clip(model: nn.Module, scale: float, limit: float | None) -> torch.Tensor:
    """Multiply all gradients by `scale`, then shorten them to the norm `limit`; returns the norm before that.

    Of sharded gradients the norm is over all shards, and every rank must take part."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    whole = norm.full_tensor() if is_sharded(norm) else norm
    shortened = 1.0 if limit is None else (limit / (whole + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
    torch._foreach_mul_(gradients, scale * shortened)
    return whole
