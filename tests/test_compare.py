"""Comparing videos: frames matched by time, scores of known errors, and what does not match is said."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import moving_picture
from test_cli import refused, run

import viddiff
from viddiff.comparison.inputs import Reading, bytes_of_frames
from viddiff.comparison.matching import Pair, Timed, match
from viddiff.comparison.results import spans
from viddiff.comparison.samples import Form, ToForm
from viddiff.container.format import Header, KeyChunk, PredictedChunk, Writer
from viddiff.frame import Frame, Plane, VideoInfo
from viddiff.media.ffmpeg_program import find_ffmpeg
from viddiff.media.picture_planes import PIXEL_FORMATS, picture_from_planes
from viddiff.media.video_writer import VideoWriter
from viddiff.media.vmaf import has_vmaf
from viddiff.metrics.pooling import overall_psnr, overall_xpsnr, pool
from viddiff.metrics.psnr import Distortion, psnr, squared_errors
from viddiff.metrics.ssim import MS_SSIM_SIDE, WEIGHTS, similarity
from viddiff.metrics.xpsnr import XpsnrMeter
from viddiff.pipeline.measures import Meters

FRAMES = 10
SIZE = 64, 48


def store(path: Path, frames: list[Frame], **properties: Any) -> Path:
    """A lossless video. Times are in milliseconds."""
    height, width = frames[0].y.shape
    depth = 8 if frames[0].y.dtype == np.uint8 else 10
    usual = {"time_base": Fraction(1, 1000), "frame_rate": Fraction(25), "bit_depth": depth}
    with VideoWriter(path, VideoInfo(width, height, **usual | properties), lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def timed(frames: list[Frame], *times: int) -> list[Frame]:
    """Frames at these times, or every 40."""
    return [replace(f, pts=t) for f, t in zip(frames, times or range(0, 40 * len(frames), 40), strict=True)]


def worse(frames: list[Frame], step: int = 3) -> list[Frame]:
    """Frames with samples rounded to multiples of `step`."""
    return [replace(f, **{p: getattr(f, p) // step * step for p in "yuv"}) for f in frames]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return timed(moving_picture(*SIZE, FRAMES))


@pytest.fixture(scope="module")
def folder(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference, a copy of it, and a worse one."""
    folder = tmp_path_factory.mktemp("videos")
    store(folder / "ref.mkv", frames)
    store(folder / "same.mkv", frames)
    store(folder / "worse.mkv", worse(frames))
    return folder


def compared(reference: Path, *files: Path, **choices: Any) -> viddiff.Comparison:
    return viddiff.compare(reference, files, **{"metrics": ["psnr"], **choices})


# Scores


def test_scores_are_those_of_known_errors(folder: Path, frames: list[Frame]) -> None:
    found = compared(folder / "ref.mkv", folder / "worse.mkv", metrics=["ssim"]).files[0]
    expected = Distortion(8)
    each = []
    for original, decoded in zip(frames, worse(frames), strict=True):
        expected.add(original, decoded)
        one = Distortion(8)
        one.add(original, decoded)
        each.append(one.psnr_611)
    whole = found.scores
    assert [whole[f"psnr_{p}"].overall for p in "yuv"] == pytest.approx(expected.psnr_yuv)
    assert whole["psnr_611"].overall == pytest.approx(expected.psnr_611)
    assert whole["psnr_611"].mean == pytest.approx(np.mean(each))
    assert found.frames.scores("psnr_611") == pytest.approx(each)
    ssims = [similarity(a.y, b.y, 8).ssim for a, b in zip(frames, worse(frames), strict=True)]
    assert whole["ssim"].overall == pytest.approx(np.mean(ssims))
    assert "ms_ssim" not in whole, "the pictures are too small for it"
    assert (found.matched, found.identical, found.complete) == (FRAMES, 0, True)


def test_a_copy_has_no_error(folder: Path) -> None:
    found = compared(folder / "ref.mkv", folder / "same.mkv", metrics=["ssim", "xpsnr"]).files[0]
    assert found.identical == found.matched == FRAMES
    for name, pooled in found.scores.items():
        best = 1 if name == "ssim" else 100
        figures = (pooled.overall, pooled.mean, pooled.harmonic_mean, pooled.p5, pooled.worst)
        assert figures == pytest.approx((best,) * 5, abs=1e-6), name


