"""--maxrate and --bufsize: the model of a decoder's buffer, computed anew from the file, holds."""

import io
import json
from fractions import Fraction
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from check_targets import events, least_filled
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_quality_target import interrupting, write

from viddiff.cli import main
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.frame import VideoInfo
from viddiff.pipeline.decoder_buffer import BufferLimit, DecoderBuffer, GopSizes
from viddiff.pipeline.encode_file import encode_file
from viddiff.pipeline.encode_job import EncodeJob

SIZE, GOP, HARD = (64, 48), 8, (1, 2, 4)
"""Size of pictures, frames of a GOP, and GOPs that take more bits than others."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six GOPs at 25 Hz, of which three are much harder, with 25 kB of sound each second."""
    rng = np.random.default_rng(1)
    frames = moving_picture(*SIZE, 6 * GOP)
    for number, frame in enumerate(frames):
        if number // GOP in HARD:
            frame.y[:] = (frame.y + rng.normal(0, 25, frame.y.shape)).clip(0, 255)
    return write(tmp_path_factory.mktemp("video") / "in.mkv", frames, sound=40)


def encode(video: object, out: object, weights: Path, *options: object) -> Result:
    common = ["--weights", weights, "--preset", "fastest", "--gop", GOP, "--quality", 40]
    return CliRunner().invoke(main, [str(a) for a in ["encode", video, out, *common, *options]])


def limited(video: Path, out: Path, weights: Path, limit: tuple[int, int], *options: object) -> Any:
    """Encode within a buffer. Returns what the result says of it."""
    rates = ("--maxrate", limit[0], "--bufsize", limit[1])
    result = encode(video, out, weights, *rates, "--json", "--quiet", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])["buffer"]


