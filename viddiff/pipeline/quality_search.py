"""Search for the smallest setting that suffices, where values change nearly in proportion to the setting."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import floor

from viddiff.pipeline.status import Observer, Status

_PROPORTIONAL = 4
"""Trials after which the middle is tried, because the values are not in proportion after all."""


@dataclass
class Search:
    """Finds the smallest setting that suffices. All larger ones suffice, too."""

    settings: range
    """All that are possible."""
    slope: float
    """Change of the value with the setting, as expected."""
    slopes: tuple[float, float]
    """Least and largest slope that are possible."""
    points: list[tuple[int, float]] = field(default_factory=list)
    """Settings that were tried, and their values."""
    low: int = field(init=False)
    """Smallest setting that is not known to be too small."""
    high: int = field(init=False)
    """Smallest setting that is known to suffice, or the largest of all."""

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was tried, but not the slope: values will be a little different."""
        self.points, self.low, self.high = [], self.settings[0], self.settings[-1]

    def add(self, setting: int, value: float, suffices: bool) -> None:
        """Take in a trial."""
        for before, known in self.points[-1:]:
            if before != setting:
                self.slope = min(max((value - known) / (setting - before), self.slopes[0]), self.slopes[1])
        self.points.append((setting, value))
        if suffices:
            self.high = min(self.high, setting)
        else:
            self.low = max(self.low, setting + 1)

    def following(self, aim: float) -> int:
        """The setting whose value is probably nearest to `aim`, among those that may be the smallest."""
        setting, value = self.points[-1]
        estimate = floor(setting + (aim - value) / self.slope + 0.5)
        return min(max(estimate, self.low), max(self.high, self.low), self.settings[-1])

    def to_prove(self, aim: float) -> int | None:
        """The setting to try next until the smallest is certain; None when it is `high`, or none suffices."""
        tried = {setting for setting, _ in self.points}
        if self.low > self.high or (self.low == self.high and self.high in tried):
            return None
        if len(self.points) > _PROPORTIONAL:
            return (self.low + self.high) // 2
        setting = self.following(aim)
        return setting - 1 if setting in tried else setting

    @property
    def hopeless(self) -> bool:
        """Whether no setting suffices."""
        return self.low > self.settings[-1]


def named(observer: Observer, stage: str) -> Observer:
    """The observer, told that an encode is this stage."""

    def observe(status: Status) -> None:
        observer(replace(status, stage=stage) if status.stage == "encode" else status)

    return observe


def first_settings(search: Search, first: int, near: int, most: int, attempt: Callable[[int], float]) -> int:
    """The setting that quick trials suggest: at most `most`, until it moves by `near` or less.

    attempt: tries a setting, enters it in the search, and returns the value to aim at.
    """
    setting = first
    for _ in range(most):
        before, setting = setting, search.following(attempt(setting))
        if abs(setting - before) <= near:
            break
    return setting
