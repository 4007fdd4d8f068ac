"""--bitrate of streams: reached in one pass, smoothly, the same every time."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Thread

import av
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import moving_picture
from test_batch import ENVIRONMENT
from test_decoder_buffer import quantisers_of
from test_quality_target import write

import viddiff
from viddiff.cli import main
from viddiff.container.reader import Reader
from viddiff.errors import ViddiffError
from viddiff.media.picture_planes import picture_from_planes
from viddiff.pipeline.rate_model import CodedSpan, RateModel

SIZE, GOP, GOPS = (64, 48), 10, 30
SECONDS = GOP * GOPS / 25
HARD = 18
"""The first GOP that is hard."""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds, of which the last five are much harder, with 200 kbit of sound in each."""
    rng = np.random.default_rng(1)
    some = moving_picture(*SIZE, 4 * GOP)
    repeated = (some[number % len(some)] for number in range(GOP * GOPS))
    frames = [replace(frame, y=frame.y.copy()) for frame in repeated]
    for number, frame in enumerate(frames):
        if number // GOP >= HARD:
            frame.y[:] = (frame.y + rng.normal(0, 40, frame.y.shape)).clip(0, 255)
    path = tmp_path_factory.mktemp("video") / "in.mkv"
    with av.open(path, "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        track = output.add_stream("pcm_s16le", rate=12500, layout="mono")
        for number, frame in enumerate(frames):
            output.mux(stream.encode(picture_from_planes(frame.planes, 8)))
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 500), np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 12500, 500 * number
            output.mux(track.encode(samples))
        output.mux(stream.encode())
    return path


def streamed(video: Path, weights: Path, bitrate: int) -> tuple[bytes, "viddiff.EncodeResult"]:
    """What becomes of a named pipe, and the result."""
    out, pipe = io.BytesIO(), weights.parent / "pipe"
    os.mkfifo(pipe)
    feeder = Thread(target=lambda: pipe.write_bytes(video.read_bytes()), daemon=True)
    feeder.start()
    result = viddiff.encode(pipe, out, bitrate=bitrate, weights=weights, preset="fastest", gop=GOP, workers=1)
    feeder.join()
    pipe.unlink()
    return out.getvalue(), result


@pytest.fixture(scope="module")
def coded(video: Path, base_weights: Path) -> tuple[bytes, "viddiff.EncodeResult"]:
    return streamed(video, base_weights, 300_000)


def rates_of(data: bytes) -> list[float]:
    """Bits per second of each GOP and all that stands before the next."""
    offsets = [entry.offset for entry in Reader(io.BytesIO(data)).index()]
    return [8 * (end - start) / (GOP / 25) for start, end in pairwise([*offsets, len(data)])]


def test_the_rate_is_reached_with_sound_and_all(coded: tuple[bytes, "viddiff.EncodeResult"]) -> None:
    data, result = coded
    assert result.frames == GOP * GOPS
    rates, quantisers = rates_of(data), quantisers_of(data)
    assert np.mean(rates[6:HARD]) == pytest.approx(300_000, rel=0.05)
    assert rates[HARD] > 500_000, "what comes is not known"
    assert np.mean(rates[-5:]) == pytest.approx(300_000, rel=0.15)
    assert np.ptp(quantisers[6:HARD]) <= 8
    assert all(a <= b for a, b in pairwise(quantisers[HARD:])), "it gets coarser, and does not swing back"
    assert result.rate is not None
    assert result.rate.reached == pytest.approx(8 * len(data) / SECONDS, rel=0.01)
    assert result.rate.beyond_gops == 0
    assert "ended before that could be made up for" in result.notes[0], "it has a sixth more"
    assert result.quality == pytest.approx(63 * (252 - np.mean(quantisers)) / 220, abs=0.1)


def test_it_is_the_same_every_time(
    video: Path, base_weights: Path, coded: tuple[bytes, "viddiff.EncodeResult"]
) -> None:
    """From stdin to stdout, with more workers."""
    options = [
        "--bitrate",
        "300k",
        "--weights",
        base_weights,
        "--preset",
        "fastest",
        "--gop",
        GOP,
        "--workers",
        2,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "viddiff", "encode", "-", "-", *map(str, options), "--json", "--quiet"],
        input=video.read_bytes(),
        env=ENVIRONMENT,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == coded[0]
    assert json.loads(done.stderr.splitlines()[-1])["quality"] == round(coded[1].quality, 2)


