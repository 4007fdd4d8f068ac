"""The base layer: one closed AV1 stream for each GOP, written by SVT-AV1 and read bit-exactly by dav1d.

A stream is cut into *units*, one for each shown frame, in the order of display. A unit holds the OBUs of the
low-overhead format (AV1 specification, section 5.3) that a decoder needs to show the next frame:

    unit     [sequence header] hidden frame * (0..7), shown frame
    stream   unit, unit, ...

The sequence header stands in the first unit and nowhere else, in front of the only keyframe. Hidden frames
are there for others to refer to; a shown frame is a frame OBU, or the frame header that shows a hidden one.
The first unit shows its keyframe, or hides it and up to 62 frames more (`av1_background`).
Units carry no temporal delimiters, which take two bytes each and say nothing here: `delimited` puts them back
and makes a stream for any AV1 decoder.

Pictures are coded at `padded_size(width, height)`, filled up by repeating the last column and row, and
cropped back by the decoder.
"""

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import cast

import av
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange

from viddiff.errors import BitstreamError, LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_background import LEAST_FRAMES, Copies, hidden_start
from viddiff.media.av1_obus import FrameStart, ObuType, SequenceHeader, iter_obus, without_delimiters
from viddiff.media.av1_stills import padded_size
from viddiff.media.libav_errors import FAILURES
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes, planes_of_picture
from viddiff.media.scheduling import kept_scheduling
from viddiff.pixels import plane_shapes, replicate

QUANTISERS = range(4, 281)
"""Quarters of SVT-AV1's CRF, 1 to 70: 4 gives the best picture, 280 the smallest stream."""
PRESETS = range(0, 11)
"""SVT-AV1's effort, 0 (slowest) to 10."""
MAX_SIDE = 8192
"""Largest width or height of a picture."""
MAX_PIXELS = 35_651_584
"""Most luma samples of a picture: 8192x4352, AV1's level 6."""
MAX_FRAMES_OF_UNIT = 8
"""Most frames of a unit, the shown one included: SVT-AV1's deepest hierarchy has 6, plus an overlay."""
MAX_FRAMES_OF_FIRST_UNIT = 64
"""Most frames of the first unit, which may begin with a background."""
_FILTER_STRENGTH = 1
"""Of SVT-AV1's temporal filter, 0 to 4. Its own choice, 3, needs more bits for the same fidelity."""
_LAMBDAS = "[80,80,80,80,80,80,80]"
"""What SVT-AV1's lambdas are multiplied by for each kind of frame, in 1/128. Coarser quantisers with smaller
lambdas need fewer bits for the same fidelity."""
_LARGEST_INDEX = 255
_MAX_FRAME_RATE = 240  # SVT-AV1 refuses more; only the level that the header states depends on it
_DELIMITER = bytes([ObuType.TEMPORAL_DELIMITER << 3 | 2, 0])


def asked_index(quantiser: int) -> int:
    """AV1's quantiser index, 0..255, that a GOP coded with a quantiser of QUANTISERS was asked for."""
    return min(quantiser, _LARGEST_INDEX)


