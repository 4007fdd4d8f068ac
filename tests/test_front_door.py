"""`import viddiff`: what a program gets, without any preparation, and without being changed itself."""

import doctest
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import moving_picture, same
from test_cli import write

import viddiff
from viddiff.cli import main
from viddiff.container.format import Chunk
from viddiff.container.reader import Reader
from viddiff.frame import Frame
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources

FRAMES = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write(path, moving_picture(48, 32, FRAMES))
    return path


@pytest.fixture(scope="module")
def encoded(clip: Path, base_weights: Path) -> Path:
    """Three GOPs of seven, seven and six frames."""
    result = viddiff.encode(clip, gop=7, weights=base_weights, workers=1)
    assert result.target == clip.with_name("clip.vdf")
    return result.target


@pytest.fixture(scope="module")
def frames(encoded: Path, base_weights: Path) -> list[Frame]:
    with open(encoded, "rb") as file:
        return list(decode_video(file, encoded, Resources(base_weights, workers=1)).frames)


@pytest.fixture(scope="module")
def predicted(clip: Path, weights: Path) -> Path:
    """The same without a base: PyTorch computes its frames."""
    path = clip.with_name("predicted.vdf")
    viddiff.encode(clip, path, gop=7, weights=weights, workers=1)
    return path


@pytest.fixture(scope="module")
def predicted_frames(predicted: Path, weights: Path) -> list[Frame]:
    with open(predicted, "rb") as file:
        return list(decode_video(file, predicted, Resources(weights, workers=1)).frames)


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
    )


def test_importing_it_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """if True:
        import sys, viddiff
        assert callable(viddiff.encode) and viddiff.__version__ and issubclass(viddiff.VideoError, Exception)
        heavy = {"torch", "av", "cv2", "numba", "numpy", "cryptography"} & set(sys.modules)
        assert not heavy, heavy
        assert viddiff.Frame.__name__ == "Frame"
    """
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_all_names_are_there() -> None:
    for name in viddiff.__all__:
        assert getattr(viddiff, name) is not None
    assert not hasattr(viddiff, "nothing")


def test_the_package_is_typed() -> None:
    assert (Path(viddiff.__file__).parent / "py.typed").exists()


