"""Time: exact presentation times, truncated files, parts by time, other rates and sizes."""

import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import coded, moving_picture
from test_tracks import SRT, Sound, Source
from test_video import VARIABLE, clip, coloured, store, write

from viddiff.cli import main
from viddiff.codec.weights import Codec
from viddiff.config import Limits
from viddiff.container.format import PACKETS, TRACK, KeyChunk, PredictedChunk, Writer
from viddiff.container.gop_table import frame_number, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import pack_packets, pack_track
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import LimitError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.avi_times import Slots
from viddiff.media.filters import Changes, change_frames
from viddiff.media.picture_planes import picture_from_planes
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.tracks import Track, TrackPacket


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def times(path: Path) -> list[Fraction]:
    with VideoReader(path) as reader:
        return [frame.pts * reader.info.time_base for frame in reader]


# --- exact times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "base", "stamps"),
    [
        ("a.mkv", Fraction(1, 1000), VARIABLE),
        ("a.mp4", Fraction(1, 30000), [1001 * (7 + i) for i in range(9)]),
        ("one.mp4", Fraction(1, 25), [0]),
    ],
    ids=["variable", "29.97 from 0.23 s on", "one frame"],
)
def test_times_go_all_the_way(
    tmp_path: Path, base_weights: Path, name: str, base: Fraction, stamps: list[int]
) -> None:
    info = VideoInfo(64, 48, time_base=base, frame_rate=Fraction(30000, 1001))
    write(tmp_path / name, info, clip(info, stamps))
    expected = [t * base for t in stamps]
    assert times(tmp_path / name) == expected, "the source is as meant"
    vdf, back = tmp_path / "a.vdf", tmp_path / f"back{Path(name).suffix}"
    assert run("encode", tmp_path / name, vdf, "--weights", base_weights, "--workers", 1).exit_code == 0
    with open(vdf, "rb") as file:
        reader = Reader(file)
        inside = [t for c in reader for t in ([c.pts] if isinstance(c, KeyChunk) else c.pts)]
        assert [t * reader.header.video.time_base for t in inside] == expected
    assert run("decode", vdf, back, "--weights", base_weights, "--workers", 1).exit_code == 0
    assert times(back) == expected


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_a_still_picture_is_a_video_of_one_frame(tmp_path: Path, base_weights: Path, suffix: str) -> None:
    from PIL import Image

    source = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((33, 35, 3), (200, 90, 30), np.uint8)).save(source)
    result = run("encode", source, "--weights", base_weights, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["frames"] == 1
    result = run("decode", tmp_path / "a.vdf", tmp_path / "b.mkv", "--lossless", "--weights", base_weights)
    assert result.exit_code == 0, result.output
    assert times(tmp_path / "b.mkv") == [0]


def test_missing_times_are_given_by_the_rate_and_said(tmp_path: Path) -> None:
    """A raw stream has no times."""
    store(tmp_path / "a.h264", [coloured("yuv420p") for _ in range(8)], "libx264")
    with av.open(str(tmp_path / "a.h264")) as container:
        assert all(p.pts is None for p in container.demux(video=0)), "the source is as meant"
    with VideoReader(tmp_path / "a.h264") as reader:
        found = [f.pts * reader.info.time_base * reader.info.frame_rate for f in reader]
        assert found == list(range(8))
        assert reader.notes == ["frames without a time got one from the frame rate"]


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3"}),
        ("libx264", {"bf": "3", "b-pyramid": "none"}),
        ("mpeg4", {"bf": "2"}),
        ("mjpeg", {}),
    ],
)
def test_b_frames_of_avi_are_shown_one_by_one_from_the_first_slot_on(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    """AVI states a rate and a decoding order, but no times."""
    info = VideoInfo(64, 48)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        packets: list[av.Packet[Any]] = []
        for frame in moving_picture(64, 48, 30):
            picture = picture_from_planes(frame.planes, 8).reformat(format=stream.pix_fmt)
            picture.pts, picture.time_base = frame.pts, 1 / info.frame_rate
            packets += stream.encode(picture)
        for slot, packet in enumerate([*packets, *stream.encode(None)]):
            packet.pts = packet.dts = slot
            container.mux(packet)
    with VideoReader(tmp_path / "a.avi") as reader:
        assert [f.pts * reader.info.time_base * 25 for f in reader] == list(range(30))
        assert reader.notes == []
    with VideoReader(tmp_path / "a.avi", Fraction(1, 2)) as reader:
        assert next(iter(reader)).pts * reader.info.time_base * 25 == 13


def test_a_packet_of_avi_without_a_picture_delays_nothing_for_long() -> None:
    slots, shown = Slots(), list[int | None]()
    for slot in range(60):
        packet, picture = av.Packet(b"x"), av.VideoFrame(16, 16)
        packet.dts = slot
        slots.enter(packet)
        if slot != 3:
            picture.pts = packet.pts
            slots.leave(picture)
            shown.append(picture.pts)
    assert shown == [*range(35), *range(36, 60)]


@pytest.mark.parametrize("before", [5, 20])
def test_times_before_0_that_libav_loses_are_found_again(tmp_path: Path, before: int) -> None:
    """Matroska from some frames before 0: its demuxer gives those no time."""
    with av.open(str(tmp_path / "a.mkv"), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10)
        for number in range(-before, 10):
            picture = coloured("yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert [p.pts for p in container.demux(video=0) if p.size][: before + 1] == [None] * before + [0], (
            "as meant"
        )
    with VideoReader(tmp_path / "a.mkv") as reader:
        found = [frame.pts * reader.info.time_base for frame in reader]
        assert found == [Fraction(number, 10) for number in range(-before, 10)]
        assert reader.notes == ["frames without a time got one from the frame rate"]
    with VideoReader(tmp_path / "a.mkv", Fraction(3, 10)) as reader:
        assert next(iter(reader)).pts * reader.info.time_base == Fraction(3 - before, 10)


# --- broken tails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("a.mkv", {}, True),
        ("a.mp4", {"movflags": "faststart"}, True),
        ("a.avi", {}, True),
        ("a.ts", {}, False),
    ],
)
def test_what_is_there_of_a_file_that_breaks_off_is_coded(
    tmp_path: Path, base_weights: Path, name: str, options: dict[str, str], said: bool
) -> None:
    """A broadcast has no declared end."""
    whole = Source([Sound("libmp3lame")], frames=30, options=options).write(tmp_path / f"whole{name}")
    cut = tmp_path / name
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    result = run("encode", cut, "--weights", base_weights, "--json", "--audio", "copy")
    assert result.exit_code == 0, result.output
    assert 8 < json.loads(result.stdout.splitlines()[-1])["frames"] < 28
    notes = [line for line in result.stderr.splitlines() if line.startswith("Note: the file is cut off: ")]
    assert len(notes) == said
    assert all(" of 3.0 seconds exist" in note or " of 3.1 seconds exist" in note for note in notes)
    whole_notes = run("encode", whole, "--weights", base_weights, "--frames", 3).stderr
    assert "cut off" not in whole_notes