class Av1Encoder:
    """Codes the frames of one GOP. Equal frames and arguments give equal bytes, whatever `threads`."""

    def __init__(
        self,
        info: VideoInfo,
        *,
        quantiser: int,
        preset: int,
        low_delay: bool = False,
        threads: int = 1,
        background: Frame | None = None,
    ) -> None:
        """Open an encoder for a video of this size, depth, range and rate.

        `quantiser` lies in QUANTISERS, `preset` in PRESETS. With `low_delay` every frame refers to the past
        alone and its unit comes at once; otherwise frames are ordered in a hierarchy and units come late, the
        last ones from `finish`. `threads` is SVT-AV1's level of parallelism, 1 to 6. With a `background`
        frames may be predicted from it (`av1_background`). Raises ValueError for arguments out of range,
        LimitError for a size beyond the limits, VideoError if SVT-AV1 fails.
        """
        width, height, bit_depth = info.width, info.height, info.bit_depth
        if bit_depth not in PIXEL_FORMATS:
            raise ValueError(f"a picture has 8 or 10 bits per sample, not {bit_depth}")
        if quantiser not in QUANTISERS or preset not in PRESETS:
            raise ValueError(f"quantiser {quantiser} or preset {preset} is out of range")
        _check_size(width, height)
        self._size, self._bit_depth = (width, height), bit_depth
        self._coded = SequenceHeader(*padded_size(width, height), bit_depth)
        self._sent = self._received = 0
        context = av.CodecContext.create("libsvtav1", "w")
        context.thread_count = 1
        context.width, context.height = self._coded.width, self._coded.height
        context.pix_fmt = PIXEL_FORMATS[bit_depth]
        context.color_range = ColorRange.JPEG if info.full_range else ColorRange.MPEG
        rate = min(info.frame_rate, Fraction(_MAX_FRAME_RATE))
        context.time_base, context.framerate = 1 / rate, rate
        parameters = {
            "crf": quantiser / 4,
            "keyint": -1,  # one keyframe, the first
            "scd": 0,  # no further one where the scene changes
            "tf-strength": _FILTER_STRENGTH,
            "lambda-scale-factors": _LAMBDAS,
            "lp": threads,
            "pred-struct": 1 if low_delay else 2,
        }
        joined = ":".join(f"{key}={value}" for key, value in parameters.items())
        context.options = {
            "preset": str(preset),
            "svtav1-params": joined,
            "err_detect": "explode",  # a parameter that this SVT-AV1 does not know is an error
        }
        try:
            with kept_scheduling():
                context.open()
        except FAILURES as error:
            raise VideoError(f"the AV1 encoder cannot be opened: {error}") from error
        self._context = context
        self.background = b""
        """Start of the first unit that all GOPs with this background share, once that unit has come."""
        self._start, self._needed = b"", Copies.of(preset, low_delay)
        self._copies: list[bytes] | None = None if background is None else []
        # The last frame fills up a GOP that is too short for its background.
        self._filler = None if low_delay else background
        if background is not None:
            for _ in range(self._needed.count):
                self.send(background)

    def send(self, frame: Frame) -> list[bytes]:
        """Code the next frame of the GOP; returns the units finished by now, oldest first.

        How many those are depends on the machine's load, but for low delay: there it is always one.
        """
        if self._filler is not None:
            self._filler = frame
        return list(self._send(frame))

    def _send(self, frame: Frame) -> Iterator[bytes]:
        width, height = self._size
        if frame.y.shape != (height, width):
            raise ValueError(f"a frame of {frame.y.shape[::-1]} came where {self._size} was announced")
        shapes = plane_shapes(self._coded.width, self._coded.height)
        y, u, v = (replicate(plane, shape) for plane, shape in zip(frame.planes, shapes, strict=True))
        picture = picture_from_planes((y, u, v), self._bit_depth)
        picture.pts, picture.time_base = self._sent, self._context.time_base
        self._sent += 1
        yield from self._encode(picture)

    def finish(self) -> Iterator[bytes]:
        """The remaining units, as they come; the encoder has ended after the last one."""
        wanted = self._sent
        for unit in itertools.chain(self._fill(), self._encode(None)):
            if self._received <= wanted:
                yield unit
        if self._received != self._sent:
            raise VideoError(f"the AV1 encoder coded {self._received} of {self._sent} frames")

    def _fill(self) -> Iterator[bytes]:
        """Fill up a GOP that is too short for its background. Returns units finished by now."""
        while self._filler is not None and self._sent < self._needed.count + LEAST_FRAMES:
            yield from self._send(self._filler)

    def _encode(self, picture: av.VideoFrame | None) -> Iterator[bytes]:
        packets = self._context.encode_lazy(picture)
        while True:
            try:
                packet = next(packets, None)
            except FAILURES as error:
                size = "x".join(map(str, self._size))
                raise VideoError(f"the AV1 encoder failed on pictures of {size}: {error}") from error
            if packet is None:
                return
            unit = self._unit(bytes(packet))
            if unit is not None:
                yield unit

    def _unit(self, packet: bytes) -> bytes | None:
        """A packet's unit, checked as the decoder will check it. None for a copy of the background."""
        try:
            unit, first = without_delimiters(packet), self._received == 0
            self._received += 1
            if self._copies is not None:
                self._copies.append(unit)
                if len(self._copies) == self._needed.count:
                    self.background, rest = hidden_start(self._copies, self._needed.shared)
                    self._start, self._copies = self.background + rest, None
                return None
            if self._start:
                unit, first, self._start = self._start + unit, True, b""
            _check_unit(unit, self._coded, first)
        except BitstreamError as error:
            raise VideoError(f"the AV1 encoder wrote what no base layer has: {error}") from error
        return unit


