"""Table of the GOPs of a file: where they are and which frames they should hold, damaged or not.

A true INDEX says everything. Otherwise the whole file is read, and the GOPs found are compared with INDEX.
Without INDEX, the times before and after a gap tell how many frames are missing.
"""

from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from math import ceil
from typing import BinaryIO

from viddiff.config import Limits, Start
from viddiff.container.format import IndexEntry, KeyChunk, read_varint
from viddiff.container.reader import Index, Reader
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import VideoInfo


@dataclass(frozen=True, slots=True)
class Gop:
    """A keyframe and the frames predicted from it."""

    first: int
    """Number of its keyframe, from 0."""
    frames: int
    """Number of frames that it holds or should hold, at least 1."""
    pts: int
    """Time of its keyframe."""
    until: int | None
    """Time of the next keyframe. None for the last GOP."""
    entry: IndexEntry | None
    """Its position. None if it is missing."""
    stop: int | None
    """Position of the next GOP that exists. None for the last."""
    sound: int
    """Number of frames that can be shown. Fewer than `frames` if a chunk is missing without a trace."""


@dataclass(slots=True)
class Found:
    """A GOP found while reading."""

    entry: IndexEntry
    frames: int
    last: int
    """Time of the last frame."""
    end: int
    """The byte after its last good chunk."""
    faulty: bool = False
    """Damage follows."""

    def frames_before(self, following: IndexEntry | None, video: VideoInfo) -> int:
        """Number of frames, with those that seem lost after them, before the next GOP that exists."""
        if following is None or not self.faulty:
            return self.frames
        step = usual_step(video)
        if self.frames > 1:
            step = max((self.last - self.entry.pts) // (self.frames - 1), 1)
        lost = (2 * (following.pts - self.last) + step) // (2 * step) - 1
        return self.frames + min(
            max(lost, 0), following.offset - self.end
        )  # a frame takes a byte at the least


def schedule(file: BinaryIO, limits: Limits, start: Start = 0, count: int | None = None) -> list[Gop]:
    """GOPs of a seekable file, in order. Raises BitstreamError for a bad header, and LimitError.

    If only `count` frames from `start` are wanted, INDEX is verified for their GOPs only.
    """
    file.seek(0)
    reader = Reader(file, limits)
    try:
        gops = _stored(reader)
        wanted = needed(gops, reader.header.video, start, count)
        reader.check(gop.entry for gop in wanted if gop.entry is not None)
    except (BitstreamError, LimitError):
        return _surveyed(file, limits, reader.index_body)
    return gops


def needed(gops: list[Gop], video: VideoInfo, start: Start, count: int | None) -> list[Gop]:
    """GOPs that hold `count` frames from `start`, or may hold them if `start` is a time."""
    if isinstance(start, int):
        stop = None if count is None else start + count
    else:
        at = moment(gops, video, start)
        place = max(bisect_right(gops, at, key=lambda gop: gop.pts) - 1, 0)
        start = gops[place].first if gops else 0
        stop = None if count is None else start + (gops[place].frames if gops else 0) + count
    return [gop for gop in gops if gop.first + gop.frames > start and (stop is None or gop.first < stop)]


def moment(gops: list[Gop], video: VideoInfo, start: Fraction) -> int:
    """`start` seconds after the first frame, as a time of the file, rounded up."""
    return (gops[0].pts if gops else 0) + ceil(start / video.time_base)


def frame_number(file: BinaryIO, gops: list[Gop], video: VideoInfo, start: Start, limits: Limits) -> int:
    """Number of the first frame at or after `start`. Reads at most one GOP."""
    if isinstance(start, int) or not gops:
        return int(start)
    at = moment(gops, video, start)
    gop = needed(gops, video, start, 1)[0]
    number = gop.first
    if gop.entry is not None and gop.pts < at:
        file.seek(0)
        reader = Reader(file, limits)
        with suppress(BitstreamError, LimitError):
            reader.seek(gop.entry)
            for chunk in reader.chunks(stop=gop.stop):
                times = (chunk.pts,) if isinstance(chunk, KeyChunk) else chunk.pts
                number += sum(time < at for time in times)
                if times[-1] >= at:
                    return number
        number = gop.first + gop.frames
    return number


def frame_time(file: BinaryIO, gops: list[Gop], number: int, limits: Limits) -> int | None:
    """Time of the frame of this number; None if it is not there. Reads one GOP at most."""
    gop = gops[bisect_right(gops, number, key=lambda gop: gop.first) - 1]
    if gop.entry is None or number == gop.first:
        return gop.pts if number == gop.first else None
    file.seek(0)
    reader, first = Reader(file, limits), gop.first
    with suppress(BitstreamError, LimitError):
        reader.seek(gop.entry)
        for chunk in reader.chunks(stop=gop.stop):
            times = (chunk.pts,) if isinstance(chunk, KeyChunk) else chunk.pts
            if number < first + len(times):
                return times[number - first]
            first += len(times)
    return None


def _stored(reader: Reader) -> list[Gop]:
    entries, gops = reader.stored_index(), list[Gop]()
    for entry, following in zip_longest(entries, entries[1:]):
        frames = (following.frame if following else reader.frame_count or 0) - entry.frame
        until, stop = (following.pts, following.offset) if following else (None, None)
        gops.append(Gop(entry.frame, frames, entry.pts, until, entry, stop, frames))
    return gops


def _surveyed(file: BinaryIO, limits: Limits, index_body: bytes | None) -> list[Gop]:
    file.seek(0)
    reader, found = Reader(file, limits), list[Found]()

    def on_fault(_: BitstreamError) -> None:
        if found:
            found[-1].faulty = True

    number = 0
    for offset, chunk in reader.scan(on_fault):
        if isinstance(chunk, KeyChunk):
            found.append(Found(IndexEntry(offset, number, chunk.pts), 1, chunk.pts, reader.offset))
            number += 1
        else:
            found[-1].frames += len(chunk.pts)
            found[-1].last, found[-1].end = chunk.pts[-1], reader.offset
            number += len(chunk.pts)
    index_body = index_body or reader.index_body  # the second may be found where END is damaged
    if index_body is not None:
        try:
            return _as_stated(found, index_body, reader.header.gop, limits)
        except BitstreamError:
            pass  # INDEX does not speak of this file
    return _by_time(found, reader.header.video)


def _as_stated(found: list[Found], body: bytes, gop: int, limits: Limits) -> list[Gop]:
    """GOPs that INDEX names. Raises BitstreamError if it lacks one that exists."""
    total, _ = read_varint(body, 0)
    if total > limits.frames:
        raise LimitError(f"{total} frames are over the limit of {limits.frames}")
    stated = Index.unpack(body, gop).entries
    places = {one.entry.pts: number for number, one in enumerate(found)}
    if not places.keys() <= {entry.pts for entry in stated}:
        raise BitstreamError("INDEX lacks a KEY chunk")
    gops = []
    for entry, following in zip_longest(stated, stated[1:]):
        until = following.pts if following else None
        frames = (following.frame if following else total) - entry.frame
        if entry.pts not in places:
            gops.append(Gop(entry.frame, frames, entry.pts, until, None, None, 0))
            continue
        place = places[entry.pts]
        one, stop = found[place], found[place + 1].entry.offset if place + 1 < len(found) else None
        # Frames too many are those of the next GOP if its keyframe is gone.
        whole = one.faulty or one.frames == frames
        whole |= one.frames > frames and until is not None and until not in places
        gops.append(Gop(entry.frame, frames, entry.pts, until, one.entry, stop, frames if whole else 1))
    return gops


def _by_time(found: list[Found], video: VideoInfo) -> list[Gop]:
    """GOPs that exist, each with the frames that seem lost after it."""
    gops, number = [], 0
    for place, one in enumerate(found):
        following = found[place + 1].entry if place + 1 < len(found) else None
        frames = one.frames_before(following, video)
        entry = IndexEntry(one.entry.offset, number, one.entry.pts)
        until, stop = (following.pts, following.offset) if following else (None, None)
        gops.append(Gop(number, frames, one.entry.pts, until, entry, stop, frames))
        number += frames
    return gops


def usual_step(video: VideoInfo) -> int:
    """Time from one frame to the next at the nominal rate, at least 1."""
    return max(round(1 / (video.frame_rate * video.time_base)), 1)
