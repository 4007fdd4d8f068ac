"""Choose the background of each GOP: a picture of what does not move, made of its frames or of earlier ones.

    GOP -> a known background fits its first frame -> that one
        -> its frames show the same place          -> a new one, the mean of each sample's middle values,
                                                      unless the GOP is the last one
        -> otherwise                               -> none: the GOP has a keyframe

In low delay nothing waits, so a new background is made of the GOP before.

How well a picture predicts another one is its *remainder*: what it misses of what a block's mean misses, 0
(nothing) to 1 (it is of no use). On still scenes it is 0.1 to 0.4, for moving cameras 0.8 to 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.container.format import MOST_BACKGROUNDS
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import MOST_WAITING
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_background import LEAST_FRAMES

_MOST_WAITING_BYTES = 1 << 28
_SAMPLES = 16
"""Frames that a background is made of."""
_LEAST_SAMPLES = 8
"""Different ones among them, at least."""
_MIDDLE = slice(4, 12)
"""Samples, in order of their size, whose mean is the background's."""
_STILL, _LARGEST = 0.55, 0.75
"""Remainders, on average and at most, of frames that a new background is made for."""
_FITS = 0.75
"""Largest remainder of a GOP's first frame if a known background serves it."""
_RENEWAL = 0.75
"""Sum of the remainders of GOPs' first frames, less the background's own, after which another is considered:
the light may have changed. A new background costs about as much as was lost by then."""
_GAIN = 0.1
"""Least advantage of a new background over a known one that fits, as a difference of remainders."""
_MOVES = 0.9
"""Remainder of a frame after the first one that shows that the camera moves."""
_BLOCK = 16
_ROWS = 64


@dataclass
class _Known:
    """A background that earlier GOPs began with."""

    picture: Frame
    luma: NDArray[np.int16]
    """Its luma at the depth of the video."""
    remainder: float
    """Of the frames that it was made of, on average."""
    lost: float = 0.0
    """Sum of the remainders of GOPs' first frames, less its own, since a new one was considered."""


