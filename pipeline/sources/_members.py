"""The members of an archive, one after another, each as a stream of blocks.

The law: no member is held, none is written anywhere, and nothing that the archive claims is believed: sizes are
counted as they come, a name that leaves its folder is an error of that member, and what inflates too far is a bomb.
`tarfile` takes a damaged header for the end of the archive; here it is an error. The number that matters: 16 MiB, what
may come out before the ratio of plain to packed bytes is judged.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.sources import Guard, Item
from pipeline.sources._streams import BLOCK, StreamError, inflate, raw

JUDGED = 16 << 20
HEADER_BYTES = 1 << 20
TAR = {".tar": "", ".tgz": ".gz", ".tbz2": ".bz2", ".txz": ".xz"}
TAR |= {f".tar{packed}": packed for packed in (".gz", ".bz2", ".xz", ".zst")}
_ZIP, _DEB = (".zip", ".whl"), (".deb",)
KINDS = (*_ZIP, *TAR, *_DEB)
_EXTENDED: tuple[bytes, ...] = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_EXTENDED += (tarfile.GNUTYPE_LONGLINK,)
_DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, and its bytes, to be read before the next one; or why it cannot be read."""

    name: str
    blocks: Iterator[bytes]
    error: StreamError | None = None


def kind_of(name: str) -> str:
    """The ending in KINDS that a file's name has; empty where it has none."""
    return next((ending for ending in KINDS if name.lower().endswith(ending)), "")


def members_of(item: Item, guard: Guard, ratio: int) -> Iterator[Member]:
    """The members of an archive in the order that they lie in; the guard has seen all bytes when they end.

    Raises StreamError where what follows cannot be read.
    """
    kind = kind_of(item.path)
    blocks = raw(item, guard)
    try:
        if kind in _ZIP:
            deque(blocks, maxlen=0)
            yield from _zip(item, ratio)
        elif kind in _DEB:
            yield from _debian(Watched(blocks, ratio))
        else:
            yield from _tar(Watched(blocks, ratio), TAR[kind])
    finally:
        deque(blocks, maxlen=0)


def _named(name: str, blocks: Iterator[bytes]) -> Member:
    """A member, its name made printable; one whose name would leave its folder is an error."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name[:1] in ("/", "\\") or _DRIVE.match(name):
        return Member(name, iter(()), StreamError("unsafe_path", "its name leads out of the archive"))
    return Member(name.removeprefix("./"), blocks)


# Zip


def _zip(item: Item, ratio: int) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(item.location)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, IndexError, struct.error) as error:
        raise StreamError("corrupt_archive", f"no readable zip archive: {error}") from error
    with archive:
        spent = 0
        for info in archive.infolist():
            if fault := _fault(archive, info):
                yield Member(info.filename, iter(()), fault)
                continue
            if info.is_dir():
                continue
            if spent > JUDGED and spent > ratio * item.size:
                raise StreamError("bomb", f"more than {ratio} plain bytes for each of the archive's {item.size:,}")
            counted = _Counted(_unzipped(archive, info), max(info.compress_size, 1), ratio)
            yield _named(info.filename, iter(counted))
            spent += counted.plain
        if (missing := _claimed(item) - len(archive.infolist())) % (1 << 16):
            raise StreamError("corrupt_archive", f"the directory lacks {missing:,} of the members that it counts")


def _claimed(item: Item) -> int:
    """How many members a zip's last record counts: `zipfile` itself does not compare."""
    with Path(item.location).open("rb") as file:
        return int(zipfile._EndRecData(file)[4])  # type: ignore[attr-defined]


def _fault(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StreamError | None:
    """What is wrong where the directory and the member itself differ: by a damaged name nobody would ask for it."""
    if not info.filename or "\0" in info.orig_filename:
        return StreamError("corrupt_member", "the directory has no sound name for it")
    try:
        if not info.flag_bits & 1:
            archive.open(info).close()
    except NotImplementedError:
        return None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error) as error:
        return StreamError("corrupt_member", f"damaged: {error}")
    return None


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if info.flag_bits & 1:
        raise StreamError("encrypted", "the member needs a password")
    try:
        with archive.open(info) as file:
            while block := file.read(BLOCK):
                yield block
    except NotImplementedError as error:
        raise StreamError("unknown_compression", str(error)) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise StreamError("corrupt_member", f"damaged: {error}") from error
    except Exception as error:  # lzma.LZMAError has no base of its own
        raise StreamError("corrupt_member", f"damaged: {type(error).__name__}: {error}") from error


