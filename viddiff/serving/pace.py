"""Keep pace with playback: on a slow machine, pictures are made at less cost."""

from dataclasses import dataclass, replace
from fractions import Fraction

_WINDOW = 2.0
"""Seconds of video, or half of the seconds of work, after which the pace is judged."""
_TOO_SLOW, _FAR_TOO_SLOW = 1.0, 1.5
"""Seconds of work for a second of video: in two windows, or in one, before something changes."""
_WORTH_A_CHANGE = 0.2
"""Share of the work that encoding has to be for smaller pictures to help. Decoding takes as long."""
_LEAST_SCALE = Fraction(1, 4)


@dataclass(frozen=True)
class Rendition:
    """How pictures are made."""

    base_only: bool = False
    """The frames of an AV1 base are shown as they are, without networks."""
    scale: Fraction = Fraction(1)
    """Of both sides."""

    def __str__(self) -> str:
        parts = ["without enhancement"] * self.base_only
        parts += [f"at 1/{self.scale.denominator} of their size"] * (self.scale < 1)
        return " and ".join(parts) or "as they are stored"


class Pace:
    """Measures how fast pictures are made, and chooses the rendition. It never goes back by itself."""

    def __init__(self, base: bool, first: Rendition) -> None:
        """base: whether the movie has an AV1 base, which can be shown without networks."""
        self._base, self._first = base, first
        self.reset()

    def reset(self) -> None:
        """Begin with the first rendition again."""
        self.rendition, self._slow, self._given_up = self._first, False, False
        self._begin()

    def _begin(self) -> None:
        self._shown = self._decoding = self._encoding = 0.0

    def add(self, shown: float, decoding: float, encoding: float) -> str:
        """Count a picture that is shown for `shown` seconds, and the seconds that it took.

        Returns what to tell the user if that changes something, "" otherwise.
        """
        self._shown += shown
        self._decoding += decoding
        self._encoding += encoding
        work = self._decoding + self._encoding
        if self._shown < _WINDOW and work < 2 * _WINDOW:
            return ""
        cost, before = work / max(self._shown, 1e-9), self._slow
        cheaper = self._cheaper()
        self._slow = cost > _TOO_SLOW
        self._begin()
        if not self._slow or not (before or cost > _FAR_TOO_SLOW):
            return ""
        takes = f"this machine takes {cost:.1f} s to make a second of video"
        if cheaper is None:
            said, self._given_up = self._given_up, True
            return "" if said else f"{takes}: playback will pause to load"
        self.rendition, self._slow = cheaper, False
        return f"{takes}: pictures are now shown {cheaper}; reload the page to try again"

    def _cheaper(self) -> Rendition | None:
        """The next rendition, by what takes longer. None if none would help."""
        if self._decoding > self._encoding and self._base and not self.rendition.base_only:
            return replace(self.rendition, base_only=True)
        matters = self._encoding > _WORTH_A_CHANGE * (self._decoding + self._encoding)
        if matters and self.rendition.scale > _LEAST_SCALE:
            return replace(self.rendition, scale=self.rendition.scale / 2)
        return None
