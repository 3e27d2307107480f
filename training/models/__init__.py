"""Model families: one file each, and the folder is the registry.

A family is a module with a class `Config`, the checked keys of a run file's `[model]` table, and a class
`Model(config, vocab_size=, length=)` with

    forward(tokens [B, T], positions [B, T], pieces [B, T] | None) -> hidden [B, T, width]
    logits(hidden [..., width]) -> [..., vocab_size]
    projection(hidden) -> (x, W, b | None), of which the logits are x W^T + b
    initialise(seed), flops(work), parameter_counts(), config, vocab_size, length, and causal: bool

An encoder-decoder reads two rows of pieces, whose numbers say which belong together. In place of that forward it has

    encode(tokens [B, T], pieces [B, T] | None) -> encoded [B, T, width]
    decode(tokens [B, U], pieces [B, U] | None, encoded, encoded_pieces, cache=None) -> hidden [B, U, width]
    forward(tokens, pieces, decoder_tokens, decoder_pieces) -> hidden: the one behind the other

Each takes a `dropout` last, of `_dropout`, by whose keys something is left out of the rows; None: nothing.

The law: a token's hidden state depends on its own document piece alone, and in a causal family on what
stands before it; in a decoder that reads an encoder, on the encoder's piece of the same number as well. `layers`
holds what families share; a name with a leading underscore is no family either.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from training import TrainingError
from training.tables import Table, check, suggest

if TYPE_CHECKING:
    from torch import Tensor


class Work(NamedTuple):
    """What a batch has a model multiply: `tokens` that are no padding, the `length` of their rows, and the `targets`
    whose logits are asked for; of an encoder-decoder these are the decoder's, and the encoder has its own.

    `flops(work)` counts the training FLOPs as PaLM does (arXiv 2204.02311, appendix B): 2 for each weight of a matrix
    product and each place it is multiplied with, 4 heads head_width for each place that a token attends to, and twice
    the forward pass for the backward pass, or once for a weight that is frozen (`product_flops`). What is computed
    twice for lack of memory counts once, padding not at all.
    By the same convention, for figures that compare with published ones, a token attends to all places of its row,
    though less is computed: a causal token sees on average half of them, and none sees another document.
    The head counts at the targets alone, where its logits are computed.
    """

    tokens: int
    length: int
    targets: int
    encoder_tokens: int = 0
    encoder_length: int = 0


def available() -> list[str]:
    """Names of the families in this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name[0] != "_" and m.name != "layers")


def build(table: Mapping[str, Any], *, vocab_size: int, length: int, where: str) -> Any:
    """The model that a `[model]` table describes, float32 on the CPU, all zero until `initialise` or a checkpoint.

    `length` is the longest context in tokens. Nothing is drawn from torch's global generator.
    Raises TrainingError naming `where`, the key and what exists.
    """
    module, config = _checked(table, where)
    return module.Model(config, vocab_size=vocab_size, length=length)


def described(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The table with every default written out. Raises TrainingError as `build` does."""
    module, config = _checked(table, where)
    return {"family": module.__name__.rpartition(".")[2], **config.model_dump(mode="json")}


def _checked(table: Mapping[str, Any], where: str) -> tuple[ModuleType, Table]:
    """The family's module and its checked Config."""
    keys = dict(table)
    family = keys.pop("family", None)
    if family is None:
        raise TrainingError(f"{where}: no 'family'; it has no default; has: {', '.join(available())}")
    if family not in available():
        raise TrainingError(f"{where}: unknown family {family!r}{suggest(str(family), available())}")
    module = importlib.import_module(f"{__name__}.{family}")
    config: Table = check(module.Config, keys, f"{where} ({family})")
    return module, config


def product_flops(parameters: Iterable[Tensor]) -> int:
    """Training FLOPs that matrices take at each place: 2 for each weight forward, 2 for the gradient by what it is
    multiplied with, and 2 for its own unless it is frozen."""
    return sum(p.numel() * (6 if p.requires_grad else 4) for p in parameters if p.ndim == 2)


def has_encoder_and_decoder(model: Any) -> bool:
    """Whether a model, or the backbone of a classifier, reads one text and writes another."""
    model = getattr(model, "backbone", model)
    return hasattr(model, "encode") and hasattr(model, "decode")
