"""One run, from its first step to its last: the same losses to the bit, wherever it was stopped and resumed.

    rows of a step -> micro-batches -> sum of losses and targets -> one gradient, divided by all targets -> update

The law: the rows of a step are arithmetic over (seed, step), the loss is divided by the targets of all ranks
and micro-batches, and a resume recomputes the hash chain over all that was read before it goes on. A step
whose loss or gradient is not finite changes nothing: the run stops and names the documents.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from training import TrainingError, batch, checkpoint, evaluate, initial, objectives, order
from training.config import Run
from training.journal import Journal
from training.manifest import Version
from training.objectives import Objective
from training.optim import Optimizer, clip, factor
from training.parallel import Group, autocast, gather, quiet_gradients
from training.progress import Reporter
from training.shards import Rows, Split


class Stop:
    """Asked to stop by SIGTERM or SIGINT, or by the end of the process that started the run."""

    def __init__(self, parent: int | None = None) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._ask)
        if parent:
            threading.Thread(target=self._watch, args=(parent,), daemon=True).start()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def _watch(self, parent: int) -> None:
        while not self.asked:
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                self.asked = True
            except PermissionError:
                pass
            time.sleep(0.5)


@dataclass
class Trained:
    """A model and how far it came; `chain` is known to the first rank alone."""

    model: Any
    objective: Objective
    steps: int
    chain: str


class Scored(nn.Module):
    """A model with its objective: one forward that gives (sum of losses, targets), to be wrapped or compiled whole."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, prepared: objectives.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.objective.loss(self.model, prepared)


