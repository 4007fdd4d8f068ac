"""Keep pace with playback: while a machine is too slow, pictures are made at less cost."""

from dataclasses import dataclass, replace
from fractions import Fraction

_WINDOW = 2.0
"""Seconds of video, or half of the seconds of work, after which the pace is judged."""
_TOO_SLOW, _FAR_TOO_SLOW = 1.0, 1.5
"""Seconds of work for a second of video: in two windows, or in one, before something changes."""
_WORTH_A_CHANGE = 0.2
"""Share of the work that encoding has to be for smaller pictures to help. Decoding takes as long."""
_LEAST_SCALE = Fraction(1, 4)
_LEAST_SIDE = 180
"""Pictures are not made smaller than this, in samples: what is left does not take long."""
_EASY = 0.5
"""Seconds of work for a second of video, at which more may be possible."""
_PATIENCE = 15
"""Easy windows in a row before more is tried. Twice as many after each try that fails."""


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
    """Measures how fast pictures are made, and chooses the rendition."""

    def __init__(self, base: bool, first: Rendition, side: int) -> None:
        """base: whether the movie has an AV1 base, which can be shown without networks. side: the shorter."""
        self._base, self._first, self._side = base, first, side
        self.reset()

    def reset(self) -> None:
        """Begin with the first rendition again."""
        self.rendition, self._slow, self._given_up = self._first, False, False
        self._better: list[Rendition] = []
        self._easy, self._patience, self._tried = 0, _PATIENCE, False
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
        # decoders make several frames at once, so that the first of them seems to take the time of all
        cost = work / max(self._shown, _WINDOW / 2)
        cheaper, before = self._cheaper(), self._slow
        self._slow = cost > _TOO_SLOW
        self._begin()
        if cost > _FAR_TOO_SLOW or (self._slow and before):
            return self._do_less(cost, cheaper)
        return self._try_more(cost)

    def _do_less(self, cost: float, cheaper: Rendition | None) -> str:
        self._easy = 0
        takes = f"this machine takes {cost:.1f} s to make a second of video"
        if cheaper is None:
            said, self._given_up = self._given_up, True
            return "" if said else f"{takes}: playback will pause to load"
        if self._tried:
            self._patience *= 2
        self._better.append(self.rendition)
        self.rendition, self._slow, self._tried = cheaper, False, False
        return f"{takes}: pictures are now shown {cheaper}"

    def _try_more(self, cost: float) -> str:
        self._easy = self._easy + 1 if cost < _EASY else 0
        if not self._better or self._easy < self._patience:
            return ""
        self.rendition, self._easy, self._tried = self._better.pop(), 0, True
        return f"this machine has time to spare: pictures are now shown {self.rendition}"

    def _cheaper(self) -> Rendition | None:
        """The next rendition, by what takes longer. None if none would help."""
        if self._decoding > self._encoding and self._base and not self.rendition.base_only:
            return replace(self.rendition, base_only=True)
        matters = self._encoding > _WORTH_A_CHANGE * (self._decoding + self._encoding)
        scale = self.rendition.scale / 2
        if matters and scale >= _LEAST_SCALE and scale * self._side >= _LEAST_SIDE:
            return replace(self.rendition, scale=scale)
        return None
