"""Archives: every member read as it lies, and what is damaged, hostile or a bomb in the ledger, whatever follows it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import SourceError, archive
from tests.laws.kinds.archive import package, tarred, zipped

ROOT = Path(__file__).parents[2]
Row = dict[str, Any]
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def read(path: Path, **params: Any) -> tuple[list[Row], list[Row]]:
    params = {"paths": [str(path)], **params}
    documents: list[Row] = []
    rejects: list[Row] = []
    for item in archive.survey(**params):
        for chunk in archive.read(item, source="s", licence=None, **params):
            documents += chunk.documents.to_pylist()
            rejects += chunk.rejects.to_pylist()
    return documents, rejects


def reasons(rejects: list[Row]) -> list[str]:
    return [row["reason"] for row in rejects]


TEXTS = {f"part/{n}.txt": f"text {n} ".encode() * (20 * n + 1) for n in range(6)}


@pytest.mark.parametrize("ending", [".zip", ".whl", ".tar", ".tgz", ".deb", *(f".tar{packed}" for packed in PACK)])
def test_members_are_documents_that_say_where_they_lie(tmp_path: Path, ending: str) -> None:
    files = {**TEXTS, "rows.jsonl": b'{"text": "a", "label": 1, "year": 1850}\n{"text": "b", "label": 2}'}
    tar = tarred(files)
    data = {".zip": zipped(files), ".whl": zipped(files), ".deb": package(tar), ".tgz": gzip.compress(tar)}
    (path := tmp_path / f"a{ending}").write_bytes(data.get(ending) or PACK.get(ending.removeprefix(".tar"), bytes)(tar))
    documents, rejects = read(path, meta=["year"])
    assert not rejects and [row["text"].encode() for row in documents[:6]] == list(TEXTS.values())
    assert [row["doc_id"] for row in documents] == [f"s:a{ending}:{n}" for n in range(8)]
    assert json.loads(documents[3]["meta"]) == {"member": "part/3.txt"}
    assert json.loads(documents[6]["meta"]) == {"member": "rows.jsonl", "row": 1, "year": 1850}
    assert (documents[7]["label"], json.loads(documents[7]["meta"])["row"]) == ("2", 2)


def test_members_that_are_asked_for_are_read_whatever_they_are(tmp_path: Path) -> None:
    (path := tmp_path / "a.whl").write_bytes(zipped({"mill/stone.py": b"turn()", "README": b"Mill", "x.txt": b"x"}))
    assert [row["text"] for row in read(path, members=["*.py", "README"])[0]] == ["turn()", "Mill"]
    assert reasons(read(path, members=["*.c"])[1]) == ["empty_file"]


def test_what_is_no_archive_by_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"")
    with pytest.raises(SourceError, match=r"a\.rar: no archive by its name; has: \.zip"):
        read(tmp_path / "a.rar")


@pytest.mark.parametrize(
    "name", ["../a.txt", "b/../../a.txt", "/etc/a.txt", "..\\a.txt", "C:\\a.txt", "\\\\host\\a.txt"]
)
def test_names_that_lead_out_are_rejects_and_their_neighbours_kept(tmp_path: Path, name: str) -> None:
    files = {"before.txt": b"before", name: b"outside", "x..y/after.txt": b"after"}
    (tmp_path / "a.zip").write_bytes(zipped(files))
    (tmp_path / "b.tar").write_bytes(tarred(files))
    for path in (tmp_path / "a.zip", tmp_path / "b.tar"):
        documents, (found,) = read(path)
        assert [row["text"] for row in documents] == ["before", "after"] and found["reason"] == "unsafe_path"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "b.tar"]


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "disk": tarfile.BLKTYPE, "pipe": tarfile.FIFOTYPE}
    (path := tmp_path / "a.tar").write_bytes(tarred({"a.txt": b"a"}, **kinds))
    assert [[row["text"] for row in read(path)[0]], read(path)[1]] == [["a"], []]


# Bombs


def overlapped(copies: int) -> bytes:
    """A zip whose directory names one packed stream many times (Fifield 2019)."""
    with zipfile.ZipFile(file := io.BytesIO(), "w") as made:
        made.writestr(zipfile.ZipInfo("a.txt"), b"a" * (12 << 20), zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    body = data[:start] + entry * copies
    return body + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, copies, copies, len(entry) * copies, start, 0)


def bombs() -> dict[str, bytes]:
    zeros = bytes(20 << 20)
    tar = tarred({"a.txt": zeros, "b.txt": b"b"})
    return {
        "a.zip": zipped({"a.txt": zeros, "b.txt": b"b"}),
        "b.zip": overlapped(40),
        "c.tar.gz": gzip.compress(tar),
        "d.tar.xz": lzma.compress(tar),
        "e.tar.zst": zstandard.compress(tar),
        "f.tar.bz2": bz2.compress(tar),
        "g.tar": tarred({"a.jsonl.gz": gzip.compress(bytes(40 << 20)), "b.txt": b"b"}),
        "h.deb": package(tarred({"a.txt": b"a"})),
    }


BOMB = """
import resource, sys, time
from pipeline.sources import archive
base, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
params = dict(paths=[sys.argv[1]], maximum_row_bytes=8 << 20)
for item in archive.survey(**params):
    chunks = list(archive.read(item, source="s", licence=None, **params))
    reasons = {reason for chunk in chunks for reason in chunk.rejects["reason"].to_pylist()}
    print(item.path, sum(chunk.documents.num_rows for chunk in chunks), *sorted(reasons))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10, time.monotonic() - start)
