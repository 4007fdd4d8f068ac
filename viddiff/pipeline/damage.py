"""What could not be decoded, and how a message names it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

_NAMED = 8
"""Stretches of lost frames that a message names."""


@dataclass
class Damage:
    """What could not be decoded of the frames from `start` to before `stop`."""

    start: int
    stop: int
    lost: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of frames that follow each other."""
    faults: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set, repr=False)

    def blame(self, faults: Iterable[str]) -> None:
        """Note these faults, each once; there may be millions."""
        new = [fault for fault in dict.fromkeys(faults) if fault not in self._known]
        self._known.update(new)
        self.faults += new

    @property
    def frames(self) -> int:
        """How many were lost."""
        return sum(last - first + 1 for first, last in self.lost)

    def lose(self, first: int, last: int) -> None:
        """Note that frames `first` to `last` are lost, as far as they were asked for."""
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
