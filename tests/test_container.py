"""The `.vdf` container: round trips, golden bytes, hostile input, recovery, pipes and the index."""

import io
import os
import re
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from viddiff.config import Limits
from viddiff.container import format as container
from viddiff.container import reader as reader_module
from viddiff.container.format import Chunk, Header, IndexEntry, KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.frame import VideoInfo

HEADER = Header(VideoInfo(64, 48), bytes(range(32)), "tiny", gop=16)
CHUNKS: list[Chunk] = [
    KeyChunk(-5, b"k0"),
    PredictedChunk((-4, -3, -2), b"p0"),
    PredictedChunk((-1,), b"p1"),
    KeyChunk(0, b"key one"),
    PredictedChunk((1, 5, 200), b""),
    KeyChunk(1000, b""),
    PredictedChunk((2000,), b"pp"),
]
GOLDEN = bytes.fromhex(
    "89564446 0d0a1a0a 0149"  # magic, HEADER of 73 bytes
    "02 00 4000 3000 08 01000000 19000000 19000000 01000000 02 02 02 00 00 0100 0100 0000 1000"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 04 74696e79 7182dd3b"
    "02 06 4b46 00 09 6b30 2703fa59"  # KEY: frame 0
    "03 05 01 02 00 7030 31fcc662"  # PREDICTED: frame 1 and two more, regular, a step of 1
    "80 05 04 01 57 00 09 0be5a418"  # INDEX: four frames, one KEY
    "04 08 6e00000000000000 9dd8d894"  # END
)


def write(chunks: list[Chunk], header: Header = HEADER) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, header)
    for chunk in chunks:
        writer.write(chunk)
    writer.finish()
    assert writer.size_bytes == len(file.getvalue())
    return file.getvalue()


def read(data: bytes, on_fault: Callable[[BitstreamError], None] | None = None) -> list[Chunk]:
    return list(Reader(io.BytesIO(data)).chunks(on_fault))


def raw_chunk(kind: int, payload: bytes, length: bytes | None = None) -> bytes:
    body = bytes([kind]) + (length or container.pack_varint(len(payload))) + payload
    return body + struct.pack("<I", zlib.crc32(body))


FILE = write(CHUNKS)
START = write([])[:-22]  # magic and HEADER: an empty INDEX has 8 bytes, END has 14
STARTS = [offset for offset, _ in Reader(io.BytesIO(FILE)).scan(None)]


