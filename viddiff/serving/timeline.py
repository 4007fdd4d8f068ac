"""The time line of a movie in ticks from its first frame on, and its division into segments."""

from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from viddiff.config import Limits
from viddiff.container.gop_table import Gop, frame_time, usual_step
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import VideoInfo
from viddiff.media.segment_writer import TICKS
from viddiff.tracks import MAX_SECONDS

_SECONDS = 2
"""Length of a segment, rounded to whole frames. What is sought begins with a segment."""


@dataclass(frozen=True)
class Timeline:
    """Times of a movie, which begin at 0. The segments are equal parts, whatever the GOPs are."""

    origin: int
    """Time of the first frame in the file, in units of `unit`."""
    unit: Fraction
    """Seconds for each unit of `Frame.pts`."""
    segment_ticks: int
    ticks: int
    """Duration."""

    @property
    def segments(self) -> int:
        """Number of segments, at least 1."""
        return -(-self.ticks // self.segment_ticks)

    def span(self, number: int) -> tuple[int, int]:
        """Where segment `number` begins and ends, in ticks."""
        return number * self.segment_ticks, min((number + 1) * self.segment_ticks, self.ticks)

    def tick(self, pts: int) -> int:
        """A time of the file in ticks."""
        return round((pts - self.origin) * self.unit * TICKS)

    def gop_at(self, gops: list[Gop], tick: int) -> int:
        """Place of the GOP that is shown at this time."""
        return max(bisect_right(gops, tick, key=lambda gop: self.tick(gop.pts)) - 1, 0)


def timeline_of(file: BinaryIO, gops: list[Gop], video: VideoInfo, limits: Limits) -> Timeline:
    """The time line of an open file. Reads its last GOP.

    Raises LimitError for times that are too far apart, BitstreamError if there is no frame.
    """
    if not gops:
        raise BitstreamError("no frame is found in it")
    last, step, unit = gops[-1], usual_step(video), video.time_base
    at = frame_time(file, gops, last.first + last.frames - 1, limits)
    if at is None:
        at = last.pts + (last.frames - 1) * step
    end = at + (_last_duration(file, limits) or step)
    if (end - gops[0].pts) * unit >= MAX_SECONDS:
        raise LimitError(f"it lasts longer than {MAX_SECONDS} seconds")
    frames = round(_SECONDS * video.frame_rate)
    seconds = frames / video.frame_rate if frames else Fraction(_SECONDS)
    ticks = max(round((end - gops[0].pts) * unit * TICKS), 1)
    return Timeline(gops[0].pts, unit, max(round(seconds * TICKS), 1), ticks)


def _last_duration(file: BinaryIO, limits: Limits) -> int:
    file.seek(0)
    reader = Reader(file, limits)
    with suppress(BitstreamError, LimitError):
        reader.stored_index()
    return reader.last_duration
