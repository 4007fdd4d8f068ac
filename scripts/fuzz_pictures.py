"""Fuzz targets that need PyTorch or libav, and their seeds: weights, media files, whole decodes."""

import io
import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from fuzz_bytes import pipe, written

from viddiff.codec import checkpoint, enhancement_weights
from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.codec.base_frames import BaseFrame, DecodedFrame
from viddiff.codec.block_motion import SearchedFrame
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import EngineName, Enhancer
from viddiff.codec.file_network import HASH_BYTES, adapted, changed_weights, pack_network, unpack_network
from viddiff.codec.library import Library, LibraryPicture
from viddiff.codec.open_decoder import Weights, open_decoder
from viddiff.codec.weights import Codec, untrained
from viddiff.config import Limits, ModelConfig
from viddiff.container.format import META, TRACK, Header, KeyChunk, Writer
from viddiff.container.gop_table import schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import pack_meta, pack_packets, pack_track
from viddiff.container.track_file import TrackFile
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.gop_encoder import GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.source_picture import SourcePicture
from viddiff.frame import Frame, VideoInfo
from viddiff.interleave import Interleaver
from viddiff.media.av1_headers import Coding
from viddiff.media.av1_stills import encode_still
from viddiff.media.codec_parameters import file_of
from viddiff.media.video_writer import VideoWriter
from viddiff.networks.enhancement_config import EnhancementConfig
from viddiff.pipeline.concealment import conceal
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.gop_decoding import decode_gop
from viddiff.pipeline.output import Output
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import encode
from viddiff.pipeline.streaming import decode_stream
from viddiff.tracks import Attachment, Chapter, Extras, Track, TrackPacket

LIMITS = Limits(pixels=64 * 64, frames=200)
"""Limits of whole decodes, so that valid files end soon, too."""

ENGINES: tuple[EngineName, ...] = "compiled", "torch"


@cache
def tiny_codec() -> Codec:
    """Narrow networks with a hash that no release of PyTorch changes, so that seeds stay valid."""
    torch.set_num_threads(1)
    codec = untrained(ModelConfig("tiny", quarter=8, eighth=16))
    library = Library((LibraryPicture(16, 16, 8, encode_still(noise(16, 8, 1)[0], 8, 4)),))
    return replace(codec, library=library, hash=bytes(32))


@cache
def tiny_enhancer() -> Enhancer:
    """A narrow enhancement network, whose hash no release of a library changes."""
    config, rng = (
        EnhancementConfig(name="tiny", half=8, quarter=8, quarter_blocks=1),
        np.random.default_rng(1),
    )
    integers: dict[str, np.ndarray[Any, Any]] = {}
    for name, layer in config.layers().items():
        integers[f"{name}.weight"] = rng.integers(-20, 21, layer.shape).astype(np.int8)
        integers[f"{name}.bias"] = rng.integers(-200, 201, layer.shape[0]).astype(np.int32)
        integers[f"{name}.exponent"] = np.full(layer.shape[0], 7, np.int8)
    return Enhancer(EnhancementWeights(config, integers))


@dataclass(frozen=True)
class TinyResources(Resources):
    """Resources that have these weights for every file."""

    weights: Path | None = Path("tiny")

    def load(self, threads: int = 1) -> Codec:
        """The codec of the fuzzer."""
        return tiny_codec()


def weights(data: bytes) -> None:
    """Load weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(data)
        checkpoint.load(path)


def tracks(data: bytes) -> None:
    """Write everything beside the video to .mkv and .mp4, with a black picture."""
    y, u, v = (np.zeros(shape, np.uint8) for shape in ((16, 16), (8, 8), (8, 8)))
    picture = Frame(y, u, v)
    for name in ("a.mkv", "a.mp4"):
        others = TrackFile(io.BytesIO(data), lambda fault: None, LIMITS)
        beside = Interleaver(others.extras, others)
        with (
            tempfile.TemporaryDirectory() as folder,
            VideoWriter(Path(folder) / name, VideoInfo(16, 16), others=beside) as writer,
        ):
            for pts in range(3):
                writer.write(replace(picture, pts=pts))


def enhancement(data: bytes) -> None:
    """Load weights that enhance a base."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(data)
        enhancement_weights.load(path)


