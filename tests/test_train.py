"""A short training from end to end: samples, steps, weights that decode, and a resume."""

import io
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from click.testing import CliRunner
from conftest import coded, moving_picture, same

from viddiff.cli import main
from viddiff.codec import checkpoint
from viddiff.codec.weights import Codec, untrained
from viddiff.errors import CheckpointError, VideoError
from viddiff.frame import VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.batch.units import find_units
from viddiff.pipeline.serial import decode
from viddiff.training.samples import collect_forever, find_videos
from viddiff.training.state import TrainState
from viddiff.training.train import TrainOptions, calibrate, train
from viddiff.training.validation import Judge

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """A run of a few steps on one small clip, which is also the validation clip."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "clips").mkdir()
    with VideoWriter(folder / "clips" / "a.y4m", VideoInfo(64, 64), lossless=True) as writer:
        for frame in moving_picture(64, 64, 9):
            writer.write(replace(frame, pts=frame.pts // 2))
    return TrainOptions(
        data=folder / "clips",
        out=folder / "w.safetensors",
        valid=folder / "clips",
        steps=3,
        batch=2,
        crop=64,
        collectors=0,
        first_samples=4,
        calibration_clips=1,
    )


@pytest.fixture(scope="module")
def trained(options: TrainOptions) -> Lines:
    lines: Lines = []
    train(options, lines.append)
    return lines


def test_weights_come_out_that_code(options: TrainOptions, trained: Lines) -> None:
    codec = checkpoint.load(options.out)
    assert codec.hash != untrained().hash
    frames = moving_picture(32, 32, 5)
    data, shown, _ = coded(codec, frames)
    assert same(list(decode(io.BytesIO(data), codec)), shown)


def test_the_log_has_the_curves_of_the_validation_clips(trained: Lines) -> None:
    found, line = trained
    assert found == {"library_pictures": 0}
    assert line["step"] == 3
    rates, psnrs = zip(*line["validation_points"]["a"], strict=True)
    assert list(rates) == sorted(rates)
    assert list(psnrs) == sorted(psnrs)


def test_validations_are_drawn(codec: Codec, options: TrainOptions, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    judge = Judge(options.data)
    for _ in range(2):
        figures = judge(codec)
    assert figures == {"validation_bd_rate": 0.0, "validation_clips": 1}
    judge.plot(tmp_path / "v.png")
    picture = cv2.imread(str(tmp_path / "v.png"))
    assert picture is not None
    assert picture.shape[:2] == (600, 1320)
    assert [p.name for p in tmp_path.iterdir()] == ["v.png"]


@pytest.fixture
def mixed(options: TrainOptions, tmp_path: Path) -> Path:
    """A folder with a clip, one that is damaged, one of a single frame, and one that is too small."""
    folder = tmp_path / "mixed"
    shutil.copytree(options.data, folder)
    (folder / "b.mp4").write_bytes(b"no video")
    for name, side, count in (("c.y4m", 64, 1), ("d.y4m", 32, 2)):
        with VideoWriter(folder / name, VideoInfo(side, side), lossless=True) as writer:
            for frame in moving_picture(side, side, count):
                writer.write(frame)
    return folder


def test_clips_of_no_use_are_left_out(options: TrainOptions, mixed: Path) -> None:
    """Also in the calibration at the end, and in validations."""
    calibrated = calibrate(untrained(), replace(options, data=mixed, seed=1))  # which begins with b
    assert calibrated.hash != untrained().hash
    assert [video.stem for video in Judge(mixed).videos] == ["a", "c", "d"]


def test_footage_of_no_use_is_refused(options: TrainOptions, mixed: Path, tmp_path: Path) -> None:
    """A collector ends, too: training waits for samples only while one is at work."""
    (mixed / "a.y4m").unlink()
    out = tmp_path / "w.safetensors"
    checkpoint.save(out, untrained())
    collect_forever(mixed, tmp_path, 4, out, 0, options.crop)
    hopeless = replace(options, data=mixed, out=out, collectors=0)
    with pytest.raises(VideoError, match="no video there can be read and has two frames or more of 64x64"):
        train(hopeless, lambda _: None)
    (mixed / "c.y4m").unlink()
    (mixed / "d.y4m").unlink()
    with pytest.raises(VideoError, match="can be read"):
        Judge(mixed)


def test_a_plot_needs_validations(options: TrainOptions) -> None:
    result = CliRunner().invoke(main, ["train", "--data", str(options.data), "--plot", "v.png"])
    assert result.exit_code == 2
    assert "--valid" in result.stderr


def test_a_stopped_run_goes_on_where_it_was(options: TrainOptions, trained: Lines) -> None:
    assert trained
    before = checkpoint.load(options.out).hash
    lines: Lines = []
    train(replace(options, steps=5, resume=True), lines.append)
    assert [line["step"] for line in lines[1:]] == [5]
    assert checkpoint.load(options.out).hash != before


def test_state_survives_the_disk(options: TrainOptions, trained: Lines, tmp_path: Path) -> None:
    assert trained
    start = checkpoint.load(options.out)
    states = []
    for _ in range(2):
        state = TrainState.of(start, "cpu", 0)
        leaves = [p for p in state.model.parameters()]
        state.learner.optimizer = torch.optim.AdamW(leaves, 1e-3)
        states.append(state)
    first, second = states
    first.learner.step, first.learner.seconds, first.norms = 7, 12.5, [0.5] * len(first.norms)
    with torch.no_grad():
        for parameter in first.model.parameters():
            parameter.add_(0.01)
    first.save(tmp_path / "s.resume")
    second.restore(tmp_path / "s.resume")
    assert (second.learner.step, second.learner.seconds, second.norms) == (7, 12.5, first.norms)
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_no_state_is_refused(options: TrainOptions, trained: Lines, tmp_path: Path) -> None:
    assert trained
    state = TrainState.of(checkpoint.load(options.out), "cpu", 0)
    state.learner.optimizer = torch.optim.AdamW(state.model.parameters(), 1e-3)
    (tmp_path / "bad.resume").write_bytes(b"no state at all")
    for path in (tmp_path / "bad.resume", tmp_path / "none.resume", options.out):
        with pytest.raises(CheckpointError, match="cannot resume"):
            state.restore(path)


def test_footage_is_what_a_batch_takes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.MTS", "b.h264", "c/d.mkv")]
    for path in (*paths, tmp_path / "e.txt"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_videos(tmp_path) == paths
    assert set(find_units([str(tmp_path)], tmp_path / "out").units) == {"a.MTS", "b.h264", "c/d.mkv"}
