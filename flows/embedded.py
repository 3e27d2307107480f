"""Prefect's server for the length of one command, where no Prefect API is configured.

It listens on a free loopback port behind a password that only this command knows, keeps its database
in a private temporary folder (in PREFECT_HOME where one is set), writes nothing to the terminal, and
is gone with its folder when the command ends: also after Ctrl-C, and after `kill -9`, because it looks
for its parent. The number that matters: a fresh database takes Prefect 8 s to create and 0.4 s to open,
so the empty one is kept in the cache, one for each version of Prefect.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.cache import cache_home

OFFLINE = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
START_SECONDS = 180
DATABASE, MEMO = "prefect.db", "memo_store.toml"


class ServerError(RuntimeError):
    """Prefect's embedded server did not start."""


class Unconfigured(ServerError):
    """No Prefect API is configured where one is needed, or the configured one does not answer."""


def quiet() -> None:
    """Defaults for a command: no telemetry, no version check, nothing of Prefect's on the terminal."""
    for name, value in OFFLINE.items():
        os.environ.setdefault(name, value)


def configured() -> bool:
    """Whether the environment or the active profile names a Prefect API. Imports prefect only if a profile might."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    if not profiles.exists() and not Path("prefect.toml").exists() and not Path(".env").exists():
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def reach() -> None:
    """Raise Unconfigured where the configured Prefect API does not answer."""
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise Unconfigured(
                f"the Prefect API at {get_current_settings().api.url} does not answer ({error}); start it, unset "
                "PREFECT_API_URL to use a server of this command's own, or run with --direct"
            )


@contextlib.contextmanager
def api() -> Iterator[None]:
    """The configured Prefect API, or an embedded server for the length of the block."""
    quiet()
    if configured():
        reach()
        yield
        return
    with server() as (settings, ready), using(settings):
        ready()
        try:
            yield
        finally:
            _drain()


@contextlib.contextmanager
def using(settings: Mapping[str, str]) -> Iterator[None]:
    """Be a client under these settings, in this process and those that it starts, for the length of the block."""
    with _environment(settings):
        from prefect import flow  # noqa: F401  (takes seconds: meanwhile the server starts)
        from prefect.settings import temporary_settings

        named: dict[str, Any] = {"home": settings["PREFECT_HOME"], "api.url": settings["PREFECT_API_URL"]}
        named |= {"api.auth_string": settings["PREFECT_API_AUTH_STRING"], "logging.to_api.enabled": False}
        with temporary_settings(named):
            yield


@contextlib.contextmanager
def server() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Start a server; yields the settings under which a client finds it, and what waits until it answers.

    Raises ServerError where it does not start.
    """
    given = os.environ.get("PREFECT_HOME")
    home = Path(given).expanduser() if given else Path(tempfile.mkdtemp(prefix="gristmill-prefect-"))
    home.mkdir(parents=True, exist_ok=True)
    password = f"gristmill:{secrets.token_urlsafe(24)}"
    settings = {"PREFECT_HOME": str(home), "PREFECT_API_AUTH_STRING": password, "PREFECT_LOGGING_TO_API_ENABLED": "0"}
    fresh = _from_cache(home)
    process, port = _start(home, settings, temporary=not given)
    settings["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"

    def ready() -> None:
        _wait(process, settings["PREFECT_API_URL"], home / "server.log")
        if fresh:
            _to_cache(home)

    try:
        yield settings, ready
    finally:
        _stop(process, politely=bool(given))
        if not given:
            shutil.rmtree(home, ignore_errors=True)


def _start(home: Path, settings: Mapping[str, str], temporary: bool) -> tuple[subprocess.Popen[bytes], int]:
    """In a session of its own, so that Ctrl-C reaches it last; its output goes to a file, so no pipe hangs on it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening, (home / "server.log").open("wb") as log:
        command = [sys.executable, "-P", "-m", "flows.server", str(os.getpid()), str(listening.fileno())]
        own = {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
        own["PREFECT_SERVER_API_AUTH_STRING"] = settings["PREFECT_API_AUTH_STRING"]
        process = subprocess.Popen(
            [*command, *([str(home)] if temporary else [])],
            env={**os.environ, **settings, **own},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return process, listening.getsockname()[1]


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """The socket queues the request until the server is up; a server that died resets it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/health", timeout=START_SECONDS):
            return
    except OSError as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or [str(error)]
        raise ServerError(
            f"Prefect's embedded server did not start ({last[0]}); --direct runs the same plan without Prefect"
        ) from error


def _stop(process: subprocess.Popen[bytes], politely: bool) -> None:
    if politely:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    process.kill()
    process.wait()


def _drain() -> None:
    """Let events and logs reach the server before it goes: what is left would be retried against nothing."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    with contextlib.suppress(Exception):
        EventsWorker.drain_all(timeout=5)
    with contextlib.suppress(Exception):
        APILogWorker.drain_all(timeout=5)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cached() -> Path:
    return cache_home() / "prefect" / importlib.metadata.version("prefect")


def _from_cache(home: Path) -> bool:
    """Put an empty, migrated database into a new home; True where there was none to put."""
    if (home / DATABASE).exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{_cached() / DATABASE}?mode=ro", uri=True)) as database:
            if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                return True
        for name in (DATABASE, MEMO):
            shutil.copyfile(_cached() / name, home / name)
    except (sqlite3.Error, OSError):
        (home / DATABASE).unlink(missing_ok=True)
        return True
    return False


def _to_cache(home: Path) -> None:
    """Keep the database as it is before any run; without it the next start is slower, so a failure is no error."""
    with contextlib.suppress(sqlite3.Error, OSError):
        _cached().mkdir(parents=True, exist_ok=True)
        temporary = _cached() / f"{DATABASE}.{secrets.token_hex(4)}"
        try:
            with (
                contextlib.closing(sqlite3.connect(home / DATABASE)) as source,
                contextlib.closing(sqlite3.connect(temporary)) as target,
            ):
                source.backup(target)
                target.execute("PRAGMA journal_mode = DELETE")
            shutil.copyfile(home / MEMO, _cached() / MEMO)
            temporary.replace(_cached() / DATABASE)
        finally:
            temporary.unlink(missing_ok=True)
