"""The base layer's AV1 streams: the same bytes and frames every time, one unit a frame, damage refused."""

import os
import random
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from viddiff.errors import BitstreamError, LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_obus import ObuType, SequenceHeader, iter_obus
from viddiff.media.av1_stills import padded_size
from viddiff.media.av1_stream import Av1Decoder, Av1Encoder, delimited, split_units
from viddiff.metrics.psnr import Distortion
from viddiff.pixels import plane_shapes

WIDTH, HEIGHT = 132, 100


def moving(width: int, height: int, count: int, bit_depth: int = 8, seed: int = 0) -> list[Frame]:
    """A pattern that moves over another one, with a little noise."""
    rng = np.random.default_rng(seed)
    peak = 2**bit_depth - 1
    frames = []
    for t in range(count):
        planes = []
        for rows, columns in plane_shapes(width, height):
            y, x = np.mgrid[:rows, :columns] * (width / columns)
            plane = 0.5 + 0.2 * np.sin((x + 2 * t) / 7 + seed) + 0.2 * np.cos((y - t) / 9)
            plane = (plane + rng.normal(0, 0.01, x.shape)) * peak
            planes.append(plane.clip(0, peak).astype(np.uint8 if bit_depth == 8 else np.uint16))
        frames.append(Frame(planes[0], planes[1], planes[2]))
    return frames


def encode(frames: list[Frame], bit_depth: int = 8, quantiser: int = 120, **options: object) -> list[bytes]:
    height, width = frames[0].y.shape
    of_video = {name: options.pop(name) for name in ("frame_rate", "full_range") if name in options}
    encoder = Av1Encoder(
        VideoInfo(width, height, bit_depth, **of_video),  # type: ignore[arg-type]
        **{"quantiser": quantiser, "preset": 8, **options},  # type: ignore[arg-type]
    )
    return [*(unit for frame in frames for unit in encoder.send(frame)), *encoder.finish()]


def decode(
    units: list[bytes], width: int = WIDTH, height: int = HEIGHT, bit_depth: int = 8, threads: int = 1
) -> list[Frame]:
    decoder = Av1Decoder(width, height, bit_depth, threads=threads)
    return [decoder.decode(unit) for unit in units]


def psnr(originals: list[Frame], decoded: list[Frame], bit_depth: int = 8) -> float:
    distortion = Distortion(bit_depth)
    for a, b in zip(originals, decoded, strict=True):
        distortion.add(a, b)
    return distortion.psnr_611


def equal(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(p, q) and p.dtype == q.dtype
        for one, other in zip(a, b, strict=True)
        for p, q in zip(one.planes, other.planes, strict=True)
    )


FRAMES = moving(WIDTH, HEIGHT, 9)
UNITS = encode(FRAMES)
DECODED = decode(UNITS)
OTHER_UNITS = encode(moving(WIDTH, HEIGHT, 9, seed=3))


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(16, 16), (17, 19), (64, 64), (65, 130), (351, 287), (16, 400)])
def test_round_trip_of_any_size(size: tuple[int, int], bit_depth: int) -> None:
    originals = moving(*size, 3, bit_depth)
    units = encode(originals, bit_depth, 60)
    decoded = decode(units, *size, bit_depth)
    assert [frame.pts for frame in decoded] == [0, 1, 2]
    for frame, original in zip(decoded, originals, strict=True):
        assert [(p.shape, p.dtype) for p in frame.planes] == [(p.shape, p.dtype) for p in original.planes]
        assert all(plane.flags.c_contiguous for plane in frame.planes)
    assert psnr(originals, decoded, bit_depth) > 35
    header = SequenceHeader.parse(next(iter_obus(units[0])).payload)
    assert header == SequenceHeader(*padded_size(*size), bit_depth)


def test_same_bytes_and_frames_every_time() -> None:
    assert encode(FRAMES) == UNITS
    for low_delay in (False, True):
        units = [encode(FRAMES, preset=4, low_delay=low_delay, threads=threads) for threads in (1, 2, 3)]
        assert units[0] == units[1] == units[2]
    assert equal(decode(UNITS), DECODED)
    assert equal(decode(UNITS, threads=2), DECODED)


