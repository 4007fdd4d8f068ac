"""Fit the enhancement's last layers to the frames of a GOP, and choose when a chunk carries such an update.

Some frames of a chunk are sampled: what the last layer reads (its features), and what is missing still. The
least-squares fit of the one to the other is the best last layer for them. It is rounded to a grid, each
rounding error being made good by the values that are still to be rounded (as in GPTQ: Frantar, Ashkboos,
Hoefler, Alistarh, ICLR 2023), for each plane at the step of least cost in rate and distortion.

Samples add up over the chunks of a GOP. The larger their number, the rarer is another attempt.
"""

from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.codec.base_frames import BaseFrame
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.side_by_side import side_by_side
from viddiff.codec.tail_update import STEPS, TAIL, TAIL_BETWEEN, TailUpdate, UpdateTables
from viddiff.encoder.strength_choice import PLANE_WEIGHTS, Worth
from viddiff.frame import Frame
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement_config import CORRECTION_UNIT, PLANES

_EVERY = {TAIL: 2, TAIL_BETWEEN: 4}
"""One of so many frames of each tail is sampled."""
_MOST_FRAMES = 16
"""Sampled frames of each tail in a GOP."""
_POSITIONS = 1 << 16
"""Positions at 1/2 of the luma size in the band of a frame that is sampled, about."""
_LEAST_FRAMES = 4
"""Sampled frames before the first attempt."""
_SPREAD = 40.0
"""Standard deviation that is expected of changes of weights, as the prior of the fit."""
_ALIKE = 16.0
"""Neighbouring errors are alike: so many samples say as much as one that is independent."""
_LEAST_ERROR = 1.0
"""Mean squared error that is always reckoned with, so that a fit to a plane without any has a solution."""
_PART = 128
"""Positions that are summed up at a time."""
_OF_PLANE = (0, 0, 0, 0, 1, 2)
"""Y, U or V of each of the network's planes."""
_Floats = NDArray[np.float64]


@dataclass
class _Moments:
    """Sums over the sampled positions of one of the network's tails.

    What is left is in 1/CORRECTION_UNIT of a 10-bit level. Features are in units of UNIT, the last one is 1.
    """

    frames: int = 0
    positions: int = 0
    squares: _Floats = field(default_factory=lambda: np.zeros(PLANES))
    """Of what the tail as released leaves."""
    products: _Floats = field(default_factory=lambda: np.zeros((PLANES, 1)))
    """(PLANES, features): of the features with what is left."""
    features: _Floats = field(default_factory=lambda: np.zeros((1, 1)))
    """(features, features): of the features with each other."""

    def add(self, features: NDArray[np.float32], left: NDArray[np.float32]) -> None:
        """Add a frame: features (N, features), and what is left (N, PLANES)."""
        self.frames += 1
        self.positions += len(left)
        self.squares = self.squares + np.square(left, dtype=np.float64).sum(0)
        self.products = self.products + _product(left, features)
        self.features = self.features + _product(features, features)


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> _Floats:
    """Sum over positions of the products of a (N, n) with b (N, m), (n, m).

    In parts that no library shares among threads, so that their number does not change the result.
    """
    total = np.zeros((a.shape[1], b.shape[1]))
    for first in range(0, len(a), _PART):
        part = slice(first, first + _PART)
        total += a[part].T @ b[part]
    return total


