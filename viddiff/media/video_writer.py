"""Write video to a file or a pipe: frames with exact times, as H.264, AV1, FFV1 or raw video."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Self, cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from viddiff.display import Display
from viddiff.errors import OutputError, VideoError
from viddiff.file_names import hidden_beside
from viddiff.frame import Frame, VideoInfo
from viddiff.interleave import Interleaver
from viddiff.media.authorship import ENCODER_TAG, Y4M_COMMENT
from viddiff.media.libav_errors import FAILURES, NO_TIME, reason_of
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes
from viddiff.media.picture_properties import CHROMA_LOCATIONS, FULL, LIMITED, UNSPECIFIED
from viddiff.media.scheduling import kept_scheduling
from viddiff.media.stream_header import template
from viddiff.media.track_writer import MP4_TICKS, TrackWriter
from viddiff.pixels import plane_shapes, replicate

CONTAINERS = {
    ".mp4": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".webm": "webm",
    ".y4m": "yuv4mpegpipe",
}
"""libav's formats of the files that `VideoWriter` writes, by extension."""

LOSSLESS = (".mkv", ".y4m")
"""Extensions of files that can hold the exact frames."""

_FRAGMENTS = {"movflags": "frag_keyframe+delay_moov+default_base_moof", "frag_duration": "500000"}
_CLUSTERS = {"cluster_time_limit": "500"}
STREAMED = {".mp4": _FRAGMENTS, ".mov": _FRAGMENTS, ".mkv": _CLUSTERS, ".webm": _CLUSTERS}
"""Muxer options that make these formats work in a pipe, with little delay."""

_Y4M_CHROMA = ("420", "420mpeg2", "420jpeg", "420paldv")  # index: VideoInfo.chroma_location
_Y4M_FIELDS = {"progressive": "p", "top first": "t", "bottom first": "b"}
_SETFIELD = {"top first": "tff", "bottom first": "bff"}
_INTERLACED = 1 << 18 | 1 << 29  # libav's AV_CODEC_FLAG_INTERLACED_DCT and _ME
_MATROSKA_LOCATIONS = 4  # the last of CHROMA_LOCATIONS for which Matroska has a place
_GLOBAL_HEADER = 1 << 22
_SVT_FRAME_RATE = 240  # SVT-AV1 refuses more
_OPTIONS = {
    "ffv1": {},
    "libx264": {"crf": "14", "preset": "veryfast"},
    "libsvtav1": {"crf": "18", "preset": "9"},
}
"""Options of the encoders."""
_WITHOUT_DELAY = {
    "ffv1": {},
    "libx264": {"tune": "zerolatency"},
    "libsvtav1": {},  # see _svt_parameters
}
"""Options for a pipe, in which no frame waits for a later one."""
_MP4_SCALE = 10_000  # units in a second that libav's muxer has at least
_MP4_DELAY = 8  # frames, at most, from the decoding of one to its display
_MOST_REPEATS = 4096
"""Frames that the gaps in an .mp4 may be filled with."""
_FRAME_DURATION = 1 << 8  # libav's AV_CODEC_FLAG_FRAME_DURATION


