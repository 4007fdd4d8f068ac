"""Sound of a movie in segments of AAC, made one after the other by one encoder, so that no join is heard.

packets -> samples at their places -> blocks without gaps -> AAC -> the packets of a segment
"""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction

from viddiff.container.track_file import TrackFile
from viddiff.media.segment_writer import (
    SOUND_BLOCK,
    SOUND_RATE,
    TICKS,
    SoundEncoder,
    SoundPacket,
    SoundSegment,
)
from viddiff.media.sound_decoder import SoundDecoder, SoundTimeline
from viddiff.serving.movie import Movie
from viddiff.serving.segments import Check, go_on
from viddiff.tracks import TrackPacket

_WARM_UP = 2
"""Blocks before the first packet, so that the encoder is in its usual state."""
_EARLIER = Fraction(1, 2)
"""Seconds of sound before the first block that are decoded, so that the decoder is in its usual state."""


class Sounds:
    """Makes segments in order from one on. Where there is no sound, there is silence."""

    def __init__(self, movie: Movie, number: int) -> None:
        """number: of the first segment. Raises ViddiffError, OSError."""
        assert movie.track is not None, "the movie has sound"
        self._movie, self._number = movie, number
        self._stack, self._check = ExitStack(), go_on
        self._track = movie.track
        block = self._block(movie.timeline.span(number)[0])
        since = max(Fraction((block - _WARM_UP) * SOUND_BLOCK, SOUND_RATE) - _EARLIER, Fraction(0))
        file = self._stack.enter_context(movie.open())
        try:
            source = TrackFile(file, lambda fault: None, movie.reading.limits, since)
        except BaseException:
            self._stack.close()
            raise
        decoder = SoundDecoder(self._track, SOUND_RATE, movie.origin)
        pieces = decoder.pieces(self._packets(source, movie.origin + since))
        self._samples = SoundTimeline(pieces, SOUND_BLOCK, block - _WARM_UP)
        self._encoded = self._encode(block)
        self._ahead = next(self._encoded)

    def segment(self, check: Check) -> Iterator[bytes]:
        """The bytes of the next segment. Close it after any exception.

        Raises ViddiffError, and what `check` raises.
        """
        self._check = check
        until = self._block(self._movie.timeline.span(self._number)[1]) * SOUND_BLOCK
        writer = SoundSegment()
        while (self._ahead.pts or 0) < until:
            writer.write(self._ahead)
            self._ahead = next(self._encoded)
        yield writer.finish()
        self._number += 1

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @staticmethod
    def _block(tick: int) -> int:
        """Number of the first block that begins at this time or after it."""
        return -(-tick * SOUND_RATE // (TICKS * SOUND_BLOCK))

    def _packets(self, source: TrackFile, since: Fraction) -> Iterator[TrackPacket]:
        """Packets of the track that do not end before `since` (seconds)."""
        for packet in source.packets():
            self._check()
            if packet.track != self._movie.sound:
                continue
            if self._track.seconds(packet.pts + packet.duration) >= since:
                yield packet

    def _encode(self, first: int) -> Iterator[SoundPacket]:
        """Packets from block `first` on, without end."""
        encoder, number = SoundEncoder(), first - _WARM_UP
        while True:
            self._check()
            for packet in encoder.encode(self._samples.take(), number):
                if (packet.pts or 0) >= first * SOUND_BLOCK:
                    yield packet
            number += 1
