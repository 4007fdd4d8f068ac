"""Decode a GOP: chunks in order, with the references that later frames need."""

from collections.abc import Iterator

from viddiff.codec.coding_order import FramePlan, plan
from viddiff.codec.entropy import SymbolDecoder
from viddiff.codec.exactness import exact_arithmetic, exactly
from viddiff.codec.frame_decoder import decode_frame
from viddiff.codec.library import KEY_PLAN
from viddiff.codec.payloads import unpack_key, unpack_mini_gop
from viddiff.codec.reference import Reference
from viddiff.codec.weights import Codec
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk
from viddiff.errors import BitstreamError
from viddiff.frame import Frame
from viddiff.media.av1_stills import decode_still
from viddiff.networks.planes import frame_of, planes_of


class GopDecoder:
    """Decodes chunks in order and keeps the references of the current GOP."""

    def __init__(self, header: Header, codec: Codec) -> None:
        self.header, self.codec = header, codec
        self.state: dict[int, Reference] = {}

    def decode(self, chunk: Chunk) -> Iterator[Frame]:
        """The frames of the next chunk. Raises BitstreamError if it is damaged."""
        return exactly(self._decode(chunk))

    def _decode(self, chunk: Chunk) -> Iterator[Frame]:
        if isinstance(chunk, KeyChunk):
            yield self._key(chunk)
            return
        previous, info = self._previous(), self.header.video
        stream, others = self._anchor(chunk, previous)
        for item in others:
            self._predict(item, stream)
        stream.finish()
        for offset, pts in enumerate(chunk.pts, 1):
            planes = self.state[previous + offset].planes
            yield frame_of(planes, info.width, info.height, info.bit_depth, pts)
        self._forget()

    @exact_arithmetic()
    def follow(self, chunk: Chunk) -> None:
        """Decode only what later chunks need: a keyframe, or the anchor of a mini-GOP.

        Raises BitstreamError if the chunk is damaged.
        """
        if isinstance(chunk, KeyChunk):
            self._key(chunk)
        else:
            self._anchor(chunk, self._previous())
            self._forget()

    def _key(self, chunk: KeyChunk) -> Frame:
        info, predicted = self.header.video, unpack_key(chunk.payload)
        if predicted is None:
            reference = self._reference(0, self._still(chunk.payload))
        else:
            *pair, coded = predicted
            stream = SymbolDecoder(coded, self.header.entropy)  # type: ignore[arg-type]
            first, second = (self._picture(number, KEY_PLAN.first) for number in pair)
            reference = decode_frame(self.codec, KEY_PLAN, (first, second), stream, info.bit_depth)
            stream.finish()
        self.state = {0: Reference(0, reference.planes)}
        return frame_of(reference.planes, info.width, info.height, info.bit_depth, chunk.pts)

    def _picture(self, number: int, time: int) -> Reference:
        return self.codec.library.reference(number, time, self.header.video, self.codec.device)

    def _still(self, payload: bytes) -> Frame:
        info = self.header.video
        return decode_still(payload, info.width, info.height, info.bit_depth)

    def _reference(self, time: int, still: Frame) -> Reference:
        return Reference(time, planes_of(still, self.header.video.bit_depth, self.codec.device))

    def _previous(self) -> int:
        if not self.state:
            raise BitstreamError("predicted frames come before any keyframe")
        return max(self.state)

    def _anchor(self, chunk: PredictedChunk, previous: int) -> tuple[SymbolDecoder, list[FramePlan]]:
        """Decode the anchor of a mini-GOP. Returns the stream and the plans of the other frames."""
        payload, second = chunk.payload, None
        if self.codec.library.fitting(self.header.video) and not self.header.low_delay:
            if not payload:
                raise BitstreamError("a mini-GOP is cut short")
            second = self._picture(payload[0] - 1, 0) if payload[0] else None
            payload = payload[1:]
        still, coded = unpack_mini_gop(payload)
        stream = SymbolDecoder(coded, self.header.entropy)  # type: ignore[arg-type]
        anchor, *others = plan(previous, len(chunk.pts), not self.header.low_delay)
        if still:
            self.state[anchor.time] = self._reference(anchor.time, self._still(still))
        else:
            self._predict(anchor, stream, second)
        return stream, others

    def _predict(self, item: FramePlan, stream: SymbolDecoder, second: Reference | None = None) -> None:
        references = (self.state[item.first], second or self.state[item.second])
        bit_depth = self.header.video.bit_depth
        self.state[item.time] = decode_frame(self.codec, item, references, stream, bit_depth)

    def _forget(self) -> None:
        """Keep the keyframe and the last two frames."""
        last = max(self.state)
        self.state = {time: r for time, r in self.state.items() if time == 0 or time >= last - 1}
