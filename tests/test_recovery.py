"""Damage costs its GOP, the time line stays complete, and losses are reported."""

import io
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import coded, moving_picture, same

from viddiff.codec.weights import Codec
from viddiff.config import Limits
from viddiff.container.format import Chunk, KeyChunk, PredictedChunk, Writer
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, CheckpointError, LimitError
from viddiff.frame import Frame
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.decoded_video import DecodedVideo
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import decode

GOP = 6
GOPS, MANY = 7, 20


def written(chunks: list[Chunk], like: bytes) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, Reader(io.BytesIO(like)).header)
    for chunk in chunks:
        writer.write(chunk)
    writer.finish()
    return out.getvalue()


@pytest.fixture(scope="module")
def gop_chunks(codec: Codec) -> tuple[bytes, list[Chunk]]:
    """A low-delay file, and the chunks of its only GOP."""
    data, _, _ = coded(codec, moving_picture(16, 16, GOP), options=EncodeOptions(gop=GOP, low_delay=True))
    return data, list(Reader(io.BytesIO(data)))


def repeated(gop_chunks: tuple[bytes, list[Chunk]], gops: int) -> bytes:
    """GOPs of six chunks each: the same pictures at later times, 3 units apart."""
    data, chunks = gop_chunks
    return written(
        [
            KeyChunk(3 * GOP * gop, chunk.payload)
            if isinstance(chunk, KeyChunk)
            else PredictedChunk((3 * (GOP * gop + number),), chunk.payload)
            for gop in range(gops)
            for number, chunk in enumerate(chunks)
        ],
        data,
    )


@pytest.fixture(scope="module")
def stream(gop_chunks: tuple[bytes, list[Chunk]]) -> bytes:
    return repeated(gop_chunks, GOPS)


@pytest.fixture(scope="module")
def good(stream: bytes, codec: Codec) -> list[Frame]:
    return list(decode(io.BytesIO(stream), codec))