class BackgroundChoice:
    """Attaches backgrounds to the groups of a video. All frames are seen in order."""

    def __init__(self, info: VideoInfo, gop: int) -> None:
        """gop: largest number of frames of a GOP."""
        self._depth, self._gop, self._step = info.bit_depth, gop, -(-gop // _SAMPLES)
        bytes_of_frame = info.width * info.height * 3 // 2 * (1 if info.bit_depth == 8 else 2)
        self._most = min(MOST_WAITING, max(_MOST_WAITING_BYTES // bytes_of_frame, _SAMPLES))
        self._known: list[_Known] = []  # the one used last at the end

    def attached(self, groups: Iterable[Group], excerpt: bool = False) -> Iterator[Group]:
        """The groups, with backgrounds where they serve. GOPs that may need a new one wait for frames.

        The last GOP gets no new one, which would serve no other, unless the groups are an excerpt.
        """
        waiting, best = list[Group](), None
        for group in groups:
            if group.key:
                yield from self._decided(waiting, best)
                best, certain = self._best(group.frames[0])
                waiting = [] if certain else [group]
                if certain:
                    yield replace(group, background=self._used(best))
            elif waiting:
                waiting.append(group)
                frames = sum(len(waited.frames) for waited in waiting)
                moves = _remainder(group.frames[-1], _luma(waiting[0].frames[0])) > _MOVES
                if moves or self._most <= frames < self._gop:  # a whole GOP may be the last one
                    yield from self._decided(waiting, best)
                    waiting = []
            else:
                yield group
        yield from self._decided(waiting, best, last=not excerpt)

    def attached_at_once(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The same without waiting: new backgrounds are made of the GOP before."""
        past, number = list[Frame](), 0
        for group in groups:
            if not group.key:
                yield group
            else:
                best, certain = self._best(group.frames[0])
                new = None if certain else self._new(past)
                if new is not None:
                    new = replace(new, remainder=_remainder(group.frames[0], new.luma))
                yield replace(group, background=self._chosen(new, best))
                past, number = [], 0
            for frame in group.frames:
                if number % self._step == 0:
                    past.append(frame)
                number += 1

    def _best(self, first: Frame) -> tuple["tuple[_Known, float] | None", bool]:
        """The known background that fits a GOP's first frame best, its remainder, and whether it stays.

        It stays unless it has lost so much that a new one may be better.
        """
        rated = [(known, _remainder(first, known.luma)) for known in self._known]
        fitting = [(known, remainder) for known, remainder in rated if remainder <= _FITS]
        if not fitting:
            return None, False
        known, remainder = min(fitting, key=lambda pair: pair[1])
        known.lost += max(remainder - known.remainder, 0)
        if known.lost < _RENEWAL:
            return (known, remainder), True
        known.lost = 0
        return (known, remainder), False

    def _decided(
        self, waiting: list[Group], best: tuple[_Known, float] | None, last: bool = False
    ) -> Iterator[Group]:
        """The groups of a GOP, the first with its background. last: no GOP follows."""
        if not waiting:
            return
        frames = [frame for group in waiting for frame in group.frames]
        new = self._new(frames) if not last and len(frames) >= LEAST_FRAMES else None
        yield replace(waiting[0], background=self._chosen(new, best))
        yield from waiting[1:]

    def _chosen(self, new: _Known | None, best: tuple[_Known, float] | None) -> Frame | None:
        """The picture of a new background if it fits and is better than the best known one, or of that."""
        if new is None or new.remainder > (_FITS if best is None else best[1] - _GAIN):
            return self._used(best)
        self._known = [*self._known[1 - MOST_BACKGROUNDS :], new]
        return new.picture

    def _used(self, best: tuple[_Known, float] | None) -> Frame | None:
        """The picture of a known background, which is the last one used now."""
        if best is None:
            return None
        known = best[0]
        self._known = [*(other for other in self._known if other is not known), known]
        return known.picture

    def _new(self, frames: list[Frame]) -> _Known | None:
        """A background of these frames, None if they do not show the same place."""
        if len(frames) < _LEAST_SAMPLES:
            return None
        samples = [frames[at * len(frames) // _SAMPLES] for at in range(_SAMPLES)]
        if _remainder(samples[-1], _luma(samples[0])) > _MOVES:
            return None
        picture = _middle(samples, self._depth)
        luma = (picture.y >> BASE_BIT_DEPTH - self._depth).astype(np.int16)
        remainders = [_remainder(sample, luma) for sample in samples]
        if np.mean(remainders) > _STILL or max(remainders) > _LARGEST:
            return None
        return _Known(picture, luma, float(np.mean(remainders)))


def _luma(frame: Frame) -> NDArray[np.int16]:
    return frame.y.astype(np.int16)


def _remainder(frame: Frame, luma: NDArray[np.int16]) -> float:
    """What `luma` misses of a frame's luma, as a share of what the means of its blocks miss."""
    size = min(_BLOCK, *luma.shape)
    height, width = (side // size * size for side in luma.shape)
    blocks = (height // size, size, width // size, size)
    original = _luma(frame)[:height, :width].reshape(blocks)
    means = original.mean((1, 3), dtype=np.float32, keepdims=True)
    flat = np.abs(original - means).mean((1, 3))
    difference = np.abs(original - luma[:height, :width].reshape(blocks))
    missed = np.minimum(difference.mean((1, 3), dtype=np.float32), flat).sum()
    return float(missed / max(flat.sum(), 1e-6)) if missed else 0.0


def _middle(samples: list[Frame], bit_depth: int) -> Frame:
    """Mean of the middle values of each sample of the frames, of BASE_BIT_DEPTH."""
    scale = 2.0 ** (BASE_BIT_DEPTH - bit_depth)

    def middle(planes: list[NDArray[np.uint8] | NDArray[np.uint16]]) -> NDArray[np.uint16]:
        found = np.empty(planes[0].shape, np.uint16)
        for top in range(0, len(found), _ROWS):  # in strips, which stay in the cache
            ordered = np.sort(np.stack([plane[top : top + _ROWS] for plane in planes]), axis=0)
            mean = ordered[_MIDDLE].mean(0, dtype=np.float32)
            found[top : top + _ROWS] = np.rint(mean * np.float32(scale))
        return found

    y, u, v = (middle([frame.planes[plane] for frame in samples]) for plane in range(3))
    return Frame(y, u, v, pts=0)
