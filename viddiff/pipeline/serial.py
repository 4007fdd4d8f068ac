"""The pipeline: frames in, a `.vdf` file out, and back. Start reading here.

    encode:  frames -> GOPs -> [keyframe | mini-GOPs of predicted frames] -> chunks -> file
    decode:  file -> chunks -> [keyframe | predicted frames] -> frames

x: frame, x_hat: reconstruction; the encoder's x_hat comes from the functions that the decoder runs (see
`predicted`). A mini-GOP is one
chunk and one entropy-coded stream.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from viddiff.codec.checkpoint import Codec
from viddiff.codec.coding_order import FramePlan, plan
from viddiff.codec.entropy import SymbolDecoder
from viddiff.codec.frame_decoder import decode_frame
from viddiff.codec.library import KEY_PLAN, unpack_key
from viddiff.codec.motion_templates import Reference
from viddiff.codec.payloads import unpack_mini_gop
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.digest import frame_digest
from viddiff.encoder.frame_encoder import FrameSample
from viddiff.encoder.gop_encoder import EncodeOptions, EncodeSummary, GopEncoder
from viddiff.encoder.grouping import after_gops, group_frames
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stills import decode_still
from viddiff.networks.planes import frame_of, planes_of
from viddiff.pipeline.output import Observer, Output

__all__ = ["EncodeOptions", "EncodeSummary", "GopDecoder", "decode", "decode_chunks", "encode"]

ReconstructionSink = Callable[[Frame], None]
"""Takes the encoder's reconstruction of every frame in display order: what any decoder will show."""


def encode(
    frames: Iterable[Frame],
    info: VideoInfo,
    out: BinaryIO,
    codec: Codec,
    options: EncodeOptions,
    progress: Observer | None = None,
    reconstruction: ReconstructionSink | None = None,
    collect: Callable[[FrameSample], None] | None = None,
    open_writer: Callable[[BinaryIO, Header], Writer] = Writer,
    done: Iterable[Chunk] = (),
) -> EncodeSummary:
    """Encode frames in presentation order to `out`, which is only written to, never sought in.

    done: chunks of the first GOPs, which are not coded again. Ctrl-C completes the file with what is coded.
    Raises VideoError or LimitError from the frames' source unchanged. Returns totals.
    """
    header = Header(info, codec.hash, codec.name, options.gop, options.entropy, options.low_delay)
    output = Output(open_writer(out, header), EncodeSummary(), progress)
    encoder = GopEncoder(codec, info, options, output.summary, collect)
    gops = output.repeat(done)
    with output.until_interrupted():
        for group in after_gops(group_frames(frames, options.gop, options.mini_gop), gops):
            for chunk, decoded in encoder.encode(group):
                output.take(chunk, [frame_digest(frame) for frame in decoded])
                if reconstruction is not None:
                    for frame in decoded:
                        reconstruction(frame)
    return output.finish()


def decode(file: BinaryIO, codec: Codec) -> Iterator[Frame]:
    """Decode all frames of a `.vdf` file in presentation order.

    Raises CheckpointError if the file was made with other weights, BitstreamError or LimitError if it is
    damaged.
    """
    reader = Reader(file)
    yield from decode_chunks(reader, reader, codec)


def decode_chunks(
    reader: Reader, chunks: Iterable[KeyChunk | PredictedChunk], codec: Codec
) -> Iterator[Frame]:
    """Decode `chunks` of `reader`'s file, which must begin with a keyframe."""
    decoder = GopDecoder(reader.header, codec)
    for chunk in chunks:
        yield from decoder.decode(chunk)


class GopDecoder:
    """Decodes chunks in order, keeping the references of the GOP under way."""

    def __init__(self, header: Header, codec: Codec) -> None:
        """Raises CheckpointError if the file was made with other weights."""
        if header.model_hash != codec.hash:
            raise CheckpointError(
                f"this file was made with the weights {header.model_name!r} {header.model_hash.hex()[:16]}, "
                f"but {codec.name!r} {codec.hash.hex()[:16]} are loaded"
            )
        self.header, self.codec = header, codec
        self.state: dict[int, Reference] = {}

    def decode(self, chunk: Chunk) -> Iterator[Frame]:
        """The frames of the next chunk. Raises BitstreamError if it is damaged."""
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

    def follow(self, chunk: Chunk) -> None:
        """Decode no more of the next chunk than later ones need: a keyframe, or the anchor of a mini-GOP.

        Raises BitstreamError if that is damaged.
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
        """Decode the first frame of a mini-GOP in coding order; its stream and what else is in it."""
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
