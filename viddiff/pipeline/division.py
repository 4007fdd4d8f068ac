"""How work is divided between processes: whole GOPs, or the mini-GOPs of each GOP.

GOPs are independent. The mini-GOPs of one GOP are not, because anchors depend on each other. So every process
codes all keyframes and anchors, and the other frames of its own mini-GOPs only.
"""

from dataclasses import dataclass
from enum import Enum


class Unit(Enum):
    """Unit of a job."""

    GOP = "GOP"
    MINI_GOP = "mini-GOP"


@dataclass(frozen=True)
class Division:
    """How work is divided."""

    workers: int = 1
    unit: Unit = Unit.GOP


@dataclass(frozen=True)
class Share:
    """Jobs of one process: all whose number modulo the number of workers is `number`."""

    division: Division = Division()
    number: int = 0

    def has(self, job: int) -> bool:
        """True if the job with this number (from 0) belongs to the share."""
        return job % self.division.workers == self.number
