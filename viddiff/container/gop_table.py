"""Table of the GOPs of a file: where they are and which frames they should hold, damaged or not.

A true INDEX says everything. Otherwise the whole file is read, and the GOPs found are compared with INDEX.
Without INDEX, the numbers of the keyframes tell how many frames are missing.
"""

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise, zip_longest
from math import ceil
from typing import BinaryIO

from viddiff.config import Limits, Start
from viddiff.container.format import Header, IndexEntry, read_varint
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


def schedule(file: BinaryIO, limits: Limits, start: Start = 0, count: int | None = None) -> list[Gop]:
    """GOPs of a seekable file, in order. Raises BitstreamError for a bad header, and LimitError.

    If only `count` frames from `start` are wanted, INDEX is verified for their GOPs and the next one only.
    """
    file.seek(0)
    reader = Reader(file, limits)
    try:
        gops = _stored(reader)
        wanted = needed(gops, reader.header.video, start, count)
        last = wanted[-1].first if wanted else 0
        after = next((gop for gop in gops if gop.first > last), None)  # where the last one ends
        reader.check(gop.entry for gop in [*wanted, after] if gop is not None and gop.entry is not None)
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
                times = chunk.times
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
            times = chunk.times
            if number < first + len(times):
                return times[number - first]
            first += len(times)
    return None


def missing_before(key: IndexEntry, video: VideoInfo) -> list[Gop]:
    """The frames before the first keyframe that exists, as a GOP that is missing; none if that is frame 0."""
    if not key.frame:
        return []
    pts = max(key.pts - key.frame * usual_step(video), -(1 << 63))
    return [Gop(0, key.frame, pts, key.pts, None, None)]


def _stored(reader: Reader) -> list[Gop]:
    entries = reader.stored_index()
    return _table(entries, entries, reader.frame_count or 0)


def _surveyed(file: BinaryIO, limits: Limits, index_body: bytes | None) -> list[Gop]:
    file.seek(0)
    reader = Reader(file, limits)
    found, total = reader.survey()
    index_body = index_body or reader.index_body  # the second may be found where END is damaged
    if index_body is not None:
        with suppress(BitstreamError):  # INDEX does not speak of this file
            return _as_stated(found, total, index_body, reader.header, limits)
    return (missing_before(found[0], reader.header.video) if found else []) + _table(found, found, total)


def _as_stated(found: list[IndexEntry], total: int, body: bytes, header: Header, limits: Limits) -> list[Gop]:
    """GOPs that INDEX names. Raises BitstreamError if it lacks one that exists, or frames."""
    stated, _ = read_varint(body, 0)
    if stated > limits.frames:
        raise LimitError(f"{stated} frames are over the limit of {limits.frames}")
    keys = Index.unpack(body, header).entries
    known = {(key.frame, key.pts) for key in keys}
    if stated < total or any((key.frame, key.pts) not in known for key in found):
        raise BitstreamError("INDEX lacks a KEY chunk or frames")
    return _table(keys, found, stated)


def _table(keys: Sequence[IndexEntry], found: Sequence[IndexEntry], total: int) -> list[Gop]:
    """GOPs of `keys`, of which those in `found` exist. total: number of frames of the file."""
    gops, there = [], {key.frame: key for key in found}
    stops = {key.frame: following.offset for key, following in pairwise(found)}
    for key, following in zip_longest(keys, keys[1:]):
        frames = (following.frame if following else total) - key.frame
        until = following.pts if following else None
        gops.append(Gop(key.frame, frames, key.pts, until, there.get(key.frame), stops.get(key.frame)))
    return gops


def usual_step(video: VideoInfo) -> int:
    """Time from one frame to the next at the nominal rate, at least 1."""
    return max(round(1 / (video.frame_rate * video.time_base)), 1)
