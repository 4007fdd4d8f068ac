"""A `.vdf` that is served: what is known of it before anything is decoded, and what happened since."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from viddiff.codec.enhancer import EngineName
from viddiff.codec.open_decoder import Weights
from viddiff.config import Limits, Start, start_text
from viddiff.container.excerpt import naming
from viddiff.container.format import Header
from viddiff.container.gop_table import Gop, frame_time, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, key_of, wants
from viddiff.container.track_file import TrackFile
from viddiff.errors import CheckpointError, ViddiffError
from viddiff.frame import VideoInfo
from viddiff.media.browser_pictures import BrowserPictures
from viddiff.media.orientation import UNTURNED, turn_of
from viddiff.media.segment_writer import TICKS, PictureSegment
from viddiff.media.sound_decoder import why_undecodable
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.gop_decoding import GopEnd
from viddiff.pipeline.job_values import check_engine, check_source
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.weights_search import WeightsName
from viddiff.serving.pace import Pace, Rendition
from viddiff.serving.timeline import Timeline, timeline_of
from viddiff.tracks import Track

_MOST_NOTES = 20
_BEGINNING = 1 << 16
"""Bytes by which a file is known again: two encodes differ in them, and a recording that grows keeps them."""
_DEFAULT = 1  # libav's AV_DISPOSITION_DEFAULT


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """How movies are read and shown. Raises ValueError if options exclude each other."""

    base_only: bool = False
    """Show the frames of an AV1 base as they are, without networks."""
    weights: WeightsName = None
    device: str = "auto"
    engine: EngineName | None = None
    limits: Limits = field(default_factory=Limits)
    secret: Secret | None = field(default=None, repr=False)
    """Secret of the files that are encrypted."""

    def __post_init__(self) -> None:
        check_engine(self.engine, self.device)
        if self.base_only and self.engine is not None:
            raise ValueError("--base-only runs no network: leave out --engine")

    def with_secret(self, secret: Secret | None) -> "PlayOptions":
        """The same with the secret of encrypted files."""
        return replace(self, secret=secret)

    def reading(self, path: Path) -> ReadOptions:
        """Options for reading a file. Raises SecretError, BitstreamError, OSError."""
        with open(path, "rb") as file:
            sealed = wants(file)
        return ReadOptions(limits=self.limits, key=key_of(path, self.secret) if sealed else None)


class Movie:
    """A file that is served. What is noted may be read by any thread."""

    def __init__(self, path: Path, options: PlayOptions, on_note: Callable[[str], None]) -> None:
        """Read header, index and tracks. on_note: gets every note once. Raises ViddiffError, OSError."""
        check_source(path, str(path))
        self.path, self._on_note = path, on_note
        self._notes: list[str] = []
        self._pace_note = ""
        self._beginning = _beginning(path)
        with naming(path):
            self.reading = options.reading(path)
            with self.reading.open(path) as file:
                self.gops: list[Gop] = schedule(file, options.limits)
                self.header = _header(file, options.limits)
                self.timeline: Timeline = timeline_of(file, self.gops, self.header.video, options.limits)
                file.seek(0)
                tracks = TrackFile(file, lambda fault: None, options.limits).extras.tracks
        if options.base_only and not self.header.base:
            raise CheckpointError(f"{path} has no AV1 base: networks predict its frames")
        device = choose_device(options.device, options.engine)
        found = Resources(options.weights, device, None, options.base_only, options.engine)
        self._resources = found.to_decode(self.header, path)
        self._weights: Weights | None = None
        first = Rendition(base_only=options.base_only)
        self.pace = Pace(self.header.base, first, min(self.info.width, self.info.height))
        self.picture_type = PictureSegment(BrowserPictures(self.info).info).mime_type
        """MIME type of segments of pictures."""
        self.sound: int | None = self._sound_of(tracks)
        """Number of the track of sound that is played."""
        self.track: Track | None = None if self.sound is None else tracks[self.sound]
        self._note_what_is_not_shown(tracks)

    @property
    def info(self) -> VideoInfo:
        """Properties of the video."""
        return self.header.video

    @property
    def origin(self) -> Fraction:
        """Time of the first frame in the file, in seconds."""
        return self.timeline.origin * self.timeline.unit

    @property
    def notes(self) -> list[str]:
        """What the user should know."""
        return [*self._notes, *[self._pace_note] * bool(self._pace_note)]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file again. Raises ViddiffError if it is gone, or another one has its name."""
        try:
            same = _beginning(self.path, len(self._beginning)) == self._beginning
        except OSError as error:
            raise ViddiffError(f"{self.path.name} cannot be read any longer: {error.strerror}") from error
        if not same:
            raise ViddiffError(f"{self.path.name} has changed since it was opened: start viddiff again")
        with self.reading.open(self.path) as file:
            yield file

    def seconds_at(self, start: Start) -> float:
        """Where a frame is on the time line, or seconds as they are. Raises ViddiffError without a frame."""
        seconds = Fraction(start)
        if isinstance(start, int):
            total = self.gops[-1].first + self.gops[-1].frames
            pts = None
            if start < total:
                with self.open() as file:
                    pts = frame_time(file, self.gops, start, self.reading.limits)
            seconds = Fraction(-1) if pts is None else (pts - self.timeline.origin) * self.timeline.unit
        if not 0 <= seconds * TICKS < self.timeline.ticks:
            raise ViddiffError(f"{self.path} has no frame {start_text(start)}")
        return float(seconds)

    def prepare(self) -> None:
        """Compile what decodes it, once after an installation, and load the weights."""
        self._resources.prepare(self.header.base)
        self.weights(base_only=False)

    def weights(self, base_only: bool) -> Weights | None:
        """Weights to decode with, None for no networks. Raises CheckpointError."""
        if base_only or self._resources.base_only:
            return None
        if self._weights is None:
            self._weights = self._resources.load_to_decode(self._resources.cores)
        return self._weights

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self._notes and len(self._notes) < _MOST_NOTES:
            self._notes.append(text)
            self._on_note(f"{self.path.name}: {text}")

    def keep_pace(self, shown: float, decoding: float, encoding: float) -> None:
        """Count a picture, as `Pace.add` does, and tell the user what that changes."""
        if text := self.pace.add(shown, decoding, encoding):
            self._pace_note = text
            self._on_note(f"{self.path.name}: {text}")

    def forget_pace(self) -> None:
        """Make pictures as at first."""
        self.pace.reset()
        self._pace_note = ""

    def note_damage(self, end: GopEnd) -> None:
        """Tell the user what a damaged GOP has cost."""
        last = end.gop.first + end.gop.frames - 1
        first = last - end.lost + 1
        fault = end.faults[0] if end.faults else "chunks are missing"
        if end.lost:
            frames = f"frames {first} to {last} are" if end.lost > 1 else f"frame {last} is"
            self.note(f"{frames} lost and shown as the one before ({fault})")
        elif end.faults:
            self.note(f"the file is damaged, but no frame is known to be lost ({fault})")

    def _sound_of(self, tracks: list[Track]) -> int | None:
        """The default track of sound, or else the first one. None if there is none that can be decoded."""
        numbers = [number for number, track in enumerate(tracks) if track.kind == "audio"]
        numbers.sort(key=lambda number: not tracks[number].disposition & _DEFAULT)
        for number in numbers:
            reason = why_undecodable(tracks[number])
            if not reason:
                return number
            self.note(f"sound of {tracks[number].codec} cannot be decoded: {reason}")
        return None

    def _note_what_is_not_shown(self, tracks: list[Track]) -> None:
        others = [track for number, track in enumerate(tracks) if number != self.sound]
        sounds = sum(track.kind == "audio" for track in others)
        texts = sum(track.kind == "subtitle" for track in others)
        if sounds and self.sound is not None:
            self.note(f"{sounds} other {'tracks' if sounds > 1 else 'track'} of sound cannot be chosen here")
        if texts:
            self.note(f"{texts} {'tracks' if texts > 1 else 'track'} of subtitles cannot be shown here")
        if self.info.display.matrix is not None and turn_of(self.info) == UNTURNED:
            self.note("the display matrix of the video is not applied")


def _beginning(path: Path, size: int = _BEGINNING) -> bytes:
    with open(path, "rb") as file:
        return file.read(size)


def _header(file: BinaryIO, limits: Limits) -> Header:
    file.seek(0)
    return Reader(file, limits).header
