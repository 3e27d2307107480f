"""Between a verb and the shell: Ctrl-C and SIGTERM are heard wherever they fall, and every error becomes words."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import typer

from flows import errors


def listen() -> None:
    """Take SIGTERM as Ctrl-C: what runs below ends in order, and exit code 130 says so."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.unraisablehook = again


def again(lost: sys.UnraisableHookArgs) -> None:
    """A Ctrl-C that fell into a finaliser or a callback is lost there: send it again, to where it is heard."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)


def settle() -> None:
    """Have pyarrow look for pandas now, with Ctrl-C and SIGTERM held back.

    It does so at the first list that it is given, half a second long where pandas is installed, and takes a Ctrl-C that
    falls into that for an absence. Raises KeyboardInterrupt where one came meanwhile.
    """
    import pyarrow as pa

    if threading.current_thread() is not threading.main_thread():
        pa.array([0])
        return
    came: list[int] = []
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(n))]
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in heard}
    try:
        pa.array([0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def briefly() -> Iterator[None]:
    """No looking for garbage in a verb that ends soon: a fifth of its time went into what was imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def told(function: Callable[..., None]) -> Callable[..., None]:
    """The function, of which every error ends in a sentence and its exit code."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            function(*arguments, **options)
        except (typer.Exit, BrokenPipeError, SystemExit):
            raise
        except BaseException as error:
            raise typer.Exit(errors.tell(error)) from None

    return guarded
