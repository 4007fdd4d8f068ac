"""Other codecs, as far as libav can encode with them, to compare with."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.libav_errors import FAILURES, reason_of, with_logs
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes
from viddiff.media.scheduling import kept_scheduling

_MAX_FRAME_RATE = 240  # SVT-AV1 refuses more


@dataclass(frozen=True)
class OtherCodec:
    """A codec, the effort it makes, and its scale of qualities."""

    name: str
    """What the user calls it."""
    library: str
    """libav's name of the encoder."""
    preset: str
    settings: tuple[int, ...]
    """CRFs that together cover the usual range of qualities, the best picture first."""
    options: Mapping[str, str]
    """Further options of the encoder, none of which changes its decisions."""

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.name}, preset {self.preset}"

    def settings_text(self, interval: int) -> str:
        """All that was asked of it, for people."""
        crfs = ", ".join(map(str, self.settings))
        return (
            f"{self.library}, preset {self.preset}, CRF {crfs}, at most {interval} frames between keyframes"
        )

    def check(self, info: VideoInfo) -> None:
        """Raises VideoError if libav has not this encoder, or not for videos of this form."""
        form = PIXEL_FORMATS[info.bit_depth]
        if self.library not in av.codecs_available:
            raise VideoError(f"libav has no encoder {self.library} here")
        if form not in {known.name for known in av.Codec(self.library, "w").video_formats or ()}:
            raise VideoError(f"libav's {self.library} has no {info.bit_depth} bits here")
        if info.width % 2 or info.height % 2:
            raise VideoError(f"{self.name} needs even sizes, and the reference is {info.width}x{info.height}")

    def encode(
        self, frames: Iterable[Frame], info: VideoInfo, setting: int, interval: int, target: Path
    ) -> None:
        """Write a `.mkv` of these frames, at most `interval` frames between keyframes. Raises VideoError."""
        self.check(info)
        try:
            with (
                with_logs(),
                kept_scheduling(),
                av.open(str(target), "w", format="matroska") as output,
            ):
                rate = min(info.frame_rate, Fraction(_MAX_FRAME_RATE))
                stream = cast(VideoStream, output.add_stream(self.library, rate=rate))
                self._set_up(stream, info, setting, interval)
                for picture in _pictures(frames, info):
                    output.mux(stream.encode(picture))
                output.mux(stream.encode(None))
        except FAILURES as error:
            raise VideoError(f"{self.name} failed at CRF {setting}: {reason_of(error)}") from error

    def _set_up(self, stream: VideoStream, info: VideoInfo, setting: int, interval: int) -> None:
        context = stream.codec_context
        context.width, context.height = info.width, info.height
        context.pix_fmt, context.time_base = PIXEL_FORMATS[info.bit_depth], info.time_base
        context.gop_size, context.thread_count = interval, 0
        context.color_range = ColorRange.JPEG if info.full_range else ColorRange.MPEG
        context.color_primaries, context.color_trc = info.primaries, info.transfer
        context.colorspace = info.matrix
        context.options = {"preset": self.preset, "crf": str(setting), **self.options}


def _pictures(frames: Iterable[Frame], info: VideoInfo) -> Iterator[av.VideoFrame]:
    for frame in frames:
        picture = picture_from_planes(frame.planes, info.bit_depth)
        picture.pts, picture.time_base = frame.pts, info.time_base
        yield picture


OTHER_CODECS = {
    codec.name: codec
    for codec in (
        OtherCodec("x264", "libx264", "medium", (19, 23, 27, 31), {}),
        OtherCodec(
            "x265", "libx265", "medium", (22, 26, 30, 34), {"x265-params": "info=0:log-level=none"}
        ),  # without its options in the stream
        OtherCodec("svtav1", "libsvtav1", "6", (28, 36, 44, 52), {}),
    )
}
"""Codecs to compare with, by name."""


def libav_version() -> str:
    """Versions of what encodes, for reports."""
    folder = Path(av.__file__).parent.parent / "av.libs"
    names = {"libx264": "x264 build", "libx265": "x265 build", "libSvtAv1Enc": "SVT-AV1"}
    parts = [f"PyAV {av.__version__}", f"FFmpeg {av.ffmpeg_version_info}"]
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.so.*")):
            stem, _, version = path.name.partition(".so.")
            if (name := names.get(stem.partition("-")[0])) is not None:
                parts.append(f"{name} {version}")
    return ", ".join(parts)
