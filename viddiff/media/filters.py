"""Filters for pictures: size, pixel format, frame rate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd
from typing import cast

import av

from viddiff.config import SIZES, Limits, allowed_size
from viddiff.errors import LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.filter_chain import linked
from viddiff.media.libav_errors import FAILURES, NO_TIME
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes, planes_from_picture
from viddiff.media.picture_properties import (
    BT709,
    BT2020,
    CHROMA_LOCATIONS,
    FULL,
    LIMITED,
    Layout,
    source_arguments,
)
from viddiff.media.source_filters import SourceFilters

_MATRICES = {BT709: "bt709", BT2020: "bt2020"}


@dataclass(frozen=True)
class Changes:
    """Changes that a user can ask for."""

    fps: Fraction | None = None
    """Frames per second. Frames are left out or repeated, each within half a frame of its time."""
    scale: tuple[int, int] | None = None
    """Width and height in luma samples. -1 for one of them keeps the shape."""
    source: SourceFilters = SourceFilters()  # noqa: RUF009 (it is frozen)
    """What happens to a source's pictures before that. Without effect on frames that are decoded already."""

    def _size(self, info: VideoInfo) -> tuple[int, int]:
        width, height = self.scale or (info.width, info.height)
        if width == -1:
            width = max(round(Fraction(height * info.width, info.height)), 1)
        elif height == -1:
            height = max(round(Fraction(width * info.height, info.width)), 1)
        if self.scale and not allowed_size(width, height):
            raise LimitError(f"--scale asks for {width}x{height}; sizes of {SIZES} are supported")
        return width, height

    def of(self, info: VideoInfo) -> VideoInfo:
        """`info` after the changes.

        The shape on the screen stays: the sample aspect ratio changes if necessary. Raises LimitError if the
        size is outside the limits.
        """
        width, height = self._size(info)
        aspect, count = info.sample_aspect_ratio, info.frame_count
        if self.scale is not None and -1 not in self.scale:
            aspect *= Fraction(info.width * height, info.height * width)
            aspect = aspect.limit_denominator(1 << 15)
        info = replace(info, width=width, height=height, sample_aspect_ratio=aspect)
        if self.fps is None:
            return info
        count = None if count is None else max(round(count * self.fps / info.frame_rate), 1)
        time_base = _common(info.time_base, 1 / self.fps)
        return replace(info, frame_rate=self.fps, time_base=time_base, frame_count=count)


class Formatter:
    """Converts pictures to `info`'s size and 4:2:0. The colour description stays; RGB becomes YUV."""

    def __init__(self, info: VideoInfo) -> None:
        self._info, self._graph, self._form = info, av.filter.Graph(), ""

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The converted picture, or the picture itself if nothing changes. Raises PyAV's errors."""
        info, layout, pts = self._info, Layout(picture), picture.pts
        same_depth = layout.bit_depth == info.bit_depth
        if (
            (picture.width, picture.height) == (info.width, info.height)
            and same_depth
            and layout.stored_alike
            and layout.full_range == info.full_range
        ):
            return picture
        arguments = source_arguments(picture, info.time_base)
        if arguments != self._form:
            self._form, self._graph = arguments, self._made(arguments, layout)
        self._graph.push(picture)
        done = cast(av.VideoFrame, self._graph.pull())
        done.pts, done.duration = pts, picture.duration
        return done

    def _made(self, arguments: str, layout: Layout) -> av.filter.Graph:
        info = self._info
        # libav takes gray for full range, whatever is stated; so its samples stay as they are
        ranges = {False: "limited", True: "full"}
        location = CHROMA_LOCATIONS[info.chroma_location].replace("unspecified", "unknown")
        scale = (
            f"{info.width}:{info.height}:flags=bicubic+accurate_rnd+full_chroma_int:interl=-1"
            f":out_range={ranges[info.full_range or layout.gray]}:out_chroma_loc={location}"
        )
        if layout.rgb:
            scale += f":out_color_matrix={_MATRICES.get(info.matrix, 'bt709')}"
        else:
            scale += f":in_range={ranges[layout.full_range or layout.gray]}:in_chroma_loc={location}"
        form = PIXEL_FORMATS[info.bit_depth]
        return linked(("buffer", arguments), ("scale", scale), ("format", form), ("buffersink", ""))


