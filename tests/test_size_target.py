"""--size and --bitrate: never larger, hardly smaller, complete or not at all."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture

from viddiff.cli import main
from viddiff.errors import OutputError, ViddiffError
from viddiff.media.picture_planes import picture_from_planes
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.size_target import Run, encode_to_size
from viddiff.pipeline.status import Observer, ignore
from viddiff.pipeline.summary import LedgerRow

FRAMES = 150


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, with 16 kB of sound each."""
    path = tmp_path_factory.mktemp("video") / "in.mkv"
    with av.open(path, "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in moving_picture(96, 80, FRAMES):
            output.mux(stream.encode(picture_from_planes(frame.planes, 8)))
        output.mux(stream.encode())
        for second in range(FRAMES // 25):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 8000, 8000 * second
            output.mux(sound.encode(samples))
        output.mux(sound.encode())
    return path


def encode(video: Path, out: Path, weights: Path, *options: str) -> Result:
    arguments = [str(video), str(out), "--weights", str(weights), "--preset", "fastest", "--workers", "1"]
    return CliRunner().invoke(main, ["encode", *arguments, *options])


@pytest.mark.parametrize("share", [0.6, 1.0, 1.6])
def test_size(video: Path, base_weights: Path, tmp_path: Path, share: float) -> None:
    middle = tmp_path / "middle.vdf"
    assert encode(video, middle, base_weights, "--audio", "none").exit_code == 0
    out, wanted = tmp_path / "out.vdf", 100_000 + int(share * middle.stat().st_size)
    result = encode(video, out, base_weights, "--size", str(wanted), "--json", "--quiet", "--verify")
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert 0.98 * wanted <= out.stat().st_size <= wanted
    assert values["bytes"] == out.stat().st_size
    assert values["verified"]
    assert (values["quality"] < 32) == (share < 1) or share == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["middle.vdf", "out.vdf"]


def test_bitrate_counts_the_sound(video: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.vdf"
    result = encode(video, out, base_weights, "--bitrate", "180k")
    assert result.exit_code == 0, result.output
    wanted = 180_000 / 8 * FRAMES / 25
    assert 0.97 * wanted <= out.stat().st_size <= wanted
    assert ", quality " in result.output


def test_too_small_is_one_sentence(video: Path, base_weights: Path, tmp_path: Path) -> None:
    result = encode(video, tmp_path / "out.vdf", base_weights, "--size", "97k", "--quiet")
    assert result.exit_code == 1
    assert "even at the lowest quality" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_more_than_the_best_quality_takes_is_the_best(
    video: Path, base_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.vdf"
    result = encode(video, out, base_weights, "--size", "1G", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["quality"] == 63


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--size", "1M", "--bitrate", "1M"], "one of"),
        (["--size", "1M", "--quality", "3"], "quality"),
        (["--size", "1M", "--base", "none"], "base"),
        (["--size", "1M", "--resume"], "resumed"),
        (["--size", "none"], "number"),
        (["--bitrate", "0"], "number"),
        (["--bitrate", "1T"], "number"),
    ],
)
def test_wrong_use(video: Path, base_weights: Path, tmp_path: Path, options: list[str], why: str) -> None:
    result = encode(video, tmp_path / "out.vdf", base_weights, *options)
    assert result.exit_code == 2
    assert why in result.output


def test_pipes_are_refused(video: Path, base_weights: Path) -> None:
    result = CliRunner().invoke(
        main, ["encode", str(video), "-", "--size", "1M", "--weights", str(base_weights)]
    )
    assert result.exit_code == 2
    assert "files" in result.output


def interrupted_in(number: int, sizes: list[int]) -> Run:
    """Encodes of these sizes. Ctrl-C ends the pass of this number at the job's preset."""
    passes = list[int]()

    def run(job: EncodeJob, _: Observer) -> EncodeResult:
        size, end = 1_000_000, None
        if isinstance(job.target, Path):
            size = sizes[len(passes)]
            passes.append(size)
            job.target.write_bytes(b"%d" % len(passes))
            end = KeyboardInterrupt() if len(passes) == number else None
        ledger = LedgerRow("base", size - 5000), LedgerRow("other", 5000)
        return EncodeResult(None, 64, 64, 250, 2, size, 10.0, 0.0, 0, ledger, 1.0, False, ended_by=end)

    return run


def test_an_interrupted_pass_does_not_replace_a_whole_file(video: Path, tmp_path: Path) -> None:
    job = EncodeJob(source=video, target=tmp_path / "out.vdf", size=1_000_000)
    result = encode_to_size(job, interrupted_in(2, [900_000, 300_000]), ignore)
    assert result.size_bytes == 900_000
    assert isinstance(result.ended_by, KeyboardInterrupt)
    assert (tmp_path / "out.vdf").read_bytes() == b"1"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_coded_file_stays_if_another_has_appeared(video: Path, tmp_path: Path) -> None:
    job = EncodeJob(source=video, target=tmp_path / "out.vdf", size=1_000_000)
    (tmp_path / "out.vdf").write_bytes(b"other")
    with pytest.raises(OutputError, match="what is coded is in") as error:
        encode_to_size(job, interrupted_in(0, [990_000]), ignore)
    assert Path(str(error.value).rpartition(" in ")[2]).read_bytes() == b"1"
    assert (tmp_path / "out.vdf").read_bytes() == b"other"


@pytest.mark.parametrize("slope", [-0.01, -0.025, -0.05])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("wanted", [30_000, 1_000_000, 20_000_000])
def test_few_passes(video: Path, tmp_path: Path, slope: float, ratio: float, wanted: int) -> None:
    """Whatever a video's curve looks like, and however far the quick preset is off."""
    passes = []

    def run(job: EncodeJob, _: Observer) -> EncodeResult:
        assert job.quantiser is not None
        level = 2 ** (slope * (job.quantiser - 140)) * 1_000_000 * (ratio if job.preset == "fastest" else 1)
        size = int(level * (1 + 0.004 * (job.quantiser % 3))) + 5000
        if isinstance(job.target, Path):
            passes.append(job.quantiser)
            job.target.write_bytes(b"x")
        ledger = LedgerRow("base", size - 5000), LedgerRow("other", 5000)
        return EncodeResult(None, 64, 64, 250, 2, size, 10.0, 0.0, 0, ledger, 1.0, False)

    job = EncodeJob(source=video, target=tmp_path / "out.vdf", size=wanted)
    if 2 ** (slope * 112) * 1_000_000 + 5000 > wanted:
        with pytest.raises(ViddiffError, match="lowest quality"):
            encode_to_size(job, run, ignore)
        assert list(tmp_path.iterdir()) == []
    else:
        result = encode_to_size(job, run, ignore)
        assert 0.97 * 2**slope * wanted <= result.size_bytes <= wanted or passes[-1] == 32
        assert [file.name for file in tmp_path.iterdir()] == ["out.vdf"]
    assert len(passes) <= 4
