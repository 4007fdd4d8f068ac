"""Video files: exact samples and times in and out, and one clear sentence when something is wrong."""

import io
import itertools
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from viddiff.errors import LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.demuxer import Demuxer
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pixels import plane_shapes

COLOURS: dict[str, Any] = {"primaries": 9, "transfer": 16, "matrix": 9}


def clip(info: VideoInfo, times: Sequence[int]) -> list[Frame]:
    """Smooth moving shapes."""
    frames = []
    for index, pts in enumerate(times):
        planes = []
        for rows, columns in plane_shapes(info.width, info.height):
            y, x = np.mgrid[:rows, :columns]
            plane = (0.5 + 0.2 * np.sin(x / 5 + index / 3) + 0.2 * np.cos(y / 7)) * (2**info.bit_depth - 1)
            planes.append(plane.astype(np.uint8 if info.bit_depth == 8 else np.uint16))
        frames.append(Frame(planes[0], planes[1], planes[2], pts))
    return frames


def write(path: Path, info: VideoInfo, frames: list[Frame], lossless: bool = False) -> list[str]:
    with VideoWriter(path, info, lossless) as writer:
        for frame in frames:
            writer.write(frame)
    return writer.notes


def largest_error(a: list[Frame], b: list[Frame]) -> int:
    assert len(a) == len(b)
    pairs = [p for f, g in zip(a, b, strict=True) for p in zip(f.planes, g.planes, strict=True)]
    assert all(p.shape == q.shape and p.dtype == q.dtype and q.flags.c_contiguous for p, q in pairs)
    return max(int(np.abs(p.astype(int) - q).max()) for p, q in pairs)