def test_a_long_gop_has_one_keyframe_and_hidden_frames() -> None:
    cut = moving(64, 64, 40) + moving(64, 64, 40, seed=5)  # a change of scene begins no new stream
    units = encode(cut, frame_rate=Fraction(1, 2))
    assert len(units) == 80
    types = [obu.type for unit in units for obu in iter_obus(unit)]
    assert types.count(ObuType.SEQUENCE_HEADER) == 1
    assert any(len(list(iter_obus(unit))) > 3 for unit in units)
    assert psnr(cut, decode(units, 64, 64)) > 30


@pytest.mark.parametrize("width", [WIDTH, 128])
def test_frames_of_the_decoder_cannot_be_changed(width: int) -> None:
    """They may be what later frames refer to; they last as long as they are held."""
    units = encode(moving(width, HEIGHT, 6))
    again = Av1Decoder(width, HEIGHT, 8)
    for frame, unit in zip(decode(units, width), units, strict=True):
        other = again.decode(unit)
        for plane, same in zip(frame.planes, other.planes, strict=True):
            assert plane.flags.c_contiguous
            assert not plane.flags.writeable
            assert np.array_equal(plane, same)


def test_a_gop_of_one_frame() -> None:
    units = encode(FRAMES[:1])
    assert [obu.type for obu in iter_obus(b"".join(units))] == [ObuType.SEQUENCE_HEADER, ObuType.FRAME]
    assert psnr(FRAMES[:1], decode(units)) > 35


@pytest.mark.parametrize("preset", [4, 8])
def test_low_delay_gives_each_unit_at_once(preset: int) -> None:
    encoder = Av1Encoder(VideoInfo(WIDTH, HEIGHT), quantiser=120, preset=preset, low_delay=True)
    decoder = Av1Decoder(WIDTH, HEIGHT, 8)
    decoded = []
    for frame in FRAMES:
        (unit,) = encoder.send(frame)
        decoded.append(decoder.decode(unit))
    assert not list(encoder.finish())
    assert psnr(FRAMES, decoded) > 33


def test_quantisers_are_fine_steps_from_large_to_small() -> None:
    coarse, fine = (4, 60, 120, 124, 200, 280), (120, 121, 122, 123, 124)
    sizes = {q: len(b"".join(encode(FRAMES, quantiser=q))) for q in {*coarse, *fine}}
    assert sorted(coarse, key=lambda q: -sizes[q]) == list(coarse)
    assert len(set(sizes.values())) == len(sizes)
    assert all(sizes[q] < 1.05 * sizes[120] for q in fine), "noise of single steps"


def test_full_range_is_a_bit_of_the_header() -> None:
    full = encode(FRAMES[:2], full_range=True)
    assert full != UNITS[:2]
    assert full[0] != encode(FRAMES[:2])[0]
    decode(full)


def test_frame_rates_beyond_what_the_encoder_takes() -> None:
    for rate in (Fraction(1, 1000), Fraction(24000, 1001), Fraction(1000)):
        assert equal(decode(encode(FRAMES, frame_rate=rate)), DECODED)


def test_an_encoder_may_be_given_up() -> None:
    encoder = Av1Encoder(VideoInfo(WIDTH, HEIGHT), quantiser=120, preset=8)
    encoder.send(FRAMES[0])
    del encoder
    assert encode(FRAMES) == UNITS


@pytest.mark.parametrize(
    "options",
    [{"bit_depth": 9}, {"quantiser": 3}, {"quantiser": 281}, {"preset": -1}, {"preset": 11}],
)
def test_encoder_refuses_arguments_out_of_range(options: dict[str, int]) -> None:
    info = VideoInfo(64, 64, options.get("bit_depth", 8))
    options = {name: value for name, value in options.items() if name != "bit_depth"}
    with pytest.raises(ValueError, match=r"not 9|out of range"):
        Av1Encoder(info, **{"quantiser": 120, "preset": 8, **options})  # type: ignore[arg-type]


