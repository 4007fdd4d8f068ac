"""Media files as users have them: what a source says of itself may be wrong, change within or be unknown."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result

from viddiff.cli import main
from viddiff.config import MAX_PIXELS, Limits, allowed_size
from viddiff.container.format import Header, KeyChunk, Writer
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import ExtrasReader, pack_meta
from viddiff.errors import BitstreamError, LimitError, VideoError
from viddiff.frame import Frame, VideoInfo, with_durations
from viddiff.interleave import Interleaver
from viddiff.media import track_reader, track_writer
from viddiff.media.codec_parameters import describe, described, holds
from viddiff.media.demuxer import Demuxer
from viddiff.media.filters import Changes
from viddiff.media.track_reader import TrackReader
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.tracks import MAX_SECONDS, Chapter, Extras, Track, TrackPacket

ID3 = b"ID3\4\0\0\0\0\0\x0aTXXX" + bytes(10)
KLV = bytes.fromhex("060e2b34020b01010e01030101000000") + b"\x04abcd"


def opened(file: Any, mode: Any = "r", **options: Any) -> Any:
    """A media file. What its streams are is not known to the type checker."""
    return av.open(file, mode, **options)


def pictures(count: int, width: int = 64, height: int = 48, filters: str = "") -> Iterator[Any]:
    """Gray ramps that move, through libavfilter's `filters` if there are any."""
    graph = None
    for number in range(count):
        planes = np.full((height * 3 // 2, width), 128, np.uint8)
        planes[:height] = (np.arange(width) * 3 + 5 * number) % 200 + 20
        picture = av.VideoFrame.from_ndarray(planes, "yuv420p")
        picture.pts, picture.time_base = number, Fraction(1, 25)
        if filters:
            if graph is None:
                graph = cast(Any, av.filter.Graph())
                source = graph.add_buffer(
                    width=width, height=height, format="yuv420p", time_base=Fraction(1, 25)
                )
                name, _, arguments = filters.partition("=")
                graph.link_nodes(source, graph.add(name, arguments), graph.add("buffersink")).configure()
            graph.push(picture)
            picture = graph.pull()
        yield picture


def video(
    path: Path,
    shown: Iterator[Any],
    codec: str = "mpeg4",
    aspect: Fraction | None = None,
    flags: int = 0,
    shift: float = 0,
    beside: Callable[[Any], Any] | None = None,
    form: str | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    """A file of these pictures; `beside` adds a stream and says what goes into it."""
    with opened(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.flags |= flags
        stream.codec_context.max_b_frames = 0
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        extra = beside(output) if beside is not None else []
        packets = [packet for picture in shown for packet in stream.encode(picture)] + stream.encode(None)
        for packet in packets:
            packet.pts, packet.dts = (
                time + round(shift / packet.time_base) for time in (packet.pts, packet.dts)
            )
        output.mux(sorted([*packets, *extra], key=lambda p: p.dts * p.time_base))
    return path


def data_track(codec: str, payload: bytes) -> Callable[[Any], Any]:
    """Four packets of data."""

    def beside(output: Any) -> list[Any]:
        stream, packets = output.add_data_stream(codec), []
        stream.time_base = Fraction(1, 1000)
        for number in range(4):
            packet = av.Packet(payload)
            packet.pts = packet.dts = 100 * number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), stream, True
            packets.append(packet)
        return packets

    return beside


def sound(codec: str, rate: int = 8000, layout: str = "mono", form: str = "s16") -> Callable[[Any], Any]:
    """0.4 s of a tone."""

    def beside(output: Any) -> list[Any]:
        stream = output.add_stream(codec, rate=rate)
        stream.codec_context.layout, stream.codec_context.format = layout, form
        stream.codec_context.options = {"strict": "-2"}
        channels = stream.codec_context.channels
        wave = np.sin(np.arange(rate * 2 // 5) / 9) * 0.3
        samples = np.repeat(wave[None], channels, 0)
        kind = {"s16": np.int16, "flt": np.float32, "fltp": np.float32}[form]
        scaled = (samples * (32767 if kind is np.int16 else 1)).astype(kind)
        if not form.endswith("p"):
            scaled = np.ascontiguousarray(scaled.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(scaled, form, layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        return [p for p in stream.encode(frame) + stream.encode(None) if p.size]

    return beside


def tracks_of(path: Path, audio: str = "copy") -> tuple[Extras, list[TrackPacket], list[str]]:
    """What goes beside the video, and the notes."""
    with Demuxer(path) as demuxer, VideoReader(demuxer) as reader, TrackReader(demuxer, audio) as others:
        reader.leave()
        packets = list(iter(lambda: others.take(None), None))
        return others.extras, packets, others.notes


class Packets:
    """Packets that are there."""

    def __init__(self, packets: list[TrackPacket]) -> None:
        self._packets = iter(packets)

    def take(self, time: Fraction | None) -> TrackPacket | None:
        return next(self._packets, None)

    def stop_waiting(self) -> None:
        pass


def written(path: Path, extras: Extras, packets: list[TrackPacket], times: list[int]) -> list[str]:
    """Write a video of frames at these times, in 1/25 s, with what goes beside it; the notes."""
    info = VideoInfo(64, 48)
    planes = (
        np.full((48, 64), 90, np.uint8),
        np.full((24, 32), 128, np.uint8),
        np.full((24, 32), 128, np.uint8),
    )
    with VideoWriter(path, info, others=Interleaver(extras, Packets(packets))) as writer:
        for time in times:
            writer.write(Frame(*planes, pts=time))
    return writer.notes


def run(*arguments: Any) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


# --- what stands beside the video --------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "payload"), [("timed_id3", ID3), ("klv", KLV), ("bin_data", b"abc")])
def test_data_of_broadcasts(tmp_path: Path, codec: str, payload: bytes) -> None:
    source = video(tmp_path / "a.ts", pictures(10), "mpeg2video", beside=data_track(codec, payload))
    extras, packets, notes = tracks_of(source)
    assert [packet.data for packet in packets] == [payload] * 4
    assert any("no file that decode writes can hold data stream 1" in note for note in notes)
    for suffix in (".mp4", ".mkv", ".mov"):
        notes = written(tmp_path / f"b{suffix}", extras, packets, list(range(10)))
        assert any(f"{suffix} cannot hold these; they are left out: data" in note for note in notes)
        with opened(str(tmp_path / f"b{suffix}")) as container:
            assert len(list(container.decode(video=0))) == 10


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libav's muxer of .mp4 takes timed ID3 and says nothing when what it writes is no file."""
    source = video(tmp_path / "a.ts", pictures(10), "mpeg2video", beside=data_track("timed_id3", ID3))
    extras, packets, _ = tracks_of(source)
    monkeypatch.setattr(track_writer, "holds", lambda *_: True)
    with pytest.raises(VideoError, match="was written, but cannot be read"):
        written(tmp_path / "b.mp4", extras, packets, list(range(10)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ts"]


@pytest.mark.parametrize(
    ("codec", "form"),
    [
        ("pcm_alaw", ".mkv"),
        ("pcm_mulaw", ".mov"),
        ("adpcm_ima_wav", ".avi"),
        ("adpcm_ms", ".avi"),
        ("pcm_u8", ".avi"),
        ("pcm_s16be", ".mov"),
    ],
)
def test_sound_that_matroska_holds_beyond_its_table(tmp_path: Path, codec: str, form: str) -> None:
    """PyAV refuses some of these for .mkv; cameras write them there."""
    kind = "u8" if codec == "pcm_u8" else "s16"
    layout = "stereo" if codec.startswith("adpcm") else "mono"
    data = sound_file(codec, layout, kind)
    with opened(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        first = next(bytes(packet) for packet in container.demux(stream) if packet.size)
        found = describe(stream, first)
    assert found is not None
    template, sample = described(*found)
    assert holds("matroska", template, sample)
    track = Track("audio", codec, Fraction(1, 8000), *found)
    packets = [TrackPacket(0, 800 * number, 800, True, first) for number in range(4)]
    assert written(tmp_path / "b.mkv", Extras(tracks=[track]), packets, list(range(10))) == []
    with opened(str(tmp_path / "b.mkv")) as container:
        assert container.streams.audio[0].codec_context.name == codec
        assert [bytes(p) for p in container.demux(audio=0) if p.size] == [first] * 4


def sound_file(codec: str, layout: str, form: str) -> bytes:
    """Half a second in a .wav or .mov, whichever holds it."""
    for container in ("wav", "mov"):
        out = io.BytesIO()
        try:
            with opened(out, "w", format=container) as output:
                stream = output.add_stream(codec, rate=8000)
                stream.codec_context.layout = layout
                shape = (1, 4096 * stream.codec_context.channels)
                samples = np.arange(shape[1]).reshape(shape) % 199
                kind = np.uint8 if form == "u8" else np.int16
                frame = av.AudioFrame.from_ndarray(cast(Any, samples.astype(kind)), form, layout)
                frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
                output.mux(stream.encode(frame) + stream.encode(None))
            return out.getvalue()
        except ValueError:
            continue
    raise AssertionError(codec)


def test_sound_that_no_target_holds_is_said_when_it_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = video(tmp_path / "a.flv", pictures(10), "flv", beside=sound("nellymoser", 16000, form="flt"))
    assert tracks_of(source)[2] == [], "only .mov holds it"
    monkeypatch.setattr(track_reader, "TARGETS", ("matroska", "mp4"))
    extras, packets, notes = tracks_of(source)
    assert len(extras.tracks) == 1
    assert packets
    (note,) = (note for note in notes if "nellymoser" in note)
    assert "no file that decode writes can hold audio stream" in note
    assert "--audio opus:128k" in note
    extras, packets, notes = tracks_of(source, "opus:64")
    assert [track.codec for track in extras.tracks] == ["opus"]
    assert notes == []
    assert written(tmp_path / "b.mp4", extras, packets, list(range(10))) == []


def test_latm(tmp_path: Path) -> None:
    """AAC as DVB-T2 has it: Matroska holds it, and the next best is said where a file does not."""
    path = tmp_path / "a.ts"
    with opened(str(path), "w", container_options={"mpegts_flags": "latm"}) as output:
        stream = output.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        packets = [p for picture in pictures(10) for p in stream.encode(picture)] + stream.encode(None)
        packets += sound("aac", 48000, form="fltp")(output)
        output.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    extras, found, _ = tracks_of(path)
    assert [track.codec for track in extras.tracks] == ["aac_latm"]
    assert written(tmp_path / "b.mkv", extras, found, list(range(10))) == []
    with opened(str(tmp_path / "b.mkv")) as container:
        assert [bytes(p) for p in container.demux(audio=0) if p.size] == [p.data for p in found]


def test_times_beyond_the_limit_cost_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with opened(str(path), "w") as output:
        output.metadata["title"] = "My holiday"
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        spans = [(0, 1), (1, 3_000_000_000), (2, 3), (3_000_000_000, 3_000_000_001)]
        output.set_chapters(
            [
                {"id": i, "start": a, "end": b, "time_base": Fraction(1), "metadata": {"title": str(i)}}
                for i, (a, b) in enumerate(spans, 1)
            ]
        )
        output.mux([p for picture in pictures(3) for p in stream.encode(picture)] + stream.encode(None))
    extras, _, notes = tracks_of(path)
    assert [note for note in notes if "chapter" in note] == [
        "left chapter 4 out: it lies too far away, or its text is too long"
    ]
    reader = ExtrasReader()
    for payload in pack_meta(extras):
        reader.take_meta(payload)
    found = reader.extras
    assert found.tags == {"title": "My holiday"}
    assert [(c.tags["title"], c.end * c.time_base) for c in found.chapters] == [
        ("1", Fraction(1)), ("2", Fraction(MAX_SECONDS)), ("3", Fraction(3))
    ]  # fmt: skip
    for suffix in (".mkv", ".mp4"):
        written(tmp_path / f"b{suffix}", found, [], list(range(3)))
        with opened(str(tmp_path / f"b{suffix}")) as container:
            assert container.metadata["title"] == "My holiday"
            assert len(container.chapters()) == 3


def test_chapters_before_the_beginning_are_cut(tmp_path: Path) -> None:
    spans = [(-5, -2), (-2, 1), (1, 2)]
    extras = Extras(chapters=[Chapter(a, b, Fraction(1), {"title": str(a)}) for a, b in spans])
    written(tmp_path / "b.mkv", extras, [], list(range(3)))
    with opened(str(tmp_path / "b.mkv")) as container:
        found = [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in container.chapters()]
    assert found == [(0, "-2"), (1, "1")]


def test_tags_beyond_a_chunk_are_left_out_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with opened(str(path), "w") as output:
        output.metadata.update(
            {f"t{number:03}": "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 60_000 for number in range(40)}
        )
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.mux([p for picture in pictures(3) for p in stream.encode(picture)] + stream.encode(None))
    extras, _, notes = tracks_of(path)
    assert 15 <= len(extras.tags) < 40
    assert len(notes) == 40 - len(extras.tags)
    assert list(pack_meta(extras))


def test_packets_out_of_range_are_left_out(tmp_path: Path) -> None:
    track = Track("audio", "opus", Fraction(1, 48000), "matroska", b"")
    assert track.in_range(-5, 0)
    assert not track.in_range(48000 * MAX_SECONDS, 0)
    assert not track.in_range(0, 48000 * MAX_SECONDS)
    assert not track.in_range(0, -1)


def test_opus_of_sound_that_changes_within(tmp_path: Path) -> None:
    """A broadcast that goes from mono to stereo and to another rate."""
    parts = []
    for number, (rate, layout) in enumerate([(48000, "mono"), (44100, "stereo")]):
        path = video(
            tmp_path / f"{number}.ts", pictures(10), "mpeg2video", shift=0.4 * number,
            beside=sound("mp2", rate, layout),
        )  # fmt: skip
        parts.append(path.read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    extras, packets, _ = tracks_of(tmp_path / "in.ts", "opus:64")
    assert [track.codec for track in extras.tracks] == ["opus"]
    seconds = sum(packet.duration for packet in packets) / 48000
    assert 0.7 <= seconds <= 1.0


# --- the video ---------------------------------------------------------------------------------------


def test_the_rate_of_a_camcorder(tmp_path: Path) -> None:
    """libav takes the clock's 60000 ticks of a raw .dv for frames."""
    shown = pictures(5, 720, 576)
    source = video(tmp_path / "a.dv", shown, "dvvideo", size=(720, 576))
    with VideoReader(source) as reader:
        assert reader.info.frame_rate == 25
        assert len(list(reader)) == 5


def test_a_rate_that_packets_contradict(tmp_path: Path) -> None:
    """Browsers record .webm that claims 1000 frames per second."""
    path = tmp_path / "a.mkv"
    with opened(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures(10):
            picture.pts, picture.time_base = picture.pts * 40, Fraction(1, 1000)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert 20 <= reader.info.frame_rate <= 30


@pytest.mark.parametrize(("before", "expected"), [(10, "top first"), (40, "progressive")])
def test_fields_that_begin_within(tmp_path: Path, before: int, expected: str) -> None:
    """Most of the first frames say how all are stored, and a note that others are not so."""
    interlaced = 1 << 18 | 1 << 29
    video(tmp_path / "1.ts", pictures(before), "mpeg2video")
    shown = pictures(30, filters="setfield=tff")
    video(tmp_path / "2.ts", shown, "mpeg2video", flags=interlaced, shift=before / 25)
    (tmp_path / "in.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    with VideoReader(tmp_path / "in.ts") as reader:
        assert reader.info.display.field_order == expected
        assert len(list(reader)) >= before + 29  # libav may lose one where they are joined
    other = "progressive" if expected != "progressive" else "interlaced"
    assert any(f"pictures are {other} at" in note for note in reader.notes)


def test_an_aspect_ratio_that_changes(tmp_path: Path) -> None:
    video(tmp_path / "1.ts", pictures(10), "mpeg2video", aspect=Fraction(1))
    video(tmp_path / "2.ts", pictures(30), "mpeg2video", aspect=Fraction(4, 3), shift=0.4)
    (tmp_path / "in.ts").write_bytes((tmp_path / "1.ts").read_bytes() + (tmp_path / "2.ts").read_bytes())
    with VideoReader(tmp_path / "in.ts") as reader:
        assert reader.info.sample_aspect_ratio == Fraction(4, 3)
        assert len(list(reader)) >= 39
    (note,) = (note for note in reader.notes if "aspect" in note)
    assert "at 0.00 s" in note


def test_a_video_that_stays_the_same_has_no_note(tmp_path: Path) -> None:
    with VideoReader(video(tmp_path / "a.mp4", pictures(60))) as reader:
        assert len(list(reader)) == 60
    assert reader.notes == []


def exif(orientation: int) -> bytes:
    """A block of EXIF that says nothing else."""
    return b"MM\0*" + struct.pack(">I", 8) + struct.pack(">HHHIHH", 1, 0x112, 3, 1, orientation, 0) + bytes(4)


@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (2, None), (4, None), (5, None), (6, 90)])
def test_exif_of_pictures(tmp_path: Path, orientation: int, rotation: int | None) -> None:
    """PyAV has no name for EXIF and shows no side data then; a mirror is no turn."""
    with opened(str(tmp_path / "a.jpg"), "w", format="image2") as output:
        stream = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        picture = next(pictures(1)).reformat(format="yuvj420p")
        picture.pts = 0
        output.mux(stream.encode(picture) + stream.encode(None))
    data, block = (tmp_path / "a.jpg").read_bytes(), b"Exif\0\0" + exif(orientation)
    marked = data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    (tmp_path / "a.jpg").write_bytes(marked)
    with VideoReader(tmp_path / "a.jpg") as reader:
        info = reader.info
    assert info.rotation == (rotation or 0)
    assert (info.display.matrix is not None) == (rotation is None)


def test_exif_hides_no_other_side_data(tmp_path: Path) -> None:
    """A .png with EXIF and HDR10's content light level."""
    with opened(str(tmp_path / "a.png"), "w", format="image2") as output:
        stream = output.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        output.mux(stream.encode(next(pictures(1)).reformat(format="rgb24")) + stream.encode(None))
    data = (tmp_path / "a.png").read_bytes()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    light = chunk(b"cLLI", struct.pack(">II", 10_000_000, 4_000_000))
    for blocks in (light, light + chunk(b"eXIf", exif(1))):
        (tmp_path / "a.png").write_bytes(data[:33] + blocks + data[33:])
        with VideoReader(tmp_path / "a.png") as reader:
            assert reader.info.display.content_light == (1000, 400)


def test_the_stream_that_shows_something(tmp_path: Path) -> None:
    """A broadcast's first program may be off the air."""
    path = tmp_path / "a.ts"
    with opened(str(path), "w") as output:
        streams = [output.add_stream("mpeg2video", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (64, 96), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        packets = [
            packet
            for stream, width in zip(streams, (64, 96), strict=True)
            for packet in [p for f in pictures(10, width) for p in stream.encode(f)] + stream.encode(None)
        ]
        output.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    data = path.read_bytes()
    pieces = [data[at : at + 188] for at in range(0, len(data), 188)]
    path.write_bytes(b"".join(p for p in pieces if (p[1] & 31) << 8 | p[2] != 256))
    with VideoReader(path) as reader:
        assert reader.info.width == 96
        assert len(list(reader)) == 10
    assert any("took video stream 2 of 2" in note for note in reader.notes)


def test_a_poster_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with opened(str(path), "w") as output:
        poster, film = (output.add_stream("mpeg4", rate=25) for _ in range(2))
        for stream, width in ((poster, 64), (film, 96)):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        packets = [p for f in pictures(1) for p in poster.encode(f)] + poster.encode(None)
        packets += [p for f in pictures(10, 96) for p in film.encode(f)] + film.encode(None)
        output.mux(sorted(packets, key=lambda p: p.dts * p.time_base))
    with VideoReader(path) as reader:
        assert (reader.info.width, len(list(reader))) == (96, 10)


# --- times -------------------------------------------------------------------------------------------


def slides(path: Path, last: float) -> Path:
    """Five pictures, 0.1 s each, and the last for `last` seconds."""
    with opened(str(path), "w", container_options={"final_delay": str(round(100 * last))}) as output:
        stream = output.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for picture in pictures(5):
            small = picture.reformat(format="rgb8")
            small.pts, small.time_base = picture.pts, Fraction(1, 10)
            output.mux(stream.encode(small))
        output.mux(stream.encode(None))
    return path


def seconds_of(path: Path) -> float:
    with opened(str(path)) as container:
        return float(container.duration / av.time_base)


def test_the_last_picture_stays_as_long_as_it_did(tmp_path: Path, weights: Path) -> None:
    source, coded = slides(tmp_path / "a.gif", 5), tmp_path / "a.vdf"
    options = ("--weights", weights, "--workers", 1)
    assert run("encode", source, coded, *options, "--preset", "fastest").exit_code == 0
    for name in ("b.mkv", "b.mp4"):
        assert run("decode", coded, tmp_path / name, *options, "-q").exit_code == 0
        assert 5.3 <= seconds_of(tmp_path / name) <= 5.6
    assert run("decode", coded, tmp_path / "d.mkv", "--frames", 2, *options, "-q").exit_code == 0
    assert seconds_of(tmp_path / "d.mkv") == pytest.approx(0.2, abs=0.01)
    assert "a constant rate" in run("decode", coded, tmp_path / "e.y4m", *options).stderr
    arguments = ["decode", "-", str(tmp_path / "f.mkv"), "--weights", str(weights), "-q"]
    assert CliRunner().invoke(main, arguments, input=coded.read_bytes()).exit_code == 0
    assert 5.3 <= seconds_of(tmp_path / "f.mkv") <= 5.6


HEADER = Header(VideoInfo(64, 48), bytes(32), "m", 8)


def indexed(duration: int) -> io.BytesIO:
    out = io.BytesIO()
    writer = Writer(out, HEADER)
    writer.write(KeyChunk(3, b"k"))
    writer.write(KeyChunk(9, b"k", duration))
    writer.finish()
    out.seek(0)
    return out


@pytest.mark.parametrize("duration", [0, 1, 500, (1 << 63) - 1])
def test_index_holds_the_duration_of_the_last_frame(duration: int) -> None:
    reader = Reader(indexed(duration))
    assert len(reader.stored_index()) == 2
    assert reader.last_duration == duration


def test_an_impossible_duration_is_damage() -> None:
    data = bytearray(indexed(5).getvalue())
    at = len(data) - 14 - 5  # the varint before INDEX's checksum
    assert data[at] == 5
    data[at] = 0
    start = data.rindex(b"\x80", 0, at)
    data[at + 1 : at + 5] = struct.pack("<I", zlib.crc32(data[start : at + 1]))
    with pytest.raises(BitstreamError, match="impossible duration"):
        Reader(io.BytesIO(bytes(data))).stored_index()


def test_each_frame_lasts_until_the_next() -> None:
    plane = np.zeros((2, 2), np.uint8)
    frames = [Frame(plane, plane, plane, pts) for pts in (0, 3, 10)]
    assert [frame.duration for frame in with_durations(frames, lambda: 4)] == [3, 7, 4]
    assert list(with_durations([], lambda: 4)) == []


@pytest.mark.parametrize("hours", [14, 100])
def test_a_long_gap_in_an_mp4(tmp_path: Path, hours: int) -> None:
    """A camera that records when something moves: .mp4 counts 31 bits from one frame to the next."""
    info = VideoInfo(64, 48, time_base=Fraction(1, 90000))
    planes = (
        np.full((48, 64), 90, np.uint8),
        np.full((24, 32), 128, np.uint8),
        np.full((24, 32), 128, np.uint8),
    )
    gap = hours * 3600 * 90000
    with VideoWriter(tmp_path / "a.mp4", info) as writer:
        for pts in (0, 3600, 7200, gap, gap + 3600):
            writer.write(Frame(*planes, pts=pts))
    assert any("those before gaps are repeated" in note for note in writer.notes)
    with opened(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times[:3] == [0, 0.04, 0.08]
    assert times[-2:] == [pytest.approx(hours * 3600), pytest.approx(hours * 3600 + 0.04)]


def test_gaps_beyond_all_reason_are_refused(tmp_path: Path) -> None:
    info = VideoInfo(64, 48, time_base=Fraction(1, 90000))
    planes = (
        np.full((48, 64), 90, np.uint8),
        np.full((24, 32), 128, np.uint8),
        np.full((24, 32), 128, np.uint8),
    )
    with VideoWriter(tmp_path / "a.mp4", info) as writer:
        writer.write(Frame(*planes))
        with pytest.raises(VideoError, match=r"gaps like that of .* hours; \.mkv can"):
            writer.write(Frame(*planes, pts=1 << 60))


def test_a_long_gap_in_the_sound_of_an_mp4(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4", pictures(10), beside=sound("aac", 48000, form="fltp"))
    (track,) = tracks_of(source)[0].tracks
    gap = 14 * 3600
    packets = [
        TrackPacket(0, 1024 * n + 48000 * late, 1024, True, bytes(9)) for late in (0, gap) for n in range(3)
    ]
    notes = written(tmp_path / "b.mp4", Extras(tracks=[track]), packets, [0, 1, 25 * gap, 25 * gap + 1])
    assert any(".mp4 cannot hold the gap in audio aac" in note for note in notes)
    written(tmp_path / "b.mkv", Extras(tracks=[track]), packets, [0, 1, 25 * gap, 25 * gap + 1])
    for name, count in (("b.mp4", 3), ("b.mkv", 6)):
        with opened(str(tmp_path / name)) as container:
            assert len([packet for packet in container.demux(audio=0) if packet.size]) == count


# --- words and sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.mp4", "rtsp://127.0.0.1:9/x", "tcp://127.0.0.1:9"])
def test_nobody_listens(address: str) -> None:
    with pytest.raises(VideoError, match="Connection refused"):
        Demuxer(address)


def test_a_name_that_is_no_host() -> None:
    with pytest.raises(VideoError, match=r"host\.invalid"):
        Demuxer("http://host.invalid/x.mp4")


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [
        (16, 16, True),
        (15, 16, False),
        (2160, 3840, True),
        (4352, 8192, True),
        (8192, 4352, True),
        (8192, 16, True),
        (8193, 16, False),
        (8192, 4353, False),
    ],
)
def test_sizes(tmp_path: Path, width: int, height: int, fits: bool) -> None:
    assert allowed_size(width, height) is fits
    header = Header(VideoInfo(width, height), bytes(32), "m", 8)
    if not fits:
        with pytest.raises(LimitError):
            header.pack()
        with pytest.raises(LimitError, match="--scale asks for"):
            Changes(scale=(width, height)).of(VideoInfo(64, 48))
        return
    assert Header.unpack(header.pack()) == header
    out = io.BytesIO()
    writer = Writer(out, header)
    writer.finish()
    if width * height > Limits().pixels:
        with pytest.raises(LimitError, match=f"--max-pixels {width * height}"):
            Reader(io.BytesIO(out.getvalue()))
    Reader(io.BytesIO(out.getvalue()), Limits(MAX_PIXELS))


def test_upright_4k_is_read(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mkv", pictures(1, 2160, 3840), "ffv1", size=(2160, 3840))
    with VideoReader(source) as reader:
        (frame,) = reader
    assert frame.y.shape == (3840, 2160)


@pytest.mark.parametrize("size", [(16, 8192), (8192, 16)])
def test_long_pictures(tmp_path: Path, size: tuple[int, int], weights: Path) -> None:
    source = video(tmp_path / "a.mkv", pictures(1, *size), "ffv1", size=size)
    options = ("--weights", weights, "--workers", 1, "--preset", "fastest", "-q")
    assert run("encode", source, tmp_path / "a.vdf", *options).exit_code == 0
    assert run("decode", tmp_path / "a.vdf", tmp_path / "b.mkv", "--lossless", *options[:4]).exit_code == 0
    with opened(str(tmp_path / "b.mkv")) as container:
        (picture,) = container.decode(video=0)
    assert (picture.width, picture.height) == size
