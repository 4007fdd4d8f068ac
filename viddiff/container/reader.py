"""Read a `.vdf` file (see `format`): in order, by seeking, and around damage."""

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO

from viddiff.config import MAX_PAYLOAD, Limits
from viddiff.container.format import (
    BACKGROUND,
    DISPLAY,
    END,
    END_SIZE,
    HEADER,
    INDEX,
    KEY,
    KEY_START,
    MAGIC,
    MAX_NETWORK,
    NETWORK,
    PIECE,
    PREDICTED,
    RECOVERY_START,
    SEALED,
    Background,
    Backgrounds,
    Chunk,
    Header,
    IndexEntry,
    KeyChunk,
    MisplacedChunkError,
    Timeline,
    background_of,
    first_frame,
    read_varint,
    read_zigzag,
    unpack_key,
)
from viddiff.display import Display
from viddiff.errors import BitstreamError, LimitError

_Placed = tuple[int, int, Chunk]
"""A chunk of frames, with the positions of its first byte and of the byte after it."""
_Held = tuple[int, int, KeyChunk]


class _Source:
    """Bytes of a file from `offset` on. It buffers the current chunk, never more than exists."""

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self.file, self.offset, self.buffer = file, offset, bytearray()
        self.credit = 4 * MAX_PAYLOAD  # keeps the work of recovery linear in the bytes read

    def fill(self, size: int) -> bool:
        """Buffer at least `size` bytes. False if the file ends before."""
        while len(self.buffer) < size:
            piece = self.file.read(min(size - len(self.buffer), PIECE))
            if not piece:
                return False
            self.buffer += piece
            self.credit += 16 * len(piece)
        return True

    def drop(self, size: int) -> None:
        del self.buffer[:size]
        self.offset += size

    def chunk(self) -> tuple[int, bytes]:
        """Take the next chunk: type and payload. A damaged chunk is not consumed."""
        if not self.fill(6):
            raise BitstreamError("the file ends inside a chunk")
        length, start = read_varint(self.buffer, 1, 5)
        end = start + length
        if length > MAX_PAYLOAD:
            raise LimitError(f"a chunk of {length} bytes is over the limit of {MAX_PAYLOAD}")
        if not self.fill(end + 4):
            raise BitstreamError("the file ends inside a chunk")
        self.credit -= end
        with memoryview(self.buffer) as view, view[:end] as covered:
            crc = zlib.crc32(covered)
        if crc != int.from_bytes(self.buffer[end : end + 4], "little"):
            raise BitstreamError("a chunk is damaged (its CRC does not match)")
        kind, payload = self.buffer[0], bytes(self.buffer[start:end])
        self.drop(end + 4)
        return kind, payload

    def resync(self) -> None:
        """Skip the damaged chunk, up to bytes that look like KEY or BACKGROUND, or to the end of the file."""
        self.drop(1)
        self.credit -= 1024
        if self.credit < 0:  # only a file made to waste time has so many false ones
            self.file = io.BytesIO()
            self.drop(len(self.buffer))
        while (mark := RECOVERY_START.search(self.buffer)) is None:
            self.drop(max(len(self.buffer) - 6, 0))  # RECOVERY_START matches at most 7 bytes
            size = len(self.buffer)
            self.fill(size + PIECE)
            if len(self.buffer) == size:
                return self.drop(size)
        self.drop(mark.start())