def test_an_index_that_is_gone_is_an_error_in_one_line(tmp_path: Path, base_weights: Path) -> None:
    whole = Source([Sound()]).write(tmp_path / "whole.mp4")
    (tmp_path / "a.mp4").write_bytes(whole.read_bytes()[:-200])
    result = run("encode", tmp_path / "a.mp4", "--weights", base_weights)
    assert result.exit_code == 1
    assert result.stderr.count("Error: ") == 1


# --- another rate, another size ----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30000, 1001), Fraction(60)])
@pytest.mark.parametrize("first", [0, 40, 33])
def test_another_rate_keeps_every_frame_near_its_time(rate: Fraction, first: int) -> None:
    info = VideoInfo(32, 32, time_base=Fraction(1, 1000))
    grey = np.full((16, 16), 128, np.uint8)
    frames = [Frame(np.full((32, 32), i, np.uint8), grey, grey, first + 40 * i) for i in range(50)]
    changes = Changes(fps=rate)
    after = changes.of(info)
    found = list(change_frames(iter(frames), info, changes))
    assert after.frame_rate == rate
    assert abs(len(found) - 2 * rate) <= 1
    seconds = [frame.pts * after.time_base for frame in found]
    assert seconds == [Fraction(first, 1000) + i / rate for i in range(len(found))], "even, from the first on"
    for time, frame in zip(seconds, found, strict=True):
        shown = Fraction(first + 40 * int(frame.y[0, 0]), 1000)
        assert abs(time - shown) <= max(1 / (2 * rate), Fraction(1, 25)), "sound stays in step"


