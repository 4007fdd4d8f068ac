"""Run a batch: look at all units, then encode those that are to do, one after the other.

The order of steps for a unit makes every moment safe to be killed in:

    encode into a hidden part file -> verify -> flush to the disk -> line in the manifest -> name -> folders
    flushed -> source deleted

Before the line, the next run continues the part file. After it, the file is known by its size and hash. A
file that no line knows is never replaced.
"""

import errno
import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from viddiff.container.part_file import parts_of
from viddiff.errors import OutputError, ResumeError, SourceChangeError, ViddiffError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch.job import BatchJob, BatchSummary, Outcome, Progress, Report, Watch
from viddiff.pipeline.batch.manifest import Manifest, ManifestError, Record
from viddiff.pipeline.batch.units import Unit, find_units
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.encode_file import Announce, CodedFile, encode_file
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.output_file import OutputFile, is_vdf
from viddiff.pipeline.status import Observer, Status
from viddiff.pipeline.weights_search import weights_to_encode

LOOK_APART = 1.0
"""Seconds between two looks at a source that must not grow."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)
"""Errors of file systems that cannot flush folders."""


def run_batch(
    job: BatchJob,
    report: Report = lambda _: None,
    watch: Watch = lambda _: None,
    dry_run: bool = False,
) -> BatchSummary:
    """Encode what is to do. A unit that fails does not stop the others.

    report: gets the outcome of every unit, first of those that need no encode. dry_run: write nothing; what
    would be encoded is "planned".

    Raises ViddiffError or OSError if the batch as a whole cannot go on: two units have one name, weights are
    missing, the disk is full, or the manifest cannot be written. What is done stays done.
    """
    found = find_units(job.sources, job.target)
    units = [unit for unit in found.units.values() if job.shard.holds(unit)]
    summary = BatchSummary(ignored=dict(found.ignored_by_extension.most_common()))

    def tell(outcome: Outcome) -> None:
        summary.add(outcome)
        report(outcome)

    if not dry_run:
        job.target.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(job.target, job.shard)
    with manifest.loaded() if dry_run else manifest.opened():
        batch = _Batch(job, manifest)
        looked, to_do = time.monotonic(), list[tuple[Unit, _Seen]]()
        for unit in units:
            outcome = batch.look(unit, dry_run)
            if isinstance(outcome, Outcome):
                tell(outcome)
            else:
                to_do.append((unit, outcome))
        batch.check_means([unit for unit, _ in to_do])
        if dry_run:
            for unit, seen in to_do:
                tell(Outcome(unit, "planned", size=seen.size))
        else:
            if job.min_age and to_do:
                time.sleep(max(looked + LOOK_APART - time.monotonic(), 0))
            batch.encode_all(to_do, tell, watch)
    return summary


@dataclass(frozen=True)
class _Seen:
    """A source at one moment."""

    size: int
    mtime_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "_Seen":
        """Look at a source. Raises OSError."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)


class _SourceGrew(SourceChangeError):
    """A source has changed while it was encoded. Its part file is of no use."""


