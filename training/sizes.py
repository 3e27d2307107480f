"""One dial for a decoder: `size = "10M"` fills layers, width and heads, the learning rate and the rows of a step.

    layers, width   of all with heads of 64 whose parameters, embeddings included, come within 5 % of the size, the
                    one whose width / layers is nearest 64 (the loss hardly moves between 25 and 200: Kaplan et al.
                    2020, arXiv 2001.08361, figure 5; nanochat takes 64)
    C               6 N D, the FLOPs of training N parameters without embeddings on D = 20 (all parameters) tokens
                    (Hoffmann et al. 2022, arXiv 2203.15556)
    learning rate   .3118 C^-.1250
    tokens a step   .2920 C^.3271      (DeepSeek LLM, arXiv 2401.02954, section 3.1: fitted for AdamW at C of 1e17
                    to 2e19, below that an extrapolation; Muon's update is scaled to AdamW's, so it has the same rate)

What a run file says itself stays. The law: the filled run is an ordinary one, with nothing left of the dial.
"""

from __future__ import annotations

import math
import re

from training import TrainingError
from training.config import Run
from training.manifest import Version

HEAD_WIDTH = 64
ASPECT = 64
NEAR = 0.05
FILLED = ("layers", "width", "heads")


def filled(run: Run, version: Version) -> Run:
    """The run with what its `size` says, if it has one. Raises TrainingError where no model of that size exists."""
    if run.size is None:
        return run
    if run.model.get("family") != "gpt":
        raise TrainingError(f"size: is a dial for family 'gpt', not {run.model.get('family')!r}; give the model's keys")
    if given := sorted(set(run.model) & {*FILLED, "kv_heads", "head_width", "feed_forward"}):
        raise TrainingError(f"size: fills {', '.join(FILLED)}; remove it, or [model] {given[0]}")
    vocabulary, length = version.manifest.tokenizer.vocab_size, version.manifest.length
    tied = bool(run.model.get("tie_embeddings", True))
    layers, width = shape(target(run.size), vocabulary, tied)
    inner, tables = parameters(layers, width), (1 if tied else 2) * vocabulary * width
    compute = 6 * inner * 20 * (inner + tables)
    optimizer, rows = run.optimizer, run.batch.rows
    if "learning_rate" not in optimizer.model_fields_set:
        rate = float(f"{0.3118 * compute**-0.1250:.2g}")
        optimizer = optimizer.model_copy(update={"learning_rate": rate})
    if "rows" not in run.batch.model_fields_set:
        rows = max(1, round(0.2920 * compute**0.3271 / length))
        rows = rows if rows < 8 else round(rows / 8) * 8
    changes = {"layers": layers, "width": width, "heads": width // HEAD_WIDTH}
    return run.model_copy(
        update={
            "size": None,
            "model": {**run.model, **changes},
            "optimizer": optimizer,
            "batch": run.batch.model_copy(update={"rows": rows}),
        }
    )


def target(size: str) -> int:
    """Parameters that a size like 10M or 1.5B means."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MB])", size)
    if not found or not float(found[1]):
        raise TrainingError(f"size: {size!r}: write it like 10M or 1.5B")
    return round(float(found[1]) * {"M": 1e6, "B": 1e9}[found[2]])


def shape(wanted: int, vocabulary: int, tied: bool) -> tuple[int, int]:
    """Layers and width. Raises TrainingError where the vocabulary's own tables leave no room."""
    near = []
    for width in range(HEAD_WIDTH, 8193, HEAD_WIDTH):
        for layers in range(1, 129):
            count = parameters(layers, width) + (1 if tied else 2) * vocabulary * width
            if abs(count / wanted - 1) <= NEAR:
                near.append((abs(math.log(width / layers / ASPECT)), layers, width))
            if count > wanted * (1 + NEAR):
                break
    if not near or min(near)[0] > math.log(4):
        raise TrainingError(f"size: no decoder of {wanted:,} parameters for a vocabulary of {vocabulary}; give [model]")
    _, layers, width = min(near)
    return layers, width


def parameters(layers: int, width: int) -> int:
    """Parameters of the decoder without embeddings: attention, SwiGLU and norms of every layer, and the last norm."""
    feed_forward = -(-width * 8 // (3 * 64)) * 64
    return layers * (4 * width**2 + 3 * width * feed_forward + 2 * width + 2 * HEAD_WIDTH) + width
