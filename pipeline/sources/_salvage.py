"""Bytes of archives of which some are damaged: what can be read is read, and each break says where and why.

The law: a break costs the gzip member that it is in, not the file: reading goes on at the next member. The number
that matters: 64 KiB, what a decompressor is fed at a time.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import chain

from pipeline.sources._streams import BLOCK, StreamError, inflate

FEED = 64 << 10
MAGIC = b"\x1f\x8b\x08"
HEADER = 10
LONGEST = 1 << 17  # bytes of a member without an end that are looked through for others; more than any header has
EXTRA, EXTRA_BYTES = 4, 1 << 10  # a flag, and what is believed of it behind damage: archives write a dozen bytes
ZSTD = b"\x28\xb5\x2f\xfd"
LINE = 64 << 10
_BLANKS = re.compile(rb"[\r\n]*")


class Break(StreamError):
    """Where a stream is damaged or ends early: `offset` is that of its gzip member."""

    def __init__(self, reason: str, message: str, offset: int) -> None:
        super().__init__(reason, message)
        self.offset = offset


Event = tuple[int, int, bytes] | Break


def salvage(blocks: Iterator[bytes], packed: bool) -> Iterator[Event]:
    """(offset, step, plain bytes) of a file that is plain, gzip or zstd by its first bytes, and its breaks.

    The offset is that of the gzip member (0 in zstd), or of the bytes themselves, where the step is 1 and not 0. With
    `packed` a file that begins like neither is taken for gzip. The blocks are used up whatever happens.
    """
    first = next(blocks, b"")
    if first[:4] == ZSTD:
        try:
            yield from ((0, 0, plain) for plain in inflate(chain([first], blocks), ".zst"))
        except StreamError as error:
            yield Break(error.reason, str(error), 0)
            for _ in blocks:
                pass
    elif packed or first[:3] == MAGIC:
        yield from _members(chain([first], blocks))
    else:
        offset = 0
        for block in chain([first], blocks):
            yield offset, 1, block
            offset += len(block)


def _members(blocks: Iterator[bytes]) -> Iterator[Event]:
    pieces = (block[start : start + FEED] for block in blocks for start in range(0, len(block), FEED))
    held, offset, lost, member = b"", 0, 0, 0
    kept, told = b"", False  # what a member without an end has had, and whether it gave anything for that
    state, seeking = None, False
    while True:
        piece = next(pieces, b"")
        held += piece
        while held:
            if state is None:
                skipped, found = _begin(held, seeking)
                lost += len(held[:skipped].strip(b"\0"))
                held, offset = held[skipped:], offset + skipped
                if not found:
                    break
                if lost and not seeking:
                    yield _rubbish(lost, offset)
                state, member, lost, seeking = zlib.decompressobj(wbits=31), offset, 0, False
                kept, told = b"", False
            try:
                for plain in _inflated(state, held):
                    told = True
                    yield member, 0, plain
                if not (told or state.eof) and len(kept) > LONGEST:
                    raise zlib.error("its header has no end")
            except zlib.error as error:
                yield Break("corrupt_stream", f"damaged gzip member: {error}", member)
                # A damaged header may have taken what follows for its own.
                held, offset = (held, offset) if told else (kept + held, offset - len(kept))
                skip = 1 if member == offset else 0
                held, offset, state, seeking = held[skip:], offset + skip, None, True
                continue
            rest = state.unused_data if state.eof else b""
            offset += len(held) - len(rest)
            if not state.eof and len(kept) <= LONGEST:
                kept += held
            state, held = (None, rest) if state.eof else (state, b"")
        if piece:
            continue
        if state is None:
            break
        yield Break("truncated_stream", "the gzip member ends early; copy the file again", member)
        if len(kept) > LONGEST:
            return
        held, offset, state, seeking = kept[1:], member + 1, None, True
    if (lost := lost + len(held.strip(b"\0"))) and not seeking:
        yield _rubbish(lost, offset + len(held))


def _rubbish(lost: int, end: int) -> Break:
    return Break("rubbish", f"{lost:,} bytes that are no gzip member", end - lost)


def _begin(held: bytes, seeking: bool) -> tuple[int, bool]:
    """How many bytes to pass, and whether a member begins behind them (if not, more bytes are needed to tell)."""
    start = 0
    while (start := held.find(MAGIC, start)) >= 0:
        head = held[start : start + HEADER + 2]
        if len(head) < HEADER:
            return start, False
        if not seeking or _plausible(head):
            return start, True
        start += 1
    tail = next((n for n in (2, 1) if held.endswith(MAGIC[:n])), 0)
    return len(held) - tail, False


def _plausible(head: bytes) -> bool:
    """Whether these are the first bytes of a member, where chance may have made them (RFC 1952, 2.3)."""
    extra = int.from_bytes(head[HEADER:], "little") if head[3] & EXTRA else 0
    return head[3] < 32 and head[8] in (0, 2, 4) and (head[9] < 14 or head[9] == 255) and extra < EXTRA_BYTES


def _inflated(state: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    while True:
        plain = state.decompress(piece, BLOCK)
        if plain:
            yield plain
        piece = state.unconsumed_tail
        if state.eof or (not piece and len(plain) < BLOCK):
            return


class Stream:
    """Lines and runs of bytes of such events. At a break, `error` is set and nothing is read until `mend`."""

    def __init__(self, events: Iterator[Event]) -> None:
        self.error: Break | None = None
        self._events = events
        self._buffer, self._at, self._position = b"", 0, 0
        self._marks: deque[tuple[int, int, int]] = deque()
        self._ended = False

    @property
    def offset(self) -> int:
        """Where the next byte lies in the file; of a packed file, where its gzip member begins."""
        self.peek(1)
        here = self._position + self._at
        while len(self._marks) > 1 and self._marks[1][0] <= here:
            self._marks.popleft()
        first, offset, step = self._marks[0] if self._marks else (0, 0, 0)
        return offset + step * (here - first)

    def _fill(self) -> bool:
        if self.error is not None or self._ended:
            return False
        event = next(self._events, None)
        if event is None:
            self._ended = True
        elif isinstance(event, Break):
            self.error = event
        else:
            offset, step, data = event
            if not self._marks or self._marks[-1][1] != offset:
                self._marks.append((self._position + len(self._buffer), offset, step))
            self._position += self._at
            self._buffer, self._at = self._buffer[self._at :] + data, 0
            return True
        return False

    @property
    def broken(self) -> bool:
        """Whether a break is next, and in the gzip member that was read last."""
        return not self.peek(1) and self.error is not None and self._marks[-1][1] == self.error.offset

    def mend(self) -> None:
        """Go on behind the break."""
        self.error = None

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end or at a break."""
        while len(self._buffer) - self._at < size and self._fill():
            pass
        return self._buffer[self._at : self._at + size]

    def line(self, limit: int = LINE) -> bytes:
        """The next line with its end, or its beginning where it is longer; what there is at the end or at a break."""
        while (end := self._buffer.find(b"\n", self._at, self._at + limit)) < 0:
            if len(self._buffer) - self._at >= limit or not self._fill():
                end = min(len(self._buffer), self._at + limit) - 1
                break
        found = self._buffer[self._at : end + 1]
        self._at = end + 1
        return found

    def take(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end or at a break."""
        return b"".join(self._pieces(size))

    def skip(self, size: int) -> int:
        """Pass `size` bytes and say how many there were."""
        return sum(map(len, self._pieces(size)))

    def _pieces(self, size: int) -> Iterator[bytes]:
        while True:
            piece = self._buffer[self._at : self._at + size]
            self._at, size = self._at + len(piece), size - len(piece)
            yield piece
            if size <= 0 or not self._fill():
                return

    def unread(self, data: bytes) -> None:
        """Put back what was taken last."""
        self._buffer, self._position = data + self._buffer[self._at :], self._position + self._at - len(data)
        self._at = 0

    def blanks(self) -> int:
        """Pass line ends, and count their bytes."""
        passed = 0
        while self.peek(1) in (b"\r", b"\n"):
            end = _BLANKS.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            self._at, passed = end, passed + end - self._at
        return passed
