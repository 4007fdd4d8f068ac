"""Processes that share one GOP give the same file, frames and damage as one process."""

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import coded, moving_picture, same

from viddiff.codec.weights import Codec
from viddiff.container.format import Writer
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.division import Unit
from viddiff.pipeline.jobs import jobs
from viddiff.pipeline.memory import encoders_within_memory
from viddiff.pipeline.output import Output
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.parallel_encode import encode_video
from viddiff.pipeline.resources import Resources

FRAMES = 20
"""A keyframe, two mini-GOPs of eight and one of three."""


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [Frame(f.y, f.u, f.v, n) for n, f in enumerate(moving_picture(48, 32, FRAMES))]


@pytest.fixture(scope="module")
def whole(frames: list[Frame], codec: Codec) -> bytes:
    return coded(codec, frames)[0]


def decoded(
    data: bytes, weights: Path, folder: Path, workers: int, strict: bool = False
) -> tuple[list[Frame], Damage]:
    path = folder / "file.vdf"
    path.write_bytes(data)
    with open(path, "rb") as file:
        video = decode_video(file, path, Resources(weights, workers=workers), options=ReadOptions(strict))
        return list(video.frames), video.damage


def test_encoders_write_the_same_file(frames: list[Frame], weights: Path, tmp_path: Path) -> None:
    source, files = tmp_path / "in.mkv", []
    with VideoWriter(source, VideoInfo(48, 32, 8, Fraction(25), Fraction(1, 25)), lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    for workers in (1, 3):
        out = tmp_path / f"{workers}.vdf"
        with VideoReader(source) as reader, open(out, "wb") as file:
            resources, options = Resources(weights, workers=workers), EncodeOptions(gop=14)
            summary = encode_video(reader, resources, options, lambda header: Output(Writer(file, header)))
        assert (summary.frames, summary.keyframes) == (FRAMES, 2)
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_decoders_show_the_same_frames(whole: bytes, weights: Path, tmp_path: Path) -> None:
    one, damage = decoded(whole, weights, tmp_path, 1)
    assert len(one) == FRAMES
    assert not damage
    several, damage = decoded(whole, weights, tmp_path, 3)
    assert same(one, several)
    assert not damage


@pytest.mark.parametrize(
    ("kind", "number"),
    [*(("damaged", number) for number in range(4)), ("gone", 0), ("gone", 2), ("hostile", 1), ("hostile", 3)],
)
def test_damage_costs_the_same(whole: bytes, weights: Path, tmp_path: Path, kind: str, number: int) -> None:
    reader, places = Reader(io.BytesIO(whole)), []
    for offset, _ in reader.scan(None):
        places.append((offset, reader.offset))
    start, stop = places[number]
    data = bytearray(whole)
    data[(start + stop) // 2] ^= 1
    if kind == "gone":
        del data[start:stop]
    elif kind == "hostile":
        data[stop - 4 : stop] = struct.pack("<I", zlib.crc32(data[start : stop - 4]))
    one, two = (_outcome(bytes(data), weights, tmp_path, workers) for workers in (1, 2))
    assert one[1] == two[1]
    assert same(one[0], two[0])


def _outcome(data: bytes, weights: Path, folder: Path, workers: int) -> tuple[list[Frame], Damage | str]:
    try:
        return decoded(data, weights, folder, workers)
    except BitstreamError as error:
        return [], str(error)


def test_jobs_are_mini_gops_with_the_keyframes_before_them() -> None:
    groups = [Group(kind == "k", []) for kind in "kmmkkmk"]

    def shared_by(unit: Unit) -> list[str]:
        return ["".join("k" if g.key else "m" for g in job) for _, job in jobs(groups, unit)]

    assert shared_by(Unit.MINI_GOP) == ["km", "m", "kkm", "k"]
    assert shared_by(Unit.GOP) == ["kmm", "k", "km", "k"]


def test_a_job_is_begun_as_soon_as_its_first_group_is_there() -> None:
    taken = list[bool]()

    def groups() -> Iterator[Group]:
        for kind in "kmk":
            taken.append(kind == "k")
            yield Group(kind == "k", [])

    for _, job in jobs(groups(), Unit.GOP):
        before = len(taken)
        for number, _ in enumerate(job):
            assert len(taken) == before + number


def test_large_pictures_are_not_encoded_in_more_processes_than_fit_the_memory() -> None:
    def most(width: int, height: int, base: bool = False) -> int:
        return encoders_within_memory(VideoInfo(width, height), base)

    assert [most(3840, 2160), most(1920, 1080)] == [1, 2]
    assert most(640, 360) > most(1280, 720) > 2
    assert [most(1920, 1080, base=True), most(1280, 720, base=True)] == [1, 2]
