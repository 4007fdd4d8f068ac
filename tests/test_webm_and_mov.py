"""`decode` to .webm and .mov: what they hold arrives, and what they do not hold is said."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from browser import Page, find_browser
from test_colour import HDR, MIRRORED
from test_tracks import RATE, SRT, Sound, Source, back, close, contents, run
from test_video import clip, write

import viddiff
from viddiff.display import Display
from viddiff.frame import VideoInfo
from viddiff.media.authorship import written_by_viddiff
from viddiff.media.sound_recoder import SoundRecoder
from viddiff.media.track_reader import TrackReader
from viddiff.media.video_reader import VideoReader
from viddiff.tracks import Attachment

__all__ = ["back"]  # a fixture

TIMES = [0, 1, 2, 7, 8]
"""A variable rate."""
TAGS = {"title": "Sea", "artist": "Ann", "genre": "Drama", "location": "+01.0+002.0/", "mood": "calm"}


@pytest.mark.parametrize(
    ("suffix", "codec", "depth"), [(".webm", "av1", 8), (".webm", "av1", 10), (".mov", "h264", 10)]
)
def test_pictures_and_times(tmp_path: Path, suffix: str, codec: str, depth: int) -> None:
    info = VideoInfo(64, 48, depth, primaries=9, transfer=16, matrix=9)
    frames, path = clip(info, TIMES), tmp_path / f"a{suffix}"
    assert write(path, info, frames) == []
    with av.open(str(path)) as file:
        assert file.streams.video[0].codec_context.codec.canonical_name == codec
    with VideoReader(path) as reader:
        found, read = reader.info, list(reader)
    for name in ("bit_depth", "primaries", "transfer", "matrix", "full_range"):
        assert getattr(found, name) == getattr(info, name), name
    assert [frame.pts * found.time_base for frame in read] == [Fraction(time, 25) for time in TIMES]
    for before, after in zip(frames, read, strict=True):
        error = before.y.astype(float) - after.y
        assert np.sqrt(np.mean(error**2)) < 4 << depth - 8


@pytest.mark.parametrize("suffix", [".webm", ".mov"])
@pytest.mark.parametrize(
    "info",
    [
        VideoInfo(64, 48, rotation=90),
        VideoInfo(64, 48, display=Display(matrix=MIRRORED)),
        VideoInfo(64, 48, full_range=True, primaries=1, transfer=1, matrix=1, chroma_location=3),
        VideoInfo(64, 48, 10, primaries=9, transfer=16, matrix=9, display=HDR),
        VideoInfo(64, 48, 10, display=Display(content_light=(800, 200))),
    ],
    ids=str,
)
def test_colour_and_display(tmp_path: Path, suffix: str, info: VideoInfo) -> None:
    path = tmp_path / f"a{suffix}"
    assert write(path, info, clip(info, range(2))) == []
    with VideoReader(path) as reader:
        found = reader.info
    assert found.display == info.display
    for name in ("rotation", "full_range", "primaries", "transfer", "matrix"):
        assert getattr(found, name) == getattr(info, name), name
    assert found.chroma_location in (info.chroma_location, info.chroma_location or 1)


def test_webm_keeps_odd_sizes_and_says_what_it_loses(tmp_path: Path) -> None:
    fields, aspect = Display(field_order="top first"), Fraction(16, 11)
    info = VideoInfo(33, 35, chroma_location=5, sample_aspect_ratio=aspect, display=fields)
    notes = write(tmp_path / "a.webm", info, clip(info, range(2)))
    lost = "the aspect ratio of samples (16:11), chroma at bottomleft, the order of fields"
    assert notes == [f".webm cannot hold {lost}"]
    with VideoReader(tmp_path / "a.webm") as reader:
        assert (reader.info.width, reader.info.height) == (33, 35)


def test_mov_keeps_fields_and_makes_sizes_even(tmp_path: Path) -> None:
    fields, aspect = Display(field_order="bottom first"), Fraction(16, 11)
    info = VideoInfo(33, 35, sample_aspect_ratio=aspect, display=fields)
    notes = write(tmp_path / "a.mov", info, clip(info, range(2)))
    assert notes == ["H.264 needs even sizes: the last column or row is repeated"]
    with VideoReader(tmp_path / "a.mov") as reader:
        assert (reader.info.width, reader.info.display) == (34, fields)
        assert reader.info.sample_aspect_ratio == aspect


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, base_weights: Path) -> tuple[Path, Path]:
    """A source with sound of three codecs and all else, and its .vdf."""
    sounds = [Sound("aac"), Sound("libopus", "deu"), Sound("ac3", "fra", channels=1, start=0.2)]
    source = Source(
        sounds,
        [("srt", SRT)],
        tags=TAGS,
        chapters=[(0, 500, "One")],
        attachments=[Attachment("a.ttf", "font/ttf", b"font")],
        frames=8,
    ).write(tmp_path_factory.mktemp("film") / "film.mkv")
    vdf = source.with_suffix(".vdf")
    assert run("encode", source, vdf, "--weights", base_weights, "--workers", 1).exit_code == 0
    return source, vdf


def clicks_at(path: Path, number: int) -> list[float]:
    """When a sound track clicks, in seconds."""
    resampler, begin = av.AudioResampler("flt", "mono", RATE), 0.0
    pieces: list[np.ndarray] = []
    with av.open(str(path)) as file:
        for frame in _sound(file, number):
            begin = begin if pieces else float((frame.pts or 0) * (frame.time_base or 0))
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    loud = np.flatnonzero(np.abs(np.concatenate(pieces)) > 0.1)
    return [begin + at / RATE for at in loud[np.diff(loud, prepend=-RATE) > RATE // 20]]


def _sound(file: Any, number: int) -> Iterator[av.AudioFrame]:
    yield from file.decode(file.streams.audio[number])


def test_webm_has_opus_in_place_of_other_sound(film: tuple[Path, Path], tmp_path: Path, back: Any) -> None:
    source, vdf = film
    before, (after, said) = contents(source), back(vdf, ".webm")
    assert after.codecs == ["opus"] * 3
    assert after.hashes[1] == before.hashes[1], "Opus is copied"
    assert [tags["language"] for tags in after.tags] == ["eng", "deu", "fra"]
    assert [tags["title"] for tags in after.tags] == ["Main"] * 3
    assert {name: after.file_tags.get(name.upper(), after.file_tags.get(name)) for name in TAGS} == TAGS
    assert after.chapters == before.chapters
    for codec in ("aac (eng)", "ac3 (fra)"):
        assert f"Note: .webm cannot hold audio {codec}: it is encoded as Opus" in said
    assert ".webm cannot hold these; they are left out: subtitle subrip (fra), attachment a.ttf" in said
    for number in (0, 2):
        was, now = (clicks_at(path, number) for path in (source, tmp_path / "back.webm"))
        assert close(was, now, 0.003), "in sync"
        assert len(was) >= 6


def test_a_browser_plays_webm(film: tuple[Path, Path], tmp_path: Path, back: Any) -> None:
    """It plays to the end with sound, and seeks."""
    find_browser()
    after, _ = back(film[1], ".webm")
    page = tmp_path / "page.html"
    page.write_text('<video src="back.webm" muted></video>')
    seen = "document.querySelector('video')"
    with Page(page.as_uri(), tmp_path / "profile") as browser:
        browser.wait(f"{seen}.readyState >= 2")
        with av.open(str(tmp_path / "back.webm")) as file:
            stream, duration = file.streams.video[0], (file.duration or 0) / av.time_base
            assert browser.run(f"[{seen}.videoWidth, {seen}.videoHeight]") == [stream.width, stream.height]
        assert abs(browser.run(f"{seen}.duration") - duration) < 0.05
        browser.run(f"{seen}.play()")
        browser.wait(f"{seen}.ended")
        assert browser.run(f"{seen}.webkitAudioDecodedByteCount") > 0
        browser.run(f"{seen}.currentTime = {duration / 2}")
        browser.wait(f"!{seen}.seeking && Math.abs({seen}.currentTime - {duration / 2}) < 0.05")
        assert browser.run(f"{seen}.error") is None
    assert after.codecs == ["opus"] * 3


def test_mov_has_the_same_packets(film: tuple[Path, Path], back: Any) -> None:
    source, vdf = film
    before, (after, said) = contents(source), back(vdf, ".mov")
    assert after.hashes == [before.hashes[0], before.hashes[2]]
    for was, now in zip((before.times[0], before.times[2]), after.times, strict=True):
        assert close(was, now, 0.001)
    assert {name: after.file_tags.get(name) for name in TAGS} == TAGS | {"mood": None}
    assert after.chapters == before.chapters
    lost = ("tag MOOD", "audio opus (deu)", "subtitle subrip (fra)", "attachment a.ttf")
    assert all(name in said for name in lost)


def test_a_part_with_sound_as_webm(film: tuple[Path, Path], tmp_path: Path, back: Any) -> None:
    """The first packet of AAC needs the one before it to be heard."""
    source, vdf = film
    after, _ = back(vdf, ".webm", "--start", 4, "--frames", 3)
    was = [time - 0.4 for time in clicks_at(source, 0) if 0.45 < time < 0.65]
    now = [time - after.first_frame for time in clicks_at(tmp_path / "back.webm", 0)]
    assert close(was, [time for time in now if 0.05 < time < 0.25], 0.003)


@pytest.mark.parametrize("form", ["webm", "mov"])
def test_what_goes_through_a_pipe(
    film: tuple[Path, Path], tmp_path: Path, base_weights: Path, form: str
) -> None:
    with open(tmp_path / "out", "wb") as out:
        viddiff.decode(film[1], out, form=form, weights=base_weights, workers=1)
    with av.open(str(tmp_path / "out")) as file:
        assert file.format.name.startswith("matroska,webm" if form == "webm" else "mov,")
        assert sum(1 for _ in file.decode(video=0)) == 8


def test_own_files_are_replaced_and_others_are_not(
    film: tuple[Path, Path], tmp_path: Path, base_weights: Path
) -> None:
    for suffix in (".webm", ".mov"):
        out, few = tmp_path / f"a{suffix}", ["--weights", base_weights, "--workers", 1, "--frames", 1]
        assert run("decode", film[1], out, *few).exit_code == 0
        assert written_by_viddiff(out)
        out.write_bytes(b"mine")
        assert run("decode", film[1], out, *few, "--force").exit_code == 1
        assert out.read_bytes() == b"mine"


def test_neither_is_lossless(film: tuple[Path, Path], tmp_path: Path, base_weights: Path) -> None:
    options = ["--weights", base_weights, "--workers", 1, "--lossless"]
    result = run("decode", film[1], tmp_path / "a.webm", *options)
    assert result.exit_code == 1
    assert "cannot be lossless as .webm; .mkv and .y4m can" in result.stderr
    assert run("decode", film[1], "-", "--format", "mov", "--lossless").exit_code == 2


def test_an_empty_packet_does_not_end_the_sound(tmp_path: Path) -> None:
    with TrackReader(Source([Sound("flac")], frames=8).write(tmp_path / "a.mkv")) as reader:
        packets = list(iter(lambda: reader.take(None), None))
        (track,) = reader.extras.tracks
    whole, holed = SoundRecoder(track), SoundRecoder(track)
    empty = replace(packets[1], data=b"")
    expected = [new for packet in packets for new in whole.feed(packet)]
    found = [new for packet in (packets[0], empty, *packets[1:]) for new in holed.feed(packet)]
    assert len(found) > 10
    assert found == expected
