"""Sound, subtitles, chapters, tags and attachments: the same packets at the same times, both ways."""

import io
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.stream import AttachmentStream
from click.testing import CliRunner, Result
from conftest import coded, in_decoding_order, moving_picture, shown_at

from viddiff.cli import main
from viddiff.codec.weights import Codec
from viddiff.container.format import META, PACKETS, TRACK, Writer, pack_varint
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import (
    MAX_JSON,
    ExtrasReader,
    pack_meta,
    pack_packets,
    pack_track,
    unpack_packets,
    unpack_track,
)
from viddiff.container.track_file import TrackFile
from viddiff.display import Display
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import VideoInfo
from viddiff.interleave import Interleaver
from viddiff.media.timeline import TS_DISCONT, Continuity
from viddiff.media.track_reader import TAG_LETTERS, TrackReader
from viddiff.media.track_writer import TrackWriter
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.serial import decode
from viddiff.tracks import Attachment, Chapter, Extras, Track, TrackPacket

RATE = 48000
FRAME = 1024 / RATE
"""Seconds of a packet of AAC, the longest packets here."""
FPS = 10
"""Frames of a second: few, for what is beside them is tested."""
ASS = (
    b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n"
    b"Style: Default,Arial,20\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
    b"Dialogue: 0,0:00:00.10,0:00:00.30,Default,Hello\nDialogue: 0,0:00:00.50,0:00:00.90,Default,World\n"
)
SRT = b"1\n00:00:00,100 --> 00:00:00,300\nGood day\n\n2\n00:00:00,500 --> 00:00:00,900\nGood night\n\n"


@dataclass
class Sound:
    """A sound track to create: a click every tenth of a second."""

    codec: str = "aac"
    language: str = "eng"
    title: str = "Main"
    start: float = 0.0
    channels: int = 2


