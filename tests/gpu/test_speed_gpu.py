"""124 M parameters in bfloat16, compiled, with document masks: not slower than a loop that is blind to documents.

pytest -m gpu tests/gpu/test_speed_gpu.py -s         prints tokens a second of both, their ratio, and MFU
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import torch

from tests.gpu import nanogpt
from training import batch, machine, models, objectives
from training.config import Optimizer as Settings
from training.config import Parallel, Precision
from training.loop import Scored
from training.optim import Optimizer, clip
from training.parallel import autocast, joined
from training.shards import Rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
VOCABULARY, LENGTH, ROWS = 50_304, 1024, 16
LAYERS, WIDTH, HEADS = 12, 768, 12
WARMUP, STEPS, REPEATS = 12, 10, 5


def rows_of(step: int) -> Rows:
    """Full rows of documents of about 300 tokens, as web text has; another layout at every step."""
    drawn = np.random.default_rng(step)
    ends = [np.unique(np.append(drawn.integers(1, LENGTH, 3), LENGTH)) for _ in range(ROWS)]
    lengths = np.concatenate([np.diff(e, prepend=0) for e in ends]).astype(np.int32)
    starts = np.concatenate([np.append(0, e[:-1]) for e in ends]).astype(np.int32)
    owners = np.repeat(np.arange(ROWS), [len(e) for e in ends])
    tokens = drawn.integers(0, VOCABULARY, (ROWS, LENGTH)).astype(np.uint16)
    numbers = np.arange(len(starts), dtype=np.int32)
    used = np.full(ROWS, LENGTH, np.int32)
    return Rows(np.arange(ROWS), tokens, used, owners, starts, lengths, numbers, np.zeros_like(numbers))


class Ours:
    """The trainer's own parts, put together as its loop does."""

    def __init__(self, table: dict[str, object], group: object) -> None:
        model = models.build({"family": "gpt", **table}, vocab_size=VOCABULARY, length=LENGTH, where="[model]")
        model.initialise(1)
        self.model = model.to(group.device)
        objective = objectives.load({"use": "causal"}, "[objective]")
        self.prepare = objective.prepare
        precision = Precision(compute="bf16", compile=True)
        self.running = group.wrap(Scored(self.model, objective), precision, Parallel())
        self.optimizer = Optimizer(self.model, Settings(use="adamw", learning_rate=3e-4))
        self.device = group.device

    def step(self, prepared: objectives.Batch) -> None:
        with autocast(self.device, "bf16"):
            total, weight = self.running(prepared)
        total.backward()
        clip(self.model, 1 / float(weight), 1.0)
        self.optimizer.step(1.0)


def speed(step, batches: list[object]) -> float:
    """Tokens a second over some steps."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for given in batches:
        step(given)
    torch.cuda.synchronize()
    return len(batches) * ROWS * LENGTH / (time.perf_counter() - began)


FORMS = {
    "gpt2": {"form": "gpt2", "layers": LAYERS, "width": WIDTH, "heads": HEADS},
    "qwen3": {"layers": LAYERS, "width": WIDTH, "heads": HEADS},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_step_with_document_masks_is_not_slower_than_one_without(form):
    """Interleaved, medians of five; 3 % are for the noise of a card."""
    torch._dynamo.reset()
    layouts = [rows_of(step) for step in range(WARMUP + STEPS)]
    with joined(Precision(threads=4)) as group:
        ours = Ours(FORMS[form], group)
        keys = batch.row_keys(0, 0, np.arange(ROWS))
        mine = [{k: v.cuda() for k, v in ours.prepare(rows, keys).items()} for rows in layouts]
        plain = [torch.from_numpy(rows.tokens.astype(np.int64)).cuda() for rows in layouts]
        plain = [torch.cat([tokens, tokens[:, :1]], 1) for tokens in plain]
        theirs = nanogpt.Loop(nanogpt.Model(VOCABULARY, LENGTH, LAYERS, WIDTH, HEADS))
        runs = {"ours": (ours.step, mine), "nanogpt": (theirs.step, plain)}
        found: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(REPEATS + 1):
            for name, (step, given) in runs.items():
                torch.use_deterministic_algorithms(name == "ours", warn_only=True)  # as each would run
                rate = speed(step, given[:WARMUP] if repeat == 0 else given[WARMUP:])
                found[name] += [rate] if repeat else []
    median = {name: statistics.median(rates) for name, rates in found.items()}
    ratio = median["ours"] / median["nanogpt"]
    peak = machine.peak_flops("bf16")
    row = models.Work(LENGTH, LENGTH, LENGTH)
    use = median["ours"] * ours.model.flops(row) / LENGTH / peak["flops"]
    print(
        f"\n{torch.cuda.get_device_name()}: {form} {median['ours']:,.0f} tokens/s, nanoGPT-style "
        f"{median['nanogpt']:,.0f} tokens/s: {ratio:.2f} times as fast; {use:.0%} MFU of the {peak['from']}"
    )
    assert form != "gpt2" or ratio > 0.97