def test_times_that_vary_become_even() -> None:
    info = VideoInfo(64, 48, time_base=Fraction(1, 1000))
    found = list(change_frames(clip(info, VARIABLE), info, Changes(fps=Fraction(20))))
    assert [f.pts * Changes(fps=Fraction(20)).of(info).time_base for f in found][:3] == [
        0,
        Fraction(1, 20),
        Fraction(1, 10),
    ]
    assert abs(len(found) - 41) <= 1  # to 2.017 s


@pytest.mark.parametrize(
    ("scale", "size", "aspect"),
    [
        ((32, -1), (32, 24), Fraction(16, 11)),
        ((-1, 96), (128, 96), Fraction(16, 11)),
        ((33, -1), (33, 25), Fraction(16, 11)),
        ((64, 24), (64, 24), Fraction(8, 11)),
    ],
)
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_another_size(
    scale: tuple[int, int], size: tuple[int, int], aspect: Fraction, bit_depth: int
) -> None:
    info = VideoInfo(64, 48, bit_depth, sample_aspect_ratio=Fraction(16, 11), chroma_location=1)
    frames = clip(info, range(3))
    changes = Changes(scale=scale)
    after = changes.of(info)
    assert (after.width, after.height, after.sample_aspect_ratio) == (*size, aspect)
    for before, frame in zip(frames, change_frames(frames, info, changes), strict=True):
        assert frame.y.shape == (size[1], size[0])
        assert frame.pts == before.pts
        assert frame.y.dtype == before.y.dtype
        assert abs(float(frame.y.mean()) - float(before.y.mean())) < 2 * 2 ** (bit_depth - 8)


def test_sizes_out_of_range_are_refused() -> None:
    for scale in ((8, 64), (9000, 64), (-1, 9000)):
        with pytest.raises(LimitError, match="--scale asks for"):
            Changes(scale=scale).of(VideoInfo(64, 48))


@pytest.mark.parametrize("where", ["encode", "decode"])
def test_rate_and_size_on_both_sides(tmp_path: Path, base_weights: Path, where: str) -> None:
    """The sound stays the same and in place. Any number of processes gives the same result."""
    source = Source([Sound("libopus")], frames=25, rate=25).write(tmp_path / "a.mkv")
    extra = {where: ["--fps", "10", "--scale", "-1x48"]}
    vdf, out = tmp_path / "a.vdf", tmp_path / "b.mkv"
    command = ("encode", source, vdf, "--gop", 5, "--weights", base_weights, *extra.get("encode", []))
    assert run(*command, "--workers", 1).exit_code == 0
    if where == "encode":
        data = vdf.read_bytes()
        assert run(*command, "--workers", 2, "--force").exit_code == 0
        assert vdf.read_bytes() == data
    result = run("decode", vdf, out, "--weights", base_weights, "--json", *extra.get("decode", []))
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout.splitlines()[-1])
    assert (values["width"], values["height"], values["frames"]) == (48, 48, 10)
    assert times(out) == [Fraction(i, 10) for i in range(10)]
    sounds = []
    for path in (source, out):
        with av.open(str(path)) as container:
            sounds.append([(p.pts, bytes(p)) for p in container.demux(audio=0) if p.size])
    assert sounds[0] == sounds[1]