@pytest.mark.parametrize("sound", [True, False])
def test_a_rate_that_cannot_be_kept_is_said(
    video: Path, base_weights: Path, tmp_path: Path, sound: bool
) -> None:
    """The sound alone takes more, or noise does at the lowest quality."""
    wanted, frames = (100, 3 * GOP) if sound else (5, 7 * GOP)
    rng = np.random.default_rng(2)
    noise = [
        replace(frame, y=rng.integers(0, 256, frame.y.shape, np.uint8))
        for frame in moving_picture(*SIZE, frames)
    ]
    source, out = video if sound else write(tmp_path / "in.mkv", noise), tmp_path / "out.vdf"
    command = [sys.executable, "-m", "viddiff", "encode", "-", str(out), "--bitrate", f"{wanted}k", "--json"]
    options = ["--weights", base_weights, "--preset", "fastest", "--gop", GOP, "--frames", frames]
    with open(source, "rb") as pipe:
        done = subprocess.run(
            command + list(map(str, options)), stdin=pipe, env=ENVIRONMENT, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    rate = json.loads(done.stdout.splitlines()[-1])["rate"]
    assert re.search(rf"but {wanted} were wanted: GOPs that .*: {rate['beyond_gops']}\n", done.stderr)
    assert rate["wanted"] == 1000 * wanted
    assert rate["reached"] == pytest.approx(8 * out.stat().st_size / frames * 25, rel=0.01)
    assert 1 <= rate["beyond_gops"] < frames / GOP, "the first one could not know"


def test_latency_and_chunks_are_as_without_a_rate(video: Path, base_weights: Path) -> None:
    """Each chunk is written before the next frame is read, in low delay."""
    taken, written = list[int](), list[int]()

    class Target(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object, /) -> int:
            written.append(len(taken))
            return memoryview(data).nbytes  # type: ignore[arg-type]

    def watch(status: viddiff.Status) -> None:
        taken.append(status.frames)

    with open(video, "rb") as source:
        result = viddiff.encode(
            source,
            Target(),  # type: ignore[arg-type]
            bitrate=300_000,
            low_delay=True,
            weights=base_weights,
            preset="fastest",
            gop=GOP,
            frames=3 * GOP,
            progress=watch,
        )
    assert result.frames == 3 * GOP
    assert [frames for frames in taken if frames] == list(range(1, 3 * GOP + 1))
    assert set(range(1, 3 * GOP + 1)) <= set(written), "something is written between any two frames"


def test_resume_is_refused(base_weights: Path, tmp_path: Path) -> None:
    for ends in (("-", tmp_path / "out.vdf"), (tmp_path / "in.mkv", "-"), ("rtsp://127.0.0.1/1", "-")):
        arguments = ["encode", *map(str, ends), "--bitrate", "1M", "--resume"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert "--bitrate cannot be resumed" in result.output


def test_a_size_still_needs_files(base_weights: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["encode", "-", str(tmp_path / "out.vdf"), "--size", "1M"])
    assert result.exit_code == 2
    assert "--size needs files" in result.output


def test_weights_without_a_base_are_refused(video: Path, weights: Path) -> None:
    with open(video, "rb") as source, pytest.raises(ViddiffError, match="--bitrate needs an AV1 base"):
        viddiff.encode(source, io.BytesIO(), bitrate=300_000, weights=weights)


def simulated(
    levels: list[float], seconds: float = 2.0, slope: float = 0.025, noise: float = 0.0
) -> tuple[list[int], list[float]]:
    """Quantisers and bits per second, as a share of the rate, of GOPs of a video with sound.

    levels: log2 of the pictures' rate at quantiser 140, as a share of the rate wanted.
    """
    rate, rng = 800_000, Random(7)
    model, quantisers, rates = RateModel(rate, 640 * 360 * 25.0), list[int](), list[float]()
    for level in levels:
        quantiser = model.next_quantiser()
        video = rate * 2 ** (level - slope * (quantiser - 140) + rng.gauss(0, noise))
        model.add(quantiser, CodedSpan(seconds, video * seconds, 0.1 * rate * seconds))
        quantisers.append(quantiser)
        rates.append(video / rate + 0.1)
    return quantisers, rates


@pytest.mark.parametrize("seconds", [0.04, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("slope", [0.015, 0.025, 0.04])
@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_still_content_gets_a_still_quantiser(seconds: float, slope: float, level: float) -> None:
    quantisers, rates = simulated([level] * int(180 / seconds), seconds, slope)
    last = quantisers[-len(quantisers) // 3 :]
    assert sum(a != b for a, b in pairwise(last)) <= 6, "within a minute"
    assert max(last) - min(last) <= 8
    assert np.mean(rates[-len(last) :]) == pytest.approx(1, rel=0.03)
    assert np.mean(rates) == pytest.approx(1, rel=0.12), "the first GOP is a guess"


def test_noise_is_not_followed() -> None:
    quantisers, rates = simulated([0.0] * 120, noise=0.2)
    assert np.std(quantisers[10:]) < 10, "the noise alone is 8"
    assert np.mean(rates) == pytest.approx(1, rel=0.02)


def test_content_that_changes_is_followed() -> None:
    quantisers, rates = simulated([-2.0] * 40 + [1.0] * 80)
    assert quantisers[-1] - quantisers[39] == pytest.approx(3 / 0.025, abs=12)
    assert np.mean(rates[80:]) == pytest.approx(1, rel=0.05)


def test_what_was_saved_is_not_spent_at_once() -> None:
    """After hours of nothing, the rate is not exceeded for long."""
    _, rates = simulated([-9.0] * 2000 + [0.0] * 60)
    assert np.mean(rates[2000:]) < 1.4
    assert np.mean(rates[2030:]) == pytest.approx(1, rel=0.05)
    _, rates = simulated([6.0] * 100 + [-1.0] * 60)
    assert np.mean(rates[120:]) == pytest.approx(1, rel=0.1), "nor is it paid back for ever"


def test_quantisers_stay_in_their_range() -> None:
    for level in (-30.0, 30.0):
        quantisers, _ = simulated([level] * 20)
        assert quantisers[-1] == (32 if level < 0 else 252)
    model = RateModel(1, 1.0)
    model.add(model.next_quantiser(), CodedSpan(0.0, 0.0, 0.0))
    assert 32 <= model.next_quantiser() <= 252