class Av1Decoder:
    """Decodes the units of one GOP; the frames do not depend on `threads`."""

    def __init__(self, width: int, height: int, bit_depth: int, *, threads: int = 1) -> None:
        """Open a decoder of pictures of exactly this size and depth.

        Raises BitstreamError for another depth than 8 or 10, LimitError for a size beyond the limits.
        """
        if bit_depth not in PIXEL_FORMATS:
            raise BitstreamError(f"a picture has 8 or 10 bits per sample, not {bit_depth}")
        _check_size(width, height)
        self._size = width, height
        self._coded = SequenceHeader(*padded_size(width, height), bit_depth)
        self._decoded = 0
        context = cast(VideoCodecContext, av.CodecContext.create("libdav1d", "r"))
        context.thread_count = threads
        context.options = {
            "max_pixels": str(self._coded.width * self._coded.height),  # refused before it is allocated
            "max_frame_delay": "1",
        }
        self._context: VideoCodecContext | None = context

    def decode(self, unit: bytes) -> Frame:
        """The frame that the next unit shows, `pts` counting from 0. Its planes cannot be written.

        Raises BitstreamError unless the unit is one that continues the stream and shows one frame; after that
        the decoder is of no use.
        """
        context, self._context = self._context, None
        if context is None:
            raise BitstreamError("an AV1 unit follows one that could not be decoded")
        _check_unit(unit, self._coded, first=self._decoded == 0)
        try:
            pictures = context.decode(av.Packet(unit))
        except MemoryError:  # one of FFmpegError, too, but no fault of the stream, whose size is known
            raise
        except FAILURES as error:
            raise BitstreamError("an AV1 unit is damaged: its picture cannot be decoded") from error
        if len(pictures) != 1:
            raise BitstreamError(f"an AV1 unit shows {len(pictures)} pictures instead of one")
        picture, coded = pictures[0], self._coded
        found = (picture.width, picture.height, picture.format.name)
        if found != (coded.width, coded.height, PIXEL_FORMATS[coded.bit_depth]):
            raise BitstreamError(f"an AV1 unit shows a picture of {found[0]}x{found[1]} {found[2]}")
        planes = planes_of_picture(picture, coded.bit_depth, *self._size)
        frame = Frame(*planes, pts=self._decoded)
        self._decoded += 1
        self._context = context
        return frame


def split_units(data: bytes, count: int) -> list[bytes]:
    """Cut `count` units that follow each other; BitstreamError if the bytes are anything else."""
    units: list[bytes] = []
    start = end = frames = 0
    for obu in iter_obus(data):
        if obu.type == ObuType.SEQUENCE_HEADER and end == start:
            end += len(obu.data)
            continue
        if obu.type not in (ObuType.FRAME, ObuType.FRAME_HEADER):
            raise BitstreamError("an AV1 unit has parts that no base layer has")
        end += len(obu.data)
        frames += 1
        if FrameStart.parse(obu).shown:
            units.append(data[start:end])
            start, frames = end, 0
        first = frames and data[start] >> 3 == ObuType.SEQUENCE_HEADER
        most = MAX_FRAMES_OF_FIRST_UNIT if first else MAX_FRAMES_OF_UNIT
        if frames == most or len(units) > count:
            raise BitstreamError("an AV1 unit shows more, or hides more, than it should")
    if start != len(data) or len(units) != count:
        raise BitstreamError(f"AV1 units show {len(units)} pictures where {count} were expected")
    return units


def delimited(units: Iterable[bytes]) -> bytes:
    """The units as a stream for any AV1 decoder, a temporal delimiter in front of each (section 7.5)."""
    return b"".join(_DELIMITER + unit for unit in units)


def _check_unit(unit: bytes, coded: SequenceHeader, first: bool) -> None:
    """BitstreamError unless this is one unit of a stream of such pictures, its first or a later one."""
    split_units(unit, 1)
    obus = list(iter_obus(unit))
    keys = [obu.type == ObuType.FRAME and FrameStart.parse(obu).key for obu in obus]
    if not first:
        if obus[0].type == ObuType.SEQUENCE_HEADER or any(keys):
            raise BitstreamError("an AV1 unit begins a new stream within a GOP")
        return
    if obus[0].type != ObuType.SEQUENCE_HEADER or keys[1:2] != [True] or any(keys[2:]):
        raise BitstreamError("the first AV1 unit of a GOP must be a sequence header and a keyframe")
    found = SequenceHeader.parse(obus[0].payload)
    if found != coded:
        raise BitstreamError(f"the AV1 stream of a GOP is {found} where {coded} was expected")


def _check_size(width: int, height: int) -> None:
    if not (min(width, height) >= 1 and max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise LimitError(f"a picture of {width}x{height} is beyond the limits")