@pytest.mark.parametrize(
    "arguments",
    [
        *("--fps 0", "--fps 1001", "--fps x", "--fps 25/0", "--fps -5", "--fps 1e3"),
        *("--scale 64", "--scale -1x-1", "--scale 64x-2", "--scale 0xx1", "--scale 64:48"),
        *("--start -1", "--start 1.5", "--start 00:60", "--start 1:2:3:4", "--start ten", "--start 00:10:"),
    ],
)
def test_wrong_use(arguments: str) -> None:
    for command in ("encode", "decode"):
        result = run(command, "a", "b.mkv", *arguments.split())
        assert result.exit_code == 2, result.output


@pytest.mark.parametrize(("gap", "rate"), [(1 << 62, 25), (1 << 40, 25), (40, 1 << 60)])
def test_times_cannot_ask_for_frames_without_end(gap: int, rate: int) -> None:
    """Two frames far apart, or an endless last one, are refused.

    No frame is repeated more often than `--max-frames` allows.
    """
    info = VideoInfo(16, 16, time_base=Fraction(1, 1000), frame_rate=Fraction(25, rate))
    frames = [replace(frame, pts=gap * n) for n, frame in enumerate(moving_picture(16, 16, 2))]
    shown = change_frames(frames, info, Changes(fps=Fraction(25)), 100)
    with pytest.raises(LimitError, match="more than 100 frames"):
        list(itertools.islice(shown, 101))


@pytest.mark.parametrize("base", [Fraction((1 << 32) - 1), Fraction(1, (1 << 32) - 1)])
def test_time_bases_that_libav_does_not_hold(base: Fraction) -> None:
    """None of our encoders writes them."""
    info = VideoInfo(16, 16, time_base=base)
    with pytest.raises((VideoError, LimitError)):
        list(change_frames(moving_picture(16, 16, 2), info, Changes(fps=Fraction(25))))
    with pytest.raises(VideoError):
        list(change_frames(moving_picture(16, 16, 2), info, Changes(scale=(32, 32))))


def test_the_time_that_libav_does_not_hold(tmp_path: Path) -> None:
    """For libav it is no time at all, and libav would invent one."""
    frames = [replace(frame, pts=frame.pts - (1 << 63)) for frame in moving_picture(16, 16, 2)]
    with pytest.raises(VideoError):
        list(change_frames(frames, VideoInfo(16, 16), Changes(scale=(32, 32))))
    with pytest.raises(VideoError), VideoWriter(tmp_path / "a.mp4", VideoInfo(16, 16)) as writer:
        writer.write(frames[0])
    assert not list(tmp_path.iterdir())


def test_ntsc_rates_are_meant() -> None:
    from viddiff.cli.options import _fps

    context: Any = None
    rates = {"29.97": Fraction(30000, 1001), "23.976": Fraction(24000, 1001), "12.5": Fraction(25, 2)}
    rates |= {"59.94": Fraction(60000, 1001), "30": Fraction(30), "30000/1001": Fraction(30000, 1001)}
    for text, rate in rates.items():
        assert _fps(context, context, text) == rate


# --- parts by time ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "number"),
    [("0", 0), ("0.5", 4), ("0.501", 5), ("0.49", 4), ("1.999", 8), ("2", 8), ("2.017", 9), ("2.02", 10)],
)
def test_a_time_is_the_first_frame_that_is_not_earlier(tmp_path: Path, start: str, number: int) -> None:
    """Times count from the first frame, wherever that is."""
    info = VideoInfo(64, 48, time_base=Fraction(1, 1000))
    frames = clip(info, [t + 700 for t in VARIABLE])
    write(tmp_path / "a.mkv", info, frames, lossless=True)
    with VideoReader(tmp_path / "a.mkv", Fraction(start), 2) as reader:
        assert [f.pts for f in reader] == [t + 700 for t in VARIABLE[number : number + 2]]


class Counting(io.FileIO):
    """Counts what is really read, and where."""

    read_bytes = 0

    def readinto(self, buffer: Any) -> int:
        got = super().readinto(buffer) or 0
        Counting.read_bytes += got
        return got


GOPS, GOP_FRAMES, STEP = 60, 4, 8


