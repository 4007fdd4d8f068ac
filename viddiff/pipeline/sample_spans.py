"""Which GOPs of a video are samples of it."""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from viddiff.frame import VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.encode_inputs import opened_source, opened_video
from viddiff.pipeline.encode_job import EncodeJob

_FEWEST, _MOST = 4, 16
"""Usual numbers of samples."""


@dataclass(frozen=True)
class Samples:
    """Parts of a video that stand for all of it."""

    job: EncodeJob
    """Of the whole video."""
    info: VideoInfo
    """Of the frames that are encoded."""
    parts: tuple[EncodeJob, ...]
    """Jobs for one GOP each, spread over the video; one job for the whole of a short video."""
    share: float
    """Their frames as a share of all."""

    @property
    def whole(self) -> bool:
        """Whether they are the whole video."""
        return self.share == 1


def samples_of(job: EncodeJob, fewest: int = _FEWEST, most: int = _MOST) -> Samples:
    """The samples of a job's video. Raises ViddiffError, OSError.

    fewest, most: numbers of samples. A video of no more GOPs than `fewest` is its own sample.
    """
    with opened_source(job) as demuxer, opened_video(job, demuxer) as reader:
        info, gop, count, rate = reader.info, *_source_frames(job, reader)
    gops = 0 if count is None else count // gop
    number = min(max(isqrt(gops), fewest), most)
    if count is None or gops <= fewest:
        return Samples(job, info, (job,), 1.0)
    begin = job.start if isinstance(job.start, Fraction) else job.start / rate
    places = [(2 * place + 1) * gops // (2 * number) for place in range(number)]
    # Half a frame early, because times are rounded: this part begins with the first frame after it.
    starts = [max(begin + (gop * place - Fraction(1, 2)) / rate, begin) for place in places]
    parts = tuple(replace(job, start=start, frames=gop) for start in starts)
    return Samples(job, info, parts, number * gop / count)


def _source_frames(job: EncodeJob, reader: VideoReader) -> tuple[int, int | None, Fraction]:
    """Length of a GOP and of the video in frames of the source, and its frame rate."""
    rate, count = reader.source_rate, reader.info.frame_count
    if job.fps is None:
        return job.gop, count, rate
    faster = rate / job.fps
    return max(round(job.gop * faster), 1), None if count is None else max(round(count * faster), 1), rate
