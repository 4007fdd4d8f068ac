"""`--start` with a time: reading from the middle of a file gives the same as reading from its beginning."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from conftest import in_decoding_order, moving_picture, same

from viddiff.frame import Frame
from viddiff.media.demuxer import Demuxer
from viddiff.media.picture_planes import picture_from_planes
from viddiff.media.track_reader import TrackReader
from viddiff.media.video_reader import VideoReader

FRAMES, RATE = 150, 25
PICTURES = moving_picture(32, 32, 20)


@pytest.fixture(scope="module", params=[".mp4", ".mkv", ".ts", ".avi"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of open GOPs with B frames, and a sound track."""
    path = tmp_path_factory.mktemp("clip") / f"a{request.param}"
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        video.codec_context.thread_count = 1
        video.options = {
            "preset": "veryfast",
            "x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0:scenecut=0:log-level=0",
        }
        sound = output.add_stream("mp2", rate=48000)
        packets = []
        for index in range(FRAMES):
            picture = picture_from_planes(PICTURES[index % len(PICTURES)].planes, 8)
            picture.pts, picture.time_base = index + 10, Fraction(1, RATE)
            packets += video.encode(picture)
        for index in range(FRAMES * 48000 // RATE // 1152):
            noise = np.random.default_rng(index).integers(-999, 999, (1, 2 * 1152), np.int16)
            wave = av.AudioFrame.from_ndarray(noise, "s16", "stereo")
            wave.sample_rate, wave.pts, wave.time_base = 48000, index * 1152, Fraction(1, 48000)
            packets += sound.encode(wave)
        packets += video.encode(None) + sound.encode(None)
        output.mux(in_decoding_order(packets))
    return path


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every packet that is read."""
    counted: list[int] = []
    read = Demuxer.read

    def count(self: Demuxer) -> bool:
        counted.append(1)
        return read(self)

    monkeypatch.setattr(Demuxer, "read", count)
    return counted


def frames_of(path: Path, *arguments: Any) -> list[Frame]:
    with VideoReader(path, *arguments) as reader:
        return list(reader)


def test_frames_are_those_that_reading_all_gives(clip: Path) -> None:
    with VideoReader(clip) as reader:
        base, everything = reader.info.time_base, list(reader)
    for start in map(Fraction, ("0.01", "2", "3.21", "4.8", "5.92")):
        wanted = [frame for frame in everything if (frame.pts - everything[0].pts) * base >= start]
        assert same(frames_of(clip, start, 9), wanted[:9])


def test_what_comes_long_before_is_not_read(
    clip: Path, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apart from the first pictures, up to 50, which tell how the video is stored."""
    monkeypatch.setattr("viddiff.media.video_reader._LOOKED_AT", 1)
    frames_of(clip, Fraction(5), 3)
    if clip.suffix != ".avi":  # it states none
        assert len(taken) < 200  # of 400


def test_sound_goes_with_it(clip: Path) -> None:
    def packets(start: Fraction) -> Iterator[tuple[int, bytes]]:
        with Demuxer(clip) as demuxer, VideoReader(demuxer, start) as reader, TrackReader(demuxer) as tracks:
            times = [frame.pts * reader.info.time_base for frame in reader]
            while (packet := tracks.take(None)) is not None:
                if tracks.extras.tracks[0].seconds(packet.pts + packet.duration) > times[0] - 1:
                    yield packet.pts, packet.data

    after = list(packets(Fraction(5)))
    assert len(after) > 40
    everything = list(packets(Fraction(0)))
    assert after == everything[-len(after) :]


def test_a_file_that_cannot_be_entered_is_read_from_its_beginning(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = frames_of(clip, Fraction(5))
    monkeypatch.setattr(Demuxer, "seek", lambda *_: None)
    assert same(frames_of(clip, Fraction(5)), wanted)
    with (
        Demuxer(clip) as demuxer,
        VideoReader(demuxer, Fraction(5)) as reader,
        TrackReader(demuxer) as tracks,
    ):
        assert same(list(reader), wanted)
        assert tracks.take(None) is not None