class Reader:
    """Reads a `.vdf`, also from a pipe. Only `index` and `seek` need a seekable file. Does not close it.

    It reads a pipe chunk by chunk and no further than END, because a pipe may stay open after END.
    """

    def __init__(
        self,
        file: BinaryIO,
        limits: Limits | None = None,
        others: Callable[[int, bytes], None] | None = None,
    ) -> None:
        """Read magic and header from the start of `file`. Raises BitstreamError, LimitError.

        others: takes type and payload of the ancillary chunks on the way, except INDEX.
        """
        self._file, self._source, self._others = file, _Source(file), others
        self._limits = limits or Limits()
        if not self._source.fill(len(MAGIC)) or self._source.buffer != MAGIC:
            raise BitstreamError("not a .vdf file")
        self._source.drop(len(MAGIC))
        try:
            kind, payload = self._source.chunk()
            if kind == SEALED:
                raise BitstreamError("the file is encrypted and needs its key")
            if kind != HEADER:
                raise BitstreamError("the first chunk is not HEADER")
            self.header = Header.unpack(payload)
        except (BitstreamError, LimitError) as error:
            raise type(error)(f"byte {len(MAGIC)}: {error}") from error
        video = self.header.video
        if video.width * video.height > self._limits.pixels:
            raise LimitError(
                f"frames of {video.width}x{video.height} are over {self._limits.pixels} pixels; "
                f"--max-pixels {video.width * video.height} accepts them"
            )
        self._take_display()
        self._take_network()
        self._first = self._source.offset
        self._restart(0, Backgrounds())
        self.end = 0
        """Position after the chunk of frames that was returned last, in bytes from the file's start."""
        self.index_body: bytes | None = None
        """Payload of the last INDEX on the way, true or false."""
        self.frame_count: int | None = None
        """Number of frames, after `index` was called."""
        self.last_duration = 0
        """How long the last frame is shown, once INDEX has been read; 0 if that is unknown."""

    def _restart(self, number: int, backgrounds: Backgrounds) -> None:
        """The next chunk is KEY of this frame."""
        self._backgrounds = backgrounds
        self._timeline = Timeline(self.header, backgrounds)
        self._timeline.number = number
        self._held = list[_Held]()  # KEY chunks that may have been moved, at most two
        self._held_at = 0  # number of the next frame when the last of them came
        self._lost = False  # PREDICTED is dropped up to the next KEY
        self._silent = False  # a fault is reported, and no frame came since
        self._ended = False

    def __iter__(self) -> Iterator[Chunk]:
        return self.chunks()

    def _take_display(self) -> None:
        """Read an optional DISPLAY. A damaged one is not consumed, so that `scan` finds it."""
        if self._source.fill(1) and self._source.buffer[0] == DISPLAY:
            with suppress(BitstreamError, LimitError):
                display = Display.unpack(self._source.chunk()[1])
                self.header = replace(self.header, video=replace(self.header.video, display=display))

    def _take_network(self) -> None:
        """Read NETWORK if HEADER announces it. A damaged one is not consumed, so that `scan` finds it."""
        if self.header.network == b"" or not self._source.fill(1) or self._source.buffer[0] != NETWORK:
            return
        start, payload = self._source.offset, None
        with suppress(BitstreamError, LimitError):
            _, payload = self._source.chunk()
        if payload is not None:
            if not 1 <= len(payload) <= MAX_NETWORK:
                allowed = f"1 to {MAX_NETWORK}"
                raise BitstreamError(f"byte {start}: NETWORK has {len(payload)} bytes, not {allowed}")
            self.header = replace(self.header, network=payload)

    @property
    def offset(self) -> int:
        """Position of the next chunk, in bytes from the file's start."""
        return self._source.offset

    @property
    def next_frame(self) -> int:
        """Number of the frame after those that were returned: how many there are so far, with lost ones."""
        return self._timeline.number

    def chunks(
        self, on_fault: Callable[[BitstreamError], None] | None = None, stop: int | None = None
    ) -> Iterator[Chunk]:
        """Chunks in order from the current position; with `stop`, only those that begin before that byte.

        A fault raises BitstreamError (or LimitError for a size above the limit), with its byte offset. With
        `on_fault` it is reported there instead. What cannot follow is dropped without further reports (see
        `format`).
        """
        return (chunk for _, chunk in self.scan(on_fault, stop))

    def stored_index(self) -> tuple[IndexEntry, ...]:
        """All KEY chunks in INDEX. Raises BitstreamError or LimitError if it is missing or damaged."""
        try:
            return self._stored_index(self._file.seek(0, io.SEEK_END) - END_SIZE)
        finally:
            self._file.seek(self._source.offset + len(self._source.buffer))

    def check(self, entries: Iterable[IndexEntry]) -> None:
        """Raises BitstreamError unless these KEY chunks and their backgrounds exist at their positions."""
        try:
            end, background = self._file.seek(0, io.SEEK_END), None
            for entry in entries:
                _, background = self._key_at(entry, end, background)
        finally:
            self._file.seek(self._source.offset + len(self._source.buffer))

    def index(self) -> tuple[IndexEntry, ...]:
        """All KEY chunks, from INDEX or by reading the whole file. Does not move `chunks`."""
        try:
            stored = self.stored_index()
            self.check(stored)
            return stored
        except (BitstreamError, LimitError):
            self._file.seek(0)
            entries, self.frame_count = Reader(self._file, self._limits).survey()
            return tuple(entries)
        finally:
            self._file.seek(self._source.offset + len(self._source.buffer))

    def seek(self, entry: IndexEntry) -> None:
        """Move `chunks` to `entry`.

        Raises BitstreamError and stays if that KEY chunk or its background does not exist.
        """
        try:
            self._source, background = self._key_at(entry, self._file.seek(0, io.SEEK_END))
        finally:
            self._file.seek(self._source.offset + len(self._source.buffer))
        self._restart(entry.frame, Backgrounds() if background is None else Backgrounds(background))

    def survey(self) -> tuple[list[IndexEntry], int]:
        """All KEY chunks that count from here on, and the number of frames, by reading around damage."""
        found = self.scan(lambda fault: None)
        entries = [
            IndexEntry(at, chunk.first, chunk.pts, chunk.background_offset)
            for at, chunk in found
            if isinstance(chunk, KeyChunk)
        ]
        return entries, self.next_frame

    def scan(
        self, on_fault: Callable[[BitstreamError], None] | None, stop: int | None = None
    ) -> Iterator[tuple[int, Chunk]]:
        """`chunks` with their offsets."""
        while not self._ended and (stop is None or self._source.offset < stop):
            start, ready, fault = self._source.offset, list[_Placed](), None
            try:
                self._next(ready)
            except (BitstreamError, LimitError) as error:
                fault = error
            if self._ended:
                self._confirm_last(ready)
            for offset, end, chunk in ready:
                self._check_count(chunk)
                self.end = end
                yield offset, chunk
            if fault is not None:
                self._report(fault, start, on_fault)

    def _check_count(self, chunk: Chunk) -> None:
        if chunk.first + len(chunk.times) > self._limits.frames:
            raise LimitError(f"the file has more than {self._limits.frames} frames")

    def _report(
        self,
        fault: BitstreamError | LimitError,
        start: int,
        on_fault: Callable[[BitstreamError], None] | None,
    ) -> None:
        """Raise or report a fault of the chunk at byte `start`, and go on after it."""
        message, known, self._silent = f"byte {start}: {fault}", self._silent, True
        self._lost |= not isinstance(fault, MisplacedChunkError)
        if on_fault is None:
            raise type(fault)(message) from fault
        if not known:
            on_fault(BitstreamError(message))
        if self._source.offset == start:
            self._source.resync()

    def _next(self, ready: list[_Placed]) -> None:
        """Read one chunk. Adds those that count now to `ready`."""
        start = self._source.offset
        if not self._source.fill(1):
            self._ended = True
            raise BitstreamError("the file ends before its END chunk")
        kind, payload = self._source.chunk()
        if kind in (KEY, PREDICTED):
            self._place(kind, payload, start, ready)
        elif kind == END:
            self._ended = True
            if len(payload) != 8 or (self._file.seekable() and self._source.fill(1)):
                raise BitstreamError("END has a wrong size or is not the end")
        elif kind == BACKGROUND and self.header.base:
            self._backgrounds.add(Background.unpack(payload, start))
        elif kind == INDEX:
            self.index_body = payload
        elif kind < 0x80:
            raise BitstreamError(f"chunk type {kind:#04x} is unknown or misplaced")
        elif self._others is not None:
            self._others(kind, payload)

    def _place(self, kind: int, payload: bytes, start: int, ready: list[_Placed]) -> None:
        """Add a chunk of frames to `ready` if it is the next one, and before it a KEY that it confirms."""
        number, _ = first_frame(kind, payload)
        self._confirm(number, ready)
        if kind == PREDICTED and self._lost:
            return
        missing = number - self._timeline.number
        if kind == KEY and (missing > 0 or (missing == 0 and self._held)):
            key = unpack_key(payload, self._backgrounds if self.header.base else None)
            if self._timeline.may_leap(key):
                self._hold(start, key)
                if missing == 0 or self._silent:
                    return
        chunk = self._timeline.unpack(kind, payload)
        self._lost = self._silent = False
        ready.append((start, self._source.offset, chunk))

    def _hold(self, start: int, key: KeyChunk) -> None:
        """Let KEY wait for what confirms it."""
        if key.first >= self._limits.frames:
            raise MisplacedChunkError(f"frame {key.first} is over the limit of {self._limits.frames} frames")
        self._held = [*self._held[-1:], (start, self._source.offset, key)]
        self._held_at = self._timeline.number

    def _confirm(self, number: int, ready: list[_Placed]) -> None:
        """Add the KEY that has waited for a chunk of this number to `ready`."""
        self._held = [held for held in self._held if self._timeline.may_leap(held[2])]
        confirmed = [held for held in self._held if held[2].first < number]
        if confirmed:  # of equal numbers, the last one
            self._release(max(reversed(confirmed), key=lambda held: held[2].first), ready)

    def _confirm_last(self, ready: list[_Placed]) -> None:
        """Add the last KEY that waits to `ready`, unless frames came after it. The file ends here."""
        if self._held and self._held_at == self._timeline.number:
            self._release(self._held[-1], ready)

    def _release(self, held: _Held, ready: list[_Placed]) -> None:
        self._timeline.leap(held[2])
        self._held, self._lost, self._silent = [], False, False
        ready.append(held)

    def _key_at(
        self, entry: IndexEntry, end: int, last: Background | None = None
    ) -> tuple[_Source, Background | None]:
        """The file from `entry` on, and the background that it names. last: one that was read already.

        Raises BitstreamError unless that KEY chunk exists before byte `end`, and its background before it.
        """
        if self._first <= entry.offset < end:
            self._file.seek(entry.offset)
            source = _Source(self._file, entry.offset)
            source.fill(32)  # KEY_START, a number, a pts and a background's identity
            if mark := KEY_START.match(source.buffer):
                number, at = read_varint(source.buffer, mark.end())
                pts, at = read_zigzag(source.buffer, at)
                if (number, pts) == (entry.frame, entry.pts):
                    return source, self._background_at(entry, bytes(source.buffer), at, last)
        raise BitstreamError(
            f"no KEY chunk of frame {entry.frame} and time {entry.pts} begins at byte {entry.offset}"
        )

    def _background_at(
        self, entry: IndexEntry, key: bytes, at: int, last: Background | None
    ) -> Background | None:
        """The background that the KEY chunk of `entry`, which names it at `at`, has according to `entry`."""
        if entry.background is None or not self.header.base:
            return None
        found = last
        if found is None or found.offset != entry.background:
            self._file.seek(entry.background)
            kind, payload = _Source(self._file, entry.background).chunk()
            found = Background.unpack(payload, entry.background) if kind == BACKGROUND else None
        if found is None or background_of(key, at)[0] != found.identity:
            raise BitstreamError(
                f"the background of frame {entry.frame} does not begin at {entry.background}"
            )
        return found

    def _stored_index(self, end: int) -> tuple[IndexEntry, ...]:
        """Content of INDEX, if END at byte `end` points to it."""
        self._file.seek(max(end, 0))
        kind, payload = _Source(self._file).chunk()
        offset = int.from_bytes(payload, "little")
        if kind != END or not self._first <= offset < end:
            raise BitstreamError("no END, or END without INDEX")
        self._file.seek(offset)
        source = _Source(self._file, offset)
        kind, body = source.chunk()
        if kind != INDEX or source.offset != end:
            raise BitstreamError("END does not follow INDEX")
        self.index_body = body
        total, _ = read_varint(body, 0)
        if total > self._limits.frames:
            raise LimitError(f"{total} frames are over the limit of {self._limits.frames}")
        index = Index.unpack(body, self.header)
        entries = index.entries
        backgrounds = [entry.background for entry in entries if entry.background is not None]
        if (
            entries
            and not self._first <= min([entries[0].offset, *backgrounds]) <= entries[-1].offset < offset
        ):
            raise BitstreamError("INDEX names places outside of the chunks")
        self.frame_count, self.last_duration = total, index.last_duration
        return entries


