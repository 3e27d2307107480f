"""A small Hub on loopback: data sets as folders, with what `huggingface_hub` asks of the real one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Handler(BaseHTTPRequestHandler):
    """/api/datasets/OWNER/NAME/revision/REVISION and /datasets/OWNER/NAME/resolve/REVISION/PATH."""

    folder: Path
    cards: dict[str, Any]
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        parts = unquote(self.path.partition("?")[0]).strip("/").split("/")
        api = parts[0] == "api"
        owner, name, _, revision, *rest = parts[1 + api :] if len(parts) >= 5 + api else [""] * 4
        root = self.folder / owner / name
        if not owner or not root.is_dir():
            self._error(404, "RepoNotFound")
        elif revision not in (REVISION, "main"):
            self._error(404, "RevisionNotFound")
        elif api:
            files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
            siblings = [{"rfilename": file} for file in files]
            info = {"id": f"{owner}/{name}", "sha": REVISION, "siblings": siblings, "private": False, "gated": False}
            info |= {"downloads": 0, "likes": 0, "tags": [], "cardData": self.cards.get(name)}
            self._send(json.dumps(info).encode(), {})
        elif not (root.joinpath(*rest)).is_file():
            self._error(404, "EntryNotFound")
        else:
            data = root.joinpath(*rest).read_bytes()
            self._send(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": REVISION})

    do_HEAD = do_GET

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, fields: dict[str, str]) -> None:
        asked = self.headers.get("Range", "")
        first, _, last = asked.removeprefix("bytes=").partition("-")
        piece = data[int(first or 0) : int(last) + 1 if last else None]
        self.send_response(206 if asked else 200)
        for field, value in {**fields, "Content-Length": str(len(piece)), "Accept-Ranges": "bytes"}.items():
            self.send_header(field, value)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{int(first or 0) + len(piece) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(piece)

    def log_message(self, *_: Any) -> None:
        pass


def start(folder: Path, cards: dict[str, Any] | None = None) -> tuple[ThreadingHTTPServer, str]:
    """A server over `folder`/OWNER/NAME, and its address; `cards` has the card of a data set by its name."""
    handler = type("Hub", (Handler,), {"folder": folder, "cards": cards or {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@contextmanager
def hub(folder: Path, cards: dict[str, Any] | None = None) -> Iterator[str]:
    server, address = start(folder, cards)
    yield address
    server.shutdown()
    server.server_close()
