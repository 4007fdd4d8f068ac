"""Options of a batch, and what becomes of its units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viddiff.pipeline.batch.manifest import Record
from viddiff.pipeline.batch.units import Shard, Unit
from viddiff.pipeline.batch.weights_map import WeightsMap
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.status import Status


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """Options of a batch."""

    sources: Sequence[str]
    """Folders, files, globs, and `@` with the name of a file that lists them."""
    target: Path
    """Folder of the new tree and its manifest."""
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

    def __post_init__(self) -> None:
        if self.delete_source and not self.encode.verify:
            raise ValueError("a source is deleted only if its file is verified")
        encode = self.encode
        if encode.has_target or encode.max_encoded_percent is not None or encode.secret is not None:
            raise ValueError("a batch encodes to a quality, and without encryption")


@dataclass(frozen=True)
class Outcome:
    """What became of a unit."""

    unit: Unit
    state: str
    """"done", "skipped" (done before), "waiting" (too young, or it grows), "failed" or "planned"."""
    reason: str = ""
    """Why it waits, has failed, or keeps its source."""
    size: int | None = None
    """Of the source, in bytes."""
    record: Record | None = None
    """Of its file, if there is one."""
    deleted: bool = False
    """Whether the source was deleted."""


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
    waiting: int = 0
    planned: int = 0
    source_bytes: int = 0
    """Of what was done now."""
    output_bytes: int = 0
    failures: list[Outcome] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    """Files that are no videos by their extension, by extension."""

    @property
    def count(self) -> int:
        """How many outcomes there were."""
        return self.done + self.skipped + self.waiting + self.planned + len(self.failures)

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if outcome.state == "failed":
            self.failures.append(outcome)
        else:
            setattr(self, outcome.state, getattr(self, outcome.state) + 1)
        if outcome.state == "done" and outcome.record is not None:
            self.source_bytes += outcome.size or 0
            self.output_bytes += outcome.record.bytes or 0


Watch = Callable[[Progress], None]
"""Sees a unit being encoded."""
Report = Callable[[Outcome], None]
"""Gets the outcome of each unit."""
