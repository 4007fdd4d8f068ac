"""Thumbnails: the nearest keyframe as `decode` shows it, upright, in three formats."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture
from numpy.typing import NDArray

import viddiff
from viddiff.cli import main
from viddiff.codec import checkpoint, enhancement_weights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.codec.weights import Codec
from viddiff.container.format import Writer
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, sealed
from viddiff.display import Display
from viddiff.encoder.open_encoder import open_encoder
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame, VideoInfo
from viddiff.media.picture_file import encode_picture, upright_size, written_by_viddiff
from viddiff.media.rgb import RgbConverter
from viddiff.pipeline.output import Output
from viddiff.pipeline.serial import decode, encode
from viddiff.pipeline.thumbnail import ThumbnailJob, make_thumbnail

SIZE = 80, 66
GOP = 4


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def picture(path: Path | bytes) -> NDArray[Any]:
    """(H, W, 3), as libav reads it."""
    source = io.BytesIO(path) if isinstance(path, bytes) else str(path)
    with av.open(source, "r") as file:
        frame = next(file.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        deep = frame.format.name.startswith("rgb48")
        return frame.to_ndarray(format="rgb48le" if deep else "rgb24")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, enhancer: Enhancer, codec: Codec) -> Path:
    """A folder with the weights."""
    folder = tmp_path_factory.mktemp("thumbnails")
    enhancement_weights.save(folder / "av1.safetensors", enhancer.weights)
    checkpoint.save(folder / "none.safetensors", codec)
    return folder


Made = Callable[..., tuple[Path, list[Frame]]]


@pytest.fixture(scope="module")
def made(folder: Path, enhancer: Enhancer, codec: Codec) -> Made:
    """Codes a video of 12 frames in three GOPs. Returns the file and its frames."""

    def make(base: str = "av1", bit_depth: int = 8, **properties: Any) -> tuple[Path, list[Frame]]:
        weights: Weights = enhancer if base == "av1" else codec
        info = VideoInfo(*SIZE, bit_depth, Fraction(1, 1000), **properties)
        frames = moving_picture(*SIZE, 12, bit_depth)
        timed = [replace(frame, pts=700 + 100 * number) for number, frame in enumerate(frames)]
        path, out = folder / f"{base}-{bit_depth}.vdf", io.BytesIO()
        encoder = open_encoder(weights, info, EncodeOptions(gop=GOP, preset="fastest"))
        encode(timed, encoder, Output(Writer(out, encoder.header)))
        path.write_bytes(out.getvalue())
        return path, list(decode(io.BytesIO(out.getvalue()), weights))

    return make


@pytest.fixture(scope="module")
def plain(made: Made) -> tuple[Path, list[Frame]]:
    return made()


def thumbnail(source: Path, target: Path, **options: Any) -> NDArray[Any]:
    job = ThumbnailJob(source=source, target=target, weights=source.parent, force=True, **options)
    made = make_thumbnail(job)
    found = picture(target)
    assert (made.width, made.height) == found.shape[1::-1]
    assert made.size_bytes == target.stat().st_size
    return found


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("base", ["av1", "none"])
def test_png_has_the_pixels_of_decode(made: Made, tmp_path: Path, base: str, bit_depth: int) -> None:
    source, frames = made(base, bit_depth, matrix=1)
    converter = RgbConverter(VideoInfo(*SIZE, bit_depth, matrix=1))
    for number in (0, 4, 8):
        found = thumbnail(source, tmp_path / "a.png", time=number)
        assert np.array_equal(found, converter(frames[number]))
        assert found.dtype == (np.uint8 if bit_depth == 8 else np.uint16)


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("form", [".avif", ".jpg", ".jpeg", ".AVIF"])
def test_others_are_near(made: Made, tmp_path: Path, form: str, bit_depth: int) -> None:
    source, frames = made("av1", bit_depth, matrix=1, primaries=1, transfer=1)
    exact = RgbConverter(VideoInfo(*SIZE, bit_depth, matrix=1))(frames[4]).astype(float)
    found = thumbnail(source, tmp_path / f"a{form}", time=4)
    assert np.abs(found - (exact if bit_depth == 8 else exact / 257)).mean() < 6


def test_avif_states_its_colours(made: Made, tmp_path: Path) -> None:
    source, _ = made("av1", 10, primaries=9, transfer=16, matrix=9)
    thumbnail(source, tmp_path / "a.avif")
    with av.open(str(tmp_path / "a.avif")) as file:
        frame = next(file.decode(video=0))
        assert isinstance(frame, av.VideoFrame)
        assert (frame.color_primaries, frame.color_trc, frame.colorspace) == (9, 16, 9)
        assert frame.format.name == "yuv420p10le"
    arguments = ("thumbnail", source, "--weights", source.parent)
    assert "look pale" in run(*arguments, tmp_path / "a.jpg").stderr
    assert "Note" not in run(*arguments, tmp_path / "b.avif").stderr
    assert run(*arguments, tmp_path / "a.png").exit_code == 0
    assert b"cICP\x09\x10\x00\x01" in (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0, 0), (1, 0), (2, 0), (3, 4), (6, 4), (7, 8), (11, 8), (1000, 8),
        (Fraction(0), 0), (Fraction(1, 5), 0), (Fraction(21, 100), 4), (Fraction(59, 100), 4),
        (Fraction(61, 100), 8), (Fraction(500), 8),
    ],
)  # fmt: skip
def test_nearest_keyframe(
    plain: tuple[Path, list[Frame]], tmp_path: Path, time: int | Fraction, expected: int
) -> None:
    source, _ = plain
    job = ThumbnailJob(source=source, target=tmp_path / "a.png", time=time, weights=source.parent)
    result = make_thumbnail(job)
    assert (result.frame, result.time_s) == (expected, expected / 10)


def test_only_the_keyframe_is_read(plain: tuple[Path, list[Frame]], tmp_path: Path) -> None:
    """All else may be damaged; a damaged keyframe is an error that says so."""
    source, frames = plain
    data = bytearray(source.read_bytes())
    reader = Reader(io.BytesIO(data))
    entries = reader.stored_index()
    reader.seek(entries[1])
    next(reader.chunks())
    for start, end in ((entries[0].offset + 20, entries[1].offset), (reader.offset, entries[2].offset)):
        for at in range(start, end, 50):
            data[at] ^= 0xFF
    changed = source.with_name("changed.vdf")
    changed.write_bytes(data)
    found = thumbnail(changed, tmp_path / "a.png", time=4)
    assert np.array_equal(found, RgbConverter(VideoInfo(*SIZE))(frames[4]))
    data[entries[1].offset + 30] ^= 0xFF
    changed.write_bytes(data)
    result = run("thumbnail", changed, tmp_path / "b.png", "--time", 4, "--weights", source.parent)
    assert result.exit_code == 1
    assert "is damaged" in result.stderr
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("properties", "turned"),
    [
        ({"rotation": 90}, lambda rgb: np.rot90(rgb, -1)),
        ({"rotation": 180}, lambda rgb: rgb[::-1, ::-1]),
        ({"rotation": 270}, lambda rgb: np.rot90(rgb)),
        (
            {"display": Display(matrix=(-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))},
            lambda rgb: rgb[:, ::-1],
        ),
        (
            {"display": Display(matrix=(1 << 16, 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30))},
            lambda rgb: rgb[::-1],
        ),
        (
            {"display": Display(matrix=(0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30))},
            lambda rgb: rgb.transpose(1, 0, 2),
        ),
        ({"display": Display(matrix=(46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30))}, lambda rgb: rgb),
    ],
    ids=["90", "180", "270", "left and right", "upside down", "mirrored along the diagonal", "45 degrees"],
)
def test_pictures_are_upright(properties: dict[str, Any], turned: Callable[..., NDArray[Any]]) -> None:
    info = VideoInfo(*SIZE, **properties)
    frame = moving_picture(*SIZE, 1)[0]
    found = picture(encode_picture(frame, info, ".png"))
    assert np.array_equal(found, turned(RgbConverter(info)(frame)))
    assert upright_size(info) == found.shape[1::-1]


def test_rotation_is_that_of_libav() -> None:
    """A player turns the frame as the thumbnail is turned."""
    from viddiff.media.filter_chain import linked
    from viddiff.media.picture_properties import source_arguments

    frame = moving_picture(*SIZE, 1)[0]
    upright = av.VideoFrame.from_ndarray(RgbConverter(VideoInfo(*SIZE))(frame), "rgb24")
    upright.pts = 0
    chain = (
        ("buffer", source_arguments(upright, Fraction(1, 25))),
        ("transpose", "clock"),
        ("buffersink", ""),
    )
    graph = linked(*chain)
    graph.push(upright)
    clockwise = graph.pull()
    assert isinstance(clockwise, av.VideoFrame)
    found = picture(encode_picture(frame, VideoInfo(*SIZE, rotation=90), ".png"))
    assert np.array_equal(found, clockwise.to_ndarray())


@pytest.mark.parametrize(
    ("properties", "width", "size"),
    [
        ({}, 40, (40, 33)),
        ({}, 160, (160, 132)),
        ({}, 1, (1, 1)),
        ({"rotation": 90}, 4, (4, 5)),
        ({"sample_aspect_ratio": Fraction(2)}, None, (160, 66)),
        ({"sample_aspect_ratio": Fraction(1, 2)}, None, (80, 132)),
        ({"sample_aspect_ratio": Fraction(2)}, 80, (80, 33)),
        ({"rotation": 90}, 33, (33, 40)),
        ({"rotation": 270, "sample_aspect_ratio": Fraction(2)}, None, (66, 160)),
    ],
)
def test_width_and_shape(properties: dict[str, Any], width: int | None, size: tuple[int, int]) -> None:
    info, frame = VideoInfo(*SIZE, **properties), moving_picture(*SIZE, 1)[0]
    for form in (".png", ".jpg", ".avif"):
        if form != ".avif" or min(size) >= 4:
            found = picture(encode_picture(frame, info, form, width))
            assert found.shape[1::-1] == size
            assert abs(found.mean() - RgbConverter(info)(frame).mean()) < 8


def test_deep_pictures_are_scaled() -> None:
    info, frame = VideoInfo(*SIZE, 10), moving_picture(*SIZE, 1, 10)[0]
    found = picture(encode_picture(frame, info, ".png", 40))
    assert found.dtype == np.uint16
    assert abs(found.mean() - RgbConverter(info)(frame).mean()) < 2000


def test_a_shape_that_is_too_long() -> None:
    info = VideoInfo(*SIZE, sample_aspect_ratio=Fraction(60000, 1))
    with pytest.raises(viddiff.LimitError, match="the picture would have"):
        encode_picture(moving_picture(*SIZE, 1)[0], info, ".png")
    with pytest.raises(viddiff.LimitError, match=r"would have 1x1 pixels; \.avif needs 4 a side"):
        encode_picture(moving_picture(*SIZE, 1)[0], VideoInfo(*SIZE), ".avif", 1)


def test_equal_arguments_give_equal_bytes() -> None:
    info, frame = VideoInfo(*SIZE), moving_picture(*SIZE, 1)[0]
    for form in (".png", ".jpg", ".avif"):
        assert encode_picture(frame, info, form) == encode_picture(frame, info, form)


def test_other_readers_read_them(tmp_path: Path) -> None:
    from PIL import Image

    frame = moving_picture(*SIZE, 1)[0]
    for form in (".png", ".jpg", ".avif"):
        (tmp_path / f"a{form}").write_bytes(encode_picture(frame, VideoInfo(*SIZE), form))
        assert written_by_viddiff(tmp_path / f"a{form}")
        Image.new("RGB", (9, 9)).save(tmp_path / f"b{form}")
        assert not written_by_viddiff(tmp_path / f"b{form}"), "somebody's only copy"
        with Image.open(tmp_path / f"a{form}") as opened:
            opened.load()
            assert opened.size == SIZE
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("text")
    assert written_by_viddiff(tmp_path / "empty")
    assert not written_by_viddiff(tmp_path / "text")
    assert not written_by_viddiff(tmp_path / "none")


def test_no_pytorch_for_a_file_with_an_av1_base(plain: tuple[Path, list[Frame]], tmp_path: Path) -> None:
    source, _ = plain
    code = (
        "import sys; from viddiff.cli import main\n"
        "try: main(sys.argv[1:], prog_name='viddiff')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    arguments = ["thumbnail", source, tmp_path / "a.avif", "--weights", source.parent, "--width", "32"]
    environment = {**os.environ, "PYTHONPATH": str(Path(viddiff.__file__).parent.parent)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_encrypted(plain: tuple[Path, list[Frame]], tmp_path: Path) -> None:
    source, frames = plain
    (tmp_path / "key").write_bytes(bytes(range(32)))
    with open(tmp_path / "a.vdf", "wb") as file, sealed(file, Secret(bytes(range(32)), False)) as out:
        out.write(source.read_bytes())
    arguments = ("thumbnail", tmp_path / "a.vdf", tmp_path / "a.png", "--weights", source.parent)
    assert "needs its --key-file" in run(*arguments).stderr
    assert run(*arguments, "--key-file", tmp_path / "key").exit_code == 0
    assert np.array_equal(picture(tmp_path / "a.png"), RgbConverter(VideoInfo(*SIZE))(frames[0]))


def test_the_command(plain: tuple[Path, list[Frame]], tmp_path: Path) -> None:
    source, target = plain[0], tmp_path / "a.png"
    arguments = ("thumbnail", source, target, "--weights", source.parent)
    result = run(*arguments, "--time", "00:00.35", "--width", 40)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"{target}: frame 4 at 00:00.400, 40x33, ")
    assert "exists; --force" in run(*arguments).stderr
    assert run(*arguments, "--force", "--quiet").output == ""
    values = json.loads(run(*arguments, "-f", "--json").stdout)
    expected = {"input": str(source), "output": str(target), "frame": 0, "time": 0.0, "width": 80}
    assert values == expected | {"height": 66, "bytes": target.stat().st_size}
    target.write_bytes(b"precious")
    assert "it is not a picture that viddiff has written" in run(*arguments, "--force").stderr
    assert target.read_bytes() == b"precious"
    assert "unknown extension" in run("thumbnail", source, tmp_path / "a.gif").stderr
    assert "does not exist" in run("thumbnail", tmp_path / "none.vdf", tmp_path / "b.png").stderr
    assert run("thumbnail", source, tmp_path / "b.png", "--width", 0).exit_code == 2
    assert run("thumbnail", source, tmp_path / "b.png", "--time", "noon").exit_code == 2
    assert "over 100 pixels" in run("thumbnail", source, tmp_path / "b.png", "--max-pixels", 100).stderr
    assert "are not here" in run("thumbnail", source, tmp_path / "b.png").stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("size", [0, 40, 300])
def test_files_without_a_frame(plain: tuple[Path, list[Frame]], tmp_path: Path, size: int) -> None:
    (tmp_path / "a.vdf").write_bytes(plain[0].read_bytes()[:size])
    result = run("thumbnail", tmp_path / "a.vdf", tmp_path / "a.png", "--weights", plain[0].parent)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "a.png").exists()