def network(data: bytes) -> None:
    """Read a file's own network, whose hash is always right, and pack it again. Both engines must agree."""
    origin = tiny_enhancer()
    tuned = changed_weights(origin.weights, data)
    again = unpack_network(origin.weights, pack_network(origin.weights, tuned))
    assert all(np.array_equal(again.integers[name], values) for name, values in tuned.integers.items())
    shown = BaseFrame(DecodedFrame(SearchedFrame(noise(16, BASE_BIT_DEPTH, 1)[0]), Coding(120, False)))
    fast, exact = (
        adapted(replace(origin, engine=engine), tuned.hash() + data).correction(shown, 140)
        for engine in ENGINES
    )
    assert all(np.array_equal(*planes) for planes in zip(fast.planes, exact.planes, strict=True))


def decode(data: bytes) -> None:
    """Decode frames around all faults, then again in strict mode."""
    _decode(data, tiny_codec())


def base(data: bytes) -> None:
    """The same for files with an AV1 base."""
    _decode(data, tiny_enhancer())


def _decode(data: bytes, codec: Weights) -> None:
    with torch.inference_mode():
        file = io.BytesIO(data)
        gops = schedule(file, LIMITS)
        damage = Damage(0, LIMITS.frames)
        options = ReadOptions(limits=LIMITS)
        parts = (part for gop in gops for part in decode_gop(file, gop, codec, options))
        times = [
            frame.pts for frame in conceal(parts, 0, Reader(io.BytesIO(data)).header.video, damage, False)
        ]
        assert all(a < b for a, b in pairwise(times))
        if damage:
            reader = Reader(io.BytesIO(data), LIMITS)
            decoder = open_decoder(reader.header, codec)
            for chunk in reader:
                for _ in decoder.decode(chunk):
                    pass


def stream(data: bytes) -> None:
    """Decode from a pipe, with tracks and tags. The size decides whether to be strict."""
    options = ReadOptions(strict=bool(len(data) & 1), limits=LIMITS)
    video, others = decode_stream(pipe(data), TinyResources(), options=options)
    beside, times = Interleaver(others.extras, others), list[int]()
    for frame in video.frames:
        moment = frame.pts * video.info.time_base
        if not times:
            beside.begin(moment)
        for _ in beside.upto(moment):
            pass
        times.append(frame.pts)
    assert all(a < b for a, b in pairwise(times))
    if times:
        for _ in beside.rest(times[-1] * video.info.time_base):
            pass
    assert not (options.strict and video.damage)


# --- seeds -----------------------------------------------------------------------------------------------


def with_sound(form: str) -> bytes:
    """A file with a track that libav can write to .mkv and .mp4, a font and a cover."""
    description = file_of(
        form, lambda container: container.add_stream("libopus", rate=48000), b"\xfc\xff\xfe"
    )
    extras = Extras(
        {"title": "a"},
        [Chapter(0, 5, Fraction(1, 25), {"title": "b"})],
        attachments=[Attachment("a.ttf", "font/ttf", b"font"), Attachment("a.png", "image/png", _png())],
        tracks=[Track("audio", "opus", Fraction(1, 1000), form, description, {"language": "eng"}, 1)],
    )
    attached = [(META, payload) for payload in pack_meta(extras)]
    attached += [(TRACK, pack_track(track)) for track in extras.tracks]
    sound = [
        pack_packets(TrackPacket(0, 20 * (3 * gop + i), 20, True, b"\xfc\xff\xfe") for i in range(3))
        for gop in range(3)
    ]
    return written(Fraction(1, 1000), attached, sound)


def _png() -> bytes:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, "rgb24", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
    return b"".join(map(bytes, encoder.encode(picture) + encoder.encode()))


