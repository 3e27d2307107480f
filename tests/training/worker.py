"""One of several processes of a run, under torchrun: `-m tests.training.worker JSON`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tests.training import runs
from training import loop
from training.stop import Stop


def kill_at(step: int) -> None:
    """The second rank dies before this step, the first time that torchrun starts it."""
    if os.environ["RANK"] != "1" or os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return
    advance = loop.Loop.advance

    def dying(self: loop.Loop, stop: Stop) -> bool:
        if self.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(self, stop)

    loop.Loop.advance = dying  # type: ignore[method-assign]


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked["kill_at"] is not None:
        kill_at(asked["kill_at"])
    places = (Path(asked[name]) for name in ("run", "manifest", "runs"))
    runs.fit(*places, after=asked["after"], changes=tuple(asked["changes"]))


if __name__ == "__main__":
    main()
