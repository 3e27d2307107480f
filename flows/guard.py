"""Between a verb and the shell: Ctrl-C and SIGTERM are heard wherever they fall, and every error becomes words."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
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
