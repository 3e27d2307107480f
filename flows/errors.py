"""What can go wrong, as a person is told it: one sentence, and an exit code that a script can tell apart.

    0    done
    1    something is wrong: a problem that verify or audit found, a store damaged under a build, a lost worker, a bug
    2    the input is not what it should be: a recipe, a card, a run file, an address, a version that was edited or is
         damaged, a model that cannot be had
    130  stopped by Ctrl-C or SIGTERM; the same command goes on

Only a bug is shown with its traceback.
"""

from __future__ import annotations

import sys
import traceback

from flows.screen import clean

DONE, WRONG, INPUT, STOPPED = 0, 1, 2, 130
SENTENCE = 4000
AGAIN = "run the same command again to go on"


def exit_code(error: BaseException) -> int:
    """The exit code that tells what kind of thing happened."""
    if isinstance(error, _stops()):
        return STOPPED
    return INPUT if isinstance(error, _inputs()) else WRONG


def tell(error: BaseException) -> int:
    """Say on stderr what happened, in one line unless it is a bug; returns the exit code."""
    code = exit_code(error)
    if code == STOPPED:
        words = clean(str(error) or "what is finished is kept", SENTENCE)
        sys.stderr.write(f"stopped: {words}; {AGAIN}\n")
    elif isinstance(error, (*_inputs(), *_known())):
        for line in getattr(error, "lines", ()):
            sys.stderr.write(f"  | {clean(line)}\n")
        sys.stderr.write(f"error: {clean(sentence(error), SENTENCE)}\n")
    else:
        for line in "".join(traceback.format_exception(error)).splitlines():
            sys.stderr.write(clean(line, SENTENCE) + "\n")
    return code


def sentence(error: BaseException) -> str:
    """The message; of an error of the system or of a check, the words that name the place."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']} (got {first['input']!r})"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _stops() -> tuple[type[BaseException], ...]:
    from flows.process import TrainingStopped

    return (KeyboardInterrupt, TrainingStopped)


def _inputs() -> tuple[type[BaseException], ...]:
    from pydantic import ValidationError

    from flows.embedded import Unconfigured
    from flows.process import TrainingRefused
    from pipeline.models import ModelError
    from pipeline.sources import SourceError
    from pipeline.stage import ConfigError

    return (ConfigError, SourceError, ModelError, TrainingRefused, Unconfigured, ValidationError)


def _known() -> tuple[type[BaseException], ...]:
    from flows.embedded import ServerError
    from flows.process import TrainingFailed
    from pipeline.run import ContractError
    from pipeline.runner import WorkerLost
    from pipeline.store import StoreError

    return (StoreError, WorkerLost, ContractError, ServerError, TrainingFailed, OSError, MemoryError)
