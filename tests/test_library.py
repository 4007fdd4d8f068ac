"""Keyframes predicted from library pictures: exact, cheaper, checked. Choice of pictures."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import coded, moving_picture, same
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from viddiff.cli import main
from viddiff.codec import checkpoint
from viddiff.codec.library import Library, LibraryPicture
from viddiff.codec.payloads import pack_key, unpack_key
from viddiff.codec.weights import Codec, codec_of
from viddiff.container.format import Header, KeyChunk, PredictedChunk, Writer
from viddiff.container.reader import Reader
from viddiff.encoder.library_choice import closest_pair
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stills import encode_still
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.selftest import frames_hash
from viddiff.pipeline.serial import decode
from viddiff.pipeline.weights_search import released_weights, released_with
from viddiff.training import library_selection
from viddiff.training.library_selection import choose_library
from viddiff.training.train import TrainOptions, train

SIZE = (64, 48)
FOLDER = Path(__file__).parent / "data" / "library"
GOLDEN: dict[str, dict[str, str]] = json.loads((FOLDER / "hashes.json").read_text())


def room(number: int = 0, bit_depth: int = 8) -> Frame:
    """View of a fixed camera without events."""
    return replace(moving_picture(*SIZE, 1, bit_depth, seed=100 + number)[0], pts=0)


def with_visitor(background: Frame, time: int) -> Frame:
    """The same view with something dark that passes."""
    y = background.y.copy()
    y[16:32, 6 * time % 48 : 6 * time % 48 + 12] = 20
    return replace(background, y=y, pts=time)


def visited(count: int, number: int = 0) -> list[Frame]:
    return [with_visitor(room(number), time) for time in range(count)]


def picture(frame: Frame, bit_depth: int = 8) -> LibraryPicture:
    height, width = frame.y.shape
    return LibraryPicture(width, height, bit_depth, encode_still(frame, bit_depth, 4))


def knowing(codec: Codec, *pictures: LibraryPicture) -> Codec:
    return codec_of(codec.model, codec.motion, codec.tables, Library(pictures))


@pytest.fixture(scope="module")
def learned(released: Codec) -> Codec:
    """A codec with a library of two rooms, and a picture of another size."""
    return knowing(released, picture(room(1)), picture(room(0)), picture(moving_picture(32, 32, 1)[0]))


def keys(data: bytes) -> list[bytes]:
    return [chunk.payload for chunk in Reader(io.BytesIO(data)) if isinstance(chunk, KeyChunk)]


@pytest.mark.parametrize(
    ("options", "share"),
    [
        (EncodeOptions(gop=5), 0.5),
        (EncodeOptions(gop=5, low_delay=True), 0.5),
        (EncodeOptions(gop=5, entropy="huffman", preset="fast"), 1.0),  # where zeros cost a bit each
    ],
)
def test_keyframes_from_the_library_decode_to_the_encoders_reconstruction(
    learned: Codec, released: Codec, options: EncodeOptions, share: float
) -> None:
    frames = visited(12)
    data, shown, summary = coded(learned, frames, options=options)
    assert [unpack_key(key) is not None for key in keys(data)] == [True] * 3
    assert same(list(decode(io.BytesIO(data), learned)), shown)
    plain, _, before = coded(released, frames, options=options)
    assert summary.key_bytes < share * before.key_bytes
    assert len(data) < len(plain)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden(name: str) -> None:
    """Made by scripts/make_golden.py."""
    data, still = ((FOLDER / name).with_suffix(suffix).read_bytes() for suffix in (".vdf", ".obu"))
    base = checkpoint.load(released_with(GOLDEN[name]["weights"]))
    assert unpack_key(keys(data)[0]) is not None
    assert frames_hash(data, knowing(base, LibraryPicture(64, 48, 8, still))) == GOLDEN[name]["frames"]


def test_pictures_serve_other_bit_depths(learned: Codec) -> None:
    frames = [replace(room(bit_depth=10), pts=time) for time in range(3)]
    data, shown, _ = coded(learned, frames, 10)
    assert unpack_key(keys(data)[0]) is not None
    assert same(list(decode(io.BytesIO(data), learned)), shown)


def test_what_the_library_does_not_show_is_coded_as_before(learned: Codec, released: Codec) -> None:
    for frames in (moving_picture(*SIZE, 3, seed=7), moving_picture(48, 48, 3)):
        with_it, without = (coded(c, frames)[0] for c in (learned, released))
        (key, *predicted), plain = (
            [chunk.payload for chunk in Reader(io.BytesIO(data))] for data in (with_it, without)
        )
        if frames[0].y.shape[::-1] == SIZE:
            assert [payload[:1] for payload in predicted] == [b"\0"]
            predicted = [payload[1:] for payload in predicted]
        assert [key, *predicted] == plain


def mini_gops(data: bytes) -> list[bytes]:
    return [chunk.payload for chunk in Reader(io.BytesIO(data)) if isinstance(chunk, PredictedChunk)]


def test_anchors_are_predicted_from_the_library(learned: Codec) -> None:
    """A visitor who was there from the start leaves, and uncovers background that is new."""
    frames = [with_visitor(room(), 0), *[with_visitor(room(), 0)] * 8, *[room()] * 8]
    frames = [replace(frame, pts=time) for time, frame in enumerate(frames)]
    data, shown, _ = coded(learned, frames)
    assert mini_gops(data)[1][0] == 2
    assert same(list(decode(io.BytesIO(data), learned)), shown)


@pytest.mark.parametrize("head", [b"\4", b"\xff", b"\3", None])
def test_anchors_from_pictures_that_are_not_there_are_damage(learned: Codec, head: bytes | None) -> None:
    reader, out = Reader(io.BytesIO(coded(learned, visited(9))[0])), io.BytesIO()
    writer = Writer(out, reader.header)
    for chunk in reader:
        payload = chunk.payload if isinstance(chunk, KeyChunk) else head + chunk.payload[1:] if head else b""
        writer.write(replace(chunk, payload=payload))
    writer.finish()
    with pytest.raises(BitstreamError, match="which the weights lack" if head else "cut short"):
        list(decode(io.BytesIO(out.getvalue()), learned))


def test_the_closest_pair_is_found(learned: Codec) -> None:
    info = VideoInfo(*SIZE)
    assert closest_pair(learned.library, room(1), info, 10.0) == (0, 1)
    one = Library(learned.library.pictures[1:])
    assert closest_pair(one, room(0), info, 10.0) == (0, 0)
    assert closest_pair(one, moving_picture(48, 48, 1)[0], VideoInfo(48, 48), 10.0) is None


def test_processes_share_such_files(learned: Codec, tmp_path: Path) -> None:
    source, weights = tmp_path / "a.y4m", tmp_path / "w.safetensors"
    checkpoint.save(weights, learned)
    with VideoWriter(source, VideoInfo(*SIZE), lossless=True) as writer:
        for frame in visited(18):
            writer.write(frame)
    files = []
    for workers in ("1", "2"):
        out, shown = tmp_path / f"{workers}.vdf", tmp_path / f"{workers}.y4m"
        common = ["--weights", str(weights), "--workers", workers]
        for command in (
            ["encode", str(source), str(out), "--gop", "9"],
            ["decode", str(out), str(shown)],
        ):
            result = CliRunner().invoke(main, [*command, *common])
            assert result.exit_code == 0, result.output
        files.append((out.read_bytes(), shown.read_bytes()))
    assert files[0] == files[1]
    assert all(unpack_key(key) is not None for key in keys(files[0][0]))


def rewritten(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with other keyframe payloads and correct checksums."""
    reader, out = Reader(io.BytesIO(data)), io.BytesIO()
    writer = Writer(out, reader.header)
    for chunk in reader:
        writer.write(replace(chunk, payload=change(chunk.payload)) if isinstance(chunk, KeyChunk) else chunk)
    writer.finish()
    return out.getvalue()


