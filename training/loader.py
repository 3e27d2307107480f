"""The rows of the next steps, laid out while this one computes: a step never waits for what it reads.

    stream.step -> micro-batches -> objective.prepare -> pinned memory, where the device is a GPU

Rows of examples go into the micro-batches by their length: a batch is as long as its longest row.

One thread lays out at most `batch.ahead` steps; numpy and torch release the interpreter while they copy. The law: a
step's tensors are a function of (run, version, step, rank) alone, so they are the same to the bit with a thread and
without one (`ahead = 0`). What goes wrong in the thread is raised where the step is asked for.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass

from training import batch, objectives
from training.config import Run
from training.mix import Stream
from training.models import Work
from training.objectives import Batch, Objective
from training.parallel import Group
from training.shards import Rows

LOOK = 0.1


@dataclass(frozen=True)
class Laid:
    """One rank's part of a step: its micro-batches and what each has a model multiply, their rows, and on the first
    rank the rows of all ranks."""

    step: int
    whole: Rows | None
    mine: Rows
    prepared: list[Batch]
    work: list[Work]


class Loader:
    """Steps from 0-based `first` on, in order; `close` it."""

    def __init__(self, run: Run, stream: Stream, objective: Objective, group: Group, first: int) -> None:
        self.run, self.stream, self.objective, self.group, self.step = run, stream, objective, group, first
        self._ready: queue.Queue[Laid | BaseException] = queue.Queue(max(1, run.batch.ahead))
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def next(self) -> tuple[Laid, float]:
        """The next step, and the seconds that were waited for it."""
        began = time.perf_counter()
        if not self.run.batch.ahead:
            found: Laid | BaseException = self.lay(self.step)
        else:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, args=(self.step,), daemon=True)
                self._thread.start()
            found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        self.step += 1
        return found, time.perf_counter() - began

    def lay(self, step: int) -> Laid:
        """Lay a step out, now."""
        run, group = self.run, self.group
        whole = self.stream.step(step) if group.first else None
        # The first rank's share begins the step's rows: what it has in hand is not laid out again.
        share = len(batch.positions(step, run.batch.rows, group.rank, group.world))
        mine = whole.slice(0, share) if whole is not None else self.stream.step(step, group.rank, group.world)
        laid = mine.by_length()
        keys, first = batch.row_keys(run.seed, step, laid.index), 0
        laid = objectives.perturbed(self.objective, laid, keys)
        prepared, work = [], []
        # As many on every rank, which take part in the same sums.
        parts = batch.parts(run.batch.rows, run.batch.micro_rows, group.world)
        for part in batch.micro_batches(laid, min(parts, len(laid))):
            made = self.objective.prepare(part, keys[first : first + len(part)])
            work.append(getattr(self.objective, "work", objectives.work)(part, made))
            prepared.append(self._pinned(made))
            first += len(part)
        return Laid(step, whole, mine, prepared, work)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _pinned(self, prepared: Batch) -> Batch:
        if self.group.device.type != "cuda":
            return prepared
        return {name: value.pin_memory() for name, value in prepared.items()}

    def _work(self, first: int) -> None:
        for step in range(first, self.run.schedule.steps):
            try:
                made: Laid | BaseException = self.lay(step)
            except BaseException as error:
                made = error
            while not self._closed.is_set():
                try:
                    self._ready.put(made, timeout=LOOK)
                    break
                except queue.Full:
                    continue
            if self._closed.is_set() or isinstance(made, BaseException):
                return
