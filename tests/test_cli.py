"""The commands as users meet them: results, exit codes, one-sentence errors, no partial files."""

import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import moving_picture, same

from viddiff.cli import main
from viddiff.cli.progress import Progress
from viddiff.container.reader import Reader
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter

FRAMES = 7


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lossless video with uneven frame times."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(48, 34, FRAMES))
    return path


@pytest.fixture(scope="module")
def encoded(clip: Path, base_weights: Path) -> Path:
    path = clip.with_name("clip.vdf")
    assert run("encode", clip, path, "--gop", 3, "--weights", base_weights).exit_code == 0
    return path


def write(path: Path, frames: list[Frame]) -> None:
    height, width = frames[0].y.shape
    info = VideoInfo(width, height, time_base=Fraction(1, 1000), frame_rate=Fraction(25))
    with VideoWriter(path, info, lossless=True) as writer:
        for frame in frames:
            writer.write(Frame(frame.y, frame.u, frame.v, frame.pts * 20))


def read(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return list(reader)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def refused(result: Result, code: int = 1) -> str:
    """The one sentence of a command that must fail."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), "no traceback"
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


def test_there_and_back(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    vdf = tmp_path / "a.vdf"
    assert run("encode", clip, vdf, "--quality", 63, "--weights", base_weights).exit_code == 0
    for name, options in (("a.mp4", []), ("a.mkv", ["--lossless"]), ("a.y4m", [])):
        result = run("decode", vdf, tmp_path / name, "--weights", base_weights, *options)
        assert result.exit_code == 0, result.output
    lossless, raw, h264 = (read(tmp_path / name) for name in ("a.mkv", "a.y4m", "a.mp4"))
    assert all(
        np.array_equal(a.y, b.y) and np.array_equal(a.v, b.v) for a, b in zip(lossless, raw, strict=True)
    )
    originals = read(clip)
    assert [f.pts for f in lossless] == [f.pts for f in originals]
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert [f.pts * reader.info.time_base for f in reader] == [Fraction(f.pts, 1000) for f in originals]
    assert max(np.abs(a.y.astype(int) - b.y).mean() for a, b in zip(lossless, originals, strict=True)) < 4
    assert len(h264) == FRAMES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mkv", "a.mp4", "a.vdf", "a.y4m"]


def test_names_are_derived(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    source = tmp_path / "my clip.v1.mkv"
    source.write_bytes(clip.read_bytes())
    assert run("encode", source, "--frames", 2, "--weights", base_weights).exit_code == 0
    assert run("decode", tmp_path / "my clip.v1.vdf", "--weights", base_weights).exit_code == 0
    assert {p.name for p in tmp_path.iterdir()} == {"my clip.v1.mkv", "my clip.v1.vdf", "my clip.v1.mp4"}


def test_json_of_encode(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.vdf"
    result = run("encode", clip, out, "--json", "--gop", 4, "--weights", base_weights)
    values = json.loads(result.stdout.splitlines()[-1])
    assert values.keys() == {
        *("input", "output", "width", "height", "frames", "keyframes", "bytes", "key_bytes", "ledger"),
        *("bpp", "quality", "preset", "seconds", "fps", "interrupted", "verified"),
        *("target", "predicted_bytes", "buffer", "rate", "network"),
    }
    assert values["bytes"] == out.stat().st_size
    assert (values["width"], values["height"], values["frames"], values["keyframes"]) == (48, 34, FRAMES, 2)
    assert values["bpp"] == pytest.approx(8 * values["bytes"] / (FRAMES * 48 * 34))
    assert (values["input"], values["output"], values["quality"]) == (str(clip), str(out), 32)


def test_json_of_decode(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    values = json.loads(run("decode", encoded, out, "--json", "-q", "--weights", base_weights).stdout)
    assert values.keys() == {
        *("input", "output", "width", "height", "frames", "bytes", "seconds", "fps"),
        *("lost_frames", "faults"),
    }
    assert values["lost_frames"] == values["faults"] == []
    assert (values["frames"], values["bytes"]) == (FRAMES, out.stat().st_size)


def test_info(clip: Path, weights: Path, tmp_path: Path) -> None:
    encoded = tmp_path / "a.vdf"
    assert run("encode", clip, encoded, "--gop", 3, "--weights", weights).exit_code == 0
    values: dict[str, Any] = json.loads(run("info", encoded, "--json").stdout)
    assert (values["frames"], values["keyframes"], values["gop"]) == (FRAMES, 3, 3)
    assert (values["bytes"], values["model_name"]) == (encoded.stat().st_size, "tiny")
    text = run("info", encoded).stdout
    assert all(name.replace("_", " ") in text for name in values)
    model = json.loads(run("info", "--model", "--json", "--weights", weights).stdout)
    assert model["hash"] == values["model_hash"]
    assert sum(model["parts_kmac_per_pixel"].values()) == pytest.approx(
        model["decoder_kmac_per_pixel"], abs=0.01
    )
    assert model["bytes"] == weights.stat().st_size
    assert "kmac" in run("info", "--model", "--weights", weights).stdout


@pytest.mark.parametrize(("start", "count"), [(0, 2), (2, 3), (4, None), (6, 50), (3, 3)])
def test_parts(encoded: Path, base_weights: Path, tmp_path: Path, start: int, count: int | None) -> None:
    whole, part = tmp_path / "whole.y4m", tmp_path / "part.y4m"
    frames = ["--frames", count] if count else []
    assert run("decode", encoded, whole, "--weights", base_weights).exit_code == 0
    assert run("decode", encoded, part, "--start", start, *frames, "--weights", base_weights).exit_code == 0
    expected = read(whole)[start:][:count]
    got = read(part)
    assert len(got) == len(expected)
    assert all(np.array_equal(a.y, b.y) for a, b in zip(got, expected, strict=True))


def test_part_of_the_input(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.vdf"
    values = json.loads(
        run(
            "encode", clip, out, "--start", 5, "--frames", 9, "--json", "-q", "--weights", base_weights
        ).stdout
    )
    assert values["frames"] == FRAMES - 5
    message = refused(run("encode", clip, tmp_path / "b.vdf", "--start", 100, "--weights", base_weights))
    assert "no frame 100" in message
    assert "no frame 100" in refused(
        run("decode", out, tmp_path / "b.mp4", "--start", 100, "--weights", base_weights)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.vdf"]


def test_any_number_of_processes_gives_the_same(
    encoded: Path, clip: Path, base_weights: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.vdf"
    result = run("encode", clip, again, "--gop", 3, "--weights", base_weights, "--workers", 2, "--json")
    assert result.exit_code == 0, result.output
    assert again.read_bytes() == encoded.read_bytes()
    values = json.loads(result.stdout.splitlines()[-1])
    assert (values["frames"], values["keyframes"]) == (FRAMES, 3)
    for name, options in (("1.mkv", ["--workers", 1]), ("2.mkv", ["--workers", 2])):
        result = run("decode", encoded, tmp_path / name, "--lossless", "--weights", base_weights, *options)
        assert result.exit_code == 0, result.output
    assert same(read(tmp_path / "1.mkv"), read(tmp_path / "2.mkv"))


def test_errors_cross_processes(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    data = bytearray(encoded.read_bytes())
    data[-150] ^= 1
    bad = tmp_path / "bad.vdf"
    bad.write_bytes(data)
    arguments = ("decode", bad, tmp_path / "out.mp4", "--strict", "--weights", base_weights, "--workers")
    assert refused(run(*arguments, 2)) == refused(run(*arguments, 1))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.vdf"]


def test_nothing_is_overwritten_unasked(
    clip: Path, encoded: Path, base_weights: Path, tmp_path: Path
) -> None:
    for command, source, name in (
        ("encode", clip, "a.vdf"),
        *(("decode", encoded, f"a.{suffix}") for suffix in ("mp4", "mkv", "y4m")),
    ):
        target, arguments = tmp_path / name, ("--weights", base_weights, "--frames", 1, "-q")
        assert run(command, source, target, *arguments).exit_code == 0
        before = target.stat().st_ino
        assert "--force overwrites it" in refused(run(command, source, target, *arguments))
        assert target.stat().st_ino == before
        assert run(command, source, target, *arguments, "--force").exit_code == 0
        assert target.stat().st_ino != before
    assert "its own output" in refused(run("encode", clip, clip, "--force"))
    assert "its own output" in refused(run("decode", encoded, encoded, "--force"))


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_bad_paths(command: str, encoded: Path, clip: Path, tmp_path: Path) -> None:
    source = clip if command == "encode" else encoded
    assert "does not exist" in refused(run(command, tmp_path / "none", tmp_path / "out.mp4"))
    assert "not a file" in refused(run(command, tmp_path, tmp_path / "out.mp4"))
    assert "folder" in refused(run(command, source, tmp_path / "no" / "out.mp4"))
    assert "folder" in refused(run(command, source, tmp_path, "--force"))
    assert list(tmp_path.iterdir()) == []


def test_bad_files(encoded: Path, clip: Path, base_weights: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with_weights = ("--weights", base_weights)
    assert "cannot be read" in refused(run("encode", text, tmp_path / "a.vdf", *with_weights))
    decode = ("decode", text, tmp_path / "a.mp4", *with_weights)
    for command in (decode, ("info", text), ("base", text, tmp_path / "a.mkv")):
        assert f"{text} is not a .vdf file" in refused(run(*command))
    assert "weights" in refused(run("encode", clip, tmp_path / "a.vdf", "--weights", text))
    assert "weights" in refused(run("decode", encoded, tmp_path / "a.mp4", "--weights", tmp_path / "none"))
    assert "extension" in refused(run("decode", encoded, tmp_path / "a.xyz", *with_weights))
    assert "lossless" in refused(run("decode", encoded, tmp_path / "a.mp4", "--lossless", *with_weights))
    assert [p.name for p in tmp_path.iterdir()] == ["text.mp4"]


def test_damage_leaves_no_file(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.vdf"
    short.write_bytes(encoded.read_bytes()[:-200])
    assert "byte" in refused(run("decode", short, "--strict", "--weights", base_weights))
    assert [p.name for p in tmp_path.iterdir()] == ["short.vdf"]


def test_damage_is_repaired_and_said(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    data = bytearray(encoded.read_bytes())
    with open(encoded, "rb") as file:
        data[Reader(file).index()[1].offset + 20] ^= 1  # frames 3 to 5
    bad, out = tmp_path / "bad.vdf", tmp_path / "out.mkv"
    bad.write_bytes(data)
    result = run("decode", bad, out, "--lossless", "--json", "-q", "--weights", base_weights)
    assert result.exit_code == 3, result.output
    assert result.stderr.startswith("Warning: 3 frames are lost and shown as the one before: 3-5 (byte ")
    assert result.stderr.count("\n") == 1
    values = json.loads(result.stdout.splitlines()[-1])
    assert (values["frames"], values["lost_frames"], len(values["faults"])) == (FRAMES, [[3, 5]], 1)
    assert (
        run("decode", encoded, tmp_path / "whole.mkv", "--lossless", "--weights", base_weights).exit_code == 0
    )
    repaired, whole = read(out), read(tmp_path / "whole.mkv")
    assert [f.pts for f in repaired] == [0, 60, 80, 140, 173, 206, 240]  # evenly where nothing tells them
    assert same(repaired[:3] + repaired[6:], whole[:3] + whole[6:])
    part = run("decode", bad, tmp_path / "part.y4m", "--start", 6, "--weights", base_weights)
    assert part.exit_code == 0, "the damage is elsewhere"


@pytest.mark.parametrize("kind", ["python", "numpy", "torch"])
def test_want_of_memory_is_said(
    encoded: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each library fails in its own way to allocate what no machine has."""
    greedy: dict[str, Callable[[], object]] = {
        "python": lambda: bytearray(1 << 60),
        "numpy": lambda: np.ones(1 << 58),
        "torch": lambda: torch.empty(1 << 58),
    }
    monkeypatch.setattr("viddiff.codec.base_gop_decoder.split_units", lambda *_: greedy[kind]())
    for more in ([], ["--strict"]):
        result = run("decode", encoded, tmp_path / "a.y4m", "--weights", base_weights, "--workers", 1, *more)
        assert "not enough memory" in refused(result)
        assert not list(tmp_path.glob("*a.y4m*"))


def test_limits(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    for command in (("decode", encoded, tmp_path / "a.mp4", "--weights", base_weights), ("info", encoded)):
        assert "over 1000 pixels" in refused(run(*command, "--max-pixels", 1000))
        assert "6" in refused(run(*command, "--max-frames", 6))
        assert run(*command, "--max-pixels", 48 * 34, "--max-frames", 7).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "encode",
        "encode a --quality 64",
        "encode a --quality -1",
        "encode a --gop 0",
        "encode a --entropy zip",
        "encode a b c",
        "encode a --verify --resume",
        "decode a --frames 0",
        "info",
        "info a --model",
        "train",
        "train --data . --fresh --init a",
        "nothing",
        "--nothing",
    ],
)
def test_wrong_use(arguments: str) -> None:
    refused(run(*arguments.split()), code=2)