@pytest.mark.parametrize("pair", [(3, 0), (0, 255), (2, 0), (1, 2)])
def test_pictures_that_are_not_there_or_of_another_size_are_damage(
    learned: Codec, pair: tuple[int, int]
) -> None:
    def change(payload: bytes) -> bytes:
        known = unpack_key(payload)
        assert known is not None
        return pack_key(*pair, known[2])

    data = rewritten(coded(learned, visited(3))[0], change)
    with pytest.raises(BitstreamError, match="which the weights lack"):
        list(decode(io.BytesIO(data), learned))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
def test_keyframes_that_are_cut_short_are_damage(learned: Codec, size: int) -> None:
    data = rewritten(coded(learned, visited(3))[0], lambda payload: payload[:size])
    with pytest.raises(BitstreamError):
        list(decode(io.BytesIO(data), learned))


def test_damaged_ones_cost_their_gop_alone(learned: Codec, tmp_path: Path) -> None:
    data, shown, _ = coded(learned, visited(15), options=EncodeOptions(gop=5))
    second = keys(data)[1]
    path, weights = tmp_path / "a.vdf", tmp_path / "w.safetensors"
    checkpoint.save(weights, learned)
    path.write_bytes(rewritten(data, lambda key: pack_key(9, 9, b"") if key == second else key))
    with open(path, "rb") as file:
        video = decode_video(file, path, Resources(weights, "cpu", 1))
        found, damage = list(video.frames), video.damage
    assert damage.lost == [(5, 9)]
    assert same(found[:5] + found[10:], shown[:5] + shown[10:])


