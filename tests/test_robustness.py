"""Whatever the bytes are, decoding ends in frames or in one ViddiffError."""

import io
import random
import time
import zlib
from dataclasses import replace

import pytest
from conftest import coded, moving_picture

from viddiff.codec.weights import Codec
from viddiff.container.format import KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.pipeline.serial import decode

SECONDS = 20.0
"""Far more than any of these files needs."""


@pytest.fixture(scope="module", params=["ans", "huffman"])
def victim(codec: Codec, request: pytest.FixtureRequest) -> bytes:
    """A file with so many bits that damage sometimes gives another valid picture."""
    options = EncodeOptions(quality=50, gop=3, entropy=request.param)
    return coded(codec, moving_picture(32, 32, 5), options=options)[0]


def outcome(data: bytes, codec: Codec) -> int | ViddiffError:
    """Number of frames, or the error. Any other exception fails the test."""
    began, frames, result = time.monotonic(), 0, None
    try:
        for _ in decode(io.BytesIO(data), codec):
            frames += 1
    except ViddiffError as error:
        result = error
    assert time.monotonic() - began < SECONDS
    if result is None:
        return frames
    assert len(str(result).splitlines()) == 1
    return result


def chunk_spans(data: bytes) -> list[tuple[int, int, int]]:
    """(start of the chunk, start of its payload, start of its CRC)."""
    spans, at = [], 8
    while at < len(data):
        length, payload = 0, at + 1
        while True:
            length |= (data[payload] & 127) << 7 * (payload - at - 1)
            payload += 1
            if data[payload - 1] < 128:
                break
        spans.append((at, payload, payload + length))
        at = payload + length + 4
    return spans


def mutated(data: bytes, rng: random.Random) -> bytes:
    copy = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        copy[rng.randrange(len(copy))] = rng.randrange(256)
    if rng.random() < 0.2:
        at = rng.randrange(len(copy))
        copy[at : at + rng.randrange(1, 50)] = rng.randbytes(rng.randrange(50))
    return bytes(copy)


def test_random_damage(codec: Codec, victim: bytes) -> None:
    rng = random.Random(1)
    errors = [outcome(mutated(victim, rng), codec) for _ in range(100)]
    assert sum(isinstance(error, ViddiffError) for error in errors) >= 95, "CRCs find nearly all of it"


def test_damage_with_repaired_crcs(codec: Codec, victim: bytes) -> None:
    """The damage reaches the codec, which must handle it."""
    rng = random.Random(2)
    results = []
    for _ in range(100):
        copy = bytearray(victim)
        start, payload, crc = rng.choice(chunk_spans(victim)[1:-2])
        for _ in range(rng.choice((1, 1, 4))):
            copy[rng.randrange(payload, crc)] = rng.randrange(256)
        copy[crc : crc + 4] = zlib.crc32(copy[start:crc]).to_bytes(4, "little")
        results.append(outcome(bytes(copy), codec))
    assert any(isinstance(result, int) for result in results), "some of it is another valid picture"
    assert any(isinstance(result, ViddiffError) for result in results)


def test_random_payloads(codec: Codec, victim: bytes) -> None:
    """Noise instead of coded symbols, in mini-GOPs of every length."""
    rng = random.Random(3)
    reader = Reader(io.BytesIO(victim))
    key = next(chunk for chunk in reader if isinstance(chunk, KeyChunk))
    for count in (1, 2, 5, 8, 64):
        for size in (0, 1, 50, 3000):
            out = io.BytesIO()
            writer = Writer(out, replace(reader.header, gop=100))
            writer.write(key)
            times = tuple(key.pts + 1 + i for i in range(count))
            writer.write(PredictedChunk(times, rng.randbytes(size)))
            writer.finish()
            result = outcome(out.getvalue(), codec)
            assert isinstance(result, BitstreamError) or result == 1 + count


@pytest.mark.parametrize("field", ["width", "height", "bit_depth"])
def test_header_that_does_not_fit_its_pictures(codec: Codec, victim: bytes, field: str) -> None:
    """A small file must not make the decoder process a huge picture."""
    reader = Reader(io.BytesIO(victim))
    huge = {"width": 4096, "height": 2304, "bit_depth": 10}[field]
    out = io.BytesIO()
    video = replace(reader.header.video, **{field: huge})  # type: ignore[arg-type]
    writer = Writer(out, replace(reader.header, video=video))
    for chunk in reader:
        writer.write(chunk)
    writer.finish()
    assert isinstance(outcome(out.getvalue(), codec), BitstreamError | LimitError)


def test_truncation(codec: Codec, victim: bytes) -> None:
    rng = random.Random(4)
    lengths = [0, 1, 7, 8, 9, len(victim) - 1, *rng.sample(range(len(victim)), 30)]
    for length in lengths:
        assert isinstance(outcome(victim[:length], codec), BitstreamError), f"{length = }"


def test_not_a_vdf(codec: Codec) -> None:
    for data in (b"", b"\0" * 100, b"RIFF" + bytes(1000), random.Random(5).randbytes(5000)):
        assert isinstance(outcome(data, codec), BitstreamError)
