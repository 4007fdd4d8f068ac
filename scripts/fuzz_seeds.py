"""Sound inputs that fuzzing begins with."""

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from fuzz_targets import KEY, some_tables, tiny_codec

from viddiff import checkpoint
from viddiff.codec import EncodeOptions, encode
from viddiff.config import ModelConfig
from viddiff.container import META, PACKETS, TRACK, Header, KeyChunk, PredictedChunk, Writer
from viddiff.description import file_of
from viddiff.entropy import Coder, SymbolEncoder
from viddiff.frame import Frame, VideoInfo
from viddiff.sealing import SealedWriter
from viddiff.tracks import Attachment, Chapter, Extras, Track, TrackPacket, pack_packets


def written(time_base: Fraction, attached: list[tuple[int, bytes]], packets: list[bytes]) -> bytes:
    """A `.vdf` of three GOPs whose pictures are none, with these chunks before it and in each GOP."""
    out = io.BytesIO()
    writer = Writer(out, Header(VideoInfo(32, 16, time_base=time_base), bytes(32), "tiny", 16))
    for kind, payload in attached:
        writer.attach(kind, payload)
    for gop, payload in enumerate(packets):
        writer.write(KeyChunk(20 * gop, b"abc"))
        writer.attach(PACKETS, payload)
        writer.write(PredictedChunk((20 * gop + 2, 20 * gop + 5, 20 * gop + 6), b"\0xyz"))
    writer.finish()
    return out.getvalue()


def synthetic() -> bytes:
    """With tags, a chapter and a track that no libav needs to know."""
    extras = Extras({"a": "b"}, [Chapter(0, 5, Fraction(1, 25), {})], video_disposition=1)
    track = Track("audio", "opus", Fraction(1, 48), "matroska", b"")
    meta = [(META, payload) for payload in extras.pack_meta()]
    return written(Fraction(1, 90), [*meta, (TRACK, track.pack())], [bytes([1, 0, 4, 2, 7, 7, 3, 1, 8])] * 3)


def with_sound(form: str) -> bytes:
    """With a track that libav can put into a file of either kind, a font and a cover."""
    description = file_of(
        form, lambda container: container.add_stream("libopus", rate=48000), b"\xfc\xff\xfe"
    )
    extras = Extras(
        {"title": "a"},
        [Chapter(0, 5, Fraction(1, 25), {"title": "b"})],
        attachments=[Attachment("a.ttf", "font/ttf", b"font"), Attachment("a.png", "image/png", _png())],
        tracks=[Track("audio", "opus", Fraction(1, 1000), form, description, {"language": "eng"}, 1)],
    )
    attached = [(META, payload) for payload in extras.pack_meta()]
    attached += [(TRACK, track.pack()) for track in extras.tracks]
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


def real(size: int, bit_depth: int, options: EncodeOptions) -> bytes:
    """Six frames of noise that moves."""
    rng, out = np.random.default_rng(1), io.BytesIO()
    kind, top = (np.uint8, 256) if bit_depth == 8 else (np.uint16, 1024)
    shapes = (size, size), (size // 2, size // 2), (size // 2, size // 2)
    base = [rng.integers(0, top, s).astype(kind) for s in shapes]
    frames = [Frame(*(np.roll(p, t, 0) for p in base), t) for t in range(6)]
    encode(frames, VideoInfo(size, size, bit_depth), out, tiny_codec(), options)
    return out.getvalue()


def symbols(coder: Coder) -> bytes:
    """A plan for the target, and the packet that fits it."""
    encoder = SymbolEncoder(coder)
    indexes = np.arange(40) % 5 - 1
    encoder.put(np.where(indexes < 0, 0, indexes * 50), indexes, some_tables())
    return bytes([coder == "huffman", 40, 0, 0]) + encoder.finish()


def sealed(data: bytes) -> bytes:
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, salt=bytes(32))
    writer.write(data)
    writer.finish()
    return out.getvalue()


def weights() -> bytes:
    """The smallest networks that there are."""
    codec = checkpoint.untrained(ModelConfig("tiny", quarter=1, eighth=1, hyper=1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        checkpoint.save(path, codec.model, codec.motion, codec.tables)
        return path.read_bytes()


def seeds(target: str) -> list[bytes]:
    """Of one target."""
    match target:
        case "header":
            return [Header(VideoInfo(32, 16), bytes(32), name, 16).pack() for name in ("", "größer")]
        case "container":
            return [synthetic()]
        case "entropy":
            return [symbols("ans"), symbols("huffman"), bytes([2, 40, 200, 40, 0])]
        case "sealed":
            return [sealed(synthetic()), sealed(synthetic() + bytes(9000)), sealed(b"")]
        case "weights":
            return [weights()]
        case "tracks":
            return [with_sound("matroska"), with_sound("mp4")]
    return [
        real(16, 8, EncodeOptions(gop=6)),
        real(16, 8, EncodeOptions(gop=3, entropy="huffman")),
        real(24, 10, EncodeOptions(gop=6, low_delay=True, quality=10)),
        real(64, 8, EncodeOptions(gop=6, quality=5)),
    ]