def test_a_damaged_picture_is_the_weights_fault(codec: Codec) -> None:
    good = picture(room())
    bad = knowing(codec, replace(good, still=good.still[:-20]))
    with pytest.raises(CheckpointError, match="library cannot be decoded"):
        coded(bad, visited(3))
    header = Header(VideoInfo(*SIZE), bad.hash, bad.name, 8)
    file = io.BytesIO()
    writer = Writer(file, header)
    writer.write(KeyChunk(0, pack_key(0, 0, b"")))
    writer.finish()
    with pytest.raises(CheckpointError, match="library cannot be decoded"):
        list(decode(io.BytesIO(file.getvalue()), bad))


def test_weights_keep_the_library(learned: Codec, released: Codec, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert checkpoint.save(path, learned) == learned.hash != released.hash
    loaded = checkpoint.load(path)
    assert (loaded.hash, loaded.library) == (learned.hash, learned.library)


def _sizes(row: list[int]) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors["sizes"][0] = torch.tensor(row, dtype=torch.int32)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _sizes([64, 48, 8, -1]),
        _sizes([64, 48, 8, 1 << 30]),
        _sizes([64, 48, 9, 10]),
        _sizes([8192, 48, 8, 10]),
        _sizes([0, 48, 8, 10]),
        lambda tensors: tensors.update(sizes=tensors["sizes"][:0]),
        lambda tensors: tensors.update(sizes=tensors["sizes"][:, :3]),
        lambda tensors: tensors.update(sizes=tensors["sizes"][0]),
        lambda tensors: tensors.update(sizes=tensors["sizes"].repeat(40, 1)),
        lambda tensors: tensors.update(sizes=tensors["sizes"].float()),
        lambda tensors: tensors.update(stills=tensors["stills"].to(torch.int8)),
        lambda tensors: tensors.update(stills=tensors["stills"][:-1]),
        lambda tensors: tensors.update(stills=tensors["stills"][None]),
    ],
)
def test_libraries_are_checked(learned: Codec, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = learned.library.tensors()
    pictures = Library.of_tensors(**tensors)
    assert pictures == learned.library
    change(tensors)
    with pytest.raises(CheckpointError, match="library"):
        Library.of_tensors(**tensors)


@pytest.mark.parametrize("name", ["library.sizes", "library.stills"])
def test_half_a_library_is_refused(learned: Codec, tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, learned)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, about)
    with pytest.raises(CheckpointError, match="library"):
        checkpoint.load(path)


