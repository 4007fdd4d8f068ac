"""The pipeline: frames in, a `.vdf` file out, and back. Start reading here.

    encode:  frames -> GOPs -> [keyframe | mini-GOPs of predicted frames] -> chunks -> file
    decode:  file -> chunks -> [keyframe | predicted frames] -> frames

x: frame, x_hat: reconstruction; the encoder's x_hat comes from the functions that the decoder runs (see
`predicted`). A mini-GOP is one
chunk and one entropy-coded stream.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from viddiff.codec.gop_decoder import GopDecoder
from viddiff.codec.weights import Codec
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.digest import frame_digest
from viddiff.encoder.frame_encoder import FrameSample
from viddiff.encoder.gop_encoder import EncodeSummary, GopEncoder
from viddiff.encoder.grouping import after_gops, group_frames
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.output import Observer, Output

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
