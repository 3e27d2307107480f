"""The TensorBoard log of a run: what metrics.jsonl says, as event files that `tensorboard --logdir RUNS` draws.

They lie in the run's folder, over steps, and in its `by_tokens`, over the tokens read, so that runs of other batch
sizes stand on one axis. The law: the log shows each step once, wherever the run was stopped or killed. A start that
goes on from a checkpoint opens files of its own, which tell the reader to forget what stood behind it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training import TrainingError

# Seconds until what was said is in the file; a checkpoint does not wait for it.
DELAY = 10
SHOWN = {
    "step": ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "wait_seconds", "mfu"),
    "validation": ("loss", "bits_per_byte", "accuracy", "macro_f1"),
}
BY_TOKENS = ("loss", *SHOWN["validation"])
GROUPS = {"step": "train", "validation": "validation"}


def wanted(asked: bool | None) -> bool:
    """Whether a log is written: where nothing is asked, if the package is installed. Raises TrainingError if it is
    asked for and is not."""
    installed = importlib.util.find_spec("tensorboard") is not None
    if asked and not installed:
        raise TrainingError(
            "[log]: tensorboard = true, but the package tensorboard is not installed; "
            'pip install "gristmill[tensorboard]", or leave the key out'
        )
    return installed if asked is None else asked


class Log:
    """Event files of one start, which goes on after `step` steps and `tokens` tokens; by the first rank alone."""

    def __init__(self, folder: Path, step: int, tokens: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        begun = {folder: step, folder / "by_tokens": tokens}
        self._steps, self._tokens = (
            SummaryWriter(str(place), purge_step=done + 1 if done else None, flush_secs=DELAY)
            for place, done in begun.items()
        )

    def add(self, kind: str, values: Mapping[str, Any], tokens: int) -> None:
        """A line of metrics.jsonl, after which the run had read so many tokens."""
        if kind == "step":
            values = {**values, "tokens_per_second": values["tokens"] / values["seconds"]}
        for name in SHOWN.get(kind, ()):
            if name not in values:  # a classifier has no bits per byte, and nobody else an accuracy
                continue
            self._steps.add_scalar(f"{GROUPS[kind]}/{name}", values[name], values["step"])
            if name in BY_TOKENS:
                self._tokens.add_scalar(f"{GROUPS[kind]} by tokens/{name}", values[name], tokens)

    def flush(self) -> None:
        """Have all of it in the files."""
        self._steps.flush()
        self._tokens.flush()

    def close(self) -> None:
        self._steps.close()
        self._tokens.close()