def clip(path: Path, frames: list[Frame]) -> Path:
    height, width = frames[0].y.shape
    with VideoWriter(path, VideoInfo(width, height), lossless=True) as writer:
        for time, frame in enumerate(frames):
            writer.write(replace(frame, pts=time))
    return path


def test_backgrounds_are_chosen(tmp_path: Path) -> None:
    """Two fixed cameras: one picture each at first, without the visitor, who was there all the time."""
    videos = [clip(tmp_path / f"{number}.y4m", visited(40, number)) for number in (0, 1)]
    library = choose_library(videos, 2, random.Random(0))
    assert len(library.pictures) == 2
    errors = [
        [np.abs(p.decode().y.astype(int) - room(number).y).mean() for p in library.pictures]
        for number in (0, 1)
    ]
    assert max(map(min, errors)) < 3
    assert {int(np.argmin(e)) for e in errors} == {0, 1}


def test_long_videos_are_looked_at_here_and_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = clip(tmp_path / "a.y4m", visited(40))
    read = choose_library([video], 2, random.Random(0))
    monkeypatch.setattr(library_selection, "_SEEK", 1)
    assert choose_library([video], 2, random.Random(0)) == read != Library()


def test_nothing_is_chosen_where_nothing_comes_back(tmp_path: Path) -> None:
    frames = [moving_picture(*SIZE, number + 1, seed=number)[-1] for number in range(40)]
    assert choose_library([clip(tmp_path / "a.y4m", frames)], 8, random.Random(0)) == Library()
    assert choose_library([clip(tmp_path / "b.y4m", visited(40))], 0, random.Random(0)) == Library()
    short = clip(tmp_path / "c.y4m", frames[:1])
    broken = tmp_path / "d.y4m"
    broken.write_bytes(b"no video")
    assert choose_library([short, broken], 8, random.Random(0)) == Library()


def test_a_library_without_training(released: Codec, tmp_path: Path) -> None:
    data, out = tmp_path / "clips", tmp_path / "w.safetensors"
    data.mkdir()
    clip(data / "a.y4m", visited(40))
    result = CliRunner().invoke(
        main, ["train", "--base", "none", "--data", str(data), "--out", str(out), "--steps", "0", "--json"]
    )
    assert result.exit_code == 0, result.output
    first, last = map(json.loads, result.output.splitlines())
    codec = checkpoint.load(out)
    assert first == {"library_pictures": len(codec.library.pictures)} != {"library_pictures": 0}
    assert (last["weights"], last["hash"]) == (str(out), codec.hash.hex())
    assert Path(last["copy"]).read_bytes() == out.read_bytes()
    weights = [
        {n: t for n, t in load_file(p).items() if "library" not in n} for p in (out, released_weights("none"))
    ]
    assert all(torch.equal(tensor, weights[1].pop(name)) for name, tensor in weights[0].items())
    assert not weights[1]


@pytest.mark.parametrize("most", [8, 0])
def test_training_adds_a_library(released: Codec, tmp_path: Path, most: int) -> None:
    data = tmp_path / "clips"
    data.mkdir()
    clip(data / "a.y4m", visited(40))
    checkpoint.save(tmp_path / "init.safetensors", released)
    options = TrainOptions(
        data=data,
        out=tmp_path / "w.safetensors",
        init=tmp_path / "init.safetensors",
        library=most,
        steps=1,
        batch=1,
        crop=32,
        collectors=0,
        first_samples=2,
        calibration_clips=1,
    )
    train(options, lambda line: None)
    codec = checkpoint.load(options.out)
    assert bool(codec.library.pictures) == bool(most)
    found, shown, _ = coded(codec, visited(9))
    assert (unpack_key(keys(found)[0]) is not None) == bool(most)
    assert same(list(decode(io.BytesIO(found), codec)), shown)
