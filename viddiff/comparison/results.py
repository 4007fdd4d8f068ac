"""What a comparison found."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from viddiff.frame import VideoInfo
from viddiff.metrics.pooling import Pooled, pool
from viddiff.pipeline.measures import BY_NAME, MOST_DB, Measure, Rule

Span = tuple[int, int]
"""First and last number of frames that follow each other."""


class FrameTable:
    """A row for every pair of frames, in order of time: about 120 bytes a frame."""

    def __init__(self, measures: Iterable[Measure]) -> None:
        self.measures = tuple(measures)
        """Measures that matched frames have."""
        self._numbers = array("q"), array("q")
        self._times, self._pts = array("d"), array("q")
        self._scores = {measure.name: array("d") for measure in self.measures}
        self.file_bits: NDArray[np.float64] = np.zeros(0)
        """Bits of each frame of the file, by its number."""

    def add(self, reference: int | None, file: int | None, time: float) -> None:
        """Add a row without scores. reference, file: numbers of the frames; None for a missing one."""
        for column, number in zip(self._numbers, (reference, file), strict=True):
            column.append(-1 if number is None else number)
        self._times.append(time)

    def score(self, scores: dict[str, float]) -> None:
        """Add the scores of a matched pair, which come in order. Measures may be missing until `complete`."""
        for name, column in self._scores.items():
            if name in scores:
                column.append(scores[name])

    def complete(self, name: str, scores: Iterable[float]) -> None:
        """Add the scores of all matched pairs by one measure."""
        self._scores[name].extend(scores)

    @property
    def reference(self) -> NDArray[np.int64]:
        """Number of each row's reference frame, -1 if there is none."""
        return np.array(self._numbers[0], np.int64)

    @property
    def file(self) -> NDArray[np.int64]:
        """Number of each row's frame of the file, -1 if there is none."""
        return np.array(self._numbers[1], np.int64)

    @property
    def times(self) -> NDArray[np.float64]:
        """Time of each row in seconds: the reference's, or the file's where the reference has no frame."""
        return np.array(self._times)

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Which rows have both frames, and so scores."""
        return (self.reference >= 0) & (self.file >= 0)

    def scores(self, name: str) -> NDArray[np.float64]:
        """Scores of the matched pairs by a measure, at most MOST_DB."""
        return np.minimum(self._scores[name], MOST_DB)

    def identical(self) -> int:
        """How many matched pairs have not one different sample."""
        planes = [np.isinf(self._scores[name]) for name in ("psnr_y", "psnr_u", "psnr_v")]
        return int(np.logical_and.reduce(planes).sum())

    def bits(self) -> NDArray[np.float64]:
        """Bits of each row's frame of the file; NaN if there is none."""
        bits = np.full(len(self._times), np.nan)
        file = self.file
        bits[file >= 0] = self.file_bits[file[file >= 0]]
        return bits

    def missing(self) -> list[Span]:
        """Frames of the reference that the file has not."""
        return spans(self.reference[self.file < 0])

    def extra(self) -> list[Span]:
        """Frames of the file that the reference has not."""
        return spans(self.file[self.reference < 0])

    def pooled(self) -> dict[str, Pooled]:
        """The video's scores by measure."""
        found = {}
        for measure in self.measures:
            found[measure.name] = pool(self.scores(measure.name), self._rule(measure))
        return found

    def _rule(self, measure: Measure) -> Rule | None:
        """The measure's rule, from the errors of the frames even where their scores end at MOST_DB."""
        if measure.name.endswith("_611"):
            y, u, v = (self._overall(BY_NAME[measure.name.replace("611", plane)]) for plane in "yuv")
            return lambda _: (6 * y + u + v) / 8
        return None if measure.overall is None else lambda _: self._overall(measure)

    def _overall(self, measure: Measure) -> float:
        assert measure.overall is not None
        return min(measure.overall(np.array(self._scores[measure.name])), MOST_DB)


def spans(numbers: NDArray[np.int64]) -> list[Span]:
    """Stretches of numbers that follow each other."""
    if not len(numbers):
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    first, last = np.append(0, breaks + 1), np.append(breaks, len(numbers) - 1)
    return [(int(numbers[a]), int(numbers[b])) for a, b in zip(first, last, strict=True)]


