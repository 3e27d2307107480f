"""A trained model over HTTP: the OpenAI API for completions and chat, and `/v1/classify` for classifiers.

Read in this order: `protocol` (what may be asked), `asking` and `chat` (from there to tokens), `engine` (a thread that
owns the model and works for all requests side by side), `answers`, `metrics`, `app` (routes). `serve` opens the door.

The law: a request is answered, refused in the words of the OpenAI API, or its client has gone; none is lost. Stopping
takes no new ones and finishes those that were taken.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from training import TrainingError


@dataclass(frozen=True)
class Limits:
    """What a server takes on: sequences side by side, sequences that wait, tokens that one request may ask for (None:
    as many as the context has), bytes of a request."""

    batch: int = 32
    queue: int = 1024
    max_tokens: int | None = None
    body: int = 4_000_000


def serve(place: Path, host: str, port: int, name: str | None, limits: Limits) -> None:
    """Answer until SIGTERM or SIGINT, then finish what runs. Raises TrainingError where it cannot begin."""
    try:
        import prometheus_client  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise TrainingError(f"serve needs {error.name}: pip install 'gristmill[serve]'") from error
    from training import loading
    from training.serving.app import application

    listening = _listen(host, port)
    loaded = loading.load(place)
    app = application(loaded, name or loaded.name, limits)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    print(f"serving {name or loaded.name} at {address}/v1; Ctrl-C finishes what runs", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends it again when all is finished, which is no failure
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on", server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before a model is loaded for nothing. Raises TrainingError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)  # who comes before the model is there waits for it
    except OSError as error:
        raise TrainingError(f"{host}:{port}: cannot listen there ({error.strerror}); give another --port") from error
    listening.set_inheritable(True)
    return listening
