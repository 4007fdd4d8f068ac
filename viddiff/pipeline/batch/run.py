"""Run a batch: look at all units, then encode those that are to do, one after the other.

The order of steps for a unit makes every moment safe to be killed in:

    encode into a hidden part file -> verify -> flush to the disk -> line in the manifest -> name -> folders
    flushed, or file uploaded -> source deleted

Before the line, the next run continues the part file. After it, the file is known by its size and hash. A
file that no line knows is never replaced.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from viddiff.codec.load_weights import load_weights
from viddiff.codec.tensor_file import stated_hash
from viddiff.container.part_file import parts_of
from viddiff.errors import OutputError, ResumeError, SourceChangeError, TooLargeError, ViddiffError
from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch.concat import Concatenation, joined_record
from viddiff.pipeline.batch.job import BatchJob, BatchSummary, Outcome, Progress, Report, Watch
from viddiff.pipeline.batch.manifest import Manifest, ManifestError, Record
from viddiff.pipeline.batch.reasons import FULL, failure, now, reason_of
from viddiff.pipeline.batch.recording_times import beginning
from viddiff.pipeline.batch.remote_file import FETCHED, RemoteFile, copy_here, only_while_it_runs
from viddiff.pipeline.batch.remote_target import RemoteFiles, RemoteWeightsArchive
from viddiff.pipeline.batch.seen import Remover, Seen, records_of
from viddiff.pipeline.batch.target_files import LocalFiles, TargetFiles, occupied, sha256_of
from viddiff.pipeline.batch.units import Found, Unit, find_units
from viddiff.pipeline.batch.watching import Watching
from viddiff.pipeline.batch.weights_archive import WeightsArchive
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.encode_file import Announce, CodedFile, encode_file
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.output_file import OutputFile, is_vdf
from viddiff.pipeline.status import Observer, Status
from viddiff.pipeline.weights_search import weights_to_encode

LOOK_APART = 1.0
"""Seconds between two looks at a source that must not grow."""


def run_batch(
    job: BatchJob,
    report: Report = lambda _: None,
    watch: Watch = lambda _: None,
    dry_run: bool = False,
    execute: "Execute | None" = None,
) -> BatchSummary:
    """Encode what is to do. A unit that fails does not stop the others.

    report: gets the outcome of every unit, first of those that need no encode. dry_run: write nothing; what
    would be encoded is "planned".

    execute: encodes the units somewhere else. None: one after the other, here.

    With `job.watch` it goes on until what the handler of a signal raises ends it.

    Raises ViddiffError or OSError if the batch as a whole cannot go on: two units have one name, weights are
    missing, the disk is full, or the manifest cannot be written. What is done stays done.
    """
    watching = Watching(job.sources, job.poll) if job.watch and not dry_run else None
    _find(job)  # which raises before anything is created
    summary = BatchSummary()

    def tell(outcome: Outcome) -> None:
        summary.add(outcome)
        report(outcome)

    if not dry_run:
        job.target.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(job.target, job.shard)
    with ExitStack() as steps:
        steps.enter_context(manifest.loaded() if dry_run else manifest.opened())
        batch = _Batch(job, manifest, dry_run, execute)
        if not dry_run:
            steps.enter_context(only_while_it_runs(_copies_of(job, manifest), job.shard.count == 1))
        if job.concat is not None and not dry_run:
            batch.concat = Concatenation(job, manifest, batch.archive, batch.remover)
        while True:
            found = _find(job)
            summary.ignored = dict(found.ignored_by_extension.most_common())
            due = batch.run_pass(job.here(found.units.values()), tell, watch)
            summary.unjoined = batch.concat.periods.waiting if batch.concat is not None else 0
            if watching is None:
                return summary
            watching.wait(due)


def _find(job: BatchJob) -> Found:
    """All units. Raises ViddiffError, OSError."""
    found = find_units(job.sources, job.remote or job.target)
    try:
        job.check_places(any(isinstance(unit.source, RemoteFile) for unit in found.units.values()))
    except ValueError as error:
        raise ViddiffError(str(error)) from error
    return found


def _copies_of(job: BatchJob, manifest: Manifest) -> Path:
    """Folder of what is fetched from servers. No other batch on this machine has the same."""
    return job.target / FETCHED / manifest.path.stem


_NEVER = Seen(-1, -1, -1, -1)
"""No source."""


class _SourceGrew(SourceChangeError):
    """A source has changed while it was encoded. Its part file is of no use."""


Execute = Callable[[BatchJob, Manifest, list[tuple[Unit, Seen]]], Iterable[Outcome]]
"""Encodes units, with their sources as they were seen, and gives their outcomes in any order."""


def attempt_unit(job: BatchJob, manifest: Manifest, unit: Unit, seen: Seen) -> Outcome:
    """Encode one unit, unless another attempt has done so. Raises only what ends the whole batch."""
    batch = _Batch(job, manifest, dry_run=False)
    outcome = batch.look(unit)
    if isinstance(outcome, Seen):
        return batch.attempt(unit, seen, lambda _: None)
    return replace(outcome, state="done") if outcome.state == "skipped" else outcome


class _Batch:
    """A running batch."""

    def __init__(
        self, job: BatchJob, manifest: Manifest, dry_run: bool, execute: Execute | None = None
    ) -> None:
        self._execute = execute
        self._job, self._manifest, self._dry_run = job, manifest, dry_run
        self._copies = _copies_of(job, manifest)
        self._made = LocalFiles(job.target)
        self._files: TargetFiles = self._made
        self.archive = WeightsArchive(job.target, manifest.path.stem)
        if job.remote is not None:
            files = self._files = RemoteFiles(job.remote, job.target, self._copies)
            self.archive = RemoteWeightsArchive(job.target, manifest.path.stem, files, job.remote)
        self.remover = Remover(self._files)
        self.concat: Concatenation | None = None
        """Joins the recordings, unless another process does."""
        self._unarchived: ViddiffError | OSError | None = None
        """Why weights of files that are done are not in the archive."""
        self._settled: dict[str, Seen | None] = {}
        """Units that are done or have failed, by name, with their source at that time."""
        self._late = set[str]()
        """Names of units that wait, as was reported."""

    def run_pass(self, units: list[Unit], tell: Report, watch: Watch) -> float | None:
        """Look at all units that are new or have changed, and encode what is to do.

        Returns the seconds until a unit that is too young now is old enough. None: there is no such unit.
        """
        self._files.begin(self._dry_run)
        looked, due = time.monotonic(), list[float]()
        to_do, waiting = self._look_at(units, due, tell)
        self.check_means([unit for unit, _ in to_do])
        if self._dry_run:
            for unit, seen in to_do:
                tell(Outcome(unit, "planned", size=seen.size))
            return None
        if self._job.min_age and to_do:
            time.sleep(max(looked + LOOK_APART - time.monotonic(), 0))
        if self.concat is not None:
            self.concat.periods.expect([*waiting, *to_do])
        sources = {unit.name: seen for unit, seen in to_do}
        for outcome in self._outcomes(to_do, watch):
            if outcome.state == "waiting":
                due.append(self._job.min_age)
            self._tell(outcome, sources[outcome.unit.name], tell)
            if self.concat is not None:
                self.concat.periods.settle(outcome)
                if self._execute is None:  # or else others write to the manifest meanwhile
                    self._join(outcome.unit, tell, watch)
        self._join(None, tell, watch)
        if self._unarchived is not None:
            raise self._unarchived
        over = None if self.concat is None else self.concat.periods.due()
        passed = time.monotonic() - looked
        left = [seconds - passed for seconds in due] + ([] if over is None else [over])
        return max(min(left), 0) if left else None

    def _look_at(
        self, units: list[Unit], due: list[float], tell: Report
    ) -> tuple[list[tuple[Unit, Seen]], list[tuple[Unit, Seen]]]:
        """Look at units that are new or have changed: those that are to be encoded, and those that wait.

        due: gets the seconds until they are old enough. All other outcomes are told.
        """
        to_do, waiting = list[tuple[Unit, Seen]](), list[tuple[Unit, Seen]]()
        for unit in units:
            now = _seen_now(unit)
            if self._settled.get(unit.name, _NEVER) == now:
                continue
            outcome = self.look(unit)
            if isinstance(outcome, Seen):
                to_do.append((unit, outcome))
                continue
            if outcome.state == "waiting" and now is not None:
                due.append(outcome.due)
                waiting.append((unit, now))
            self._tell(outcome, now, tell)
        return to_do, waiting

    def _join(self, unit: Unit | None, tell: Report, watch: Watch) -> None:
        """Join what can be joined, of the camera of a unit or of all."""
        if self.concat is None:
            return

        def show(unit: Unit, size: int, status: Status) -> None:
            watch(Progress(unit, 1, 1, 0, size, status))

        for outcome in self.concat.joined(show, unit):
            tell(outcome)

    def _tell(self, outcome: Outcome, seen: Seen | None, tell: Report) -> None:
        """Report an outcome. seen: the source that it is about. That a unit waits is reported once."""
        name = outcome.unit.name
        if outcome.state != "waiting":
            self._late.discard(name)
            self._settled[name] = seen
        elif name in self._late:
            return
        else:
            self._late.add(name)
        tell(outcome)

    def look(self, unit: Unit) -> Outcome | Seen:
        """What is clear about a unit before anything is encoded, or its source as it is now."""
        try:
            if unit.problem and unit.source.exists():
                raise OSError(errno.EACCES, unit.problem)
            seen = Seen.listed(unit.source)
            record = self._done(unit, seen)
            too_large = self._too_large_before(unit, seen)
        except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
            return self._without_source(unit, error)
        if record is not None:
            return self._was_done(unit, seen, record)
        if too_large is not None:
            return Outcome(unit, "too_large", too_large, seen.size)
        age = time.time() - seen.mtime_ns / 1e9
        if abs(age) < self._job.min_age:  # times far in the future are of a clock that is wrong
            reason = f"changed {max(age, 0):.0f} s ago, it may still be written"
            return Outcome(unit, "waiting", reason, seen.size, due=self._job.min_age - age)
        if self._job.older_than and age < self._job.older_than:
            due = self._job.older_than - age
            return Outcome(unit, "waiting", "not old enough for --older-than", seen.size, due=due)
        return seen

    def check_means(self, units: list[Unit]) -> None:
        """Raises ViddiffError unless there is what all units need: device, weights, what measures VMAF.

        The weights are archived, unless this is a dry run.
        """
        choose_device(self._job.encode.device, self._job.encode.engine)
        if units and self._job.encode.quality_goal is not None:
            from viddiff.pipeline.measures import choose

            choose((self._job.encode.quality_goal.metric,))
        for weights in {self._weights_of(unit) for unit in units}:
            path = weights_to_encode(weights, self._job.encode.base)
            if not stated_hash(path):
                load_weights(path)  # which says what is wrong with it
            if not self._dry_run:
                self.archive.keep(path)

    def _outcomes(self, to_do: list[tuple[Unit, Seen]], watch: Watch) -> Iterable[Outcome]:
        """Encode units, here or elsewhere."""
        if self._execute is None:
            return self._encode_here(to_do, watch)
        return self._execute(self._job, self._manifest, to_do)

    def _encode_here(self, to_do: list[tuple[Unit, Seen]], watch: Watch) -> Iterator[Outcome]:
        """Encode units one after the other."""
        all_bytes, done_bytes = sum(seen.size for _, seen in to_do), 0
        for number, (unit, seen) in enumerate(to_do, 1):

            def observe(
                status: Status, unit: Unit = unit, number: int = number, before: int = done_bytes
            ) -> None:
                watch(Progress(unit, number, len(to_do), before, all_bytes, status))

            yield self.attempt(unit, seen, observe)
            done_bytes += seen.size

    def _weights_of(self, unit: Unit) -> "str | os.PathLike[str] | None":
        return self._job.weights.weights_of(unit.name) or self._job.encode.weights

    def _path(self, unit: Unit) -> Path:
        return self._job.target / unit.output

    def _done(self, unit: Unit, seen: Seen) -> Record | None:
        """The record of a unit whose file is there and belongs to its source as it is now."""
        joined = joined_record(self._manifest, self._job.target, unit, seen.size, seen.mtime_ns)
        if joined is not None:
            return joined
        for output in dict.fromkeys((unit.output, replace(unit, place="").output)):
            for record in reversed(records_of(self._manifest, self._files, output)):
                if self._fits(record, seen) and not self._lacks_pictures(record):
                    return record
        return None

    def _lacks_pictures(self, record: Record) -> bool:
        """Whether a recording that is to be joined cannot be verified then."""
        return record.begins is not None and self._job.encode.verify and record.pictures is None

    def _fits(self, record: Record, seen: Seen) -> bool:
        """Whether a record is of a source as it is now, and of the target that is wanted now."""
        same_source = (record.size, record.mtime_ns) == (seen.size, seen.mtime_ns)
        return same_source and record.target == self._job.encode.wanted

    def _too_large_before(self, unit: Unit, seen: Seen) -> str | None:
        """Why an earlier run made no file of a unit that would not pay, if nothing has changed since."""
        if self._job.encode.max_encoded_percent is None:
            return None
        for record in reversed(self._manifest.finished(unit.output)):
            fits = record.too_large is not None and self._fits(record, seen)
            if fits and record.options == self._options_of(unit):
                return record.too_large
        return None

    def _options_of(self, unit: Unit) -> str:
        """Hash of the options and the weights of a unit. Raises CheckpointError."""
        weights = stated_hash(weights_to_encode(self._weights_of(unit), self._job.encode.base))
        text = json.dumps({**self._job.encode.choices(), "weights": weights}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _without_source(self, unit: Unit, error: Exception) -> Outcome:
        """A unit whose source or file cannot be read: done and deleted, or a failure."""
        if isinstance(error, FileNotFoundError):
            record = self._done_and_deleted(unit)
            if record is not None:
                if not self._dry_run:
                    self._archived(record)
                return Outcome(unit, "skipped", record=record)
        return self._failed(unit, None, unit.problem or reason_of(error), 0.0)

    def _done_and_deleted(self, unit: Unit) -> Record | None:
        """The record of a verified file that is there, of a source that is not. Raises OSError."""
        self._files.learn(unit.output, self._manifest)
        records = [*self._manifest.finished(unit.output), *self._manifest.joined(unit.name)]
        for record in reversed(records):
            if record.verified and self._files.size(record.output) == record.bytes:
                return record
        return None

    def _archived(self, record: Record) -> bool:
        """Whether the weights of a finished file are in the archive. If not, the batch ends with an error."""
        try:
            if record.weights is not None:
                self.archive.keep_for(record.weights)
        except (ViddiffError, OSError) as error:
            self._unarchived = error
            return False
        return True

    def _was_done(self, unit: Unit, seen: Seen, record: Record) -> Outcome:
        """A unit that an earlier run has finished: remove what that run left, and the source if it may go."""
        if self._dry_run:
            return Outcome(unit, "skipped", size=seen.size, record=record)
        if not self._archived(record):
            return Outcome(unit, "skipped", "the source is kept: weights are missing", seen.size, record)
        path = self._path(unit)
        self._tidy(path, parts_of(path))
        self._files.clear(unit.output)
        return self._finished(Outcome(unit, "skipped", size=seen.size, record=record), seen)

    def attempt(self, unit: Unit, seen: Seen, observe: Observer) -> Outcome:
        """Encode a unit. Raises only what ends the whole batch."""
        began = time.monotonic()
        try:
            if not unit.source.exists():
                return Outcome(unit, "waiting", "it was removed meanwhile", seen.size)
            if Seen.of(unit.source) != seen:
                raise _SourceGrew
            outcome = self._make(unit, seen, began, observe)
        except ManifestError:
            raise
        except Exception as error:  # of whatever kind: the other units do not depend on it
            if isinstance(error, OSError) and error.errno in FULL:
                raise OutputError(f"{self._job.target}: {error.strerror}; run it again to go on") from error
            if self._changed(unit, seen):
                return Outcome(unit, "waiting", "it changed while it was looked at", seen.size)
            if isinstance(error, TooLargeError):
                return self._too_large(unit, seen, str(error), time.monotonic() - began)
            return self._failed(unit, seen, reason_of(error), time.monotonic() - began)
        return self._finished(outcome, seen)

    def _make(self, unit: Unit, seen: Seen, began: float, observe: Observer) -> Outcome:
        """Encode a unit, unless an earlier run has, and deliver its file, unless another batch has."""
        if self._files.is_taken(unit.output):
            if (record := self._done(unit, seen)) is None:
                raise occupied(self._files.at(unit.output))
            return Outcome(unit, "skipped", "another batch has made its file meanwhile", seen.size, record)
        record = self._undelivered(unit, seen) or self._encode(unit, seen, began, observe)
        if self._files is not self._made:
            observe(Status("upload", 0, None))
        there, remark = self._files.deliver(record)
        return Outcome(unit, "done" if there is record else "skipped", remark, seen.size, there)

    def _undelivered(self, unit: Unit, seen: Seen) -> Record | None:
        """The record of a file that an earlier run has made and not delivered."""
        if self._files is self._made:
            return None
        records = records_of(self._manifest, self._made, unit.output)
        return next((record for record in reversed(records) if self._fits(record, seen)), None)

    def _encode(self, unit: Unit, seen: Seen, began: float, observe: Observer) -> Record:
        """Encode a unit, and return its line in the manifest."""
        path, written, joins = self._path(unit), list[Record](), self._job.concat is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        replaces = self._may_replace(unit, path)
        self._tidy(path, ())

        def announce(coded: CodedFile) -> None:
            if self._changed(unit, seen):
                raise _SourceGrew(f"{unit.source} has changed")
            self.archive.keep_for(coded.model_hash.hex())
            begins = beginning(unit.path, seen.mtime_ns, coded.seconds) if joins else None
            record = Record(
                time=now(),
                source=str(unit.source),
                size=seen.size,
                mtime_ns=seen.mtime_ns,
                output=unit.output,
                bytes=coded.size_bytes,
                sha256=coded.sha256,
                weights=coded.model_hash.hex(),
                frames=coded.frames,
                seconds=round(time.monotonic() - began, 3),
                verified=self._job.encode.verify and not joins,
                notes=coded.notes,
                target=self._job.encode.wanted,
                begins=begins.isoformat() if begins is not None else None,
                duration=round(coded.seconds, 6),
                pictures=coded.pictures if joins else None,
            )
            self._manifest.append(record)
            written.append(record)

        with self._at_hand(unit, seen, observe) as source:
            job = replace(
                self._job.encode,
                source=source,
                target=path,
                weights=self._weights_of(unit),
                resume=not self._job.encode.verify and not self._job.encode.size_is_wanted,
                verify=self._job.encode.verify and not joins,
                force=replaces,
                shorten=False,
            )
            _encode_or_restart(job, observe, announce)
        return written[-1]

    @contextmanager
    def _at_hand(self, unit: Unit, seen: Seen, observe: Observer) -> Iterator[Path]:
        """The source of a unit as a file on this machine. Errors name it as the user does."""
        if isinstance(unit.source, Path):
            yield unit.source
            return
        observe(Status("fetch", 0, None))
        with copy_here(unit.source, self._copies, unit.name, seen.size, seen.mtime_ns) as path:
            try:
                yield path
            except ViddiffError as error:
                error.args = (str(error).replace(str(path), str(unit.source)),)
                raise

    def _tidy(self, path: Path, others: Iterable[Path]) -> None:
        """Remove what a run that was killed while it wrote `path` has left: temporary files and `others`."""
        if not hidden_beside(path, ".lock").exists():
            return
        output = OutputFile(path, False, is_vdf, "")
        with suppress(OutputError, OSError), output.claim():
            for left in (*output.temporaries(), *others):
                left.unlink(missing_ok=True)

    def _may_replace(self, unit: Unit, path: Path) -> bool:
        """Whether there is a file that this batch has written of an older state of the source.

        Raises OutputError if there is another file.
        """
        if not os.path.lexists(path):
            return False
        if path.is_file():
            size = path.stat().st_size
            known = {record.sha256 for record in self._manifest.finished(unit.output) if record.bytes == size}
            if known and sha256_of(path) in known:
                return True
        raise OutputError(
            f"{path} exists, but not as the manifest records it: remove it or choose another OUT"
        )

    def _failed(self, unit: Unit, seen: Seen | None, reason: str, seconds: float) -> Outcome:
        """Record a failure."""
        if not self._dry_run:
            self._manifest.append(failure(unit, seen, reason, seconds))
        return Outcome(unit, "failed", reason, seen.size if seen is not None else None)

    def _too_large(self, unit: Unit, seen: Seen, reason: str, seconds: float) -> Outcome:
        """Record that a file would not pay. Its source is the only copy."""
        options = self._options_of(unit)
        record = Record(
            time=now(),
            source=str(unit.source),
            size=seen.size,
            mtime_ns=seen.mtime_ns,
            output=unit.output,
            seconds=round(seconds, 3),
            target=self._job.encode.wanted,
            too_large=reason,
            options=options,
        )
        self._manifest.append(record)
        return Outcome(unit, "too_large", reason, seen.size)

    def _finished(self, done: Outcome, seen: Seen) -> Outcome:
        """Delete the source of a finished unit, if that is asked for and the file certainly replaces it."""
        unit, record = done.unit, done.record
        assert record is not None
        if not self._job.delete_source or (record.begins is not None and not record.recordings):
            return done  # a recording that is still to be joined keeps its source
        if done.state == "done" and self._files is self._made:
            self.remover.trust(record)
        mine = [recording.notes for recording in record.recordings if recording.name == unit.name]
        try:
            reason = self.remover.remove(unit.source, seen, record, mine[0] if mine else record.notes)
        except (OSError, ViddiffError) as error:
            reason = f"it is encoded, but its source is kept: {reason_of(error)}"
            return replace(done, state="failed", reason=reason)
        return replace(done, reason=reason, deleted=not reason)

    def _changed(self, unit: Unit, seen: Seen) -> bool:
        """Whether a source is there and no longer as it was."""
        try:
            return Seen.of(unit.source) != seen
        except OSError:
            return False


def _seen_now(unit: Unit) -> Seen | None:
    """A unit's source as it is now. None if it cannot be read."""
    try:
        return Seen.listed(unit.source)
    except (OSError, ValueError):
        return None


def _encode_or_restart(job: EncodeJob, observe: Observer, announce: Announce) -> None:
    """Encode, from what an earlier run has coded if that is of the same job."""
    try:
        encode_file(job, observe, announce)
    except ResumeError:
        encode_file(replace(job, resume=False), observe, announce)
