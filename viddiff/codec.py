"""The pipeline: frames in, a `.vdf` file out, and back. Start reading here.

    encode:  frames -> GOPs -> [keyframe | mini-GOPs of predicted frames] -> chunks -> file
    decode:  file -> chunks -> [keyframe | predicted frames] -> frames

x: frame, x_hat: reconstruction; the encoder's x_hat comes from the functions that the decoder runs (see
`predicted`). A mini-GOP is one
chunk and one entropy-coded stream.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from viddiff.checkpoint import Codec
from viddiff.container import Chunk, Header, KeyChunk, PredictedChunk, Writer
from viddiff.digest import frame_digest
from viddiff.encoder import EncodeOptions, EncodeSummary, GopEncoder
from viddiff.entropy import SymbolDecoder
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame, VideoInfo
from viddiff.gop import plan
from viddiff.grouping import after_gops, group_frames
from viddiff.keyframe import decode_still
from viddiff.models.planes import frame_of, planes_of
from viddiff.output import Observer, Output
from viddiff.packet import unpack_mini_gop
from viddiff.predicted import decode_frame
from viddiff.predicted_encoder import FrameSample
from viddiff.reader import Reader
from viddiff.templates import Reference

__all__ = ["EncodeOptions", "EncodeSummary", "decode", "decode_chunks", "encode"]

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
    header = reader.header
    if header.model_hash != codec.hash:
        raise CheckpointError(
            f"this file was made with the weights {header.model_name!r} {header.model_hash.hex()[:16]}, "
            f"but {codec.name!r} {codec.hash.hex()[:16]} are loaded"
        )
    info = header.video
    state: dict[int, Reference] = {}
    for chunk in chunks:
        if isinstance(chunk, KeyChunk):
            key = decode_still(chunk.payload, info.width, info.height, info.bit_depth)
            state = {0: Reference(0, planes_of(key, info.bit_depth, codec.device))}
            yield Frame(key.y, key.u, key.v, chunk.pts)
            continue
        if not state:
            raise BitstreamError("predicted frames come before any keyframe")
        previous = max(state)
        still, coded = unpack_mini_gop(chunk.payload)
        stream = SymbolDecoder(coded, header.entropy)  # type: ignore[arg-type]
        items = plan(previous, len(chunk.pts), not header.low_delay)
        if still:
            anchor = decode_still(still, info.width, info.height, info.bit_depth)
            time = items.pop(0).time
            state[time] = Reference(time, planes_of(anchor, info.bit_depth, codec.device))
        for item in items:
            references = (state[item.first], state[item.second])
            state[item.time] = decode_frame(codec, item, references, stream, info.bit_depth)
        stream.finish()
        for offset, pts in enumerate(chunk.pts, 1):
            planes = state[previous + offset].planes
            yield frame_of(planes, info.width, info.height, info.bit_depth, pts)
        state = _still_needed(state)


def _still_needed(state: dict[int, Reference]) -> dict[int, Reference]:
    """The keyframe and the last two frames."""
    last = max(state)
    return {time: reference for time, reference in state.items() if time == 0 or time >= last - 1}
