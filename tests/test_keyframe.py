"""AV1 stills: equal bytes and samples every time, and only BitstreamError for damaged ones."""

import os
import random
import resource
from collections.abc import Callable

import numpy as np
import pytest

from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.frame import Frame
from viddiff.media.av1_stills import decode_still, encode_still, padded_size
from viddiff.metrics.psnr import Distortion
from viddiff.pixels import plane_shapes


def picture(width: int, height: int, bit_depth: int = 8) -> Frame:
    """Smooth shapes and a little noise."""
    rng = np.random.default_rng(width * 10_000 + height)
    peak = 2**bit_depth - 1
    planes = []
    for rows, columns in plane_shapes(width, height):
        y, x = np.mgrid[:rows, :columns]
        plane = (0.5 + 0.2 * np.sin(x / 7) + 0.2 * np.cos(y / 9) + rng.normal(0, 0.01, x.shape)) * peak
        planes.append(plane.clip(0, peak).astype(np.uint8 if bit_depth == 8 else np.uint16))
    return Frame(planes[0], planes[1], planes[2])


def psnr(a: Frame, b: Frame, bit_depth: int) -> float:
    distortion = Distortion(bit_depth)
    distortion.add(a, b)
    return distortion.psnr_611


def equal(a: Frame, b: Frame) -> bool:
    return all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(a.planes, b.planes, strict=True))


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(16, 16), (17, 19), (64, 64), (65, 130), (176, 144), (351, 287)])
def test_round_trip_of_any_size(size: tuple[int, int], bit_depth: int) -> None:
    original = picture(*size, bit_depth)
    decoded = decode_still(encode_still(original, bit_depth, 8), *size, bit_depth)
    assert [p.shape for p in decoded.planes] == [p.shape for p in original.planes]
    assert all(
        p.dtype == q.dtype and p.flags.c_contiguous
        for p, q in zip(decoded.planes, original.planes, strict=True)
    )
    assert psnr(original, decoded, bit_depth) > 38


def test_same_bytes_and_samples_every_time() -> None:
    original = picture(176, 144)
    data = encode_still(original, 8, 30)
    assert encode_still(original, 8, 30) == data
    decoded = decode_still(data, 176, 144, 8)
    assert equal(decode_still(data, 176, 144, 8), decoded)
    assert equal(decode_still(data, 176, 144, 8, threads=2), decoded)


def test_quantiser_trades_size_for_quality() -> None:
    original = picture(176, 144)
    stills = [encode_still(original, 8, q) for q in (1, 20, 40, 63)]
    sizes = [len(s) for s in stills]
    quality = [psnr(original, decode_still(s, 176, 144, 8), 8) for s in stills]
    assert sizes == sorted(sizes, reverse=True)
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > 50
    assert sizes[-1] < 200


def test_a_still_is_two_obus_with_a_small_header() -> None:
    flat = Frame(
        np.full((64, 64), 90, np.uint8), np.full((32, 32), 128, np.uint8), np.full((32, 32), 128, np.uint8)
    )
    data = encode_still(flat, 8, 40)
    assert data[0] >> 3 == 1  # a sequence header comes first, no temporal delimiter
    assert len(data) < 40


def test_padding_is_even_and_at_least_64() -> None:
    assert padded_size(16, 33) == (64, 64)
    assert padded_size(351, 288) == (352, 288)


@pytest.mark.parametrize("arguments", [(8, 0), (8, 64), (9, 30)])
def test_encoder_refuses_arguments_out_of_range(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a still"):
        encode_still(picture(64, 64), *arguments)


def test_beyond_the_limits() -> None:
    with pytest.raises(LimitError):
        decode_still(b"", 8194, 64, 8)


STILL = encode_still(picture(132, 100), 8, 30)
HEADER = STILL[: 2 + STILL[1]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda still: b"", "one AV1 sequence header"),
        (lambda still: b"\x00" * 50, "malformed"),
        (lambda still: b"viddiff" * 9, "malformed|cut short"),
        (lambda still: still[:-1], "cut short"),
        (lambda still: still + still[len(HEADER) :], "one AV1 sequence header"),
        (lambda still: still + still, "one AV1 sequence header|more than one"),
        (lambda still: b"\x12\x00" + still, "one AV1 sequence header"),
        (lambda still: still[len(HEADER) :], "one AV1 sequence header"),
        (lambda still: HEADER + b"\x32\xff\xff\xff\xff\xff\xff\x01", "size field"),
        (lambda still: HEADER + b"\x32\x04\x00\x00\x00\x00", "damaged|must hold"),
        (lambda still: encode_still(picture(134, 100), 8, 30), "damaged"),
        (lambda still: encode_still(picture(132, 98), 8, 30), "132x98"),
        (lambda still: encode_still(picture(132, 100, 10), 10, 30), "yuv420p10le"),
        (lambda still: encode_still(picture(176, 144), 8, 30), "damaged"),
    ],
)
def test_wrong_bytes_are_refused(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        decode_still(damage(STILL), 132, 100, 8)


def with_claimed_size(width: int, height: int) -> bytes:
    """STILL with another size in its sequence header, 16 bits for each side."""
    bits = "".join(f"{byte:08b}" for byte in HEADER[2:])
    n, m = int(bits[10:14], 2) + 1, int(bits[14:18], 2) + 1  # behind profile, still, reduced and level
    assert (int(bits[18 : 18 + n], 2), int(bits[18 + n : 18 + n + m], 2)) == (131, 99)
    bits = f"{bits[:10]}11111111{width - 1:016b}{height - 1:016b}{bits[18 + n + m :].rstrip('0')}"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([0x0A, len(payload)]) + payload + STILL[len(HEADER) :]


def test_a_claim_of_65536_squared_costs_no_memory() -> None:
    assert equal(decode_still(with_claimed_size(132, 100), 132, 100, 8), decode_still(STILL, 132, 100, 8))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BitstreamError, match="damaged"):
        decode_still(with_claimed_size(65536, 65536), 132, 100, 8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; the claim is 6 GiB


def test_flipped_bits_end_in_a_picture_or_an_error_and_always_the_same() -> None:
    rng = random.Random(1)
    outcomes = []
    for trial in range(400):
        data = bytearray(STILL)
        for _ in range(rng.choice((1, 1, 3))):
            position = rng.randrange(20 if trial % 2 else len(data))
            data[position] ^= 1 << rng.randrange(8)
        try:
            decoded = decode_still(bytes(data), 132, 100, 8)
        except ViddiffError as error:
            assert isinstance(error, BitstreamError)  # noqa: PT017
            outcomes.append(False)
            continue
        outcomes.append(True)
        assert decoded.y.shape == (100, 132)
        assert equal(decoded, decode_still(bytes(data), 132, 100, 8, threads=2))
    assert 20 < sum(outcomes) < 380


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
def test_the_caller_keeps_its_scheduling() -> None:
    before = os.sched_getscheduler(0)
    encode_still(picture(64, 64), 8, 40)
    assert os.sched_getscheduler(0) == before
