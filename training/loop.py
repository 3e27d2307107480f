"""One run, from its first step to its last: the same losses to the bit, wherever it was stopped and resumed.

    rows of a step -> micro-batches -> sum of losses and targets -> one gradient, divided by all targets -> update

The law: the rows of a step are arithmetic over (seed, step), the loss is divided by the targets of all ranks
and micro-batches, and a resume checks the hash chain over what was read before it goes on. A step
whose loss or gradient is not finite changes no weight, and after `patience` of them the run stops and names the
documents.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training import TrainingError, batch, checkpoint, classification, initial, lora, machine, mix, objectives, terminal
from training.config import Run
from training.journal import Journal
from training.ledger import Ledger
from training.loader import Laid, Loader
from training.manifest import Version
from training.objectives import Objective
from training.optim import Optimizer, clip, factor
from training.parallel import Group, autocast, gather, quiet_gradients
from training.progress import Reporter
from training.shards import Rows
from training.stop import Stop


@dataclass
class Trained:
    """A whole model and how far it came; `chain` is known to the first rank alone, and `parameters` are those that
    learnt."""

    model: Any
    objective: Objective
    steps: int
    chain: str
    parameters: int


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
        parts = batch.parts(run.batch.rows, run.batch.micro_rows, group.world)
        if group.shards and run.batch.rows // group.world < parts:
            raise TrainingError(
                f"batch.rows {run.batch.rows} in micro-batches of {run.batch.micro_rows} are not as many for each of "
                f"{group.world} processes, which fsdp needs; raise batch.micro_rows or make batch.rows a multiple"
            )
        self.stream = mix.Stream(run, version)
        self.objective = objectives.load(run.objective, "[objective]").over(version)
        self.fresh = 0  # tokens whose rows alone learn of their tables (`lora`)
        with machine.fitting(0):
            self.model: Any = _build(run, version)
            classification.check(self.objective, version, run.evaluation)
            self._begin()
            self.model.to(group.device)
        self.running = group.wrap(Scored(self.model, self.objective), run.precision, run.parallel)
        self.optimizer = Optimizer(self.model, run.optimizer, self.fresh)
        self.ledger = Ledger(self.stream.start, self.stream.step)
        self.tokens = 0  # read up to the checkpoint under way
        self.refused = 0  # steps in a row up to this one that changed nothing
        self.validated: tuple[int, float] | None = None
        self.step = self._resume()
        self.loader = Loader(run, self.stream, self.objective, group, self.step)
        self.writer = checkpoint.Writer(journal.checkpoints, run.checkpoint, group)

    def _begin(self) -> None:
        """The weights before the first step."""
        init, extra_tokens = self.run.init, self.objective.extra_tokens
        if init is None:
            self.model.initialise(self.run.seed)
            return
        folder = Path(init.folder)
        if fresh := initial.fill(self.model, folder, self.version, self.run.seed, extra_tokens=extra_tokens):
            self.progress.say(f"fresh, not from {folder}: {', '.join(fresh)}")
        if self.run.lora is not None:
            self.fresh = len(set(fresh) & set(extra_tokens))
            lora.begin(lora.adapt(self.model, self.run.lora), self.run.seed, self.fresh)

    def _resume(self) -> int:
        """Steps done: 0, or those of the newest checkpoint, after the end of its chain was recomputed."""
        found = checkpoint.steps(self.journal.checkpoints)
        if not found:
            return 0
        state = checkpoint.read_state(found[-1], verify=self.group.first)
        if state["digest"] != self.journal.table["digest"]:
            raise TrainingError(f"{found[-1]}: belongs to another run; remove it")
        if self.group.first:
            self.ledger.restore(state, found[-1], self.version.address)
        self.group.wait()
        checkpoint.load_weights(found[-1], self.model, self.group)
        checkpoint.load_optimizer(found[-1], self.optimizer, self.group)
        self.refused = state["refused"]
        return int(state["step"])

    def save(self) -> None:
        """Begin to write the checkpoint of the steps done; `written` says when it is whole."""
        self.written(wait=True)
        loss = self.validated[1] if self.validated and self.validated[0] == self.step else None
        state = {"digest": self.journal.table["digest"], "refused": self.refused, "validation_loss": loss}
        self.tokens = self.journal.tokens
        self.journal.flush()  # what leads to a checkpoint is kept where it is
        self.writer.save(self.step, self.model, self.optimizer, {**state, **self.ledger.state()})

    def written(self, *, wait: bool = False) -> None:
        """Enter into the books what was written since; raises TrainingError where that failed."""
        step = self.writer.finish() if wait else self.writer.check()
        if step is not None and self.group.first:
            self.journal.write(step=step, tokens_read=self.tokens)

    def whole(self) -> Any:
        """The model with all its parameters in each process: the one that is trained, or a gathered copy."""
        if not self.group.shards:
            return self.model
        model = _as_trained(self.run, self.version).to(self.group.device)
        gather(self.model, model)
        return model

    def advance(self, stop: Stop) -> bool:
        """Do one step; False where some rank was asked to stop."""
        began = time.perf_counter()
        group, run = self.group, self.run
        with machine.fitting(run.batch.rows, "batch.rows"):
            laid, waited = self.loader.next()
        whole = laid.whole
        loss, weight = self._gradients(laid)
        tokens = float(objectives.read(self.objective, laid.mine, laid.work))
        flops = float(sum(map(self.model.flops, laid.work)))
        loss, weight, tokens, flops, asked = group.sum([loss, weight, tokens, flops, float(stop.asked)])
        if not weight:
            raise TrainingError(f"step {self.step + 1}: its rows have no target; raise batch.rows")
        lora.hold(self.model, self.fresh)
        norm = float(clip(self.model, group.world / weight, run.optimizer.clip_norm))
        finite = math.isfinite(loss) and math.isfinite(norm)
        scale = factor(run.schedule, self.step)
        if finite:
            self.optimizer.step(scale, self.step)
        else:
            self.optimizer.forget()
        self.refused = 0 if finite else self.refused + 1
        self.step += 1
        if whole is not None:
            self.ledger.add(whole)
            seconds = time.perf_counter() - began
            # Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B) of all processes together.
            use = flops / seconds / (self.journal.table["peak"]["flops"] * group.world)
            spent = {"tokens": int(tokens), "seconds": seconds, "wait_seconds": waited, "mfu": use}
            counted = {"step": self.step, **spent, "chain": self.ledger.chain}
            if finite:
                rate = scale * run.optimizer.learning_rate
                self.journal.add("step", **counted, loss=loss / weight, gradient_norm=norm, learning_rate=rate)
                self.progress.note(f"loss {loss / weight:.3f}  {tokens / seconds:,.0f} tokens/s  {use:.1%} MFU")
            else:
                ids = self.stream.documents(np.unique(whole.documents), ["doc_id"])["doc_id"].to_pylist()
                found = {"loss": str(loss / weight), "gradient_norm": str(norm), "documents": ids}
                self.journal.add("refused", **counted, **found, rows=whole.index.tolist())
                self.progress.warn(f"step {self.step} refused: loss {loss / weight}, gradient norm {norm}")
        if self.refused == run.optimizer.patience:
            self._refuse(whole, loss / weight, norm)
        self.progress.advance()
        return not asked

    def _gradients(self, laid: Laid) -> tuple[float, float]:
        """Sum the gradients of all micro-batches; returns the sum of losses and the number of targets."""
        loss, weight, parts, compute = 0.0, 0.0, len(laid.prepared), self.run.precision.compute
        with autocast(self.group.device, compute):  # around them all: weights are made narrow once
            for number, prepared in enumerate(laid.prepared, 1):
                moved = {name: value.to(self.group.device, non_blocking=True) for name, value in prepared.items()}
                with machine.fitting(-(-len(laid.mine) // parts)), quiet_gradients(self.running, number == parts):
                    total, count = self.running(moved)
                    with autocast(self.group.device, "float32"):
                        total.backward()
                loss, weight = loss + float(total.detach()), weight + float(count)
        return loss, weight

    def _refuse(self, rows: Rows | None, loss: float, norm: float) -> None:
        named = ""
        if rows is not None:
            ids = self.stream.documents(np.unique(rows.documents)[:5], ["doc_id"])["doc_id"].to_pylist()
            named = f"; its {len(np.unique(rows.documents))} documents begin with {', '.join(ids)}"
        often = f", {self.refused} steps in a row" if self.refused > 1 else ""
        raise TrainingError(
            f"step {self.step}: loss {loss} and gradient norm {norm} are not both finite{often}; nothing was changed. "
            f"Lower optimizer.learning_rate or raise schedule.warmup{named}"
        )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """The average in the place of the weights, where the run keeps one."""
        average = self.optimizer.average
        if average:
            average.swap()
        try:
            yield
        finally:
            if average:
                average.swap()

    def validate(self) -> None:
        """Loss and bits per byte, or accuracy and macro F1, on some rows of the evaluation split, written down."""
        run = self.run
        with self.averaged():
            model = self.whole()
            tally = classification.scorer(model)(
                model,
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
            self.progress.say(terminal.validated(self.step, numbers))


def train(
    run: Run, version: Version, journal: Journal, group: Group, progress: Reporter, stop: Stop
) -> tuple[Trained, bool]:
    """Go on from the newest checkpoint, or start. Returns what was trained, and whether it is all of it."""
    loop = Loop(run, version, journal, group, progress)
    first, steps = loop.step, run.schedule.steps
    if group.first:
        journal.go_on(first, run.log.tensorboard)
        journal.write(peak=machine.peak_flops(run.precision.compute))
        learnt, left = lora.trained(loop.model, loop.fresh), objectives.left_out(loop.objective, loop.stream.split)
        journal.write(left_out=left)
        progress.say(terminal.begun(run, version, loop.model, group, first, journal.folder, learnt, left))
    progress.phase("train", steps)
    progress.advance(first)
    going = True
    try:
        with contextlib.closing(loop.loader):
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
    if loop.optimizer.average:
        loop.optimizer.average.swap()  # what is judged and exported
    learnt, model = lora.trained(loop.model, loop.fresh), loop.whole()
    if run.lora is not None:
        model = lora.fold(model)
    return Trained(model, loop.objective, loop.step, loop.ledger.chain, learnt), loop.step == steps


def _build(run: Run, version: Version) -> Any:
    return objectives.build(objectives.load(run.objective, "[objective]").over(version), run.model, version, "[model]")


def _as_trained(run: Run, version: Version) -> Any:
    """The model with all the parameters that a checkpoint of the run holds."""
    model = _build(run, version)
    return model if run.lora is None else lora.adapt(model, run.lora)


def load(run: Run, version: Version, journal: Journal, chosen: Path | None = None) -> Any:
    """The model of a run's newest checkpoint, or of the chosen one, on the CPU. Raises TrainingError where there is
    none."""
    found = [chosen] if chosen else checkpoint.steps(journal.checkpoints)
    if not found:
        raise TrainingError(f"{journal.folder}: has no checkpoint yet")
    checkpoint.read_state(found[-1])
    model = _as_trained(run, version)
    checkpoint.load_weights(found[-1], model)
    if run.optimizer.average is not None:
        checkpoint.load_average(found[-1], model)
    if run.lora is not None:
        lora.fold(model)
    return model.eval()
