"""When a run is asked to stop: by a signal, or by the end of the process that started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType


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
