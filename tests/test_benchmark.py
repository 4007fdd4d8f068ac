"""The benchmark: measurements of a small clip, the account of bytes, words where figures are missing."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from viddiff.codec.weights import Codec, codec_of, fresh, parametric_tables
from viddiff.config import ModelConfig
from viddiff.encoder.frame_encoder import FrameStats
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.summary import EncodeSummary

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
anchors = importlib.import_module("anchors")
report = importlib.import_module("report")
benchmark = importlib.import_module("benchmark")

FRAMES = 4


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    """Untrained and narrow, on one thread as in the benchmark."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    model, motion = fresh(ModelConfig(quarter=8, eighth=8, hyper=4))
    yield codec_of(model, motion, parametric_tables())
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth pattern that moves."""
    path = tmp_path_factory.mktemp("clip") / "moving.mkv"
    y, x = np.mgrid[0:80, 0:96]
    with VideoWriter(path, VideoInfo(96, 80), lossless=True) as writer:
        for t in range(FRAMES):
            wave = 128 + 60 * np.sin((x + 2 * t) / 7) * np.cos((y - t) / 9)
            luma = wave.astype(np.uint8)
            writer.write(Frame(luma, luma[::2, ::2].copy(), 255 - luma[::2, ::2], t))
    return path


@pytest.fixture
def source(video: Path, tmp_path: Path) -> "anchors.Source":
    return anchors.Source.read(video, tmp_path)


def point(setting: int, size: int, psnr: float, vmaf: float | None = None) -> "anchors.Point":
    fidelity = anchors.Fidelity(psnr, psnr, psnr, psnr, vmaf)
    return anchors.Point(setting, size, fidelity, anchors.Spent(1.0, 0.8), anchors.Spent(0.5, 0.4), "now")


def result(**points: list["anchors.Point"]) -> "report.ClipResult":
    return report.ClipResult("clip", 96, 80, 8, FRAMES, 25.0, "", (), points)


def test_a_source_gives_the_frames_that_were_written(source: "anchors.Source") -> None:
    frames = list(source)
    assert [frame.pts for frame in frames] == list(source.times)
    assert len(frames) == len(source) == FRAMES
    assert frames[1].y[0, 0] == int(128 + 60 * math.sin(2 / 7) * math.cos(1 / 9))
    assert (frames[1].v == 255 - frames[1].u).all()


def test_viddiff_is_measured_on_its_whole_file(source: "anchors.Source", codec: Codec) -> None:
    measured, ledger = benchmark.measure_viddiff(source, codec, EncodeOptions(quality=40), vmaf=False)
    assert measured.size_bytes == (source.path.parent / "viddiff.vdf").stat().st_size
    assert measured.fidelity.psnr_611 > 30
    assert sum(level.frames for level in ledger.levels) + ledger.keyframes == FRAMES
    assert 0 < ledger.other_bytes < measured.size_bytes


def test_a_decoder_that_shows_something_else_ends_the_run(source: "anchors.Source") -> None:
    good = ["a", "b", "c", "d"]
    benchmark.check_exact(source, 30, source.times, good, good)
    with pytest.raises(SystemExit, match=r"1 of 4 decoded frames, the first of them 2"):
        benchmark.check_exact(source, 30, source.times, good, ["a", "b", "x", "d"])
    with pytest.raises(SystemExit, match="3 frame times"):
        benchmark.check_exact(source, 30, source.times[:3], good[:3], good[:3])


def test_the_ledger_sums_bits_by_level() -> None:
    account = EncodeSummary(4, 1, 1000, 500)
    for stats in (
        FrameStats(8, 0, 40, 60.0, 10.0, 500.0, 3.0, 1.5),
        FrameStats(4, 1, 40, 8.0, 8.0, 80.0, 2.0, 1.0),
        FrameStats(16, 0, 40, 20.0, 6.0, 300.0, 5.0, 0.5),
    ):
        account.levels[stats.level].add(stats)
    ledger = report.Ledger.of(30, account)
    assert [(level.motion_bytes, level.z_bytes, level.y_bytes) for level in ledger.levels] == [
        (10, 2, 100),
        (1, 1, 10),
    ]
    assert ledger.other_bytes == 1000 - 500 - 112 - 12
    assert ledger.levels[0].prediction_psnr == pytest.approx(10 * math.log10(255**2 / 4))


def test_bd_rates_of_curves_that_do_not_overlap_are_words() -> None:
    near = [point(1, 100, 30.0), point(2, 200, 33.0)]
    dearer = [point(1, 200, 30.0), point(2, 400, 33.0)]
    far = [point(1, 100, 40.0), point(2, 200, 43.0)]
    rates = report.bd_rates([result(x264=near, viddiff=dearer), result(x264=near, viddiff=far)])
    by_y = [rate for rate in rates if rate.metric == "psnr_y"]
    assert by_y[0].percent == pytest.approx(100)
    assert by_y[1].percent is None
    assert "do not overlap" in by_y[1].note
    assert report.mean_text(by_y) == "+100.0 % (1 of 2 clips)"
    assert "do not overlap" in report.summary(rates)


def test_a_report_holds_all_codecs_and_is_plain_json(tmp_path: Path) -> None:
    clip = result(x264=[point(20, 100, 30.0), point(30, 50, 28.0)], viddiff=[point(4, 90, math.inf)])
    text = report.markdown([clip], report.bd_rates([clip]), {"machine": "any"})
    assert "crf 20" in text
    assert "q 4" in text
    data = json.loads(json.dumps(report.plain([clip]), allow_nan=False))
    assert data[0]["points"]["viddiff"][0]["fidelity"]["psnr_y"] is None


def test_ivf_headers_and_temporal_delimiters_are_not_counted(tmp_path: Path) -> None:
    def packed(data: bytes) -> bytes:
        return len(data).to_bytes(4, "little") + bytes(8) + data

    stream = tmp_path / "a.ivf"
    header = b"DKIF" + bytes(2) + (32).to_bytes(2, "little") + bytes(24)
    stream.write_bytes(header + packed(b"\x12\x00" + bytes(40)) + packed(b"\x32" + bytes(9)))
    assert anchors.payload_bytes(stream) == 40 + 10


def test_an_anchor_is_measured_once_and_then_kept(source: "anchors.Source") -> None:
    pytest.importorskip("imageio_ffmpeg")
    one = anchors.Anchor("x264", "", ".264", "libx264", ("-preset", "ultrafast"), (20,))
    (first, key, known) = next(benchmark.anchor_curve(one, source, False, {}))
    assert not known
    assert first.fidelity.psnr_y > 30
    kept = json.loads(json.dumps({key: report.plain(first)}))
    assert next(benchmark.anchor_curve(one, source, False, kept)) == (first, key, True)


def test_a_failing_encoder_is_one_sentence(source: "anchors.Source") -> None:
    pytest.importorskip("imageio_ffmpeg")
    broken = anchors.Anchor("x264", "", ".264", "libx264", ("-preset", "no-such-preset"), (20,))
    with pytest.raises(anchors.AnchorError, match="no-such-preset"):
        anchors.measure_anchor(broken, 20, source, False)


def test_a_folder_without_clips_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no clip"):
        benchmark.main([str(tmp_path), "--anchors", ""])
