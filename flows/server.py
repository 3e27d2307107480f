"""Prefect's server as the child of one command: `python -P -m flows.server PARENT FD [HOME]`.

It serves on a socket that the parent has bound (no race for a port) and ends when the parent ends,
however the parent ends: a server that outlives a killed command would hold its folder for ever.
HOME, when given, is a temporary folder that it removes if the parent could not.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time

LOOK = 0.5


def main(parent: int, descriptor: int, home: str | None) -> None:
    threading.Thread(target=_end_with, args=(parent, home), daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    listening = socket.socket(fileno=descriptor)
    config = uvicorn.Config(create_app(ephemeral=True, final=True), log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listening])


def _end_with(parent: int, home: str | None) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    if home:
        shutil.rmtree(home, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
