"""Main text of HTML pages by libraries, in processes that a page cannot hold for longer than its time.

The law: whatever a page does to a parser (loops, deep recursion, memory without end), the caller has an answer: its
text, or an error that names what went wrong. The clock is the kernel's timer over the CPU seconds of such a process, so
a loaded machine does not change what is within the limit. The number that matters: .1 ms, what the trip there and
back takes a page.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import IO, Any, Literal

import orjson

Extractor = Literal["trafilatura", "resiliparse", "plain"]
Favour = Literal["balance", "precision", "recall"]
MEMORY = 4 << 30
# Seconds of the wall clock for one of CPU, after which a page counts as hung.
PATIENCE = 20
REMEMBERED = 10_000
_LENGTH = struct.Struct(">Q")


class ExtractionError(ValueError):
    """A page that a library cannot take, or not within its time."""


class Extraction:
    """The processes that read pages: as many as ask at the same time, so that each worker thread has one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        # Who looks for the page that is at fault asks again for each half of a batch: it costs its time once.
        self._refused: dict[bytes, str] = {}

    def ask(self, html: str, extractor: Extractor, favour: Favour, seconds: float) -> str:
        """The text of a page. Raises ExtractionError."""
        question = orjson.dumps([extractor, favour, seconds, html])
        mark = hashlib.blake2b(question, digest_size=16).digest()
        with self._lock:
            if mark in self._refused:
                raise ExtractionError(self._refused[mark])
            child = self._idle.pop() if self._idle else _Child()
        try:
            answer = child.ask(question, seconds)
        except ExtractionError as error:
            with self._lock:
                if len(self._refused) < REMEMBERED:
                    self._refused[mark] = str(error)
            raise
        except BaseException:  # whoever breaks off leaves an answer behind that the next question must not get
            child.kill()
            raise
        finally:
            with self._lock:
                self._idle.append(child)
        found = orjson.loads(answer)
        if isinstance(found, str):
            return found
        if found.get("absent"):
            raise ModuleNotFoundError(f"{found['error']}: pip install 'gristmill[web]'")
        raise ExtractionError(f"{extractor}: {found['error']}")

    @property
    def processes(self) -> list[int]:
        """The ids of those that wait for a page."""
        with self._lock:
            return [child.process.pid for child in self._idle if child.process is not None]

    def close(self) -> None:
        """End the processes that wait."""
        with self._lock:
            for child in self._idle:
                child.close()
            self._idle.clear()


class _Child:
    """A process that reads pages, one at a time; a new one after each that died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, question: bytes, seconds: float) -> bytes:
        """Its answer. Raises ExtractionError where it died of the page."""
        process = self._running()
        try:
            _write(process.stdin, question)
            return self._answer(process, seconds)
        except (BrokenPipeError, EOFError) as error:
            raise self._died(process, seconds) from error

    def kill(self) -> None:
        """End the process whatever it does."""
        if self.process is not None and self._owner == os.getpid():
            self.process.kill()
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None or self._owner != os.getpid() or self.process.poll() is not None:
            command = [sys.executable, "-P", "-c", "from pipeline.extraction import serve; serve()"]
            environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
            )
            self._owner = os.getpid()
        return self.process

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], PATIENCE * max(seconds, 1.0) + 60)[0]:
            process.kill()
        return _read(process.stdout)

    def _died(self, process: subprocess.Popen[bytes], seconds: float) -> ExtractionError:
        code = process.wait()
        self.close()
        if code == -signal.SIGPROF:
            return ExtractionError(f"the page takes more than {seconds:g} CPU seconds")
        return ExtractionError(f"the extractor died of the page (exit {code})")

    def close(self) -> None:
        """End the process, if there is one of ours."""
        if self.process is not None and self._owner == os.getpid():
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process.wait()
        self.process = None


running = Extraction()
atexit.register(running.close)
extract = running.ask


def _write(pipe: IO[bytes] | None, data: bytes) -> None:
    assert pipe is not None
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def _read(pipe: IO[bytes] | None) -> bytes:
    assert pipe is not None
    head = pipe.read(_LENGTH.size)
    data = pipe.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
    if not data:
        raise EOFError
    return data


# In the process


def serve() -> None:
    """Answer pages on standard input until it ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            extractor, favour, seconds, html = orjson.loads(_read(sys.stdin.buffer))
        except EOFError:
            return
        _write(answers, orjson.dumps(_answered(extractor, favour, seconds, html)))


def _answered(extractor: Extractor, favour: Favour, seconds: float, html: str) -> str | dict[str, Any]:
    try:
        function = _EXTRACTORS[extractor]()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return function(html, favour).encode("utf-8", "replace").decode()
    except ImportError as error:
        return {"error": str(error), "absent": True}
    except Exception as error:  # of any library: the page is at fault, and named by who asked
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _trafilatura() -> Callable[[str, Favour], str]:
    import trafilatura

    def main_text(html: str, favour: Favour) -> str:
        precise, recalling = favour == "precision", favour == "recall"
        found = trafilatura.extract(html, include_comments=False, favor_precision=precise, favor_recall=recalling)
        return found or ""

    return main_text


def _resiliparse(main: bool) -> Callable[[str, Favour], str]:
    from resiliparse.extract.html2text import extract_plain_text

    def text(html: str, favour: Favour) -> str:
        return str(extract_plain_text(html, main_content=main, alt_texts=False))

    return text


_EXTRACTORS: dict[str, Callable[[], Callable[[str, Favour], str]]] = {
    "trafilatura": _trafilatura,
    "resiliparse": partial(_resiliparse, True),
    "plain": partial(_resiliparse, False),
}
