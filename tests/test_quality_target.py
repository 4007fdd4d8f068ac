"""Quality targets and --max-encoded-percent: reached by the smallest quality, or no file."""

import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import fixed_camera, moving_picture
from test_batch import ENVIRONMENT
from test_docs import DOCS, first_cells, named, sections

import viddiff
from viddiff.cli import NOT_WORTH_IT, main
from viddiff.errors import TargetError, TooLargeError
from viddiff.frame import Frame
from viddiff.media.picture_planes import picture_from_planes
from viddiff.media.vmaf import has_vmaf
from viddiff.pipeline import quality_target
from viddiff.pipeline.encode_file import encode_file
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.quality_goal import QualityGoal
from viddiff.pipeline.quality_search import Search
from viddiff.pipeline.sample_spans import samples_of
from viddiff.pipeline.status import Status, ignore

SIZE, GOP, GOPS = (64, 48), 8, 6
SAMPLED = (0, 2, 3, 5)
"""GOPs of `long` that are samples."""
OVERALL = {"mean": "mean", "harmonic": "harmonic_mean", "p5": "p5"}


def write(path: Path, frames: list[Frame], sound: int = 0) -> Path:
    """A video at 25 Hz, and `sound` packets of 1000 bytes each."""
    with av.open(path, "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        track = output.add_stream("pcm_s16le", rate=12500, layout="mono")
        for frame in frames:
            output.mux(stream.encode(picture_from_planes(frame.planes, 8)))
        output.mux(stream.encode())
        for number in range(sound):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 500), np.int16), "s16", "mono")
            samples.sample_rate, samples.pts = 12500, 500 * number
            output.mux(track.encode(samples))
        output.mux(track.encode())
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that is its own sample."""
    return write(tmp_path_factory.mktemp("short") / "in.mkv", moving_picture(*SIZE, 20), sound=20)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of six GOPs of `GOP` frames. The two that are no samples are much harder."""
    rng = np.random.default_rng(1)
    frames = moving_picture(*SIZE, GOP * GOPS)
    for number, frame in enumerate(frames):
        if number // GOP not in SAMPLED:
            frame.y[:] = (frame.y + rng.normal(0, 25, frame.y.shape)).clip(0, 255)
    return write(tmp_path_factory.mktemp("long") / "in.mkv", frames)


def arguments(video: Path, out: Path, weights: Path, *options: str) -> list[str]:
    common = ["--weights", str(weights), "--preset", "fastest", "--workers", "1"]
    return ["encode", str(video), str(out), *common, *options]


def encode(video: Path, out: Path, weights: Path, *options: str) -> Result:
    return CliRunner().invoke(main, arguments(video, out, weights, *options))


def found(result: Result) -> dict[str, Any]:
    """The result in JSON."""
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return values


def refused(result: Result, video: Path) -> dict[str, Any]:
    """What is said in JSON of a file that would be too large."""
    assert result.exit_code == NOT_WORTH_IT, result.output
    values: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert named(first_cells(sections(DOCS / "json.md")["encode that gives up"])) == set(values)
    assert values["input"] == str(video)
    assert f"Not worth it: {values['too_large']}" in result.stderr
    assert values["source_bytes"] == video.stat().st_size
    return values


def score(video: Path, out: Path, weights: Path, measure: str, pool: str = "mean") -> float:
    """What a comparison says of a file."""
    metric = measure.removesuffix("_611")
    compared = viddiff.compare(video, out, metrics=[metric], weights=weights, workers=1)
    assert compared.complete
    value: float = getattr(compared.files[0].scores[measure], OVERALL[pool])
    return value