class VideoWriter:
    """Writes `.mp4`, `.mkv` or `.mov` (H.264), `.mkv` (FFV1), `.webm` (AV1) or `.y4m` (raw, constant rate).

    The file appears under its name when it is complete; after an exception, nothing is left. Pipes get a
    streamable form of the format, with little delay.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        info: VideoInfo,
        lossless: bool = False,
        others: Interleaver | None = None,
        form: str | None = None,
        publish: Callable[[Path], None] | None = None,
    ) -> None:
        """Prepare to write to `target`: a path, or an open pipe or file, which is not closed.

        others: sound, subtitles and so on, as far as the file can hold them. form: one of CONTAINERS; by
        default the extension of the path. publish: gives the complete file its name, or raises
        OutputError; by default, an existing file is replaced.
        """
        self._pipe = None if isinstance(target, str | os.PathLike) else target
        self._path = Path("stdout" if self._pipe is not None else cast(str, target))
        self._info, self._lossless = info, lossless
        self._suffix = form or self._path.suffix.lower()
        if self._suffix not in CONTAINERS:
            raise VideoError(f"{target} has an unknown extension; known ones are {', '.join(CONTAINERS)}")
        if lossless and self._suffix not in LOSSLESS:
            raise VideoError(
                f"{self._path} cannot be lossless as {self._suffix}; {' and '.join(LOSSLESS)} can"
            )
        self._codec = "ffv1" if lossless else "libsvtav1" if self._suffix == ".webm" else "libx264"
        self._quick_time = self._suffix in (".mp4", ".mov")
        self._temporary = hidden_beside(self._path, f".{secrets.token_hex(4)}.part")
        self._publish = publish or (lambda complete: os.replace(complete, self._path))
        self.notes: list[str] = []
        """Notes for the user: what this kind of file cannot hold."""
        self._others: TrackWriter | None = None
        if others is not None:
            self._others = TrackWriter(others, CONTAINERS[self._suffix])
            self.notes += self._others.notes
        self._size = info.width, info.height
        if self._suffix != ".y4m" and self._codec == "libx264" and (info.width % 2 or info.height % 2):
            self._size = info.width + info.width % 2, info.height + info.height % 2
            self.notes.append("H.264 needs even sizes: the last column or row is repeated")
        if info.rotation and self._suffix != ".y4m" and not hasattr(VideoStream, "set_display_rotation"):
            self.notes.append("the installed PyAV cannot store the rotation")
        if self._suffix == ".mkv" and lossless and info.chroma_location > _MATROSKA_LOCATIONS:
            self.notes.append(f"FFV1 in .mkv cannot hold chroma at {CHROMA_LOCATIONS[info.chroma_location]}")
        if self._suffix == ".webm" and (lost := _beyond_webm(info)):
            self.notes.append(f".webm cannot hold {', '.join(lost)}")
        if self._suffix == ".y4m" and _beyond_y4m(info):
            self.notes.append(".y4m cannot hold rotation, colour description or HDR10 metadata")

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._marker: av.filter.Graph | None = None
        self._last: Frame | None = None
        self._repeats = 0
        self._longest = _longest(self._info.time_base) if self._quick_time else 1 << 62
        self._frames, self._first_pts, self._last_pts, self._last_duration = 0, 0, 0, 0
        with self._failures():
            if self._suffix == ".y4m":
                self._raw = self._pipe or self._stack.enter_context(open(self._temporary, "xb"))
                self._raw_bytes = self._raw.write(_y4m_header(self._info))
            else:
                if self._pipe is None:
                    self._temporary.touch(exist_ok=False)  # libav opens it only with the first packet
                self._container = self._stack.enter_context(self._open())
        return self

    @property
    def size_bytes(self) -> int | None:
        """Bytes written so far. None for a pipe that libav writes to."""
        if self._suffix == ".y4m":
            return self._raw_bytes
        return self._temporary.stat().st_size if self._pipe is None else None

    def write(self, frame: Frame) -> None:
        """Append a frame. Times must increase."""
        info, form = self._info, (frame.y.shape, str(frame.y.dtype))
        if form != ((info.height, info.width), "uint8" if info.bit_depth == 8 else "uint16"):
            raise ValueError(
                f"a frame of {form} in a video of {info.width}x{info.height}, {info.bit_depth} bits"
            )
        if self._frames and frame.pts <= self._last_pts:
            raise ValueError(f"a frame at {frame.pts} after one at {self._last_pts}")
        time = frame.pts * info.time_base
        if not self._frames and time < 0 and self._quick_time:  # players hide what is before 0
            self._container.container_options["avoid_negative_ts"] = "make_zero"
        if self._others is not None:
            with self._failures():
                if not self._frames:
                    self._others.begin(time)
                self._others.upto(time)
        self._first_pts = self._first_pts if self._frames else frame.pts
        self._last_pts, self._last_duration = frame.pts, frame.duration
        self._frames += 1
        with self._failures():
            if self._suffix == ".y4m":
                self._note_lost_times()
                self._raw_bytes += self._raw.write(b"FRAME\n")
                for plane in frame.planes:
                    self._raw_bytes += self._raw.write(np.ascontiguousarray(plane).data.cast("B"))
                if self._pipe is not None:
                    self._pipe.flush()
                return
            if frame.pts == NO_TIME:
                raise OverflowError(f"a frame at {NO_TIME}")
            for repeated in self._over_gap(frame):
                self._encode(repeated)
            duration = frame.duration or max(round(1 / (info.frame_rate * info.time_base)), 1)
            self._encode(replace(frame, duration=min(duration, self._longest)))
            self._last = frame

    def _over_gap(self, frame: Frame) -> Iterator[Frame]:
        """The last frame again, as often as it needs for .mp4 to reach `frame`."""
        last = self._last
        repeats = 0 if last is None else (frame.pts - last.pts - 1) // self._longest
        if last is None or not repeats:
            return
        self._repeats += repeats
        if self._repeats > _MOST_REPEATS:
            hours = float((frame.pts - last.pts) * self._info.time_base) / 3600
            raise VideoError(f"{self._path} cannot hold gaps like that of {hours:.1f} hours; .mkv can")
        note = f"{self._suffix} holds no frame that is shown for so long: those before gaps are repeated"
        if note not in self.notes:
            self.notes.append(note)
        for number in range(1, repeats + 1):
            yield replace(last, pts=last.pts + number * self._longest, duration=self._longest)

    def _encode(self, frame: Frame) -> None:
        shapes = plane_shapes(*self._size)
        y, u, v = (replicate(plane, shape) for plane, shape in zip(frame.planes, shapes, strict=True))
        picture = picture_from_planes((y, u, v), self._info.bit_depth)
        picture.pts, picture.time_base = frame.pts, self._info.time_base
        picture.duration = frame.duration
        if self._marker is not None:
            self._marker.push(picture)
            picture = cast(av.VideoFrame, self._marker.pull())
            picture.duration = frame.duration
        self._container.mux(self._stream.encode(picture))

    def _flush(self) -> None:
        """Write what the encoder still holds."""
        packets = self._stream.encode(None)
        long = self._last_duration * self._info.time_base * self._info.frame_rate > 2
        if self._quick_time and packets and long:
            # these files have durations in the order of decoding: the last packet of all has to reach the end
            last = packets[-1]
            end = self._last_pts + min(self._last_duration, self._longest)
            if last.dts is not None and last.time_base == self._info.time_base:
                last.duration = max(end - last.dts, 1)
        self._container.mux(packets)

    def _note_lost_times(self) -> None:
        rate, base = self._info.frame_rate, self._info.time_base
        seconds = (self._last_pts - self._first_pts) * base
        late = abs(seconds * rate - (self._frames - 1)) > 0.5
        long = self._last_duration and abs(self._last_duration * base * rate - 1) > 0.5
        note = ".y4m has a constant rate and cannot hold the times of these frames"
        if (late or long) and note not in self.notes:
            self.notes.append(note)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._failures():
                with self._stack:
                    if kind is None and self._frames and self._suffix != ".y4m":
                        self._flush()
                        if self._others is not None:
                            lasts = self._last_duration * self._info.time_base or 1 / self._info.frame_rate
                            self._others.rest(self._last_pts * self._info.time_base + lasts)
                            self.notes += [n for n in self._others.notes if n not in self.notes]
                if kind is None:
                    if not self._frames:
                        raise VideoError(f"{self._path} is not written, because there is no frame")
                    if self._pipe is None:
                        if self._suffix != ".y4m":
                            self._check_readable()
                        self._publish(self._temporary)
        except OutputError:
            raise  # which says where the file is
        except BaseException as error:
            self._temporary.unlink(missing_ok=True)
            if kind is None or not isinstance(error, VideoError):
                raise
        else:
            self._temporary.unlink(missing_ok=True)

    def _check_readable(self) -> None:
        """VideoError unless libav finds the video in what was written: not all muxers tell when they fail."""
        try:
            with av.open(f"file:{self._temporary}", "r", metadata_errors="replace") as written:
                if any(stream.codec_context.width == self._size[0] for stream in written.streams.video):
                    return
        except FAILURES as error:
            raise VideoError(f"{self._path} was written, but cannot be read: {reason_of(error)}") from error
        raise VideoError(f"{self._path} was written, but no video is found in it")

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise  # the reader has had enough
        except FAILURES as error:
            self._temporary.unlink(missing_ok=True)
            raise VideoError(f"{self._path} cannot be written: {reason_of(error)}") from error

    def _add_stream(self, output: OutputContainer) -> VideoStream:
        """The video's stream, with properties that PyAV has no setting for."""
        info, codec = self._info, self._codec
        rate = min(info.frame_rate, Fraction(_SVT_FRAME_RATE)) if codec == "libsvtav1" else info.frame_rate
        if codec == "libsvtav1" or replace(info.display, matrix=None) == Display():
            return cast(VideoStream, output.add_stream(codec, rate=rate))
        self._template = template(codec, *self._size, info.display)  # it has to live as long
        stream = output.add_stream_from_template(self._template, opaque=False)
        stream.codec_context.framerate = rate
        stream.codec_context.flags |= _GLOBAL_HEADER  # both .mp4 and .mkv want it
        if info.display.field_order != "progressive":
            stream.codec_context.flags |= _INTERLACED
        return stream

    def _open(self) -> OutputContainer:
        info, container_options = self._info, {}
        if self._quick_time:  # edit lists are in these units; coarser ones would move the first frame
            container_options["movie_timescale"] = str(min(info.time_base.denominator, 2**31 - 1))
        name = f"file:{self._temporary}"
        options = dict(_OPTIONS[self._codec])
        if self._codec == "libsvtav1":
            options["svtav1-params"] = _svt_parameters(info.display, self._pipe is not None)
        if self._pipe is not None:
            name = f"pipe:{self._pipe.fileno()}"
            container_options |= STREAMED[self._suffix] | {"flush_packets": "1"}
            options |= _WITHOUT_DELAY[self._codec]
        output = av.open(name, "w", format=CONTAINERS[self._suffix], options=container_options)
        stream = self._add_stream(output)
        context = stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = PIXEL_FORMATS[info.bit_depth]
        context.thread_count = 1
        context.flags |= _FRAME_DURATION
        context.options = {**options, "chroma_sample_location": CHROMA_LOCATIONS[info.chroma_location]}
        stream.time_base = context.time_base = info.time_base
        context.color_primaries, context.color_trc = info.primaries, info.transfer
        context.colorspace, context.color_range = info.matrix, FULL if info.full_range else LIMITED
        context.sample_aspect_ratio = info.sample_aspect_ratio
        if info.display.matrix is not None and hasattr(stream, "set_display_matrix"):
            stream.set_display_matrix(info.display.matrix)
        elif info.rotation and hasattr(stream, "set_display_rotation"):
            stream.set_display_rotation(-info.rotation)
        stream.metadata.update(ENCODER_TAG)
        with kept_scheduling():  # PyAV leaves that to the first picture, but sound may be written before it
            context.open(strict=False)
        self._stream = stream
        self._marker = _marker(info, self._size, self._lossless)
        if self._others is not None:
            self._others.add_to(output, stream)
            self.notes += self._others.notes
        return output


