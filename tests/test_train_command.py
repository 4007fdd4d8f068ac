"""`viddiff train` for files with an AV1 base: from a folder of clips to a file that decodes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import moving_picture
from test_docs import named, sections

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import weights_of
from viddiff.codec.tensor_file import stated_hash
from viddiff.codec.weights import Codec
from viddiff.frame import VideoInfo
from viddiff.media.video_writer import VideoWriter
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import LARGE, EnhancementConfig
from viddiff.training import enhancement

TINY = EnhancementConfig(name="tiny", half=8, quarter=12, half_blocks=1, quarter_blocks=1)
JSON_PAGE = Path(__file__).parent.parent / "docs" / "json.md"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def write_clip(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path, VideoInfo(width, height), lossless=True) as writer:
        for frame in moving_picture(width, height, 5):
            writer.write(frame)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage") / "clips"
    write_clip(folder / "a.mkv", 176, 160)
    return folder


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("init") / "init.safetensors"
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        enhancement_weights.save(path, weights_of(EnhancementNetwork(TINY)))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder for weights."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "viddiff" / "weights"


def test_weights_of_own_footage_encode_and_decode(
    clips: Path, init: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enhancement, "_FIRST_TILES", 32)
    monkeypatch.setattr(enhancement, "_VALID_TILES", 16)
    out, log = tmp_path / "mine.safetensors", tmp_path / "log.jsonl"
    command = ["train", "--data", clips, "--out", out, "--init", init, "--batch", 1, "--learning-rate", 0.1]
    command += ["--valid", clips, "--json", "--log", log]
    before, after, last = lines(run(*command, "--steps", 8))
    assert (before["step"], after["step"]) == (0, 8)
    assert after["validation_error"] < before["validation_error"]
    assert before["best"]
    assert after["best"]
    assert last["hash"] == stated_hash(out) != stated_hash(init)
    assert Path(last["copy"]).parent == own
    assert Path(last["copy"]).read_bytes() == out.read_bytes()
    described = named(sections(JSON_PAGE)["train"])
    assert set(before) | set(after) | set(last) <= described

    (resumed, _) = lines(run(*command, "--steps", 9, "--resume"))
    assert resumed["step"] == 9
    assert len(log.read_text().splitlines()) == 5

    coded = tmp_path / "a.vdf"
    result = run("encode", clips / "a.mkv", coded, "--weights", out, "-q", "--json")
    assert result.exit_code == 0, result.output
    stated = json.loads(run("info", coded, "--json").stdout)
    assert (stated["base"], stated["model_hash"]) == ("av1", stated_hash(out))
    result = run("decode", coded, tmp_path / "a.mp4", "-q")
    assert result.exit_code == 0, result.output


def test_training_that_harms_is_not_written(
    clips: Path, init: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an update, the weights that it started from remain; they are replaced by better ones alone."""
    monkeypatch.setattr(enhancement, "_FIRST_TILES", 32)
    monkeypatch.setattr(enhancement, "_VALID_TILES", 16)
    out = tmp_path / "camera.safetensors"
    command = ["train", "--data", clips, "--out", out, "--update", "--batch", 1, "--steps", 8, "--json"]
    assert "missing" in refusal(*command[1:], "--valid", clips)
    out.write_bytes(init.read_bytes())
    first, harmed, last = lines(run(*command, "--valid", clips, "--learning-rate", 100))
    assert harmed["validation_error"] > first["validation_error"]
    assert (first["best"], harmed["best"]) == (True, False)
    assert last["hash"] == stated_hash(out) == stated_hash(init)
    _, better, last = lines(run(*command, "--valid", clips, "--learning-rate", 0.1))
    assert better["best"]
    assert last["hash"] == stated_hash(out) != stated_hash(init)
    result = run(*command)
    assert result.exit_code == 2
    assert "--valid" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--base", "none", "--update", "--valid", "v"), "--update"),
        (("--update", "--valid", "v", "--init", "w.safetensors"), "--update"),
        (("--library", 2), "--library"),
        (("--steps", 0), "--steps 0"),
        (("--base", "none", "--augment"), "--augment"),
        (("--base", "none", "--compile"), "--compile"),
        (("--base", "none", "--network", "large"), "--network"),
        (("--base", "none", "--ssim-share", "0"), "--ssim-share"),
        (("--ssim-share", "1.1"), "--ssim-share"),
        (("--base", "none", "--cache-size", "4G"), "--cache-size"),
        (("--cache-size", "0"), "--cache-size"),
        (("--fresh", "--init", "w.safetensors"), "--fresh"),
    ],
)
def test_options_of_the_other_base(clips: Path, arguments: tuple[object, ...], message: str) -> None:
    result = run("train", "--data", clips, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_larger_networks_begin_as_smaller_ones(
    clips: Path, init: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enhancement, "_FIRST_TILES", 4)
    monkeypatch.setattr(enhancement, "_VALID_TILES", 4)
    out = tmp_path / "large.safetensors"
    choices = ("--valid", clips, "--json", "--batch", 1, "--steps", 1)
    command = ("train", "--data", clips, "--init", init, *choices)
    (before, *_) = lines(run(*command, "--out", tmp_path / "tiny.safetensors"))
    (same, *_) = lines(run(*command, "--out", out, "--network", "large"))
    assert same == before
    assert enhancement_weights.load(out).config == LARGE


def refusal(*arguments: object) -> str:
    """The sentence that `train` ends with."""
    result = run("train", *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_weights_for_the_other_base_are_refused(
    codec: Codec, weights: Path, init: Path, clips: Path, tmp_path: Path
) -> None:
    common = ("--data", clips, "--out", tmp_path / "w.safetensors", "--steps", 1, "--init")
    assert "--base none" in refusal(*common, weights)
    assert "--base av1" in refusal(*common, init, "--base", "none")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("text", "missing"):
        assert f"{name}.safetensors" in refusal(*common, tmp_path / f"{name}.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


def test_footage_that_cannot_be_used_is_refused(init: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    common = ("--data", data, "--out", tmp_path / "w.safetensors", "--steps", 1, "--init", init)
    assert "not a folder" in refusal(*common)
    data.mkdir()
    assert "no videos" in refusal(*common)
    write_clip(data / "small.mkv", 160, 96)
    message = refusal(*common)
    assert "small.mkv" in message
    assert "160x96" in message
    assert "160x160" in message
    assert "nothing to resume" in refusal(*common, "--resume")
    assert not (tmp_path / "w.safetensors").exists()
