"""Bytes of files in bounded memory: cut and hash them in one pass, inflate them, split them into lines.

The law: nothing here holds more than a block and one line, whatever a compressed file swells to. The number that
matters: 512 bytes, what zstandard is fed at a time, since it makes up to 128 KiB of four bytes; others are held back.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash
import zstandard

from pipeline.sources import Guard, Item
from pipeline.sources._stores import Remote, place

BLOCK = 1 << 20
FEED = 512
BOUNDED = 64 << 10
LZMA_MEMORY = 256 << 20
Part = tuple[tuple[str, int], ...]


class StreamError(ValueError):
    """A compressed stream that ends early or is damaged; what came before it has been yielded."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Atom:
    """A byte range of a file, with the number of its first row and a fast digest of its bytes."""

    offset: int
    row: int
    size: int = 0
    blank: bool = True
    hash: Any = field(default_factory=xxhash.xxh64)

    def add(self, block: bytes) -> None:
        self.size += len(block)
        self.blank = self.blank and block.isspace()
        self.hash.update(block)

    @property
    def part(self) -> Part:
        return (("offset", self.offset), ("bytes", self.size), ("row", self.row), ("xxh64", self.hash.intdigest()))


def whole(path: Path | Remote) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def cut_lines(path: Path | Remote, target: int) -> tuple[str, list[Atom]]:
    """SHA-256 of a file and its atoms: at least `target` bytes each, ending at a line's end. One pass.

    A file of blank lines is one atom, however long, so that it is found empty once.
    """
    sha, atoms, lines = hashlib.sha256(), [Atom(0, 1)], 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
            while block:
                atom = atoms[-1]
                end = block.find(b"\n", max(0, target - atom.size - 1)) + 1 if atom.size + len(block) >= target else 0
                piece, block = (block[:end], block[end:]) if end else (block, b"")
                atom.add(piece)
                lines += piece.count(b"\n")
                if end:
                    atoms.append(Atom(atom.offset + atom.size, lines + 1))
    if all(atom.blank for atom in atoms):
        atoms = [Atom(0, 1, sum(atom.size for atom in atoms))]
    return sha.hexdigest(), atoms if len(atoms) == 1 or atoms[-1].size else atoms[:-1]


def cut_ranges(path: Path | Remote, ranges: Iterable[tuple[int, int, int]]) -> tuple[str, list[Atom]]:
    """SHA-256 of a file and an atom for each (offset, bytes, first row) of ranges that tile it. One pass."""
    sha, atoms = hashlib.sha256(), []
    with path.open("rb") as file:
        for offset, size, row in ranges:
            atoms.append(Atom(offset, row))
            while block := file.read(min(BLOCK, size - atoms[-1].size)):
                sha.update(block)
                atoms[-1].add(block)
    return sha.hexdigest(), atoms


def raw(item: Item, guard: Guard, private: bool = False) -> Iterator[bytes]:
    """The bytes of an item in blocks; the guard sees each of them. `private` is as of `_stores.Remote`."""
    with place(item.location, private).open("rb") as file:
        parts = dict(item.part)
        file.seek(parts.get("offset", 0))
        left = parts.get("bytes", item.size)
        while block := file.read(min(BLOCK, left)):
            left -= len(block)
            guard.update(block)
            yield block
        if not item.part and (more := file.read(1)):
            guard.update(more)


def inflate(blocks: Iterator[bytes], compression: str) -> Iterator[bytes]:
    """The plain bytes of .gz, .bz2, .xz or .zst blocks, also of several members or frames in a row. Raises StreamError.

    The blocks are used up even when the stream is damaged, so that whoever guards them sees them all.
    """
    fresh, feed = _DECODERS[compression]
    try:
        yield from _members(_small(blocks, FEED if compression == ".zst" else BOUNDED), fresh, feed)
    except (zlib.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError) as error:
        for _ in blocks:
            pass
        raise StreamError("corrupt_stream", f"damaged {compression} stream: {error}") from error


def _small(blocks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), size):
            yield block[start : start + size]


def _members(
    pieces: Iterator[bytes], fresh: Callable[[], Any], feed: Callable[[Any, bytes], Iterator[bytes]]
) -> Iterator[bytes]:
    """Feed each piece to the decompressor of its member; one left unfinished is an error."""
    state, begun = fresh(), False
    for piece in pieces:
        while piece:
            if not begun and not (piece := piece.lstrip(b"\0")):
                break
            begun = True
            yield from feed(state, piece)
            piece = state.unused_data if state.eof else b""
            if state.eof:
                state, begun = fresh(), False
    if begun:
        raise StreamError("truncated_stream", "the compressed stream ends early; copy the file again")


def _gunzip(state: Any, piece: bytes) -> Iterator[bytes]:
    while True:
        plain = state.decompress(piece, BLOCK)
        yield plain
        piece = state.unconsumed_tail
        if state.eof or (not piece and len(plain) < BLOCK):
            return


def _unzstd(state: Any, piece: bytes) -> Iterator[bytes]:
    yield state.decompress(piece)


def _bounded(state: Any, piece: bytes) -> Iterator[bytes]:
    """Of the decompressors of bz2 and lzma, which keep what they have not yet given out."""
    yield state.decompress(piece, BLOCK)
    while not state.needs_input and not state.eof:
        yield state.decompress(b"", BLOCK)


_DECODERS: dict[str, tuple[Callable[[], Any], Callable[[Any, bytes], Iterator[bytes]]]] = {
    ".gz": (lambda: zlib.decompressobj(wbits=31), _gunzip),
    ".bz2": (bz2.BZ2Decompressor, _bounded),
    ".xz": (lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY), _bounded),
    ".zst": (lambda: zstandard.ZstdDecompressor().decompressobj(), _unzstd),
}


def lines(blocks: Iterable[bytes], first: int, limit: int) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without their ends; None for a line of more than `limit` bytes, which is skipped, not held."""
    number, size = first, 0
    held: list[bytes] = []
    for block in blocks:
        start = 0
        while (end := block.find(b"\n", start)) >= 0:
            size += end - start
            yield number, b"".join([*held, block[start:end]]) if size <= limit else None
            held.clear()
            number, size, start = number + 1, 0, end + 1
        size += len(block) - start
        if size <= limit:
            held.append(block[start:])
        else:
            held.clear()
    if size:
        yield number, b"".join(held) if size <= limit else None