@pytest.fixture(scope="module")
def long(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes in GOPs of 2 s of large pictures, with sound. Every GOP has the pictures of the first."""
    path = tmp_path_factory.mktemp("long") / "long.vdf"
    data, *_ = coded(codec, moving_picture(64, 48, GOP_FRAMES), options=EncodeOptions(quality=63, gop=4))
    first = list(Reader(io.BytesIO(data)))
    track = Track("audio", "opus", Fraction(1, 1000), "matroska", b"not a file", {})
    with open(path, "wb") as file:
        writer = Writer(file, Reader(io.BytesIO(data)).header)
        writer.attach(TRACK, pack_track(track))
        for number in range(GOPS):
            writer.attach(PACKETS, pack_packets([TrackPacket(0, 2000 * number, 20, True, bytes(9000))]))
            base = GOP_FRAMES * STEP * number
            for chunk in first:
                if isinstance(chunk, KeyChunk):
                    writer.write(KeyChunk(base, chunk.payload))
                else:
                    stamps = tuple(base + STEP * (1 + i) for i in range(len(chunk.pts)))
                    writer.write(PredictedChunk(stamps, chunk.payload))
        writer.finish()
    return path


@pytest.mark.parametrize(
    ("start", "number"),
    [("00:00", 0), ("00:10", 32), ("01:00.32", 189), ("0:01:16.8", 240), ("100", 100)],
)
def test_decoding_a_part_reads_only_its_gops(
    long: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str, number: int
) -> None:
    @contextmanager
    def opened(self: ReadOptions, path: Path) -> Iterator[BinaryIO]:
        with io.BufferedReader(Counting(str(path)), 4096) as file:
            yield file

    monkeypatch.setattr(ReadOptions, "open", opened)
    Counting.read_bytes = 0
    out = tmp_path / "a.mkv"
    arguments = ("--weights", weights, "--workers", 1, "--lossless", "--frames", 3)
    result = run("decode", long, out, "--start", start, *arguments)
    if number >= GOPS * GOP_FRAMES:
        assert result.exit_code == 1
        assert "has no frame at 76.8 s, for it has 240 frames" in result.stderr
    else:
        assert result.exit_code == 0, result.output
        assert times(out) == [STEP * (number + i) * Fraction(1, 25) for i in range(3)]
    size = long.stat().st_size
    assert size > 1_000_000
    assert 0 < Counting.read_bytes < size / 5


def test_a_time_within_damage_is_still_found(long: Path) -> None:
    """The GOP is lost, but its place in time is known."""
    with open(long, "rb") as file:
        reader = Reader(file)
        entry = reader.index()[5]
        video = reader.header.video
    data = bytearray(long.read_bytes())
    data[entry.offset + 40] ^= 1
    damaged = io.BytesIO(data)
    gops = schedule(damaged, Limits(), Fraction(entry.pts, 25), 2)
    assert frame_number(damaged, gops, video, Fraction(entry.pts, 25), Limits()) == entry.frame
    later = frame_number(damaged, gops, video, Fraction(entry.pts + STEP, 25), Limits())
    assert entry.frame < later <= entry.frame + GOP_FRAMES


def test_a_part_by_time_keeps_its_sound_and_its_words(tmp_path: Path, base_weights: Path) -> None:
    source = Source([Sound("libopus")], [("srt", SRT)], frames=10).write(tmp_path / "a.mkv")
    vdf = tmp_path / "a.vdf"
    assert run("encode", source, vdf, "--gop", 4, "--weights", base_weights).exit_code == 0
    parts: list[list[tuple[str, int | None, bytes]]] = []
    for start in ("4", "00:00.4"):
        out = tmp_path / f"{len(parts)}.mkv"
        part = ("--start", start, "--frames", 4, "--lossless")
        result = run("decode", vdf, out, *part, "--weights", base_weights)
        assert result.exit_code == 0, result.output
        with av.open(str(out)) as container:
            parts.append([(p.stream.type, p.pts, bytes(p)) for p in container.demux() if p.size])
    assert parts[0] == parts[1]
    assert {kind for kind, *_ in parts[0]} == {"video", "audio", "subtitle"}
    coded_part = tmp_path / "part.vdf"
    assert run("encode", source, coded_part, "--start", "00:00.4", "--weights", base_weights).exit_code == 0
    with open(coded_part, "rb") as file:
        assert next(iter(itertools.islice(Reader(file), 1))).pts == 400


# --- where the bits are ------------------------------------------------------------------------------


def test_the_table_of_gops(long: Path) -> None:
    values = json.loads(run("info", long, "--json").stdout)
    gops = values["gops"]
    assert (len(gops), values["keyframes"], values["frames"]) == (GOPS, GOPS, GOPS * GOP_FRAMES)
    assert values["seconds"] == pytest.approx(((GOPS * GOP_FRAMES - 1) * STEP + 1) / 25), "not by the rate"
    with open(long, "rb") as file:
        reader = Reader(file)
        index = reader.index()
        sizes = [0] * GOPS
        for offset, chunk in reader.scan(None):
            sizes[sum(entry.offset <= offset for entry in index) - 1] += reader.offset - offset
            assert chunk.payload
    for number, gop in enumerate(gops):
        assert (gop["frame"], gop["frames"]) == (GOP_FRAMES * number, GOP_FRAMES)
        assert gop["start"] == pytest.approx(number * GOP_FRAMES * STEP / 25, abs=0.001)
        assert gop["bytes"] == sizes[number], "pictures alone, not the sound between them"
        assert sum(size for _, size in gop["chunks"]) == gop["bytes"]
        assert sum(frames for frames, _ in gop["chunks"]) == GOP_FRAMES
    assert gops[0]["kbps"] == pytest.approx(gops[0]["bytes"] / 125 / (GOP_FRAMES * STEP / 25))
    assert gops[-1]["kbps"] > gops[0]["kbps"], "the last frame lasts as long as the rate says"


def test_the_table_and_the_plot_for_people(long: Path) -> None:
    lines = run("info", long).stdout.splitlines()
    table = lines.index(
        next(line for line in lines if line.split() == ["gops", "frame", "frames", "bytes", "kbit/s"])
    )
    assert [line.split()[:3] for line in lines[table + 1 : table + 3]] == [
        ["00:00.00", "0", "4"],
        ["00:01.28", "4", "4"],
    ]
    assert lines[table + 21] == "40 more GOPs; --json has all"
    plot = lines[table + 22 :]
    assert any("kbit per frame" in line for line in plot)
    assert sum(any("\u2800" < letter <= "\u28ff" for letter in line) for line in plot) > 3, "there are dots"


def test_a_plot_needs_matplotlib(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("info", long, "--plot", tmp_path / "a.png")
    assert result.exit_code == 1
    assert result.stderr == "Error: --plot needs matplotlib: pip install 'viddiff[plot]'\n"
    assert list(tmp_path.iterdir()) == []


def test_a_plot_as_a_picture(long: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("info", long, "--plot", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "a.png")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert picture.std() > 10
    assert run("info", long, "--plot", tmp_path / "a.png").exit_code == 0, "it replaces a plot"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.vdf", "a.png", "folder", "none/a.png"])
def test_a_plot_replaces_no_other_file(long: Path, tmp_path: Path, name: str) -> None:
    video, picture = tmp_path / "a.vdf", tmp_path / "a.png"
    video.write_bytes(long.read_bytes())
    picture.write_bytes(b"\x89PNG of somebody")
    (tmp_path / "folder").mkdir()
    result = run("info", video, "--plot", tmp_path / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert video.read_bytes() == long.read_bytes()
    assert picture.read_bytes() == b"\x89PNG of somebody"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_video_that_begins_before_0_is_shown_from_its_first_frame(tmp_path: Path) -> None:
    frames = [Frame(*frame.planes, pts=pts) for pts, frame in enumerate(moving_picture(32, 32, 5), -3)]
    write(tmp_path / "a.mp4", VideoInfo(32, 32), frames)
    with VideoReader(tmp_path / "a.mp4") as reader:
        times = [frame.pts * reader.info.time_base for frame in reader]
    assert [time - times[0] for time in times] == [Fraction(number, 25) for number in range(5)]