def test_a_frame_of_another_size_is_refused() -> None:
    encoder = Av1Encoder(VideoInfo(64, 64), quantiser=120, preset=8)
    with pytest.raises(ValueError, match="announced"):
        encoder.send(FRAMES[0])


def test_nothing_can_follow_the_end() -> None:
    encoder = Av1Encoder(VideoInfo(WIDTH, HEIGHT), quantiser=120, preset=8)
    encoder.send(FRAMES[0])
    list(encoder.finish())
    with pytest.raises(VideoError, match="failed"):
        encoder.send(FRAMES[1])


@pytest.mark.parametrize("size", [(8194, 64), (64, 8194), (8192, 4354), (0, 64)])
def test_beyond_the_limits(size: tuple[int, int]) -> None:
    with pytest.raises(LimitError):
        Av1Decoder(*size, 8)
    with pytest.raises(LimitError):
        Av1Encoder(VideoInfo(*size), quantiser=120, preset=8)


def test_units_are_cut_where_they_were_joined() -> None:
    assert split_units(b"".join(UNITS), len(UNITS)) == UNITS
    assert split_units(b"".join(UNITS[3:6]), 3) == UNITS[3:6]
    assert split_units(b"", 0) == []
    for count in (2, 4):
        with pytest.raises(BitstreamError):
            split_units(b"".join(UNITS[3:6]), count)


def test_units_do_not_hide_frames_without_end() -> None:
    hidden = next(iter_obus(UNITS[1]))
    assert len(list(iter_obus(UNITS[1]))) > 1
    shown = list(iter_obus(UNITS[1]))[-1]
    assert split_units(7 * hidden.data + shown.data, 1)
    with pytest.raises(BitstreamError, match="hides more"):
        split_units(8 * hidden.data + shown.data, 1)


