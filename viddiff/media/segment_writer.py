"""Segments of H.264 or AAC as fragmented MP4, in memory, for the Media Source Extensions of browsers.

Each segment begins with its own initialisation (ftyp, moov), so that any segment may follow any other one,
also of another size. Its fragments (moof, mdat) come as soon as they are complete.
"""

from fractions import Fraction
from typing import Any, TypeAlias, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.container import OutputContainer
from numpy.typing import NDArray

from viddiff.frame import VideoInfo
from viddiff.media.browser_pictures import conversion_errors
from viddiff.media.picture_properties import CHROMA_LOCATIONS, LIMITED

TICKS = 90_000
"""Units of a second in the times of pictures."""
SOUND_RATE = 48_000
"""Samples of a second, and units in the times of sound."""
SOUND_BLOCK = 1024
"""Samples in a packet of AAC."""
SoundPacket: TypeAlias = "av.Packet[Any]"
SOUND_TYPE = 'audio/mp4; codecs="mp4a.40.2"'
"""MIME type of segments of sound."""
_SOUND_BITS = 192_000
_MP4 = {
    "movflags": "empty_moov+default_base_moof+frag_discont+skip_trailer",
    "frag_duration": "200000",  # microseconds
    "use_editlist": "0",  # otherwise the times would begin at 0
    "avoid_negative_ts": "disabled",
}
_H264 = {"preset": "superfast", "tune": "zerolatency", "crf": "19", "profile": "high"}
_FRAME_DURATION = 1 << 8  # libav's AV_CODEC_FLAG_FRAME_DURATION
_GLOBAL_HEADER = 1 << 22
_NO_OTHER_KEYFRAME = 1 << 30


class _Memory:
    """A file that libav writes to. It cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last call."""
        data, self._parts = b"".join(self._parts), []
        return data


class PictureSegment:
    """A segment of H.264, of which each call returns the bytes that are complete. All raise VideoError."""

    def __init__(self, info: VideoInfo) -> None:
        """info: of the pictures, which have 8 bits, limited range and even sides."""
        self._memory = _Memory()
        with conversion_errors():
            self._container = _opened(self._memory)
            self._stream = self._container.add_stream("libx264", rate=info.frame_rate)
            context = self._stream.codec_context
            context.width, context.height, context.pix_fmt = info.width, info.height, "yuv420p"
            context.flags |= _FRAME_DURATION
            context.gop_size = _NO_OTHER_KEYFRAME
            location = CHROMA_LOCATIONS[info.chroma_location]
            context.options = {**_H264, "chroma_sample_location": location}
            self._stream.time_base = context.time_base = Fraction(1, TICKS)
            context.color_primaries, context.color_trc = info.primaries, info.transfer
            context.colorspace, context.color_range = info.matrix, LIMITED
            context.sample_aspect_ratio = info.sample_aspect_ratio
            context.open(strict=False)
            self._container.start_encoding()
            self.mime_type = _type_of(context.extradata or b"")
            """MIME type with the codec's profile and level."""

    def write(self, picture: av.VideoFrame, since: int, until: int) -> bytes:
        """Add a picture that is shown from `since` to `until`, in ticks."""
        with conversion_errors():
            picture.pts, picture.time_base = since, Fraction(1, TICKS)
            picture.duration = until - since
            self._container.mux(self._stream.encode(picture))
            return self._memory.taken()

    def finish(self) -> bytes:
        """End the segment. This is the last call."""
        with conversion_errors():
            self._container.mux(self._stream.encode(None))
            self._container.close()
            return self._memory.taken()


class SoundSegment:
    """A segment of AAC, from packets of one `SoundEncoder`. All methods raise VideoError."""

    def __init__(self) -> None:
        self._memory = _Memory()
        with conversion_errors():
            self._container = _opened(self._memory)
            self._stream = self._container.add_stream("aac", rate=SOUND_RATE)
            _configure(self._stream.codec_context)
            self._stream.codec_context.open()  # which gives the stream its description
            self._container.start_encoding()

    def write(self, packet: SoundPacket) -> None:
        """Add a packet at its own time."""
        with conversion_errors():
            packet.stream = self._stream
            self._container.mux(packet)

    def finish(self) -> bytes:
        """End the segment, and return all of it. This is the last call."""
        with conversion_errors():
            self._container.close()
            return self._memory.taken()


class SoundEncoder:
    """Encodes stereo sound as AAC, block by block. All methods raise VideoError."""

    def __init__(self) -> None:
        with conversion_errors():
            self._context = av.CodecContext.create("aac", "w")
            _configure(self._context)
            self._context.open()

    def encode(self, samples: NDArray[np.float32], number: int) -> list[SoundPacket]:
        """Add block `number`, (2, SOUND_BLOCK). Returns the packets that are ready, with their times.

        A packet has the time of the block that it holds, and needs the packet before it to be decoded.
        """
        with conversion_errors():
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "stereo")
            frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            frame.pts = number * SOUND_BLOCK
            return self._context.encode(frame)


def _configure(context: AudioCodecContext) -> None:
    context.sample_rate, context.layout, context.format = SOUND_RATE, "stereo", "fltp"
    context.bit_rate, context.time_base = _SOUND_BITS, Fraction(1, SOUND_RATE)
    context.flags |= _GLOBAL_HEADER  # the description stands in the header of the file


def _opened(memory: _Memory) -> OutputContainer:
    return av.open(cast(Any, memory), "w", format="mp4", container_options=_MP4)


def _type_of(extradata: bytes) -> str:
    """MIME type by the SPS in H.264's description, which is of Annex B."""
    at = extradata.find(b"\0\0\1\x67") + 4
    profile, constraints, level = extradata[at : at + 3]
    return f'video/mp4; codecs="avc1.{profile:02x}{constraints:02x}{level:02x}"'