def _longest(time_base: Fraction) -> int:
    """Longest duration of a frame in .mp4, in units of `time_base`.

    libav halves units larger than 1/10000 s, and a duration must fit in 31 bits.
    """
    scale = time_base.denominator
    while scale < _MP4_SCALE:
        scale *= 2
    return max(int(MP4_TICKS / (scale * time_base * _MP4_DELAY)), 1)


def _marker(info: VideoInfo, size: tuple[int, int], lossless: bool) -> av.filter.Graph | None:
    """A filter that sets the field order of pictures and, for FFV1, their aspect ratio.

    Encoders read them there, and PyAV cannot set them. None if there is nothing to set.
    """
    steps, aspect, order = [], info.sample_aspect_ratio, _SETFIELD.get(info.display.field_order)
    if lossless and aspect != 1:
        steps.append(("setsar", f"{aspect.numerator}/{aspect.denominator}"))
    if order is not None:
        steps.append(("setfield", order))
    if not steps:
        return None
    graph, form = av.filter.Graph(), av.VideoFormat(PIXEL_FORMATS[info.bit_depth], *size)
    source = graph.add_buffer(width=size[0], height=size[1], format=form, time_base=info.time_base)
    filters = [graph.add(name, arguments) for name, arguments in steps]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    return graph