@pytest.mark.parametrize(
    ("metric", "measure", "wanted", "pool"),
    [
        ("psnr", "psnr_611", 34, "p5"),
        ("xpsnr", "xpsnr_611", 35, "harmonic"),
        ("vmaf", "vmaf", 90, "mean"),
    ],
)
def test_the_quality_is_the_smallest_that_reaches_it(
    short: Path, base_weights: Path, tmp_path: Path, metric: str, measure: str, wanted: float, pool: str
) -> None:
    if metric == "vmaf" and not has_vmaf():
        pytest.skip("there is no ffmpeg with libvmaf")
    out, lower = tmp_path / "out.vdf", tmp_path / "lower.vdf"
    options = (f"--min-{metric}", str(wanted), "--pool", pool, "--json", "--quiet")
    values = found(encode(short, out, base_weights, *options))
    target = values["target"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.vdf"]
    assert (target["measure"], target["pool"], target["wanted"]) == (measure, pool, wanted)
    assert target["encodes"] == 1
    assert 0 < values["quality"] < 63
    assert target["reached"] >= wanted
    assert target["predicted"] == target["reached"], "all of the video was the sample"
    assert score(short, out, base_weights, measure, pool) == pytest.approx(target["reached"], abs=1e-3)
    encode(short, lower, base_weights, "--quality", str(values["quality"] - 1))
    assert score(short, lower, base_weights, measure, pool) < wanted


def test_samples_that_mislead_are_corrected(long: Path, base_weights: Path, tmp_path: Path) -> None:
    """At the fastest preset, nothing but the whole encode shows that the samples are too easy."""
    wanted = 34.0
    out, lower = tmp_path / "out.vdf", tmp_path / "lower.vdf"
    options = ("--gop", str(GOP), "--min-psnr", str(wanted), "--json")
    result = encode(long, out, base_weights, *options)
    values = found(result)
    assert values["target"]["encodes"] > 1
    assert "promised" in result.stderr
    assert score(long, out, base_weights, "psnr_611") == pytest.approx(values["target"]["reached"], abs=1e-3)
    assert values["target"]["reached"] >= wanted
    encode(long, lower, base_weights, "--quality", str(values["quality"] - 2), "--gop", str(GOP))
    assert score(long, lower, base_weights, "psnr_611") < wanted


def test_the_last_but_one_encode_is_on_the_safe_side(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of a video whose samples mislead. Missed by 0.04 dB, the last encode would be at quality 63."""
    curve = {51: 39.03, 55: 39.73, 56: 39.96, 57: 40.26, 63: 42.52}
    qualities = list[int]()

    def run(job: EncodeJob, _: Any, judge: Any = None) -> EncodeResult:
        qualities.append(job.quality)
        judge(short)
        return EncodeResult(None, *SIZE, 20, 1, 1000, job.quality, 0.0, 0, (), 1.0, False)

    monkeypatch.setattr(quality_target, "frame_scores", lambda *_: curve[qualities[-1]])
    monkeypatch.setattr(quality_target, "pooled", lambda score, _: score)
    samples: Any = SimpleNamespace(slope=0.08, goal=QualityGoal("xpsnr", 40, "p5"), promised=lambda _: 40.07)
    told = quality_target._Told(ignore)
    job = EncodeJob(source=short, workers=1)
    quality_target._Wholes(job, run, told, samples, None).encode(51)
    assert qualities == [51, 63, 55, 57]


def test_a_quick_look_at_all_spares_an_encode(long: Path, base_weights: Path, tmp_path: Path) -> None:
    options = ("--gop", str(GOP), "--min-psnr", "35", "--json", "--quiet", "--preset", "default", "--verify")
    values = found(encode(long, tmp_path / "out.vdf", base_weights, *options))
    assert values["target"]["encodes"] <= 2, "more without it, as above"
    assert values["target"]["reached"] >= 35
    assert values["verified"]


def test_what_cannot_be_reached_leaves_nothing(short: Path, base_weights: Path, tmp_path: Path) -> None:
    result = encode(short, tmp_path / "out.vdf", base_weights, "--min-psnr", "70", "--quiet")
    assert result.exit_code == 1
    best = float(result.output.partition("quality 63, PSNR 6:1:1 (mean) is ")[2].partition(",")[0])
    assert 40 < best < 70
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    encode(short, tmp_path / "best.vdf", base_weights, "--quality", "63")
    assert score(short, tmp_path / "best.vdf", base_weights, "psnr_611") == pytest.approx(best, abs=0.01)


def test_without_ffmpeg_nothing_is_encoded(
    short: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viddiff.media.vmaf.find_ffmpeg", lambda _: None)
    monkeypatch.setattr("viddiff.pipeline.encode_file.encode_video", None)
    result = encode(short, tmp_path / "out.vdf", base_weights, "--min-vmaf", "90", "--quiet")
    assert result.exit_code == 1
    assert "viddiff[vmaf]" in result.output
    assert list(tmp_path.iterdir()) == []


def test_frames_that_are_too_small_for_vmaf(short: Path, base_weights: Path, tmp_path: Path) -> None:
    if not has_vmaf():
        pytest.skip("there is no ffmpeg with libvmaf")
    result = encode(
        short, tmp_path / "out.vdf", base_weights, "--min-vmaf", "90", "--scale", "32x24", "--quiet"
    )
    assert result.exit_code == 1
    assert "VMAF cannot be measured at 32x24" in result.output


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--min-psnr", "40", "--size", "1M"], "one of"),
        (["--min-psnr", "40", "--bitrate", "1M"], "one of"),
        (["--min-psnr", "40", "--min-vmaf", "90"], "one of"),
        (["--min-psnr", "40", "--quality", "30"], "--quality"),
        (["--min-psnr", "0"], "more than 0"),
        (["--min-vmaf", "101"], "at most 100"),
        (["--min-xpsnr", "nan"], "at most 100"),
        (["--pool", "p5"], "--pool"),
        (["--min-psnr", "40", "--pool", "worst"], "p5"),
        (["--max-encoded-percent", "0"], "more than 0"),
        (["--max-encoded-percent", "nan"], "more than 0"),
        (["--max-encoded-percent", "80", "--size", "1M"], "--size"),
        (["--max-encoded-percent", "80", "--start", "2"], "--start"),
        (["--max-encoded-percent", "80", "--frames", "2"], "--frames"),
        (["--min-psnr", "40", "--verify", "--resume"], "--verify"),
    ],
)
def test_wrong_use(short: Path, base_weights: Path, tmp_path: Path, options: list[str], why: str) -> None:
    result = encode(short, tmp_path / "out.vdf", base_weights, *options)
    assert result.exit_code == 2
    assert why in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--min-psnr", "--min-vmaf", "--max-encoded-percent"])
@pytest.mark.parametrize("ends", [("{video}", "-"), ("-", "out.vdf"), ("rtsp://127.0.0.1/1", "out.vdf")])
def test_pipes_and_live_sources_are_refused(short: Path, option: str, ends: tuple[str, str]) -> None:
    source, target = (end.format(video=short) for end in ends)
    result = CliRunner().invoke(main, ["encode", source, target, option, "40"])
    assert result.exit_code == 2
    assert f"{option} needs files" in result.output


@pytest.mark.parametrize("wanted", [["--min-psnr", "36"], ["--max-encoded-percent", "80"]])
def test_an_interrupted_look_leaves_nothing(
    short: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str]
) -> None:
    def interrupted(*_: object) -> None:
        assert list(tmp_path.iterdir()), "a look is under way"
        raise KeyboardInterrupt

    monkeypatch.setattr("viddiff.pipeline.encode_file.verify", interrupted)
    monkeypatch.setattr("viddiff.pipeline.output.Output.finish", interrupted)
    result = encode(short, tmp_path / "out.vdf", base_weights, *wanted, "--quiet")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


def interrupting(frames: int, error: Callable[[], BaseException]) -> Callable[[Status], None]:
    """An observer that ends the encode of the whole video after so many frames."""

    def observe(status: Status) -> None:
        if status.stage == "encode" and status.frames >= frames:
            raise error()

    return observe


def test_ctrl_c_completes_a_shorter_file(long: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.vdf"
    job = EncodeJob(
        source=long, target=out, gop=GOP, min_psnr=33, weights=base_weights, preset="fastest", workers=1
    )
    result = encode_file(job, interrupting(2 * GOP, KeyboardInterrupt))
    assert isinstance(result.ended_by, KeyboardInterrupt)
    assert result.frames == 2 * GOP
    assert result.quality_goal is not None
    assert result.quality_goal.reached is None
    assert [file.name for file in tmp_path.iterdir()] == ["out.vdf"]


def test_resume_goes_on_with_the_encode(long: Path, base_weights: Path, tmp_path: Path) -> None:
    out, plain = tmp_path / "out.vdf", tmp_path / "plain.vdf"
    common: dict[str, Any] = {"gop": GOP, "weights": base_weights, "preset": "fastest", "workers": 1}
    wanted: dict[str, Any] = {
        "min_psnr": 10.0,
        "shorten": False,
    }  # which quality 0 gives
    job = EncodeJob(source=long, target=out, **common, **wanted)
    with pytest.raises(KeyboardInterrupt) as end:
        encode_file(job, interrupting(3 * GOP, KeyboardInterrupt))
    assert "--resume" in end.value.__notes__[0]
    assert len(list(tmp_path.iterdir())) == 1

    statuses = list[Status]()
    job = EncodeJob(source=long, target=out, **common, **wanted, resume=True)
    result = encode_file(job, statuses.append)
    coded = [status.frames for status in statuses if status.stage == "encode" and status.frames]
    assert min(coded) > GOP, "the first GOPs are not coded again"
    assert [file.name for file in tmp_path.iterdir()] == ["out.vdf"]
    encode_file(EncodeJob(source=long, target=plain, **common, quality=round(result.quality)))
    assert out.read_bytes() == plain.read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from viddiff.pipeline.encode_file import encode_file
from viddiff.pipeline.encode_job import EncodeJob

def watch(status):
    if status.stage == "encode, pass 2" and status.frames > 16:
        os.kill(os.getpid(), signal.SIGKILL)

source, target, weights = map(Path, sys.argv[1:])
options = {"gop": 8, "min_psnr": 34.0, "preset": "fastest", "workers": 1}
encode_file(EncodeJob(source=source, target=target, weights=weights, **options), watch)
"""
"""Encodes `long` until the second GOP of the second encode of the whole is coded."""


def test_a_killed_encode_goes_on_to_the_same_file(long: Path, base_weights: Path, tmp_path: Path) -> None:
    """The search is made again and comes to the same end, whichever encode of the whole was killed."""
    plain, out = tmp_path / "plain.vdf", tmp_path / "out.vdf"
    options = ("--gop", "8", "--min-psnr", "34", "--quiet", "--json")
    whole = found(encode(long, plain, base_weights, *options))
    assert whole["target"]["encodes"] > 1
    command = [sys.executable, "-c", KILLED, *map(str, (long, out, base_weights))]
    assert subprocess.run(command, env=ENVIRONMENT).returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".*.part")
    assert left.stat().st_size
    again = found(encode(long, out, base_weights, *options, "--resume"))
    assert (again["quality"], again["target"]) == (whole["quality"], whole["target"])
    assert out.read_bytes() == plain.read_bytes()
    assert set(tmp_path.iterdir()) == {plain, out}, "nothing is left of the other qualities"


def test_the_observer_hears_what_is_wanted_promised_and_reached(
    short: Path, base_weights: Path, tmp_path: Path
) -> None:
    statuses = list[Status]()
    result = viddiff.encode(
        short,
        tmp_path / "out.vdf",
        min_psnr=36,
        weights=base_weights,
        preset="fastest",
        workers=1,
        progress=statuses.append,
    )
    goals = [status.quality_goal for status in statuses]
    assert all(goal is not None and goal.wanted == 36 for goal in goals)
    looks = [status for status in statuses if status.stage.startswith("look")]
    assert {status.quality_goal.predicted for status in looks if status.quality_goal} == {None}
    assert all(status.frames <= (status.total or 0) for status in looks)
    assert result.quality_goal is not None
    assert goals[-1] is not None
    assert goals[-1].predicted == result.quality_goal.predicted
    assert result.quality_goal.reached is not None
    assert result.quality_goal.sample_encodes == int(looks[-1].stage.removeprefix("look "))


def test_an_encrypted_file_reaches_it(
    short: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDDIFF_PASSPHRASE", "open sesame")
    plain, sealed = (
        found(encode(short, tmp_path / name, base_weights, "--min-psnr", "36", "--json", "-q", *options))
        for name, options in (("plain.vdf", []), ("sealed.vdf", ["--encrypt"]))
    )
    assert sealed["quality"] == plain["quality"]
    assert sealed["target"]["reached"] == plain["target"]["reached"]


def test_without_a_base(short: Path, weights: Path, tmp_path: Path) -> None:
    """Any weights can reach a quality, also those that predict frames."""
    out = tmp_path / "out.vdf"
    values = found(encode(short, out, weights, "--frames", "1", "--min-psnr", "36", "--json", "--quiet"))
    assert values["target"]["reached"] >= 36
    assert 0 < values["quality"] < 63
    assert values["ledger"][0]["part"] == "keyframes"


@pytest.mark.parametrize("wanted", [["--quality", "32"], ["--min-psnr", "36"]])
def test_what_does_not_pay_is_given_up_before_it_is_encoded(
    short: Path, base_weights: Path, tmp_path: Path, wanted: list[str]
) -> None:
    whole = found(encode(short, tmp_path / "whole.vdf", base_weights, *wanted, "--json", "--quiet"))
    percent = 100 * whole["bytes"] / short.stat().st_size
    result = encode(
        short, tmp_path / "out.vdf", base_weights, *wanted, "--max-encoded-percent", f"{percent * 0.9}"
    )
    assert result.exit_code == NOT_WORTH_IT
    assert "Not worth it" in result.output
    assert "would become about" in result.output
    assert [file.name for file in tmp_path.iterdir()] == ["whole.vdf"]
    options = (*wanted, "--max-encoded-percent", f"{percent * 0.9}", "--json", "--quiet")
    assert refused(encode(short, tmp_path / "out.vdf", base_weights, *options), short)["coded_bytes"] is None
    options = (*wanted, "--max-encoded-percent", f"{percent * 1.1}", "--json", "--quiet")
    values = found(encode(short, tmp_path / "out.vdf", base_weights, *options))
    assert values["bytes"] == whole["bytes"]
    assert 0 < values["bytes"] - values["predicted_bytes"] < 2500, "what the container takes; 20 kB are sound"


@pytest.mark.parametrize(("factor", "code"), [(1.2, 0), (1.4, NOT_WORTH_IT)])
def test_samples_alone_refuse_only_what_is_clearly_too_large(
    long: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, code: int
) -> None:
    options = ("--gop", str(GOP), "--json", "--quiet")
    whole = found(encode(long, tmp_path / "whole.vdf", base_weights, *options))["bytes"]
    percent = 100 * (whole + 100) / long.stat().st_size
    name = "viddiff.pipeline.sample_encodes.SampleEncodes.video_bytes"
    monkeypatch.setattr(name, lambda *_: int(factor * whole))
    limit = ("--max-encoded-percent", f"{percent}")
    result = encode(long, tmp_path / "out.vdf", base_weights, *options, *limit)
    assert result.exit_code == code, result.output
    assert (tmp_path / "out.vdf").exists() == (code == 0)


def test_samples_of_a_fixed_camera_share_the_background_of_the_whole(
    base_weights: Path, tmp_path: Path
) -> None:
    frames = list(map(fixed_camera(*SIZE, seed=5), range(20 * GOPS)))
    video = write(tmp_path / "in.mkv", frames)
    options = ("--gop", "20", "--quality", "6", "--max-encoded-percent", "100", "--json", "--quiet")
    values = found(encode(video, tmp_path / "out.vdf", base_weights, *options))
    parts = {row["part"]: row["bytes"] for row in values["ledger"]}
    assert parts["backgrounds"] > values["bytes"] / 8
    pictures = values["bytes"] - parts["other"]
    assert 0.8 < values["predicted_bytes"] / pictures < 1.25, (values, pictures)


def test_a_whole_file_that_does_not_pay_gets_no_name(
    short: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viddiff.pipeline.size_limit._other_bytes", lambda _: 0)
    options = ("--max-encoded-percent", "20", "--json", "--quiet")
    values = refused(encode(short, tmp_path / "out.vdf", base_weights, *options), short)
    assert "has become" in values["too_large"]
    assert values["predicted_bytes"] <= values["most_bytes"] < values["coded_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_front_door(short: Path, base_weights: Path, tmp_path: Path) -> None:
    common: dict[str, Any] = {"weights": base_weights, "preset": "fastest", "workers": 1}
    with pytest.raises(TooLargeError, match="at most 5 %") as refusal:
        viddiff.encode(short, tmp_path / "out.vdf", max_encoded_percent=5, **common)
    copied = pickle.loads(pickle.dumps(refusal.value))
    assert str(copied) == str(refusal.value)
    assert copied.predicted == refusal.value.predicted > refusal.value.most
    with pytest.raises(TargetError, match="even at quality 63"):
        viddiff.encode(short, tmp_path / "out.vdf", min_xpsnr=99, **common)
    with pytest.raises(ValueError, match="pool"):
        viddiff.encode(short, tmp_path / "out.vdf", min_xpsnr=30, pool="median", **common)
    assert list(tmp_path.iterdir()) == []


def test_samples_are_whole_gops_spread_over_the_part(long: Path) -> None:
    job = EncodeJob(source=long, gop=GOP)
    samples = samples_of(job)
    starts = [0, *(Fraction(2 * GOP * number - 1, 50) for number in SAMPLED[1:])]
    assert [part.start for part in samples.parts] == starts
    assert {part.frames for part in samples.parts} == {GOP}
    assert samples.share == pytest.approx(4 / 6)

    part = samples_of(EncodeJob(source=long, gop=4, start=Fraction(1, 5), frames=40))
    assert len(part.parts) == 4
    assert part.share == pytest.approx(16 / 40)
    assert all(Fraction(1, 5) <= found.start <= Fraction(1, 5) + Fraction(36, 25) for found in part.parts)

    slower = samples_of(EncodeJob(source=long, gop=4, fps=Fraction(25, 2)))
    assert {part.frames for part in slower.parts} == {8}, "4 frames of the new rate"

    assert samples_of(EncodeJob(source=long, gop=12)).whole


@pytest.mark.parametrize(
    "value",
    [
        lambda x: 0.3 * x + 20,
        lambda x: 100 - 60 * 0.9**x,
        lambda x: 30.0 if x < 41 else 90.0,
        lambda x: float(x // 8),
    ],
)
@pytest.mark.parametrize("share", [-0.1, 0.0, 0.03, 0.5, 0.97, 1.0, 1.1])
def test_the_search_finds_the_smallest(value: Callable[[int], float], share: float) -> None:
    low, high = value(0), value(63)
    wanted = low + share * (high - low)
    search, tries = Search(range(64), 0.5, (0.01, 3.0)), 0
    setting: int | None = 32
    while setting is not None:
        search.add(setting, value(setting), value(setting) >= wanted)
        setting, tries = search.to_prove(wanted), tries + 1
    expected = next((x for x in range(64) if value(x) >= wanted), None)
    assert search.hopeless == (expected is None)
    assert expected is None or search.high == expected
    assert tries <= 12
