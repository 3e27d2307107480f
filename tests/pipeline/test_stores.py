"""Files behind URLs: the same documents as on the disk; addresses that are not public are refused, redirects too."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.catalog import cards
from pipeline.sources import SourceError, _stores, files, survey
from tests.pipeline.test_sources import read

ROWS = b"".join(json.dumps({"text": f"Zeile {n}"}).encode() + b"\n" for n in range(400))


class Server(BaseHTTPRequestHandler):
    """Files of a folder, with ranges; /short ends early, /to?URL redirects there."""

    folder: Path

    def do_GET(self) -> None:
        name, _, query = self.path.lstrip("/").partition("?")
        if name == "to":
            self.send_response(302)
            self.send_header("Location", query)
            self.end_headers()
            return
        path = self.folder / name.removeprefix("short/")
        if not path.is_file():
            self.send_error(404)
            return
        data, asked = path.read_bytes(), self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0) if not name.startswith("rangeless") else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : len(data) // 2] if name.startswith("short/") else data[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL that it is served under."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Server,), {"folder": tmp_path}))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_format_is_read_as_from_the_disk(served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, url = served
    (folder / "a.jsonl").write_bytes(ROWS)
    (folder / "rangeless.jsonl").write_bytes(ROWS)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(ROWS))
    table = pa.table({"text": [f"row {n}" for n in range(3000)]})
    pq.write_table(table, folder / "c.parquet", row_group_size=500)
    with pa.ipc.new_file(str(folder / "d.arrow"), table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr(files, "ATOM_BYTES", 2000)
    for name in ("a.jsonl", "rangeless.jsonl", "b.jsonl.gz", "c.parquet", "d.arrow"):
        expected = read(folder / name)
        assert read(f"{url}/{name}", private_addresses=True) == expected and expected[0] and not expected[1], name


def test_addresses_that_are_not_public_are_refused_unless_allowed(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "a.jsonl").write_bytes(ROWS)
    for address in (url, url.replace("127.0.0.1", "localhost")):
        with pytest.raises(SourceError, match="no public address: refused; `private_addresses = true` allows it"):
            read(f"{address}/a.jsonl")
    assert len(read(f"{url}/a.jsonl", private_addresses=True)[0]) == 400


def test_redirect_to_a_private_address_is_refused_unless_allowed(served, monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 is taken for public, so that a redirect can leave it for 127.0.0.2."""
    folder, url = served
    (folder / "a.jsonl").write_bytes(ROWS)
    monkeypatch.setattr(_stores, "public", lambda address: address == "127.0.0.1")
    assert len(read(f"{url}/a.jsonl")[0]) == 400
    other = ThreadingHTTPServer(("127.0.0.2", 0), type("Handler", (Server,), {"folder": folder}))
    Thread(target=other.serve_forever, daemon=True).start()
    target = f"{url}/to?http://127.0.0.2:{other.server_port}/a.jsonl"
    with pytest.raises(SourceError, match=r"127\.0\.0\.2, which is no public address: refused"):
        _stores.Remote(target).open()
    assert len(_stores.Remote(target, private=True).open().read()) == len(ROWS)
    other.shutdown()
    other.server_close()
    for target in ("ftp://127.0.0.1/a.jsonl", "file:///etc/passwd", "data:,x"):
        with pytest.raises(OSError, match=r"the server answers 302|unknown url type"):
            _stores.Remote(f"{url}/to?{target}").open()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:127.0.0.1", False), ("93.184.216.34", True), ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert _stores.public(address) is expected


def test_failures_of_a_server_are_one_sentence(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "a.jsonl").write_bytes(ROWS)
    for path, message in (
        ("none.jsonl", "cannot be read: the server answers 404"),
        ("short/a.jsonl", "cannot be read: the answer ends after"),
        ("", "name one file"),
        ("*.jsonl", "name one file"),
    ):
        with pytest.raises(SourceError, match=message):
            read(f"{url}/{path}", private_addresses=True)
    with pytest.raises(SourceError, match="no store of this kind can be opened"):
        read("nostore://a/b.jsonl")


def test_file_that_changes_on_the_server_is_refused(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "a.jsonl").write_bytes(ROWS)
    params = {"paths": [f"{url}/a.jsonl"], "private_addresses": True}
    items = list(files.survey(**params))
    (folder / "a.jsonl").write_bytes(ROWS.replace(b"Zeile 7", b"Zeile 8"))
    with pytest.raises(SourceError, match="changed since"):
        [list(files.read(item, source="s", licence=None, **params)) for item in items]


def test_stores_of_fsspec_take_wildcards_and_urls_of_cards_stay_as_they_are(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name in ("a", "b"):
        store.pipe(f"/mill/deep/{name}.jsonl", b'{"text": "%s"}\n' % name.encode())
    documents, rejects = read("memory://mill/**/*.jsonl")
    assert [row["doc_id"] for row in documents] == ["s:deep/a.jsonl:1", "s:deep/b.jsonl:1"] and not rejects
    (tmp_path / "card.toml").write_text(
        'name = "c"\nkind = "files"\ntitle = "t"\ndescription = "d"\nhomepage = "https://e.org"\nlicence = "MIT"\n'
        'languages = ["en"]\n[params]\npaths = ["memory://mill/deep/a.jsonl"]\n'
    )
    assert [item.location for item in survey(cards.load(str(tmp_path / "card.toml")))] == ["memory://mill/deep/a.jsonl"]
