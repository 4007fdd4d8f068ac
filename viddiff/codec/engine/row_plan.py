"""The order of an enhancement network's work on rows, and where each row is kept.

Layers run in turn, each a few rows behind the one before, so that rows stay in the cache until all layers
have read them. A layer's results are kept in a ring of no more rows than later layers need. Rows have an
empty position at both ends: with an empty row above and below the picture, it is the zero padding of 3x3
layers.

A turn of the work is a row at 1/4 of the luma size, or the two rows at 1/2 that belong to it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.packed_network import PHASES, PackedNetwork, padded
from viddiff.networks.enhancement_config import DIFFERENCES, HYPOTHESES, PLANES

PICTURE, DIFFER, DENSE, DEPTHWISE, RESULT = range(5)
"""Kinds of steps: the frame's samples; how those of its neighbours differ; sums over channels; 3x3 filters of
each channel; what to keep."""
_MAX = 2047
STEP = np.dtype(
    [
        (name, np.int64)
        for name in (
            "kind",
            "lag",  # turns that it is behind
            "rows",  # rows in a turn
            "width",  # positions in a row
            "source",  # place of the ring's first row: numbers of int16, as are all places and sizes
            "source_ring",  # rows in the ring
            "source_size",  # of a row
            "source_scale",  # rows of the source for each row
            "source_first",  # the first row that it reads is row * source_scale + source_first
            "source_rows",  # rows of the source in a turn
            "source_step",  # from what a position reads to what the next one reads
            "group_step",  # from what a group reads to what the next one reads
            "segments",  # rows that it reads
            "pairs",  # pairs of numbers in each of them
            "target",
            "target_ring",
            "target_size",
            "target_scale",
            "target_first",
            "target_step",
            "adds",  # 1 to add a row of `other`, the one of the target's number
            "other",
            "other_ring",
            "other_size",
            "other_step",
            "weights",  # places in the packed network
            "numbers",
            "vectors",
            "groups",
            "low",  # lowest result: 0 or -2047
        )
    ]
)


@dataclass(eq=False)
class Buffer:
    """A ring of rows of activations."""

    scale: int
    """Rows in a turn."""
    width: int
    channels: int
    lag: int
    """Turns after which its rows are there."""
    inside: int
    """Numbers in a row before its first position."""
    place: int = 0
    last: int = 0
    """Turns after which no step reads its rows any more."""
    kept: int = 0
    """Turns whose rows are still there when the work is done."""

    @property
    def ring(self) -> int:
        """The rows of the turns from `lag` to `last`, and the one above them; or more, to keep them."""
        return self.scale * (max(self.last - self.lag, self.kept) + 1) + 1

    @property
    def size(self) -> int:
        """Of a row with its empty ends."""
        return (self.width + 2) * self.channels


@dataclass(frozen=True)
class RowPlan:
    """The work on pictures of one width."""

    steps: NDArray[Any]
    """STEP, (N,)."""
    lag: int
    """Turns that the result is behind. No row of it depends on rows further away."""
    size: int
    """int16 numbers in the workspace."""
    empty: int
    """Place of the empty row."""
    features: Buffer
    """What the last layer reads."""

    def kept(self, work: NDArray[np.int16], begin: int, end: int) -> NDArray[np.int16]:
        """What the last layer read in turns that are kept, (rows, positions, channels with padding)."""
        buffer = self.features
        rows = work[buffer.place : buffer.place + buffer.ring * buffer.size].reshape(buffer.ring, -1)
        found = rows[np.arange(buffer.scale * begin, buffer.scale * end) % buffer.ring]
        return found[:, buffer.inside :][:, : buffer.width * buffer.channels].reshape(
            len(found), buffer.width, buffer.channels
        )


class _Planner:
    def __init__(self, network: PackedNetwork, width: int, kept: int) -> None:
        """width: positions at 1/2, a multiple of 8. kept: turns that the last layer's input is kept for."""
        self.network, self.width, self.turns = network, width, kept
        self.lag = 0
        self.steps: list[dict[str, Any]] = []
        self.buffers: list[Buffer] = []

    def plan(self) -> RowPlan:
        config = self.network.config
        picture = self._picture()
        differences = self._differences(picture) if self.network.between else None
        self.lag += 1
        filtered = self._buffer(2, len(self.network.places["filters"].layer.order))
        pairs, group_step = 3 * picture.inside // 2, self._group_step
        self._step(
            "filters", picture, filtered, source_first=-1, segments=3, pairs=pairs, group_step=group_step
        )
        x = self._buffer(2, padded(config.half))
        self._step("head", filtered, x)
        if differences is not None:
            self._join_differences(differences, x)
        for n in range(config.half_blocks):
            x = self._block(f"before.{n}", x)
        deep = self._buffer(1, padded(config.quarter))
        pairs = self.network.places["down"].pairs // 2
        self._step("down", x, deep, source_scale=2, source_step=2 * x.channels, segments=2, pairs=pairs)
        for n in range(config.quarter_blocks):
            deep = self._block(f"deep.{n}", deep)
        for phase in range(PHASES):
            self._step(f"up.{phase}", deep, x, other=x, phase=phase)
        for n in range(config.half_blocks):
            x = self._block(f"after.{n}", x)
        result = self._buffer(2, padded(self.network.results))
        self._step("tail", x, result)
        self._step(None, result, result, other=differences, kind=RESULT)
        if self.turns:
            x.kept = self.turns + 2 * self.lag
        return self._finished(x)

    def _buffer(self, scale: int, channels: int, inside: int | None = None) -> Buffer:
        width, first = self.width * scale // 2, channels if inside is None else inside
        buffer = Buffer(scale, width, channels, self.lag, first, last=self.lag)
        self.buffers.append(buffer)
        return buffer

    @property
    def _group_step(self) -> int:
        """Numbers in a row of planes that the first layer reads together."""
        return (self.width + 2) * self.network.together

    def _picture(self) -> Buffer:
        together = self.network.together
        picture = self._buffer(2, -(-PLANES // together) * together, together)
        self._step(None, None, picture, kind=PICTURE, group_step=self._group_step)
        return picture

    def _differences(self, picture: Buffer) -> Buffer:
        hypotheses = self._buffer(1, HYPOTHESES * picture.channels, picture.inside)
        differences = self._buffer(2, DIFFERENCES)
        self._step(None, picture, differences, other=hypotheses, kind=DIFFER, group_step=self._group_step)
        return differences

    def _join_differences(self, differences: Buffer, x: Buffer) -> None:
        """Add to x what the differences from neighbours say."""
        seen = self._buffer(2, x.channels)
        self._step("differences", differences, seen, low=0)
        self.lag += 1
        smooth = self._buffer(2, x.channels)
        self._step("smoothing", seen, smooth, kind=DEPTHWISE, source_first=-1, segments=3)
        self._step("joining", smooth, x, other=x)

    def _block(self, name: str, x: Buffer) -> Buffer:
        self.lag += 1
        filtered, hidden, y = (self._buffer(x.scale, x.channels) for _ in range(3))
        self._step(f"{name}.depthwise", x, filtered, kind=DEPTHWISE, source_first=-1, segments=3)
        self._step(f"{name}.inner", filtered, hidden, low=0)
        self._step(f"{name}.outer", hidden, y, other=x)
        return y

    def _step(
        self,
        name: str | None,
        source: Buffer | None,
        target: Buffer,
        *,
        other: Buffer | None = None,
        phase: int | None = None,
        **more: int,
    ) -> None:
        """A step of the layer `name`. phase: where its results are in each position of the source."""
        step: dict[str, Any] = {"kind": DENSE, "lag": self.lag, "low": -_MAX, "segments": 1}
        step |= {"rows": target.scale, "width": target.width, "target_scale": 1, "target_first": 0}
        step |= {"source_scale": 1, "source_first": 0, "skip": 0, "target_step": target.channels}
        if phase is not None and source is not None:
            row, column = divmod(phase, 2)
            step |= {"rows": source.scale, "width": source.width, "target_scale": 2, "target_first": row}
            step |= {"target_step": 2 * target.channels, "skip": column * target.channels}
        if name is not None:
            at = self.network.places[name]
            step |= {"pairs": at.pairs, "weights": at.weights, "numbers": at.numbers}
            step |= {"vectors": at.layer.vectors, "groups": at.layer.groups}
        if source is not None:
            step |= {"source_step": source.inside}
        for buffer in (source, other):
            if buffer is not None:
                buffer.last = max(buffer.last, self.lag)
        self.steps.append(step | more | {"buffers": (source, target, other)})

    def _finished(self, features: Buffer) -> RowPlan:
        """Give every buffer its place."""
        size = 0
        for buffer in self.buffers:
            buffer.place = size
            size += buffer.ring * buffer.size
        empty = size
        size += max(buffer.size for buffer in self.buffers)
        steps = np.zeros(len(self.steps), STEP)
        for row, step in zip(steps, self.steps, strict=True):
            skip = step.pop("skip")
            source, target, other = step.pop("buffers")
            if source is not None:
                inside = 0 if step["source_first"] < 0 else source.inside
                step |= {"source": source.place + inside, "source_ring": source.ring}
                step |= {"source_size": source.size, "source_rows": source.scale}
            step |= {"target": target.place + target.inside + skip, "target_ring": target.ring}
            step |= {"target_size": target.size, "other_ring": 1}
            if other is not None:
                step |= {"adds": 1, "other": other.place + other.inside + skip, "other_ring": other.ring}
                step |= {"other_size": other.size, "other_step": step["target_step"]}
            for name, value in step.items():
                row[name] = value
        return RowPlan(steps, self.lag, size, empty, features)


def plan_rows(network: PackedNetwork, width: int, kept: int = 0) -> RowPlan:
    """The plan for pictures of `width` positions at 1/2 of the luma size, a multiple of 8.

    kept: turns in a row that the input of the last layer is kept for, see `RowPlan.kept`.
    """
    return _Planner(network, width, kept).plan()