def at_rate(
    pictures: Iterable[av.VideoFrame], info: VideoInfo, changes: Changes, most: int = Limits().frames
) -> Iterator[av.VideoFrame]:
    """Pictures of a video of `info` at another rate, with times in units of `changes.of(info).time_base`.

    The first picture keeps its time, and the others follow evenly. Raises LimitError if there would be more
    than `most`: two times far apart are enough to ask for any number.
    """
    if changes.fps is None:
        yield from pictures
        return
    unit = changes.of(info).time_base
    graph, start = None, 0
    usual = max(round(1 / (info.frame_rate * info.time_base)), 1)

    def ready() -> Iterator[av.VideoFrame]:
        while graph is not None:
            try:
                done = cast(av.VideoFrame, graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return
            done.pts = round((start * info.time_base + (done.pts or 0) / changes.fps) / unit)
            done.duration = round(1 / (changes.fps * unit))
            yield done

    for picture in pictures:
        if graph is None:
            start = picture.pts or 0
            source = source_arguments(picture, info.time_base)
            rate = f"fps={changes.fps.numerator}/{changes.fps.denominator}"
            graph = linked(("buffer", source), ("fps", rate), ("buffersink", ""))
        since = (picture.pts or 0) - start
        lasts = picture.duration or usual  # of the last one, it says how often that is repeated
        if (since + lasts) * info.time_base * changes.fps > most:
            raise LimitError(f"{float(changes.fps):g} frames per second would be more than {most} frames")
        picture.pts, picture.duration = since, lasts
        graph.push(picture)
        yield from ready()
    if graph is not None:
        graph.push(None)
        yield from ready()


def change_frames(
    frames: Iterable[Frame], info: VideoInfo, changes: Changes, most: int = Limits().frames
) -> Iterator[Frame]:
    """Apply `changes` to the frames of a video with properties `info`.

    Raises VideoError, and LimitError for more than `most` frames.
    """
    if changes == Changes():
        yield from frames
        return
    after = changes.of(info)
    formatter = Formatter(replace(after, time_base=info.time_base))

    def pictures() -> Iterator[av.VideoFrame]:
        for frame in frames:
            if frame.pts == NO_TIME:
                raise OverflowError(f"a frame at {NO_TIME}")
            picture = picture_from_planes(frame.planes, info.bit_depth)
            picture.pts, picture.time_base = frame.pts, info.time_base
            picture.duration = frame.duration
            picture.color_range = FULL if info.full_range else LIMITED
            yield formatter(picture)

    try:
        for picture in at_rate(pictures(), info, changes, most):
            planes = planes_from_picture(picture, after.bit_depth, after.width, after.height)
            yield Frame(*planes, pts=picture.pts or 0, duration=picture.duration or 0)
    except FAILURES as error:
        raise VideoError(f"the frames cannot be brought to another size or rate: {error}") from error


def least_alpha(picture: av.VideoFrame) -> float:
    """Smallest opacity in a picture with an alpha channel, 0 to 1. Raises PyAV's errors."""
    arguments = source_arguments(picture, Fraction(1, 25))
    steps = [("format", "rgba")] if picture.format.has_palette else []
    graph = linked(("buffer", arguments), *steps, ("alphaextract", ""), ("buffersink", ""))
    graph.push(picture)
    alpha = cast(av.VideoFrame, graph.pull())
    deep = alpha.format.components[0].bits > 8
    return float(alpha.to_ndarray().min()) / ((1 << alpha.format.components[0].bits) - 1 if deep else 255)


def _common(a: Fraction, b: Fraction) -> Fraction:
    """Largest time base in which both are whole numbers, or `b` if that is too fine for a header."""
    both = Fraction(
        gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator
    )
    return both if both.denominator < 1 << 31 and both.numerator < 1 << 31 else b