class _Counted:
    """Blocks that end in an error where they are more than `ratio` times the packed bytes that they come from."""

    def __init__(self, blocks: Iterator[bytes], packed: int, ratio: int) -> None:
        self._blocks, self._most, self.plain = blocks, max(JUDGED, packed * ratio), 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.plain += len(block)
            if self.plain > self._most:
                raise StreamError("bomb", f"inflates to more than {self._most:,} bytes")
            yield block


# Tar


class Watched:
    """Packed blocks that are counted, so that what comes out of them can be judged."""

    def __init__(self, blocks: Iterator[bytes], ratio: int) -> None:
        self._blocks, self._ratio, self._packed = blocks, ratio, 0

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._packed += len(block)
            yield block

    def inflated(self, blocks: Iterator[bytes], packed: str) -> Iterator[bytes]:
        """The plain bytes of blocks that come from these. Raises StreamError for a bomb."""
        plain = 0
        for block in inflate(blocks, packed) if packed else blocks:
            plain += len(block)
            if plain > JUDGED and plain > self._ratio * self._packed:
                raise StreamError("bomb", f"inflates to more than {self._ratio} times its bytes")
            yield block


class _File(io.RawIOBase):
    """A file that is read forward from blocks, for `tarfile`; what is wrong with them is told at each later read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""
        self._error: StreamError | None = None

    def _next(self) -> bytes:
        if self._error is None:
            try:
                return next((block for block in self._blocks if block), b"")
            except StreamError as error:
                self._error = error
        raise self._error

    def read(self, size: int = -1) -> bytes:
        pieces, missing = [], size
        while missing > 0 and (block := self._rest or self._next()):
            pieces.append(block[:missing])
            self._rest = block[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)


class _Header(tarfile.TarInfo):
    """A header that is an error where `tarfile` would end in silence, or hold whatever a header claims to need."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise StreamError(*_ENDS.get(type(error), ("corrupt_archive", f"damaged header: {error}"))) from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and self.size > HEADER_BYTES:
            raise StreamError("corrupt_archive", f"a header claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


_ENDS = {
    tarfile.EmptyHeaderError: (  # type: ignore[attr-defined]
        "truncated_archive",
        "ends without its end marker; copy the file again",
    ),
    tarfile.TruncatedHeaderError: (  # type: ignore[attr-defined]
        "truncated_archive",
        "ends within a header; copy the file again",
    ),
}


def _tar(watched: Watched, packed: str) -> Iterator[Member]:
    yield from tar_members(watched.inflated(iter(watched), packed))


def tar_members(plain: Iterator[bytes]) -> Iterator[Member]:
    file = _File(plain)
    try:
        with tarfile.open(fileobj=file, mode="r|", tarinfo=_Header, bufsize=1 << 16) as archive:
            for info in archive:
                archive.members.clear()  # type: ignore[attr-defined]
                if info.isreg():
                    yield _named(info.name, _extracted(archive, info))
    except (tarfile.TarError, ValueError, EOFError, OverflowError, OSError) as error:
        if isinstance(error, StreamError):
            raise
        raise StreamError("truncated_archive", f"{error}; copy the file again") from error


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    try:
        if (file := archive.extractfile(info)) is not None:
            while block := file.read(BLOCK):
                yield block
    except (tarfile.ReadError, tarfile.StreamError) as error:
        raise StreamError("truncated_archive", f"ends within the member: {error}; copy the file again") from error


# Debian packages: an `ar` archive of which the member data.tar.* holds the files


def _debian(watched: Watched) -> Iterator[Member]:
    file = _File(iter(watched))
    if file.read(8) != b"!<arch>\n":
        raise StreamError("corrupt_archive", "no Debian package: it does not begin like an ar archive")
    while header := file.read(60):
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if len(header) < 60 or not size.isdigit() or header[58:] != b"`\n":
            raise StreamError("corrupt_archive", "damaged header of a member of the package")
        blocks = _part(file, int(size))
        if name.startswith("data.tar"):
            yield from tar_members(watched.inflated(blocks, name.removeprefix("data.tar")))
        deque(blocks, maxlen=0)
        file.read(int(size) % 2)


def _part(file: _File, size: int) -> Iterator[bytes]:
    while size > 0:
        if not (block := file.read(min(BLOCK, size))):
            raise StreamError("truncated_archive", "the package ends early; copy the file again")
        size -= len(block)
        yield block
