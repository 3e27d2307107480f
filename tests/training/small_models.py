"""Small decoders with weights that are not near zero, and the same model as transformers sees it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from training import models
from training.hugging_face import gpt
from training.models.gpt import Model

TABLES: dict[str, dict[str, Any]] = {
    "defaults": {"layers": 2, "width": 48, "heads": 3},
    "grouped": {"layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "feed_forward": 96},
    "untied": {"layers": 2, "width": 32, "heads": 6, "kv_heads": 1, "head_width": 20, "tie_embeddings": False},
    "other constants": {"layers": 1, "width": 32, "heads": 2, "rope_theta": 1e6, "norm_epsilon": 1e-2},
    "llama": {"form": "llama", "layers": 2, "width": 64, "heads": 4, "kv_heads": 2},
    "llama untied": {"form": "llama", "layers": 2, "width": 32, "heads": 4, "head_width": 12, "tie_embeddings": False},
    "gpt2": {"form": "gpt2", "layers": 3, "width": 48, "heads": 3},
    "gpt2 untied": {"form": "gpt2", "layers": 2, "width": 40, "heads": 2, "feed_forward": 72, "tie_embeddings": False},
}


def decoder(
    table: dict[str, Any], *, vocab_size: int = 97, length: int = 512, seed: int = 1, scale: float = 4
) -> Model:
    """A decoder whose logits are of the size of a trained one's: matrices `scale` times larger, norms around 1."""
    model = models.build({"family": "gpt", **table}, vocab_size=vocab_size, length=length, where="[model]")
    assert isinstance(model, Model)
    model.initialise(seed)
    return enlarged(model, seed, scale)


Module = TypeVar("Module", bound=torch.nn.Module)


def enlarged(model: Module, seed: int, scale: float = 4) -> Module:
    """The model with matrices `scale` times larger, and vectors moved from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                most = 0.1 if name.endswith("bias") else 0.5  # larger ones say the same token for ever
                parameter.add_(torch.empty_like(parameter).uniform_(-most, most, generator=generator))
            else:
                parameter.mul_(scale)
    return model


def in_transformers(model: Model) -> Any:
    """The same weights in Qwen3ForCausalLM, LlamaForCausalLM or GPT2LMHeadModel."""
    config = AutoConfig.for_model(**gpt.config(model, eot=0, length=model.length))
    theirs = AutoModelForCausalLM.from_config(config).eval()
    missing, unexpected = theirs.load_state_dict(gpt.theirs(model), strict=False)
    assert not unexpected and missing == (["lm_head.weight"] if model.config.tie_embeddings else [])
    theirs.tie_weights()
    return theirs


def compare_gradients(model: Model, theirs: Any) -> None:
    """Each within 1e-4 of its largest entry; a bias of keys has none but rounding, so beside it the largest of all."""
    gradients = copy.deepcopy(model)
    for mine, parameter in zip(gradients.parameters(), model.parameters(), strict=True):
        mine.data = parameter.grad
    found = gpt.theirs(gradients)
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    largest = max(other.abs().max() for other in expected.values())
    for name, gradient in found.items():
        difference, size = (gradient - expected[name]).abs().max(), expected[name].abs().max()
        assert difference < 1e-4 * size or difference < 1e-6 * largest, name


def tokens_of(rows: int, length: int, vocab_size: int = 97, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def packed(sizes: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions and pieces of rows whose pieces have these sizes; numbers run on over the rows."""
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in sizes])
    flat = torch.tensor([n for row in sizes for n in row])
    pieces = torch.repeat_interleave(torch.arange(len(flat), dtype=torch.int32), flat)
    return positions, pieces.view(positions.shape)
