"""Damage of a file: which frames were lost, and how a message names them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

_NAMED = 8
"""Largest number of stretches of lost frames in a message."""


@dataclass
class Damage:
    """Lost frames among those from `start` to before `stop`, and the faults that cost them."""

    start: int
    stop: int
    lost: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of each stretch of lost frames."""
    faults: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set, repr=False)

    def blame(self, faults: Iterable[str]) -> None:
        """Add these faults, each once. There may be millions."""
        new = [fault for fault in dict.fromkeys(faults) if fault not in self._known]
        self._known.update(new)
        self.faults += new

    @property
    def frames(self) -> int:
        """Number of lost frames."""
        return sum(last - first + 1 for first, last in self.lost)

    def lose(self, first: int, last: int) -> None:
        """Mark frames `first` to `last` as lost, if they were asked for."""
        first, last = max(first, self.start), min(last, self.stop - 1)
        if first > last:
            return
        if self.lost and self.lost[-1][1] == first - 1:
            first = self.lost.pop()[0]
        self.lost.append((first, last))

    def __bool__(self) -> bool:
        return bool(self.lost or self.faults)

    def __str__(self) -> str:
        spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in self.lost[:_NAMED]]
        more = [f"{len(self.lost) - _NAMED} more stretches"] if len(self.lost) > _NAMED else []
        first = self.faults[0] if self.faults else "chunks are missing"
        if not spans:
            return f"the file is damaged, but no frame is known to be lost ({first})"
        return (
            f"{self.frames} frames are lost and shown as the one before: {', '.join(spans + more)} ({first})"
        )