@pytest.fixture(scope="module")
def plain(video: Path, base_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file without a limit."""
    out = tmp_path_factory.mktemp("plain") / "out.vdf"
    assert encode(video, out, base_weights).exit_code == 0
    return out.read_bytes()


def quantisers_of(data: bytes) -> list[int]:
    """Quantisers of all GOPs."""
    return [chunk.payload[0] for chunk in Reader(io.BytesIO(data)) if isinstance(chunk, KeyChunk)]


def rate_of(data: bytes) -> int:
    """Bits per second of the pictures."""
    found = events(data)
    return int(8 * sum(size for _, size in found) / (6 * GOP / 25))


@pytest.mark.parametrize(("share", "seconds"), [(0.9, 0.3), (0.6, 0.5), (0.35, 1.5)])
def test_the_file_keeps_the_buffer_filled(
    video: Path, base_weights: Path, tmp_path: Path, plain: bytes, share: float, seconds: float
) -> None:
    maxrate = int(share * rate_of(plain))
    bufsize = int(seconds * maxrate)
    assert least_filled(events(plain), maxrate, bufsize) < 0
    report = limited(video, tmp_path / "out.vdf", base_weights, (maxrate, bufsize), "--verify")
    found = events((tmp_path / "out.vdf").read_bytes())
    least = least_filled(found, maxrate, bufsize)
    assert 0 <= least < 0.9
    assert report["least_filled"] == pytest.approx(float(least), abs=1e-4)
    assert (report["maxrate"], report["bufsize"]) == (maxrate, bufsize)
    assert 0 < report["coarser_gops"] <= 6
    assert 0 <= report["lowest_quality"] < 40
    all_bytes = sum(size for _, size in events(plain))
    assert sum(size for _, size in found) > 0.5 * share * all_bytes, "most of the rate is used"


def test_gops_that_need_not_be_coarser_are_as_without(
    video: Path, base_weights: Path, tmp_path: Path, plain: bytes
) -> None:
    out, rate = tmp_path / "out.vdf", rate_of(plain)
    report = limited(video, out, base_weights, (100 * rate, 100 * rate))
    assert out.read_bytes() == plain
    assert (report["coarser_gops"], round(report["lowest_quality"])) == (0, 40)
    out.unlink()
    report = limited(video, out, base_weights, (int(0.9 * rate), int(0.35 * rate)))
    assert 0 < report["coarser_gops"] < 6
    (asked,), quantisers = set(quantisers_of(plain)), quantisers_of(out.read_bytes())
    assert sum(quantiser > asked for quantiser in quantisers) == report["coarser_gops"]
    assert min(quantisers) == asked


def test_the_file_does_not_depend_on_workers(
    video: Path, base_weights: Path, tmp_path: Path, plain: bytes
) -> None:
    limit = int(0.6 * rate_of(plain)), int(0.4 * rate_of(plain))
    for workers in (1, 2):
        limited(video, tmp_path / f"{workers}.vdf", base_weights, limit, "--workers", workers)
    assert (tmp_path / "1.vdf").read_bytes() == (tmp_path / "2.vdf").read_bytes()


def test_resume_gives_the_same_file(video: Path, base_weights: Path, tmp_path: Path, plain: bytes) -> None:
    limit = int(0.6 * rate_of(plain)), int(0.4 * rate_of(plain))
    report = limited(video, tmp_path / "whole.vdf", base_weights, limit, "--workers", 1)
    common: dict[str, Any] = {"quality": 40, "preset": "fastest", "gop": GOP, "workers": 1, "shorten": False}
    common |= {"maxrate": limit[0], "bufsize": limit[1]}
    job = EncodeJob(source=video, target=tmp_path / "out.vdf", weights=base_weights, **common)
    with pytest.raises(KeyboardInterrupt):
        encode_file(job, interrupting(4 * GOP, KeyboardInterrupt))
    again = EncodeJob(source=video, target=tmp_path / "out.vdf", weights=base_weights, resume=True, **common)
    result = encode_file(again)
    assert (tmp_path / "out.vdf").read_bytes() == (tmp_path / "whole.vdf").read_bytes()
    assert result.buffer is not None
    assert result.buffer.coarser_gops == report["coarser_gops"]


@pytest.mark.parametrize("target", [["--size", "70k"], ["--min-psnr", "24", "--frames", "16"]])
def test_with_a_target(
    video: Path, base_weights: Path, tmp_path: Path, plain: bytes, target: list[str]
) -> None:
    out, limit = tmp_path / "out.vdf", (rate_of(plain), rate_of(plain))
    rates = ["--maxrate", limit[0], "--bufsize", limit[1]]
    common = ["--weights", base_weights, "--preset", "fastest", "--gop", GOP, "--workers", 1, *rates]
    result = CliRunner().invoke(main, [str(a) for a in ["encode", video, out, *common, *target]])
    assert result.exit_code == 0, result.output
    assert "buffer at least" in result.output
    assert least_filled(events(out.read_bytes()), *limit) >= 0
    assert out.stat().st_size <= 70_000 or "--size" not in target


def test_what_cannot_hold_is_one_sentence(video: Path, base_weights: Path, tmp_path: Path) -> None:
    result = encode(
        video, tmp_path / "out.vdf", base_weights, "--maxrate", "1k", "--bufsize", "2k", "--quiet"
    )
    assert result.exit_code == 1
    assert "even at the lowest quality" in result.output
    assert "bits for what is shown after 0.0" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_the_buffer_keeps_out_of_reach(
    video: Path, base_weights: Path, tmp_path: Path, plain: bytes
) -> None:
    rates = ["--maxrate", rate_of(plain), "--bufsize", rate_of(plain), "--min-psnr", 90]
    common = ["--weights", base_weights, "--preset", "fastest", "--gop", GOP, "--workers", 1, "--quiet"]
    result = CliRunner().invoke(
        main, [str(a) for a in ["encode", video, tmp_path / "out.vdf", *common, *rates]]
    )
    assert result.exit_code == 1
    assert result.output.startswith("Error: even at quality 63 within --maxrate and --bufsize, PSNR")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--maxrate", "1M"], "give both"),
        (["--bufsize", "1M"], "give both"),
        (["--maxrate", "1M", "--bufsize", "0"], "number"),
        (["--maxrate", "1M", "--bufsize", "1M", "--base", "none"], "AV1 base"),
    ],
)
def test_wrong_use(video: Path, base_weights: Path, tmp_path: Path, options: list[str], why: str) -> None:
    result = encode(video, tmp_path / "out.vdf", base_weights, *options)
    assert result.exit_code == 2
    assert why in result.output


@pytest.mark.parametrize("source", ["-", "rtsp://127.0.0.1/1"])
def test_pipes_and_live_sources_are_refused(base_weights: Path, tmp_path: Path, source: str) -> None:
    result = encode(source, tmp_path / "out.vdf", base_weights, "--maxrate", "1M", "--bufsize", "1M")
    assert result.exit_code == 2
    assert "--maxrate needs a file" in result.output


def test_weights_without_a_base_are_refused(video: Path, weights: Path, tmp_path: Path) -> None:
    result = encode(video, tmp_path / "out.vdf", weights, "--maxrate", "1M", "--bufsize", "1M", "--quiet")
    assert result.exit_code == 1
    assert "AV1 base" in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_buffer_is_a_leaky_bucket() -> None:
    """By hand: 1000 bits a second into 1000 bits, chunks at 0, 1, 3 and 3.5 s."""
    video = VideoInfo(64, 48, time_base=Fraction(1, 2), frame_rate=Fraction(2))
    buffer = DecoderBuffer(BufferLimit(1000, 1000), video, 100)
    buffer.take(KeyChunk(0, bytes([100])), 100)  # 900 - 800
    assert buffer.report().least_filled == pytest.approx(0.1)
    following = GopSizes(120, (2, 6, 7), (1000, 1000, 500), 8)
    assert buffer.holds(following, reserve=False)  # 1000 (full at 0.9 s): 0, 1000: 0, 500: 0
    assert buffer.holds(GopSizes(120, (2, 6, 7), (1000, 1000, 501), 8), reserve=False) is False
    assert buffer.first_late(GopSizes(120, (2, 6, 7), (1000, 1000, 501), 8)) == (3.5, 1)
    assert not buffer.holds(following, reserve=True)  # 500 are left, and 1000 are needed at once
    assert buffer.room(following, reserve=False) == pytest.approx(0, abs=0.01)
    assert buffer.room(following, reserve=True) == pytest.approx(log2(0.8), abs=0.01)
    assert following.moved(10).times == (10, 14, 15)
    for time, size in ((2, 125), (6, 125), (7, 62)):
        chunk = KeyChunk(time, bytes([120])) if time == 2 else PredictedChunk((time,), b"")
        buffer.take(chunk, size)
    report = buffer.report()
    assert report.least_filled == 0
    assert report.coarser_gops == 1
    assert buffer.before == GopSizes(120, (2, 6, 7), (1000, 1000, 496), 8)


def test_sizes_are_those_of_the_file() -> None:
    """Also with backgrounds, which are written once and repeated after many GOPs."""
    rng = np.random.default_rng(2)
    out = io.BytesIO()
    writer = Writer(out, Header(VideoInfo(64, 48), bytes(32), "x", 300, base=True))
    time = 0
    for number in range(150):
        background = bytes([1 + number // 50]) * 300 if number % 3 else b""
        chunks: list[Chunk] = [
            KeyChunk(time, rng.bytes(int(rng.integers(1, 200))), background=background),
            PredictedChunk((time + 1, time + 3), rng.bytes(int(rng.integers(1, 40)))),
            PredictedChunk(tuple(range(time + 4, time + 8)), rng.bytes(int(rng.integers(100, 20_000)))),
        ]
        promised, before = writer.sizes(chunks), writer.size_bytes
        assert writer.size_bytes == before
        for chunk, size in zip(chunks, promised, strict=True):
            assert writer.sizes([chunk]) == [size]
            before = writer.size_bytes
            writer.write(chunk)
            assert writer.size_bytes - before == size
        time += 1000
