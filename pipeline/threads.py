"""Worker threads: a pool whose tasks can be broken off, and which no exit of the process waits for.

The law: whoever is told to stop gives up at its next line of Python, and its half-written output is cleared by its own
hands. What cannot be told, in the middle of a long call into a library, is left behind and dies with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")
Call = tuple[Future[Any], Callable[[], Any]]


class Abandoned(BaseException):
    """Raised in a worker thread, from outside, where it stands."""


class Threads(Executor):
    """`count` daemon threads that take calls in order."""

    def __init__(self, count: int) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        """Have a function called by the next thread that is free."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*arguments, **named)))
        return future

    def _work(self) -> None:
        with contextlib.suppress(Abandoned):
            self._take()

    def _take(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
                if isinstance(error, Abandoned):
                    return
            # Nothing of a call is held while the next is waited for.
            del call, future, function

    def abandon(self, patience: float) -> None:
        """Break off what runs, drop what waits, and wait so many seconds for the threads to end."""
        self.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            if thread.ident is not None and thread.is_alive():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Abandoned))
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        # Nobody waits for one that did not hear.
        self._threads.clear()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when they have done what was submitted, or, with `cancel_futures`, what they are at."""
        while cancel_futures:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is not None:
                call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()


def ahead(function: Callable[[S], T], items: Iterable[S], count: int) -> Iterator[T]:
    """`function` of each item, in their order, by `count` threads; as many are made before they are asked for."""
    if count < 2:
        yield from map(function, items)
        return
    with Threads(count) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
