"""`--map` and `--audio-lang`: the tracks that are named, and no others."""

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from test_tracks import SRT, Sound, Source, back, contents, run

import viddiff
from viddiff.media.track_reader import TrackReader
from viddiff.media.track_selection import TrackSelection
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.tracks import Attachment

__all__ = ["back"]  # a fixture


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sounds, two subtitles and a font."""
    sounds = [
        Sound("libopus"),
        Sound("flac", "ger", channels=1),
        Sound("libopus", "und", channels=1),
    ]
    font = Attachment("a.ttf", "font/ttf", b"font")
    source = Source(sounds, [("srt", SRT), ("srt", SRT)], attachments=[font], chapters=[(0, 500, "One")])
    return source.write(tmp_path_factory.mktemp("film") / "film.mkv")


@dataclass
class Kept:
    """What is read of a source."""

    kinds: list[str]
    hashes: list[list[str]]
    attachments: int
    chapters: int


def kept(path: Path, maps: list[str], languages: str = "") -> Kept:
    chosen = TrackSelection(maps, languages.split(",") if languages else ())
    with TrackReader(path, selection=chosen) as reader:
        extras = reader.extras
        found = Kept(
            [track.kind for track in extras.tracks],
            [[] for _ in extras.tracks],
            len(extras.attachments),
            len(extras.chapters),
        )
        for packet in iter(lambda: reader.take(None), None):
            found.hashes[packet.track].append(sha256(packet.data).hexdigest())
    return found


@pytest.mark.parametrize(
    ("maps", "sounds", "subtitles", "attachments"),
    [
        ([], [0, 1, 2], 2, 1),
        (["v"], [], 0, 0),
        (["v", "a"], [0, 1, 2], 0, 0),
        (["0:v:0", "0:a:1"], [1], 0, 0),
        (["a:2", "v", "a", "s:1"], [2, 0, 1], 1, 0),
        (["0", "-a:0", "-t"], [1, 2], 2, 0),
        (["v?", "d?", "a:9?", "t"], [], 0, 1),
    ],
)
def test_tracks_that_are_named(
    film: Path, maps: list[str], sounds: list[int], subtitles: int, attachments: int
) -> None:
    before, after = contents(film), kept(film, maps)
    assert after.hashes[: len(sounds)] == [before.hashes[number] for number in sounds]
    assert after.kinds == ["audio"] * len(sounds) + ["subtitle"] * subtitles
    assert (after.attachments, after.chapters) == (attachments, 1)


@pytest.mark.parametrize(
    ("maps", "languages", "sounds"),
    [
        ([], "eng", [0]),
        ([], "DEU,fra", [1]),
        ([], "und,ger", [1, 2]),
        (["v", "a:0", "a:1"], "deu,und", [1]),
    ],
)
def test_sound_of_languages(film: Path, maps: list[str], languages: str, sounds: list[int]) -> None:
    after = kept(film, maps, languages)
    assert after.hashes[: len(sounds)] == [contents(film).hashes[number] for number in sounds]
    assert after.kinds.count("audio") == len(sounds)
    assert after.kinds.count("subtitle") == (0 if maps else 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--audio-lang", "fra,ita"], "no sound in fra or ita; the sound there is: eng, ger, und"),
        (["--map", "v", "--map", "s", "--audio-lang", "eng"], "the sound there is: none at all"),
        (
            ["--map", "v", "--map", "a:3"],
            "no track a:3; it has v:0 (mpeg4), a:0 (opus, eng), a:1 (flac, ger),",
        ),
        (["--map", "v:1"], "no track v:1; it has v:0 (mpeg4), a:0 (opus, eng)"),
        (["--map", "v:1", "--max-encoded-percent", "100"], "no track v:1; it has v:0"),
        (["--map", "0", "--map", "d"], "s:1 (subrip, fra), t:0 (an attachment)"),
    ],
)
def test_tracks_that_are_not_there(film: Path, base_weights: Path, options: list[str], words: str) -> None:
    out = film.with_name("missing.vdf")
    result = run("encode", film, out, "--weights", base_weights, "--workers", 1, *options)
    assert result.exit_code == 1
    assert words in result.stderr
    assert not out.exists()


def test_a_language_that_is_missing_is_said(
    film: Path, base_weights: Path, tmp_path: Path, back: Any
) -> None:
    target, options = (
        tmp_path / "out.vdf",
        ["--weights", base_weights, "--workers", 1, "--audio-lang", "ger,fre,und"],
    )
    result = run("encode", film, target, *options)
    assert result.exit_code == 0, result.output
    assert "Note: the source has no sound in fre; the sound there is: eng, ger, und" in result.stderr
    after, _ = back(target, ".mkv")
    assert after.hashes[:2] == contents(film).hashes[1:3]
    for languages in (["deu", "eng"], ["ger", "DEU"], []):
        with TrackReader(film, selection=TrackSelection(languages=languages)) as reader:
            assert reader.notes == []


def test_a_sound_with_a_language_for_each_channel(tmp_path: Path) -> None:
    source = Source([Sound("mp2", "eng,deu"), Sound("mp2", "fra")]).write(tmp_path / "a.ts")
    assert [tags["language"] for tags in contents(source).tags] == ["eng,deu", "fra"]
    for language in ("eng", "ger"):
        assert kept(source, [], language).hashes == contents(source).hashes[:1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--map", "a:0"], "a .vdf needs a video: add --map v"),
        (["--map", "-s"], "a .vdf needs a video: add --map v"),
        (["--map", "0", "--map", "-v"], "--map cannot leave it out"),
        (["--map", "v", "--map", "-0"], "would leave nothing"),
        (["--map", "v:0", "--map", "v:1"], "a .vdf holds one video"),
        (["--map", "x"], "--map 'x' is not understood"),
        (["--map", "1:v"], "is not understood"),
        (["--map", "a:-1"], "is not understood"),
        (["--map", "0:0"], "is not understood"),
        (["--map", ""], "is not understood"),
        (["--audio-lang", "eng,"], "--audio-lang '' is no language"),
        (["--audio-lang", "d\u00e9u"], "is no language"),
        (["--audio", "none", "--audio-lang", "eng"], "--audio none leaves all sound out"),
    ],
)
def test_wrong_use(tmp_path: Path, options: list[str], words: str) -> None:
    result = run("encode", tmp_path, tmp_path / "out", *options)
    assert result.exit_code == 2
    assert words in result.stderr.replace("\n", " ")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of different sizes."""
    path = tmp_path_factory.mktemp("views") / "views.mkv"
    with av.open(str(path), "w") as output:
        videos = [output.add_stream("mpeg4", rate=25) for _ in range(2)]
        for video, width in zip(videos, (32, 48), strict=True):
            video.width, video.height, video.pix_fmt = width, 32, "yuv420p"
        for video in videos:
            grey = av.VideoFrame.from_ndarray(np.full((48, video.width), 90, np.uint8), "yuv420p")
            output.mux(video.encode(grey) + video.encode(None))
    return path