class Loop:
    """The state of a run between two steps."""

    def __init__(self, run: Run, version: Version, journal: Journal, group: Group, progress: Reporter) -> None:
        self.run, self.version, self.journal, self.group, self.progress = run, version, journal, group, progress
        if run.batch.rows < group.world:
            raise TrainingError(f"batch.rows is {run.batch.rows} for {group.world} processes: each needs one at least")
        self.parts = batch.parts(run.batch.rows, run.batch.micro_rows, group.world)
        if group.shards and run.batch.rows // group.world < self.parts:
            raise TrainingError(
                f"batch.rows {run.batch.rows} in micro-batches of {run.batch.micro_rows} are not as many for each of "
                f"{group.world} processes, which fsdp needs; raise batch.micro_rows or make batch.rows a multiple"
            )
        self.split = Split(version, "train")
        self.objective = objectives.load(run.objective, "[objective]").over(version)
        self.model: Any = _build(run, version)
        if run.init is None:
            self.model.initialise(run.seed)
        else:
            initial.fill(self.model, Path(run.init.folder), version)
        self.model.to(group.device)
        self.running = group.wrap(Scored(self.model, self.objective), run.precision, run.parallel)
        self.optimizer = Optimizer(self.model, run.optimizer)
        self.chain = batch.chain_start(version.manifest.version, run.seed, run.batch.rows)
        self.validated: tuple[int, float] | None = None
        self.step = self._resume()
        self.writer = checkpoint.Writer(journal.checkpoints, run.checkpoint, group)

    def rows(self, step: int, rank: int = 0, world: int = 1) -> Rows:
        """The rows of a 0-based step that are `rank`'s (all of them by default)."""
        positions = batch.positions(step, self.run.batch.rows, rank, world)
        return self.split.take(order.rows(len(self.split), self.run.seed, positions))

    def _resume(self) -> int:
        """Steps done: 0, or those of the newest checkpoint, after its chain was recomputed."""
        found = checkpoint.steps(self.journal.checkpoints)
        if not found:
            return 0
        state = checkpoint.read_state(found[-1], verify=self.group.first)
        if state["digest"] != self.journal.table["digest"]:
            raise TrainingError(f"{found[-1]}: belongs to another run; remove it")
        if self.group.first:
            for step in range(state["step"]):
                self.chain = batch.chain_next(self.chain, self.rows(step))
            if self.chain != state["chain"]:
                raise TrainingError(
                    f"{found[-1]}: was trained on other documents than {self.version.address} now gives for its "
                    f"{state['step']} steps; the version or the order changed, start a new run with --name"
                )
        self.group.wait()
        checkpoint.load_weights(found[-1], self.model, self.group)
        checkpoint.load_optimizer(found[-1], self.optimizer, self.group)
        return int(state["step"])

    def save(self) -> None:
        """Begin to write the checkpoint of the steps done; `written` says when it is whole."""
        self.written(wait=True)
        loss = self.validated[1] if self.validated and self.validated[0] == self.step else None
        state = {"digest": self.journal.table["digest"], "chain": self.chain, "validation_loss": loss}
        self.writer.save(self.step, self.model, self.optimizer, state)

    def written(self, *, wait: bool = False) -> None:
        """Enter into the books what was written since; raises TrainingError where that failed."""
        step = self.writer.finish() if wait else self.writer.check()
        if step is not None and self.group.first:
            self.journal.write(step=step)

    def whole(self) -> Any:
        """The model with all its parameters in each process: the one that is trained, or a gathered copy."""
        if not self.group.shards:
            return self.model
        model = _build(self.run, self.version).to(self.group.device)
        gather(self.model, model)
        return model

    def advance(self, stop: Stop) -> bool:
        """Do one step; False where some rank was asked to stop."""
        began = time.perf_counter()
        group, run = self.group, self.run
        whole = self.rows(self.step) if group.first else None
        # The first rank's share begins the step's rows: what it has in hand is not laid out again.
        share = len(batch.positions(self.step, run.batch.rows, group.rank, group.world))
        mine = whole.slice(0, share) if whole is not None else self.rows(self.step, group.rank, group.world)
        loss, weight = self._gradients(mine)
        tokens = float(mine.used.sum())
        loss, weight, tokens, asked = group.sum([loss, weight, tokens, float(stop.asked)])
        if not weight:
            raise TrainingError(f"step {self.step + 1}: its rows have no target; raise batch.rows")
        norm = float(clip(self.model, group.world / weight, run.optimizer.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(whole, loss / weight, norm)
        scale = factor(run.schedule, self.step)
        self.optimizer.step(scale)
        self.step += 1
        if whole is not None:
            self.chain = batch.chain_next(self.chain, whole)
            seconds = time.perf_counter() - began
            values = {
                "loss": loss / weight,
                "gradient_norm": norm,
                "learning_rate": scale * run.optimizer.learning_rate,
            }
            self.journal.add("step", step=self.step, tokens=int(tokens), seconds=seconds, **values)
            self.progress.note(f"loss {loss / weight:.3f}  {tokens / seconds:,.0f} tokens/s")
        self.progress.advance()
        return not asked

    def _gradients(self, mine: Rows) -> tuple[float, float]:
        """Sum the gradients of all micro-batches; returns the sum of losses and the number of targets."""
        keys = batch.row_keys(self.run.seed, self.step, mine.index)
        loss, weight, first = 0.0, 0.0, 0
        for part in batch.micro_batches(mine, min(self.parts, len(mine))):
            prepared = self.objective.prepare(part, keys[first : first + len(part)])
            first += len(part)
            moved = {name: value.to(self.group.device) for name, value in prepared.items()}
            with quiet_gradients(self.running, first == len(mine)):
                with autocast(self.group.device, self.run.precision.compute):
                    total, count = self.running(moved)
                total.backward()
            loss, weight = loss + float(total.detach()), weight + float(count)
        return loss, weight

    def _refuse(self, rows: Rows | None, loss: float, norm: float) -> None:
        named = ""
        if rows is not None:
            ids = self.version.documents["doc_id"].take(np.unique(rows.documents)[:5]).to_pylist()
            named = f"; its {len(np.unique(rows.documents))} documents begin with {', '.join(ids)}"
        raise TrainingError(
            f"step {self.step + 1}: loss {loss} and gradient norm {norm} are not both finite; nothing was changed. "
            f"Lower optimizer.learning_rate or raise schedule.warmup{named}"
        )

    def validate(self) -> None:
        """Loss and bits per byte on some rows of the evaluation split, written down."""
        run = self.run
        tally = evaluate.score(
            self.whole(),
            self.objective,
            self.version,
            run.evaluation,
            run.precision,
            self.group,
            rows=run.evaluation.rows,
        )
        numbers = tally.numbers("model")
        self.validated = self.step, numbers["loss"]
        if self.group.first:
            self.journal.add("validation", step=self.step, **numbers, **tally.counts())


def train(
    run: Run, version: Version, journal: Journal, group: Group, progress: Reporter, stop: Stop
) -> tuple[Trained, bool]:
    """Go on from the newest checkpoint, or start. Returns what was trained, and whether it is all of it."""
    loop = Loop(run, version, journal, group, progress)
    first, steps = loop.step, run.schedule.steps
    if group.first:
        journal.cut(first)
        if first:
            journal.write(resumed_at=[*journal.table["resumed_at"], first])
    progress.phase("train", steps)
    progress.advance(first)
    going = True
    try:
        while going and loop.step < steps:
            going = loop.advance(stop)
            loop.written()
            if loop.step % run.evaluation.every == 0 or loop.step == steps:
                loop.validate()
            if loop.step % run.checkpoint.every == 0 and loop.step < steps and going:
                loop.save()
        if loop.step > first:
            loop.save()
    except TrainingError:  # a step that is refused does not cost the checkpoint under way
        with contextlib.suppress(TrainingError):
            loop.written(wait=True)
        raise
    loop.written(wait=True)
    return Trained(loop.whole(), loop.objective, loop.step, loop.chain), loop.step == steps


def _build(run: Run, version: Version) -> Any:
    return objectives.build(objectives.load(run.objective, "[objective]"), run.model, version, "[model]")


def load(run: Run, version: Version, journal: Journal) -> Any:
    """The model of a run's newest checkpoint, on the CPU. Raises TrainingError where there is none."""
    found = checkpoint.steps(journal.checkpoints)
    if not found:
        raise TrainingError(f"{journal.folder}: has no checkpoint yet")
    checkpoint.read_state(found[-1])
    model = _build(run, version)
    checkpoint.load_weights(found[-1], model)
    return model.eval()
