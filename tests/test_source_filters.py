"""Deinterlacing, cropping and chains of libav's filters, before a source is encoded."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import moving_picture
from test_docs import DOCS
from test_odd_media import pictures, video

import viddiff
from viddiff.cli import main
from viddiff.errors import LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.filters import Changes
from viddiff.media.picture_planes import picture_from_planes, planes_from_picture
from viddiff.media.source_filters import SourceFilters, parsed_chain
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter

INTERLACED = 1 << 18 | 1 << 29  # libav's flags of MPEG-2: fields are coded and searched apart


def written(path: Path, frames: list[Frame], **properties: object) -> Path:
    height, width = frames[0].y.shape
    info = VideoInfo(width, height, **properties)  # type: ignore[arg-type]
    with VideoWriter(path, info) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def read(path: Path, filters: SourceFilters, **choices: object) -> tuple[VideoInfo, list[Frame], list[str]]:
    with VideoReader(path, changes=Changes(source=filters), **choices) as reader:  # type: ignore[arg-type]
        frames = list(reader)
        return reader.info, frames, reader.notes


def test_a_part_is_cut_out(tmp_path: Path) -> None:
    """Sample for sample, with the same times."""
    frames = moving_picture(96, 80, 5)
    path = written(tmp_path / "a.mkv", frames, sample_aspect_ratio=Fraction(4, 3))
    info, found, _ = read(path, SourceFilters(crop=(48, 32, 16, 8)))
    assert (info.width, info.height, info.sample_aspect_ratio) == (48, 32, Fraction(4, 3))
    assert [f.pts for f in found] == [f.pts for f in read(path, SourceFilters())[1]]
    for frame, whole in zip(found, read(path, SourceFilters())[1], strict=True):
        assert np.array_equal(frame.y, whole.y[8:40, 16:64])
        assert np.array_equal(frame.u, whole.u[4:20, 8:32])


def test_a_part_of_a_picture_that_is_too_large_to_encode(tmp_path: Path) -> None:
    """The size that counts is the one after cropping, which has to be allowed as well."""
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 2))
    with pytest.raises(LimitError, match="8x48"):
        read(path, SourceFilters(crop=(8, 48, 0, 0)))
    for part in ((128, 48, 0, 0), (32, 32, 34, 0), (32, 32, 0, 18)):
        with pytest.raises(VideoError, match=r"cannot be filtered: --crop .* beyond the picture of 64x48"):
            read(path, SourceFilters(crop=part))
    assert read(path, SourceFilters(crop=(32, 32, 32, 16)))[0].width == 32


def test_fields_become_frames(tmp_path: Path) -> None:
    """As many frames at the same times, progressive; the note says how to get this."""
    shown = pictures(20, filters="setfield=tff")
    path = video(tmp_path / "a.ts", shown, "mpeg2video", flags=INTERLACED)
    info, plain, notes = read(path, SourceFilters())
    assert info.display.field_order == "top first"
    assert any("--deinterlace auto" in note for note in notes)
    info, found, notes = read(path, SourceFilters(deinterlace="auto"))
    assert info.display.field_order == "progressive"
    assert [f.pts for f in found] == [f.pts for f in plain]
    assert not any("interlaced" in note for note in notes)


def test_combs_go() -> None:
    """Frames woven of fields of different times."""
    moving = moving_picture(96, 80, 16)

    def woven() -> Iterator[av.VideoFrame]:
        for t in range(8):
            planes = [plane.copy() for plane in moving[2 * t].planes]
            for plane, other in zip(planes, moving[2 * t + 1].planes, strict=True):
                plane[1::2] = other[1::2]
            picture = picture_from_planes((planes[0], planes[1], planes[2]), 8)
            picture.pts = t
            yield picture

    def comb(picture: av.VideoFrame) -> float:
        y = planes_from_picture(picture, 8, 96, 80)[0].astype(float)
        return float(np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2).mean())

    found = list(SourceFilters(deinterlace="all").applied(woven(), Fraction(1, 25), Fraction(1)))
    assert [picture.pts for picture in found] == list(range(8))
    assert np.mean([comb(p) for p in found]) < 0.7 * np.mean([comb(p) for p in woven()])


def test_frames_that_are_not_marked_stay_with_auto(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 4))
    frames = read(path, SourceFilters())[1]
    _, found, _ = read(path, SourceFilters(deinterlace="auto"))
    assert all(np.array_equal(a.y, b.y) for a, b in zip(found, frames, strict=True))
    _, found, _ = read(path, SourceFilters(deinterlace="all"))
    assert not all(np.array_equal(a.y, b.y) for a, b in zip(found, frames, strict=True))


def test_a_chain(tmp_path: Path) -> None:
    """Filters that change samples, the size, the shape and the times."""
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 6))
    frames = read(path, SourceFilters())[1]
    info, found, _ = read(path, SourceFilters(chain="hflip,scale=32:48,setpts=2*PTS"))
    assert (info.width, info.height, info.sample_aspect_ratio) == (32, 48, Fraction(2))
    assert [f.pts for f in found] == [2 * f.pts for f in frames]
    _, found, _ = read(path, SourceFilters(chain="vflip"))
    assert all(np.array_equal(a.y, b.y[::-1]) for a, b in zip(found, frames, strict=True))
    info, found, _ = read(path, SourceFilters(chain="format=yuv420p10le"))
    assert info.bit_depth == 10
    for ended, count in (("trim=end_frame=3", 3), ("trim=start_frame=2:end_frame=3,hflip", 1)):
        assert len(read(path, SourceFilters(chain=ended))[1]) == count


def test_places_in_time_are_those_after_the_filters(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 8))
    whole = read(path, SourceFilters(chain="vflip"))[1]
    part = read(path, SourceFilters(chain="vflip"), start=3, frames=2)[1]
    assert [f.pts for f in part] == [f.pts for f in whole[3:5]]
    assert np.array_equal(part[0].y, whole[3].y)


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("hflip,nofilter", "no filter nofilter"),
        ("hflip,unsharp=nonsense=4,vflip", "the filter unsharp=nonsense=4"),
        ("scale=-5:x", "the filter scale=-5:x"),
        ("hflip,anull", "the filter anull"),
        ("hflip,split", "cannot be filtered"),
        ("vstack", "cannot be filtered"),
        ("select=0", "no frame that can be decoded and that --vf lets through"),
    ],
)
def test_bad_filters_are_one_sentence(tmp_path: Path, chain: str, said: str) -> None:
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 2))
    done = CliRunner().invoke(main, ["encode", str(path), str(tmp_path / "a.vdf"), "--vf", chain])
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (tmp_path / "a.vdf").exists()


def test_the_chains_that_are_shown_as_examples_work(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 6))
    rows = (DOCS / "cli.md").read_text().splitlines()
    row = next(row for row in rows if row.startswith("| `--vf CHAIN` |"))
    chain = row.split("`")[3]
    assert chain in CliRunner().invoke(main, ["encode", "--help"]).output
    assert len(read(path, SourceFilters(chain=chain))[1]) == 6


@pytest.mark.parametrize(
    "options",
    [
        ("--vf", "split[a][b];[a][b]hstack"),
        ("--vf", "hflip,,vflip"),
        ("--vf", "eq=brightness='0.1"),
        ("--crop", "64x48"),
        ("--crop", "0x48+0+0"),
        ("--deinterlace", "perhaps"),
    ],
)
def test_what_is_no_chain_is_a_usage_error(tmp_path: Path, options: tuple[str, str]) -> None:
    path = written(tmp_path / "a.mkv", moving_picture(64, 48, 2))
    assert CliRunner().invoke(main, ["encode", str(path), *options]).exit_code == 2


def test_quotes_are_taken_off_once() -> None:
    assert parsed_chain("a=b\\,c , d='x,[y];z':e") == [("a", "b,c"), ("d", "x,[y];z:e")]
    assert parsed_chain("hflip") == [("hflip", "")]
    assert parsed_chain("drawbox=t='a=b'") == [("drawbox", "t=a=b")]


def test_files_hold_what_the_filters_show(tmp_path: Path) -> None:
    """From the front door, checked against the reconstruction; another chain is not the same job."""
    path = written(tmp_path / "a.mkv", moving_picture(96, 80, 5))
    target = tmp_path / "a.vdf"
    viddiff.encode(path, target, crop=(64, 48, 0, 0), vf="vflip", preset="fastest", verify=True)
    with viddiff.open(target) as file:
        assert (file.info.width, file.info.height) == (64, 48)
