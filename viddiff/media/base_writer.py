"""The base layer as a file of its own: AV1 that any player shows, with sound and all, without decoding."""

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av

from viddiff.display import Display
from viddiff.errors import VideoError
from viddiff.frame import VideoInfo
from viddiff.interleave import Interleaver
from viddiff.media.authorship import ENCODER_TAG
from viddiff.media.av1_obus import with_colour
from viddiff.media.av1_stills import padded_size
from viddiff.media.av1_stream import delimited
from viddiff.media.libav_errors import FAILURES
from viddiff.media.picture_properties import UNSPECIFIED
from viddiff.media.track_writer import TrackWriter

FORMATS = {".mp4": "mp4", ".mkv": "matroska"}
"""Files that hold AV1, by extension, with libav's names of them."""


class BaseWriter:
    """Writes the units of all GOPs, in order, to a new file at `path`."""

    def __init__(self, path: Path, form: str, info: VideoInfo, others: Interleaver) -> None:
        """Prepare the file. Nothing is written before the first frame.

        form: an extension of FORMATS. others: what goes beside the video, as far as the file can hold it.
        """
        self._path, self._form, self._info = path, FORMATS[form], info
        self._others = TrackWriter(others, self._form)
        self.notes: list[str] = []
        """Lines that the user should see: what this kind of file cannot hold."""
        if padded_size(info.width, info.height) != (info.width, info.height):
            self.notes.append(
                "the base has the size at which it is coded: its last column or row is repeated"
            )
        if info.sample_aspect_ratio != 1 and self._form != "mp4":
            self.notes.append(f"{form} of a base cannot hold its aspect ratio; .mp4 can")
        if replace(info.display, matrix=None) != Display():
            self.notes.append("HDR10 metadata and the order of fields are not kept")
        self._colour = info.primaries, info.transfer, info.matrix
        self._end = Fraction(0)

    def __enter__(self) -> Self:
        self._container: av.container.OutputContainer | None = None
        return self

    def write(self, unit: bytes, pts: int, key: bool, duration: int) -> None:
        """Append the unit of a frame. VideoError if the file cannot hold it.

        duration: how long the frame is shown, 0 if that is unknown.
        """
        if self._colour != (UNSPECIFIED,) * 3:
            unit = with_colour(unit, *self._colour) if key else unit
        time = pts * self._info.time_base
        try:
            if self._container is None:
                self._open(unit, time)
            self._others.upto(time)
            packet = av.Packet(unit)
            packet.stream, packet.time_base = self._stream, self._info.time_base
            packet.pts = packet.dts = pts
            packet.duration = duration or round(1 / (self._info.frame_rate * self._info.time_base))
            packet.is_keyframe = key
            self._end = time + packet.duration * self._info.time_base
            assert self._container is not None
            self._container.mux(packet)
        except FAILURES as error:
            raise self._failure(error) from error

    def _open(self, first: bytes, time: Fraction) -> None:
        info, options = self._info, {}
        if self._form == "mp4":
            options["movie_timescale"] = str(min(info.time_base.denominator, 2**31 - 1))
            if time < 0:
                options["avoid_negative_ts"] = "make_zero"
        self._described = av.open(io.BytesIO(delimited([first])), format="obu")  # it has to live as long
        self._container = av.open(str(self._path), "w", format=self._form, container_options=options)
        stream = self._container.add_stream_from_template(self._described.streams.video[0], opaque=True)
        stream.time_base = info.time_base
        stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
        if info.display.matrix is not None:
            stream.set_display_matrix(info.display.matrix)
        elif info.rotation:
            stream.set_display_rotation(-info.rotation)
        stream.metadata.update(ENCODER_TAG)
        self._stream = stream
        self._others.add_to(self._container, stream)
        self.notes += self._others.notes
        self._others.begin(time)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        container, self._container = self._container, None
        if container is None:
            if kind is None:
                raise VideoError(f"{self._path} is not written, because there is no frame")
            return
        try:
            with container:
                if kind is None:
                    self._others.rest(self._end)
        except FAILURES as failure:
            if kind is None:
                raise self._failure(failure) from failure

    def _failure(self, error: Exception) -> VideoError:
        reason = getattr(error, "strerror", None) or error
        return VideoError(f"{self._path} cannot be written: {reason}")