class _Batch:
    """A running batch."""

    def __init__(self, job: BatchJob, manifest: Manifest) -> None:
        self._job, self._manifest = job, manifest

    def look(self, unit: Unit, dry_run: bool) -> Outcome | _Seen:
        """What is clear about a unit before anything is encoded, or its source as it is now."""
        try:
            if unit.problem and unit.source.exists():
                raise OSError(errno.EACCES, unit.problem)
            seen = _Seen.of(unit.source)
            record = self._done(unit, seen)
        except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
            return self._without_source(unit, error, dry_run)
        if record is not None:
            return self._was_done(unit, seen, record, dry_run)
        age = time.time() - seen.mtime_ns / 1e9
        if abs(age) < self._job.min_age:  # times far in the future are of a clock that is wrong
            return Outcome(
                unit, "waiting", f"changed {max(age, 0):.0f} s ago, it may still be written", seen.size
            )
        if self._job.older_than and age < self._job.older_than:
            return Outcome(unit, "waiting", "not old enough for --older-than", seen.size)
        return seen

    def check_means(self, units: list[Unit]) -> None:
        """Raises ViddiffError unless there are the device and the weights that all units need."""
        choose_device(self._job.encode.device, self._job.encode.engine)
        for weights in {self._weights_of(unit) for unit in units}:
            weights_to_encode(weights, self._job.encode.base)

    def encode_all(self, to_do: list[tuple[Unit, _Seen]], tell: Report, watch: Watch) -> None:
        """Encode units one after the other."""
        all_bytes, done_bytes = sum(seen.size for _, seen in to_do), 0
        for number, (unit, seen) in enumerate(to_do, 1):

            def observe(
                status: Status, unit: Unit = unit, number: int = number, before: int = done_bytes
            ) -> None:
                watch(Progress(unit, number, len(to_do), before, all_bytes, status))

            tell(self._attempt(unit, seen, observe))
            done_bytes += seen.size

    def _weights_of(self, unit: Unit) -> "str | os.PathLike[str] | None":
        return self._job.weights.weights_of(unit.name) or self._job.encode.weights

    def _path(self, unit: Unit) -> Path:
        return self._job.target / unit.output

    def _done(self, unit: Unit, seen: _Seen) -> Record | None:
        """The record of a unit whose file is there and belongs to its source as it is now."""
        records = self._manifest.finished(unit.output)
        path = self._path(unit)
        if not records or not path.is_file():
            return None
        size = path.stat().st_size
        fitting = [record for record in records if record.bytes == size]
        several = len({record.sha256 for record in fitting}) > 1
        digest = _sha256(path) if several else None
        for record in reversed(fitting):
            same_source = (record.size, record.mtime_ns) == (seen.size, seen.mtime_ns)
            if same_source and (digest is None or digest == record.sha256):
                return record
        return None

    def _without_source(self, unit: Unit, error: Exception, dry_run: bool) -> Outcome:
        """A unit whose source or file cannot be read: done and deleted, or a failure."""
        path = self._path(unit)
        if isinstance(error, FileNotFoundError):
            for record in reversed(self._manifest.finished(unit.output)):
                if record.verified and path.is_file() and path.stat().st_size == record.bytes:
                    return Outcome(unit, "skipped", record=record)
        return self._failed(unit, None, unit.problem or _reason(error), 0.0, dry_run)

    def _was_done(self, unit: Unit, seen: _Seen, record: Record, dry_run: bool) -> Outcome:
        """A unit that an earlier run has finished: remove what that run left, and the source if it may go."""
        if dry_run:
            return Outcome(unit, "skipped", size=seen.size, record=record)
        path = self._path(unit)
        if hidden_beside(path, ".lock").exists():
            with suppress(OutputError, OSError), OutputFile(path, False, is_vdf, "").claim():
                for part in parts_of(path):
                    part.unlink(missing_ok=True)
        done = Outcome(unit, "skipped", size=seen.size, record=record)
        return self._deleted(done, seen) if self._job.delete_source else done

    def _attempt(self, unit: Unit, seen: _Seen, observe: Observer) -> Outcome:
        """Encode a unit. Raises only what ends the whole batch."""
        began = time.monotonic()
        try:
            if _Seen.of(unit.source) != seen:
                raise _SourceGrew
            record = self._encode(unit, seen, began, observe)
        except ManifestError:
            raise
        except Exception as error:  # of whatever kind: the other units do not depend on it
            if isinstance(error, OSError) and error.errno in _FULL:
                raise OutputError(f"{self._job.target}: {error.strerror}; run it again to go on") from error
            if self._changed(unit, seen):
                return Outcome(unit, "waiting", "it changed while it was looked at", seen.size)
            return self._failed(unit, seen, _reason(error), time.monotonic() - began)
        done = Outcome(unit, "done", size=seen.size, record=record)
        return self._deleted(done, seen) if self._job.delete_source else done

    def _encode(self, unit: Unit, seen: _Seen, began: float, observe: Observer) -> Record:
        """Encode a unit, and return its line in the manifest."""
        path, written = self._path(unit), list[Record]()
        path.parent.mkdir(parents=True, exist_ok=True)
        replaces = self._may_replace(unit, path)

        def announce(coded: CodedFile) -> None:
            if self._changed(unit, seen):
                raise _SourceGrew(f"{unit.source} has changed")
            record = Record(
                time=_now(),
                source=str(unit.source),
                size=seen.size,
                mtime_ns=seen.mtime_ns,
                output=unit.output,
                bytes=coded.size_bytes,
                sha256=coded.sha256,
                weights=coded.model_hash.hex(),
                frames=coded.frames,
                seconds=round(time.monotonic() - began, 3),
                verified=self._job.encode.verify,
                notes=coded.notes,
            )
            self._manifest.append(record)
            written.append(record)

        job = replace(
            self._job.encode,
            source=unit.source,
            target=path,
            weights=self._weights_of(unit),
            resume=not self._job.encode.verify,
            force=replaces,
            shorten=False,
        )
        _encode_or_restart(job, observe, announce)
        self._flush_folders(path)
        return written[-1]

    def _may_replace(self, unit: Unit, path: Path) -> bool:
        """Whether there is a file that this batch has written of an older state of the source.

        Raises OutputError if there is another file.
        """
        if not os.path.lexists(path):
            return False
        if path.is_file():
            size = path.stat().st_size
            known = {record.sha256 for record in self._manifest.finished(unit.output) if record.bytes == size}
            if known and _sha256(path) in known:
                return True
        raise OutputError(
            f"{path} exists, but not as the manifest records it: remove it or choose another OUT"
        )

    def _failed(
        self, unit: Unit, seen: _Seen | None, reason: str, seconds: float, dry_run: bool = False
    ) -> Outcome:
        """Record a failure."""
        size, mtime = (seen.size, seen.mtime_ns) if seen is not None else (None, None)
        if not dry_run:
            self._manifest.append(
                Record(
                    time=_now(),
                    source=str(unit.source),
                    size=size,
                    mtime_ns=mtime,
                    output=unit.output,
                    seconds=round(seconds, 3),
                    error=reason,
                )
            )
        return Outcome(unit, "failed", reason, size)

    def _deleted(self, done: Outcome, seen: _Seen) -> Outcome:
        """Delete the source of a finished unit, if the file certainly replaces it."""
        unit, record, path = done.unit, done.record, self._path(done.unit)
        assert record is not None
        if not record.verified:
            return replace(done, reason="the source is kept: its file was not verified")
        if record.notes:
            return replace(done, reason=f"the source is kept: {record.notes[0]}")
        try:
            if done.state == "skipped":
                if _sha256(path) != record.sha256:
                    raise ViddiffError(f"{path} is damaged")
                self._flush_folders(path)
            if _Seen.of(unit.source) != seen:
                return replace(done, reason="the source is kept: it has changed")
            unit.source.unlink()
        except (OSError, ViddiffError) as error:
            return replace(
                done, state="failed", reason=f"it is encoded, but its source is kept: {_reason(error)}"
            )
        return replace(done, deleted=True)

    def _changed(self, unit: Unit, seen: _Seen) -> bool:
        """Whether a source is there and no longer as it was."""
        try:
            return _Seen.of(unit.source) != seen
        except OSError:
            return False

    def _flush_folders(self, path: Path) -> None:
        """Make the name of a file, and those of its folders, survive a power cut."""
        folder, last = path.parent, self._job.target.parent
        while True:
            _flush_folder(folder)
            if folder in (last, folder.parent):
                return
            folder = folder.parent


def _encode_or_restart(job: EncodeJob, observe: Observer, announce: Announce) -> None:
    """Encode, from what an earlier run has coded if that is of the same job."""
    try:
        encode_file(job, observe, announce)
    except ResumeError:
        encode_file(replace(job, resume=False), observe, announce)


def _flush_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def _sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    """An error in one sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, ViddiffError) and text else f"{type(error).__name__}: {text}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
