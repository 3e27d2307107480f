"""A small package index on loopback: a folder of wheels behind the pages of PEP 503."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

QUIET = {"PIP_CONFIG_FILE": "/dev/null", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "0"}


class Handler(BaseHTTPRequestHandler):
    """/simple/NAME/ lists the files of a distribution, /files/FILE is one."""

    folder: Path

    def do_GET(self) -> None:
        part, *rest = self.path.strip("/").split("/")
        file = self.folder / (rest[-1] if rest else "")
        if part == "files" and file.is_file():
            self._send("application/octet-stream", file.read_bytes())
        elif part == "simple" and rest and (links := "".join(map(self._link, self._files(rest[0])))):
            self._send("text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        else:
            self.send_error(404)

    def _files(self, name: str) -> list[Path]:
        files = sorted(file for file in self.folder.iterdir() if file.is_file())
        return [file for file in files if re.sub("[-_.]+", "-", file.name.split("-")[0]).lower() == name]

    def _link(self, file: Path) -> str:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return f'<a href="/files/{file.name}#sha256={digest}">{file.name}</a>'

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def start(folder: Path) -> tuple[ThreadingHTTPServer, str]:
    """A server over the wheels in `folder`, and the address for --index-url."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Index", (Handler,), {"folder": folder}))
    Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/simple"


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes], tag: str = "py3-none-any") -> Path:
    """Lay the wheel of a distribution with these files into a folder."""
    info = f"{name}-{version}.dist-info"
    told = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(held := io.BytesIO(), "w") as archive:
        for file, data in {**files, **told}.items():
            archive.writestr(zipfile.ZipInfo(file), data, zipfile.ZIP_DEFLATED)
    (path := folder / f"{name}-{version}-{tag}.whl").write_bytes(held.getvalue())
    return path
