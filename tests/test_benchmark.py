"""The benchmark: measurements of a small clip, what is kept of them, words where figures are missing."""

import dataclasses
import json
import math
from pathlib import Path

import benchmark
import numpy as np
import points
import pytest
import report
from result_plots import sizes_plots

from viddiff.codec import checkpoint
from viddiff.codec.weights import untrained
from viddiff.config import ModelConfig
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.metrics.psnr import psnr

FRAMES = 4
X265 = dataclasses.replace(points.anchors(128)["x265"], ladder=(20, 30, 40))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth pattern that moves."""
    path = tmp_path_factory.mktemp("clips") / "moving.mkv"
    y, x = np.mgrid[0:80, 0:96]
    with VideoWriter(path, VideoInfo(96, 80), lossless=True) as writer:
        for t in range(FRAMES):
            wave = 128 + 60 * np.sin((x + 2 * t) / 7) * np.cos((y - t) / 9)
            luma = wave.astype(np.uint8)
            writer.write(Frame(luma, luma[::2, ::2].copy(), 255 - luma[::2, ::2], t))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained and narrow."""
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    checkpoint.save(path, untrained(ModelConfig(quarter=8, eighth=8, hyper=4)))
    return path


@pytest.fixture
def source(video: Path, tmp_path: Path) -> points.Source:
    return points.Source.read(video, tmp_path)


def point(setting: int, size: int, psnr: float, vmaf: float | None = None) -> points.Point:
    fidelity = points.Fidelity(psnr, psnr, psnr, psnr, vmaf)
    return points.Point(setting, size, fidelity, points.Spent(1.0, 0.8), points.Spent(0.5, 0.4), "now")


def clip(**curves: list[points.Point]) -> report.Clip:
    return report.Clip("clip", 96, 80, 8, FRAMES, 25.0, "", (), curves)


TITLES = {"x265": "x265 medium", "viddiff": "viddiff"}


def test_a_source_gives_the_frames_that_were_written(source: points.Source) -> None:
    frames = list(source)
    assert len(frames) == source.frames == FRAMES
    assert frames[1].y[0, 0] == int(128 + 60 * math.sin(2 / 7) * math.cos(1 / 9))
    assert (frames[1].v == 255 - frames[1].u).all()
    two = points.Source.read(source.path, source.path.parent, 2)
    assert two.frames == 2
    assert two.digest != source.digest


def test_fidelity_is_the_mean_squared_error_over_all_frames(source: points.Source) -> None:
    decoded = source.path.with_name("decoded.y4m")
    with VideoWriter(decoded, source.info) as writer:
        for t, frame in enumerate(source):
            writer.write(Frame(frame.y + (2 if t == 0 else 0), frame.u + 1, frame.v, t))
    fidelity = points.measure(source, decoded, vmaf=False)
    assert fidelity.psnr_y == pytest.approx(psnr(4 / FRAMES, 8))
    assert fidelity.psnr_u == pytest.approx(psnr(1, 8))
    assert fidelity.psnr_v == math.inf


