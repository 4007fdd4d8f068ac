"""Options of a batch, and what becomes of its units."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from viddiff.pipeline.batch.manifest import Record
from viddiff.pipeline.batch.servers.place import Place, is_remote
from viddiff.pipeline.batch.units import WORKING, Shard, Unit
from viddiff.pipeline.batch.weights_map import WeightsMap
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.status import Status


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """Options of a batch."""

    sources: Sequence[str]
    """Folders, files and globs, here or on servers, and `@` with the name of a file that lists them."""
    target: Path
    """Folder of the new tree and its manifest. With `remote`: of the manifest and of work in progress."""
    remote: Place | None = None
    """Folder of the new tree, if that is on a server."""
    encode: EncodeJob
    """Options of every encode. Its source and target are replaced."""
    weights: WeightsMap = field(default_factory=WeightsMap)
    """Weights by unit. Others are encoded with those of `encode`."""
    min_age: float = 60.0
    """Seconds since its last change that a source is left alone, because it may still be written."""
    older_than: float = 0.0
    """Seconds since its last change that a source must have."""
    delete_source: bool = False
    """Delete a source when its file is verified and recorded."""
    shard: Shard = field(default_factory=Shard)
    """The part of the units that is done here."""
    concat: float | None = None
    """Join the recordings of a camera: one file for each period of so many seconds. None: do not join."""
    watch: bool = False
    """Go on until a signal comes: take up what is new or has changed."""
    poll: float | None = None
    """Seconds between two looks at all sources. None: the operating system reports changes."""

    def __post_init__(self) -> None:
        if self.delete_source and not self.encode.verify:
            raise ValueError("a source is deleted only if its file is verified")
        if self.encode.secret is not None:
            raise ValueError("a batch encodes without encryption")
        if self.encode.adapt is not None:
            raise ValueError("a batch tunes no networks: train some for all its videos")
        if self.concat is not None and self.concat < 1:
            raise ValueError("--concat needs a time of 1s or more")
        if self.concat is not None and self.encode.wanted is not None:
            raise ValueError("--concat joins recordings of one quality: give no target")
        self.check_places(self.remote is not None or any(map(is_remote, self.sources)))
        if self.poll is not None and not self.watch:
            raise ValueError("--poll says how --watch looks for new files: give both")
        if self.poll is not None and self.poll <= 0:
            raise ValueError("--poll needs a time longer than 0s")

    def check_places(self, remote: bool) -> None:
        """Raises ValueError if something is asked for that servers cannot do. remote: whether one is used."""
        if remote and self.watch:
            raise ValueError(
                "--watch needs SRC and OUT on this machine: run the batch again and again instead"
            )
        if remote and self.concat is not None:
            raise ValueError("--concat needs SRC and OUT on this machine")

    def here(self, units: Iterable[Unit]) -> list[Unit]:
        """The units that are done here, each with the place of its file. All of a folder are joined here."""
        if self.concat is None:
            return [unit for unit in units if self.shard.holds(unit.name)]
        return [replace(unit, place=f"{WORKING}/") for unit in units if self.shard.holds(unit.folder)]


@dataclass(frozen=True)
class Outcome:
    """What became of a unit."""

    unit: Unit
    state: str
    """"done", "skipped" (done before), "too_large" (it would not pay, found now or before), "waiting" (too
    young, or it grows), "failed", "planned", or "joined" of a file that recordings were joined to."""
    reason: str = ""
    """Why it waits, has failed, is too large, keeps its source, or ends before the period does."""
    size: int | None = None
    """Of the source, in bytes."""
    record: Record | None = None
    """Of its file, if there is one."""
    deleted: bool = False
    """Whether the source was deleted."""
    due: float = 0.0
    """Seconds until a source that waits is old enough."""


@dataclass(frozen=True)
class Progress:
    """Where a batch stands, while a unit is encoded."""

    unit: Unit
    number: int
    """Of the unit among those to encode, from 1."""
    count: int
    """How many units there are to encode."""
    done_bytes: int
    """Bytes of the sources before it."""
    all_bytes: int
    """Bytes of all sources to encode."""
    status: Status
    """Of the unit's encode."""


@dataclass
class BatchSummary:
    """Totals of a batch."""

    done: int = 0
    skipped: int = 0
    planned: int = 0
    too_large: int = 0
    joined: int = 0
    """Files that recordings were joined to."""
    unjoined: int = 0
    """Recordings that are encoded, and wait for the end of their period."""
    source_bytes: int = 0
    """Of what was done now."""
    output_bytes: int = 0
    failed: dict[str, Outcome] = field(default_factory=dict)
    """By the unit's name."""
    late: set[str] = field(default_factory=set)
    """Names of units that wait."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Files that are no videos by their extension, by extension."""

    @property
    def failures(self) -> list[Outcome]:
        """Outcomes of units that have failed."""
        return list(self.failed.values())

    @property
    def waiting(self) -> int:
        """How many units wait."""
        return len(self.late)

    @property
    def count(self) -> int:
        """How many outcomes there were."""
        encoded = self.done + self.skipped + self.joined
        return encoded + self.too_large + self.planned + self.waiting + len(self.failures)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome. Of units that wait or have failed, the last outcome counts."""
        name = outcome.unit.name
        self.failed.pop(name, None)
        self.late.discard(name)
        if outcome.state == "failed":
            self.failed[name] = outcome
        elif outcome.state == "waiting":
            self.late.add(name)
        else:
            setattr(self, outcome.state, getattr(self, outcome.state) + 1)
        if outcome.state == "done" and outcome.record is not None:
            self.source_bytes += outcome.size or 0
            self.output_bytes += outcome.record.bytes or 0


Watch = Callable[[Progress], None]
"""Sees a unit being encoded."""
Report = Callable[[Outcome], None]
"""Gets the outcome of each unit."""