def store(path: Path, pictures: list[av.VideoFrame], codec: str = "ffv1", times: Sequence[int] = ()) -> None:
    """Write libav pictures unchanged, 25 a second, with PyAV alone."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = (
            pictures[0].width,
            pictures[0].height,
            pictures[0].format.name,
        )
        stream.codec_context.color_range = pictures[0].color_range
        packets: list[av.Packet[Any]] = []
        for index, picture in enumerate(pictures):
            picture.pts = index
            packets += stream.encode(picture)
        packets += stream.encode(None)
        for packet, pts in itertools.zip_longest(packets, times):
            if pts is not None:
                packet.pts = pts
            output.mux(packet)


def coloured(form: str, width: int = 64, height: int = 48, color_range: int = 1) -> av.VideoFrame:
    """A picture with random bytes, in planes whose samples are whole bytes."""
    rng = np.random.default_rng(7)
    picture = av.VideoFrame(width, height, form)
    picture.color_range = color_range
    for plane in picture.planes:
        plane.update(rng.integers(16, 235, plane.buffer_size, np.uint8).tobytes())
    return picture


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("size", [(64, 48), (35, 33)])
@pytest.mark.parametrize("suffix", [".mkv", ".y4m"])
def test_lossless_files_keep_every_sample(
    tmp_path: Path, suffix: str, size: tuple[int, int], bit_depth: int
) -> None:
    info = VideoInfo(*size, bit_depth)
    frames = clip(info, range(5))
    assert write(tmp_path / f"a{suffix}", info, frames, lossless=True) == []
    with VideoReader(tmp_path / f"a{suffix}") as reader:
        assert largest_error(frames, list(reader)) == 0
        assert reader.notes == []
        assert (reader.info.width, reader.info.height, reader.info.bit_depth) == (*size, bit_depth)
        assert reader.info.frame_rate == 25
        assert reader.info.frame_count == 5


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_h264_is_close_and_keeps_what_is_known_of_the_video(
    tmp_path: Path, suffix: str, bit_depth: int
) -> None:
    info = VideoInfo(
        64,
        48,
        bit_depth,
        **COLOURS,
        full_range=True,
        chroma_location=3,
        sample_aspect_ratio=Fraction(4, 3),
        rotation=90,
    )
    frames = clip(info, range(12))
    assert write(tmp_path / f"a{suffix}", info, frames) == []
    with VideoReader(tmp_path / f"a{suffix}") as reader:
        assert 0 < largest_error(frames, list(reader)) < 10 * 2 ** (bit_depth - 8)
        found = reader.info
    assert (found.primaries, found.transfer, found.matrix, found.full_range) == (9, 16, 9, True)
    assert (found.chroma_location, found.sample_aspect_ratio, found.rotation) == (3, Fraction(4, 3), 90)
    assert found.bit_depth == bit_depth


def test_ffv1_keeps_what_is_known_of_the_video(tmp_path: Path) -> None:
    info = VideoInfo(
        64,
        48,
        **COLOURS,
        chroma_location=1,
        sample_aspect_ratio=Fraction(16, 11),
        rotation=270,
        full_range=True,
    )
    write(tmp_path / "a.mkv", info, clip(info, range(3)), lossless=True)
    with VideoReader(tmp_path / "a.mkv") as reader:
        found = reader.info
    assert (found.primaries, found.transfer, found.matrix, found.full_range) == (9, 16, 9, True)
    assert (found.chroma_location, found.sample_aspect_ratio, found.rotation) == (1, Fraction(16, 11), 270)


def test_y4m_keeps_rate_aspect_range_and_chroma_location(tmp_path: Path) -> None:
    info = VideoInfo(
        64,
        48,
        frame_rate=Fraction(30000, 1001),
        time_base=Fraction(1001, 30000),
        sample_aspect_ratio=Fraction(4, 3),
        full_range=True,
        chroma_location=1,
    )
    assert write(tmp_path / "a.y4m", info, clip(info, range(3))) == []
    with VideoReader(tmp_path / "a.y4m") as reader:
        found = reader.info
    assert (found.frame_rate, found.time_base) == (Fraction(30000, 1001), Fraction(1001, 30000))
    assert (found.sample_aspect_ratio, found.full_range, found.chroma_location) == (Fraction(4, 3), True, 1)


VARIABLE = [0, 40, 41, 120, 500, 501, 502, 900, 2000, 2017]


@pytest.mark.parametrize("lossless", [True, False])
def test_variable_times_in_mkv_are_exact(tmp_path: Path, lossless: bool) -> None:
    info = VideoInfo(64, 48, time_base=Fraction(1, 1000))
    write(tmp_path / "a.mkv", info, clip(info, VARIABLE), lossless)
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert reader.info.time_base == Fraction(1, 1000)
        assert [f.pts for f in reader] == VARIABLE
        assert reader.notes == []


def test_variable_times_in_mp4_are_exact_from_the_first_frame(tmp_path: Path) -> None:
    info = VideoInfo(64, 48, time_base=Fraction(1, 30000), frame_rate=Fraction(30000, 1001))
    times = [1001 * 7 + 31 * t for t in VARIABLE]
    write(tmp_path / "a.mp4", info, clip(info, times))
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert [f.pts * reader.info.time_base for f in reader] == [Fraction(t, 30000) for t in times]


def test_y4m_says_that_variable_times_are_lost(tmp_path: Path) -> None:
    info = VideoInfo(64, 48, time_base=Fraction(1, 1000))
    (note,) = write(tmp_path / "a.y4m", info, clip(info, VARIABLE))
    assert "constant rate" in note


def test_odd_sizes_in_h264_grow_by_one_with_a_note(tmp_path: Path) -> None:
    info = VideoInfo(35, 33)
    frames = clip(info, range(3))
    (note,) = write(tmp_path / "a.mp4", info, frames)
    assert "even sizes" in note
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (reader.info.width, reader.info.height) == (36, 34)
        y = next(iter(reader)).y.astype(int)
    assert np.abs(y[:33, :35] - frames[0].y).max() < 10
    assert np.abs(y[:, 35] - y[:, 34]).max() < 10  # repeated, not black


def test_start_and_frames_select_a_part(tmp_path: Path) -> None:
    info = VideoInfo(64, 48)
    frames = clip(info, range(10))
    write(tmp_path / "a.mkv", info, frames, lossless=True)
    with VideoReader(tmp_path / "a.mkv", start=3, frames=4) as reader:
        assert reader.info.frame_count == 4
        part = list(reader)
    assert [f.pts for f in part] == [120, 160, 200, 240]
    assert largest_error(frames[3:7], part) == 0
    with VideoReader(tmp_path / "a.mkv", start=8, frames=4) as reader:
        assert reader.info.frame_count == 2
        assert len(list(reader)) == 2


def test_other_processes_open_a_source_with_its_options(tmp_path: Path) -> None:
    pictures = [av.VideoFrame.from_ndarray(np.full((48, 32), 90, np.uint8), "yuv420p") for _ in range(3)]
    store(tmp_path / "a.h264", pictures, "libx264")
    for rate in (25, 50):
        with Demuxer(tmp_path / "a.h264", options={"framerate": str(rate)}) as demuxer:
            reader = VideoReader(demuxer)
            with pickle.loads(pickle.dumps(reader.open_again))() as again:
                assert reader.info.frame_rate == again.info.frame_rate == rate
                assert [frame.pts for frame in again] == [frame.pts for frame in reader]


def test_file_objects_and_pipes(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    info = VideoInfo(64, 48)
    frames = clip(info, range(4))
    for name in ("a.y4m", "a.mkv"):
        write(tmp_path / name, info, frames, lossless=True)
        for kind in (io.BytesIO, Pipe):
            with VideoReader(kind((tmp_path / name).read_bytes()), threads=2) as reader:
                assert largest_error(frames, list(reader)) == 0


@pytest.mark.parametrize(
    ("form", "color_range", "target", "full"),
    [
        ("yuv422p", 1, "yuv420p", False),
        ("yuv444p", 2, "yuv420p", True),
        ("gray", 2, "yuv420p", True),
        ("yuv410p", 1, "yuv420p", False),
    ],
)
def test_other_8_bit_formats_are_converted_with_luma_unchanged(
    tmp_path: Path, form: str, color_range: int, target: str, full: bool
) -> None:
    picture = coloured(form, color_range=color_range)
    luma = np.frombuffer(memoryview(picture.planes[0]), np.uint8).reshape(48, -1)[:, :64].copy()
    store(tmp_path / "a.mkv", [picture])
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert reader.notes == [f"converted {form} to {target}"]
        assert reader.info.full_range is full
    assert np.array_equal(frame.y, luma)
    assert frame.u.shape == (24, 32)


@pytest.mark.parametrize("form", ["yuv422p10le", "yuv444p12le"])
def test_more_than_8_bits_become_10(tmp_path: Path, form: str) -> None:
    bits = 10 if "10" in form else 12
    picture = av.VideoFrame(64, 48, form)
    for plane, value in zip(picture.planes, (0.3, 0.5, 0.7), strict=True):
        plane.update(np.full(plane.buffer_size // 2, round(value * 2**bits), np.uint16).tobytes())
    store(tmp_path / "a.mkv", [picture])
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert reader.info.bit_depth == 10
        assert reader.notes == [f"converted {form} to yuv420p10le"]
    assert [p.dtype for p in frame.planes] == [np.uint16] * 3
    means = [float(p.mean()) / 1024 for p in frame.planes]
    assert means == pytest.approx([0.3, 0.5, 0.7], abs=0.002)


def test_rgb_becomes_bt709(tmp_path: Path) -> None:
    picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), (0, 255, 0), np.uint8), "rgb24")
    store(tmp_path / "a.mkv", [picture.reformat(format="bgr0")])
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert (reader.info.matrix, reader.info.full_range) == (1, False)
        assert reader.notes == ["converted bgr0 to yuv420p, by the matrix of BT.709 to limited range"]
        assert reader.info.chroma_location == 1
    assert abs(int(frame.y[9, 9]) - 173) <= 1  # green in BT.709, limited range
    assert abs(int(frame.u[9, 9]) - 42) <= 1
    assert abs(int(frame.v[9, 9]) - 26) <= 1


def test_alpha_is_left_out_if_so_wanted(tmp_path: Path) -> None:
    picture = coloured("yuva420p")
    planes = [
        np.frombuffer(memoryview(p), np.uint8).reshape(p.height, -1)[:, : p.width].copy()
        for p in picture.planes
    ]
    store(tmp_path / "a.mkv", [picture])
    with VideoReader(tmp_path / "a.mkv", drop_alpha=True) as reader:
        (frame,) = reader
        assert reader.notes == ["converted yuva420p to yuv420p", "left the alpha channel out"]
    assert all(np.array_equal(p, q) for p, q in zip(frame.planes, planes[:3], strict=True))


def test_full_range_jpeg_pictures(tmp_path: Path) -> None:
    store(tmp_path / "a.mkv", [coloured("yuvj420p", color_range=2)], "mjpeg")
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert reader.info.full_range
        assert reader.notes == []
        assert len(list(reader)) == 1


def test_times_that_stand_still_or_are_missing_are_repaired(tmp_path: Path) -> None:
    store(tmp_path / "a.mkv", [coloured("yuv420p") for _ in range(5)], times=[10, 12, 12, 12, 15])
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert [f.pts for f in reader] == [400, 480, 481, 482, 600]
        assert len(reader.notes) == 1
        assert "did not increase" in reader.notes[0]
    store(tmp_path / "a.h264", [coloured("yuv420p") for _ in range(5)], "libx264")
    with VideoReader(tmp_path / "a.h264") as reader:
        step = 1 / (reader.info.frame_rate * reader.info.time_base)
        assert [f.pts for f in reader] == [i * step for i in range(5)]


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    for name, width in (("a.mjpeg", 64), ("b.mjpeg", 80)):
        store(tmp_path / name, [coloured("yuvj420p", width, color_range=2)] * 3, "mjpeg")
    (tmp_path / "c.mjpeg").write_bytes(
        (tmp_path / "a.mjpeg").read_bytes() + (tmp_path / "b.mjpeg").read_bytes()
    )
    with (
        VideoReader(tmp_path / "c.mjpeg") as reader,
        pytest.raises(VideoError, match="changes size from 64x48 to 80x48"),
    ):
        list(reader)


@pytest.mark.parametrize("size", [(14, 64), (64, 14), (8194, 64), (64, 8194)])
def test_sizes_beyond_the_limits_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    info = VideoInfo(*size)
    write(tmp_path / "a.y4m", info, clip(info, [0]))
    with pytest.raises(LimitError, match=f"{size[0]}x{size[1]}"):
        VideoReader(tmp_path / "a.y4m")


def test_inputs_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 50)
    (tmp_path / "empty.mkv").write_bytes(b"")
    with av.open(str(tmp_path / "sound.wav"), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    for name, message in (
        ("missing.mp4", "does not exist"),
        ("text.mp4", "cannot be read as a video"),
        ("empty.mkv", "cannot be read as a video"),
        ("sound.wav", "has no video"),
        (".", "cannot be read as a video"),
    ):
        with pytest.raises(VideoError, match=message):
            VideoReader(tmp_path / name)
    with pytest.raises(VideoError, match="the input cannot be read"):
        VideoReader(io.BytesIO(b"junk" * 100))


def test_damaged_frames_are_left_out_with_a_note(tmp_path: Path) -> None:
    info = VideoInfo(64, 48)
    write(tmp_path / "a.mp4", info, clip(info, range(30)))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    media = data.index(b"mdat")
    for position in range(media + 1500, media + 2500):
        data[position] = 0xFF
    (tmp_path / "a.mp4").write_bytes(data)
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert 1 <= len(list(reader)) < 30
        assert reader.notes == ["damaged frames were left out"]


def test_writer_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"known ones are \.mp4, \.mkv, \.mov, \.webm, \.y4m"):
        VideoWriter(tmp_path / "a.avi", VideoInfo(64, 48))
    with pytest.raises(VideoError, match="cannot be lossless"):
        VideoWriter(tmp_path / "a.mp4", VideoInfo(64, 48), lossless=True)
    for name in ("a.mkv", "a.y4m"):
        with (
            pytest.raises(VideoError, match="cannot be written"),
            VideoWriter(tmp_path / "no" / name, VideoInfo(64, 48)),
        ):
            pass
        with pytest.raises(VideoError, match="no frame"), VideoWriter(tmp_path / name, VideoInfo(64, 48)):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
def test_nothing_is_left_after_an_exception(tmp_path: Path, name: str) -> None:
    info = VideoInfo(64, 48)
    (tmp_path / name).write_bytes(b"old")

    def fail() -> None:
        with VideoWriter(tmp_path / name, info) as writer:
            for frame in clip(info, range(3)):
                writer.write(frame)
            assert len(list(tmp_path.iterdir())) == 2  # the old file and the temporary one
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"
    write(tmp_path / name, info, clip(info, range(3)))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    with VideoReader(tmp_path / name) as reader:
        assert len(list(reader)) == 3


def test_frames_of_another_form_are_refused(tmp_path: Path) -> None:
    info = VideoInfo(64, 48)
    with VideoWriter(tmp_path / "a.y4m", info) as writer:
        writer.write(clip(info, [0])[0])
        for other in (VideoInfo(64, 50), VideoInfo(64, 48, 10)):
            with pytest.raises(ValueError, match="a frame of"):
                writer.write(clip(other, [1])[0])


def test_times_that_do_not_increase_are_refused(tmp_path: Path) -> None:
    info = VideoInfo(64, 48)
    first, second = clip(info, [5, 5])
    with VideoWriter(tmp_path / "a.mkv", info) as writer:
        writer.write(first)
        with pytest.raises(ValueError, match="a frame at 5 after one at 5"):
            writer.write(second)