@dataclass(frozen=True)
class Index:
    """What INDEX says."""

    frames: int
    """How many there are."""
    entries: tuple[IndexEntry, ...]
    """All KEY chunks."""
    last_duration: int
    """How long the last frame is shown, in units of the time base; 0 if that is unknown."""

    @staticmethod
    def unpack(body: bytes, header: Header) -> "Index":
        """The payload of an INDEX of a file with this header. BitstreamError if it contradicts itself."""
        total, at = read_varint(body, 0)
        count, at = read_varint(body, at)
        entry, entries, duration = IndexEntry(0, 0, 0), list[IndexEntry](), 0
        for number in range(count):
            last = entry
            step, at = read_varint(body, at)
            frames, at = read_varint(body, at)
            pts, at = read_zigzag(body, at)
            back, at = read_varint(body, at) if header.base else (0, at)
            offset = last.offset + step
            entry = IndexEntry(offset, last.frame + frames, pts, offset - back if back else None)
            if not (1 <= frames <= header.gop and pts > last.pts if number else frames == 0):
                raise BitstreamError("INDEX is out of order")
            entries.append(entry)
        if at < len(body):
            duration, at = read_varint(body, at)
            if not (total and 0 < duration < 1 << 63):
                raise BitstreamError("INDEX has an impossible duration")
        tail = total - entry.frame
        if at != len(body) or not min(count, 1) <= tail <= header.gop * min(count, 1):
            raise BitstreamError("INDEX is damaged")
        return Index(total, tuple(entries), duration)