@pytest.mark.parametrize("missing", [1, 96 * 80, 96 * 80 * 3 // 2 + 6])
def test_frames_that_are_missing_end_the_run(source: points.Source, missing: int) -> None:
    short = source.path.with_name("short.y4m")
    short.write_bytes(source.path.read_bytes()[:-missing])
    with pytest.raises(points.BenchmarkError, match=r"cut short|4 frames"):
        points.measure(source, short, vmaf=False)


def test_frames_of_another_size_end_the_run(source: points.Source) -> None:
    other = dataclasses.replace(source, info=dataclasses.replace(source.info, width=94))
    with pytest.raises(points.BenchmarkError, match="94x80"):
        list(other)


def test_viddiff_is_measured_on_its_whole_file(source: points.Source, base_weights: Path) -> None:
    viddiff = points.Viddiff("test", "viddiff", ("--preset", "fastest"), base_weights, (40,), 128)
    measured = points.measure_point(viddiff, 40, source, vmaf=False)
    assert measured.size_bytes == (source.path.parent / "test.vdf").stat().st_size
    assert measured.fidelity.psnr_611 > 30
    assert measured.encode.cpu_s > 0


def test_a_refused_option_of_viddiff_is_one_sentence(source: points.Source, base_weights: Path) -> None:
    viddiff = points.Viddiff("test", "viddiff", ("--no-such-option",), base_weights, (40,), 128)
    with pytest.raises(points.BenchmarkError, match="No such option"):
        viddiff.code(source, 40)


def test_the_ledger_is_what_the_encoder_says_of_its_bytes() -> None:
    rows = [{"part": "base", "frames": 4, "bytes": 900}, {"part": "motion", "level": 1, "bytes": 10}]
    assert points.ledger('{"frames": 1}\n' + json.dumps({"frames": 4, "ledger": rows}) + "\n") == rows
    assert points.ledger('{"frames": 4}') == []
    kept = points.Point.of(report.plain(dataclasses.replace(point(40, 910, 30.0), ledger=rows)))
    text = report.markdown([clip(viddiff=[kept])], [], TITLES, {})
    assert "| setting | part | frames | bytes | level |" in text
    assert "| 40 | motion | – | 10 | 1 |" in text


def test_bd_rates_of_curves_that_do_not_overlap_are_words() -> None:
    near = [point(1, 100, 30.0), point(2, 200, 33.0)]
    dearer = [point(1, 200, 30.0), point(2, 400, 33.0)]
    far = [point(1, 100, 40.0), point(2, 200, 43.0)]
    rates = report.bd_rates([clip(x265=near, viddiff=dearer), clip(x265=near, viddiff=far)], ["viddiff"])
    by_y = [rate for rate in rates if rate.metric == "psnr_y"]
    assert by_y[0].percent == pytest.approx(100)
    assert by_y[1].percent is None
    assert "do not overlap" in by_y[1].note
    assert report.mean_text(by_y) == "+100.0 % (1 of 2 clips)"
    assert "do not overlap" in report.summary(rates, TITLES)


def test_every_test_is_compared_with_every_anchor() -> None:
    names = ("x265", "svt4", "fast", "slow")
    curves = {name: [point(1, 100, 30.0), point(2, 200, 33.0)] for name in names}
    rates = report.bd_rates([clip(**curves)], ["fast", "slow"])
    pairs = {("fast", "x265"), ("fast", "svt4"), ("slow", "x265"), ("slow", "svt4"), ("svt4", "x265")}
    assert set(report.pairs_of(rates)) == pairs


def test_a_report_holds_all_codecs_and_is_plain_json() -> None:
    one = clip(x265=[point(20, 100, 30.0), point(30, 50, 28.0)], viddiff=[point(4, 90, math.inf)])
    text = report.markdown([one], report.bd_rates([one], ["viddiff"]), TITLES, {"machine": "any"})
    assert "x265 medium" in text
    assert "| viddiff | 4 | 90 |" in text
    data = json.loads(json.dumps(report.plain([one]), allow_nan=False))
    assert data[0]["points"]["viddiff"][0]["fidelity"]["psnr_y"] is None


def test_ivf_headers_and_temporal_delimiters_are_not_counted(tmp_path: Path) -> None:
    def packed(data: bytes) -> bytes:
        return len(data).to_bytes(4, "little") + bytes(8) + data

    stream = tmp_path / "a.ivf"
    header = b"DKIF" + bytes(2) + (32).to_bytes(2, "little") + bytes(24)
    stream.write_bytes(header + packed(b"\x12\x00" + bytes(40)) + packed(b"\x32" + bytes(9)))
    assert points.payload_bytes(stream) == 40 + 10


@pytest.mark.parametrize("name", ["x265", "svt6", "svt4", "vvenc"])
def test_an_anchor_codes_every_frame(source: points.Source, name: str) -> None:
    pytest.importorskip("imageio_ffmpeg")
    anchor = points.anchors(128)[name]
    measured = points.measure_point(anchor, anchor.ladder[1], source, vmaf=False)
    assert measured.fidelity.psnr_611 > 33
    assert 0 < measured.size_bytes < source.path.stat().st_size / 10


def test_the_keyframe_interval_holds_for_all(source: points.Source, base_weights: Path) -> None:
    viddiff = points.Viddiff("test", "", (), base_weights, (40,), 17)
    for arguments in (viddiff.arguments, *(anchor.arguments for anchor in points.anchors(17).values())):
        assert "17" in arguments(30)
        assert "30" in arguments(30)


def test_anchors_are_measured_once_and_then_kept(video: Path, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    cache = benchmark.Cache(tmp_path / "cache")
    (first,) = benchmark.run([video], [X265], None, False, cache, 1)
    assert [p.setting for p in first.points["x265"]] == [20, 30, 40]
    sizes = [p.size_bytes for p in first.points["x265"]]
    assert sizes == sorted(sizes, reverse=True)
    (again,) = benchmark.run([video], [X265], None, False, cache, 1)
    assert again == first
    (shorter,) = benchmark.run([video], [X265], 2, False, cache, 1)
    assert shorter.points["x265"][0].size_bytes < sizes[0]
    sparse = dataclasses.replace(X265, interval=1, ladder=(20,))
    (intra,) = benchmark.run([video], [sparse], None, False, cache, 1)
    assert intra.points["x265"][0].size_bytes > sizes[0]
    key = benchmark.cache_key(first, X265, 20)
    assert key is not None
    assert cache.get(key, False) is not None
    assert cache.get(key, True) is None  # it has no VMAF
    assert dataclasses.replace(cache, fresh=True).get(key, False) is None


def test_a_failing_encoder_is_one_sentence(source: points.Source) -> None:
    pytest.importorskip("imageio_ffmpeg")
    broken = dataclasses.replace(X265, options=("-c:v", "libx265", "-preset", "no-such-preset"))
    with pytest.raises(points.BenchmarkError, match="failed"):
        points.measure_point(broken, 20, source, False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["{empty}"],
        ["{empty}/no-such-folder"],
        ["{video}", "--anchors-only", "--anchors", ""],
        ["{video}", "--viddiff", "a=", "--viddiff", "a=--low-delay"],
        ["{video}", "--workers", "0"],
        ["{video}", "--match", "nothing*"],
    ],
)
def test_nothing_to_measure_is_one_sentence(video: Path, tmp_path: Path, arguments: list[str]) -> None:
    words = [argument.format(empty=tmp_path, video=video) for argument in arguments]
    with pytest.raises(SystemExit, match=r"\w+ \w+"):
        benchmark.main([*words, "--out", str(tmp_path)])


def test_the_whole_of_it(
    video: Path, base_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("matplotlib")
    options = ["--anchors", "x265", "--qualities", "20,40", "--weights", str(base_weights), "--no-vmaf"]
    test = ["--viddiff", "late=--preset fast --low-delay"]
    benchmark.main([str(video), "--out", str(tmp_path), *options, *test, "--workers", "2"])
    said = capsys.readouterr().out
    assert "BD-rate of viddiff --preset fast --low-delay against x265 medium" in said
    data = json.loads((tmp_path / "results.json").read_text())
    assert {"command", "commit", "machine", "x265 medium", "ffmpeg"} <= set(data["facts"])
    assert {name: len(curve) for name, curve in data["clips"][0]["points"].items()} == {"x265": 4, "late": 2}
    assert (tmp_path / "rd.png").stat().st_size > 10_000
    assert not list(tmp_path.glob("size-*.svg")), "two qualities are no curve"
    assert len(list((tmp_path / "anchors").iterdir())) == 4


def test_sizes_are_drawn_by_clip(tmp_path: Path) -> None:
    """Clips without a BD-rate are left out, and so are tests without any. The picture is always the same."""
    pytest.importorskip("matplotlib")
    titles = {"x265": "x265 medium", "svt4": "SVT-AV1 preset 4"}
    rates = [
        report.BdRate(clip, test, anchor, "psnr_611", percent if test == "good" else None)
        for test in ("good", "none")
        for clip, percents in {"a.mkv": (-50.0, -10.0), "b.mkv": (3.0, None), "c.mkv": (None, None)}.items()
        for anchor, percent in zip(titles, percents, strict=True)
    ]
    (path,) = sizes_plots(rates, ["good", "none"], titles, tmp_path)
    text = path.read_text()
    assert path.name == "size-good.svg"
    assert "x265 medium: mean -23.5 %" in text
    assert "SVT-AV1 preset 4: mean -10.0 %" in text
    assert ">a<" in text
    assert ">b<" in text
    assert ">c<" not in text
    again = tmp_path / "again"
    again.mkdir()
    assert next(sizes_plots(rates, ["good"], titles, again)).read_text() == text