def test_the_video_that_is_named(views: Path, base_weights: Path) -> None:
    for maps, width in ((["v:1"], 48), (["0", "v:0"], 32)):
        result = viddiff.encode(views, maps=maps, weights=base_weights, workers=1, force=True)
        assert (result.width, result.notes) == (width, ())
    with VideoReader(views, video=1) as reader, reader.open_again() as again:
        assert reader.info.width == again.info.width == 48


def test_batch_takes_the_same_tracks(film: Path, tmp_path: Path, base_weights: Path, back: Any) -> None:
    chosen = ["--map", "v", "--map", "a", "--audio-lang", "deu"]
    result = run(
        "batch", film, tmp_path / "out", "--min-age", "0s", "--workers", 1, "--weights", base_weights, *chosen
    )
    assert result.exit_code == 0, result.output
    (written,) = (tmp_path / "out").rglob("*.vdf")
    after, _ = back(written, ".mkv")
    assert after.hashes == [contents(film).hashes[1]]


def test_a_search_for_a_quality_takes_the_same_tracks(film: Path, base_weights: Path, tmp_path: Path) -> None:
    """Its samples are encoded without sound."""
    target = tmp_path / "small.vdf"
    options = ["--map", "v", "--map", "a", "--audio-lang", "deu", "--max-encoded-percent", "1000"]
    result = run("encode", film, target, "--weights", base_weights, "--workers", 1, *options)
    assert result.exit_code == 0, result.output
    (row,) = (line for line in run("info", target).output.splitlines() if "audio" in line)
    assert "flac" in row


def test_another_choice_does_not_resume(film: Path) -> None:
    job = EncodeJob(source=film)
    others = [replace(job, maps=("v",)), replace(job, audio_lang=("deu",))]
    assert all(job.fingerprint() != other.fingerprint() for other in others)