"""


def test_bombs_are_rejects_and_take_neither_memory_nor_time(tmp_path: Path) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", BOMB, str(tmp_path / "*")]
    *lines, last = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    found = {line.split()[0]: line.split()[1:] for line in lines}
    assert found["a.zip"] == ["0", "bomb"] and found["h.deb"] == ["1"]
    assert found["g.tar"] == ["1", "line_too_long"], "bounded by maximum_row_bytes, and by a block at a time"
    for name in ("b.zip", "c.tar.gz", "d.tar.xz", "e.tar.zst", "f.tar.bz2"):
        assert found[name][0] == "0" and "bomb" in found[name], (name, found[name])
    memory, seconds = map(float, last.split())
    assert memory < 150 and seconds < 60


def test_text_that_packs_well_is_no_bomb_below_the_ratio(tmp_path: Path) -> None:
    text = b"".join(b"%d bottles\n" % (n % 1000) for n in range(1_700_000))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tarred({"a.txt": text}), 1))
    (tmp_path / "b.zip").write_bytes(zipped({"a.txt": text}))
    for path in sorted(tmp_path.iterdir()):
        assert [len(row["text"]) for row in read(path)[0]] == [len(text)]
        assert "bomb" in reasons(read(path, maximum_ratio=2)[1])


# Damage


@settings(max_examples=100, deadline=None)
@given(packed=st.sampled_from(["", ".gz", ".xz"]), data=st.data())
def test_tar_that_is_cut_anywhere_keeps_what_was_whole_and_says_so(tmp_path_factory, packed: str, data: Any) -> None:
    tar = tarred(TEXTS)
    whole = PACK.get(packed, bytes)(tar)
    cut = data.draw(st.integers(0, (len(tar.rstrip(b"\0")) if not packed else len(whole)) - 1))
    (path := tmp_path_factory.mktemp("cut") / f"a.tar{packed}").write_bytes(whole[:cut])
    documents, rejects = read(path)
    assert [row["text"].encode() for row in documents] == list(TEXTS.values())[: len(documents)]
    assert 1 <= len(rejects) <= 2 and all(r in ("truncated_archive", "truncated_stream") for r in reasons(rejects))
    if not packed:
        ends = [tar.index(text) + len(text) for text in TEXTS.values()]
        assert len(documents) == sum(end <= cut for end in ends)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_zip_that_is_cut_or_damaged_anywhere_never_ends_in_silence(tmp_path_factory, data: Any) -> None:
    whole = bytearray(zipped(TEXTS))
    at = data.draw(st.integers(0, len(whole) - 8))
    if data.draw(st.booleans()):
        whole = whole[:at]
    else:
        whole[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    (path := tmp_path_factory.mktemp("cut") / "a.zip").write_bytes(whole)
    documents, rejects = read(path)
    whole_ones = {row["text"].encode() for row in documents} & set(TEXTS.values())
    assert len(whole_ones) == len(TEXTS) or rejects


def test_damaged_header_of_a_tar_is_not_its_end(tmp_path: Path) -> None:
    """`tarfile` alone would take the archive for one that ends there."""
    whole = bytearray(tarred(TEXTS))
    at = whole.index(b"part/3.txt")
    whole[at + 148 : at + 156] = b"99999999"
    (path := tmp_path / "a.tar").write_bytes(whole)
    with tarfile.open(path) as made:
        assert len(made.getnames()) == 3
    documents, (found,) = read(path)
    assert len(documents) == 3 and found["reason"] == "corrupt_archive"


def test_encrypted_member_is_a_reject(tmp_path: Path) -> None:
    whole = bytearray(zipped({"a.txt": b"secret", "b.txt": b"open"}))
    whole[6] |= 1
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    (path := tmp_path / "a.zip").write_bytes(whole)
    documents, (found,) = read(path)
    assert [row["text"] for row in documents] == ["open"] and found["reason"] == "encrypted"


def test_header_that_claims_much_is_not_believed(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 7 << 30
    (path := tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    assert "a header claims 7,516,192,768 bytes" in read(path)[1][0]["detail"]


def test_real_packages_are_read_as_pip_unpacked_them() -> None:
    """The wheel that a distribution came in is not here; what `ensurepip` brings along is a real one."""
    import ensurepip

    (wheel,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    documents, rejects = read(wheel, members=["*.py", "*.txt"])
    with zipfile.ZipFile(wheel) as made:
        expected = {n: made.read(n) for n in made.namelist() if n.endswith((".py", ".txt"))}
    assert {json.loads(row["meta"])["member"]: row["text"].encode() for row in documents} == {
        name: text for name, text in expected.items() if text
    }
    assert len(documents) > 300 and set(reasons(rejects)) == {"empty_file"}
