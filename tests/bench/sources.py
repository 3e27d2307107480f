"""How fast each kind of source reads: `python tests/bench/sources.py [--data DIR] [--mb N] [--write]`.

The texts of the shared corpus, laid out as each kind finds them (a web page is its text in paragraphs), are surveyed
and read to documents by one process. Seconds are of the CPU; MB are of the text that comes out. WARC stands beside
fastwarc and warcio, which iterate over the same records and read their bodies: no text, no digest, no ledger. A wheel
and a data set of the Hub are served by this process itself, on loopback; what is `installed` is what this Python has.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import html
import io
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pipeline import sources
from tests import hubs, indices
from tests.bench import table
from tests.laws.kinds.archive import tarred
from tests.laws.kinds.mail import letter
from tests.laws.kinds.warc import response

Texts = list[str]
CALENDAR = b"From jan@mill.example Tue Jan  2 03:04:05 2024\n"


def web(texts: Texts) -> Iterator[bytes]:
    """A WARC record a text."""
    for number, text in enumerate(texts):
        body = "".join(f"<p>{html.escape(line)}</p>\n" for line in text.splitlines())
        yield response(number, f"<html><head><title>t</title></head><body>{body}</body></html>".encode())


def comma(texts: Texts) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows([["text"], *([text] for text in texts)])
    return file.getvalue().encode()


def arrow(texts: Texts) -> bytes:
    data = pa.table({"text": texts})
    with pa.ipc.new_file(sink := pa.BufferOutputStream(), data.schema) as writer:
        writer.write_table(data, max_chunksize=4096)
    return bytes(sink.getvalue())


def zipped(texts: Texts) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"{number}.txt", text)
    return file.getvalue()


def wiki(texts: Texts) -> bytes:
    pages = (
        f"<page><title>Page {n}</title><ns>0</ns><id>{n}</id><revision><id>{n}</id><timestamp>2024-01-02T03:04:05Z"
        f"</timestamp><text>{escape(text)}</text></revision></page>\n"
        for n, text in enumerate(texts)
    )
    return f"<mediawiki>{''.join(pages)}</mediawiki>".encode()


def posts(texts: Texts) -> bytes:
    rows = (f'<row Id="{n}" PostTypeId="1" Body={quoteattr(text)}/>\n' for n, text in enumerate(texts))
    return f"<posts>{''.join(rows)}</posts>".encode()


def paper(text: str) -> bytes:
    body = text.replace("\\", "\\textbackslash{}").replace("%", "\\%")
    main = f"\\documentclass{{article}}\n\\begin{{document}}\n\\section{{One}}\n{body}\n\\end{{document}}\n"
    return gzip.compress(main.encode(), 6)


def questions(texts: Texts) -> bytes:
    rows = ({"query": text, "choices": ["yes", "no"], "gold": n % 2} for n, text in enumerate(texts))
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def talks(texts: Texts) -> bytes:
    """What is counted is the user's side; all is answered by one word."""
    rows = ([{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in texts)
    return b"".join(json.dumps({"messages": row}).encode() + b"\n" for row in rows)


def lines(texts: Texts) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def members(texts: Texts) -> dict[str, bytes]:
    return {f"{number:06}.txt": text.encode() for number, text in enumerate(texts)}


KINDS: dict[str, tuple[str, Callable[[Texts], bytes]]] = {
    "a.warc": ("warc", lambda texts: b"".join(web(texts))),
    "b.warc.gz": ("warc", lambda texts: b"".join(gzip.compress(record, 6) for record in web(texts))),
    "c.zip": ("archive", zipped),
    "d.tar.gz": ("archive", lambda texts: gzip.compress(tarred(members(texts)), 6)),
    "e.jsonl": ("files", lines),
    "f.csv": ("files", comma),
    "g.arrow": ("files", arrow),
    "h.xml": ("mediawiki", wiki),
    "i.xml.bz2": ("mediawiki", lambda texts: bz2.compress(wiki(texts))),
    "j.xml": ("stackexchange", posts),
    "k.mbox": (
        "mail",
        lambda texts: b"".join(CALENDAR + letter(n, text.encode()) + b"\n" for n, text in enumerate(texts)),
    ),
    "l.tar": ("latex", lambda texts: tarred({f"2401.{n:05}.gz": paper(text) for n, text in enumerate(texts)})),
    "m.jsonl": ("items", questions),
    "n.jsonl": ("chat", talks),
}


def served(texts: Texts, folder: Path) -> Iterator[tuple[str, str, dict[str, Any], float]]:
    """Kinds that find their input by a name: (kind, form, parameters, MB on disk)."""
    (index := folder / "index").mkdir()
    _, address = indices.start(index)
    made = indices.wheel(index, "texts", "1.0", members(texts))
    os.environ |= {**indices.QUIET, "PIP_INDEX_URL": address, "GRISTMILL_CACHE": str(folder / "cache")}
    yield "wheel", "whl", {"distribution": "texts", "version": "1.0"}, made.stat().st_size / 1e6
    (data := folder / "mills" / "grain" / "data").mkdir(parents=True)
    (path := data / "train-00000-of-00001.jsonl").write_bytes(lines(texts))
    _, os.environ["HF_ENDPOINT"] = hubs.start(folder)
    hub = {"dataset": "mills/grain", "revision": hubs.REVISION, "streaming": True}
    yield "hub", "jsonl, streamed", hub, path.stat().st_size / 1e6
    packages = {"distributions": ["numpy", "polars"], "standard_library": False}
    found = sum(item.size for item in sources.load("installed").survey(**packages))
    yield "installed", "docstrings", packages, found / 1e6


def seconds(kind: str, params: dict[str, Any]) -> tuple[float, float, int, float]:
    """CPU seconds of survey and read, documents, and MB of their text."""
    module = sources.load(kind)
    start = time.process_time()
    items = list(module.survey(**params))
    surveyed = time.process_time() - start
    documents, size = 0, 0
    for item in items:
        for chunk in module.read(item, source="s", licence=None, **params):
            documents += chunk.documents.num_rows
            size += sum(map(len, chunk.documents["text"].cast(pa.large_binary()).to_pylist()))
    return surveyed, time.process_time() - start - surveyed, documents, size / 1e6


def peer(name: str, path: Path) -> float:
    """CPU seconds of another reader of web archives."""
    start = time.process_time()
    with path.open("rb") as file:
        if name == "fastwarc":
            from fastwarc.warc import ArchiveIterator

            for record in ArchiveIterator(file, parse_http=True):
                record.reader.read()
        else:
            from warcio.archiveiterator import ArchiveIterator as Iterator_

            for record in Iterator_(file):
                record.content_stream().read()
    return time.process_time() - start


def figures(texts: Texts, folder: Path) -> list[list[Any]]:
    """A row for each form, the best of three."""
    found = []
    for name, (kind, make) in KINDS.items():
        (path := folder / name).write_bytes(make(texts))
        beside = []
        packed = path.stat().st_size / 1e6
        row, read = measured(kind, name[2:], {"paths": [str(path)]}, packed)
        for other in ("fastwarc", "warcio") if kind == "warc" else ():
            try:
                beside.append(f"{other} {min(peer(other, path) for _ in range(3)) / read:.2f}x")
            except ImportError:
                continue
        found.append([*row, ", ".join(beside) or "-"])
        print(*found[-1], flush=True)
        path.unlink()
    for kind, form, params, packed in served(texts, folder):
        found.append([*measured(kind, form, params, packed)[0], "-"])
        print(*found[-1], flush=True)
    return found


def measured(kind: str, form: str, params: dict[str, Any], packed: float) -> tuple[list[Any], float]:
    """A row, the best of three, and the seconds of reading."""
    surveyed, read, documents, size = min((seconds(kind, params) for _ in range(3)), key=lambda run: run[1])
    rates = [f"{packed / max(surveyed, 1e-3):.0f}", f"{size / read:.0f}"]
    return [kind, form, documents, f"{packed:.1f}", f"{size:.1f}", *rates], read


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--mb", type=float, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args()
    texts, size = [], 0.0
    for text in pq.read_table(options.data / "corpus" / "debian_docs.parquet", columns=["text"])["text"].to_pylist():
        if text and size < options.mb:
            texts.append(text)
            size += len(text.encode()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        rows = figures(texts, Path(folder))
    columns = (
        "kind | form | documents | MB on disk | MB of text | survey, MB/s on disk | read, MB/s of text | CPU of others"
    )
    head = [f"| {columns} |", "|" + "---|" * (columns.count("|") + 1)]
    printed = "\n".join([*head, *(f"| {' | '.join(map(str, row))} |" for row in rows)])
    print(printed)
    if options.write:
        command = " ".join(["python tests/bench/sources.py", *sys.argv[1:]])
        table.section("sources", f"`{command}`, {date.today()}, one process, CPU seconds, best of three.\n\n{printed}")


if __name__ == "__main__":
    main()