def _svt_parameters(display: Display, without_delay: bool) -> str:
    """SVT-AV1's own options: one thread, and the metadata of HDR10, which AV1 holds whole or not at all."""
    options = ["lp=1", *(["pred-struct=1"] if without_delay else [])]
    if display.mastering_colours is not None and display.mastering_luminance is not None:
        x = [value / 50_000 for value in display.mastering_colours]
        most, least = (value / 10_000 for value in display.mastering_luminance)
        red, green, blue, white = (f"({x[i]:.5f},{x[i + 1]:.5f})" for i in range(0, 8, 2))
        options.append(f"mastering-display=G{green}B{blue}R{red}WP{white}L({most:.4f},{least:.4f})")
    if display.content_light is not None:
        options.append("content-light={},{}".format(*display.content_light))
    return ":".join(options)


def _beyond_webm(info: VideoInfo) -> list[str]:
    """Properties of the video that .webm cannot hold."""
    lost, display, aspect = list[str](), info.display, info.sample_aspect_ratio
    if aspect != 1:  # PyAV gives the muxer only what the encoder tells, and SVT-AV1 tells none
        lost.append(f"the aspect ratio of samples ({aspect.numerator}:{aspect.denominator})")
    if info.chroma_location > _MATROSKA_LOCATIONS:
        lost.append(f"chroma at {CHROMA_LOCATIONS[info.chroma_location]}")
    if display.field_order != "progressive":
        lost.append("the order of fields")
    if (display.mastering_colours is None) != (display.mastering_luminance is None):
        lost.append("a part of the mastering display alone")
    return lost


def _beyond_y4m(info: VideoInfo) -> bool:
    """Whether the video has properties that .y4m cannot hold."""
    colour = (info.primaries, info.transfer, info.matrix) != (UNSPECIFIED,) * 3
    location = info.chroma_location >= (len(_Y4M_CHROMA) if info.bit_depth == 8 else 1)
    display = replace(info.display, field_order="progressive") != Display()
    return bool(info.rotation) or colour or location or display


def _y4m_header(info: VideoInfo) -> bytes:
    rate, aspect = info.frame_rate, info.sample_aspect_ratio
    chroma = "420p10 XYSCSS=420P10"
    if info.bit_depth == 8:
        chroma = _Y4M_CHROMA[info.chroma_location if info.chroma_location < len(_Y4M_CHROMA) else 0]
    return (
        f"YUV4MPEG2 W{info.width} H{info.height} F{rate.numerator}:{rate.denominator} "
        f"I{_Y4M_FIELDS[info.display.field_order]} "
        f"A{aspect.numerator}:{aspect.denominator} C{chroma} "
        f"XCOLORRANGE={'FULL' if info.full_range else 'LIMITED'} {Y4M_COMMENT}\n"
    ).encode("ascii")
