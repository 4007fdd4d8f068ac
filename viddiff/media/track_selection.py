"""Which tracks of a source are taken: a subset of ffmpeg's `-map`, and languages of sound.

v  v:1  a  a:0  s  d  t  0    kinds of tracks, or the nth of a kind from 0; 0 is everything
0:a                           ffmpeg's number of the input, of which there is one
-s                            without these, of those named before
s?                            no error if there are none
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from av.stream import AttachmentStream, Discard, Stream

from viddiff.errors import VideoError
from viddiff.media.codec_parameters import codec_name
from viddiff.media.demuxer import Demuxer, is_cover

_MAP = re.compile(r"(?P<minus>-?)(?:0:)?(?:(?P<kind>[vasdt])(?::(?P<number>\d{1,4}))?|(?<!:)0)(?P<may>\??)")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}")
_KINDS = {"video": "v", "audio": "a", "subtitle": "s", "data": "d", "attachment": "t"}
_UNSTATED = "und"
_TERMINOLOGICAL = {
    "alb": "sqi", "arm": "hye", "baq": "eus", "bur": "mya", "chi": "zho", "cze": "ces", "dut": "nld",
    "fre": "fra", "geo": "kat", "ger": "deu", "gre": "ell", "ice": "isl", "mac": "mkd", "mao": "mri",
    "may": "msa", "per": "fas", "rum": "ron", "slo": "slk", "tib": "bod", "wel": "cym",
}  # fmt: skip
"""Languages to which ISO 639-2 gives two codes: .mkv stores the first, .mp4 the second."""


@dataclass(frozen=True)
class _Map:
    """One value of `--map`."""

    text: str
    adds: bool
    kind: str | None
    """One letter. None: all."""
    number: int | None
    """Of a track within its kind. None: all."""
    may_miss: bool

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Raises ValueError."""
        found = _MAP.fullmatch(text)
        if found is None:
            raise ValueError(
                f"--map {text!r} is not understood: use v, a, s, d, t or 0, or one of them as in a:0"
            )
        number = found["number"]
        return cls(
            text,
            not found["minus"],
            found["kind"],
            None if number is None else int(number),
            bool(found["may"]),
        )

    def of(self, streams: list[Stream]) -> list[Stream]:
        """Those of all `streams` that are meant."""
        kept = [stream for stream in streams if self.kind in (None, _kind(stream))]
        return kept if self.number is None else kept[self.number : self.number + 1]


class TrackSelection:
    """Which tracks are taken. Without maps and languages, all are."""

    def __init__(self, maps: Sequence[str] = (), languages: Sequence[str] = ()) -> None:
        """Raises ValueError unless maps and languages are understood, and maps name one video.

        languages: of sound, as codes of ISO 639 ("eng"); "und" is sound that states none.
        """
        self._maps = [_Map.parsed(text) for text in maps]
        for language in languages:
            if not _LANGUAGE.fullmatch(language):
                raise ValueError(
                    f"--audio-lang {language!r} is no language: use codes of three letters, as in eng,deu"
                )
        self._languages = {_plain(language): language for language in languages}  # as the user wrote them
        videos = [each for each in self._maps if each.kind == "v"]
        if any(not each.adds for each in videos):
            raise ValueError("a .vdf needs a video: --map cannot leave it out")
        if self._maps and not videos and all(each.kind for each in self._maps if each.adds):
            raise ValueError("a .vdf needs a video: add --map v")
        if any(each.kind is None and not each.adds for each in self._maps):
            raise ValueError("--map -0 would leave nothing: leave it out")
        if len({each.number for each in videos if each.number is not None}) > 1:
            raise ValueError("a .vdf holds one video: name one with --map")

    @cached_property
    def video(self) -> int | None:
        """Number of the video that is named, from 0. None: viddiff chooses."""
        numbers = [each.number for each in self._maps if each.kind == "v" and each.number is not None]
        return numbers[0] if numbers else None

    def of(self, demuxer: Demuxer) -> tuple[list[Stream], list[str]]:
        """Streams beside the video that are taken, with attachments and covers, and notes for the user.

        The streams have their new order. Raises VideoError if the source has not what is named.
        """
        streams = _streams(demuxer)
        taken = [] if self._maps else streams
        for each in self._maps:
            meant = each.of(streams)
            if not meant and each.adds and not each.may_miss:
                raise VideoError(f"{demuxer.name} has no track {each.text}; it has {_listed(streams)}")
            others = [stream for stream in taken if stream not in meant]
            taken = others if not each.adds else taken + [s for s in meant if s not in taken]
        beside = [stream for stream in taken if _kind(stream) != "v"]
        return self._of_languages(beside, demuxer) if self._languages else (beside, [])

    def _of_languages(self, streams: list[Stream], demuxer: Demuxer) -> tuple[list[Stream], list[str]]:
        sounds = [stream for stream in streams if _kind(stream) == "a"]
        there = set[str]().union(*map(_codes, sounds))
        missing = [written for code, written in self._languages.items() if code not in there]
        taken = [s for s in streams if _kind(s) != "a" or not self._languages.keys().isdisjoint(_codes(s))]
        if not missing:
            return taken, []
        known = ", ".join(dict.fromkeys(map(_language, sounds))) or "none at all"
        lacks = f"no sound in {' or '.join(missing)}; the sound there is: {known}"
        if len(missing) == len(self._languages):
            raise VideoError(f"{demuxer.name} has {lacks}")
        return taken, [f"the source has {lacks}"]


def video_missing(demuxer: Demuxer, number: int) -> VideoError:
    """The error that a source has no such video."""
    return VideoError(f"{demuxer.name} has no track v:{number}; it has {_listed(_streams(demuxer))}")


def _streams(demuxer: Demuxer) -> list[Stream]:
    """All streams that can be named, in stored order."""
    # an .mp4 has its chapters as a track, too, of which libav gives no packets
    return [
        stream
        for stream in demuxer.container.streams
        if (kind := _kind(stream)) == "t" or (kind and stream.discard != Discard.all)
    ]


def _kind(stream: Stream) -> str:
    """The letter of a stream's kind. Empty if viddiff never takes it."""
    if is_cover(stream) or isinstance(stream, AttachmentStream):
        return "t"
    return _KINDS.get(stream.type, "")


def _language(stream: Stream) -> str:
    return stream.metadata.get("language") or _UNSTATED


def _codes(sound: Stream) -> list[str]:
    """The languages of a sound: a track of a broadcast may have one for each channel."""
    return [_plain(code) for code in _language(sound).split(",")]


def _plain(language: str) -> str:
    """One of the codes that mean the same language."""
    return _TERMINOLOGICAL.get(language.lower(), language.lower())


def _listed(streams: list[Stream]) -> str:
    """The tracks, for people."""
    counts, words = dict.fromkeys(_KINDS.values(), 0), list[str]()
    for stream in streams:
        kind = _kind(stream)
        what = "a cover" if is_cover(stream) else "an attachment" if kind == "t" else codec_name(stream)
        language = f", {_language(stream)}" if kind in "as" else ""
        words.append(f"{kind}:{counts[kind]} ({what or 'unknown'}{language})")
        counts[kind] += 1
    return ", ".join(words)
