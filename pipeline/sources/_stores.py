"""Files that lie behind a URL: http and https by the standard library, s3, gs, hf and others by fsspec.

The law: a card says what is fetched, not the server that it names: an address that is not public (this machine, a
private network, a cloud's metadata) is refused by the connection itself, wherever a redirect or a name leads, unless
the card allows it. What ends before its stated length is an error. The number that matters: 1 MiB, what is asked for
at a time.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import re
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pipeline.sources import SourceError

BUFFER = 1 << 20
TIMEOUT = 60
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = ("http", "https")


@dataclass(frozen=True)
class Remote:
    """A file behind a URL, opened and asked for its size like a Path; `private` allows what is no public address."""

    url: str
    private: bool = False

    def __str__(self) -> str:
        return self.url

    def open(self, mode: str = "rb") -> BinaryIO:
        """The file for reading, seekable. Raises OSError, and SourceError where the address is refused."""
        if urlsplit(self.url).scheme.lower() in _WEB:
            return io.BufferedReader(_Web(self.url, self.private), BUFFER)
        system, path = _system(self.url)
        return system.open(path, mode)

    def stat(self) -> SimpleNamespace:
        """Its size, as `st_size`; the rest of what tells a local file from another is not known."""
        with self.open() as file:
            size = file.seek(0, io.SEEK_END)
        return SimpleNamespace(st_size=size, st_dev=0, st_ino=0, st_mtime_ns=0)


def is_url(path: str) -> bool:
    return bool(_URL.match(path))


def place(location: str, private: bool = False) -> Path | Remote:
    """Where an item lies."""
    return Remote(location, private) if is_url(location) else Path(location)


def find(patterns: list[str], private: bool) -> list[tuple[str, Remote]]:
    """(logical path, file) of URLs; stores but the web may have wildcards. Raises SourceError."""
    found: dict[str, str] = {}
    for pattern in patterns:
        for logical, url in _matches(pattern):
            if found.setdefault(logical, url) != url:
                raise SourceError(f"{found[logical]} and {url} would both be {logical!r} in doc_ids; name one of them")
    return [(logical, Remote(url, private)) for logical, url in sorted(found.items())]


def _matches(pattern: str) -> list[tuple[str, str]]:
    parts = urlsplit(pattern)
    if parts.scheme.lower() in _WEB:
        if not (name := unquote(parts.path).rpartition("/")[2]) or "*" in parts.path:
            raise SourceError(f"{pattern}: name one file; the web cannot be searched by wildcards")
        return [(name, pattern)]
    system, path = _system(pattern)
    if not any(letter in path for letter in "*?["):
        return [(path.rpartition("/")[2], pattern)]
    root = re.split(r"[*?\[]", path)[0].rpartition("/")[0]
    try:
        names = [name for name in system.glob(path) if system.isfile(name)]
    except Exception as error:  # a store raises what its own library does
        raise SourceError(f"{pattern}: cannot be listed: {error}") from error
    if not names:
        raise SourceError(f"{pattern} matches no file")
    return [(name.removeprefix(root).lstrip("/"), system.unstrip_protocol(name)) for name in names]


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: no store of this kind can be opened: {error}") from error


# The web


def public(address: str) -> bool:
    """Whether an IP address is one that anybody may reach."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_global


def _connect(address: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
    connection = socket.create_connection(address, *rest, **more)
    peer = connection.getpeername()[0]
    if not public(peer):
        connection.close()
        raise SourceError(
            f"{address[0]} is at {peer}, which is no public address: refused; `private_addresses = true` allows it"
        )
    return connection


class _Plain(http.client.HTTPConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._create_connection = _connect


class _Secure(http.client.HTTPSConnection):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._create_connection = _connect


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Plain, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Secure, request)


def _opener(private: bool) -> urllib.request.OpenerDirector:
    """Redirects stay on the web: no other handler is there to follow them to a file or to FTP."""
    opener = urllib.request.OpenerDirector()
    kinds: list[Any] = [urllib.request.HTTPRedirectHandler, urllib.request.HTTPDefaultErrorHandler]
    kinds += [urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler]
    if private:
        kinds += [urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler]
    else:
        kinds += [_Http, _Https]
    for kind in kinds:
        opener.add_handler(kind())
    opener.addheaders = [("User-Agent", "gristmill")]
    return opener


def _token(url: str) -> str | None:
    """The user's token where the Hub that the user chose is asked, for it alone."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if not url.startswith(f"{hub}/datasets/"):
        return None
    from huggingface_hub import get_token

    return get_token()


class _Web(io.RawIOBase):
    """The body of a URL: read forward in one response; a seek asks for a range, or reads on where none is given."""

    def __init__(self, url: str, private: bool) -> None:
        self._url, self._opener = url, _opener(private)
        self._at = self._next = 0
        self._response = self._ask(0)
        self._size = int(self._response.headers.get("Content-Length") or -1)

    def _ask(self, start: int) -> Any:
        fields = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        request = urllib.request.Request(self._url, headers=fields)
        if token := _token(self._url):
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            response = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            raise OSError(f"the server answers {error.code} {error.reason}") from error
        except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, SourceError):
                raise
            raise OSError(str(getattr(error, "reason", error))) from error
        self._at = start if response.status == 206 else 0
        return response

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size < 0:
            raise OSError("the server does not say how long the file is")
        self._next = offset + (0, self._next, self._size)[whence]
        return self._next

    def tell(self) -> int:
        return self._next

    def readinto(self, buffer: Any) -> int:
        if 0 <= self._size <= self._next:
            return 0
        if self._next != self._at:
            self._response.close()
            self._response = self._ask(self._next)
        while self._at < self._next:
            self._forward(len(self._response.read(min(BUFFER, self._next - self._at))))
        size: int = self._response.readinto(buffer)
        self._forward(size)
        self._next = self._at
        return size

    def _forward(self, size: int) -> None:
        if size == 0 and self._at < self._size:
            raise OSError(f"the answer ends after {self._at:,} of {self._size:,} bytes")
        self._at += size

    def close(self) -> None:
        if not self.closed and hasattr(self, "_response"):
            self._response.close()
        super().close()
