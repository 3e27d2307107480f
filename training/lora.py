"""Low-rank adaptation: a model learns by two thin matrices beside each of its own, which stay as they are.

    y = x (W + alpha / rank B A)^T + b,    A [rank, inputs] normal(0, 1 / sqrt(inputs)),  B [outputs, rank] zero

(Hu et al. 2021, arXiv 2106.09685, section 4.1; A there is "random Gaussian", and of this size A x is as large as x.)
Every matrix of the layers has a pair, or those that `[lora] modules` names. Beside A and B only what is new is trained:
the head of a classifier, and the rows of tokens that the objective has and the first weights lack.

Checkpoints hold W, A and B side by side: so a resume is exact, and a checkpoint is whole without the folder that the
run began from. Whatever uses a model (`loop.load`, `initial`) folds A and B into W first. The laws: while B is zero the
outputs are those of the model of before to the bit; what is frozen never moves; folded in, the logits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import TrainingError
from training.classifier import Classifier
from training.config import Lora
from training.models.layers import Linear, normal
from training.sharded import is_sharded
from training.tables import suggest

A, B = "lora_a", "lora_b"
TOKENS = ("embedding.weight", "head.weight", "head.bias")  # a row a token


class Adapted(Linear):
    """A Linear with A and B beside its W; they are zero until `begin`."""

    def __init__(self, linear: Linear, settings: Lora) -> None:
        nn.Module.__init__(self)
        self.heads, self.weight, self.bias = linear.heads, linear.weight, linear.bias
        outputs, inputs = linear.weight.shape
        self.lora_a = nn.Parameter(linear.weight.new_zeros(settings.rank, inputs))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(outputs, settings.rank))
        self.scale = settings.scale

    def forward(self, x: Tensor) -> Tensor:
        beside = functional.linear(functional.linear(x, self.lora_a) * self.scale, self.lora_b)
        return super().forward(x) + beside

    @torch.no_grad()
    def folded(self) -> Linear:
        """A plain Linear of W + alpha / rank B A."""
        outputs, inputs = self.weight.shape
        plain = Linear(inputs, outputs, self.bias is not None, heads=self.heads)
        plain.weight.data = _sum(self.weight, self.lora_a, self.lora_b, self.scale)
        plain.bias = self.bias
        return plain


def adapt(model: nn.Module, settings: Lora) -> nn.Module:
    """Put A and B beside the matrices of the layers, in place; returns the model.

    Raises TrainingError where there is no matrix of a name, or none as large as the rank.
    """
    found = list(_linears(model))
    names = sorted({name for _, name, _ in found})
    chosen = names if settings.modules is None else settings.modules
    for name in chosen:
        if name not in names:
            raise TrainingError(f"[lora] modules: the layers have no matrix {name!r}{suggest(name, names)}")
    for parent, name, linear in found:
        if name not in chosen:
            continue
        if settings.rank > min(linear.weight.shape):
            raise TrainingError(
                f"[lora] rank {settings.rank} is more than {name!r} of {list(linear.weight.shape)} can have; lower it"
            )
        setattr(parent, name, Adapted(linear, settings))
    return model


def begin(model: nn.Module, seed: int, fresh: int = 0) -> None:
    """Draw every A by (seed, its name), and freeze all that was there, but tables whose last `fresh` rows are of new
    tokens: there `hold` keeps the others."""
    new = model.on_top() if isinstance(model, Classifier) else {}
    for name, parameter in model.named_parameters():
        if name.endswith(A):
            with torch.no_grad():
                parameter.copy_(normal(seed, name, parameter.shape).mul_(parameter.shape[1] ** -0.5))
        learns = name.endswith((A, B)) or name in new or (fresh > 0 and name.endswith(TOKENS))
        parameter.requires_grad_(learns)


@torch.no_grad()
def hold(model: nn.Module, fresh: int) -> None:
    """Leave of the gradients of tables those of the last `fresh` rows. AdamW turns a row without any, and without
    decay, by nothing."""
    for parameter in _tables(model, fresh):
        if parameter.grad is not None:
            rows, first = _here(parameter.grad)
            rows[: max(0, len(parameter) - fresh - first)] = 0


def _here(table: Tensor) -> tuple[Tensor, int]:
    """The rows of a table that this process holds, and the number of the first."""
    if not is_sharded(table):
        return table, 0
    mesh = table.device_mesh
    return table.to_local(), mesh.get_local_rank() * -(-len(table) // mesh.size())


def _tables(model: nn.Module, fresh: int) -> list[nn.Parameter]:
    """The tables that have fresh rows."""
    return [parameter for name, parameter in model.named_parameters() if fresh and name.endswith(TOKENS)]


def fold(model: nn.Module) -> nn.Module:
    """Fold A and B into the matrices, in place, and let everything learn again; returns the model."""
    for parent, name, linear in list(_linears(model)):
        if isinstance(linear, Adapted):
            setattr(parent, name, linear.folded())
    return model.requires_grad_()


def folded(tensors: Mapping[str, Tensor], settings: Lora | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint with A and B folded into the matrices."""
    if settings is None:
        return dict(tensors)
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith((A, B))}
    for name in tensors:
        if name.endswith(A):
            place = name.removesuffix(A)
            pair = tensors[name], tensors[place + B]
            plain[place + "weight"] = _sum(plain[place + "weight"], *pair, settings.scale)
    return plain


def trained(model: nn.Module, fresh: int = 0) -> int:
    """How many numbers learn: of tables, those of the last `fresh` rows."""
    held = sum(parameter.numel() // len(parameter) * (len(parameter) - fresh) for parameter in _tables(model, fresh))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) - held


def _sum(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return weight.detach() + scale * (b.detach() @ a.detach())


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, Linear]]:
    """Every matrix of the layers: what holds it, by which name, and itself."""
    for layers in model.modules():
        if isinstance(layers, nn.ModuleList):
            for parent in layers.modules():
                yield from (
                    (parent, name, child) for name, child in parent.named_children() if isinstance(child, Linear)
                )