def test_examples(tmp_path: Path, released: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the docstrings, in a folder with a video and weights, in the order in which they stand."""
    from viddiff.pipeline.weights_search import released_weights

    write(tmp_path / "holiday.mkv", moving_picture(48, 32, 12))
    (tmp_path / "holiday.mkv").rename(tmp_path / "holiday.mp4")  # libav goes by what is in it
    (tmp_path / "weights.safetensors").write_bytes(released_weights("none").read_bytes())
    monkeypatch.chdir(tmp_path)
    tests = doctest.DocTestFinder().find(viddiff, "viddiff", globs={"viddiff": viddiff})
    order = [
        "viddiff",
        "viddiff.encode",
        "viddiff.decode",
        "viddiff.compare",
        "viddiff.cut",
        "viddiff.join",
        "viddiff.thumbnail",
        "viddiff.open",
        "viddiff.load_weights",
    ]
    named = {test.name: test for test in tests if test.examples}
    assert named.keys() == set(order)
    for name in order:
        output = list[str]()
        failed, tried = doctest.DocTestRunner().run(named[name], out=output.append)
        assert tried
        assert not failed, "".join(output)


def test_frames_by_number(encoded: Path, frames: list[Frame], base_weights: Path) -> None:
    with viddiff.open(encoded, weights=base_weights) as video:
        assert len(video) == len(frames) == video.info.frame_count == FRAMES
        numbers: list[Any] = [19, 0, 13, 7, 6, 5, -1, -20, 12, np.int64(3)]
        for number in numbers:
            assert same([video[number]], [frames[number]]), number
        assert same(list(video), frames)
        assert same(list(reversed([video[n] for n in reversed(range(FRAMES))])), frames)
        for number in (FRAMES, -FRAMES - 1, 10**30):
            with pytest.raises(IndexError):
                video[number]
        with pytest.raises(TypeError):
            video["1"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "part",
    [slice(None), slice(3, 9), slice(None, None, 3), slice(None, None, -1), slice(18, 2, -5), slice(50, 60)],
)
def test_slices(encoded: Path, frames: list[Frame], base_weights: Path, part: slice) -> None:
    with viddiff.open(encoded, weights=base_weights) as video:
        assert same(video[part], frames[part])


def test_only_what_is_needed_is_decoded(
    encoded: Path, base_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk is decoded once while its frames are kept; a frame costs the chunks before it in its GOP."""
    from viddiff.codec.base_gop_decoder import BaseGopDecoder

    decoded = list[object]()
    decode = BaseGopDecoder.decode

    def counted(self: BaseGopDecoder, chunk: Chunk) -> Iterator[Frame]:
        decoded.append(chunk)
        return decode(self, chunk)

    monkeypatch.setattr(BaseGopDecoder, "decode", counted)
    with viddiff.open(encoded, weights=base_weights) as video:
        video[14]
        assert len(decoded) == 1, "the third keyframe alone"
        video[14], video[15], video[19], video[15]
        assert len(decoded) == 2
        list(video)
        assert len(decoded) == 6


def test_few_frames_are_kept(
    encoded: Path, frames: list[Frame], base_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import viddiff.pipeline.video as module

    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    monkeypatch.setattr(module, "_FEWEST", 2)
    with viddiff.open(encoded, weights=base_weights) as video:
        for number in (6, 2, 5, 1, 19, 0, 13):
            assert same([video[number]], [frames[number]])
        assert len(video._kept) == 2


def test_damage_costs_no_other_frame(
    encoded: Path, frames: list[Frame], base_weights: Path, tmp_path: Path
) -> None:
    data = bytearray(encoded.read_bytes())
    entries = Reader(io.BytesIO(data)).index()
    data[entries[2].offset - 20] ^= 1  # in the last chunk of the second GOP
    bad = tmp_path / "bad.vdf"
    bad.write_bytes(data)
    with viddiff.open(bad, weights=base_weights) as video:
        assert same(video[14:], frames[14:])
        with pytest.raises(viddiff.BitstreamError):
            video[10]
        assert same([video[7]], [frames[7]])
        assert same([video[3]], [frames[3]])


def test_encrypted(clip: Path, base_weights: Path, frames: list[Frame], tmp_path: Path) -> None:
    for key in (bytes(range(32)), "grüne Wiese"):
        out = tmp_path / f"{type(key).__name__}.vdf"
        viddiff.encode(clip, out, gop=7, weights=base_weights, workers=1, key=key)
        with viddiff.open(out, weights=base_weights, key=key) as video:
            assert same([video[9]], [frames[9]])
        with pytest.raises(viddiff.SecretError):
            viddiff.open(out, weights=base_weights)
        with pytest.raises(viddiff.SecretError):
            viddiff.open(out, weights=base_weights, key="another")


def test_open_files(
    clip: Path, base_weights: Path, frames: list[Frame], encoded: Path, tmp_path: Path
) -> None:
    out = io.BytesIO()
    with open(clip, "rb") as file:
        result = viddiff.encode(file, out, gop=7, weights=base_weights)
    assert (result.target, result.size_bytes) == (None, len(out.getvalue()))
    assert [c for c in Reader(io.BytesIO(out.getvalue()))] == [
        c for c in Reader(io.BytesIO(encoded.read_bytes()))
    ]
    with open(encoded, "rb") as file:
        viddiff.decode(file, tmp_path / "a.mkv", lossless=True, weights=base_weights)
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert same(list(reader), frames)


def test_results_and_progress(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    seen = list[viddiff.Status]()
    out = tmp_path / "a.vdf"
    result = viddiff.encode(
        clip, out, gop=7, weights=base_weights, workers=1, verify=True, progress=seen.append
    )
    assert (result.frames, result.keyframes, result.size_bytes) == (FRAMES, 3, out.stat().st_size)
    assert result.verified
    assert result.bits_per_pixel == pytest.approx(8 * result.size_bytes / (FRAMES * 48 * 32))
    assert [status.stage for status in seen if not status.frames] == ["encode", "verify"]
    assert seen[-1].frames == seen[-1].total == FRAMES
    shown = viddiff.decode(out, weights=base_weights, fps=12.5, workers=1)
    assert shown.target == tmp_path / "a.mp4"
    assert not shown.lost_frames
    assert not shown.faults


def printed(*arguments: object) -> dict[str, Any]:
    """What a command prints as JSON."""
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def test_cut_and_join_as_the_commands_do(
    encoded: Path, frames: list[Frame], base_weights: Path, tmp_path: Path
) -> None:
    part, same_part = tmp_path / "part.vdf", tmp_path / "same_part.vdf"
    cut = viddiff.cut(encoded, str(part), start=8, end=15)
    values = printed("cut", encoded, same_part, "--start", 8, "--end", 15)
    assert part.read_bytes() == same_part.read_bytes()
    assert (cut.target, cut.unasked, cut.uncovered) == (part, 1, False)
    assert (cut.first_frame, cut.frames, cut.keyframes, cut.start_s, cut.end_s, cut.size_bytes) == tuple(
        values[name] for name in ("first_frame", "frames", "keyframes", "start", "end", "bytes")
    )
    both, same_both = tmp_path / "both.vdf", tmp_path / "same_both.vdf"
    joined = viddiff.join([encoded, str(part)], both)
    values = printed("join", encoded, part, same_both)
    assert both.read_bytes() == same_both.read_bytes()
    assert (joined.target, joined.uncovered) == (both, False)
    assert (joined.frames, joined.keyframes, joined.seconds, joined.size_bytes) == tuple(
        values[name] for name in ("frames", "keyframes", "seconds", "bytes")
    )
    with viddiff.open(both, weights=base_weights) as video:
        shown = [*frames, *frames[7:]]
        assert len(video) == len(shown)
        for one, other in zip(video, shown, strict=True):
            assert all(map(np.array_equal, one.planes, other.planes))


def test_thumbnail_as_the_command_does(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    picture, same_picture = tmp_path / "a.png", tmp_path / "b.png"
    made = viddiff.thumbnail(encoded, picture, time=8, width=24, weights=base_weights)
    values = printed(
        "thumbnail", encoded, same_picture, "--time", 8, "--width", 24, "--weights", base_weights
    )
    assert picture.read_bytes() == same_picture.read_bytes()
    assert (made.target, made.frame, made.time_s, made.width, made.height, made.size_bytes) == (
        picture,
        *(values[name] for name in ("frame", "time", "width", "height", "bytes")),
    )


def test_keys_of_cut_join_and_thumbnail(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    key = bytes(range(32))
    secret, again, plain = (tmp_path / name for name in ("secret.vdf", "again.vdf", "plain.vdf"))
    assert not viddiff.cut(encoded, secret, key=key, encrypt=True).uncovered
    assert not viddiff.join([secret, encoded], again, key=key, encrypt=True).uncovered
    assert viddiff.cut(secret, plain, key=key).uncovered
    assert plain.read_bytes() == encoded.read_bytes()
    viddiff.thumbnail(again, tmp_path / "a.jpg", weights=base_weights, key=key)
    for wrong in (None, "another"):
        for source in (secret, again):
            with pytest.raises(viddiff.SecretError):
                viddiff.cut(source, tmp_path / "b.vdf", key=wrong)
            with pytest.raises(viddiff.SecretError):
                viddiff.join([source, source], tmp_path / "b.vdf", key=wrong)
            with pytest.raises(viddiff.SecretError):
                viddiff.thumbnail(source, tmp_path / "b.jpg", weights=base_weights, key=wrong)
    for sources in ([encoded, encoded], [encoded] * 3):
        with pytest.raises(viddiff.SecretError, match="no input is encrypted, but a key was given"):
            viddiff.join(sources, tmp_path / "b.vdf", key=key)
    with pytest.raises(viddiff.SecretError, match="no input is encrypted, but a key was given"):
        viddiff.cut(encoded, tmp_path / "b.vdf", key=key)
    assert not list(tmp_path.glob("b.*"))
    viddiff.cut(encoded, secret, key="grüne Wiese", encrypt=True, force=True)
    viddiff.cut(secret, plain, key="grüne Wiese", force=True)
    assert plain.read_bytes() == encoded.read_bytes()


def test_cut_join_and_thumbnail_lose_no_file(encoded: Path, base_weights: Path, tmp_path: Path) -> None:
    mine, folder = tmp_path / "mine.vdf", tmp_path / "folder"
    mine.write_text("mine")
    folder.mkdir()
    missing, jpeg = tmp_path / "missing.vdf", tmp_path / "mine.jpg"
    jpeg.write_text("mine")
    for source, target in ((missing, "a.vdf"), (folder, "a.vdf"), (encoded, "none/a.vdf"), (encoded, folder)):
        with pytest.raises(viddiff.ViddiffError):
            viddiff.cut(source, tmp_path / target)
        with pytest.raises(viddiff.ViddiffError):
            viddiff.join([encoded, source], tmp_path / target)
        with pytest.raises(viddiff.ViddiffError):
            viddiff.thumbnail(source, tmp_path / target, weights=base_weights)
    before = encoded.read_bytes()
    for force in (False, True):
        with pytest.raises(viddiff.OutputError):
            viddiff.cut(encoded, mine, force=force)
        with pytest.raises(viddiff.OutputError, match="its own output"):
            viddiff.join([mine, encoded], encoded, force=force)
        with pytest.raises(viddiff.OutputError):
            viddiff.thumbnail(encoded, jpeg, weights=base_weights, force=force)
    assert (mine.read_text(), jpeg.read_text(), encoded.read_bytes()) == ("mine", "mine", before)
    viddiff.cut(encoded, tmp_path / "a.vdf", frames=1)
    assert viddiff.cut(encoded, tmp_path / "a.vdf", force=True).frames == FRAMES
    with pytest.raises(viddiff.LimitError):
        viddiff.thumbnail(encoded, tmp_path / "a.png", weights=base_weights, limits=viddiff.Limits(pixels=99))
    assert {path.name for path in tmp_path.iterdir()} == {"mine.vdf", "mine.jpg", "folder", "a.vdf"}


def test_wrong_choices_of_cut_join_and_thumbnail(encoded: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.vdf"
    cuts: list[dict[str, Any]] = [
        {"start": -1}, {"start": -0.5}, {"start": "1"}, {"start": float("nan")}, {"end": float("inf")},
        {"end": -1}, {"start": 3, "end": 3}, {"frames": 0}, {"end": 3, "frames": 3}, {"encrypt": True},
    ]  # fmt: skip
    for wrong in cuts:
        with pytest.raises(ValueError, match=r"\w"):
            viddiff.cut(encoded, target, **wrong)
    for sources, options in ((encoded, {}), ([], {}), ([encoded], {}), ([encoded] * 2, {"encrypt": True})):
        with pytest.raises(ValueError, match=r"\w"):
            viddiff.join(sources, target, **options)  # type: ignore[arg-type]
    for wrong in ({"time": -1}, {"time": None}, {"width": 0}, {"width": 10**9}):
        with pytest.raises(ValueError, match=r"\w"):
            viddiff.thumbnail(encoded, target.with_suffix(".png"), **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_float_is_the_decimal_number_that_it_shows(encoded: Path, tmp_path: Path) -> None:
    """The third keyframe is shown at 0.56 s. The float is a little more than that."""
    assert Fraction(0.56) > Fraction("0.56")
    assert viddiff.cut(encoded, tmp_path / "a.vdf", end=0.56).frames == 14


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 64}, {"gop": 0}, {"preset": "best"}, {"audio": "opus:5"}, {"audio": "mp3"}, {"start": -1},
        {"frames": 0}, {"workers": 0}, {"fps": 0}, {"device": "tpu"}, {"verify": True, "resume": True},
        {"resume": True, "key": "a"}, {"entropy": "zip"},
    ],
)  # fmt: skip
def test_wrong_choices(clip: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        viddiff.encode(clip, tmp_path / "a.vdf", **wrong)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_rates() -> None:
    for given, meant in (
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (25, 25),
        (12.5, 12.5),
    ):
        assert viddiff._rate(given) == Fraction(meant)


def test_a_script_without_a_guard(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    """Processes that share the work do not run the program that started them once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "import viddiff\nprint('begun')\n"
        f"viddiff.encode({str(clip)!r}, 'a.vdf', gop=7, weights={str(base_weights)!r}, workers=2)\n"
    )
    result = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stdout) == (0, "begun\n"), result.stderr
    assert (tmp_path / "a.vdf").exists()


SETTINGS = """if True:
    import hashlib, sys, threading, warnings
    warnings.simplefilter("ignore")
    import torch
    from torch import nn
    if "first" in sys.argv:  # oneDNN has read the environment before we come
        nn.Conv2d(8, 8, 1)(torch.rand(1, 8, 64, 64))
    {set}
    import viddiff

    def state():
        return (
            torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"), torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(), torch.get_default_device(),
            torch._C._get_mkldnn_enabled(), torch.backends.mkldnn.conv.fp32_precision,
            torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision,
            torch.backends.cudnn.conv.fp32_precision, torch.is_inference_mode_enabled(),
        )

    digest, before = hashlib.sha256(), state()
    with viddiff.open(sys.argv[1], weights=sys.argv[2]) as video:
        for frame in video:
            assert state() == before, (before, state())
            for plane in frame.planes:
                digest.update(plane.tobytes())
    viddiff.encode(sys.argv[3], sys.argv[4], gop=7, frames=9, weights=sys.argv[2], workers=1)
    assert state() == before, (before, state())
    print(digest.hexdigest())
"""


@pytest.mark.parametrize(
    "set_up",
    [
        "torch.set_num_threads(8); torch.set_float32_matmul_precision('medium')\n"
        "    torch.backends.cudnn.allow_tf32 = True; torch.autocast('cpu', torch.bfloat16).__enter__()",
        "torch.set_default_dtype(torch.float64); torch.use_deterministic_algorithms(True)\n"
        "    torch.set_default_device('meta'); torch.inference_mode().__enter__()",
        "torch.backends.mkldnn.conv.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    ],
)
def test_settings_of_the_program_do_not_matter(
    predicted: Path, predicted_frames: list[Frame], weights: Path, clip: Path, tmp_path: Path, set_up: str
) -> None:
    _settings(set_up, predicted, predicted_frames, weights, clip, tmp_path, "later")


def test_the_environment_does_not_matter(
    predicted: Path,
    predicted_frames: list[Frame],
    weights: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """bfloat16 inside of oneDNN would be inexact on processors that have it."""
    monkeypatch.setitem(ENVIRONMENT, "ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    _settings("pass", predicted, predicted_frames, weights, clip, tmp_path, "first")


def _settings(
    set_up: str,
    predicted: Path,
    predicted_frames: list[Frame],
    weights: Path,
    clip: Path,
    folder: Path,
    when: str,
) -> None:
    import hashlib

    expected = hashlib.sha256()
    for frame in predicted_frames:
        for plane in frame.planes:
            expected.update(plane.tobytes())
    out = folder / "out.vdf"
    arguments = map(str, (predicted, weights, clip, out, when))
    result = subprocess.run(
        [sys.executable, "-c", SETTINGS.format(set=set_up), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == expected.hexdigest()
    again = folder / "again.vdf"
    viddiff.encode(clip, again, gop=7, frames=9, weights=weights, workers=1)
    assert out.read_bytes() == again.read_bytes()


def test_settings_change_in_no_thread(predicted: Path, weights: Path, predicted_frames: list[Frame]) -> None:
    """Several threads that decode at a time: the settings of the program come back when the last one ends."""
    import threading

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        results: dict[int, bool] = {}

        def decode(number: int) -> None:
            with viddiff.open(predicted, weights=weights) as video:
                results[number] = same(list(video), predicted_frames)

        threads = [threading.Thread(target=decode, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {0: True, 1: True, 2: True}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
