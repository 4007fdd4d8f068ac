"""Compare files with one reference, frame by frame, as the frames come.

reference, file -> frames -> pairs of the same time -> samples of one form -> scores
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from viddiff.comparison.compare_job import CompareJob
from viddiff.comparison.differences import check_size, differences, frame_differences
from viddiff.comparison.inputs import Input, bytes_of_frames, open_input
from viddiff.comparison.matching import Pair, Timed, match, timed
from viddiff.comparison.results import ComparedFile, FrameTable, Video
from viddiff.comparison.samples import Form, ToForm
from viddiff.comparison.worst_frames import WorstFrames
from viddiff.errors import ViddiffError
from viddiff.frame import Frame
from viddiff.pipeline.measures import Meters, measured
from viddiff.pipeline.status import Observer, Status


class Comparer:
    """Compares files with the reference of a job. Raises ViddiffError and OSError."""

    def __init__(self, job: CompareJob, metrics: tuple[str, ...], observer: Observer) -> None:
        self._job, self._metrics, self._observer = job, metrics, observer
        self._read, self._hint = 0, 0
        self._known: Video | None = None
        self.notes: list[str] = []
        """What reading the reference changed, and what is damaged, when it was read."""

    @property
    def reference(self) -> Video:
        """The reference, after a first file was compared with it."""
        assert self._known is not None
        return self._known

    def check_sizes(self) -> None:
        """Raise an error if a file cannot be compared, before time is spent."""
        job = self._job
        with open_input(job.reference, job.reading) as reference:
            info = reference.info
        self._hint = info.frame_count or 0
        for codec in job.codecs:
            codec.check(info)
        for path in job.files:
            with open_input(path, job.reading) as file:
                check_size(file.info, info, path, job.reference, job.scale)

    def frames(self) -> Iterator[Frame]:
        """The frames of the reference once more."""
        with open_input(self._job.reference, self._job.reading) as reference:
            for found in self._watched(timed(reference.frames, reference.info, stored=True)):
                yield found.frame

    def compare(self, path: Path, name: str, pictures: int = 0) -> ComparedFile:
        """Compare a file. pictures: how many of its worst frames to keep."""
        job = self._job
        with ExitStack() as stack:
            reference = stack.enter_context(open_input(job.reference, job.reading))
            info = reference.info
            scale = (info.width, info.height) if job.scale else None
            file = stack.enter_context(open_input(path, job.reading, scale))
            check_size(file.info, info, path, job.reference, job.scale)
            pair = _Pairing(reference, file, self._metrics, pictures)
            ours = self._watched(timed(reference.frames, info, job.stored_times))
            pair.measure(ours, timed(file.frames, file.info, job.stored_times))
            if not pair.table.matched.any():
                raise ViddiffError(f"no frame of {path} has the time of a frame of {job.reference}")
            self._known = pair.reference_video(job.reference)
            self.notes = [f"{job.reference}: {note}" for note in reference.notes()]
            sizes = bytes_of_frames(path, np.array(pair.file_pts, np.int64), job.reading)
            pair.table.file_bits = 8 * sizes.frames
            return ComparedFile(
                video=pair.file_video(path, name),
                codec=sizes.codec,
                keyframe_distance=sizes.keyframe_distance,
                video_bytes=round(sizes.frames.sum()),
                bits_by_chunk=sizes.by_chunk,
                bit_depth=pair.form.bit_depth,
                differences=pair.differences(),
                notes=tuple(file.notes()),
                damaged=file.damaged() or reference.damaged(),
                time_difference=pair.time_difference,
                frames=pair.table,
                scores=pair.table.pooled(),
                worst=pair.worst.pictures(),
            )

    def _watched(self, frames: Iterable[Timed]) -> Iterator[Timed]:
        """Frames of the reference. The observer hears of each that is done with."""
        total = (self._known.frames if self._known else self._hint) * self._job.readings or None
        self._observer(Status("compare", self._read, total))
        for frame in frames:
            yield frame
            self._read += 1
            self._observer(Status("compare", self._read, total))


@dataclass(frozen=True)
class _Moment:
    """A frame without its picture."""

    number: int
    time: Fraction
    pts: int
    duration: int


class _Pairing:
    """The frames of one file beside those of the reference."""

    def __init__(self, reference: Input, file: Input, metrics: tuple[str, ...], pictures: int) -> None:
        self._reference, self._file, self._metrics = reference, file, metrics
        ours, theirs = (Form(video.info.bit_depth, video.info.full_range) for video in (reference, file))
        self.form = Form(max(ours.bit_depth, theirs.bit_depth), ours.full_range)
        """What is compared."""
        self._ours, self._theirs = ToForm(ours, self.form), ToForm(theirs, self.form)
        self._compared = replace(reference.info, bit_depth=self.form.bit_depth)
        self.table = FrameTable(measured(metrics, self._compared))
        self.worst = WorstFrames(pictures, reference.info, file.info)
        self.time_difference = 0.0
        """Largest one of two matched frames, in seconds."""
        self._ends: dict[str, tuple[_Moment, _Moment]] = {}
        self.file_pts = array("q")
        """Times of the file's frames in units of its time base."""

    def measure(self, ours: Iterable[Timed], theirs: Iterable[Timed]) -> None:
        """Compare all frames."""
        usual = 1 / self._reference.info.frame_rate
        with Meters(self._metrics, self._compared) as meters:
            for pair in match(ours, theirs, usual):
                self._enter(pair)
                if pair.reference is None or pair.file is None:
                    continue
                original, decoded = self._ours(pair.reference.frame), self._theirs(pair.file.frame)
                scores = meters.add(original, decoded)
                self.table.score(scores)
                self.worst.add(pair.reference, pair.file, scores)
            if (vmaf := meters.vmaf()) is not None:
                self.table.complete("vmaf", vmaf)

    def _enter(self, pair: Pair) -> None:
        """A row of the table, and what is to be known of all frames."""
        ours, file = pair.reference, pair.file
        known = ours or file
        assert known is not None
        reference_number, file_number = (None if found is None else found.number for found in (ours, file))
        self.table.add(reference_number, file_number, float(known.time))
        if file is not None:
            self.file_pts.append(file.frame.pts)
        if ours is not None and file is not None:
            apart = abs(float(ours.time - file.time))
            self.time_difference = max(self.time_difference, apart)
        for name, found in (("reference", ours), ("file", file)):
            if found is not None:
                moment = _Moment(found.number, found.time, found.frame.pts, found.frame.duration)
                self._ends[name] = self._ends.get(name, (moment, moment))[0], moment

    def reference_video(self, path: Path) -> Video:
        """The reference, when all is read."""
        return self._video("reference", path, path.name, self._reference)

    def file_video(self, path: Path, name: str) -> Video:
        """The file, when all is read."""
        return self._video("file", path, name, self._file)

    def _video(self, which: str, path: Path, name: str, source: Input) -> Video:
        first, last = self._ends[which]
        info = source.info
        lasts = last.duration * info.time_base or 1 / info.frame_rate
        seconds = float(last.time - first.time + lasts)
        return Video(path, name, info, last.number + 1, seconds, path.stat().st_size)

    def differences(self) -> tuple[str, ...]:
        """In what the file differs from the reference."""
        first, file = (self._ends[which][0] for which in ("reference", "file"))
        starts = (
            first.pts * self._reference.info.time_base,
            file.pts * self._file.info.time_base,
        )
        scaled, size = self._file.stored_size, (self._file.info.width, self._file.info.height)
        return (
            *[f"it is {scaled[0]}x{scaled[1]} and was scaled to {size[0]}x{size[1]}"] * (scaled != size),
            *differences(self._reference.info, self._file.info, starts),
            *frame_differences(self.table, self.time_difference, 1 / self._reference.info.frame_rate),
        )