@dataclass
class Source:
    """A small video to create, with everything beside it."""

    sounds: list[Sound] = field(default_factory=list)
    subtitles: list[tuple[str, bytes]] = field(default_factory=list)
    video_start: float = 0.0
    frames: int = FPS
    tags: dict[str, str] = field(default_factory=dict)
    chapters: list[tuple[int, int, str]] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (32, 32)
    rate: int = FPS

    def write(self, path: Path) -> Path:
        with av.open(str(path), "w", container_options=self.options) as output:
            output.metadata.update(self.tags)
            chapters: list[av.container.core.Chapter] = [
                {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": name}}
                for i, (a, b, name) in enumerate(self.chapters, 1)
            ]
            video = output.add_stream("mpeg4", rate=self.rate)
            video.width, video.height, video.pix_fmt = *self.size, "yuv420p"
            video.codec_context.max_b_frames = 0
            packets = []
            sounds = []
            for sound in self.sounds:
                stream = output.add_stream(sound.codec, rate=RATE)
                assert isinstance(stream, av.AudioStream)
                stream.codec_context.layout = "stereo" if sound.channels == 2 else "mono"
                stream.metadata.update({"language": sound.language, "title": sound.title})
                sounds.append(stream)
            texts = []
            for form, text in self.subtitles:
                source = av.open(io.BytesIO(text), "r", format=form)
                words = output.add_stream_from_template(source.streams[0])
                words.metadata["language"] = "fra"
                texts.append((words, source))
            for file in self.attachments:
                output.add_attachment(file.name, file.mime, file.data)
            output.set_chapters(chapters)
            output.start_encoding()
            for index in range(self.frames):
                samples = np.full((self.size[1] * 3 // 2, self.size[0]), 4 * index % 256, np.uint8)
                picture = av.VideoFrame.from_ndarray(samples, "yuv420p")
                picture.pts = index + round(self.rate * self.video_start)
                picture.time_base = Fraction(1, self.rate)
                packets += video.encode(picture)
            packets += video.encode(None)
            for sound, stream in zip(self.sounds, sounds, strict=True):
                wave = clicks(self.frames / self.rate, sound.channels)
                pcm = av.AudioFrame.from_ndarray(wave, "fltp", stream.codec_context.layout.name)
                pcm.sample_rate, pcm.pts, pcm.time_base = RATE, round(sound.start * RATE), Fraction(1, RATE)
                packets += stream.encode(pcm) + stream.encode(None)
            for words, source in texts:
                for packet in source.demux():
                    if packet.size:
                        packet.stream = words
                        packets.append(packet)
            output.mux(in_decoding_order(packets))
        return path


def clicks(seconds: float, channels: int) -> np.ndarray:
    """(channels, samples): 5 ms of 1 kHz at the start of every tenth of a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = np.where(time % 0.1 < 0.005, np.sin(2 * np.pi * 1000 * time), 0)
    return np.repeat(wave[None].astype(np.float32) / 2, channels, 0)


@dataclass
class Contents:
    """Everything in a media file except video."""

    kinds: list[str]
    hashes: list[list[str]]
    times: list[list[float]]
    """In seconds, relative to the first frame."""
    tags: list[dict[str, str]]
    codecs: list[str]
    first_frame: float
    file_tags: dict[str, str]
    chapters: list[tuple[float, float, str]]
    attachments: dict[str, bytes]


def contents(path: Path) -> Contents:
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type in ("audio", "subtitle")]
        attached = {str(s.name): s.data for s in container.streams if isinstance(s, AttachmentStream)}
        found = Contents(
            [s.type for s in streams],
            [[] for _ in streams],
            [[] for _ in streams],
            [dict(s.metadata) for s in streams],
            [s.codec_context.codec.canonical_name for s in streams],
            0.0,
            dict(container.metadata),
            [
                (float(c["start"] * base), float(c["end"] * base), c["metadata"]["title"])
                for c in container.chapters()
                if (base := c["time_base"]) is not None
            ],
            attached,
        )
        numbers = {s.index: i for i, s in enumerate(streams)}
        first = []
        for packet in container.demux():
            if packet.size and packet.stream.index in numbers:
                number = numbers[packet.stream.index]
                found.hashes[number].append(sha256(bytes(packet)).hexdigest())
                found.times[number].append(float(shown_at(packet)))
            elif packet.size and packet.stream.type == "video":
                if av.stream.Disposition.attached_pic in packet.stream.disposition:
                    attached[packet.stream.metadata.get("filename", "cover")] = bytes(packet)
                elif not packet.is_discard:
                    first.append(float(shown_at(packet)))
        found.first_frame = min(first)
        found.times = [[time - found.first_frame for time in times] for times in found.times]
        return found


def run(*arguments: object, color: bool = False) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], color=color)


@pytest.fixture
def there(base_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """Encodes a file and returns the .vdf. Asserts success."""

    def encode_file(source: Path, *options: object) -> Path:
        vdf = tmp_path / f"{source.stem}.vdf"
        result = run("encode", source, vdf, "--weights", base_weights, "--workers", 1, "--force", *options)
        assert result.exit_code == 0, result.output
        return vdf

    return encode_file


@pytest.fixture
def back(base_weights: Path, tmp_path: Path) -> Callable[..., tuple[Contents, str]]:
    """Decodes a .vdf and returns the content of the result, and the notes."""

    def decode_file(vdf: Path, suffix: str, *options: object) -> tuple[Contents, str]:
        out = tmp_path / f"back{suffix}"
        result = run("decode", vdf, out, "--weights", base_weights, "--workers", 1, "--force", *options)
        assert result.exit_code == 0, result.output
        return contents(out), result.stderr

    return decode_file


def close(a: list[float], b: list[float], within: float) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= within for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [
        (".mp4", ["aac", "ac3"]),
        (".mkv", ["libopus", "flac"]),
        (".mov", ["aac", "pcm_s16le"]),
        (".mkv", ["aac", "tta"]),
    ],
)
def test_sound_is_copied_packet_for_packet(
    tmp_path: Path, there: Any, back: Any, suffix: str, codecs: list[str]
) -> None:
    """Two tracks: the same bytes, the same times to a tick of the format, the same names."""
    sounds = [Sound(codecs[0], "eng", "Main"), Sound(codecs[1], "deu", "Kommentar", channels=1)]
    source = Source(sounds).write(tmp_path / f"a{suffix}")
    before = contents(source)
    vdf = there(source)
    for target in (".mkv", ".mp4"):
        after, said = back(vdf, target)
        if target == ".mp4" and "tta" in codecs:
            assert "Note: .mp4 cannot hold these; they are left out: audio tta (deu)" in said
            before = Contents(**{**vars(before), "hashes": before.hashes[:1], "times": before.times[:1]})
        else:
            assert said.count("Note") == 0
        assert after.hashes == before.hashes
        assert all(close(a, b, 0.0011) for a, b in zip(after.times, before.times, strict=True))
        for tags, first, sound in zip(after.tags, before.tags, sounds, strict=False):
            assert tags.get("language", "und") == first.get("language", "und")
            assert tags.get("title", tags.get("name")) == sound.title


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("video_start", "sound_start"), [(0.4, 0.0), (0.0, 0.6), (2.0, 2.2)])
def test_starts_apart_stay_apart(
    tmp_path: Path, there: Any, back: Any, suffix: str, video_start: float, sound_start: float
) -> None:
    """Edit lists, late tracks, and the time offset of broadcasts."""
    codec = "libmp3lame" if suffix == ".mkv" else "aac"
    source = Source([Sound(codec, start=sound_start)], video_start=video_start)
    before = contents(source.write(tmp_path / f"a{suffix}"))
    assert before.times[0][0] == pytest.approx(sound_start - video_start, abs=0.06), "the source is as meant"
    vdf = there(tmp_path / f"a{suffix}")
    for target in (".mkv", ".mp4"):
        after, _ = back(vdf, target)
        assert close(after.times[0], before.times[0], 0.0016)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "display", [Display(content_light=(1000, 400)), Display(field_order="top first")], ids=str
)
def test_sound_beside_pictures_that_need_more_said(tmp_path: Path, display: Display, suffix: str) -> None:
    source, written = Source([Sound()], frames=5, rate=25).write(tmp_path / "a.mkv"), tmp_path / f"b{suffix}"
    info = VideoInfo(32, 32, bit_depth=10 if display.content_light else 8, display=display)
    with TrackReader(source) as reader:
        interleaver = Interleaver(reader.extras, reader)
        with VideoWriter(written, info, others=interleaver) as writer:
            for picture in moving_picture(32, 32, 5, info.bit_depth):
                writer.write(picture)
    with VideoReader(written) as again:
        assert again.info.display == display
        assert len(list(again)) == 5
    kept = [packet.data for packet in iter(partial(TrackReader(written).take, None), None)]
    assert kept == [packet.data for packet in iter(partial(TrackReader(source).take, None), None)]


def test_two_tracks_of_a_broadcast(tmp_path: Path, there: Any, back: Any) -> None:
    """Packets lose the broadcast's headers (ADTS, 7 bytes), as in every other format."""
    source = Source([Sound(language="eng"), Sound(language="fra", channels=1)]).write(tmp_path / "a.ts")
    with av.open(str(source)) as container:
        tracks = container.streams.audio
        raw = [[sha256(bytes(p)[7:]).hexdigest() for p in container.demux(t) if p.size] for t in tracks[:1]]
        container.seek(0)
    after, _ = back(there(source), ".mkv")
    assert after.hashes[0] == raw[0]
    assert [tags["language"] for tags in after.tags] == ["eng", "fra"]
    assert close(after.times[1], contents(source).times[1], 0.0011)


def test_times_that_cannot_be_moved_stay() -> None:
    """Times near the end of 64 bits, in a part that starts again after one that ends there."""
    continuity, latest = Continuity(TS_DISCONT), (1 << 63) - 1
    stream = SimpleNamespace(index=0, type="video")
    found = []
    for time in (latest, 0, latest, -latest, latest):
        packet = SimpleNamespace(pts=time, dts=time, time_base=Fraction(1, 90000), duration=1, stream=stream)
        continuity.apply(packet)  # type: ignore[arg-type]
        found.append(packet.pts)
    assert continuity.moved
    assert all(abs(time) <= latest for time in found)


@pytest.mark.parametrize("form", [".ts", ".mpg"])
def test_broadcasts_that_are_joined_stay_in_sync(tmp_path: Path, there: Any, back: Any, form: str) -> None:
    """Each part begins at the same time, like consecutive recordings in one file."""
    parts = [Source([Sound("mp2")], frames=frames).write(tmp_path / f"{frames}{form}") for frames in (20, 10)]
    joined = tmp_path / f"a{form}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with VideoReader(joined) as reader, VideoReader(parts[0]) as alone:
        times = [frame.pts * reader.info.time_base for frame in reader]
        first = [frame.pts * alone.info.time_base for frame in alone]
        assert times[:20] == first
        assert float(times[20] - times[19]) == pytest.approx(0.1, abs=0.05)
        assert [float(b - a) for a, b in pairwise(times[20:])] == pytest.approx([0.1] * 9)
        assert reader.notes == [
            "times start again within the source: each part continues after the one before"
        ]
    whole, second = contents(joined), contents(parts[1])
    vdf = there(joined)
    for suffix in (".mkv", ".mp4"):
        after, _ = back(vdf, suffix)
        assert after.hashes == whole.hashes
        assert after.times[0] == sorted(after.times[0])
        count = len(second.times[0])
        since = float(times[20] - times[0])
        assert close([time - since for time in after.times[0][-count:]], second.times[0], 0.0016)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_packets_of_one_time_are_written_in_their_order(tmp_path: Path, suffix: str) -> None:
    """.mp4 accepts no two packets at the same time, and its sound has coarser times than broadcasts."""
    source, written = Source([Sound("mp2")], frames=5).write(tmp_path / "a.ts"), tmp_path / f"b{suffix}"
    with VideoReader(source) as video, TrackReader(source) as reader:
        packets = list(iter(partial(reader.take, None), None))
        late = iter([replace(packet, pts=packets[0].pts) for packet in packets])

        class Late:
            def take(self, _: Fraction | None) -> TrackPacket | None:
                return next(late, None)

            def stop_waiting(self) -> None: ...

        with VideoWriter(written, video.info, others=Interleaver(reader.extras, Late())) as writer:
            for picture in video:
                writer.write(picture)
    assert len(packets) > 8
    kept = [packet.data for packet in iter(partial(TrackReader(written).take, None), None)]
    assert kept == [packet.data for packet in packets]


def test_what_an_edit_list_hides_stays_hidden(tmp_path: Path, there: Any, back: Any) -> None:
    """An .mp4 whose first 0.4 s are cut by its edit list, as phones and editors do."""
    raw = Source([Sound()]).write(tmp_path / "raw.mp4")
    cut = tmp_path / "cut.mp4"
    with av.open(str(raw)) as container, av.open(str(cut), "w") as output:
        streams = {s.index: output.add_stream_from_template(s, opaque=True) for s in container.streams}
        for packet in container.demux():
            if packet.size:
                assert packet.pts is not None
                assert packet.dts is not None
                shift = round(Fraction(2, 5) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    before = contents(cut)
    assert min(before.times[0]) < -0.3, "the hidden part is there"
    after, _ = back(there(cut), ".mp4")
    shown = [h for h, t in zip(before.hashes[0], before.times[0], strict=True) if t + FRAME > -0.1]
    assert after.hashes[0] == shown
    assert min(after.times[0]) >= -0.11 - FRAME


def test_the_first_packet_is_kept_where_each_is_long(tmp_path: Path) -> None:
    """AAC of 8 kHz: the packet before 0, which the first audible one needs, begins 0.128 s earlier."""
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        video, sound = output.add_stream("mpeg4", rate=25), output.add_stream("aac", rate=8000)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound.codec_context.layout = "mono"
        pcm = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.float32), "fltp", "mono")
        pcm.sample_rate, pcm.pts, pcm.time_base = 8000, 0, Fraction(1, 8000)
        output.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")) + video.encode(None))
        output.mux(sound.encode(pcm) + sound.encode(None))
    with TrackReader(tmp_path / "a.mp4") as reader:
        assert [p.pts for p in iter(partial(reader.take, None), None)] == [-1024, 0, 1024, 2048, 3072]


def test_subtitles(tmp_path: Path, there: Any, back: Any) -> None:
    source = Source([Sound("libopus")], [("ass", ASS), ("srt", SRT)]).write(tmp_path / "a.mkv")
    before = contents(source)
    vdf = there(source)
    after, said = back(vdf, ".mkv")
    assert "Note" not in said
    assert (after.kinds, after.hashes) == (before.kinds, before.hashes)
    assert [tags["language"] for tags in after.tags[1:]] == ["fra", "fra"]
    assert close(after.times[1], [0.1, 0.5], 0.001)
    after, said = back(vdf, ".mp4")
    assert after.hashes == before.hashes[:1]
    assert said.count("Note: .mp4 cannot hold these; they are left out: subtitle ") == 1
    assert "ass" in said or "ssa" in said
    assert "subrip (fra)" in said


def test_subtitles_of_mp4(tmp_path: Path, there: Any, back: Any) -> None:
    """mov_text: two bytes of length, then text. .mkv has no such kind."""
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as output:
        video, text = output.add_stream("mpeg4", rate=25), output.add_mux_stream("mov_text")
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        packets = []
        for index in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((48, 32), 4 * index % 256, np.uint8), "yuv420p")
            packets += video.encode(picture)
        packet = av.Packet(b"\0\5Hello")
        packet.pts = packet.dts = 120
        packet.duration, packet.time_base, packet.stream = 200, Fraction(1, 1000), text
        output.mux([*packets, packet, *video.encode(None)])
    before = contents(source)
    assert sha256(b"\0\5Hello").hexdigest() in before.hashes[0]
    vdf = there(source)
    after, said = back(vdf, ".mp4")
    shown = set(before.hashes[0]) - {sha256(b"\0\0").hexdigest()}
    assert set(after.hashes[0]) - {sha256(b"\0\0").hexdigest()} == shown
    assert 0.12 in [pytest.approx(time, abs=0.001) for time in after.times[0]]
    after, said = back(vdf, ".mkv")
    assert after.kinds == []
    assert "Note: .mkv cannot hold these; they are left out: subtitle mov_text" in said


def test_a_second_video_is_left_out(tmp_path: Path, there: Any, base_weights: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as output:
        videos = [output.add_stream("mpeg4", rate=25) for _ in range(2)]
        for video in videos:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.full((48, 32), 90, np.uint8), "yuv420p")
        output.mux([packet for video in videos for packet in video.encode(picture) + video.encode(None)])
    result = run("encode", source, "--weights", base_weights, "--workers", 1)
    assert "Note: took the first of 2 video streams" in result.stderr


def test_dispositions(tmp_path: Path, there: Any, back: Any, base_weights: Path) -> None:
    source = Source([Sound("libopus"), Sound("libopus", "deu")]).write(tmp_path / "a.mkv")
    marked = tmp_path / "marked.mkv"
    wanted = [av.stream.Disposition.default, av.stream.Disposition.hearing_impaired]
    with av.open(str(source)) as container, av.open(str(marked), "w") as output:
        streams = {s.index: output.add_stream_from_template(s, opaque=True) for s in container.streams}
        for stream, disposition in zip(output.streams.audio, wanted, strict=True):
            stream.disposition = disposition
        for packet in container.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    back(there(marked), ".mkv")
    with av.open(str(tmp_path / "back.mkv")) as container:
        assert container.streams.video[0].disposition == av.stream.Disposition.default
        assert [int(s.disposition) for s in container.streams.audio] == [int(d) for d in wanted]


def test_chapters_tags_and_attachments(tmp_path: Path, there: Any, back: Any) -> None:
    font = Attachment("font.ttf", "application/x-truetype-font", bytes(range(256)) * 40)
    source = Source(
        [Sound("libopus")],
        tags={"title": "Été", "creation_time": "2024-05-06T07:08:09.000000Z", "odd": "kept"},
        chapters=[(0, 400, "First"), (400, 1000, "Second")],
        attachments=[font, cover()],
    ).write(tmp_path / "a.mkv")
    vdf = there(source)
    after, said = back(vdf, ".mkv")
    assert "Note" not in said
    assert after.chapters == [(0.0, 0.4, "First"), (0.4, 1.0, "Second")]
    lower = {name.lower(): value for name, value in after.file_tags.items()}
    assert (lower["title"], lower["odd"]) == ("Été", "kept")
    assert lower["creation_time"].startswith("2024-05-06T07:08:09")
    assert after.attachments == {"font.ttf": font.data, "cover.png": cover().data}
    after, said = back(vdf, ".mp4")
    assert [name for *_, name in after.chapters] == ["First", "Second"]
    assert after.file_tags["title"] == "Été"
    assert after.file_tags["creation_time"].startswith("2024-05-06T07:08:09")
    assert list(after.attachments.values()) == [cover().data]
    assert "left out: tag ODD, attachment font.ttf" in said


def test_chapters_of_mp4_are_no_track(tmp_path: Path, there: Any, back: Any) -> None:
    """In .mp4 they are also a text track, from which libav reads them."""
    source = Source([Sound()], chapters=[(0, 400, "First"), (400, 1000, "Second")]).write(tmp_path / "a.mp4")
    with av.open(str(source)) as container:
        assert [stream.type for stream in container.streams][2:] == ["data"], "the source is as meant"
    vdf = there(source)
    for suffix in (".mkv", ".mp4"):
        after, said = back(vdf, suffix)
        assert [name for *_, name in after.chapters] == ["First", "Second"]
        assert "Note" not in said


def test_attachments_too_large_for_a_chunk_are_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viddiff.media.track_reader.ATTACHMENT_BYTES", 1000)
    files = [Attachment(f"{size}.ttf", "font/ttf", bytes(size)) for size in (1000, 1001)]
    source = Source([Sound("libopus")], attachments=files).write(tmp_path / "a.mkv")
    with TrackReader(source, "copy") as reader:
        assert [file.name for file in reader.extras.attachments] == ["1000.ttf"]
        assert reader.notes == ["left the attachment 1001.ttf out"]


def cover() -> Attachment:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, "rgb24", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(np.arange(768, dtype=np.uint8).reshape(16, 16, 3), "rgb24")
    return Attachment(
        "cover.png", "image/png", b"".join(map(bytes, encoder.encode(picture) + encoder.encode()))
    )


def test_mp4_has_a_place_for_tags_however_they_are_spelt(tmp_path: Path) -> None:
    extras = Extras({"ARTIST": "Me", "location": "+48", "RIPPER": "Me"})
    with av.open(io.BytesIO(), "w", format="mp4") as output:
        with TrackReader(Source().write(tmp_path / "a.mkv")) as nothing:
            writer = TrackWriter(Interleaver(extras, nothing), "mp4")
        writer.add_to(output, output.add_stream("mpeg4", rate=25))
        assert writer.notes == [".mp4 cannot hold these; they are left out: tag RIPPER"]


def test_sound_that_mp4_refuses_only_when_it_is_written(
    tmp_path: Path, there: Any, base_weights: Path
) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video, sound = output.add_stream("mpeg4", rate=25), output.add_stream("pcm_s24le", rate=RATE)
        video.width, video.height, sound.codec_context.layout = 32, 32, "5.1"
        pcm = av.AudioFrame.from_ndarray(np.zeros((1, 6 * 1024), np.int32), "s32", "5.1")
        pcm.sample_rate, pcm.pts = RATE, 0
        output.mux(sound.encode(pcm) + video.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(sound.encode(None) + video.encode(None))
    result = run("decode", there(tmp_path / "a.mkv"), tmp_path / "b.mp4", "--weights", base_weights)
    assert result.exit_code == 0
    assert ".mp4 cannot hold these; they are left out: audio pcm_s24le" in result.stderr


def test_y4m_says_what_it_leaves_out(tmp_path: Path, there: Any, base_weights: Path) -> None:
    vdf = there(Source([Sound()], tags={"title": "x"}).write(tmp_path / "a.mp4"))
    result = run("decode", vdf, tmp_path / "a.y4m", "--weights", base_weights)
    assert result.exit_code == 0
    assert "Note: .y4m cannot hold these; they are left out: audio aac (eng)" in result.stderr


def test_parts_keep_their_sound(tmp_path: Path, there: Any, back: Any) -> None:
    """Cut while encoding or decoding: the span of the frames, whole packets, in sync."""
    source = Source([Sound("libopus")], [("srt", SRT)], chapters=[(0, 300, "A"), (300, 1000, "B")])
    source.write(tmp_path / "a.mkv")
    before = contents(tmp_path / "a.mkv")
    cut = ("--start", 4, "--frames", 4)
    at_encoding, _ = back(there(tmp_path / "a.mkv", *cut), ".mkv")
    at_decoding, _ = back(there(tmp_path / "a.mkv"), ".mkv", *cut)
    for after in (at_encoding, at_decoding):
        # 0.4 to 0.8 s; packets of 20 ms; the words from 0.5 s on
        kept = [
            (h, t - 0.4) for h, t in zip(before.hashes[0], before.times[0], strict=True) if 0.38 < t < 0.8
        ]
        assert after.hashes[0] == [h for h, _ in kept]
        assert close(after.times[0], [t for _, t in kept], 0.0011)
        assert after.hashes[1] == before.hashes[1][1:]
        assert close(after.times[1], [0.1], 0.0011)
        assert [name for *_, name in after.chapters] == ["B"]
    early, _ = back(there(tmp_path / "a.mkv", "--start", 2, "--frames", 2), ".mkv")
    assert close(early.times[1], [0.0], 0.0011), (
        "a text that has begun before is shown from the first frame on"
    )


@pytest.mark.parametrize(("kbps", "channels"), [("24k", 1), ("128", 2)])
def test_opus(tmp_path: Path, there: Any, back: Any, kbps: str, channels: int) -> None:
    """Clicks stay in place, also in a track that begins late."""
    source = Source([Sound("flac", start=0.2, channels=channels)], frames=2 * FPS).write(tmp_path / "a.mkv")
    after, _ = back(there(source, "--audio", f"opus:{kbps}"), ".mkv")
    assert after.codecs == ["opus"]
    assert after.tags[0]["language"] == "eng"
    wave, start = decoded(tmp_path / "back.mkv")
    assert start == pytest.approx(0.2, abs=0.01)
    expected = clicks(1.8, 1)[0]
    wave = wave[max(round((0.2 - start) * RATE), 0) :][: len(expected)]
    expected = expected[: len(wave)]
    assert len(wave) > 1.7 * RATE
    lags = range(-480, 481, 8)
    best = max(lags, key=lambda lag: float(np.dot(np.roll(wave, lag)[1000:-1000], expected[1000:-1000])))
    assert abs(best) < 0.005 * RATE


def decoded(path: Path) -> tuple[np.ndarray, float]:
    """The first channel of the first sound track, and its start."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        wave = np.concatenate([f.to_ndarray() for f in frames], 1)
        step = 1 if frames[0].format.is_planar else frames[0].layout.nb_channels
        assert frames[0].time is not None
        return wave[0, ::step], frames[0].time


def test_opus_fills_gaps_with_silence(tmp_path: Path, there: Any, back: Any) -> None:
    source = Source([Sound("flac")], frames=2 * FPS).write(tmp_path / "a.mkv")
    holed = tmp_path / "holed.mkv"
    with av.open(str(source)) as container, av.open(str(holed), "w") as output:
        streams = {s.index: output.add_stream_from_template(s, opaque=True) for s in container.streams}
        for packet in container.demux():
            sound = packet.stream.type == "audio"
            if packet.size and not (sound and 0.5 < shown_at(packet) < 1.0):
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    back(there(holed, "--audio", "opus:96k"), ".mkv")
    wave, start = decoded(tmp_path / "back.mkv")
    assert len(wave) / RATE == pytest.approx(2.0, abs=0.1), "nothing moved together"
    begin = round((0.65 - start) * RATE)
    assert np.abs(wave[begin : begin + RATE // 4]).max() < 0.01


def test_no_sound_if_so_wanted(tmp_path: Path, there: Any, back: Any) -> None:
    source = Source([Sound("libopus")], [("srt", SRT)]).write(tmp_path / "a.mkv")
    after, _ = back(there(source, "--audio", "none"), ".mkv")
    assert after.kinds == ["subtitle"]


@pytest.mark.parametrize("value", ["opus", "opus:5k", "opus:511k", "opus:64kb", "mp3", ""])
def test_unknown_ways_with_sound(value: str) -> None:
    result = run("encode", "a.mp4", "--audio", value)
    assert result.exit_code == 2
    assert "opus:6k to opus:510k" in result.stderr


def test_a_video_alone_is_coded_as_before(tmp_path: Path, there: Any, codec: Codec) -> None:
    """No chunk is added if there is nothing to carry."""
    source = Source().write(tmp_path / "a.mp4")
    with open(there(source), "rb") as file:
        kinds: list[int] = []
        assert list(Reader(file, others=lambda kind, _: kinds.append(kind)))
    assert kinds == []


def test_any_number_of_processes_gives_the_same_file(tmp_path: Path, there: Any) -> None:
    source = Source([Sound(), Sound(start=0.3)], chapters=[(0, 500, "A")]).write(tmp_path / "a.mp4")
    one = there(source, "--gop", 4).read_bytes()
    assert there(source, "--gop", 4, "--workers", 2).read_bytes() == one
    assert there(source, "--gop", 4).read_bytes() == one, "nothing in it is random"


def test_info(tmp_path: Path, there: Any) -> None:
    source = Source(
        [Sound("libopus")],
        [("srt", SRT)],
        tags={"title": "T"},
        chapters=[(0, 400, "First")],
        attachments=[cover()],
    )
    vdf = there(source.write(tmp_path / "a.mkv"))
    values = json.loads(run("info", vdf, "--json").stdout)
    sound, text = values["streams"]
    assert (sound["kind"], sound["codec"], sound["language"]) == ("audio", "opus", "eng")
    assert (sound["channels"], sound["layout"], sound["sample_rate"]) == (2, "stereo", RATE)
    hashes = contents(tmp_path / "a.mkv").hashes
    assert (sound["packets"], text["packets"]) == (len(hashes[0]), 2)
    assert sound["seconds"] == pytest.approx(1.0, abs=0.03)
    assert (text["kind"], text["codec"], text["start"]) == ("subtitle", "subrip", 0.1)
    assert values["chapters"] == [{"start": 0.0, "end": 0.4, "title": "First"}]
    assert values["attachments"] == [{"name": "cover.png", "mime": "image/png", "bytes": len(cover().data)}]
    assert values["tags"]["title"] == "T"
    table = run("info", vdf).stdout
    assert all(word in table for word in ("opus", "stereo", "subrip", "fra", "First", "cover.png"))


def test_a_subtitle_that_would_last_does_not_hide_that_the_rest_is_gone(tmp_path: Path) -> None:
    lasting = SRT.replace(b"00:00:00,300", b"00:00:01,900")
    whole = Source(subtitles=[("srt", lasting)], frames=2 * FPS).write(tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: len(whole) * 6 // 10])
    with VideoReader(tmp_path / "b.mkv") as reader:
        assert len(list(reader)) < 16
        assert any("cut off" in note for note in reader.notes)


def test_a_subtitle_that_lasts_longer_than_all_else_is_not_missed(tmp_path: Path) -> None:
    lasting = SRT.replace(b"00:00:00,900", b"00:00:04,900")
    source = Source([Sound()], [("srt", lasting)]).write(tmp_path / "a.mkv")
    with VideoReader(source) as reader:
        assert len(list(reader)) == FPS
        assert reader.notes == []


def test_a_file_that_is_cut_off_keeps_what_came_before(tmp_path: Path, there: Any) -> None:
    source = Source([Sound()], frames=2 * FPS).write(tmp_path / "a.mp4")
    data = there(source, "--gop", 4).read_bytes()
    whole = list(TrackFile(io.BytesIO(data)).packets())
    faults: list[BitstreamError] = []
    part = TrackFile(io.BytesIO(data[: len(data) // 2]), faults.append)
    packets = list(part.packets())
    assert packets == whole[: len(packets)]
    assert 10 < len(packets) < len(whole)
    assert len(faults) == 1


# --- the format and what may be wrong with it --------------------------------------------------------

TRACK_A = Track(
    "audio", "aac", Fraction(1, 48000), "matroska", b"file", {"language": "eng"}, 1, {"channels": 2}
)


def test_chunks_there_and_back() -> None:
    assert unpack_track(pack_track(TRACK_A)) == TRACK_A
    packets = [TrackPacket(i % 2, 1024 * i - 5, 1024 * (i != 4), i % 3 == 0, bytes(i)) for i in range(9)]
    packets += [TrackPacket(0, p, 960, True, b"x") for p in (9000, 9960, 10920)]
    assert list(unpack_packets(pack_packets(packets), [TRACK_A, TRACK_A])) == packets
    assert len(pack_packets(packets[-3:])) < 3 * 5 + 5, "regular packets take four bytes each"
    extras = Extras({"a": "ü"}, [Chapter(-3, 5, Fraction(1, 90), {"title": "x"})], {"b": "c"}, 2)
    extras.attachments = [Attachment("f", "m", b"data")]
    again = ExtrasReader()
    for payload in pack_meta(extras):
        again.take_meta(payload)
    assert again.extras == extras
    assert list(pack_meta(Extras())) == []


def wrong_json(**changes: object) -> bytes:
    values = {
        "kind": "audio", "codec": "aac", "time_base": [1, 48000], "format": "matroska",
        "tags": {}, "disposition": 0, "details": {},
    }  # fmt: skip
    text = json.dumps(values | changes).encode()
    return pack_varint(len(text)) + text + b"file"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05{}",
        b"\x02[]",
        b"\x02{}",
        pack_varint(60000) + b"[" * 60000,
        wrong_json(kind="video"),
        wrong_json(format="hls"),
        wrong_json(time_base=[0, 1]),
        wrong_json(time_base=[1, 1 << 31]),
        wrong_json(time_base=[1.0, 2]),
        wrong_json(tags={"a": 1}),
        wrong_json(tags={"a": "b\0c"}),
        wrong_json(tags=[]),
        wrong_json(disposition=-1),
        wrong_json(disposition="1"),
        wrong_json(details={"a": []}),
        wrong_json(codec=None),
    ],
)
def test_tracks_that_lie(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        unpack_track(payload)


@pytest.mark.parametrize(
    "values",
    [
        {"name": 1, "mime": ""},
        {"tags": {}, "chapters": [1], "video": {}},
        {"tags": {}, "chapters": [[0, 1, 1, 0, {}]], "video": {"tags": {}, "disposition": 0}},
        {"tags": {}, "chapters": [[5, 1, 1, 1, {}]], "video": {"tags": {}, "disposition": 0}},
        {"tags": {}, "chapters": [[0, 1 << 80, 1, 1, {}]], "video": {"tags": {}, "disposition": 0}},
        {"tags": {}, "chapters": [], "video": {"tags": {}}},
        {"tags": {"title": "half \ud83d"}, "chapters": [], "video": {"tags": {}, "disposition": 0}},
        {"name": "\udc80.ttf", "mime": ""},
    ],
)
def test_meta_that_lies(values: dict[str, Any]) -> None:
    text = json.dumps(values).encode()
    with pytest.raises(BitstreamError):
        ExtrasReader().take_meta(pack_varint(len(text)) + text)


def test_json_is_bounded_before_it_is_read() -> None:
    bomb = b"[" + b"[]," * (MAX_JSON // 3) + b"[]]"
    tracemalloc.start()
    with pytest.raises(LimitError):
        ExtrasReader().take_meta(pack_varint(len(bomb)) + bomb)
    assert tracemalloc.get_traced_memory()[1] < 3 * len(bomb)
    tracemalloc.stop()
    with pytest.raises(LimitError):
        list(pack_meta(Extras(tags={"title": "x" * MAX_JSON})))


def test_meta_is_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    (payload,) = pack_meta(Extras(attachments=[Attachment("a", "", bytes(1000))]))
    monkeypatch.setattr("viddiff.container.track_chunks.MAX_META", 5 * len(payload))
    reader = ExtrasReader()
    for _ in range(5):
        reader.take_meta(payload)
    with pytest.raises(LimitError):
        reader.take_meta(payload)
    assert len(reader.extras.attachments) == 5


def test_a_tag_that_is_no_text_for_people_is_left_out(tmp_path: Path, there: Any) -> None:
    tags = {"title": "T", "dump": "x" * (TAG_LETTERS + 1)}
    source = Source([Sound("libopus")], tags=tags).write(tmp_path / "a.mkv")
    with TrackReader(source) as reader:
        assert "dump" not in {name.lower() for name in reader.extras.tags}
        assert reader.extras.tags["title"] == "T"
        assert [note.lower() for note in reader.notes] == [
            "left the tag dump out, which is longer than 65536"
        ]
    assert json.loads(run("info", there(source), "--json").stdout)["tags"]["title"] == "T"


def test_text_of_a_file_does_not_command_the_terminal(
    tmp_path: Path, weights: Path, small_file: bytes
) -> None:
    """Titles, names and languages are printed as plain text: no escape sequences, on one line."""
    evil = "\x1b]0;owned\x07\x9b2J\u202e\r\nError: x"
    extras = Extras({evil: evil}, [], {"title": evil}, 0, [Attachment(evil, evil, b"x")])
    track = Track("audio", evil, Fraction(1, 48), "mp4", b"", {"language": evil}, 0, {"layout": evil})
    chunks = [*((META, payload) for payload in pack_meta(extras)), (TRACK, pack_track(track))]
    vdf = tmp_path / "a.vdf"
    vdf.write_bytes(with_chunks(small_file, *chunks))
    shown = [run("info", vdf, color=True)]
    shown += [
        run("decode", vdf, tmp_path / f"a.{e}", "--weights", weights, color=True) for e in ("mp4", "y4m")
    ]
    for result in shown:
        assert result.exit_code == 0, result.output
        assert "owned" in result.output, "it is there as text"
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.output)
        assert not any(line.startswith("Error") for line in result.output.splitlines())


@pytest.mark.parametrize(
    "payload",
    [
        b"\x04\x00\x00\x00",  # a second track
        b"\x02\x00",  # regular, but nothing came before
        b"\x00\x00\x00\x05abc",
        b"\x00\x00\x00" + pack_varint((1 << 64) - 1),
        b"\x00" + pack_varint((1 << 64) - 1) + b"\x00\x00",
        b"\x00\x00" + pack_varint(1 << 63) + b"\x00",
        b"\x80",
    ],
)
def test_packets_that_lie(payload: bytes) -> None:
    with pytest.raises(BitstreamError):
        unpack_packets(payload, [TRACK_A])


def with_chunks(data: bytes, *chunks: tuple[int, bytes]) -> bytes:
    """The .vdf with these chunks before its first frame, without INDEX."""
    reader = Reader(io.BytesIO(data))
    out = io.BytesIO()
    writer = Writer(out, reader.header)
    for kind, payload in chunks:
        writer.attach(kind, payload)
    for chunk in reader:
        writer.write(chunk)
    writer.finish()
    return out.getvalue()


def genuine(tmp_path: Path) -> Track:
    """A track that libav can read."""
    from viddiff.media.track_reader import TrackReader

    with TrackReader(Source([Sound()]).write(tmp_path / "genuine.mp4")) as reader:
        return reader.extras.tracks[0]


def test_lies_end_in_frames_or_one_error(tmp_path: Path, codec: Codec, base_weights: Path) -> None:
    """Frames decode whatever the other chunks hold. The command gives a file or one error."""
    track, plain = genuine(tmp_path), coded(codec, moving_picture(16, 16, 2))[0]
    rng = np.random.default_rng(3)
    broken = [bytearray(track.description) for _ in range(12)]
    for data in broken:
        for at in rng.integers(0, len(data), 8):
            data[at] = rng.integers(256)
    times = [0, 5, 5, -(1 << 45), 1 << 45, 3]
    odd = pack_packets([TrackPacket(0, t, 1 << 40, False, b"\xff" * 30) for t in times])
    cases = [
        [(TRACK, pack_track(Track(**vars(track) | {"description": bytes(data)}))), (PACKETS, odd)]
        for data in broken
    ]
    cases += [
        [(TRACK, pack_track(track)), (PACKETS, odd)],
        [(TRACK, pack_track(track))] * 65,
        [(TRACK, pack_track(TRACK_A)), (PACKETS, odd)],
        [(PACKETS, odd)],
        [(META, b"\xff")],
        [(TRACK, b"")],
    ]
    for number, chunks in enumerate(cases):
        changed = with_chunks(plain, *chunks)
        assert len(list(decode(io.BytesIO(changed), codec))) == 2
        vdf, out = tmp_path / "a.vdf", tmp_path / f"{number}.mkv"
        vdf.write_bytes(changed)
        result = run("decode", vdf, out, "--weights", base_weights, "--workers", 1)
        assert result.exit_code in (0, 1), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert out.exists() == (result.exit_code == 0)
        if result.exit_code:
            assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1
