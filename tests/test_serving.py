"""`serve` and `play`: segments that make the whole time line, hostile requests, other players, a browser."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import av
import numpy as np
import pytest
from browser import Page
from click.testing import CliRunner, Result
from conftest import in_decoding_order, moving_picture
from numpy.typing import NDArray
from test_docs import DOCS, first_cells, named, sections

import viddiff
from viddiff.cli import main
from viddiff.codec.open_decoder import Weights
from viddiff.codec.weights import Codec
from viddiff.container.format import Writer
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret
from viddiff.encoder.open_encoder import open_encoder
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import LimitError, SecretError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.picture_planes import planes_from_picture
from viddiff.media.sound_decoder import SoundTimeline
from viddiff.pipeline.output import Output
from viddiff.pipeline.serial import encode
from viddiff.pipeline.weights_search import released_weights
from viddiff.serving.movie import Movie, PlayOptions
from viddiff.serving.pace import Pace, Rendition
from viddiff.serving.segments import Check, SegmentError, Segments
from viddiff.serving.server import Server, hosts

RATE, FPS = 48000, 25
SECONDS, GOP = 7, 30
"""Of the clip: GOPs do not end with segments, which take two seconds."""
WIDTH, HEIGHT = 96, 80
TEXT = b"1\n00:00:00,100 --> 00:00:00,300\nGood day\n\n"


def quiet(_: str) -> None:
    """Takes a note."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright frame and a beep at every full second, and subtitles."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    time_s = np.arange(SECONDS * RATE) / RATE
    beeps = np.where(time_s % 1 < 0.04, 0.8 * np.sin(2 * np.pi * 1000 * time_s), 0).astype(np.float32)
    with av.open(str(path), "w") as output:
        video = output.add_stream("ffv1", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        texts = av.open(io.BytesIO(TEXT), "r", format="srt")
        words = output.add_stream_from_template(texts.streams[0])
        packets: list[av.Packet[Any]] = []
        for number, frame in enumerate(moving_picture(WIDTH, HEIGHT, SECONDS * FPS)):
            planes = [frame.y // 2 + 112 * (number % FPS == 0), frame.u, frame.v]
            picture = av.VideoFrame.from_ndarray(
                np.concatenate([plane.reshape(-1, WIDTH) for plane in planes]).astype(np.uint8), "yuv420p"
            )
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            packets += video.encode(picture)
        pcm = av.AudioFrame.from_ndarray(
            (np.stack([beeps, beeps], 1) * 32767).astype(np.int16).reshape(1, -1), "s16", "stereo"
        )
        pcm.sample_rate, pcm.pts, pcm.time_base = RATE, 0, Fraction(1, RATE)
        packets += video.encode(None) + sound.encode(pcm) + sound.encode(None)
        for packet in texts.demux():
            if packet.size:
                packet.stream = words
                packets.append(packet)
        output.mux(in_decoding_order(packets))
    return path


@pytest.fixture(scope="module")
def vdf(clip: Path) -> Path:
    """The clip with an AV1 base."""
    path = clip.with_suffix(".vdf")
    viddiff.encode(clip, path, preset="fastest", gop=GOP, workers=1)
    return path


class Steady(Pace):
    """Does not depend on how fast this machine is. It changes after so many pictures, if at all."""

    def __init__(self, change_after: int | None = None, to: Rendition | None = None) -> None:
        super().__init__(True, Rendition(), 720)
        self._left, self._to = change_after, to

    def add(self, shown: float, decoding: float, encoding: float) -> str:
        if self._left is not None and self._to is not None:
            self._left -= 1
            if not self._left:
                self.rendition = self._to
        return ""


@contextmanager
def serving(*paths: Path, pace: Pace | None = None, **options: Any) -> Iterator[Server]:
    movies = [Movie(path, PlayOptions(**options), quiet) for path in paths]
    for movie in movies:
        movie.pace = pace or Steady()
    with Server(movies) as server:
        yield server


@pytest.fixture(scope="module")
def server(vdf: Path) -> Iterator[Server]:
    with serving(vdf) as found:
        yield found


def fetch(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(server.address + path) as response:
        return bytes(response.read())


def segments_of(server: Server, kind: str, movie: int = 0) -> list[bytes]:
    count = server.movies[movie].timeline.segments
    return [fetch(server, f"{movie}/{kind}/{number}") for number in range(count)]


Shown = tuple[Fraction, Fraction, NDArray[Any]]
"""Start and end in seconds, and luma."""


def pictures(segment: bytes) -> list[Shown]:
    """What a segment shows."""
    shown = []
    with av.open(io.BytesIO(segment), "r") as file:
        stream = file.streams.video[0]
        for packet in file.demux(stream):
            for picture in packet.decode():
                assert picture.pts is not None
                base = Fraction(picture.time_base or 0)
                start, end = picture.pts * base, (picture.pts + (picture.duration or 0)) * base
                luma, _, _ = planes_from_picture(picture, 8, picture.width, picture.height)
                shown.append((start, end, luma))
    return shown


def samples(segments: list[bytes]) -> tuple[int, NDArray[np.float32]]:
    """Left sound of segments that follow each other, and the number of its first sample."""
    packets = []
    for segment in segments:
        with av.open(io.BytesIO(segment), "r") as file:
            packets += [(p.pts or 0, bytes(p)) for p in file.demux(file.streams.audio[0]) if p.size]
    decoder = av.CodecContext.create("aac", "r")
    with av.open(io.BytesIO(segments[0]), "r") as file:
        decoder.extradata = file.streams.audio[0].codec_context.extradata
    times = [pts for pts, _ in packets]
    assert times == list(range(times[0], times[0] + 1024 * len(times), 1024)), "no gap and no overlap"
    frames = [frame for _, data in packets for frame in decoder.decode(av.Packet(data))]
    return times[0], np.concatenate([frame.to_ndarray() for frame in frames], 1)[0]


def onsets(first: int, sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """Seconds at which beeps begin."""
    loud = np.flatnonzero(abs(sound) > 0.2)
    return (loud[np.diff(loud, prepend=-RATE) > RATE // 4] + first) / RATE


def test_segments_make_the_whole_time_line(server: Server, vdf: Path) -> None:
    segments = [pictures(segment) for segment in segments_of(server, "pictures")]
    assert [float(shown[0][0]) for shown in segments] == [0, 2, 4, 6]
    assert [float(shown[-1][1]) for shown in segments] == [2, 4, 6, 7]
    together = [picture for shown in segments for picture in shown]
    assert [end for _, end, _ in together[:-1]] == [start for start, _, _ in together[1:]]
    with viddiff.open(vdf) as video:
        assert len(together) == len(video)
        for frame, (start, _, luma) in zip(video, together, strict=True):
            assert start == frame.pts * video.info.time_base
            assert abs(luma.astype(int) - frame.y).mean() < 2


def test_a_segment_is_the_same_wherever_one_comes_from(vdf: Path, server: Server) -> None:
    """Segment 2 begins in the middle of a GOP."""
    played = segments_of(server, "pictures")[2]
    with serving(vdf) as other:
        sought = fetch(other, "0/pictures/2")
    for (start, end, luma), (*times, other_luma) in zip(pictures(played), pictures(sought), strict=True):
        assert times == [start, end]
        assert np.array_equal(luma, other_luma)


def test_sound_is_in_sync_with_pictures(server: Server) -> None:
    shown = [picture for segment in segments_of(server, "pictures") for picture in pictures(segment)]
    flashes = [float(start) for start, _, luma in shown if luma.mean() > 150]
    assert flashes == list(range(SECONDS))
    first, sound = samples(segments_of(server, "sound"))
    assert first == 0
    assert len(sound) >= SECONDS * RATE
    assert np.allclose(onsets(first, sound)[1:], flashes[1:], atol=0.002)


def test_sound_is_in_sync_after_a_seek(vdf: Path) -> None:
    with serving(vdf) as other:
        first, sound = samples([fetch(other, "0/sound/2")])
    assert 4 <= first / RATE < 4.022
    beeps = onsets(first, sound)[1:]  # without the one that has begun before
    assert np.allclose(beeps, [5, 6], atol=0.002), "the last packet reaches beyond the end"


def test_what_a_page_is_told(server: Server) -> None:
    about = json.loads(fetch(server, "0/start"))
    assert about == json.loads(fetch(server, "0/about"))
    assert (about["seconds"], about["segment_seconds"]) == (7, 2)
    assert about["pictures"].startswith('video/mp4; codecs="avc1.6400')
    assert about["sound"] == 'audio/mp4; codecs="mp4a.40.2"'
    assert about["notes"] == ["1 track of subtitles cannot be shown here"]
    assert json.loads(fetch(server, "movies")) == ["clip.vdf"]


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    with urllib.request.urlopen(server.address) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["Cache-Control"] == "no-store"
        page = response.read().decode()
    for content in (page, fetch(server, "player.js").decode(), fetch(server, "player.css").decode()):
        assert "//" not in content.replace("// ", "")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/wrong/", "/wrong/0/about", "{token}", "x/{token}/", "/{token}//",
        "/{token}/../", "/{token}/../../etc/passwd", "/{token}/%2e%2e/player.js", "/{token}/server.py",
        "/{token}/0", "/{token}/1/about", "/{token}/-1/about", "/{token}/0/about/0", "/{token}/0/pictures",
        "/{token}/0/pictures/4", "/{token}/0/pictures/-1", "/{token}/0/pictures/999999999999999",
        "/{token}/0/pictures/" + "9" * 5000, "/{token}/0/pictures/١", "/{token}/0/sound/4/", "/{token}?",
        "/{token}",        "/{token}/0/pictures/0?x", "http://127.0.0.1/{token}/", "/\x01{token}/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_everything_else_is_not_found(server: Server, path: str, method: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        line = f"{method} {path.replace('{token}', server.token)} HTTP/1.1\r\n"
        host = f"Host: 127.0.0.1:{server.server_port}\r\nConnection: close\r\n\r\n"
        connection.sendall((line + host).encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == (b"not found\n" if method == "GET" else b"")


def status_of(server: Server, method: str = "GET", path: str = "", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.request(method, f"/{server.token}/{path}", headers=headers)
    with connection.getresponse() as response:
        response.read()
        return response.status


def test_other_names_of_this_machine_are_not_found(server: Server) -> None:
    """A page elsewhere may give this address a name of its own (DNS rebinding)."""
    port = server.server_port
    assert status_of(server, Host=f"localhost:{port}") == 200
    for host in ("example.com", f"example.com:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        assert status_of(server, Host=host) == 404


def test_browsers_leave_the_port_of_http_out() -> None:
    assert hosts(80) == {"127.0.0.1", "localhost", "127.0.0.1:80", "localhost:80"}
    assert hosts(8080) == {"127.0.0.1:8080", "localhost:8080"}


def test_other_methods_are_refused(server: Server) -> None:
    assert status_of(server, "HEAD", "0/pictures/0") == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "x" * 100):
        assert status_of(server, method) == 501


def test_it_answers_on_loopback_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) == 32
    with serving() as other:
        assert other.token != server.token


@pytest.fixture(scope="module")
def released() -> Weights:
    """Networks that enhance an AV1 base."""
    return viddiff.load_weights(released_weights("av1"))


def coded(path: Path, weights: Weights, frames: list[Frame], info: VideoInfo, gop: int = 8) -> Path:
    """A small file."""
    out = io.BytesIO()
    encoder = open_encoder(weights, info, EncodeOptions(gop=gop, preset="fastest", background=False))
    encode(frames, encoder, Output(Writer(out, encoder.header)))
    path.write_bytes(out.getvalue())
    return path


def shown_by(path: Path, **options: Any) -> tuple[list[Shown], Movie]:
    """Everything that is shown of a file."""
    with serving(path, **options) as server:
        segments = segments_of(server, "pictures")
        return [picture for segment in segments for picture in pictures(segment)], server.movies[0]


def times_of(shown: list[Shown]) -> list[float]:
    return [float(start) for start, _, _ in shown]


def test_a_variable_rate(codec: Codec, weights: Path, tmp_path: Path) -> None:
    """Where a segment begins, the frame before is shown again. Networks predict the frames of this file."""
    info = VideoInfo(48, 32, time_base=Fraction(1, 1000), frame_rate=Fraction(10))
    times = [500, 540, 700, 2400, 2600, 5900, 5940]
    frames = [replace(f, pts=pts) for f, pts in zip(moving_picture(48, 32, 7), times, strict=True)]
    shown, movie = shown_by(coded(tmp_path / "a.vdf", codec, frames, info, gop=3), weights=weights)
    assert times_of(shown) == [0, 0.04, 0.2, 1.9, 2, 2.1, 4, 5.4, 5.44]
    assert float(shown[-1][1]) == pytest.approx(5.54)
    held, again, following = (luma.astype(int) for _, _, luma in shown[3:6])
    assert abs(again - held).mean() < 3 < abs(again - following).mean()
    assert movie.timeline.segments == 3


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_and_odd_sizes(released: Weights, tmp_path: Path, rotation: int) -> None:
    """Pictures are turned here, and the last row and column are repeated for even sides."""
    info = VideoInfo(47, 33, rotation=rotation)
    frames = moving_picture(47, 33, 3)
    shown, _ = shown_by(coded(tmp_path / "a.vdf", released, frames, info))
    with viddiff.open(tmp_path / "a.vdf") as video:
        expected = np.pad(np.rot90(video[0].y, -rotation // 90), ((0, 1), (0, 1)), "edge")
    assert shown[0][2].shape == expected.shape
    assert abs(shown[0][2].astype(int) - expected).mean() < 3


def test_ten_bits_of_full_range(released: Weights, tmp_path: Path) -> None:
    info = VideoInfo(48, 32, bit_depth=10, full_range=True)
    path = coded(tmp_path / "a.vdf", released, moving_picture(48, 32, 3, 10), info)
    shown, _ = shown_by(path)
    with viddiff.open(path) as video:
        expected = 16 + video[0].y / 1023 * 219
    assert abs(shown[0][2] - expected).mean() < 3


def test_a_file_that_was_cut_off(released: Weights, tmp_path: Path) -> None:
    info = VideoInfo(48, 32, frame_rate=Fraction(2), time_base=Fraction(1, 2))
    frames = [replace(frame, pts=n) for n, frame in enumerate(moving_picture(48, 32, 20))]
    path = coded(tmp_path / "a.vdf", released, frames, info)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    shown, movie = shown_by(path)
    assert times_of(shown) == [n / 2 for n in range(20)]
    path.write_bytes(whole[: len(whole) // 2])
    shown, movie = shown_by(path)
    assert 2 < len(shown) < 20
    assert movie.notes


def test_damage_is_concealed_and_said(released: Weights, tmp_path: Path) -> None:
    """One GOP loses all frames after its keyframe, another one its keyframe."""
    info = VideoInfo(48, 32, frame_rate=Fraction(4), time_base=Fraction(1, 4))
    frames = [replace(frame, pts=n) for n, frame in enumerate(moving_picture(48, 32, 40))]
    path = coded(tmp_path / "a.vdf", released, frames, info)
    with viddiff.open(path) as video:
        good = [frame.y.astype(int) for frame in video]
    data = bytearray(path.read_bytes())
    reader = Reader(io.BytesIO(data))
    places = [offset for offset, _ in reader.scan(None)]
    assert len(places) == 10
    data[places[3] + 20] ^= 1
    data[places[6] + 20] ^= 1
    path.write_bytes(data)
    with serving(path) as server:
        for order in (range(5), reversed(range(5))):
            shown = {number: pictures(fetch(server, f"0/pictures/{number}")) for number in order}
            together = [picture for number in range(5) for picture in shown[number]]
            assert shown[3][0][0] == 6
            assert float(together[-1][1]) == 10
            held = {int(start * 4): luma.astype(int) for start, _, luma in together}
            assert max(abs(held[n] - good[n]).mean() for n in (0, 7, 8, 16, 20, 32, 39)) < 3
        notes = json.loads(fetch(server, "0/about"))["notes"]
    assert [note.partition(" (")[0] for note in notes] == [
        "frames 9 to 15 are lost and shown as the one before",
        "frames 24 to 31 are lost and shown as the one before",
    ]


def test_a_file_without_a_good_frame(released: Weights, tmp_path: Path) -> None:
    info = VideoInfo(48, 32)
    path = coded(tmp_path / "a.vdf", released, moving_picture(48, 32, 3), info)
    data = bytearray(path.read_bytes())
    key = next(iter(Reader(io.BytesIO(data)).scan(None)))[0]
    data[key + 20] ^= 1
    path.write_bytes(data)
    with serving(path) as server, pytest.raises(HTTPError) as refused:
        fetch(server, "0/pictures/0")
    assert refused.value.code == 500
    assert refused.value.read().decode().startswith("no frame can be decoded")


def refusal(server: Server, path: str) -> str:
    """What is said in place of a segment."""
    with pytest.raises(HTTPError) as failed:
        fetch(server, path)
    with failed.value as answer:
        assert answer.code == 500
        return answer.read().decode()


def test_a_file_that_is_replaced_or_removed(vdf: Path, tmp_path: Path) -> None:
    """Another file is not shown by the places of the first one. A recording may grow."""
    path, whole = tmp_path / "a.vdf", vdf.read_bytes()
    path.write_bytes(whole[:-3000])
    with serving(path) as server:
        path.write_bytes(whole)
        assert pictures(fetch(server, "0/pictures/1"))
        path.write_bytes(whole[::-1])
        changed = "a.vdf has changed since it was opened: start viddiff again\n"
        for segment in ("pictures/3", "sound/1"):
            assert refusal(server, f"0/{segment}") == changed
        path.unlink()
        gone = "a.vdf cannot be read any longer: No such file or directory\n"
        assert refusal(server, "0/pictures/3") == gone
        assert not server.movies[0].notes[1:], "nothing is called damaged"


def test_times_that_are_too_far_apart(released: Weights, tmp_path: Path) -> None:
    info = VideoInfo(48, 32, time_base=Fraction(1))
    frames = [replace(f, pts=pts) for f, pts in zip(moving_picture(48, 32, 2), (0, 1 << 40), strict=True)]
    path = coded(tmp_path / "a.vdf", released, frames, info)
    with pytest.raises(LimitError, match="lasts longer than"):
        Movie(path, PlayOptions(), quiet)


def test_an_encrypted_file(vdf: Path, clip: Path, tmp_path: Path) -> None:
    secret = Secret(bytes(32), passphrase=False)
    path = tmp_path / "a.vdf"
    viddiff.encode(clip, path, key=bytes(32), preset="fastest", gop=GOP, workers=1, frames=60)
    with pytest.raises(SecretError):
        Movie(path, PlayOptions(), quiet)
    with serving(path, vdf, secret=secret) as server:
        assert len(pictures(fetch(server, "0/pictures/1"))) == 10
        assert len(pictures(fetch(server, "1/pictures/1"))) == 50
        assert np.allclose(onsets(*samples([fetch(server, "0/sound/0")]))[1:], [1, 2], atol=0.002)


SLOW = 3.0
"""Seconds of work for a second of video."""


def paced(pace: Pace, decoding: float, encoding: float, seconds: int) -> list[str]:
    """What is said while so much video is made, at this cost for each second."""
    said = [pace.add(0.1, 0.1 * decoding, 0.1 * encoding) for _ in range(10 * seconds)]
    return [line for line in said if line]


def test_a_machine_that_keeps_pace() -> None:
    pace = Pace(True, Rendition(), 720)
    assert not paced(pace, 0.5, 0.4, 60)
    assert pace.rendition == Rendition()


def test_slow_networks_are_left_out() -> None:
    pace = Pace(True, Rendition(), 720)
    (line,) = paced(pace, SLOW, 0.1, 2)
    assert line.startswith("this machine takes 3.1 s to make a second of video: pictures are now shown")
    assert "without enhancement" in line
    assert pace.rendition == Rendition(base_only=True)
    assert not paced(pace, 0.5, 0.1, 60)
    pace.reset()
    assert pace.rendition == Rendition()


def test_more_is_tried_when_there_is_time_to_spare() -> None:
    """Where that fails, it is tried again after twice the time, and so on. Load that ends is forgotten."""
    pace, tries, second = Pace(True, Rendition(), 720), list[int](), 0
    paced(pace, SLOW, 0.1, 2)
    for second in range(300):
        said = paced(pace, 0.2 if pace.rendition.base_only else SLOW, 0.1, 1)
        tries += [second] * any("time to spare: pictures are now shown as they are stored" in s for s in said)
    assert [b - a for a, b in pairwise((0, *tries))] == pytest.approx([30, 60, 120], abs=5)
    assert pace.rendition == Rendition(base_only=True)
    while pace.rendition.base_only:
        paced(pace, 0.2, 0.1, 1)
    assert not paced(pace, 0.6, 0.1, 300)
    assert pace.rendition == Rendition()


def test_frames_that_are_decoded_at_once() -> None:
    """The first one takes the time of all, which says nothing about a second of video."""
    pace = Pace(True, Rendition(), 720)
    assert not pace.add(0.04, 0.1, 0.01)
    assert pace.add(0.04, 5, 0.01).startswith("this machine takes 5.1 s to make a second of video")


def test_slow_encoding_makes_pictures_smaller() -> None:
    pace = Pace(True, Rendition(), 720)
    assert [line.partition("shown ")[2] for line in paced(pace, 0.5, SLOW, 20)] == [
        "at 1/2 of their size",
        "at 1/4 of their size",
        "",
    ]
    assert pace.rendition == Rendition(scale=Fraction(1, 4))
    small = Pace(True, Rendition(), 360)
    paced(small, 0.5, SLOW, 20)
    assert small.rendition.scale == Fraction(1, 2), "smaller ones would not be worth looking at"


def test_a_file_that_no_size_makes_faster() -> None:
    pace = Pace(False, Rendition(), 720)
    assert paced(pace, SLOW, 0.1, 60) == [
        "this machine takes 3.1 s to make a second of video: playback will pause to load"
    ]
    assert pace.rendition == Rendition()


def test_a_moment_of_load_changes_nothing() -> None:
    pace = Pace(True, Rendition(), 720)
    for _ in range(5):
        assert not paced(pace, 1.2, 0.1, 2)
        assert not paced(pace, 0.4, 0.1, 4)


@pytest.mark.parametrize(
    ("rendition", "size"), [(Rendition(True), (96, 80)), (Rendition(True, Fraction(1, 2)), (48, 40))]
)
def test_pictures_change_within_a_segment(vdf: Path, rendition: Rendition, size: tuple[int, int]) -> None:
    """The rest of it begins with an initialisation of its own. Times stay."""
    with serving(vdf, pace=Steady(20, rendition)) as server:
        segment = fetch(server, "0/pictures/0")
    second = segment.index(b"ftyp", 100) - 4
    before, after = pictures(segment[:second]), pictures(segment[second:])
    assert times_of(before + after) == [n / FPS for n in range(50)]
    assert len(before) == 20
    assert after[0][2].shape == size[::-1]
    with viddiff.open(vdf) as video:
        assert abs(after[0][2].mean() - video[20].y.mean()) < 2


class Letters:
    """A run whose segments are five letters, one after the other."""

    def __init__(self, gate: threading.Semaphore) -> None:
        self.gate, self.made, self.closed, self.number = gate, 0, False, 0

    def segment(self, check: Check) -> Iterator[bytes]:
        for letter in b"abcde":
            self.gate.acquire()
            check()
            self.made += 1
            yield bytes([letter])

    def close(self) -> None:
        self.closed = True


def test_a_segment_is_made_once_for_all_who_want_it() -> None:
    gate = threading.Semaphore(5)
    run = Letters(gate)
    segments = Segments(lambda movie, number: run, 1000)
    with segments.reading(0, 0) as one, segments.reading(0, 0) as other:
        assert b"".join(one.parts()) == b"".join(other.parts()) == b"abcde"
    with segments.reading(0, 0) as later:
        assert b"".join(later.parts()) == b"abcde"
    assert run.made == 5
    segments.close()
    assert run.closed


def test_a_segment_that_nobody_wants_is_given_up() -> None:
    gate = threading.Semaphore(2)
    runs = [Letters(gate), Letters(gate)]
    segments = Segments(lambda movie, number: runs[number], 1000)
    with segments.reading(0, 0) as segment:
        first = next(part for part in segment.parts() if part)
    assert first in (b"a", b"ab")
    with segments.reading(0, 1) as segment:
        for _ in range(6):
            gate.release()
        assert b"".join(segment.parts()) == b"abcde"
    assert runs[0].closed
    assert runs[0].made < 5
    segments.close()


def test_segments_take_bounded_memory() -> None:
    gate = threading.Semaphore(1000)
    segments = Segments(lambda movie, number: Letters(gate), 12)
    for number in range(50):
        with segments.reading(0, number) as segment:
            assert b"".join(segment.parts()) == b"abcde"
    with segments.reading(0, 49):
        pass
    assert sum(segment.size for segment in segments._kept.values()) <= 12 + 5
    segments.close()


def test_a_segment_that_fails_says_why() -> None:
    def fails(movie: int, number: int) -> Letters:
        raise ViddiffError("there is nothing")

    segments = Segments(fails, 1000)
    for _ in range(2):
        with segments.reading(0, 0) as segment, pytest.raises(SegmentError, match="there is nothing"):
            list(segment.parts())
    segments.close()


def test_a_viewer_who_leaves_stops_the_work(vdf: Path) -> None:
    with serving(vdf) as server:
        with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
            head = (
                f"GET /{server.token}/0/pictures/0 HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n"
            )
            connection.sendall(head.encode())
        assert len(pictures(fetch(server, "0/pictures/3"))) == 25


def test_too_many_connections_are_closed(server: Server) -> None:
    """Those that wait without a word cost a thread each."""
    kept = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(40)]
    for connection in kept[32:]:
        assert connection.recv(1) == b""
    for connection in kept:
        connection.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert status_of(server) == 200
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("no connection became free")


def test_sound_beyond_its_ends_is_silence() -> None:
    ones = np.ones((2, 10), np.float32)
    timeline = SoundTimeline(iter([(-7, ones), (12, ones), (15, ones), (1 << 60, ones)]), 8, -1)
    blocks = [timeline.take() for _ in range(6)]
    assert [block[0].tolist() for block in blocks] == [
        [0] + [1] * 7,
        [1] * 3 + [0] * 5,
        [0] * 4 + [1] * 4,
        [1] * 8,
        [1] + [0] * 7,
        [0] * 8,
    ]


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)


def player(folder: Path, script: str, name: str = "mpv") -> dict[str, str]:
    """An environment in which a player is this script."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:{os.environ['PATH']}"}


def test_another_player_gets_everything(vdf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    env = player(tmp_path, f'echo "$@" > {tmp_path}/arguments; cat > {out}')
    result = run("play", vdf, "--player", "mpv", "--start", "00:05", "-q", env=env)
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "arguments").read_text() == "--force-media-title=clip.vdf -\n"
    with av.open(str(out)) as file:
        assert [stream.type for stream in file.streams][:2] == ["video", "audio"]
        times = [frame.time for frame in file.decode(video=0)]
    assert len(times) == 50
    assert times[0] == pytest.approx(5)


def test_a_player_that_is_closed_early(vdf: Path, tmp_path: Path) -> None:
    env = player(tmp_path, "head -c 1000 > /dev/null")
    assert run("play", vdf, "--player", "mpv", env=env).exit_code == 0


def test_a_player_that_fails_or_is_missing(vdf: Path, tmp_path: Path) -> None:
    env = player(tmp_path, "cat > /dev/null; exit 2")
    result = run("play", vdf, "--player", "mpv", env=env)
    assert (result.exit_code, result.stderr) == (1, "Error: mpv has failed, with exit code 2\n")
    result = run("play", vdf, "--player", "vlc", env={"PATH": str(tmp_path)})
    assert result.exit_code == 1
    assert result.stderr == "Error: vlc is not installed: --player names one of mpv, ffplay, vlc\n"


def test_wrong_use(vdf: Path, tmp_path: Path) -> None:
    assert run("play", vdf, "--player", "mpv", "--no-browser").exit_code == 2
    assert run("play", vdf, "--player", "mpv", "--port", 8000).exit_code == 2
    assert run("serve").exit_code == 2
    assert run("serve", vdf, "--base-only", "--engine", "torch").exit_code == 2
    assert run("serve", vdf, "--port", 65536).exit_code == 2
    result = run("serve", tmp_path / "missing.vdf")
    assert result.exit_code == 1
    assert "missing.vdf does not exist" in result.stderr
    (tmp_path / "bad.vdf").write_text("no video")
    result = run("serve", tmp_path / "bad.vdf")
    assert result.exit_code == 1
    assert "not a .vdf file" in result.stderr
    result = run("play", vdf, "--no-browser", "--start", 175, "-q")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "has no frame 175" in result.stderr


def test_a_port_in_use(vdf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", vdf, "--port", taken.getsockname()[1])
    assert result.exit_code == 1
    assert "Address already in use" in result.stderr


def ctrl_c() -> None:
    """The user presses it at once."""
    signal.raise_signal(signal.SIGINT)


def test_the_browser_is_opened(vdf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def show(address: str) -> bool:
        opened.append(address)
        with urllib.request.urlopen(address) as response:
            assert response.status == 200
        ctrl_c()
        return True

    monkeypatch.setattr("webbrowser.open", show)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = run("play", vdf, "--start", 100)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (result.exit_code, result.stdout) == (0, "")
    assert opened[0].endswith("/#t=4.000")
    assert opened[0] in result.stderr


def test_ctrl_c_ends_it_well(vdf: Path, tmp_path: Path) -> None:
    """Also while a segment is made. Nothing is written to disk."""
    command = [sys.executable, "-m", "viddiff", "serve", str(vdf), "--json", "-q"]
    program = (
        f"import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"import viddiff.cli; sys.argv[1:] = {command[3:]}; viddiff.cli.run()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.readline())
        assert printed["inputs"] == [str(vdf)]
        assert set(printed) == named(first_cells(sections(DOCS / "json.md")["serve"]))
        with urllib.request.urlopen(printed["address"] + "0/pictures/0") as response:
            assert response.read(4)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


STATE = """(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0, 8, 8);
  return {
    size: [video.videoWidth, video.videoHeight],
    brightness: context.getImageData(4, 4, 1, 1).data[0],
    pictures: video.webkitVideoDecodedByteCount > 0,
    sound: video.webkitAudioDecodedByteCount > 0,
    error: video.error,
    text: document.body.innerText.trim(),
  };
})()"""


def test_a_browser_plays_and_seeks(server: Server, tmp_path: Path) -> None:
    with Page(f"{server.address}#t=1.5", tmp_path) as page:
        page.wait("video.currentTime > 1.8 && video.currentTime < 7")
        state = page.run(STATE)
        assert state["size"] == [96, 80]
        assert state["pictures"]
        assert state["sound"]
        assert state["error"] is None
        assert state["text"] == "1 track of subtitles cannot be shown here"
        dark = state["brightness"]
        page.run("video.pause(); video.currentTime = 5.02; once(video, 'seeked')")
        page.wait("video.readyState >= 2 && !video.seeking")
        assert page.run("video.currentTime") == pytest.approx(5.02)
        assert page.run(STATE)["brightness"] > dark + 60, "the bright frame at 5 s"
        page.run("video.currentTime = 5.5; video.play()")
        page.wait("video.ended")
        assert page.run("video.currentTime") == pytest.approx(7, abs=0.05)
        loaded = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith((server.address, "blob:", "data:")) for name in loaded)
