"""Which recordings wait to be joined, and when the period in which they begin is closed.

Recordings belong to one camera if they lie in one folder and their names are the same in front of date and
time. Each belongs to the period in which it begins. A period is closed when a recording of a later one has
come, or when no more can come because it is over.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from viddiff.pipeline.batch.job import BatchJob, Outcome
from viddiff.pipeline.batch.manifest import Record
from viddiff.pipeline.batch.recording_times import beginning, seconds_of, stamp_of
from viddiff.pipeline.batch.seen import Seen
from viddiff.pipeline.batch.units import Unit

_ZONES = 12 * 3600
"""Local time is behind UTC by this at most, in seconds."""
_NEVER = float("inf")


class Camera(NamedTuple):
    """What makes recordings those of one camera."""

    folder: str
    """In the names of their units."""
    before: str
    """What stands in front of date and time in the names of their files."""

    @classmethod
    def of(cls, unit: Unit) -> "Camera":
        """The camera of a unit."""
        stamp = stamp_of(unit.path)
        return cls(unit.folder, stamp.before if stamp is not None else "")


class Period(NamedTuple):
    """A period of a camera."""

    camera: Camera
    number: int
    """Counted from 1970."""


@dataclass(frozen=True)
class Waiting:
    """A recording that is encoded, and waits to be joined."""

    unit: Unit
    record: Record
    begins: datetime

    @property
    def end(self) -> float:
        """Seconds from 1970 to its end, by its own clock."""
        return seconds_of(self.begins) + (self.record.duration or 0)

    def gap(self, before: "Waiting") -> float:
        """Seconds from the end of another recording to its beginning; less than 0 if they overlap."""
        return seconds_of(self.begins) - before.end


@dataclass
class _Expected:
    """What is still to be encoded of a camera."""

    periods: Counter[int | None] = field(default_factory=Counter)
    """How many recordings begin in each period; None: nobody knows when."""
    latest: int | None = None
    """The last period in which a recording begins, encoded or not."""

    def saw(self, period: int | None) -> None:
        """Know of a recording."""
        if period is not None and (self.latest is None or period > self.latest):
            self.latest = period


class Periods:
    """The recordings of a batch by camera and period."""

    def __init__(self, job: BatchJob) -> None:
        assert job.concat is not None
        self._job, self._seconds = job, job.concat
        self._waiting: dict[Period, dict[str, Waiting]] = defaultdict(dict)
        """By the name of their unit."""
        self._expected: dict[Camera, _Expected] = defaultdict(_Expected)
        self._coming: dict[str, tuple[Camera, int | None]] = {}
        """Camera and period of recordings that are still to be encoded, by the name of their unit."""

    @property
    def waiting(self) -> int:
        """How many recordings wait."""
        return sum(map(len, self._waiting.values()))

    def expect(self, units: Iterable[tuple[Unit, Seen]]) -> None:
        """Say which recordings are not encoded yet."""
        self._coming.clear()
        for expected in self._expected.values():
            expected.periods.clear()
        for unit, seen in units:
            begins = beginning(unit.path, seen.mtime_ns)
            camera, period = Camera.of(unit), None if begins is None else self._number(begins)
            self._coming[unit.name] = camera, period
            self._expected[camera].periods[period] += 1
            self._expected[camera].saw(period)

    def settle(self, outcome: Outcome) -> None:
        """Say what has become of a recording that was expected."""
        if outcome.state == "waiting":
            return
        self._forget(outcome.unit)
        if outcome.unit.name in self._coming:
            camera, period = self._coming.pop(outcome.unit.name)
            self._expected[camera].periods[period] -= 1
        if outcome.record is not None:
            self.add(outcome.unit, outcome.record)

    def add(self, unit: Unit, record: Record) -> None:
        """Let a recording wait. Files that are not to be joined do not."""
        if record.begins is None or record.recordings:
            return
        begins = datetime.fromisoformat(record.begins)
        period = Period(Camera.of(unit), self._number(begins))
        self._waiting[period][unit.name] = Waiting(unit, record, begins)
        self._expected[period.camera].saw(period.number)

    def closed(self, unit: Unit | None) -> list[Period]:
        """Closed periods with recordings that wait, of the camera of a unit or of all."""
        camera = None if unit is None else Camera.of(unit)
        return [p for p in sorted(self._waiting) if camera in (None, p.camera) and self._left(p) <= 0]

    def take(self, period: Period) -> list[Waiting]:
        """The recordings of a period, in the order of their beginnings. They wait no longer."""
        found = [it for name, it in self._waiting.pop(period).items() if name not in self._coming]
        return sorted(found, key=lambda waiting: (waiting.begins, waiting.unit.name))

    def due(self) -> float | None:
        """Seconds until a period is over. None: none is open, or its recordings are still to come."""
        left = [self._left(period) for period in self._waiting]
        return min((seconds for seconds in left if seconds < _NEVER), default=None)

    def _forget(self, unit: Unit) -> None:
        """Forget an older state of a recording."""
        camera = Camera.of(unit)
        for period in [p for p in self._waiting if p.camera == camera and unit.name in self._waiting[p]]:
            del self._waiting[period][unit.name]
            if not self._waiting[period]:
                del self._waiting[period]

    def _number(self, begins: datetime) -> int:
        return int(seconds_of(begins) // self._seconds)

    def _left(self, period: Period) -> float:
        """Seconds until a period is closed: 0 or less if it is, `_NEVER` if that depends on others."""
        expected = self._expected[period.camera]
        if expected.periods[period.number]:
            return _NEVER
        if expected.latest is not None and expected.latest > period.number:
            return 0
        if expected.periods[None]:
            return _NEVER
        if not self._job.watch and not self._job.min_age:
            return 0
        end, now = (period.number + 1) * self._seconds, time.time()
        last = max(self._waiting[period].values(), key=lambda waiting: waiting.begins)
        since = abs(now - (last.record.mtime_ns or 0) / 1e9)  # it was written to its end then
        by_clock, by_change = end + _ZONES - now, max(end - last.end, 0) - since
        return min(by_clock, by_change) + self._job.min_age