@dataclass(frozen=True)
class WorstFrame:
    """A frame that the file shows badly, as pictures."""

    reference: int
    """Number of the reference's frame."""
    time: float
    """Seconds."""
    measure: str
    """Name of the measure that chose it."""
    score: float
    original: bytes = field(repr=False)
    """The reference's frame, a WebP."""
    decoded: bytes = field(repr=False)
    """The file's frame, a WebP."""


@dataclass(frozen=True)
class Video:
    """A video of a comparison."""

    path: Path
    name: str
    """What it is called in tables."""
    info: VideoInfo
    frames: int
    seconds: float
    """Until the last frame ends."""
    size_bytes: int
    """Of the whole file."""


@dataclass(frozen=True)
class ComparedFile:
    """A file beside the reference."""

    video: Video
    codec: str
    """"viddiff", or libav's name of the codec."""
    keyframe_distance: int | None
    """Longest distance between keyframes that a `.vdf` was encoded with, in frames."""
    video_bytes: int
    """Of the pictures, without sound and all else in the file."""
    bits_by_chunk: bool
    """Whether bits are known only by chunks of several frames."""
    bit_depth: int
    """Bits per sample at which the samples were compared."""
    differences: tuple[str, ...]
    """In what the file differs from the reference, one sentence each. None of it is in the scores."""
    notes: tuple[str, ...]
    """What reading it changed, or had to leave out."""
    damaged: bool
    """Whether frames were lost to damage; they are compared as they are shown."""
    time_difference: float
    """Largest difference in time of two matched frames, in seconds."""
    frames: FrameTable = field(repr=False)
    scores: dict[str, Pooled]
    """By the name of the measure."""
    worst: tuple[WorstFrame, ...] = field(default=(), repr=False)
    """Only for a report: the worst frames, the worst first."""
    setting: int | None = None
    """CRF, if it is an encode of the reference by another codec."""

    @property
    def kbps(self) -> float:
        """Kilobits per second of the pictures."""
        return self.video_bytes / 125 / self.video.seconds

    @property
    def matched(self) -> int:
        """Number of frames that were compared."""
        return int(self.frames.matched.sum())

    @property
    def identical(self) -> int:
        """How many of them have not one different sample."""
        return self.frames.identical()

    @property
    def complete(self) -> bool:
        """Whether every frame of both videos was compared, and none was lost to damage."""
        return not (self.damaged or self.frames.missing() or self.frames.extra())


@dataclass(frozen=True)
class Curve:
    """Several qualities of one codec, by rising rate."""

    title: str
    other: bool
    """Whether it is another codec's encodes of the reference."""
    points: tuple[ComparedFile, ...]


@dataclass(frozen=True)
class BdRate:
    """How many more bits one curve needs than another for the same quality, in percent."""

    test: str
    """Title of the curve."""
    anchor: str
    """Title of the curve that it is compared with."""
    measure: str
    """Name of the measure of quality."""
    percent: float | None
    """Negative is better. None if it cannot be said."""
    note: str = ""
    """Why it cannot be said."""


@dataclass(frozen=True)
class Comparison:
    """Videos beside a reference."""

    reference: Video
    files: tuple[ComparedFile, ...]
    """In the order in which they were named."""
    others: tuple[ComparedFile, ...]
    """Encodes of the reference by other codecs."""
    curves: tuple[Curve, ...]
    """Codecs of which there are several qualities."""
    bd_rates: tuple[BdRate, ...]
    facts: dict[str, str]
    """What was run, with settings and versions."""
    notes: tuple[str, ...]
    """Notes for the user."""
    seconds: float
    """Wall clock time."""

    def bpp(self, file: ComparedFile) -> float:
        """Bits of a file's pictures for each luma sample of the reference."""
        info = self.reference.info
        return 8 * file.video_bytes / (self.reference.frames * info.width * info.height)

    @property
    def complete(self) -> bool:
        """Whether every frame of all videos was compared, and none was lost to damage."""
        return all(file.complete for file in self.files)


def usual_distance(info: VideoInfo) -> Fraction:
    """Nominal distance between frames in seconds."""
    return 1 / info.frame_rate
