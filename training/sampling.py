"""How the next token is chosen: the likeliest, or one drawn from what filters leave.

    repetition penalty   the logit of each token that the sequence has is divided by it, or multiplied where negative
                         (Keskar et al. 2019, arXiv 1909.05858, section 4.1)
    temperature          logits are divided by it; 0 takes the likeliest token
    top-k                the likeliest k tokens (Fan et al. 2018, arXiv 1805.04833, section 5.3)
    top-p                the likeliest that have mass p (nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751)
    min-p                those at least min_p times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)

The law: filters come in this order and keep the tokens that those of `transformers` keep, and what is drawn hangs on
(seed, prompt, sequence, position) and the sequence's own logits alone, so who is beside it decides nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training import TrainingError
from training.order import derive


@dataclass(frozen=True)
class Sampling:
    """The settings of one sequence. None, or a penalty of 1, leaves a filter out."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises TrainingError for settings that cannot be."""
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise TrainingError(f"temperature {self.temperature} must be 0 (greedy) or above")
        if self.top_k is not None and self.top_k < 1:
            raise TrainingError(f"top_k {self.top_k} must be 1 or above; leave it out to keep all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise TrainingError(f"top_p {self.top_p} must be above 0 and at most 1; leave it out to keep all tokens")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise TrainingError(f"min_p {self.min_p} must be in [0, 1]; leave it out to keep all tokens")
        if not (self.repetition_penalty > 0 and math.isfinite(self.repetition_penalty)):
            raise TrainingError(f"repetition_penalty {self.repetition_penalty} must be above 0; 1 is none")


def named(prompt: Sequence[int]) -> str:
    """What stands for a prompt among the names of random numbers: a digest of its tokens."""
    return hashlib.blake2b(np.asarray(prompt, "<i8").tobytes(), digest_size=8).hexdigest()


def uniform(seed: int, prompt: str, sequence: int, position: int) -> float:
    """The number in [0, 1) that decides one token: 53 bits."""
    return (derive("sample", seed, prompt, sequence, position) >> 11) / (1 << 53)


def penalised(logits: Tensor, seen: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits [B, vocabulary] with those of the tokens that each row has `seen` made less likely."""
    if penalty == 1:
        return logits
    result = logits.clone()
    for row, tokens in enumerate(seen):
        index = torch.tensor(sorted(set(tokens)), dtype=torch.int64, device=logits.device)
        chosen = logits[row, index]
        result[row, index] = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
    return result


def filtered(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [B, vocabulary] over the temperature (above 0), -inf where a token is filtered away."""
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        least = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ascending, order = logits.sort()
        beyond = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        beyond[:, -1] = False
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -math.inf)
    if sampling.min_p is not None:
        shares = logits.softmax(-1)
        logits = logits.masked_fill(shares < sampling.min_p * shares.amax(-1, keepdim=True), -math.inf)
    return logits


def drawn(logits: Tensor, points: Sequence[float]) -> Tensor:
    """Invert the distribution function of each row of logits [B, vocabulary] at its number in [0, 1): [B] tokens."""
    mass = logits.double().softmax(-1).cumsum(-1)
    # Below the sum of all by construction, so the token found always has mass of its own.
    level = torch.tensor(points, dtype=torch.float64, device=mass.device)[:, None] * mass[:, -1:]
    return torch.searchsorted(mass, level, right=True)[:, 0]