def noise(size: int, bit_depth: int, count: int) -> list[Frame]:
    """`count` frames of moving noise."""
    rng = np.random.default_rng(1)
    kind, top = (np.uint8, 256) if bit_depth == 8 else (np.uint16, 1024)
    shapes = (size, size), (size // 2, size // 2), (size // 2, size // 2)
    y, u, v = (rng.integers(0, top, s).astype(kind) for s in shapes)
    return [Frame(np.roll(y, t, 0), np.roll(u, t, 0), np.roll(v, t, 0), t) for t in range(count)]


def real(size: int, bit_depth: int, count: int, options: EncodeOptions) -> bytes:
    """An encoded file of noise."""
    frames, out = noise(size, bit_depth, count), io.BytesIO()
    encoder = GopEncoder(tiny_codec(), VideoInfo(size, size, bit_depth), options)
    encode(frames, encoder, Output(Writer(out, encoder.header)))
    return out.getvalue()


def tiny_network() -> bytes:
    """NETWORK of a file, in which two layers have the opposite weights."""
    origin = tiny_enhancer().weights
    integers = dict(origin.integers)
    for name in ("head.weight", "tail.weight"):
        integers[name] = -integers[name]
    return pack_network(origin, EnhancementWeights(origin.config, integers))


def on_base(
    size: int, bit_depth: int, count: int, options: EncodeOptions, enhancer: Enhancer | None = None
) -> bytes:
    """A file with an AV1 base, of a fixed camera whose picture gets noisier."""
    rng, out = np.random.default_rng(2), io.BytesIO()
    still = noise(size, bit_depth, 1)[0]
    frames = [
        Frame(
            np.minimum(still.y, 200) + rng.integers(0, 3, still.y.shape).astype(still.y.dtype),
            still.u,
            still.v,
            t,
        )
        for t in range(count)
    ]
    encoder = BaseGopEncoder(enhancer or tiny_enhancer(), VideoInfo(size, size, bit_depth), options)
    encode(frames, encoder, Output(Writer(out, encoder.header)))
    return out.getvalue()


def from_library() -> bytes:
    """A file of one frame of noise, predicted from the library."""
    codec, info, options, out = tiny_codec(), VideoInfo(16, 16), EncodeOptions(gop=1), io.BytesIO()
    picture = SourcePicture(noise(16, 8, 1)[0], 8, codec.device)
    predicted = GopEncoder(codec, info, options).predict_key(picture, 40)
    if predicted is None:
        raise AssertionError("the library has a picture of this size")
    writer = Writer(out, Header(info, codec.hash, codec.name, options.gop))
    writer.write(KeyChunk(0, predicted[0]))
    writer.finish()
    return out.getvalue()


def tiny_weights(library: Library) -> bytes:
    """Weights of the smallest possible networks."""
    codec = replace(untrained(ModelConfig("tiny", quarter=1, eighth=1, hyper=1)), library=library)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        checkpoint.save(path, codec)
        return path.read_bytes()


def seeds(target: str) -> list[bytes]:
    """Seeds of a target."""
    match target:
        case "weights":
            return [tiny_weights(Library()), tiny_weights(tiny_codec().library)]
        case "enhancement":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "tiny.safetensors"
                enhancement_weights.save(path, tiny_enhancer().weights)
                return [path.read_bytes()]
        case "base":
            options = EncodeOptions(quality=0)
            return [
                on_base(16, 8, 3, options),
                on_base(16, 10, 3, replace(options, low_delay=True, entropy="huffman")),
                on_base(32, 8, 5, replace(options, gop=3)),
                on_base(16, 8, 36, replace(options, gop=18)),
                on_base(16, 8, 5, replace(options, gop=3), adapted(tiny_enhancer(), tiny_network())),
            ]
        case "network":
            return [tiny_network()[HASH_BYTES:]]
        case "tracks":
            return [with_sound("matroska"), with_sound("mp4")]
    return [
        from_library(),
        real(16, 8, 2, EncodeOptions(gop=2)),
        real(16, 8, 4, EncodeOptions(gop=2, entropy="huffman")),
        real(24, 10, 3, EncodeOptions(gop=3, low_delay=True, quality=10)),
        real(64, 8, 3, EncodeOptions(gop=3, quality=5)),
    ]
