"""The benchmark of own footage: how recordings are divided, what is kept of a training, what is reported."""

import argparse
import json
from pathlib import Path
from typing import Any

import own_footage
import pytest
from click.testing import CliRunner
from conftest import moving_picture
from points import BenchmarkError, Codec, Fidelity, Finished, Point, Spent
from report import Clip
from test_train_command import TINY

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import weights_of
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.training.enhancement_samples import TileCollector
from viddiff.training.enhancement_scenes import AS_THEY_ARE

FRAMES = moving_picture(176, 160, 7)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "monday.mkv"
    with VideoWriter(path, VideoInfo(176, 160), lossless=True) as writer:
        for frame in FRAMES:
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "init.safetensors"
    enhancement_weights.save(path, weights_of(EnhancementNetwork(TINY)))
    return path


def curve(name: str) -> list[Point]:
    scale = 1 if name.startswith("own") else 2
    spent = Spent(1.0, 1.0)
    return [Point(n, scale * n, Fidelity(n, n, n, n), spent, spent, "now") for n in (30, 40)]


def frames_of(folder: Path) -> list[Frame]:
    (video,) = folder.iterdir()
    with VideoReader(video) as reader:
        return list(reader)


def equal(a: list[Frame], b: list[Frame]) -> bool:
    return all(
        (p == q).all() for x, y in zip(a, b, strict=True) for p, q in zip(x.planes, y.planes, strict=True)
    )


def test_the_last_fifth_validates_and_nothing_is_lost(recording: Path, tmp_path: Path) -> None:
    assert own_footage.divide(recording, tmp_path) == (6, 1)
    assert equal(frames_of(tmp_path / "train"), FRAMES[:6])
    (last,) = frames_of(tmp_path / "valid")
    assert equal([last], FRAMES[6:])
    assert last.pts == 0  # a later start would count as frames that are not there


def test_a_recording_that_is_too_short_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "short.mkv"
    with VideoWriter(path, VideoInfo(176, 160), lossless=True) as writer:
        writer.write(FRAMES[0])
    with pytest.raises(BenchmarkError, match="1 frames"):
        own_footage.divide(path, tmp_path)


@pytest.mark.parametrize(("least", "better"), [(0.97, True), (0.98, False)])
def test_the_best_validation_counts(
    recording: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, better: bool
) -> None:
    losses = [(0, 0.98), (5, least), (9, 0.99)]
    log: list[dict[str, Any]] = [{"step": s, "minutes": s, "validation_loss": each} for s, each in losses]

    def program(command: list[str], folder: Path) -> Finished:
        (folder / command[command.index("--out") + 1]).write_text("weights")
        lines = [*log[:1], {"step": 1, "loss": 1.0}, *log[1:], {"weights": "weights.safetensors"}]
        return Finished("\n".join(map(json.dumps, lines)), Spent(2.0, 1.5))

    monkeypatch.setattr(own_footage, "run_program", program)
    chosen = argparse.Namespace(minutes=1.0, steps=9)
    found = own_footage.train(own_footage.Pair(recording, recording), tmp_path, init, chosen)
    assert (found.steps, found.loss_before, found.loss_after) == (9, 0.98, least)
    assert found.better == better


def test_a_missing_recording_is_one_sentence(recording: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is not a file"):
        own_footage.main(
            ["--pair", str(recording), str(tmp_path / "none.mkv"), "--out", str(tmp_path / "out")]
        )
    assert not (tmp_path / "out").exists()


def test_the_whole_of_it(
    recording: Path,
    init: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def program(command: list[str], folder: Path) -> Finished:
        """Run viddiff in this process, which is quicker."""
        monkeypatch.chdir(folder)
        return Finished(CliRunner().invoke(main, command[3:], catch_exceptions=False).stdout, Spent(2.0, 1.5))

    def measured(videos: list[Path], codecs: list[Codec], *_: object) -> list[Clip]:
        """Curves in which own weights take half the bytes. `test_benchmark` has real ones."""
        used.update({codec.name: getattr(codec, "weights", None) for codec in codecs})
        return [Clip("", 176, 160, 8, 7, 25.0, "", (), {codec.name: curve(codec.name) for codec in codecs})]

    used = dict[str, Path | None]()
    monkeypatch.setattr(own_footage, "run_program", program)
    monkeypatch.setattr(own_footage, "run", measured)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    folder = tmp_path / "monday-after-monday"
    for part in ("train", "valid"):  # samples of an earlier run, few of them
        collector = TileCollector(folder / part, folder / "weights.samples" / part, AS_THEY_ARE, 0)
        own_footage.copy(recording, folder / part, 0, len(FRAMES))
        collector.prepare()
        collector.write(0, 8)
    options = ["--steps", "1", "--weights", str(init), "--presets", "default", "--anchors", "svt4"]
    own_footage.main(["--pair", str(recording), str(recording), *options, "--out", str(tmp_path)])
    data = json.loads((tmp_path / "results.json").read_text())
    (training,) = data["trainings"].values()
    (own,) = [rate["percent"] for rate in data["bd_rates"] if rate["anchor"] == "released_default"][:1]
    assert training["steps"] == 1
    assert used["released_default"] == init
    better = training["loss_after"] < training["loss_before"]
    if better:
        assert used["own_default"] == folder / "weights.safetensors"
        assert own == pytest.approx(-50)
    else:
        assert "own_default" not in used
        assert own == pytest.approx(0)
    pairs = {(rate["test"], rate["anchor"]) for rate in data["bd_rates"]}
    assert pairs == {
        ("own_default", "released_default"),
        ("own_default", "svt4"),
        ("released_default", "svt4"),
    }
    said = data["facts"]["training for monday after monday"]
    assert said in (tmp_path / "results.md").read_text()
    assert said.endswith("the weights stay as they were") != better