def spans(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of each chunk of frames."""
    reader, result = Reader(io.BytesIO(data)), []
    for offset, _ in reader.scan(None):
        result.append((offset, reader.offset))
    return result


def recovered(
    data: bytes, weights: Path, folder: Path, workers: int = 1, options: ReadOptions | None = None
) -> tuple[list[Frame], Damage]:
    path = folder / "damaged.vdf"
    path.write_bytes(data)
    with open(path, "rb") as file:
        video: DecodedVideo = decode_video(file, path, Resources(weights, "cpu", workers), options=options)
        return list(video.frames), video.damage


def pictures_differ(a: Frame, b: Frame) -> bool:
    return not all(np.array_equal(p, q) for p, q in zip(a.planes, b.planes, strict=True))


@pytest.mark.parametrize("kind", ["gone", "damaged", "gone, no index"])
def test_one_percent_of_lost_chunks(
    gop_chunks: tuple[bytes, list[Chunk]], good: list[Frame], weights: Path, tmp_path: Path, kind: str
) -> None:
    stream = repeated(gop_chunks, MANY)
    good = [replace(good[n % GOP], pts=3 * n) for n in range(MANY * GOP)]
    rng = random.Random(kind)
    places = spans(stream)
    lost = sorted(n for n in range(1, len(places)) if rng.random() < 0.01)
    lost = sorted({*lost, 13, 40, 6 * 10, 6 * 10 + 1, 6 * 16})  # of one GOP, two; two keyframes
    assert len(lost) >= 5
    data = bytearray(stream)
    for number in reversed(lost):
        start, end = places[number]
        if kind == "damaged":
            data[(start + end) // 2] ^= 0x10
        else:
            del data[start:end]
    if kind.endswith("no index"):
        del data[-14:]
    frames, damage = recovered(bytes(data), weights, tmp_path)
    struck = {number // GOP for number in lost}
    if kind != "gone, no index":
        assert len(frames) == len(good)
        assert [frame.pts for frame in frames] == [frame.pts for frame in good]
        reported = {n for a, b in damage.lost for n in range(a, b + 1)}
        assert {n for n in range(len(good)) if pictures_differ(frames[n], good[n])} <= reported
        assert set(lost) <= reported
        assert {n // GOP for n in reported} == struck
    by_time = {frame.pts: frame for frame in frames}
    for gop in set(range(MANY)) - struck:
        whole = good[gop * GOP : gop * GOP + GOP]
        assert same([by_time[frame.pts] for frame in whole], whole), f"{gop = }"
    assert damage
    with pytest.raises(BitstreamError):
        recovered(bytes(data), weights, tmp_path, options=ReadOptions(strict=True))


@pytest.mark.parametrize("number", [0, 4, 6, 6 * GOPS - 1])
def test_a_damaged_chunk_costs_the_rest_of_its_gop(
    stream: bytes, good: list[Frame], weights: Path, tmp_path: Path, number: int
) -> None:
    data = bytearray(stream)
    data[spans(stream)[number][1] - 6] ^= 1
    frames, damage = recovered(bytes(data), weights, tmp_path)
    last = number // GOP * GOP + GOP - 1
    assert damage.lost == [(number, last)]
    assert len(damage.faults) == 1
    assert f"byte {spans(stream)[number][0]}: " in damage.faults[0]
    shown = good[number - 1] if number else good[GOP]
    expected = [
        replace(shown, pts=frame.pts) if number <= n <= last else frame for n, frame in enumerate(good)
    ]
    assert same(frames, expected)


def test_hostile_content_under_a_valid_crc(codec: Codec, weights: Path, tmp_path: Path) -> None:
    data, good, _ = coded(codec, moving_picture(32, 32, 25), options=EncodeOptions(gop=10))
    chunks = list(Reader(io.BytesIO(data)))
    hostile = next(n for n, chunk in enumerate(chunks) if n > 3 and isinstance(chunk, PredictedChunk))
    chunks[hostile] = replace(chunks[hostile], payload=b"\0" + random.Random(1).randbytes(200))
    bad = written(chunks, data)
    frames, damage = recovered(bad, weights, tmp_path)
    assert damage.lost == [(11, 19)]
    assert "frame 11: " in damage.faults[0]
    assert [frame.pts for frame in frames] == [frame.pts for frame in good]
    assert same(frames[:11], good[:11])
    assert same(frames[20:], good[20:])
    assert not any(pictures_differ(frame, good[10]) for frame in frames[11:20])
    with pytest.raises(BitstreamError):
        recovered(bad, weights, tmp_path, options=ReadOptions(strict=True))
    chunks[0] = KeyChunk(0, b"no picture")
    frames, damage = recovered(written(chunks, data), weights, tmp_path)
    assert damage.lost == [(0, 9), (11, 19)]
    assert not pictures_differ(frames[0], good[10])
    assert [frame.pts for frame in frames] == [frame.pts for frame in good]


def test_truncation_at_any_chunk(stream: bytes, good: list[Frame], weights: Path, tmp_path: Path) -> None:
    places = spans(stream)
    for number in (1, 7, 12):
        start, end = places[number]
        for size in (start, end - 1):
            frames, damage = recovered(stream[:size], weights, tmp_path)
            assert same(frames, good[:number])
            assert not damage.lost
            assert "the file ends" in str(damage)
    whole, damage = recovered(stream[: places[-1][1]], weights, tmp_path)
    assert same(whole, good)
    assert damage
    for size in (places[0][0], places[0][1] - 1):
        with pytest.raises(BitstreamError, match="the file ends"):
            recovered(stream[:size], weights, tmp_path)


def test_processes_recover_alike(stream: bytes, weights: Path, tmp_path: Path) -> None:
    data = bytearray(stream)
    for number in (3, 20, 29, 30, 38):
        data[spans(stream)[number][1] - 7] ^= 4
    one, two = (recovered(bytes(data), weights, tmp_path, workers) for workers in (1, 2))
    assert same(one[0], two[0])
    assert one[1] == two[1]
    assert len(one[1].lost) == 5 - 1  # 29 and 30 end one GOP and begin another


@pytest.mark.parametrize("kind", ["swapped", "twice", "keys swapped"])
def test_chunks_in_a_wrong_order(
    stream: bytes, good: list[Frame], weights: Path, tmp_path: Path, kind: str
) -> None:
    (a, b), (c, d) = spans(stream)[12 if "keys" in kind else 14], spans(stream)[18 if "keys" in kind else 16]
    first, second = stream[a:b], stream[c:d]
    middle = stream[b:c]
    data = stream[:a] + (first + first + middle + second if kind == "twice" else second + middle + first)
    frames, damage = recovered(data + stream[d:], weights, tmp_path)
    assert damage
    struck = {2, 3} if "keys" in kind else {2}
    by_time = {frame.pts: frame for frame in frames}
    for gop in set(range(GOPS)) - struck:
        whole = good[gop * GOP : gop * GOP + GOP]
        assert same([by_time[frame.pts] for frame in whole], whole), f"{gop = }"
    with pytest.raises(BitstreamError):
        recovered(data + stream[d:], weights, tmp_path, options=ReadOptions(strict=True))


def test_nothing_is_lost_of_a_sound_file(
    stream: bytes, good: list[Frame], weights: Path, tmp_path: Path
) -> None:
    frames, damage = recovered(stream, weights, tmp_path)
    assert same(frames, good)
    assert not damage
    frames, damage = recovered(stream, weights, tmp_path, options=ReadOptions(strict=True))
    assert len(frames) == GOPS * GOP


def test_other_weights_are_not_damage(stream: bytes, weights: Path, tmp_path: Path) -> None:
    header = Reader(io.BytesIO(stream)).header
    out = io.BytesIO()
    writer = Writer(out, replace(header, model_hash=bytes(32)))
    for chunk in Reader(io.BytesIO(stream)):
        writer.write(chunk)
    writer.finish()
    with pytest.raises(CheckpointError, match="made with the weights"):
        recovered(out.getvalue(), weights, tmp_path)


def test_limits(stream: bytes, weights: Path, tmp_path: Path) -> None:
    for limits in (Limits(frames=GOPS * GOP - 1), Limits(pixels=255), Limits(frames=1)):
        for data in (stream, stream[:-1]):
            with pytest.raises(LimitError):
                recovered(data, weights, tmp_path, options=ReadOptions(limits=limits))
    limits = Limits(256, GOPS * GOP)
    assert len(recovered(stream, weights, tmp_path, options=ReadOptions(limits=limits))[0]) == GOPS * GOP


def test_a_report_is_one_line() -> None:
    damage = Damage(5, 100)
    for first, last in ((0, 6), (7, 9), (20, 20), (99, 200), (300, 301)):
        damage.lose(first, last)
    damage.faults.append("byte 7: broken")
    assert damage.lost == [(5, 9), (20, 20), (99, 99)]
    assert damage.frames == 7
    assert str(damage) == "7 frames are lost and shown as the one before: 5-9, 20, 99 (byte 7: broken)"
    assert not Damage(0, 9)


def test_each_fault_is_noted_once_without_a_search_through_all() -> None:
    """A file of a few megabytes can have a million faults."""
    compared = 0

    class Fault(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    damage, faults = Damage(0, 10), [Fault(f"fault {number}") for number in range(2000)]
    for number in range(0, 2000, 4):
        damage.blame(faults[number : number + 5])
    assert list(damage.faults) == list(map(str, faults))
    assert compared < 6000
