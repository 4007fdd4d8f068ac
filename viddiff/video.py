"""Video in: any source that libav reads, as `Frame`s with exact times. (Out: `videowriter`.)"""

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Self, cast

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from viddiff.config import MAX_HEIGHT, MAX_WIDTH, MIN_SIDE
from viddiff.demuxer import Demuxer, Source
from viddiff.errors import LimitError, VideoError
from viddiff.failures import FAILURES
from viddiff.frame import Frame, VideoInfo
from viddiff.keyframe import PIXEL_FORMATS, planes_from_picture
from viddiff.videowriter import BT709, CHROMA_LOCATIONS, FULL, LIMITED, UNSPECIFIED, VideoWriter

__all__ = ["VideoReader", "VideoWriter"]


class VideoReader:
    """Gives the frames of a file's first video stream in presentation order, once.

    8- and 10-bit 4:2:0 come as stored, byte for byte; anything else is converted, and `notes` says so.
    Times are those of the stream, in units of `info.time_base`, made strictly increasing.
    """

    def __init__(
        self, source: Source | Demuxer, start: int = 0, frames: int | None = None, threads: int = 1
    ) -> None:
        """source: with a Demuxer, others can take what goes beside the video; it is not closed here."""
        self.notes: list[str] = []
        """Lines that the user should see; complete when the last frame has been read."""
        self._own = None if isinstance(source, Demuxer) else Demuxer(source)
        self._demuxer = source if isinstance(source, Demuxer) else cast(Demuxer, self._own)
        self._name, self._container = self._demuxer.name, self._demuxer.container
        try:
            stream = self._select_stream(threads)
            self._feed = self._demuxer.claim([stream])
            if self._own is not None:
                self._own.drop_others()
            pictures = self._decode()
            first = next(pictures, None)
            if first is None:
                raise VideoError(f"{self._name} has no frame that can be decoded{self._hint()}")
            self.info = self._describe(first, stream, start, frames)
        except BaseException:
            self.close()
            raise
        stop = None if frames is None else start + frames
        self._frames = itertools.islice(self._timed(itertools.chain([first], pictures)), start, stop)

    def __iter__(self) -> Iterator[Frame]:
        return (self._convert(picture, pts) for picture, pts in self._frames)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the source, unless others read it, too."""
        if self._own is not None:
            self._own.close()

    @property
    def live(self) -> bool:
        """Whether the source cannot be read twice."""
        return self._demuxer.live

    def leave(self) -> None:
        """The frames are not wanted, and need not wait while others read the source."""
        self._feed.leave()

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _hint(self) -> str:
        late = self._demuxer.live and self._container.format.name.startswith("mov")
        return "; through a pipe, an .mp4 needs its index in front (faststart)" if late else ""

    def _select_stream(self, threads: int) -> VideoStream:
        """The first stream of moving pictures, ready to decode and of a size within the limits."""
        streams = self._demuxer.videos
        if not streams:
            raise VideoError(f"{self._name} has no video in it")
        if len(streams) > 1:
            self._note(f"took the first of {len(streams)} video streams")
        context = cast(VideoCodecContext | None, streams[0].codec_context)
        if context is None:
            raise VideoError(f"{self._name} is of a video format without a decoder")
        if not context.width or not context.height:
            raise VideoError(f"{self._name} has no frame that can be decoded{self._hint()}")
        if not (MIN_SIDE <= context.width <= MAX_WIDTH and MIN_SIDE <= context.height <= MAX_HEIGHT):
            raise LimitError(
                f"{self._name} is {context.width}x{context.height}; sizes from {MIN_SIDE}x{MIN_SIDE} "
                f"to {MAX_WIDTH}x{MAX_HEIGHT} are supported"
            )
        context.thread_type = "AUTO"
        context.thread_count = threads
        context.options = {"max_pixels": str((MAX_WIDTH + 128) * (MAX_HEIGHT + 128))}
        return streams[0]

    def _decode(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._feed:
                try:
                    yield from packet.decode()
                except av.InvalidDataError:
                    self._note("damaged frames were left out")
        except FAILURES as error:
            raise VideoError(f"{self._name} cannot be decoded to its end") from error

    def _describe(
        self, first: av.VideoFrame, stream: VideoStream, start: int, frames: int | None
    ) -> VideoInfo:
        context, layout = stream.codec_context, _Layout(first)
        target = PIXEL_FORMATS[layout.bit_depth]
        if first.format.name not in layout.stored_alike:
            self._note(f"converted {first.format.name} to {target}")
        if layout.alpha:
            self._note("left the alpha channel out")
        if first.interlaced_frame:
            self._note("interlaced video is treated as progressive")
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(25)
        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if seconds is None and self._container.duration:
            seconds = Fraction(self._container.duration, av.time_base)
        count = stream.frames or (round(seconds * rate) if seconds else None)
        if count is not None:
            count = max(0, count - start) if frames is None else max(0, min(count - start, frames))
        chroma_location, aspect = _picture_properties(first, stream)
        return VideoInfo(
            width=first.width,
            height=first.height,
            bit_depth=layout.bit_depth,
            time_base=stream.time_base or 1 / rate,
            frame_rate=Fraction(rate),
            primaries=_code_point(context.color_primaries),
            transfer=_code_point(context.color_trc),
            matrix=BT709 if layout.rgb else _code_point(context.colorspace),
            full_range=layout.full_range,
            chroma_location=chroma_location,
            sample_aspect_ratio=stream.sample_aspect_ratio or aspect,
            rotation=round(-first.rotation / 90) * 90 % 360,
            frame_count=count,
        )

    def _timed(self, pictures: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, int]]:
        """Every picture with its time; missing times are filled in, others moved where they must be."""
        step = max(1, round(1 / (self.info.frame_rate * self.info.time_base)))
        expected, earliest = 0, None
        for picture in pictures:
            pts = picture.pts
            if pts is None:
                pts = expected
                self._note("frames without a time were given one by the frame rate")
            if earliest is not None and pts < earliest:
                pts = earliest
                self._note("times that did not increase were moved")
            expected, earliest = pts + step, pts + 1
            yield picture, pts

    def _convert(self, picture: av.VideoFrame, pts: int) -> Frame:
        info = self.info
        if (picture.width, picture.height) != (info.width, info.height):
            raise VideoError(
                f"{self._name} changes size from {info.width}x{info.height} to "
                f"{picture.width}x{picture.height}, which is not supported"
            )
        layout = _Layout(picture)
        if layout.bit_depth != info.bit_depth or picture.format.name not in layout.stored_alike:
            try:
                picture = picture.reformat(
                    format=PIXEL_FORMATS[info.bit_depth],
                    src_color_range=FULL if layout.rgb or layout.full_range else LIMITED,
                    dst_color_range=FULL if info.full_range else LIMITED,
                    dst_colorspace=BT709 if layout.rgb else None,
                    interpolation="BICUBIC",
                )
            except FAILURES as error:
                raise VideoError(
                    f"{self._name} holds {picture.format.name}, which cannot be converted"
                ) from error
        return Frame(*planes_from_picture(picture, info.bit_depth, info.width, info.height), pts=pts)


class _Layout:
    """What a picture's pixel format says."""

    def __init__(self, picture: av.VideoFrame) -> None:
        form = picture.format
        colours = [c for c in form.components if not c.is_alpha]
        self.alpha = len(colours) < len(form.components)
        self.rgb = form.is_rgb or form.has_palette
        self.bit_depth = 8 if max(c.bits for c in colours) <= 8 else 10
        is_full = picture.color_range == FULL or form.name.startswith("yuvj") or len(colours) == 1
        self.full_range = is_full and not self.rgb
        self.stored_alike = ("yuv420p", "yuvj420p") if self.bit_depth == 8 else ("yuv420p10le",)


def _code_point(value: int) -> int:
    """H.273 code point of YUV video; reserved values and libav's own ones become "unspecified"."""
    return value if 1 <= value <= 255 else UNSPECIFIED


def _picture_properties(picture: av.VideoFrame, stream: VideoStream) -> tuple[int, Fraction]:
    """Chroma location and sample aspect ratio, which PyAV does not show, from what libav's showinfo logs."""
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream)
    show, sink = graph.add("showinfo", "checksum=0"), graph.add("buffersink")
    level = av.logging.get_level()
    try:
        source.link_to(show)
        show.link_to(sink)
        graph.configure()
        av.logging.set_level(av.logging.INFO)
        with av.logging.Capture() as logs:
            graph.push(picture)
            graph.pull()
    except FAILURES:
        return 0, Fraction(1)
    finally:
        av.logging.set_level(level)
    found = re.search(r" cl:(\w+) sar:(\d+)/(\d+) ", " ".join(line for _, _, line in logs))
    if not found:
        return 0, Fraction(1)
    name, width, height = found[1], int(found[2]), int(found[3])
    location = CHROMA_LOCATIONS.index(name) if name in CHROMA_LOCATIONS else 0
    return location, Fraction(width, height) if width and height else Fraction(1)
