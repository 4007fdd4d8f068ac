"""Decode a GOP with an AV1 base: dav1d shows the frames, the network enhances them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, rounded
from viddiff.codec.base_frames import REACH, BaseFrame, DecodedFrame, with_neighbours
from viddiff.codec.base_payloads import StrengthReader, StrengthTables, unpack_frames
from viddiff.codec.block_motion import SearchedFrame
from viddiff.codec.enhancer import Correction, Enhancer, Strengths, blocks_of
from viddiff.codec.entropy import SymbolDecoder
from viddiff.codec.side_by_side import one_ahead, side_by_side
from viddiff.codec.tail_update import TailUpdate, UpdateTables, read_updates, updated
from viddiff.container.format import Chunk, Header, KeyChunk
from viddiff.errors import BitstreamError
from viddiff.frame import Frame
from viddiff.media.av1_headers import HeaderReader
from viddiff.media.av1_stream import Av1Decoder, split_units


class BaseGopDecoder:
    """Decodes chunks in order and keeps the state of the current GOP's AV1 stream."""

    def __init__(self, header: Header, enhancer: Enhancer | None) -> None:
        """Without an enhancer, frames are as AV1 shows them."""
        self.header, self.enhancer = header, enhancer
        self._stream: BaseStream | None = None
        self._tables = StrengthTables.parametric()
        self._update_tables = UpdateTables.parametric()
        self._updates = dict[str, TailUpdate]()
        self._updated: Enhancer | None = None  # the enhancer with these, if there are any

    def decode(self, chunk: Chunk) -> Iterator[Frame]:
        """The frames of the next chunk. Raises BitstreamError if it is damaged."""
        times = chunk.times
        stream, units, enhancing = self._open(chunk, len(times))
        if enhancing is None:
            depth = self.header.video.bit_depth
            frames = one_ahead(partial(_shown, stream, unit, depth) for unit in units)
        else:
            threads, strips = enhancing[0].divided(len(times))
            frames = side_by_side(self._corrected(stream, units, *enhancing, strips), threads)
        for frame, pts in zip(frames, times, strict=True):
            yield replace(frame, pts=pts)

    def _corrected(
        self, stream: "BaseStream", units: list[bytes], enhancer: Enhancer, coded: SymbolDecoder, strips: int
    ) -> Iterator[Callable[[], Frame]]:
        """What remains to do for each frame, once AV1 and the strengths are decoded."""
        info = self.header.video
        depth = info.bit_depth
        reader = StrengthReader(coded, self._tables, blocks_of(info.width, info.height))
        for shown in stream.shown(units):
            chosen = reader.get()
            if not chosen.any():
                yield partial(rounded, shown.frame, depth)
                continue
            enhancer.prepare()
            correction = partial(enhancer.correction, shown, stream.quantiser, strips)
            yield partial(_enhanced, correction, chosen, depth)
        coded.finish()

    def follow(self, chunk: Chunk) -> None:
        """Decode only what later chunks need: the base. Raises BitstreamError if the chunk is damaged."""
        stream, units, _ = self._open(chunk, len(chunk.times))
        for unit in units:
            stream.decode(unit)

    def _open(
        self, chunk: Chunk, count: int
    ) -> tuple["BaseStream", list[bytes], tuple[Enhancer, SymbolDecoder] | None]:
        """The stream that the chunk belongs to, its units, and what enhances it.

        That is the enhancer with the GOP's updates, and the chunk's symbols from its strengths on.
        """
        payload, info, background = chunk.payload, self.header.video, b""
        if isinstance(chunk, KeyChunk):
            if not payload:
                raise BitstreamError("a keyframe is cut short")
            if chunk.background is None:
                raise BitstreamError("the background of a keyframe is missing")
            background = chunk.background
            self._stream = BaseStream(Av1Decoder(info.width, info.height, BASE_BIT_DEPTH), payload[0])
            payload = payload[1:]
            self._updates, self._updated = {}, None
        if self._stream is None:
            raise BitstreamError("predicted frames come before any keyframe")
        joined, symbols = unpack_frames(payload)
        units = split_units(background + joined, count)
        if self.enhancer is None:
            return self._stream, units, None
        coded = SymbolDecoder(symbols, self.header.entropy)  # type: ignore[arg-type]
        updates = read_updates(coded, self._update_tables, self.enhancer.weights.config)
        if updates:
            self._updates |= updates
            self._updated = updated(self.enhancer, self._updates)
        return self._stream, units, (self._updated or self.enhancer, coded)


def _shown(stream: "BaseStream", unit: bytes, bit_depth: int) -> Frame:
    """The frame that the next unit shows, without enhancement."""
    return rounded(stream.decode(unit).frame, bit_depth)


def _enhanced(correction: Callable[[], Correction], strengths: Strengths, bit_depth: int) -> Frame:
    return correction().applied(strengths, bit_depth)


class BaseStream:
    """The AV1 stream of one GOP: frames, and what its headers say of them."""

    def __init__(self, decoder: Av1Decoder, quantiser: int) -> None:
        """quantiser: index that the encoder requested for the GOP, 0..255."""
        self._decoder, self._headers = decoder, HeaderReader()
        self._before: tuple[DecodedFrame, ...] = ()
        self.quantiser = quantiser

    def shown(self, units: Iterable[bytes]) -> Iterator[BaseFrame]:
        """The frames that the units of the next chunk show, with their neighbours.

        Raises BitstreamError if a unit is damaged.
        """
        return with_neighbours(self._before, map(self.decode, units))

    def decode(self, unit: bytes) -> DecodedFrame:
        """The frame that the next unit shows. Raises BitstreamError if the unit is damaged."""
        frame = self._decoder.decode(unit)
        decoded = DecodedFrame(SearchedFrame(frame), self._headers.shown(unit))
        self._before = (*self._before, decoded)[-REACH:]
        return decoded
