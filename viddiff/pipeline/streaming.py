"""Decode a `.vdf` as it arrives, from a pipe or a growing file. Frames are returned with their chunk.

Only the chunk after a GOP shows what was lost at the GOP's end. Lost frames are shown then.
"""

import io
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from viddiff.codec.open_decoder import Weights, open_decoder
from viddiff.config import Start
from viddiff.container.format import Chunk, IndexEntry, KeyChunk
from viddiff.container.gop_table import Gop, missing_before
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Index
from viddiff.container.track_file import PassingTracks
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame
from viddiff.pipeline.concealment import conceal
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.decoded_video import DecodedVideo
from viddiff.pipeline.gop_decoding import GopEnd, decode_until_fault
from viddiff.pipeline.resources import Resources

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

POLL_SECONDS = 0.05
"""Interval at which a growing file is checked."""


def decode_stream(
    file: BinaryIO,
    resources: Resources,
    start: Start = 0,
    count: int | None = None,
    options: ReadOptions | None = None,
) -> tuple[DecodedVideo, PassingTracks]:
    """Decode `count` frames of a stream from number `start` on, in this process.

    Returns the frames and the tracks, whose packets are there as the frames are taken. Raises ViddiffError
    here or while frames are taken.
    """
    options = options or ReadOptions()
    first = start if isinstance(start, int) else 0
    damage = Damage(first, options.limits.frames if count is None or first != start else first + count)
    on_fault = None if options.strict else lambda fault: damage.faults.append(str(fault))
    tracks = PassingTracks(file, on_fault, options.limits)
    header = tracks.reader.header
    resources = resources.to_decode(header)
    decoder = _StreamDecoder(tracks, resources.load_to_decode(resources.cores), damage, options.strict)
    frames = conceal(decoder.parts(), 0, header.video, damage, options.strict)
    frames = _since(frames, start, header.video.time_base)
    if count is not None:
        frames = decoder.ending(islice(frames, count))
    return DecodedVideo(header.video, count, frames, damage, lambda: decoder.last_duration), tracks


def _since(frames: Iterator[Frame], start: Start, time_base: Fraction) -> Iterator[Frame]:
    """Frames from number `start`, or from so many seconds after the first."""
    if isinstance(start, int):
        yield from islice(frames, start, None)
        return
    since: Fraction | None = None
    for frame in frames:
        since = frame.pts + start / time_base if since is None else since
        if frame.pts >= since:
            yield frame


class _Unreadable(Exception):
    """A stream that cannot be read any further."""

    def __init__(self, error: LimitError) -> None:
        self.error = error


class _StreamDecoder:
    def __init__(self, tracks: PassingTracks, weights: Weights | None, damage: Damage, strict: bool) -> None:
        self._reader, self._scan = tracks.reader, tracks.scan()
        self._weights, self._damage, self._strict = weights, damage, strict
        self._key: tuple[int, Chunk] | None = None
        self._times: list[int] = []
        self.last_duration = 0
        """How long the last frame is shown, once all have come; 0 if that is unknown."""

    def parts(self) -> Iterator[Frame | GopEnd]:
        """Frames of each GOP and its end.

        Raises BitstreamError and LimitError if nothing can follow, or at the first fault in strict mode.
        """
        try:
            yield from self._parts()
        except _Unreadable as unreadable:
            raise unreadable.error from unreadable

    def _parts(self) -> Iterator[Frame | GopEnd]:
        self._key = self._next()
        if self._key is None and self._damage.faults:
            raise BitstreamError(f"no frame can be decoded: {self._damage.faults[0]}")
        if self._key is not None:
            for gop in missing_before(self._entry(*self._key), self._reader.header.video):
                yield GopEnd(gop)
        while self._key is not None:
            entry = self._entry(*self._key)
            self._times = []
            decoder = open_decoder(self._reader.header, self._weights)
            chunks, faults = self._gop(self._key[1]), self._damage.faults
            shown = yield from decode_until_fault(chunks, decoder, entry.frame, faults, self._strict)
            frames, until = self._extent(entry.frame)
            yield GopEnd(
                Gop(entry.frame, frames, entry.pts, until, None, None), (), tuple(self._times[shown:frames])
            )

    def _extent(self, first: int) -> tuple[int, int | None]:
        """Expected number of frames of the GOP that just ended, and the time of the next GOP or None."""
        if self._key is None:
            return self._checked_by_index(first, len(self._times)), None
        following = self._entry(*self._key)
        return following.frame - first, following.pts

    def ending(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """`frames`, and then read one more chunk, because packets of the last frame come before it."""
        yield from frames
        with suppress(BitstreamError, LimitError):
            next(self._scan, None)

    def _gop(self, key: Chunk) -> Iterator[Chunk]:
        """Chunks up to the next KEY chunk, which becomes `_key`. Stores their times."""
        chunk: Chunk | None = key
        while chunk is not None:
            self._times += chunk.times
            yield chunk
            self._key = self._next()
            chunk = None if self._key is None or isinstance(self._key[1], KeyChunk) else self._key[1]

    def _next(self) -> tuple[int, Chunk] | None:
        try:
            return next(self._scan, None)
        except LimitError as error:
            raise _Unreadable(error) from error

    def _entry(self, offset: int, key: Chunk) -> IndexEntry:
        return IndexEntry(offset, key.first, key.times[0])

    def _checked_by_index(self, first: int, frames: int) -> int:
        """Expected number of frames of the last GOP, which begins with frame `first`.

        INDEX may know of more frames than came.
        """
        body = self._reader.index_body
        if body is None:
            return frames
        try:
            index = Index.unpack(body, self._reader.header)
        except BitstreamError:
            return frames
        if not index.entries:
            return frames
        total = index.frames
        self.last_duration = index.last_duration
        if total == first + frames:
            return frames
        fault = f"{total} frames were written, but {first + frames} came"
        if self._strict:
            raise BitstreamError(fault)
        self._damage.faults.append(fault)
        return max(frames, total - first) if index.entries[-1].frame == first else frames


class Follower(io.RawIOBase):
    """A file that another process still writes. Reading waits for more, until the END chunk."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read bytes, and wait until there are some."""
        while not (size := self._file.readinto(buffer) or 0) and len(memoryview(buffer)):
            time.sleep(POLL_SECONDS)
        return size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
