"""Fuzz targets for layers without pictures, and their seeds. They do not load PyTorch, so they are fast."""

import io
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from viddiff.codec.entropy import Coder, SymbolDecoder, SymbolEncoder, Tables, discretised_tables
from viddiff.codec.payloads import unpack_mini_gop
from viddiff.config import Limits
from viddiff.container.format import META, PACKETS, TRACK, Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.gop_table import schedule
from viddiff.container.reader import Reader
from viddiff.container.sealing import SealedReader, SealedWriter, Secret, unlock, wants
from viddiff.container.track_chunks import pack_meta, pack_track
from viddiff.container.track_file import TrackFile, summary
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import VideoInfo
from viddiff.pipeline.chunk_sizes import gop_table
from viddiff.pipeline.cut_file import CutJob, cut_file
from viddiff.pipeline.join_files import JoinJob, join_files
from viddiff.tracks import Chapter, Extras, Track

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FRAMES = 100_000
KEY = Secret(bytes(range(32)), passphrase=False)


class Pipe(io.RawIOBase):
    """Bytes as from a pipe: front to back, sometimes fewer than asked for."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read a few bytes, as a pipe may."""
        target = memoryview(buffer).cast("B")
        piece = self._data[self._at : self._at + min(len(target), 1 + self._at % 61)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def pipe(data: bytes) -> BinaryIO:
    """`data` as a file that cannot seek and returns few bytes at a time."""
    return cast(BinaryIO, Pipe(data))


@cache
def some_tables() -> Tables:
    """A few tables of the entropy coder."""
    return discretised_tables([0.06, 0.5, 3.0, 60.0], "laplace")


def header(data: bytes) -> None:
    """Unpack a header. Packing it again must give the same bytes."""
    assert Header.unpack(data).pack() == data


def container(data: bytes) -> None:
    """Read in order around all faults, as from a pipe; then up to the first fault, as from a file."""
    times: list[int] = []
    for chunk in Reader(pipe(data), Limits(frames=FRAMES)).chunks(lambda fault: None):
        times += [chunk.pts] if isinstance(chunk, KeyChunk) else chunk.pts
    assert all(a < b for a, b in pairwise(times))
    list(Reader(io.BytesIO(data), Limits(frames=FRAMES)))


def index(data: bytes) -> None:
    """Seek every keyframe by INDEX, true or false, and find GOPs by scanning."""
    file, limits = io.BytesIO(data), Limits(frames=FRAMES)
    reader = Reader(file, limits)
    for entry in reader.index():
        reader.seek(entry)
        assert isinstance(next(reader.chunks(lambda fault: None), None), KeyChunk | None)
    number = 0
    for gop in schedule(file, limits):
        assert gop.first == number
        assert gop.frames > 0
        number += gop.frames


def info(data: bytes) -> None:
    """Read everything beside the video, and the table of GOPs."""
    file, limits = io.BytesIO(data), Limits(frames=FRAMES)
    summary(file, limits)
    for row in gop_table(file, limits):
        row.plain()


def parts(data: bytes) -> None:
    """Cut parts out and join them. What is written must be without a fault."""
    with TemporaryDirectory() as folder:
        source, part, joined = (Path(folder, name) for name in ("in.vdf", "part.vdf", "joined.vdf"))
        source.write_bytes(data)
        cut_file(CutJob(source=source, target=part, start=2))
        cut_file(CutJob(source=source, target=part, end=Fraction(1, 100), force=True))
        join_files(JoinJob(sources=(source, part, source), target=joined))
        for path in (part, joined):
            with open(path, "rb") as file:
                tracks = TrackFile(file)
                list(tracks.packets())
                tracks.reader.check(tracks.reader.stored_index())


def entropy(data: bytes) -> None:
    """Decode a packet. The first bytes choose coder, order and number of symbols."""
    plan, packet = data[:4].ljust(4, b"\0"), data[4:]
    _, stream = unpack_mini_gop(packet) if plan[0] & 2 else (b"", packet)
    decoder = SymbolDecoder(stream, "huffman" if plan[0] & 1 else "ans")
    for part in plan[1:]:
        if part & 128:
            widths = np.arange(part & 31) + 1
            assert (decoder.get_bits(widths) >> widths == 0).all()
        elif part:
            indexes = np.arange(part) % 5 - 1
            symbols = decoder.get(indexes, some_tables())
            assert not symbols[indexes < 0].any()
    decoder.finish()


def sealed(data: bytes) -> None:
    """Read every record in order, the last first, and a container around faults; also from a pipe."""
    if wants(io.BytesIO(data)) == "passphrase":
        return  # stretching it takes its time, which tests of the layer measure
    file = io.BytesIO(data)
    key = unlock(file, KEY)
    lenient = SealedReader(file, key, lenient=True)
    size = lenient.seek(0, io.SEEK_END)
    lenient.seek(max(size - 5, 0))
    lenient.read(9)
    lenient.seek(0)
    assert len(lenient.readall()) <= len(data)
    for layer in (io.BytesIO(data), pipe(data)):
        assert unlock(layer, KEY) == key
        opened = cast(BinaryIO, SealedReader(layer, key, lenient=True))
        try:
            list(Reader(opened, Limits(frames=FRAMES)).chunks(lambda fault: None))
        except (BitstreamError, LimitError):
            continue  # what is sealed need not be a container, but then it is read whole below
    SealedReader(io.BytesIO(data), key).readall()


# --- seeds -----------------------------------------------------------------------------------------------


def written(time_base: Fraction, attached: list[tuple[int, bytes]], packets: list[bytes]) -> bytes:
    """A `.vdf` with one GOP for each of `packets`, without pictures, and with these ancillary chunks."""
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


def synthetic(gops: int = 2) -> bytes:
    """A file with tags, a chapter and a track that libav need not know."""
    extras = Extras({"a": "b"}, [Chapter(0, 5, Fraction(1, 25), {})], video_disposition=1)
    track = Track("audio", "opus", Fraction(1, 48), "matroska", b"")
    meta = [(META, payload) for payload in pack_meta(extras)]
    return written(
        Fraction(1, 90), [*meta, (TRACK, pack_track(track))], [bytes([1, 0, 4, 2, 7, 7, 3, 1, 8])] * gops
    )


def on_base(network: bytes = b"") -> bytes:
    """A file with an AV1 base, without pictures, whose GOPs share backgrounds. network: its own."""
    out = io.BytesIO()
    writer = Writer(out, base_header(network))
    for gop, background in enumerate((b"one", b"", b"two", b"one")):
        writer.write(KeyChunk(20 * gop, b"abc", background=background))
        writer.write(PredictedChunk((20 * gop + 2, 20 * gop + 5), b"\0xyz"))
    writer.finish()
    return out.getvalue()


def base_header(network: bytes = b"") -> Header:
    """Header of a file with an AV1 base."""
    return Header(VideoInfo(32, 16), bytes(32), "tiny", 16, base=True, network=network)


def symbols(coder: Coder) -> bytes:
    """A plan for the target, and a packet that fits it."""
    encoder = SymbolEncoder(coder)
    indexes = np.arange(20) % 5 - 1
    encoder.put(np.where(indexes < 0, 0, indexes * 50), indexes, some_tables())
    return bytes([coder == "huffman", 20, 0, 0]) + encoder.finish()


def sealed_bytes(data: bytes) -> bytes:
    """`data`, encrypted."""
    out = io.BytesIO()
    writer = SealedWriter(out, KEY, salt=bytes(32))
    writer.write(data)
    writer.finish()
    return out.getvalue()


def seeds(target: str) -> list[bytes]:
    """Seeds of a target."""
    match target:
        case "header":
            plain = [Header(VideoInfo(32, 16), bytes(32), name, 16).pack() for name in ("", "größer")]
            return [*plain, base_header().pack(), base_header(b"network").pack()]
        case "entropy":
            return [symbols("ans"), symbols("huffman"), bytes([2, 40, 200, 40, 0])]
        case "sealed":
            return [sealed_bytes(data) for data in (synthetic(), synthetic() + bytes(9000), b"")]
        case "parts":
            return [
                synthetic(2),
                on_base(),
                on_base(bytes(range(40))),
                written(Fraction(1, 90), [], [b"", b""]),
            ]
        case "container" | "index":
            return [
                written(Fraction(1, 90), [], [b"", b""]),
                written(Fraction(1, 90), [], []),
                on_base(),
                on_base(bytes(range(40))),
            ]
    return [synthetic(1), synthetic(2), on_base(bytes(range(40)))]
