"""Join recordings that follow each other: one file for each camera and period.

    a recording -> its own file in the working folder -> closed period -> one file -> sources deleted

When a period is closed (see `periods`), its recordings become one file. A gap, or a recording that does not
fit, begins another one.

The order of steps makes every moment safe to be killed in:

    join into a hidden part file -> flush -> verify -> line in the manifest -> name -> folders flushed ->
    files of the recordings removed -> sources deleted

A joined file never replaces another one.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from viddiff.container.excerpt import Source
from viddiff.container.part_file import parts_of
from viddiff.errors import OutputError, VerificationError, ViddiffError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch.flushing import flush_folders
from viddiff.pipeline.batch.job import BatchJob, Outcome
from viddiff.pipeline.batch.manifest import Manifest, ManifestError, Record, Recording
from viddiff.pipeline.batch.periods import Camera, Period, Periods, Waiting
from viddiff.pipeline.batch.reasons import FULL, failure, now, reason_of
from viddiff.pipeline.batch.seen import Remover, Seen, records_of
from viddiff.pipeline.batch.target_files import LocalFiles, sha256_of
from viddiff.pipeline.batch.units import WORKING, Unit
from viddiff.pipeline.batch.weights_archive import WeightsArchive
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.gop_files import reading
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.join_files import Row, misfit
from viddiff.pipeline.output_file import OutputFile, is_vdf
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.status import Status
from viddiff.pipeline.verify import verify_joined

FOLLOWS = 5.0
"""Most seconds from the end of a recording to the beginning of one that follows it, or between overlaps."""
_PART = ".joined.part"

Show = Callable[[Unit, int, Status], None]
"""Sees how a joined file is verified: unit, bytes of its sources, status."""


class Concatenation:
    """Joins the recordings of a batch."""

    def __init__(self, job: BatchJob, manifest: Manifest, archive: WeightsArchive, remover: Remover) -> None:
        """Find what earlier runs have encoded and not joined. Raises OSError."""
        self._job, self._manifest, self._archive, self._remover = job, manifest, archive, remover
        self.periods = Periods(job)
        self._find()

    def joined(self, show: Show, unit: Unit | None = None) -> Iterator[Outcome]:
        """Join what is closed, of the camera of a unit or of all. Raises only what ends the whole batch."""
        for period in self.periods.closed(unit):
            yield from self._join_period(period, show)

    def _find(self) -> None:
        """Take up recordings in the working folder. What was joined, or cut off while it was, is removed."""
        top = self._job.target / WORKING
        for folder, _, files in os.walk(top, topdown=False):
            below = os.path.relpath(folder, top)
            if not self._job.shard.holds("" if below == os.curdir else below):
                continue
            for name in files:
                if name == _PART:
                    Path(folder, name).unlink()
                elif not name.startswith("."):
                    self._take_up(Path(folder, name))
            self._prune(Path(folder, _PART))

    def _take_up(self, path: Path) -> None:
        output = path.relative_to(self._job.target).as_posix()
        records = records_of(self._manifest, LocalFiles(self._job.target), output)
        if not records:
            return
        record, name = records[-1], output.removeprefix(f"{WORKING}/").removesuffix(".vdf")
        unit = Unit(name, Path(record.source), place=f"{WORKING}/")
        joined = joined_record(self._manifest, self._job.target, unit, record.size, record.mtime_ns)
        if joined is None:
            self.periods.add(unit, record)
        else:
            flush_folders(self._job.target / joined.output, self._job.target)
            self._clear(unit)

    def _join_period(self, period: Period, show: Show) -> Iterator[Outcome]:
        """Join the recordings of a period to one file or more."""
        rest = self.periods.take(period)
        while rest:
            row, problem, why = _first_row(self._job.target, rest)
            rest = rest[len(row) :]
            if problem is not None:
                yield self._failed(row, problem)
                continue
            try:
                outcome = self._join(period.camera, row, show)
                yield replace(outcome, reason=outcome.reason or why)
            except ManifestError:
                raise
            except Exception as error:  # of whatever kind: the others do not depend on it
                if isinstance(error, OSError) and error.errno in FULL:
                    reason = f"{self._job.target}: {error.strerror}; run it again to go on"
                    raise OutputError(reason) from error
                yield self._failed(row, error)
            finally:
                self._part(row).unlink(missing_ok=True)

    def _join(self, camera: Camera, row: list[Waiting], show: Show) -> Outcome:
        """Join recordings to one file, and remove what it replaces."""
        began, part = time.monotonic(), self._part(row)
        sources = Row.of(_source(self._job.target, recording) for recording in row)
        with open(part, "wb") as file:
            written = sources.write(file)
            file.flush()
            os.fsync(file.fileno())
        unit = self._new_unit(camera, row)
        verified = self._verify(part, unit, sources, row, show)
        weights = sources.header.model_hash.hex()
        self._archive.keep_for(weights)
        path, recordings = self._job.target / unit.output, _recordings(row, sources)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = Record(
            time=now(),
            source=str(unit.source),
            size=sum(recording.size for recording in recordings),
            mtime_ns=max(recording.mtime_ns for recording in recordings),
            output=unit.output,
            bytes=part.stat().st_size,
            sha256=sha256_of(part),
            weights=weights,
            frames=written.frames,
            seconds=round(time.monotonic() - began, 3),
            verified=verified,
            notes=tuple(f"{Path(r.source).name}: {note}" for r in recordings for note in r.notes),
            begins=recordings[0].begins,
            duration=round(sources.seconds, 6),
            recordings=recordings,
        )
        with uninterrupted():
            self._manifest.append(record)
            OutputFile(path, False, is_vdf, "").publish(part)
        flush_folders(path, self._job.target)
        self._remover.trust(record)
        for recording in row:
            self._clear(recording.unit)
        self._prune(self._job.target / row[0].unit.output)
        return self._without_sources(Outcome(unit, "joined", size=record.size, record=record))

    def _verify(self, part: Path, unit: Unit, sources: Row, row: list[Waiting], show: Show) -> bool:
        """Compare a joined file with the reconstruction, if that is asked for and known."""
        pictures = [recording.record.pictures for recording in row]
        if not self._job.encode.verify or None in pictures:
            return False
        job, size = self._job.encode, sum(recording.record.size or 0 for recording in row)
        total = sum(part.frames for part in sources.parts)
        resources = Resources(
            device=choose_device(job.device, job.engine), workers=job.workers, engine=job.engine
        )
        parts = list(zip(sources.parts, map(str, pictures), strict=True))
        verify_joined(part, parts, resources, lambda done: show(unit, size, Status("verify", done, total)))
        return True

    def _without_sources(self, outcome: Outcome) -> Outcome:
        """Delete the sources of a joined file, if it certainly replaces them."""
        record = outcome.record
        assert record is not None
        if not self._job.delete_source:
            return outcome
        kept = dict[str, str]()
        for recording in record.recordings:
            source = Path(recording.source)
            if not source.exists():
                continue
            try:
                seen = replace(Seen.of(source), size=recording.size, mtime_ns=recording.mtime_ns)
                if reason := self._remover.remove(source, seen, record, recording.notes):
                    kept[recording.source] = reason
            except (OSError, ViddiffError) as error:
                reason = f"it is joined, but a source is kept: {reason_of(error)}"
                return replace(outcome, state="failed", reason=reason)
        if not kept:
            return replace(outcome, deleted=True)
        name, reason = next(iter(kept.items()))
        others = f", and {len(kept) - 1} more" if len(kept) > 1 else ""
        return replace(outcome, reason=f"{name}: {reason}{others}")

    def _failed(self, row: list[Waiting], error: Exception) -> Outcome:
        """Recordings that cannot be joined. Those that are damaged are encoded again by the next run."""
        unit, reason = row[0].unit, f"it cannot be joined: {reason_of(error)}"
        for recording in row:
            path = self._job.target / recording.unit.output
            with suppress(OSError):
                damaged = isinstance(error, VerificationError) or sha256_of(path) != recording.record.sha256
                seen = Seen.of(recording.unit.source)
                if damaged and (seen.size, seen.mtime_ns) == (
                    recording.record.size,
                    recording.record.mtime_ns,
                ):
                    self._clear(recording.unit)
        self._manifest.append(failure(unit, None, reason, 0.0))
        return Outcome(unit, "failed", reason, sum(recording.record.size or 0 for recording in row))

    def _new_unit(self, camera: Camera, row: list[Waiting]) -> Unit:
        """The joined file as a unit. Its name says when it begins, and is new."""
        stem = Path(camera.folder, f"{camera.before}{row[0].begins:%Y-%m-%d_%H-%M-%S}").as_posix()
        for number in count(1):
            unit = Unit(stem if number == 1 else f"{stem}_{number}", row[0].unit.path.parent)
            if not os.path.lexists(self._job.target / unit.output):
                return unit
        raise AssertionError("numbers do not end")

    def _part(self, row: list[Waiting]) -> Path:
        return (self._job.target / row[0].unit.output).with_name(_PART)

    def _clear(self, unit: Unit) -> None:
        """Remove the file of a recording, and what kills have left of it."""
        path = self._job.target / unit.output
        for left in (*parts_of(path), hidden_beside(path, ".lock"), path):
            left.unlink(missing_ok=True)

    def _prune(self, path: Path) -> None:
        """Remove the folders above a path that are empty, up to the working folder.

        Shards leave them, because another one may be about to write there.
        """
        top = self._job.target / WORKING
        if self._job.shard.count > 1:
            return
        for folder in path.parents:
            if not folder.is_relative_to(top):
                return
            try:
                folder.rmdir()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if error.errno != errno.ENOENT:
                    return


def joined_record(
    manifest: Manifest, target: Path, unit: Unit, size: int | None, mtime_ns: int | None
) -> Record | None:
    """The record of a joined file that is there and holds a unit, with its source of this size and time."""
    for record in reversed(manifest.joined(unit.name)):
        path = target / record.output
        for recording in record.recordings:
            same = (recording.name, recording.size, recording.mtime_ns) == (unit.name, size, mtime_ns)
            if same and path.is_file() and path.stat().st_size == record.bytes:
                return record
    return None


def _source(target: Path, recording: Waiting) -> Source:
    """The file of a recording. Raises ViddiffError, OSError."""
    path = target / recording.unit.output
    return Source.read(path, reading(path, None))


def _first_row(
    target: Path, recordings: list[Waiting]
) -> tuple[list[Waiting], ViddiffError | OSError | None, str]:
    """The recordings at the beginning that can be joined, and why the next one does not fit.

    If the first one cannot be read: that one, and the error.
    """
    row, first = list[Waiting](), None
    for recording in recordings:
        if row and abs(recording.gap(row[-1])) > FOLLOWS:
            break
        try:
            source = _source(target, recording)
        except (ViddiffError, OSError) as error:
            return (row, None, "") if row else ([recording], error, "")
        if first is not None and (reason := misfit(first, source)):
            return row, None, f"{recording.unit.name} does not fit and begins a new file: {reason}"
        row.append(recording)
        first = first or source
    return row, None, ""


def _recordings(row: list[Waiting], sources: Row) -> tuple[Recording, ...]:
    """What a joined file holds."""
    return tuple(
        Recording(
            name=recording.unit.name,
            source=recording.record.source,
            size=recording.record.size or 0,
            mtime_ns=recording.record.mtime_ns or 0,
            begins=recording.begins.isoformat(),
            start=round(float(start), 6),
            frames=part.frames,
            notes=recording.record.notes,
        )
        for recording, start, part in zip(row, sources.starts, sources.parts, strict=True)
    )
