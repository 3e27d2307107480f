"""What was read, as a hash chain: each step's link names the ordered spans of all its rows and the link before.

    chain[0] = H(versions, seed, rows a step)     chain[n] = H(chain[n - 1], spans of step n)

The law: a resume goes on only where the rows that it would give now are those that the checkpoint was trained on.
It costs the same at step 10 and at step 10 million: a checkpoint holds its link and the one `TAIL` steps before,
and only the steps between are computed again. Why that is enough: the shards are the manifest's, whose digest is in
chain[0], so what could differ is the arithmetic of the order, and another permutation gives other rows at the
first of those steps but by chance. Each line of metrics.jsonl holds its link too, so that any step can be checked
alone (`trace`), and all of them by whoever wants to.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import TrainingError, batch
from training.shards import Rows

TAIL = 8


class Ledger:
    """The chain of a run, at `step` steps done; `rows` lays out a 0-based step."""

    def __init__(self, start: str, rows: Callable[[int], Rows]) -> None:
        self._rows = rows
        self._links = deque([start], TAIL + 1)
        self.step = 0

    @property
    def chain(self) -> str:
        return self._links[-1]

    def add(self, rows: Rows) -> None:
        """Append the next step."""
        self._links.append(batch.chain_next(self.chain, rows))
        self.step += 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the newest link and those of the tail before it, the oldest first."""
        return {"chain": self.chain, "tail": list(self._links)[:-1]}

    def restore(self, state: dict[str, Any], where: Path, address: str) -> None:
        """Take up a checkpoint's state. Raises TrainingError where its last steps were trained on other rows."""
        step, links = int(state["step"]), [*state["tail"], state["chain"]]
        first = step - len(state["tail"])
        whole = len(state["tail"]) == min(step, TAIL) and (first > 0 or links[0] == self._links[0])
        for number, (before, after) in enumerate(itertools.pairwise(links)):
            whole = whole and batch.chain_next(before, self._rows(first + number)) == after
        if not whole:
            raise TrainingError(
                f"{where}: was trained on other documents than {address} now gives for its {step} steps; "
                "the version or the order changed, start a new run with --name"
            )
        self._links = deque(links, TAIL + 1)
        self.step = step