class TailFit:
    """Updates for the chunks of one GOP."""

    def __init__(self, enhancer: Enhancer, quantiser: int, tables: UpdateTables) -> None:
        """enhancer: as released. quantiser: index that was requested for the GOP, 0..255."""
        self._released, self._quantiser, self._tables = enhancer, quantiser, tables
        self._moments = {name: _Moments() for name in _EVERY}
        self._seen, self._tried = dict.fromkeys(_EVERY, 0), dict.fromkeys(_EVERY, 0)
        self.active = dict[str, TailUpdate]()
        """The updates that hold now."""

    def add(self, originals: list[Frame], shown: list[BaseFrame], bit_depth: int, threads: int) -> None:
        """Sample frames of the next chunk. bit_depth: of the originals. threads: to do it with."""
        names = [self._tail_of(each) for each in shown]
        jobs = []
        for name, original, each in zip(names, originals, shown, strict=True):
            wanted = self._seen[name] % _EVERY[name] == 0 and self._seen[name] < _EVERY[name] * _MOST_FRAMES
            self._seen[name] += 1
            if wanted and min(original.y.shape) > 1:
                jobs.append((name, original, each, self._seen[name]))
        samples = side_by_side((partial(self._sample, *job[1:], bit_depth) for job in jobs), threads)
        for (name, *_), sample in zip(jobs, samples, strict=True):
            self._moments[name].add(*sample)

    def updates(
        self, shown: list[BaseFrame], worth: Worth, bit_depth: int, chunks: float
    ) -> dict[str, TailUpdate]:
        """Updates that save more than they cost, in the chunk of these frames and those after it.

        worth: of errors and bits of that chunk, whose originals have this bit depth. chunks: how many chunks
        like it the updates are for.
        """
        found = dict[str, TailUpdate]()
        for name, moments in self._moments.items():
            frames = sum(self._tail_of(each) == name for each in shown)
            if not frames or moments.frames < max(_LEAST_FRAMES, 2 * self._tried[name]):
                continue
            self._tried[name] = moments.frames
            positions = frames * shown[0].frame.u.size * chunks / moments.positions
            unit = positions / (CORRECTION_UNIT << BASE_BIT_DEPTH - bit_depth) ** 2
            weights = [unit * PLANE_WEIGHTS[plane] / worth.errors[plane] for plane in _OF_PLANE]
            update = self._best(name, np.array(weights), worth.of_a_bit)
            if update is not None:
                found[name] = update
        self.active |= found
        return found

    def _tail_of(self, shown: BaseFrame) -> str:
        between = shown.neighbours and self._released.weights.config.between is not None
        return TAIL_BETWEEN if between else TAIL

    def _best(self, name: str, weights: _Floats, bit: float) -> TailUpdate | None:
        """The update of least cost, None if it costs more than it saves.

        weights: of squared errors, by plane. bit: cost of a bit.
        """
        exponents = self._released.weights.integers[f"{name}.exponent"].astype(np.float64)
        fits = [
            _Fit.of(self._moments[name], n, weights[n], UNIT * 2.0 ** -exponents[n]) for n in range(PLANES)
        ]
        rows = np.stack([[fit.rounded(step) for step in range(STEPS)] for fit in fits])
        losses = [
            [fit.loss(row << step) for step, row in enumerate(each)]
            for fit, each in zip(fits, rows, strict=True)
        ]
        bits = np.stack([self._tables.bits(rows[:, step]) for step in range(STEPS)], 1)
        costs = np.array(losses) + bit * bits
        steps = costs.argmin(1)
        update = TailUpdate(steps, rows[np.arange(PLANES), steps])
        active = self.active.get(name)
        known = 0.0 if active is None else sum(map(_Fit.loss, fits, active.added))
        doubt = sum(fit.doubt for fit in fits)
        return update if costs.min(1).sum() + doubt < known else None

    def _sample(
        self, original: Frame, shown: BaseFrame, number: int, bit_depth: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features and what is left of a band of a frame, another one for each number."""
        rows, columns = (side // 2 for side in original.y.shape)
        most = min(max(_POSITIONS // columns // 2 * 2, 2), rows)
        top = number * (rows // 2) % (rows - most + 1) // 2 * 2
        band = top // 2, -(-(top + most) // 2)
        found, changes = self._released.studied(shown, self._quantiser, band)
        features = np.ones((most, columns, found.shape[2] + 1), np.float32)
        features[..., :-1] = found[:most, :columns]
        features[..., :-1] *= 1 / UNIT
        planes = []
        for plane, (own, base, change) in enumerate(
            zip(original.planes, shown.frame.planes, changes, strict=True)
        ):
            size = slice((2 - bool(plane)) * top, None)
            missing = (own[size].astype(np.int32) << BASE_BIT_DEPTH - bit_depth) - base[size]
            left = CORRECTION_UNIT * missing[: len(change)] - change[: len(missing)]
            phases = [(0, 0)] if plane else [(0, 0), (0, 1), (1, 0), (1, 1)]
            step = 1 if plane else 2
            planes += [left[i::step, j::step][:most, :columns] for i, j in phases]
        packed = np.stack(planes, 2).astype(np.float32)
        return features.reshape(-1, features.shape[2]), packed.reshape(-1, PLANES)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The least-squares problem of a plane, in units of integer changes."""

    curvature: _Floats
    """(features, features)"""
    slope: _Floats
    """(features,)"""
    prior: float
    """Added to the diagonal of the curvature."""
    doubt: float
    """How much better a fit looks on its own samples than on others."""

    @classmethod
    def of(cls, moments: _Moments, plane: int, weight: float, scale: float) -> "_Fit":
        """weight: of squared errors. scale: what a change of 1 adds to the result for a feature of 1."""
        curvature = weight * scale**2 * moments.features
        noise = _ALIKE * weight * (moments.squares[plane] / moments.positions + _LEAST_ERROR)
        prior = noise / _SPREAD**2
        used = np.trace(np.linalg.solve(curvature + prior * np.eye(len(curvature)), curvature))
        return cls(curvature, weight * scale * moments.products[plane], prior, 2 * noise * float(used))

    def loss(self, changes: NDArray[np.int64]) -> float:
        """What changes (features,) add to the weighted squared error of the samples."""
        return float(changes @ (self.curvature @ changes) - 2 * self.slope @ changes)

    @cached_property
    def _solved(self) -> tuple[_Floats, _Floats]:
        """The best changes (features,), and a factor (features, features) of the inverse curvature."""
        regular = self.curvature + self.prior * np.eye(len(self.slope))
        best = np.linalg.solve(regular, self.slope).astype(np.float64)
        factor: _Floats = np.linalg.cholesky(np.linalg.inv(regular)).T
        return best, factor

    def rounded(self, step: int) -> NDArray[np.int64]:
        """The best changes (features,) in units of 2**step."""
        best, factor = self._solved
        wanted = best / 2**step
        found = np.zeros(len(wanted))
        for n, row in enumerate(factor):
            found[n] = np.rint(wanted[n])
            wanted -= (wanted[n] - found[n]) / row[n] * row
        return found.astype(np.int64)