def test_errors_beyond_100_db_count(tmp_path: Path) -> None:
    y, u, v = (np.full(shape, 400, np.uint16) for shape in ((144, 176), (72, 88), (72, 88)))
    flat = timed([Frame(y, u, v)] * 100)
    by_one, by_ten = y.copy(), y.copy()
    by_one[5, 5] += 1
    by_ten[5, 5] += 10
    reference = store(tmp_path / "ref.mkv", flat)
    other = [replace(flat[0], y=by_one), replace(flat[1], y=by_ten), *flat[2:]]
    found = compared(reference, store(tmp_path / "other.mkv", other), metrics=["xpsnr"]).files[0]
    assert found.identical == 98, "one of the others has 104 dB"
    ten = 10 * math.log10(1023**2 * y.size / 100)
    assert found.frames.scores("psnr_y")[:3] == pytest.approx([100, ten, 100])
    assert found.scores["psnr_y"].worst == pytest.approx(ten)
    assert found.scores["psnr_y"].overall == 100, "104 dB, from the errors of all frames"


def test_pooling() -> None:
    scores = [40.0, 20.0, 30.0, 30.0]
    pooled = pool(scores)
    assert (pooled.overall, pooled.mean, pooled.worst) == (30, 30, 20)
    assert pooled.harmonic_mean == pytest.approx(4 / (1 / 41 + 1 / 21 + 2 / 31) - 1)
    assert pooled.p5 == pytest.approx(21.5), "between the worst, 20, and the next, 30"
    assert pool([0.0, 100.0]).harmonic_mean == pytest.approx(2 / (1 + 1 / 101) - 1)
    both = np.array([20.0, 40.0])
    assert overall_psnr(both) == pytest.approx(-10 * math.log10((1e-2 + 1e-4) / 2))
    assert overall_xpsnr(both) == pytest.approx(-20 * math.log10((1e-1 + 1e-2) / 2))
    with pytest.raises(ValueError, match="no frame"):
        pool([])


