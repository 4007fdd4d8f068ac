"""Cut and join: whole GOPs as they were, with everything beside them, packet for packet."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import coded, fixed_camera, moving_picture, same
from test_tracks import SRT, Sound, Source, contents

from viddiff.cli import main
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.codec.weights import Codec
from viddiff.container.excerpt import Source as FileOfGops
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk
from viddiff.container.interleaving_writer import InterleavingWriter
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, key_of, sealed, wants
from viddiff.container.track_file import TrackFile
from viddiff.display import Display
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.interleave import Interleaver
from viddiff.pipeline.cut_file import CutJob, CutResult, cut_file
from viddiff.pipeline.join_files import JoinJob, join_files
from viddiff.pipeline.serial import decode
from viddiff.tracks import Attachment, Chapter, Extras, Track, TrackPacket

VIDEO = VideoInfo(64, 48, time_base=Fraction(1, 90000), frame_rate=Fraction(30000, 1001))
HEADER = Header(VIDEO, bytes(range(32)), "none", gop=8, base=True)
OPUS = Track("audio", "opus", Fraction(1, 48000), "matroska", b"opus", {"language": "eng"})
AAC = Track("audio", "aac", Fraction(1, 44100), "mp4", b"aac")
TEXT = Track("subtitle", "subrip", Fraction(1, 1000), "matroska", b"text")
KEY = Secret(bytes(range(32)), passphrase=False)


@dataclass
class Movie:
    """A `.vdf` whose pictures are made up: a variable rate, three tracks, chapters."""

    gops: tuple[int, ...] = (5, 8, 1, 8, 3, 6)
    """Number of frames of each GOP."""
    start: int = 0
    """Time of the first frame, in 1/90000 s."""
    last: int = 7000
    """Duration of the last frame; 0 for an unknown one."""
    header: Header = HEADER
    tracks: tuple[Track, ...] = (OPUS, AAC, TEXT)
    texts: tuple[tuple[float, float], ...] = ((0.05, 0.3), (0.3, 1.9), (1.95, 2.05))
    """Start and end of each subtitle, in seconds."""
    chapters: tuple[tuple[float, float], ...] = ((0, 0.7), (0.7, 2.5))
    extra: Extras = field(default_factory=lambda: Extras({"title": "T"}, [], {"place": "here"}, 1))
    picture_bytes: int = 30

    def chunks(self) -> Iterator[Chunk]:
        number, pts = 0, self.start
        for gop, frames in enumerate(self.gops):
            times = []
            for _ in range(frames):
                times.append(pts)
                pts += 3003 + 977 * (number % 3) * (number % 4)
                number += 1
            final = gop == len(self.gops) - 1
            background = (b"", b"one" * 9, b"two" * 8)[gop % 3] if self.header.base else b""
            picture = b"%d " % gop * (self.picture_bytes // 3)
            lasts = self.last if final else 0
            yield KeyChunk(times[0], picture + b"key", 0 if frames > 1 else lasts, background=background)
            for at in range(1, frames, 3):
                part = tuple(times[at : at + 3])
                ends = at + 3 >= frames
                yield PredictedChunk(part, picture + b"%d" % at, lasts if ends else 0)

    def packets(self) -> list[TrackPacket]:
        """In the order of their times. The sound begins before the first frame and ends after the last."""
        zero = Fraction(self.start, 90000)
        found = []
        steps = {"opus": (960, -480), "aac": (1024, -1024)}
        for track, info in enumerate(self.tracks):
            base = info.time_base
            if info.kind == "subtitle":
                for number, (begin, end) in enumerate(self.texts):
                    times = round((zero + Fraction(begin)) / base), round((zero + Fraction(end)) / base)
                    found.append(TrackPacket(track, times[0], times[1] - times[0], True, b"text %d" % number))
                continue
            step, pts = steps[info.codec]
            pts += round(zero / base)
            while (pts * base) < zero + Fraction(5, 2):
                found.append(TrackPacket(track, pts, step, True, b"%s %d" % (info.codec.encode(), pts)))
                pts += step
        return sorted(found, key=lambda packet: self.tracks[packet.track].seconds(packet.pts))

    @property
    def extras(self) -> Extras:
        chapters = [
            Chapter(
                self.start // 90 + round(1000 * a),
                self.start // 90 + round(1000 * b),
                Fraction(1, 1000),
                {"title": n},
            )
            for (a, b), n in zip(self.chapters, "AB", strict=False)
        ]
        return replace(self.extra, chapters=chapters, tracks=list(self.tracks))

    def data(self) -> bytes:
        out, packets = io.BytesIO(), iter(self.packets())

        class Packets:
            def take(self, _: Fraction | None) -> TrackPacket | None:
                return next(packets, None)

            def stop_waiting(self) -> None: ...

        writer = InterleavingWriter(out, self.header, Interleaver(self.extras, Packets()))
        for chunk in self.chunks():
            writer.write(chunk)
        writer.finish()
        return out.getvalue()

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data())
        return path


@dataclass
class Read:
    """What a `.vdf` holds."""

    header: Header
    chunks: list[Chunk]
    extras: Extras
    packets: list[TrackPacket]
    last: int

    @classmethod
    def of(cls, path: Path | bytes) -> "Read":
        data = path if isinstance(path, bytes) else path.read_bytes()
        reader = Reader(io.BytesIO(data))
        chunks = list(reader)
        tracks = TrackFile(io.BytesIO(data))
        reader.stored_index()
        return cls(reader.header, chunks, tracks.extras, list(tracks.packets()), reader.last_duration)

    @property
    def times(self) -> list[int]:
        return [t for c in self.chunks for t in ((c.pts,) if isinstance(c, KeyChunk) else c.pts)]

    @property
    def pictures(self) -> list[tuple[bytes, bytes | None]]:
        return [(c.payload, c.background if isinstance(c, KeyChunk) else None) for c in self.chunks]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def cut(source: Path, target: Path, **options: Any) -> CutResult:
    return cut_file(CutJob(source=source, target=target, force=True, **options))


def join(target: Path, *sources: Path, **options: Any) -> Path:
    join_files(JoinJob(sources=sources, target=target, force=True, **options))
    return target


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Movie(start=45000).write(tmp_path_factory.mktemp("movie") / "a.vdf")


STARTS = [0, 5, 13, 14, 22, 25, 31]
"""Number of the first frame of each GOP of `movie`, and of all frames."""


@pytest.mark.parametrize(("first", "end"), list(combinations(range(7), 2)))
def test_any_gops_are_cut_packet_for_packet(movie: Path, tmp_path: Path, first: int, end: int) -> None:
    whole = Read.of(movie)
    result = cut(movie, tmp_path / "b.vdf", start=STARTS[first], end=STARTS[end])
    part, times = Read.of(tmp_path / "b.vdf"), whole.times[STARTS[first] : STARTS[end]]
    assert (result.first_frame, result.frames, result.unasked) == (STARTS[first], len(times), 0)
    keys = [n for n, chunk in enumerate(whole.chunks) if isinstance(chunk, KeyChunk)] + [len(whole.chunks)]
    assert part.header == whole.header
    assert part.pictures == whole.pictures[keys[first] : keys[end]]
    moved = times[0] - part.times[0]
    assert [time + moved for time in part.times] == times
    assert 0 <= part.times[0] - 45000 < 900, "it begins at the time of the file, as near as the tracks allow"
    assert moved % 900 == 0, "1/100 s: whole units of all tracks"
    until = None if end == 6 else whole.times[STARTS[end]]
    assert part.last == (7000 if until is None else until - times[-1])
    expected = [kept for p in whole.packets if (kept := within(p, times[0] if first else None, until))]
    by = Fraction(moved, 90000)
    back = [replace(p, pts=p.pts + int(by / part.extras.tracks[p.track].time_base)) for p in part.packets]
    assert back == expected
    assert (part.extras.tags, part.extras.video_tags) == (whole.extras.tags, whole.extras.video_tags)
    assert part.extras.tracks == whole.extras.tracks


def within(packet: TrackPacket, since: int | None, until: int | None) -> TrackPacket | None:
    """What of a packet of `movie` lies in a part of it, from first principles."""
    base = (OPUS, AAC, TEXT)[packet.track].time_base
    start, end = packet.pts * base, (packet.pts + packet.duration) * base
    low = None if since is None else Fraction(since, 90000)
    high = None if until is None else Fraction(until, 90000)
    if (low is not None and end <= low) or (high is not None and start >= high):
        return None
    if packet.track != 2:
        return packet
    first = packet.pts if low is None or start >= low else int(low // base)
    last = packet.pts + packet.duration if high is None or end <= high else int(high // base)
    return replace(packet, pts=first, duration=max(last - first, 1))


@pytest.mark.parametrize(
    ("asked", "first", "frames"),
    [
        ({"start": 4}, 0, 31),
        ({"start": 6, "frames": 1}, 5, 8),
        ({"start": 12, "frames": 2}, 5, 9),
        ({"start": 12, "end": 13}, 5, 8),
        ({"end": 1}, 0, 5),
        ({"start": 30, "frames": 1000}, 25, 6),
        ({"start": 13, "end": 1000}, 13, 18),
        ({"end": Fraction(1, 1000)}, 0, 5),
        ({"start": Fraction(0), "end": 6}, 0, 13),
    ],
)
def test_the_part_holds_what_is_asked_for(
    movie: Path, tmp_path: Path, asked: dict[str, Any], first: int, frames: int
) -> None:
    result = cut(movie, tmp_path / "b.vdf", **asked)
    assert (result.first_frame, result.frames) == (first, frames)
    times = Read.of(movie).times
    assert result.start_s == pytest.approx((times[first] - times[0]) / 90000)


def test_times_select_frames_as_decode_does(movie: Path, tmp_path: Path) -> None:
    times = [Fraction(time - 45000, 90000) for time in Read.of(movie).times]
    last_of_first_gop = times[4]
    assert cut(movie, tmp_path / "b.vdf", start=last_of_first_gop).first_frame == 0
    after = last_of_first_gop + Fraction(1, 90000)
    assert cut(movie, tmp_path / "b.vdf", start=after).first_frame == 5
    assert cut(movie, tmp_path / "b.vdf", end=after).frames == 5
    assert cut(movie, tmp_path / "b.vdf", end=times[5]).frames == 5
    assert cut(movie, tmp_path / "b.vdf", end=times[5] + Fraction(1, 90000)).frames == 13


def test_the_whole_is_the_same_file(movie: Path, tmp_path: Path) -> None:
    cut(movie, tmp_path / "b.vdf")
    assert (tmp_path / "b.vdf").read_bytes() == movie.read_bytes()


def parts_of(source: Path, folder: Path, places: tuple[int, ...]) -> list[Path]:
    """`source` cut before each of these GOPs."""
    ends, parts = [STARTS[place] for place in (0, *places, 6)], []
    for number, (start, end) in enumerate(pairwise(ends)):
        parts.append(folder / f"{number}.vdf")
        cut(source, parts[-1], start=start, end=end)
    return parts


@pytest.mark.parametrize("places", [(1,), (3,), (5,), (2, 3), (1, 2, 3, 4, 5)])
def test_parts_join_to_what_they_were(movie: Path, tmp_path: Path, places: tuple[int, ...]) -> None:
    """To the byte: subtitles and chapters that were cut are whole again, and no packet is there twice."""
    joined = join(tmp_path / "b.vdf", *parts_of(movie, tmp_path, places))
    assert Read.of(joined) == Read.of(movie)
    assert joined.read_bytes() == movie.read_bytes()


def test_a_part_of_parts(movie: Path, tmp_path: Path) -> None:
    cut(movie, tmp_path / "middle.vdf", start=5, end=25)
    ends = (0, 8, 9, 17, 20)
    parts = [tmp_path / f"{end}.vdf" for end in ends[1:]]
    for part, start, end in zip(parts, ends, ends[1:], strict=False):
        cut(tmp_path / "middle.vdf", part, start=start, end=end)
    assert join(tmp_path / "b.vdf", *parts).read_bytes() == (tmp_path / "middle.vdf").read_bytes()


def test_chapters_and_attachments(movie: Path, tmp_path: Path) -> None:
    def chapters(path: Path) -> list[tuple[int, int, str]]:
        return [(c.start, c.end, c.tags["title"]) for c in Read.of(path).extras.chapters]

    assert chapters(movie) == [(500, 1200, "A"), (1200, 3000, "B")]
    extra = Extras(attachments=[Attachment("a.ttf", "font/ttf", b"font")])
    source = Movie(extra=extra, start=45000).write(tmp_path / "a.vdf")
    parts = parts_of(source, tmp_path, (2, 4))
    whole = Read.of(movie)
    edges = [Fraction(whole.times[STARTS[place]] - 45000, 90) for place in (2, 4)]
    found = [chapters(part) for part in parts]
    assert [[name for *_, name in part] for part in found] == [["A"], ["A", "B"], ["B"]]
    assert found[0][0][0] == 500
    assert found[0][0][1] == pytest.approx(500 + edges[0], abs=1)
    (_, ends, _), (begins, _, _) = found[1]
    assert ends == begins == pytest.approx(1200 - edges[0], abs=10)
    for part in parts:
        assert Read.of(part).extras.attachments == extra.attachments
    joined = Read.of(join(tmp_path / "b.vdf", *parts)).extras
    assert joined.attachments == extra.attachments, "once"
    assert chapters(tmp_path / "b.vdf") == chapters(movie)


def test_a_subtitle_that_began_long_before(tmp_path: Path) -> None:
    movie = Movie(gops=(8,) * 90, texts=((0.1, 200.0),), tracks=(TEXT,))
    source = movie.write(tmp_path / "a.vdf")
    cut(source, tmp_path / "b.vdf", start=704)
    (text,) = Read.of(tmp_path / "b.vdf").packets
    assert text.data == b"text 0"
    assert abs(text.pts * 90 - Read.of(tmp_path / "b.vdf").times[0]) <= 90


def test_times_before_zero(tmp_path: Path) -> None:
    source = Movie(start=-200_000).write(tmp_path / "a.vdf")
    parts = parts_of(source, tmp_path, (2, 5))
    assert join(tmp_path / "b.vdf", *parts).read_bytes() == source.read_bytes()


# --- join --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [7000, 0])
def test_a_file_follows_the_one_before(tmp_path: Path, last: int) -> None:
    """After the duration of the last frame, or the usual one. Sound neither overlaps nor gets out of sync."""
    one = Movie(last=last, start=1234).write(tmp_path / "1.vdf")
    short = Movie(gops=(3, 2), start=5_000_000, header=replace(HEADER, gop=20), chapters=())
    two = short.write(tmp_path / "2.vdf")
    joined, first, second = (Read.of(p) for p in (join(tmp_path / "b.vdf", one, two, one), one, two))
    by = joined.times[31] - second.times[0]
    assert joined.times[:31] == first.times
    assert joined.times[31] == first.times[-1] + (last or 3003)
    assert joined.times[31:36] == [time + by for time in second.times]
    assert joined.times[36] == joined.times[35] + 7000
    assert joined.header == replace(HEADER, gop=20), "the largest distance between keyframes"
    assert joined.last == last
    for track in (0, 1):
        step, base = (960, 1024)[track], joined.extras.tracks[track].time_base
        packets = [p for p in joined.packets if p.track == track]
        gaps = [b.pts - a.pts for a, b in pairwise(packets)]
        assert all(step // 2 <= gap <= 3 * step // 2 for gap in gaps)
        mine = {p.data: p.pts for p in second.packets if p.track == track}
        for packet in packets:
            if packet.data in mine:
                moved = (packet.pts - mine[packet.data]) * base
                assert abs(moved - Fraction(by, 90000)) <= base
    assert [c.tags["title"] for c in joined.extras.chapters] == ["A", "B", "A", "B"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Movie(header=replace(HEADER, video=replace(VIDEO, width=80))), "its size is 80x48, not 64x48"),
        (Movie(header=replace(HEADER, video=replace(VIDEO, bit_depth=10))), "its bit depth is 10, not 8"),
        (Movie(header=replace(HEADER, video=replace(VIDEO, matrix=9))), "its colour description is 2/2/9"),
        (Movie(header=replace(HEADER, video=replace(VIDEO, full_range=True))), "its range is full"),
        (Movie(header=replace(HEADER, video=replace(VIDEO, rotation=90))), "its rotation is 90, not 0"),
        (
            Movie(header=replace(HEADER, video=replace(VIDEO, display=Display(content_light=(1, 2))))),
            "HDR10 metadata",
        ),
        (
            Movie(header=replace(HEADER, video=replace(VIDEO, frame_rate=Fraction(25)))),
            "its frame rate is 25, not 30000/1001",
        ),
        (
            Movie(header=replace(HEADER, video=replace(VIDEO, time_base=Fraction(1, 45000)))),
            "its time base is 1/45000, not 1/90000",
        ),
        (Movie(header=replace(HEADER, model_hash=bytes(32))), "its hash of the weights is 0000000000000000"),
        (Movie(header=replace(HEADER, entropy="huffman")), "its entropy coder is huffman, not ans"),
        (Movie(header=replace(HEADER, base=False)), "its base is none, not av1"),
        (Movie(header=replace(HEADER, low_delay=True)), "its delay is low, not usual"),
        (Movie(tracks=(OPUS, AAC)), "it has 2 tracks beside the video, not 3"),
        (Movie(tracks=(AAC, OPUS, TEXT)), "the codec is aac, not opus in its track 1 (audio aac)"),
        (
            Movie(tracks=(OPUS, replace(AAC, details={"sample_rate": 22050}), TEXT)),
            "the sample rate is 22050, not None in its track 2",
        ),
        (Movie(tracks=(replace(OPUS, time_base=Fraction(1, 24000)), AAC, TEXT)), "time base is 1/24000"),
        (Movie(tracks=(replace(OPUS, description=b"?"), AAC, TEXT)), "description cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(movie: Path, tmp_path: Path, other: Movie, said: str) -> None:
    source = other.write(tmp_path / "other.vdf")
    result = run("join", movie, source, tmp_path / "b.vdf")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {source} does not fit {movie}: ")
    assert said in line
    assert not (tmp_path / "b.vdf").exists()


@pytest.mark.parametrize("sound", ["libopus", "flac"])
def test_recordings_of_one_device_fit(tmp_path: Path, base_weights: Path, sound: str) -> None:
    """What describes a track of FLAC says how long it is."""
    files = []
    for number, (frames, start) in enumerate([(8, 0.0), (12, 0.05)]):
        media = Source([Sound(sound, start=start)], frames=frames).write(tmp_path / f"{number}.mkv")
        files.append(tmp_path / f"{number}.vdf")
        assert run("encode", media, files[-1], "--weights", base_weights, "--workers", 1).exit_code == 0
    headers = [FileOfGops.read(path, ReadOptions()).extras.tracks[0].description for path in files]
    assert (headers[0] != headers[1]) == (sound == "flac"), "the files are as meant"
    assert run("join", *files, tmp_path / "b.vdf").exit_code == 0
    stereo = Source([Sound(sound, channels=1)]).write(tmp_path / "mono.mkv")
    assert (
        run("encode", stereo, tmp_path / "mono.vdf", "--weights", base_weights, "--workers", 1).exit_code == 0
    )
    result = run("join", files[0], tmp_path / "mono.vdf", tmp_path / "c.vdf")
    assert "the channels is 1, not 2 in its track 1" in result.stderr


# --- real files --------------------------------------------------------------------------------------


def test_sound_and_subtitles_of_a_part_are_those_of_decode(tmp_path: Path, base_weights: Path) -> None:
    """The part, decoded, is what `decode --start` makes of the whole: the same packets at the same times."""
    sounds = [Sound("libopus"), Sound("flac", "deu", channels=1)]
    source = Source(sounds, [("srt", SRT)], chapters=[(0, 500, "A"), (500, 2000, "B")], frames=20)
    source.write(tmp_path / "a.mkv")
    options = ("--weights", base_weights, "--workers", 1)
    assert run("encode", tmp_path / "a.mkv", "--gop", 4, *options).exit_code == 0
    assert run("cut", tmp_path / "a.vdf", tmp_path / "b.vdf", "--start", 4, "--frames", 7).exit_code == 0
    after = tmp_path / "part.mkv", tmp_path / "expected.mkv"
    assert run("decode", tmp_path / "b.vdf", after[0], *options).exit_code == 0
    extent = ("--start", 4, "--frames", 8)
    assert run("decode", tmp_path / "a.vdf", after[1], *extent, *options).exit_code == 0
    part, expected = (contents(path) for path in after)
    assert (part.kinds, part.codecs) == (expected.kinds, expected.codecs)
    assert [tags["language"] for tags in part.tags] == ["eng", "deu", "fra"]
    assert part.hashes == expected.hashes
    for mine, others in zip(part.times, expected.times, strict=True):
        assert mine == pytest.approx(others, abs=0.0011)
    assert part.first_frame == pytest.approx(0, abs=0.03)


@pytest.fixture(params=["av1", "none"])
def any_weights(request: pytest.FixtureRequest, enhancer: Enhancer, codec: Codec) -> Weights:
    return enhancer if request.param == "av1" else codec


def test_frames_stay_as_they_are(any_weights: Weights, tmp_path: Path) -> None:
    """Also where a GOP begins with a background that stands before the part."""
    places = [fixed_camera(96, 80, seed=seed) for seed in (1, 2)]
    video = [places[number // 20 % 2](number) for number in range(80)]
    if isinstance(any_weights, Codec):
        video = moving_picture(48, 32, 16)
    options = EncodeOptions(preset="fastest", gop=20 if len(video) == 80 else 4)
    data, shown, _ = coded(any_weights, video, options=options)
    source = tmp_path / "a.vdf"
    source.write_bytes(data)
    quarter = len(video) // 4
    parts = [tmp_path / f"{n}.vdf" for n in range(4)]
    for number, part in enumerate(parts):
        cut(source, part, start=number * quarter, frames=quarter)
        found = list(decode(io.BytesIO(part.read_bytes()), any_weights))
        assert same(at_zero(found), at_zero(shown[number * quarter : (number + 1) * quarter]))
    assert (b"BG" in parts[3].read_bytes()) == (len(video) == 80), "the background comes along"
    assert join(tmp_path / "b.vdf", *parts).read_bytes() == data
    cut(source, tmp_path / "c.vdf", start=2 * quarter)
    found = list(decode(io.BytesIO((tmp_path / "c.vdf").read_bytes()), any_weights))
    assert same(at_zero(found), at_zero(shown[2 * quarter :]))


def at_zero(frames: list[Frame]) -> list[Frame]:
    return [replace(frame, pts=frame.pts - frames[0].pts) for frame in frames]


# --- damage, encryption, memory, the commands --------------------------------------------------------


def test_damage_within_the_part_is_said(movie: Path, tmp_path: Path) -> None:
    """At every byte of a GOP, of what stands beside it, and of the end."""
    data = movie.read_bytes()
    entries = Reader(io.BytesIO(data)).index()
    source, target = tmp_path / "a.vdf", tmp_path / "b.vdf"
    for at in [*range(entries[3].offset, entries[4].offset, 7), len(data) - 3]:
        changed = bytearray(data)
        changed[at] ^= 0x20
        source.write_bytes(changed)
        with pytest.raises(BitstreamError, match=r"a\.vdf is damaged: "):
            cut(source, target, start=14 if at < entries[4].offset else 25, end=None)
        assert not target.exists()
        with pytest.raises(BitstreamError, match=r"a\.vdf is damaged: "):
            join_files(JoinJob(sources=(movie, source), target=target))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vdf"]


def test_damage_elsewhere_does_not_matter(tmp_path: Path) -> None:
    movie = Movie(gops=(8,) * 120, texts=((0.1, 0.2),))
    data = movie.data()
    entries = Reader(io.BytesIO(data)).index()
    cut(movie.write(tmp_path / "whole.vdf"), tmp_path / "expected.vdf", start=480, end=496)
    changed = bytearray(data)
    for place in (1, 2, 118):
        changed[entries[place].offset + 2] ^= 1
    (tmp_path / "a.vdf").write_bytes(changed)
    cut(tmp_path / "a.vdf", tmp_path / "b.vdf", start=480, end=496)
    assert (tmp_path / "b.vdf").read_bytes() == (tmp_path / "expected.vdf").read_bytes()
    with pytest.raises(BitstreamError, match="is damaged"):
        cut(tmp_path / "a.vdf", tmp_path / "b.vdf", start=4, end=20)


def test_a_file_without_its_index(movie: Path, tmp_path: Path) -> None:
    """As of a recording that was cut off: what is whole can be cut out."""
    data = movie.read_bytes()
    entries = Reader(io.BytesIO(data)).index()
    (tmp_path / "a.vdf").write_bytes(data[: entries[5].offset + 30])
    result = cut(tmp_path / "a.vdf", tmp_path / "b.vdf", start=5, end=14)
    assert (result.first_frame, result.frames) == (5, 9)
    with pytest.raises(BitstreamError, match="is damaged"):
        cut(tmp_path / "a.vdf", tmp_path / "b.vdf", start=22)


@pytest.mark.parametrize("data", [b"", b"\x89VDF\r\n\x1a\n", b"RIFF" * 20, Movie().data()[:150]])
def test_what_is_no_vdf(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.vdf").write_bytes(data)
    for command in (["cut"], ["join", tmp_path / "a.vdf"]):
        result = run(*command, tmp_path / "a.vdf", tmp_path / "b.vdf")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert ("a.vdf is not a .vdf file" in result.stderr) == (data[:4] != b"\x89VDF")
        assert not (tmp_path / "b.vdf").exists()


def test_encrypted(movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file, source, target = tmp_path / "key", tmp_path / "a.vdf", tmp_path / "b.vdf"
    key_file.write_bytes(KEY.data)
    with open(source, "wb") as file, sealed(file, KEY) as out:
        out.write(movie.read_bytes())
    cut(movie, tmp_path / "expected.vdf", start=13)
    expected = (tmp_path / "expected.vdf").read_bytes()
    assert "--key-file" in run("cut", source, target).stderr
    result = run("cut", source, target, "--start", 13, "--key-file", key_file)
    assert result.exit_code == 0
    assert "not encrypted, though the input is; --encrypt" in result.stderr
    assert target.read_bytes() == expected
    again = run("cut", source, target, "--start", 13, "--key-file", key_file, "--encrypt", "--force")
    assert again.exit_code == 0
    assert "not encrypted" not in again.stderr
    assert kind_of_secret(target) == "key file"
    with ReadOptions(key=key_of(target, KEY)).open(target) as part:
        assert part.read() == expected
    # one of two is encrypted
    cut(movie, tmp_path / "1.vdf", end=13)
    arguments = ("join", tmp_path / "1.vdf", target, tmp_path / "c.vdf")
    assert run(*arguments).exit_code == 1
    assert run(*arguments, "--key-file", key_file).exit_code == 0
    assert (tmp_path / "c.vdf").read_bytes() == movie.read_bytes()
    monkeypatch.setenv("VIDDIFF_PASSPHRASE", "grüne Wiese")
    assert run("cut", movie, tmp_path / "d.vdf", "--encrypt").exit_code == 0
    assert kind_of_secret(tmp_path / "d.vdf") == "passphrase"
    refused = run("cut", movie, tmp_path / "e.vdf", "--key-file", key_file)
    assert refused.exit_code == 1
    assert "no input is encrypted" in refused.stderr


def kind_of_secret(path: Path) -> str:
    with open(path, "rb") as file:
        return wants(file)


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    peaks = []
    for gops in (10, 80):
        movie = Movie(gops=(8,) * gops, picture_bytes=40_000)
        source = movie.write(tmp_path / "a.vdf")
        assert source.stat().st_size > gops * 100_000
        tracemalloc.start()
        cut(source, tmp_path / "b.vdf", start=9)
        join(tmp_path / "c.vdf", tmp_path / "b.vdf", tmp_path / "b.vdf")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000


def test_the_commands(movie: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.vdf"
    result = run("cut", movie, target, "--start", "00:00.500", "--end", "00:01.2")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    first, line = result.stderr.splitlines()
    assert first.startswith("Note: the part begins at 00:00.")
    assert "the keyframe before --start" in first
    assert line.startswith(f"{target}: ")
    assert "frames from 00:00." in line
    assert "exists; --force" in run("cut", movie, target).stderr
    assert run("cut", movie, target, "--quiet", "--force").output == ""
    values = json.loads(run("cut", movie, target, "--json", "-f", "-q", "--start", 13).stdout)
    times = [Fraction(t - 45000, 90000) for t in Read.of(movie).times]
    assert values == {
        "input": str(movie), "output": str(target), "first_frame": 13, "frames": 18, "keyframes": 4,
        "start": pytest.approx(float(times[13])), "end": pytest.approx(float(times[-1]) + 7000 / 90000),
        "bytes": target.stat().st_size,
    }  # fmt: skip
    joined = run("join", movie, target, tmp_path / "c.vdf", "--json")
    values = json.loads(joined.stdout)
    assert (values["inputs"], values["frames"], values["keyframes"]) == ([str(movie), str(target)], 49, 10)
    assert run("join", movie, target, tmp_path / "c.vdf", "-q").exit_code == 1
    assert run("join", movie, target, tmp_path / "c.vdf", "-q", "-f").output == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["cut", "a.vdf"], 2, "Missing argument"),
        (["cut", "a.vdf", "b.vdf", "--end", "5", "--frames", "5"], 2, "either --end or --frames"),
        (["cut", "a.vdf", "b.vdf", "--start", "5", "--end", "5"], 2, "not after --start"),
        (["cut", "a.vdf", "b.vdf", "--start", "00:02", "--end", "00:01"], 2, "not after --start"),
        (["cut", "a.vdf", "b.vdf", "--end", "soon"], 2, "use a frame number"),
        (["cut", "a.vdf", "b.vdf", "--key-file", "k", "--passphrase-file", "k"], 2, "give either"),
        (["cut", "a.vdf", "b.vdf", "--start", "31"], 1, "has no frame 31, for it has 31 frames"),
        (["cut", "a.vdf", "b.vdf", "--start", "00:50"], 1, "has no frame at 50 s"),
        (["cut", "a.vdf", "b.vdf", "--start", "20", "--end", "00:00.1"], 1, "from --start to before --end"),
        (["cut", "none.vdf", "b.vdf"], 1, "does not exist"),
        (["cut", "a.vdf", "a.vdf", "--force"], 1, "cannot be its own output"),
        (["cut", "a.vdf", "text", "--force"], 1, "it is not a .vdf file"),
        (["cut", "a.vdf", "-"], 2, "does not write to stdout"),
        (["join", "a.vdf", "a.vdf", "-"], 2, "does not write to stdout"),
        (["base", "a.vdf", "-"], 2, "does not write to stdout"),
        (["thumbnail", "a.vdf", "-"], 2, "does not write to stdout"),
        (["info", "a.vdf", "--plot", "-"], 2, "does not write to stdout"),
        (["join", "a.vdf"], 2, "two files or more"),
        (["join", "a.vdf", "b.vdf"], 2, "two files or more"),
        (["join", "a.vdf", "none.vdf", "b.vdf"], 1, "does not exist"),
        (["join", "a.vdf", "a.vdf", "a.vdf", "--force"], 1, "cannot be its own output"),
        (["join", "a.vdf", "a.vdf", "text", "--force"], 1, "it is not a .vdf file"),
    ],
)
def test_wrong_use(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.vdf").write_bytes(movie.read_bytes())
    (tmp_path / "text").write_text("precious")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.vdf", "text"]
    assert (tmp_path / "text").read_text() == "precious"


def test_a_job_that_contradicts_itself(movie: Path, tmp_path: Path) -> None:
    for wrong in ({"frames": 0}, {"encrypt": True}, {"end": 3, "frames": 3}):
        with pytest.raises(ValueError, match=r"frames|passphrase"):
            CutJob(source=movie, target=tmp_path / "b.vdf", **wrong)
    with pytest.raises(ValueError, match="passphrase"):
        JoinJob(sources=(movie, movie), target=tmp_path / "b.vdf", encrypt=True)


def test_times_that_cannot_be_moved(tmp_path: Path) -> None:
    far = Movie(start=90000 * ((1 << 31) - 8)).write(tmp_path / "a.vdf")
    with pytest.raises(ViddiffError, match="times reach too far"):
        join(tmp_path / "b.vdf", far, far, far, far, far)


def test_tracks_that_are_not_stored_in_the_order_of_their_times(tmp_path: Path) -> None:
    """As .mp4 and .ts store them: a subtitle may stand behind sound that begins after it."""

    class Bursts(Movie):
        def packets(self) -> list[TrackPacket]:
            time = {track: info.time_base for track, info in enumerate(self.tracks)}
            return sorted(super().packets(), key=lambda p: (int(p.pts * time[p.track] * 2), p.track))

    source = Bursts(start=45000, texts=((0.05, 0.3), (0.3, 1.9), (1.9, 2.4))).write(tmp_path / "a.vdf")
    whole = Read.of(source)
    for places in ((1,), (3,), (4,), (5,), (1, 2, 3, 4, 5)):
        joined = Read.of(join(tmp_path / "b.vdf", *parts_of(source, tmp_path, places)))
        assert joined.chunks == whole.chunks
        for track in range(3):
            of_track = [[p for p in read.packets if p.track == track] for read in (joined, whole)]
            assert of_track[0] == of_track[1]
