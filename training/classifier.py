"""A text in one of several classes: a head over one hidden state, on a backbone of any family.

    gpt          head(hidden of the last token)                 Qwen3-, Llama-, GPT2ForSequenceClassification
    bert         head(tanh(pooler(hidden of the first token)))  BertForSequenceClassification
    t5           head(tanh(pooler(hidden of the last token)))   T5ForSequenceClassification
    modernbert   head(norm(gelu(dense(mean of all hidden))))    ModernBertForSequenceClassification, its pooling "mean"

The dense layer and the norm of the last go on from those that filled masked places. In T5 the last token is the
decoder's, which reads the text too, one place later and behind end-of-text (as BART: Lewis et al. 2019,
arXiv 1910.13461, section 3.2). The backbone's own head over the vocabulary is taken off: nothing would train it. The
law: the same weights give the logits of those classes of `transformers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training import models
from training.models import Work
from training.models._dropout import STATE, Dropout, dropped
from training.models.layers import Linear, normal

DEVIATION = 0.02  # of the weights that a head starts from, as in BERT and GPT-2


class Classifier(nn.Module):
    """A backbone without its head over the vocabulary, and a head over the names of its classes, `labels`."""

    def __init__(self, backbone: Any, labels: Sequence[str], eot: int) -> None:
        super().__init__()
        backbone.head = None
        self.backbone, self.labels, self.eot = backbone, list(labels), eot
        width = backbone.config.width
        self.pooler: Any = None
        if self.reads_mean:
            self.pooler = backbone.pooler()
        elif not backbone.causal:
            self.pooler = Linear(width, width, bias=True)
        self.head = Linear(width, len(self.labels), bias=not backbone.causal)

    def forward(
        self, tokens: Tensor, positions: Tensor, pieces: Tensor, last: Tensor, dropout: Dropout | None = None
    ) -> Tensor:
        """Logits [N, labels] of texts whose last tokens stand at the flat places `last` [N] of rows [B, T].

        A row is one text from its first place on, and `pieces` tells it from the padding behind.
        """
        if models.has_encoder_and_decoder(self.backbone):
            hidden = self.backbone(tokens, pieces, self._shifted(tokens), pieces, dropout=dropout)
        else:
            hidden = self.backbone(tokens, positions, pieces, dropout=dropout)
        state, length = self._state(hidden, last), tokens.shape[1]
        logits: Tensor = self.head(dropped(state, None if dropout is None else dropout.rows(last // length), STATE))
        return logits

    def _state(self, hidden: Tensor, last: Tensor) -> Tensor:
        """[N, width]: what the head reads of hidden [B, T, width]."""
        if self.reads_mean:
            pooled: Tensor = self.pooler(_means(hidden, last))
            return pooled
        first = not (self.backbone.causal or models.has_encoder_and_decoder(self.backbone))
        state = hidden.flatten(0, 1)[last - last % hidden.shape[1] if first else last]
        return state if self.pooler is None else torch.tanh(self.pooler(state))

    def _shifted(self, tokens: Tensor) -> Tensor:
        return torch.cat([torch.full_like(tokens[:, :1], self.eot), tokens[:, :-1]], dim=1)

    @property
    def reads_mean(self) -> bool:
        """Whether the mean of all states is asked, and not the state of one token."""
        return hasattr(self.backbone, "pooler")

    @property
    def config(self) -> Any:
        return self.backbone.config

    @property
    def vocab_size(self) -> int:
        return int(self.backbone.vocab_size)

    @property
    def length(self) -> int:
        return int(self.backbone.length)

    @property
    def causal(self) -> bool:
        return bool(self.backbone.causal)

    def on_top(self) -> dict[str, nn.Parameter]:
        """The parameters that are not the backbone's."""
        return {name: p for name, p in self.named_parameters() if not name.startswith("backbone.")}

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Fill every parameter of the backbone, and of the head."""
        self.backbone.initialise(seed)
        self.initialise_head(seed)

    @torch.no_grad()
    def initialise_head(self, seed: int) -> None:
        """Fill the head and the pooler: matrices normal(0, .02), norms 1, biases 0."""
        for name, parameter in self.on_top().items():
            if parameter.ndim == 2:
                parameter.copy_(normal(seed, f"classifier.{name}", parameter.shape).mul_(DEVIATION))
            else:
                parameter.fill_(1 if name.endswith("norm.weight") else 0)

    def flops(self, work: Work) -> int:
        """Training FLOPs of a batch: the backbone's without a head over the vocabulary, and 6 for each weight on top
        and target. What an encoder-decoder reads it reads twice."""
        read = work._replace(targets=0)
        if models.has_encoder_and_decoder(self.backbone):
            read = read._replace(encoder_tokens=work.tokens, encoder_length=work.length)
        on_top = sum(p.numel() for p in self.on_top().values() if p.ndim == 2)
        return int(self.backbone.flops(read)) + 6 * on_top * work.targets

    def parameter_counts(self) -> dict[str, int]:
        """All parameters, and those whose rows are tokens."""
        counts: dict[str, int] = self.backbone.parameter_counts()
        return {**counts, "parameters": sum(p.numel() for p in self.parameters())}


def _means(hidden: Tensor, last: Tensor) -> Tensor:
    """[N, width]: of hidden [B, T, width], the mean of each row in which a flat place of `last` [N] lies, up to it."""
    length = hidden.shape[1]
    inside = torch.arange(length, device=hidden.device) <= (last % length)[:, None]
    rows = hidden[last // length] * inside[..., None]
    return rows.sum(1, dtype=torch.promote_types(hidden.dtype, torch.float32)) / inside.sum(1, keepdim=True)