class Pipe(io.RawIOBase):
    """Reads at most three bytes at a time and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.data.read(min(size, 3) if size >= 0 else 3)


fractions = st.builds(Fraction, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
headers = st.builds(
    Header,
    st.builds(
        VideoInfo,
        width=st.integers(16, 8192),
        height=st.integers(16, 4352),
        bit_depth=st.sampled_from([8, 10]),
        time_base=fractions,
        frame_rate=fractions,
        primaries=st.integers(0, 255),
        transfer=st.integers(0, 255),
        matrix=st.integers(0, 255),
        full_range=st.booleans(),
        chroma_location=st.integers(0, 6),
        sample_aspect_ratio=st.builds(Fraction, st.integers(1, 65535), st.integers(1, 65535)),
        rotation=st.sampled_from([0, 90, 180, 270]),
    ),
    st.binary(min_size=32, max_size=32),
    st.text(max_size=16).filter(str.isprintable),
    st.integers(1, 1024),
    st.sampled_from(["ans", "huffman"]),
    st.booleans(),
)


@st.composite
def streams(draw: st.DrawFn) -> list[Chunk]:
    chunks: list[Chunk] = []
    pts = draw(st.integers(-(2**63), 2**62))
    step = st.integers(1, 2**40) | st.integers(1, 3)
    for _ in range(draw(st.integers(0, 4))):
        chunks.append(KeyChunk(pts, draw(st.binary(max_size=300))))
        for _ in range(draw(st.integers(0, 3))):
            count = draw(st.integers(1, 64))
            steps = [draw(step)] * count if draw(st.booleans()) else [draw(step) for _ in range(count)]
            times = []
            for value in steps:
                pts += value
                times.append(pts)
            chunks.append(PredictedChunk(tuple(times), draw(st.binary(max_size=300))))
        pts += draw(step)
    return chunks


@given(headers)
def test_header_round_trip(header: Header) -> None:
    assert Header.unpack(header.pack()) == header


@settings(max_examples=60, deadline=None)
@given(streams())
@example([KeyChunk(-(2**63), bytes(200)), PredictedChunk((2**63 - 1,), b"")])
@example([KeyChunk(-(2**63), b""), KeyChunk(2**63 - 1, b"")])
def test_stream_round_trip(chunks: list[Chunk]) -> None:
    header = replace(HEADER, gop=1024)
    data = write(chunks, header)
    reader = Reader(io.BytesIO(data))
    assert reader.header == header
    assert list(reader) == chunks
    stored = reader.index()
    assert [entry.pts for entry in stored] == [chunk.pts for chunk in chunks if isinstance(chunk, KeyChunk)]
    assert reader.frame_count == sum(1 if isinstance(c, KeyChunk) else len(c.pts) for c in chunks)
    assert reader._stored_index(len(data) - 14) == stored
    assert Reader(io.BytesIO(data[:-1])).index() == stored


def test_golden_bytes() -> None:
    assert write([KeyChunk(-5, b"k0"), PredictedChunk((-4, -3, -2), b"p0")]) == GOLDEN
    assert read(GOLDEN) == [KeyChunk(-5, b"k0"), PredictedChunk((-4, -3, -2), b"p0")]


def test_overhead_of_a_chunk() -> None:
    times = tuple(range(512, 9 * 512, 512))
    key = KeyChunk(0, b"")
    assert len(write([key])) - len(write([])) == 6 + 4 + 3  # framing, body, entry of INDEX
    assert len(write([key, PredictedChunk(times, b"")])) - len(write([key])) == 6 + 4


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("width", 15, LimitError),
        ("width", 8193, LimitError),
        ("height", 8193, LimitError),
        ("bit_depth", 9, BitstreamError),
        ("time_base", Fraction(0), BitstreamError),
        ("frame_rate", Fraction(-1), BitstreamError),
        ("frame_rate", Fraction(2**32), BitstreamError),
        ("chroma_location", 7, BitstreamError),
        ("sample_aspect_ratio", Fraction(1, 65536), BitstreamError),
        ("rotation", 91, BitstreamError),
    ],
)
def test_header_refuses_video(field: str, value: Any, error: type[ViddiffError]) -> None:
    changes: dict[str, Any] = {field: value}
    with pytest.raises(error, match=field):
        replace(HEADER, video=replace(HEADER.video, **changes)).pack()


@pytest.mark.parametrize(("hash_size", "name"), [(1, "m"), (32, "é" * 33), (32, "\x1b[2J"), (32, "\udc80")])
def test_header_refuses_model(hash_size: int, name: str) -> None:
    with pytest.raises(BitstreamError, match="model"):
        replace(HEADER, model_hash=bytes(hash_size), model_name=name).pack()


@pytest.mark.parametrize(
    ("at", "value", "error", "words"),
    [
        (0, b"\x01", BitstreamError, "version is 1"),
        (1, b"\x08", BitstreamError, "flags is 8"),
        (2, b"\x0f\x00", LimitError, "width is 15"),
        (4, b"\xff\xff", LimitError, "height is 65535"),
        (6, b"\x0c", BitstreamError, "bit_depth is 12"),
        (11, b"\0\0\0\0", BitstreamError, "time_base is 0"),
        (7, b"\x05", BitstreamError, "lowest terms"),
        (26, b"\x02", BitstreamError, "full_range is 2"),
        (30, b"\0\0", BitstreamError, "sample_aspect_ratio is 0"),
        (32, b"\x01", BitstreamError, "rotation is 1"),
        (34, b"\0\0", LimitError, "gop is 0"),
        (34, b"\x01\x04", LimitError, "gop is 1025"),
        (68, b"\x05", BitstreamError, "name"),
        (69, b"\xff", BitstreamError, "name"),
        (69, b"\x1b", BitstreamError, "name"),
        (73, b"\0", BitstreamError, "name"),
    ],
)
def test_header_rejects_bytes(at: int, value: bytes, error: type[ViddiffError], words: str) -> None:
    payload = bytearray(HEADER.pack())
    payload[at : at + len(value)] = value
    data = container.MAGIC + raw_chunk(container.HEADER, bytes(payload))
    with pytest.raises(error, match=words) as raised:
        Reader(io.BytesIO(data))
    assert "byte 8:" in str(raised.value)


def test_every_short_header_is_refused() -> None:
    payload = HEADER.pack()
    for size in range(len(payload)):
        with pytest.raises(BitstreamError):
            Header.unpack(payload[:size])


def test_wrong_beginning() -> None:
    for data in (b"", b"\x89VDF", FILE.replace(b"\r\n", b"\n", 1), b"\x1aE\xdf\xa3" + bytes(100)):
        with pytest.raises(BitstreamError, match=r"not a \.vdf file"):
            Reader(io.BytesIO(data))
    with pytest.raises(BitstreamError, match="first chunk is not HEADER"):
        Reader(io.BytesIO(container.MAGIC + raw_chunk(container.KEY, b"KF\0")))


def test_truncation_at_every_byte() -> None:
    for size in range(len(FILE)):
        with pytest.raises(ViddiffError):
            read(FILE[:size])
        faults: list[BitstreamError] = []
        if size < len(START):
            continue
        chunks = read(FILE[:size], faults.append)
        assert chunks == CHUNKS[: len(chunks)]
        assert len(faults) == 1
        ends = [*STARTS[1:], int.from_bytes(FILE[-12:-4], "little")]
        assert len(chunks) == sum(size >= end for end in ends)
        entries = Reader(io.BytesIO(FILE[:size])).index()
        assert len(entries) == sum(isinstance(chunk, KeyChunk) for chunk in chunks)


def test_every_flipped_bit_is_found() -> None:
    for at in range(len(FILE)):
        for bit in range(8):
            data = bytearray(FILE)
            data[at] ^= 1 << bit
            with pytest.raises(ViddiffError):
                read(bytes(data))
            if at < len(START):
                continue
            faults: list[BitstreamError] = []
            chunks = read(bytes(data), faults.append)
            lost = [chunk for chunk in CHUNKS if chunk not in chunks]
            assert chunks == [chunk for chunk in CHUNKS if chunk in chunks]
            assert len(faults) == 1
            assert len(lost) <= 3  # the longest GOP
            struck = max([number for number, start in enumerate(STARTS) if start <= at], default=-1)
            if at < Reader(io.BytesIO(FILE)).index()[-1].offset:
                assert CHUNKS[struck] in lost
                assert all(chunk in chunks for chunk in CHUNKS[:struck])
            Reader(io.BytesIO(bytes(data))).index()


def test_a_fault_names_its_byte() -> None:
    data = bytearray(FILE)
    data[STARTS[3] + 5] ^= 1
    with pytest.raises(BitstreamError, match=rf"byte {STARTS[3]}: .*CRC"):
        read(bytes(data))


@pytest.mark.parametrize("damage", ["payload", "length", "type", "cut", "inserted"])
def test_recovery_keeps_the_other_gops(damage: str) -> None:
    chunks: list[Chunk] = []
    for gop in range(5):
        noise = bytes((gop * 31 + i * i) & 255 for i in range(2000))
        times = tuple(range(gop * 8 + 1, gop * 8 + 8))
        chunks += [KeyChunk(gop * 8, noise), PredictedChunk(times, noise[::-1])]
    data = bytearray(write(chunks))
    start = [offset for offset, _ in Reader(io.BytesIO(bytes(data))).scan(None)][4]
    if damage == "payload":
        data[start + 999] ^= 16
    elif damage == "length":
        data[start + 1 : start + 3] = b"\xff\xff"
    elif damage == "type":
        data[start] = 0x33
    elif damage == "cut":
        del data[start + 100 : start + 200]
    else:
        data[start + 100 : start + 100] = b"\x02\x05KF" * 1000
    faults: list[BitstreamError] = []
    assert read(bytes(data), faults.append) == chunks[:4] + chunks[6:]
    assert len(faults) == 1
    assert f"byte {start}:" in str(faults[0])
    if damage in ("cut", "inserted"):  # the stored index is no longer true
        assert [entry.pts for entry in Reader(io.BytesIO(bytes(data))).index()] == [0, 8, 24, 32]


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 11])
def test_recovery_finds_a_key_across_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(reader_module, "PIECE", piece)
    start = FILE[: STARTS[3]] + raw_chunk(3, b"\x80")
    key = raw_chunk(2, b"KF\x05" + container.pack_zigzag(0) + bytes(3 << 14))
    for junk in range(8):
        data = start + b"\x03\xff\xff\xff\xff\x7f" + bytes(junk) + key
        assert read(data, lambda fault: None)[3:] == [KeyChunk(0, bytes(3 << 14))]


def test_recovery_finds_a_large_key() -> None:
    key = raw_chunk(2, b"KF\0\0" + bytes(3 << 20))
    for junk in range(65525, 65540):  # its start lies across two reads
        data = START + b"\x03\xff\xff\xff\xff\x7f" + bytes(junk) + key
        assert read(data, lambda fault: None) == [KeyChunk(0, bytes(3 << 20))]


def test_reading_may_go_on_after_an_error_was_raised() -> None:
    data = bytearray(FILE)
    data[STARTS[1] + 3] ^= 1
    reader = Reader(io.BytesIO(bytes(data)))
    chunks = reader.chunks()
    assert next(chunks) == CHUNKS[0]
    with pytest.raises(BitstreamError, match="CRC"):
        next(chunks)
    assert list(reader.chunks(lambda fault: None)) == CHUNKS[3:]


@pytest.mark.parametrize("kind", [0x00, 0x01, 0x05, 0x7F])
def test_unknown_critical_chunk(kind: int) -> None:
    data = FILE[: STARTS[3]] + raw_chunk(kind, b"?") + FILE[STARTS[3] :]
    with pytest.raises(BitstreamError, match="unknown or misplaced"):
        read(data)
    faults: list[BitstreamError] = []
    assert read(data, faults.append) == CHUNKS
    assert len(faults) == 1
    data = FILE[: STARTS[1]] + raw_chunk(kind, b"?") + FILE[STARTS[1] :]
    assert read(data, faults.append) == CHUNKS[:1] + CHUNKS[3:]  # its GOP may depend on it


@pytest.mark.parametrize("kind", [container.TRACK, container.PACKETS, container.META, 0xFF])
def test_ancillary_chunk_is_skipped_if_sound(kind: int) -> None:
    extra = raw_chunk(kind, bytes(500))
    data = FILE[: STARTS[2]] + extra + FILE[STARTS[2] :]
    assert read(data) == CHUNKS
    assert Reader(io.BytesIO(data)).index() == tuple(
        replace(entry, offset=entry.offset + len(extra) * (entry.offset > STARTS[0]))
        for entry in Reader(io.BytesIO(FILE)).index()
    )
    with pytest.raises(BitstreamError, match="CRC"):
        read(data.replace(extra, extra[:-1] + bytes([extra[-1] ^ 1])))


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (raw_chunk(2, b"\0"), "mark"),
        (raw_chunk(2, b"KF"), "number"),
        (raw_chunk(2, b"KF\1"), "number"),
        (raw_chunk(2, b"KF\x80\x00\x16"), "number"),
        (raw_chunk(2, b"KF\1\x80\x00"), "number"),
        (raw_chunk(2, b"KF\1" + b"\xff" * 9 + b"\x02"), "number"),
        (raw_chunk(2, b"KF\1" + b"\xff" * 10 + b"\x00"), "number"),
        (raw_chunk(2, b"KF\1\x14"), "do not increase"),
        (raw_chunk(2, b"KF\0\x16"), "frame 0 comes where frame 1 should"),
        (raw_chunk(2, b"KF\2\x16"), "frame 2 comes where frame 1 should"),
        (raw_chunk(2, b"KF" + b"\xff" * 9 + b"\1\x16"), f"frame {2**64 - 1} comes where"),
        (raw_chunk(3, b""), "number"),
        (raw_chunk(3, b"\0\0\0"), "frame 0 comes where frame 1 should"),
        (raw_chunk(3, b"\2\0\0"), "frame 2 comes where frame 1 should"),
        (raw_chunk(3, b"\1\x80\x00"), "number"),
        (raw_chunk(3, b"\1\x80\x01\x00"), "number"),
        (raw_chunk(3, b"\1\x01"), "number"),
        (raw_chunk(3, b"\1\x41\x00"), "number"),
        (raw_chunk(3, b"\1\x00" + b"\xff" * 9 + b"\x01"), "64 bits"),
        (raw_chunk(3, b"\1\x0f\x00"), "GOP of 16"),
        (raw_chunk(0x90, b"xyz", b"\x83\x00"), "number"),
        (raw_chunk(0x90, b"xyz", b"\x83\x80\x80\x80\x80\x00"), "number"),
        (raw_chunk(4, bytes(7)), "END"),
        (raw_chunk(4, bytes(8)) + b"\0", "END"),
        (raw_chunk(0x90, b"") * 3, "before its END"),
    ],
)
def test_sound_chunks_that_break_the_rules(chunk: bytes, words: str) -> None:
    data = START + raw_chunk(2, b"KF\0\x14") + chunk
    with pytest.raises(BitstreamError, match=words):
        read(data)
    faults: list[BitstreamError] = []
    assert read(data, faults.append) == [KeyChunk(10, b"")]
    assert re.search(words, str(faults[0]))


def test_a_predicted_chunk_needs_a_key() -> None:
    with pytest.raises(BitstreamError, match="follow 0"):
        read(START + raw_chunk(3, b"\0\0\0") + FILE[len(START) :])


@pytest.mark.parametrize(
    "chunks",
    [
        [PredictedChunk((1,), b"")],
        [KeyChunk(3, b""), KeyChunk(3, b"")],
        [KeyChunk(3, b""), PredictedChunk((4, 4), b"")],
        [KeyChunk(3, b""), PredictedChunk((), b"")],
        [KeyChunk(3, b""), PredictedChunk(tuple(range(4, 20)), b"")],
        [KeyChunk(2**63, b"")],
        [KeyChunk(-(2**63) - 1, b"")],
    ],
)
def test_writer_refuses_what_a_reader_would(chunks: list[Chunk]) -> None:
    with pytest.raises(BitstreamError):
        write(chunks)


def test_a_chunk_holds_64_frames() -> None:
    header = replace(HEADER, gop=100)
    assert read(write([KeyChunk(0, b""), PredictedChunk(tuple(range(1, 65)), b"")], header))[1:]
    with pytest.raises(BitstreamError, match="65 predicted frames"):
        write([KeyChunk(0, b""), PredictedChunk(tuple(range(1, 66)), b"")], header)


@pytest.mark.parametrize(("width", "height", "most"), [(4096, 2304, 8), (1920, 1080, 36), (1024, 1024, 64)])
def test_a_chunk_holds_fewer_large_frames(width: int, height: int, most: int) -> None:
    header = replace(HEADER, video=VideoInfo(width, height), gop=100)
    fits: list[Chunk] = [KeyChunk(0, b""), PredictedChunk(tuple(range(1, most + 1)), b"")]
    assert read(write(fits, header)) == fits
    with pytest.raises(ViddiffError, match=f"{most + 1} predicted frames"):
        write([KeyChunk(0, b""), PredictedChunk(tuple(range(1, most + 2)), b"")], header)
    small = write([KeyChunk(0, b""), PredictedChunk(tuple(range(1, 65)), b"")], replace(HEADER, gop=100))
    large = write([], header)[:-22] + small[len(START) :]
    if most < 64:
        with pytest.raises(LimitError, match=f"64 predicted frames.* {most}"):
            read(large)
        faults: list[BitstreamError] = []
        assert read(large, faults.append) == [KeyChunk(0, b"")]


def test_limits_hold_before_frames_are_read() -> None:
    assert list(Reader(io.BytesIO(FILE), Limits(64 * 48, 11))) == CHUNKS
    with pytest.raises(LimitError, match="64x48"):
        Reader(io.BytesIO(FILE), Limits(pixels=64 * 48 - 1))
    for data in (FILE, FILE[:-1]):
        reader = Reader(io.BytesIO(data), Limits(frames=10))
        with pytest.raises(LimitError, match="10"):
            reader.index()
        with pytest.raises(LimitError, match="more than 10 frames"):
            list(reader)


def test_writer_refuses_a_huge_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_PAYLOAD", 100)
    assert read(write([KeyChunk(0, bytes(96))])) == [KeyChunk(0, bytes(96))]
    with pytest.raises(LimitError, match="101 bytes"):
        write([KeyChunk(0, bytes(97))])


@pytest.mark.parametrize(
    ("size", "error"), [((64 << 20) + 1, LimitError), (2**35 - 1, LimitError), (64 << 20, BitstreamError)]
)
def test_a_claimed_size_is_not_allocated(size: int, error: type[ViddiffError]) -> None:
    data = START + b"\x02" + container.pack_varint(size) + b"KF\0" + bytes(1000)
    tracemalloc.start()
    try:
        with pytest.raises(error):
            read(data)
        read(data, lambda fault: None)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_reads_ask_for_bounded_pieces() -> None:
    class File(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size >= 0
            self.largest = max(self.largest, size)
            return super().read(size)

    file = File(START + b"\x02" + container.pack_varint(64 << 20) + b"KF\0" + bytes(200_000))
    assert list(Reader(file).chunks(lambda fault: None)) == []
    assert 1000 < file.largest <= 1 << 16


@pytest.mark.parametrize("bait", [b"\x02\x80\x80\x10KF", b"\x02\x02KF"])
def test_recovery_takes_bounded_time(monkeypatch: pytest.MonkeyPatch, bait: bytes) -> None:
    monkeypatch.setattr(reader_module, "MAX_PAYLOAD", 1 << 20)
    data = START + bait * 300_000
    work = calls = 0

    def crc32(data: memoryview) -> int:
        nonlocal work, calls
        work += len(data)
        calls += 1
        return zlib.crc32(data[:16])

    reader = Reader(io.BytesIO(data))
    monkeypatch.setattr(reader_module, "zlib", type("zlib", (), {"crc32": staticmethod(crc32)}))
    faults: list[BitstreamError] = []
    assert list(reader.chunks(faults.append)) == []
    assert len(faults) == 1
    assert work < 20 * len(data) + (5 << 20)
    assert calls < 4096 + len(data) // 40


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(FILE)), st.integers(0, len(FILE)))
def test_any_bytes_end_in_frames_or_our_errors(junk: bytes, a: int, b: int) -> None:
    data = FILE[:a] + junk + FILE[b:]
    try:
        reader = Reader(io.BytesIO(data))
    except ViddiffError:
        return
    times: list[int] = []
    for chunk in reader.chunks(lambda fault: None):
        times += [chunk.pts] if isinstance(chunk, KeyChunk) else chunk.pts
    assert times == sorted(set(times))
    for entry in reader.index():
        reader.seek(entry)


def test_pipe() -> None:
    source, sink = os.pipe()

    def produce() -> None:
        with os.fdopen(sink, "wb") as file:
            writer = Writer(file, HEADER)
            for chunk in CHUNKS:
                writer.write(chunk)
            writer.finish()

    thread = threading.Thread(target=produce)
    thread.start()
    with os.fdopen(source, "rb") as file:
        assert list(Reader(file)) == CHUNKS
    thread.join()


def test_a_chunk_is_read_as_soon_as_it_is_there() -> None:
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as file, os.fdopen(sink, "wb", buffering=0) as out:
        out.write(FILE[: STARTS[1]])
        chunks = iter(Reader(file))
        thread = threading.Timer(5, out.close)  # so that a reader that wants more fails and does not hang
        thread.start()
        assert next(chunks) == CHUNKS[0]
        thread.cancel()
        assert not out.closed


def test_short_reads_change_nothing() -> None:
    assert list(Reader(Pipe(FILE))) == CHUNKS  # type: ignore[arg-type]
    data = FILE[: STARTS[1]] + b"junk" + FILE[STARTS[1] + 3 :]
    assert list(Reader(Pipe(data)).chunks(lambda fault: None)) == read(data, lambda fault: None)  # type: ignore[arg-type]
    with pytest.raises(io.UnsupportedOperation):
        Reader(Pipe(FILE)).index()  # type: ignore[arg-type]


def test_index_and_seek() -> None:
    reader = Reader(io.BytesIO(FILE))
    chunks = iter(reader)
    assert next(chunks) == CHUNKS[0]
    entries = reader.index()
    assert entries == (
        IndexEntry(STARTS[0], 0, -5),
        IndexEntry(STARTS[3], 5, 0),
        IndexEntry(STARTS[5], 9, 1000),
    )
    assert reader.frame_count == 11
    assert list(chunks) == CHUNKS[1:]  # the index was read in passing
    for entry, first in zip(reversed(entries), (5, 3, 0), strict=True):
        reader.seek(entry)
        assert list(reader) == CHUNKS[first:]
    for wrong in (
        IndexEntry(0, 0, -5),
        IndexEntry(STARTS[1], 0, -5),
        IndexEntry(STARTS[0], 0, -4),
        IndexEntry(STARTS[0], 1, -5),
    ):
        with pytest.raises(BitstreamError, match="no KEY chunk"):
            reader.seek(wrong)
    for offset in (-1, len(FILE), 2**70):
        with pytest.raises(BitstreamError, match="no KEY chunk"):
            reader.seek(IndexEntry(offset, 0, -5))
    reader.seek(entries[1])
    chunks = iter(reader)
    assert next(chunks) == CHUNKS[3]
    with pytest.raises(BitstreamError, match="no KEY chunk"):
        reader.seek(IndexEntry(STARTS[0], 0, -4))
    assert list(chunks) == CHUNKS[4:]  # a refused seek changes nothing


def forge(entries: list[tuple[int, int, int]], total: int = 11, extra: bytes = b"", count: int = -1) -> bytes:
    body = container.pack_varint(total) + container.pack_varint(len(entries) if count < 0 else count)
    for offset, frame, pts in entries:
        body += container.pack_varint(offset) + container.pack_varint(frame) + container.pack_zigzag(pts)
    start = int.from_bytes(FILE[-12:-4], "little")
    tail = raw_chunk(container.INDEX, body + extra) + raw_chunk(container.END, struct.pack("<Q", start))
    return FILE[:start] + tail


def test_hostile_index_is_rebuilt() -> None:
    truth = Reader(io.BytesIO(FILE)).index()
    a, b, c = STARTS[0], STARTS[3] - STARTS[0], STARTS[5] - STARTS[3]
    good = [(a, 0, -5), (b, 5, 0), (c, 4, 1000)]
    assert forge(good) == FILE
    index = int.from_bytes(FILE[-12:-4], "little")
    forged = {
        "outside": forge([*good[:2], (10**6, 4, 1000)]),
        "in the header": forge([(8, 0, -5), *good[1:]]),
        "not KEY": forge([(STARTS[1], 0, -5)]),
        "wrong time": forge([(a, 0, -4), *good[1:]]),
        "twice": forge([good[0], (0, 1, -5)]),
        "first frame not 0": forge([(a, 1, -5), *good[1:]]),
        "two KEY chunks, one frame": forge([good[0], (b, 0, 0), good[2]]),
        "longer than a GOP": forge([good[0], (b, 17, 0), good[2]], total=30),
        "too many frames": forge(good, total=10**6),
        "too few frames": forge(good, total=9),
        "frames without KEY": forge([]),
        "bytes left over": forge(good, extra=b"\0"),
        "cut": forge(good, count=4),
        "huge count": forge([], count=2**64 - 1),
        "END points nowhere": FILE[:-14] + raw_chunk(container.END, b"\xff" * 8),
        "END points at KEY": FILE[:-14] + raw_chunk(container.END, struct.pack("<Q", STARTS[5])),
        "no END": FILE[:-14],
        "another type for END": FILE[:-14] + raw_chunk(container.META, FILE[-12:-4]),
        "another type for INDEX": FILE[:index]
        + raw_chunk(container.META, FILE[index + 2 : -18])
        + FILE[-14:],
        "END not after INDEX": FILE[:-14] + raw_chunk(container.META, b"") + FILE[-14:],
    }
    for name, data in forged.items():
        reader = Reader(io.BytesIO(data))
        with pytest.raises((BitstreamError, LimitError)):
            reader.check(reader._stored_index(len(data) - 14))
        assert reader.index() == truth, name
        assert reader.frame_count == 11, name
    assert Reader(io.BytesIO(FILE))._stored_index(len(FILE) - 14) == truth


def test_index_in_backward_time_is_rebuilt() -> None:
    keys = [
        raw_chunk(container.KEY, b"KF" + bytes([number]) + container.pack_zigzag(pts))
        for number, pts in enumerate((10, 5))
    ]
    body = bytes([2, 2, len(START), 0, 20, len(keys[0]), 1, 10])
    index = START + keys[0] + keys[1]
    data = index + raw_chunk(container.INDEX, body) + raw_chunk(container.END, struct.pack("<Q", len(index)))
    assert Reader(io.BytesIO(data)).index() == (IndexEntry(len(START), 0, 10),)