def test_other_decoders_read_the_delimited_stream(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    stream, raw = tmp_path / "base.obu", tmp_path / "base.yuv"
    stream.write_bytes(delimited(UNITS))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", stream, "-fps_mode", "passthrough"]
    result = subprocess.run([*command, "-f", "rawvideo", raw], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert raw.read_bytes() == b"".join(plane.tobytes() for frame in DECODED for plane in frame.planes)


def test_every_truncation_is_refused() -> None:
    for done, unit in enumerate(UNITS[:4]):
        for length in range(len(unit)):
            decoder = Av1Decoder(WIDTH, HEIGHT, 8)
            for before in UNITS[:done]:
                decoder.decode(before)
            with pytest.raises(BitstreamError):
                decoder.decode(unit[:length])


HEADER, KEY = (obu.data for obu in iter_obus(UNITS[0]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda first: b"", "show 0 pictures"),
        (lambda first: b"\x00" * 50, "malformed"),
        (lambda first: b"\x12\x00" + first, "parts that no base layer has"),
        (lambda first: HEADER, "show 0 pictures"),
        (lambda first: KEY, "sequence header and a keyframe"),
        (lambda first: HEADER + first, "parts that no base layer has"),
        (lambda first: first + UNITS[1], "more"),
        (lambda first: UNITS[1], "sequence header and a keyframe"),
        (lambda first: HEADER + UNITS[1], "sequence header and a keyframe"),
        (lambda first: HEADER + b"\x32\x00", "empty"),
        (lambda first: HEADER + b"\x32\xff\xff\xff\xff\xff\xff\x01", "size"),
        (lambda first: HEADER + b"\x32\x04\x10\x00\x00\x00", "damaged"),
        (lambda first: HEADER + b"\x32\x01\x88", "do not come together"),
        (lambda first: HEADER + b"\x1a\x01\x10", "do not come together"),
        (lambda first: HEADER + b"\x32\x01\x70", "kind"),
        (lambda first: b"\x0a\x02\x00\x00" + KEY, "cut short"),
        (lambda first: encode(moving(134, 100, 1))[0], "134x100 at 8 bits where 132x100"),
        (lambda first: encode(moving(132, 98, 1))[0], "132x98"),
        (lambda first: encode(moving(132, 100, 1, 10), 10)[0], "at 10 bits"),
    ],
)
def test_wrong_first_units_are_refused(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        Av1Decoder(WIDTH, HEIGHT, 8).decode(damage(UNITS[0]))


@pytest.mark.parametrize("unit", [UNITS[0], OTHER_UNITS[0], HEADER + UNITS[1], KEY])
def test_no_stream_begins_within_a_gop(unit: bytes) -> None:
    decoder = Av1Decoder(WIDTH, HEIGHT, 8)
    decoder.decode(UNITS[0])
    with pytest.raises(BitstreamError, match="begins a new stream"):
        decoder.decode(unit)


def test_a_decoder_ends_with_its_first_error() -> None:
    decoder = Av1Decoder(WIDTH, HEIGHT, 8)
    decoder.decode(UNITS[0])
    with pytest.raises(BitstreamError):
        decoder.decode(UNITS[1][:-1])
    with pytest.raises(BitstreamError, match="follows one that could not be decoded"):
        decoder.decode(UNITS[1])


def with_header_bit(position: int) -> bytes:
    """The first unit with one bit of its sequence header's payload flipped."""
    flipped = bytearray(HEADER)
    flipped[2 + position // 8] ^= 128 >> position % 8
    return bytes(flipped) + KEY


def test_no_bit_of_the_sequence_header_leads_astray() -> None:
    refused = 0
    for position in range(8 * (len(HEADER) - 2)):
        try:
            (frame,) = decode([with_header_bit(position)])
        except BitstreamError:
            refused += 1
        else:
            assert frame.y.shape == (HEIGHT, WIDTH)
    assert refused >= 3 + 2 + 2 + 5 + 12 + 8 + 16  # profile, stills, timing, points, size fields, sizes


def outcome(units: list[bytes], threads: int = 1) -> list[bytes]:
    """The frames up to the first error, as bytes."""
    decoder = Av1Decoder(WIDTH, HEIGHT, 8, threads=threads)
    shown: list[bytes] = []
    try:
        for unit in units:
            shown.append(b"".join(plane.tobytes() for plane in decoder.decode(unit).planes))
    except BitstreamError:
        pass
    return shown


@pytest.mark.parametrize("order", [(0, 2, 1), (0, 1, 1), (0, 5, 1), (0, 2)])
def test_units_out_of_order_give_frames_or_an_error_and_always_the_same(order: tuple[int, ...]) -> None:
    units = [UNITS[i] for i in order]
    assert outcome(units) == outcome(units, threads=2)
    foreign = [UNITS[0], *(OTHER_UNITS[i] for i in order[1:])]
    assert outcome(foreign) == outcome(foreign, threads=2)


def test_flipped_bits_give_frames_or_an_error_and_always_the_same() -> None:
    rng = random.Random(1)
    lengths = []
    for trial in range(150):
        units = [bytearray(unit) for unit in UNITS[:4]]
        for _ in range(rng.choice((1, 1, 3))):
            unit = rng.choice(units)
            unit[rng.randrange(min(len(unit), 20) if trial % 2 else len(unit))] ^= 1 << rng.randrange(8)
        shown = outcome([bytes(unit) for unit in units])
        assert shown == outcome([bytes(unit) for unit in units], threads=2)
        lengths.append(len(shown))
    assert set(lengths) == {0, 1, 2, 3, 4}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are not listed here")
def test_no_thread_becomes_real_time() -> None:
    before = os.sched_getscheduler(0)
    encoder = Av1Encoder(VideoInfo(WIDTH, HEIGHT), quantiser=120, preset=8)
    encoder.send(FRAMES[0])
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    assert len(threads) > 4
    assert {os.sched_getscheduler(thread) for thread in threads} == {before}
    list(encoder.finish())
    assert os.sched_getscheduler(0) == before
