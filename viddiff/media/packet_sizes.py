"""How many bytes each frame of a media file takes, from its packets, without decoding."""

from array import array
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from viddiff.errors import VideoError
from viddiff.media.demuxer import Demuxer, Source
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.stream_choice import choose_stream


@dataclass(frozen=True)
class VideoPackets:
    """The packets of a video stream, in the order in which they are shown."""

    codec: str
    """libav's name of the codec."""
    times: NDArray[np.int64]
    """Presentation times in units of the stream's time base."""
    sizes: NDArray[np.int64]
    """Bytes."""

    def per_frame(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of each of the frames that are shown at these times, which increase.

        Where there are as many packets as frames, they belong to each other in order. Elsewhere a packet
        counts for the last frame that is not after it.
        """
        if len(times) == len(self.times) or not len(times):
            return self.sizes[: len(times)]
        places = np.maximum(np.searchsorted(times, self.times, side="right") - 1, 0)
        return np.bincount(places, self.sizes, len(times)).astype(np.int64)


def video_packets(source: Source) -> VideoPackets:
    """Packets of the video that `VideoReader` takes from a source. Raises VideoError."""
    times, sizes = array("q"), array("q")
    with Demuxer(source) as demuxer:
        stream, _ = choose_stream(demuxer)
        context = cast(VideoCodecContext | None, stream.codec_context)
        feed = demuxer.claim([stream])
        demuxer.drop_others()
        try:
            for packet in feed:
                if packet.size:
                    found = packet.pts if packet.pts is not None else packet.dts
                    times.append(found if found is not None else (times[-1] if times else 0))
                    sizes.append(packet.size)
        except FAILURES as error:
            raise VideoError(f"{demuxer.name} cannot be read to its end: {reason_of(error)}") from error
    at, size = np.array(times, np.int64), np.array(sizes, np.int64)
    order = np.argsort(at, kind="stable")
    return VideoPackets(
        "unknown" if context is None else context.codec.canonical_name, at[order], size[order]
    )
