"""A small input of kind `archive`: zip, tar and deb, whole and damaged, with members that nobody should read."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

SITE = None

FILES = {
    "docs/a.txt": "Der Müller mahlt.".encode(),
    "docs/b.md": b"# Mill",
    "docs/bad.txt": b"\xff\xfe",
    "docs/empty.txt": b"",
    "page.html": b"<p>wheel</p>",
    "picture.png": b"\x89PNG",
    "rows.jsonl": b"\n".join(json.dumps({"text": f"row {n}"}).encode() for n in range(5)) + b"\n[1]\n",
    "rows.jsonl.gz": gzip.compress(b'{"text": "packed"}', mtime=0),
    "../out.txt": b"outside",
}
ROWS, REJECTS = 1 + 1 + 1 + 1 + 1 + 6 + 1 + 1, 1 + 1 + 1 + 1


def zipped(files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tarred(files: dict[str, bytes], **kinds: bytes) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(f"{name}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return file.getvalue()


def package(data: bytes) -> bytes:
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tarred({"control.txt": b"x"})),
        "data.tar": data,
    }
    heads = {
        name: f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() for name, part in parts.items()
    }
    return b"!<arch>\n" + b"".join(heads[name] + part + b"\n" * (len(part) % 2) for name, part in parts.items())


def prepare(folder: Path) -> dict[str, Any]:
    """Lay the input into `folder`; what the laws need to know of it."""
    (folder / "deep").mkdir(parents=True)
    tar = tarred(FILES, link=tarfile.SYMTYPE, hard=tarfile.LNKTYPE, pipe=tarfile.FIFOTYPE)
    (folder / "a.zip").write_bytes(zipped(FILES))
    (folder / "b.tar").write_bytes(tar)
    (folder / "deep" / "c.tar.gz").write_bytes(gzip.compress(tar, mtime=0))
    (folder / "deep" / "cut.tar").write_bytes(tarred({"a.txt": b"a", "b.txt": b"b" * 600})[:1800])
    (folder / "d.deb").write_bytes(package(tar))
    (folder / "no.zip").write_bytes(b"PK\x03\x04 no archive")
    (folder / "none.tar").write_bytes(tarred({"picture.png": b""}))
    return {
        "params": {"paths": [f"{folder}/**/*"]},
        "rows": 4 * ROWS + 3 + 1 + 1,
        "rejects": 4 * REJECTS + 2 + 1 + 1,
        "cut": (),
    }


def change(folder: Path) -> None:
    """Alter one letter of the input, keeping its length."""
    path = folder / "b.tar"
    path.write_bytes(path.read_bytes().replace(b"# Mill", b"# Hill"))