def test_similarity_of_flat_pictures_is_that_of_the_formula() -> None:
    a, b = np.full((200, 180), 100, np.uint8), np.full((200, 180), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    found = similarity(a, b, 8)
    assert found.ssim == pytest.approx(luminance, abs=1e-6)
    assert found.ms_ssim == pytest.approx(luminance ** WEIGHTS[-1], abs=1e-5)


@pytest.mark.parametrize("bit_depth", [8, 10])
def test_similarity_is_that_of_windows_one_by_one(bit_depth: int) -> None:
    rng = np.random.default_rng(1)
    peak = (1 << bit_depth) - 1
    noise = rng.integers(0, peak + 1, (16, 19))
    other = np.clip(noise + rng.integers(-20, 21, noise.shape), 0, peak)
    a: Plane = noise.astype(np.uint8) if bit_depth == 8 else noise.astype(np.uint16)
    b: Plane = other.astype(np.uint8) if bit_depth == 8 else other.astype(np.uint16)
    steps = np.arange(-5, 6)
    line = np.exp(-(steps**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    scores = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (p[row : row + 11, column : column + 11].astype(float) for p in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            scores.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    found = similarity(a, b, bit_depth)
    assert found.ssim == pytest.approx(np.mean(scores), abs=2e-5)
    assert found.ms_ssim is None


def test_ms_ssim_needs_pictures_of_some_size() -> None:
    a = np.zeros((MS_SSIM_SIDE, MS_SSIM_SIDE), np.uint8)
    assert similarity(a, a, 8).ms_ssim == 1
    assert similarity(a[1:], a[1:], 8).ms_ssim is None
    with pytest.raises(ValueError, match="no SSIM"):
        similarity(a[:10], a[:10], 8)
    opposite = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (100, 100))
    assert similarity(opposite, 255 - opposite, 8).ms_ssim == 0, "structures that are inverted"


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reference and a worse copy, large enough for every measure."""
    folder = tmp_path_factory.mktemp("larger")
    frames = timed(moving_picture(208, 192, 6))
    return store(folder / "ref.mkv", frames), store(folder / "worse.mkv", worse(frames, 9))


def test_scores_are_those_of_ffmpeg(larger: tuple[Path, Path]) -> None:
    program = find_ffmpeg("libvmaf")
    if program is None:
        pytest.skip("there is no ffmpeg with libvmaf")
    graph = (
        "[0:v]setpts=N,split=3[r0][r1][r2];[1:v]setpts=N,split=3[d0][d1][d2];"
        "[d0][r0]psnr;[r1][d1]xpsnr;[d2][r2]libvmaf"
    )
    inputs = [word for path in larger for word in ("-i", str(path))]
    done = subprocess.run(
        [program, "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"], capture_output=True, text=True
    )
    scores = viddiff.compare(*larger).files[0].scores
    for name, mark in (("psnr", "PSNR"), ("xpsnr", "XPSNR")):
        (said,) = re.findall(
            rf" {mark} +y: *(\S+) u: *(\S+) v: *(\S+)", re.sub(r" +([uv]):", r" \1:", done.stderr)
        )
        assert [scores[f"{name}_{p}"].overall for p in "yuv"] == pytest.approx([*map(float, said)], abs=1e-3)
    (said,) = re.findall(r"VMAF score: (\S+)", done.stderr)
    assert scores["vmaf"].overall == pytest.approx(float(said), abs=1e-4)
    assert 0 < scores["ms_ssim"].overall < 1


def test_xpsnr_weighs_errors_by_the_original() -> None:
    """An error in flat parts counts more than one in busy parts; so both inputs may not be exchanged."""
    busy = moving_picture(*SIZE, 1)[0]
    flat = replace(busy, **{p: np.full_like(getattr(busy, p), 128) for p in "yuv"})
    there, back = (XpsnrMeter(*SIZE, 8, Fraction(25)).add(*pair) for pair in ((busy, flat), (flat, busy)))
    assert there[0] > back[0]


def xpsnr_of_libav(pairs: list[tuple[Frame, Frame]], bit_depth: int, rate: int) -> list[list[float]]:
    """What libavfilter measures, for sizes and depths that its filter can take."""
    height, width = pairs[0][0].y.shape
    graph = av.filter.Graph()
    form = f"video_size={width}x{height}:pix_fmt={PIXEL_FORMATS[bit_depth]}"
    inputs = [graph.add("buffer", f"{form}:time_base=1/1000:frame_rate={rate}") for _ in range(2)]
    measure, sink = graph.add("xpsnr"), graph.add("buffersink")
    for place, source in enumerate(inputs):
        source.link_to(measure, 0, place)
    measure.link_to(sink)
    graph.configure()
    found = []
    for time, pair in enumerate(pairs):
        for source, frame in zip(inputs, pair, strict=True):
            picture = picture_from_planes(frame.planes, bit_depth)
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            source.push(picture)
        measured = sink.pull()
        assert isinstance(measured, av.VideoFrame)
        found.append([float(measured.metadata[f"lavfi.xpsnr.xpsnr.{plane}"]) for plane in "yuv"])
    return found


@pytest.mark.parametrize(
    ("width", "height", "bit_depth", "rate"),
    [
        (64, 48, 8, 25),
        (208, 192, 8, 50),
        (720, 480, 8, 25),
        (640, 384, 10, 60),
        (2560, 1440, 8, 25),
        (2560, 1440, 8, 50),
    ],
)
def test_xpsnr_is_that_of_its_authors_filter(width: int, height: int, bit_depth: int, rate: int) -> None:
    frames = moving_picture(width, height, 3, bit_depth)
    both = list(zip(frames, worse(frames, 5), strict=True))
    meter = XpsnrMeter(width, height, bit_depth, Fraction(rate))
    ours = [list(meter.add(*pair)) for pair in both]
    assert np.array(ours) == pytest.approx(np.array(xpsnr_of_libav(both, bit_depth, rate)), abs=1e-4)


@pytest.mark.parametrize(
    "size", [(16, 16), (17, 33), (45, 45), (16, 1000), (1000, 17), (641, 361), (2051, 1155)]
)
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_xpsnr_of_any_size(size: tuple[int, int], bit_depth: int) -> None:
    """The filter of libav crashes on some of these, or gives nonsense."""
    frame = moving_picture(*size, 1, bit_depth)[0]
    meter = XpsnrMeter(*size, bit_depth, Fraction(25))
    (bad,) = worse([frame], 5)
    assert meter.add(frame, frame) == (math.inf,) * 3
    scores = meter.add(frame, bad)
    assert all(10 < score < 100 for score in scores)
    if size == (16, 16):
        assert scores[0] == pytest.approx(psnr(squared_errors(frame, bad)[0], bit_depth))


def test_vmaf_of_ten_bits() -> None:
    if not has_vmaf():
        pytest.skip("there is no ffmpeg with libvmaf")
    frames = moving_picture(*SIZE, 3, bit_depth=10)
    with Meters(["vmaf"], VideoInfo(*SIZE, bit_depth=10)) as meters:
        for frame in frames:
            meters.add(frame, frame)
        scores = meters.vmaf()
    assert scores is not None
    assert len(scores) == 3
    assert min(scores) > 90


# Frames of the same time


def pairs(reference: list[float], file: list[float]) -> list[tuple[int | None, int | None]]:
    """Numbers of matched frames. Times are in units of a usual distance."""
    empty = Frame(*(np.zeros((0, 0), np.uint8),) * 3)
    ours, theirs = (
        [Timed(n, Fraction(t).limit_denominator(1000), empty) for n, t in enumerate(times)]
        for times in (reference, file)
    )
    found: list[Pair] = list(match(ours, theirs, Fraction(1)))
    return [
        (None if p.reference is None else p.reference.number, None if p.file is None else p.file.number)
        for p in found
    ]


@pytest.mark.parametrize(
    ("reference", "file", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], [(0, 0), (1, 1), (2, 2)]),
        ([0, 1, 2], [0.01, 0.99, 2.02], [(0, 0), (1, 1), (2, 2)]),  # rounded times
        ([0, 1, 2, 3], [0, 1, 3], [(0, 0), (1, 1), (2, None), (3, 2)]),
        ([0, 1, 2], [0, 1], [(0, 0), (1, 1), (2, None)]),
        ([0, 1], [0, 1, 2, 3], [(0, 0), (1, 1), (None, 2), (None, 3)]),
        ([0, 1, 2], [0, 0.5, 1, 1.5, 2], [(0, 0), (None, 1), (1, 2), (None, 3), (2, 4)]),  # twice the rate
        ([0, 1, 2, 3, 4], [0, 2, 4], [(0, 0), (1, None), (2, 1), (3, None), (4, 2)]),  # half the rate
        ([0, 1, 2], [1, 2, 3], [(0, None), (1, 0), (2, 1), (None, 2)]),
        ([0, 0.1, 5, 5.5], [0, 0.11, 5.01, 5.5], [(0, 0), (1, 1), (2, 2), (3, 3)]),  # uneven times
        ([0, 10, 10.1], [0, 7, 10.1], [(0, 0), (None, 1), (1, None), (2, 2)]),
        ([0], [0.3], [(0, 0)]),
        ([0], [0.7], [(0, None), (None, 0)]),
        ([], [0], [(None, 0)]),
    ],
)
def test_frames_are_matched_by_time(
    reference: list[float], file: list[float], expected: list[tuple[int | None, int | None]]
) -> None:
    assert pairs(reference, file) == expected


def test_spans() -> None:
    assert spans(np.array([], np.int64)) == []
    assert spans(np.array([3, 4, 5, 9, 11, 12])) == [(3, 5), (9, 9), (11, 12)]


def test_uneven_times_in_another_time_base(frames: list[Frame], tmp_path: Path) -> None:
    times = [0, 33, 70, 75, 200, 201, 300, 333, 366, 1000]
    reference = store(tmp_path / "a.mkv", timed(frames, *times))
    finer = [replace(f, pts=90 * t + 7) for f, t in zip(worse(frames), times, strict=True)]
    with VideoWriter(tmp_path / "b.mp4", VideoInfo(*SIZE, time_base=Fraction(1, 90_000))) as writer:
        for frame in finer:
            writer.write(frame)
    found = compared(reference, tmp_path / "b.mp4").files[0]
    assert found.matched == FRAMES
    assert found.complete
    assert found.frames.times == pytest.approx([t / 1000 for t in times])


def test_missing_and_extra_frames_count_in_no_score(
    folder: Path, frames: list[Frame], tmp_path: Path
) -> None:
    bad = timed([f for n, f in enumerate(worse(frames)) if n not in (3, 4, 7)], 0, 40, 80, 200, 240, 320, 360)
    store(tmp_path / "bad.mkv", [*bad, replace(frames[0], pts=400), replace(frames[0], pts=440)])
    result = run("compare", folder / "ref.mkv", tmp_path / "bad.mkv", "--metrics", "psnr", "--json", "-q")
    assert result.exit_code == 3, result.output
    (values,) = json.loads(result.stdout)["files"]
    assert (values["frames"], values["matched_frames"]) == (9, 7)
    assert values["missing_frames"] == [[3, 4], [7, 7]]
    assert values["extra_frames"] == [[7, 8]]
    assert result.stderr == (
        f"Warning: {tmp_path / 'bad.mkv'}: 3 frames of the reference have no frame here: 3-4, 7\n"
        f"Warning: {tmp_path / 'bad.mkv'}: 2 frames have no frame in the reference: 7-8\n"
    )
    expected = Distortion(8)
    for number in (0, 1, 2, 5, 6, 8, 9):
        expected.add(frames[number], worse(frames)[number])
    assert values["scores"]["psnr_611"]["overall"] == pytest.approx(expected.psnr_611)


def test_times_count_from_the_first_frame_unless_asked(
    folder: Path, frames: list[Frame], tmp_path: Path
) -> None:
    late = store(tmp_path / "late.mkv", [replace(f, pts=f.pts + 40) for f in worse(frames)])
    found = compared(folder / "ref.mkv", late).files[0]
    assert (found.matched, found.complete) == (FRAMES, True)
    assert found.differences == ("its first frame is stored at 0.040 s and the reference's at 0.000 s",)
    found = compared(folder / "ref.mkv", late, stored_times=True).files[0]
    assert found.frames.missing() == [(0, 0)]
    assert found.frames.extra() == [(FRAMES - 1, FRAMES - 1)]
    assert found.matched == FRAMES - 1


def test_nothing_in_common_is_an_error(folder: Path, frames: list[Frame], tmp_path: Path) -> None:
    late = store(tmp_path / "late.mkv", [replace(f, pts=f.pts + 5000) for f in frames])
    message = refused(run("compare", folder / "ref.mkv", late, "--stored-times", "--metrics", "psnr"))
    assert "has the time of a frame" in message


# Videos of another form


def test_another_size_is_refused_or_scaled(folder: Path, frames: list[Frame], tmp_path: Path) -> None:
    small = store(tmp_path / "small.mkv", timed(moving_picture(48, 32, FRAMES)))
    both = (folder / "same.mkv", small)
    message = refused(run("compare", folder / "ref.mkv", *both, "--html", tmp_path / "a.html"))
    assert "48x32" in message
    assert "64x48" in message
    assert [p.name for p in tmp_path.iterdir()] == ["small.mkv"]
    found = compared(folder / "ref.mkv", *both, scale=True)
    assert found.files[0].differences == ()
    assert found.files[1].differences == ("it is 48x32 and was scaled to 64x48",)


def test_8_and_10_bits_are_compared_with_10(folder: Path, frames: list[Frame], tmp_path: Path) -> None:
    wide = [replace(f, **{p: getattr(f, p).astype(np.uint16) * 4 for p in "yuv"}) for f in frames]
    store(tmp_path / "wide.mkv", wide)
    noisy = store(tmp_path / "noisy.mkv", [replace(f, y=np.bitwise_xor(f.y, np.uint16(1))) for f in wide])
    for reference, file in (
        (folder / "ref.mkv", tmp_path / "wide.mkv"),
        (tmp_path / "wide.mkv", folder / "ref.mkv"),
    ):
        found = compared(reference, file).files[0]
        assert found.identical == FRAMES
        assert found.bit_depth == 10
        assert len(found.differences) == 1
        assert "compared with 10 bits" in found.differences[0]
    scores = compared(folder / "ref.mkv", noisy).files[0].scores
    assert scores["psnr_y"].overall == pytest.approx(20 * math.log10(1023), abs=1e-6), "an error of 1 of 1023"


def test_samples_keep_their_meaning() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = Frame(ramp, ramp, ramp)
    limited, full, deep = Form(8, False), Form(8, True), Form(10, True)
    assert ToForm(limited, limited)(frame) is frame
    wide = ToForm(limited, Form(10, False))(frame)
    assert np.array_equal(wide.y, ramp.astype(np.uint16) * 4)
    assert np.array_equal(wide.u, ramp.astype(np.uint16) * 4)
    moved = ToForm(limited, full)(frame)
    flat = moved.y.ravel()
    assert (flat[16], flat[235], flat[10], flat[250]) == (0, 255, 0, 255)
    assert (moved.u.ravel()[128], moved.u.ravel()[16], moved.u.ravel()[240]) == (128, 1, 255)
    deeper = ToForm(full, deep)(frame)
    assert (deeper.y.max(), deeper.y.min(), deeper.u.ravel()[128]) == (1023, 0, 512)


def test_another_range_is_converted_and_said(folder: Path, frames: list[Frame], tmp_path: Path) -> None:
    to_full = ToForm(Form(8, False), Form(8, True))
    full = store(tmp_path / "full.mkv", [to_full(f) for f in frames], full_range=True)
    found = compared(folder / "ref.mkv", full).files[0]
    assert found.differences == (
        "it has full range and the reference limited range: its samples are converted",
    )
    assert found.scores["psnr_611"].worst > 40, "no more than rounding, and what was clipped"


# Files


def test_vdf_and_media_files(folder: Path, base_weights: Path, tmp_path: Path) -> None:
    """A .vdf is decoded; its bits are known by chunks, and those of media files by packets."""
    vdf = tmp_path / "a.vdf"
    assert run("encode", folder / "ref.mkv", vdf, "--gop", 5, "--weights", base_weights, "-q").exit_code == 0
    assert (
        run("decode", vdf, tmp_path / "a.mkv", "--lossless", "--weights", base_weights, "-q").exit_code == 0
    )
    found = compared(vdf, tmp_path / "a.mkv", weights=base_weights).files[0]
    assert found.identical == FRAMES, "a .vdf may be the reference"
    coded, stored = compared(folder / "ref.mkv", vdf, tmp_path / "a.mkv", weights=base_weights).files
    assert coded.scores == stored.scores
    assert (coded.codec, stored.codec, coded.keyframe_distance) == ("viddiff", "ffv1", 5)
    assert (coded.bits_by_chunk, stored.bits_by_chunk) == (True, False)
    assert 0 < coded.video_bytes < vdf.stat().st_size
    assert coded.frames.bits().sum() == pytest.approx(8 * coded.video_bytes)
    assert len(set(coded.frames.bits()[1:5])) == 1, "a chunk"
    with av.open(str(tmp_path / "a.mkv")) as media:
        sizes = [packet.size for packet in media.demux(video=0) if packet.size]
    assert stored.frames.bits().tolist() == [8 * size for size in sizes]
    assert stored.kbps == pytest.approx(sum(sizes) / 125 / 0.4)


def test_a_last_frame_that_stays_lengthens_the_video(
    frames: list[Frame], base_weights: Path, tmp_path: Path
) -> None:
    source, vdf = tmp_path / "a.mkv", tmp_path / "a.vdf"
    store(source, [*frames[:-1], replace(frames[-1], duration=3000)])
    assert run("encode", source, vdf, "--gop", 5, "--weights", base_weights, "-q").exit_code == 0
    comparison = compared(source, vdf, weights=base_weights)
    seconds = 0.04 * (FRAMES - 1) + 3
    assert comparison.reference.seconds == pytest.approx(seconds)
    assert comparison.files[0].video.seconds == pytest.approx(seconds)
    about = json.loads(run("info", vdf, "--json").stdout)
    assert about["seconds"] == pytest.approx(seconds)
    assert about["gops"][-1]["kbps"] == pytest.approx(about["gops"][-1]["bytes"] / 125 / 3.16)


def test_backgrounds_count_for_the_first_keyframe_that_needs_them(tmp_path: Path) -> None:
    path = tmp_path / "a.vdf"
    with open(path, "wb") as file:
        writer = Writer(file, Header(VideoInfo(32, 16), bytes(32), "tiny", 16, base=True))
        for gop, background in enumerate((b"1" * 1000, b"", b"2" * 5000, b"1" * 1000)):
            writer.write(KeyChunk(20 * gop, b"abc", background=background))
            writer.write(PredictedChunk((20 * gop + 2, 20 * gop + 5), b"\0xyz"))
        writer.finish()
    found = bytes_of_frames(path, np.arange(12), Reading())
    keys = found.frames[::3]
    assert keys[1] < keys[3] < 100
    assert keys[[0, 2]] - keys[3] == pytest.approx([1000, 5000], abs=10)
    assert found.frames.sum() == pytest.approx(path.stat().st_size, abs=300)


def test_bytes_follow_the_order_of_display(tmp_path: Path) -> None:
    frames = timed(moving_picture(*SIZE, 12))
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(
                np.concatenate([p.reshape(-1, SIZE[0]) for p in frame.planes]), "yuv420p"
            )
            picture.pts, picture.time_base = frame.pts // 40, Fraction(1, 25)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    with av.open(str(path)) as media:
        packets = {p.pts: p.size for p in media.demux(video=0) if p.pts is not None}
    assert list(packets) != sorted(packets), "frames are coded in another order"
    times = np.array(sorted(packets), np.int64)
    assert bytes_of_frames(path, times, Reading()).frames.tolist() == [packets[t] for t in times]
    some = bytes_of_frames(path, times[::2], Reading()).frames
    assert some.sum() == sum(packets.values()), "what is not shown counts for the frame before"


def test_an_encrypted_file(folder: Path, base_weights: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    vdf, options = tmp_path / "a.vdf", ("--weights", base_weights, "-q", "--key-file", key)
    assert run("encode", folder / "ref.mkv", vdf, *options).exit_code == 0
    assert "--key-file" in refused(run("compare", folder / "ref.mkv", vdf, "--weights", base_weights))
    result = run("compare", folder / "ref.mkv", folder / "same.mkv", vdf, "--metrics", "psnr", *options)
    assert result.exit_code == 0, result.output


def test_damage_is_said(folder: Path, base_weights: Path, tmp_path: Path) -> None:
    vdf = tmp_path / "a.vdf"
    assert run("encode", folder / "ref.mkv", vdf, "--gop", 4, "--weights", base_weights, "-q").exit_code == 0
    data = bytearray(vdf.read_bytes())
    data[len(data) // 2] ^= 1
    vdf.write_bytes(data)
    result = run("compare", folder / "ref.mkv", vdf, "--metrics", "psnr", "--weights", base_weights)
    assert result.exit_code == 3, result.output
    assert "lost and shown as the one before" in result.stderr


def test_names_tell_files_apart(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.mkv").write_bytes((folder / "same.mkv").read_bytes())
    found = compared(folder / "ref.mkv", tmp_path / "a" / "x.mkv", tmp_path / "b" / "x.mkv")
    assert [file.video.name for file in found.files] == ["a/x.mkv", "b/x.mkv"]


# The command


def test_the_table(folder: Path) -> None:
    result = run(
        "compare", folder / "ref.mkv", folder / "same.mkv", folder / "worse.mkv", "--metrics", "ssim"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "ref.mkv: 64x48, 8 bits, 10 frames, 0.4 s"
    assert lines[2].split()[:4] == ["file", "size", "kbit/s", "bpp"]
    assert [line.split()[0] for line in lines[3:5]] == ["same.mkv", "worse.mkv"]
    assert "100.00" in lines[3]
    assert "harmonic" in result.stdout


def test_frames_as_csv(folder: Path, frames: list[Frame], tmp_path: Path) -> None:
    short = store(tmp_path / "short.mkv", [*worse(frames)[:-1], replace(frames[0], pts=500)])
    target = tmp_path / "frames.csv"
    result = run(
        "compare", folder / "ref.mkv", folder / "same.mkv", short, "--csv", target, "--metrics", "ssim"
    )
    assert result.exit_code == 3, result.output
    with open(target, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["match"] for row in rows] == ["matched"] * FRAMES + ["matched"] * 9 + ["missing", "extra"]
    assert [row["frame"] for row in rows[FRAMES:]] == [*map(str, range(FRAMES)), ""]
    assert rows[-1]["seconds"] == "0.500000"
    assert rows[-2]["psnr_y"] == rows[-1]["ssim"] == rows[-2]["bits"] == ""
    assert float(rows[0]["psnr_611"]) == 100
    assert all(int(row["bits"]) > 0 for row in rows if row["file_frame"])


def test_progress_counts_the_reference_for_every_file(folder: Path) -> None:
    seen: list[viddiff.Status] = []
    compared(folder / "ref.mkv", folder / "same.mkv", folder / "worse.mkv", progress=seen.append)
    assert {status.stage for status in seen} == {"compare"}
    assert [seen[-1].frames, seen[-1].total] == [2 * FRAMES, 2 * FRAMES]
    assert [s.frames for s in seen] == sorted(s.frames for s in seen)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--metrics psnr,fame same.mkv",
        "--against vp6 same.mkv",
        "--gop 0 same.mkv",
        "--csv a --html a same.mkv",
        "--csv - same.mkv",
        "--html - same.mkv",
        "--engine compiled --device cuda same.mkv",
    ],
)
def test_wrong_use(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    monkeypatch.chdir(folder)
    refused(run("compare", "ref.mkv", *arguments.split()), code=2)


def test_bad_files_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    text, empty = tmp_path / "text.mp4", tmp_path / "empty.vdf"
    text.write_text("not a video")
    empty.touch()
    reference = folder / "ref.mkv"
    assert "cannot be read" in refused(run("compare", reference, text))
    assert "cannot be read" in refused(run("compare", text, reference))
    assert "does not exist" in refused(run("compare", reference, tmp_path / "none.vdf"))
    assert "not a file" in refused(run("compare", reference, tmp_path))
    assert refused(run("compare", reference, empty)).startswith(f"Error: {empty}: ")
    assert "folder" in refused(run("compare", reference, reference, "--csv", tmp_path / "no" / "a.csv"))


def test_without_ffmpeg_vmaf_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("viddiff.media.vmaf.find_ffmpeg", lambda _: None)
    result = run("compare", folder / "ref.mkv", folder / "same.mkv")
    assert result.exit_code == 0, result.output
    assert "Note: VMAF is left out" in result.stderr
    assert "viddiff[vmaf]" in refused(
        run("compare", folder / "ref.mkv", folder / "same.mkv", "--metrics", "vmaf")
    )


@pytest.mark.parametrize("suffix", ["csv", "html"])
def test_no_file_of_others_is_replaced(folder: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == "html":
        pytest.importorskip("matplotlib")
    target = tmp_path / f"a.{suffix}"
    command = ("compare", folder / "ref.mkv", folder / "same.mkv", "--metrics", "psnr", f"--{suffix}", target)
    target.write_text("mine")
    assert "choose another name" in refused(run(*command, "--force"))
    assert target.read_text() == "mine"
    target.unlink()
    assert run(*command).exit_code == 0
    assert "--force" in refused(run(*command))
    assert run(*command, "--force").exit_code == 0
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make SIGINT work: background jobs of a shell ignore it, and tests in them, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_no_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes within the frames, while an ffmpeg measures VMAF if there is one."""
    add, count = Meters.add, list[int]()

    def interrupted(self: Meters, original: Frame, decoded: Frame) -> dict[str, float]:
        count.append(1)
        if len(count) == 4:
            signal.raise_signal(signal.SIGINT)
        return add(self, original, decoded)

    monkeypatch.setattr(Meters, "add", interrupted)
    result = run("compare", folder / "ref.mkv", folder / "same.mkv", "--csv", tmp_path / "a.csv")
    assert result.exit_code == 130, result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "pathconf") or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of frames does not fit; nothing partial stays."""

    def full(*_: object) -> None:
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr("viddiff.comparison.compare_files.write_frame_list", full)
    command = ("compare", folder / "ref.mkv", folder / "same.mkv", "--metrics", "psnr")
    assert "No space left" in refused(run(*command, "--csv", tmp_path / "a.csv"))
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    """Frames are gone when they are compared: 300 of them take no more than a few more megabytes than 30."""
    frame = moving_picture(320, 240, 1)[0]
    peaks = []
    for count in (30, 300):
        path = store(tmp_path / f"{count}.mkv", [replace(frame, pts=40 * n) for n in range(count)])
        code = (
            "import resource, sys, viddiff\n"
            "if __name__ == '__main__':\n"
            "    viddiff.compare(sys.argv[1], sys.argv[1], metrics=['ssim', 'xpsnr'])\n"
            "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        root = Path(viddiff.__file__).parent.parent
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 25, "270 frames would be 31 MB in each video"