def test_every_option_is_explained() -> None:
    for name, command in main.commands.items():
        assert command.help, name
        assert "Example" in command.help, name
        for option in command.params:
            if option.param_type_name == "option" and option.name not in ("help", "seed"):
                assert getattr(option, "help", None), f"{name} --{option.name}"


def test_quiet_is_quiet(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    assert run("decode", encoded, tmp_path / "a.mp4", "-q", "--weights", base_weights).output == ""


def test_converted_input_is_named(base_weights: Path, tmp_path: Path) -> None:
    import av

    source = tmp_path / "full.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        for index in range(2):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60 * index, np.uint8), "rgb24")
            output.mux(stream.encode(picture.reformat(format="yuv444p")))
        output.mux(stream.encode(None))
    result = run("encode", source, "--weights", base_weights)
    assert result.exit_code == 0, result.output
    assert "Note: converted" in result.stderr


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_help_shows_every_option_in_one_group(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    shown = re.findall(r"^  (?:-\w, )?(--[\w-]+)\b(?!\))", result.output, re.MULTILINE)
    options = [o for o in main.commands[name].params if o.param_type_name == "option"]
    assert sorted(shown) == sorted([*(max(o.opts, key=len) for o in options), "--help"])
    titles = re.findall(r"^(\w[\w ]+):$", result.output, re.MULTILINE)
    assert {"Input", "Output", "Machine"} < set(titles)
    assert "Options" not in titles


def test_help_fits_a_terminal() -> None:
    """80 columns, and no sentence that is cut off."""
    pages = [
        CliRunner().invoke(main, [*name, "--help"]).output for name in ([], *([n] for n in main.commands))
    ]
    assert not [line for page in pages for line in page.splitlines() if len(line) > 80]
    assert "..." not in pages[0].partition("Commands:")[2]


def test_help_does_not_load_pytorch() -> None:
    code = "import sys, viddiff.cli; assert not {'torch', 'cv2', 'av', 'numpy'} & set(sys.modules), 'slow'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_progress_for_scripts(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress objects (here at every chance), then the result. docs/json.md describes them."""
    seconds = itertools.count()
    monkeypatch.setattr("viddiff.cli.progress.time.monotonic", lambda: next(seconds))
    vdf, docs = tmp_path / "a.vdf", (Path(__file__).parent.parent / "docs" / "json.md").read_text()
    for arguments in (("encode", clip, vdf), ("decode", vdf, tmp_path / "a.y4m")):
        result = run(*arguments, "--json", "--weights", base_weights, "--workers", 1)
        *progress, last = map(json.loads, result.stdout.splitlines())
        assert "progress" not in last
        assert last["frames"] == progress[-1]["frames"] == progress[-1]["total"] == FRAMES
        frames = [values["frames"] for values in progress]
        assert frames == sorted(set(frames))
        for values in progress:
            assert values["progress"] == arguments[0]
            assert values["fps"] > 0
            assert 0 < values["bytes"] <= values["predicted_bytes"]
            assert values["eta"] == pytest.approx((FRAMES - values["frames"]) / values["fps"], rel=0.01)
            assert all(f"`{name}`" in docs for name in values)
        assert progress[-1]["predicted_bytes"] == progress[-1]["bytes"]
        quiet = run(*arguments, "--json", "-q", "--force", "--weights", base_weights, "--workers", 1)
        assert len(quiet.stdout.splitlines()) == 1


def test_sizes_in_progress() -> None:
    """The size so far and the final size; no final size if it is unknown."""
    for total, expected in ((8, "2.0 kB of about 8.0 kB"), (None, "2.0 kB")):
        stream = io.StringIO()
        progress = Progress("encode", total, stream=stream)
        progress._next_line = 1e-9
        progress.update(2, 2000)
        assert stream.getvalue().rstrip().endswith(expected)
