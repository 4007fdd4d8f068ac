"""Enhance base frames with exact integers. What computes them is loaded when it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.base_frames import BaseFrame
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.tensor_file import Arrays
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import BLOCK, condition_of

Strengths = NDArray[np.int64]
"""Strengths (GROUPS, rows, columns) of a frame's blocks, 0..STRENGTHS-1."""
EngineName = Literal["compiled", "torch"]
"""What computes: kernels for CPUs, or the network's module in PyTorch. Their integers are the same."""
Planes = tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
"""A correction of Y, U and V."""
SIDES = (BLOCK, BLOCK // 2, BLOCK // 2)
"""Side of a block in each plane, samples."""
_GROUP = (0, 1, 1)
"""Group of each plane."""


def blocks_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of blocks, each with its own strengths."""
    return -(-height // BLOCK), -(-width // BLOCK)


class Engine(Protocol):
    """Computes the network."""

    def correction(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame] = (),
        strips: int = 1,
    ) -> Planes:
        """What the network would change in a frame of the base.

        condition: (CONDITIONS,) activations. hypotheses: what better neighbours show, moved to where the
        frame shows it. strips: that threads may compute side by side.
        """
        ...

    def studied(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame],
        rows: tuple[int, int],
    ) -> tuple[NDArray[np.int16], Planes]:
        """What the last layer reads, and the correction, of rows `begin` to `end` at 1/4 of the luma size.

        The first are activations (2 * (end - begin), positions at 1/2 of the padded picture, inputs of the
        layer). The other arguments are those of `correction`.
        """
        ...

    def updated(self, weights: EnhancementWeights) -> "Engine":
        """What computes with these weights, of which only the last layers are others."""
        ...


@dataclass(frozen=True)
class Enhancer:
    """A network with proven bounds."""

    weights: EnhancementWeights
    device: str = "cpu"
    """Where PyTorch computes."""
    engine: EngineName | None = None
    """What computes. The default is "compiled" on a CPU, "torch" elsewhere."""
    threads: int = 1
    """Threads that enhance frames of a chunk side by side, and strips of a frame where there are fewer."""
    released: "Enhancer | None" = None
    """The same with other last layers, whose packed numbers are shared. None: none."""
    origin: "Enhancer | None" = None
    """The network from which this one of a file is made. None: it is no network of a file."""
    network: bytes = b""
    """How it is made, see `codec.file_network`."""

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of everything that decoding depends on, except `network`."""
        return self.weights.hash() if self.origin is None else self.origin.hash

    @cached_property
    def of_files(self) -> dict[bytes, "Enhancer"]:
        """The network of the last file that had one made from this one, by its `network`."""
        return {}

    @property
    def name(self) -> str:
        """Name of the network's configuration."""
        return self.weights.config.name

    @cached_property
    def _engine(self) -> Engine:
        if self.released is not None:
            return self.released._engine.updated(self.weights)
        if self.engine == "compiled" or (self.engine is None and self.device == "cpu"):
            from viddiff.codec.engine.enhancement import EnhancementEngine

            return EnhancementEngine(self.weights.config, self.weights.integers)
        from viddiff.codec.enhancement_module import ModuleEngine

        return ModuleEngine(self.weights, self.device)

    def updated(self, integers: Arrays) -> "Enhancer":
        """The same with these integers, of which only those of the last layers may be others.

        Raises CheckpointError unless all sums stay exact.
        """
        weights = replace(self.weights, integers=integers)
        return replace(self, weights=weights, released=self.released or self)

    def adapted(self, weights: EnhancementWeights, network: bytes) -> "Enhancer":
        """The network of a file, which has these weights. network: how they are made from its own."""
        return replace(self, weights=weights, origin=self, network=network)

    def prepare(self) -> None:
        """Load what computes, before threads share it: each of them would load it otherwise."""
        _ = self._engine

    def divided(self, frames: int) -> tuple[int, int]:
        """How many of a chunk's frames are computed side by side, and in how many strips each of them."""
        together = min(self.threads, frames)
        return together, self.threads // together

    def correction(self, shown: BaseFrame, gop_quantiser: int, strips: int = 1) -> "Correction":
        """What the network would change in a frame of the base.

        gop_quantiser: index that the encoder requested for the GOP, 0..255. strips: that threads may compute
        side by side.
        """
        frame, condition = shown.frame, _told(shown, gop_quantiser)
        return Correction(frame, self._engine.correction(frame, condition, self._hypotheses(shown), strips))

    def studied(
        self, shown: BaseFrame, gop_quantiser: int, rows: tuple[int, int]
    ) -> tuple[NDArray[np.int16], Planes]:
        """What the last layer reads of some rows of a base frame, and their correction: `Engine.studied`."""
        condition, seen = _told(shown, gop_quantiser), self._hypotheses(shown)
        return self._engine.studied(shown.frame, condition, seen, rows)

    def _hypotheses(self, shown: BaseFrame) -> list[Frame]:
        return shown.hypotheses() if self.weights.config.between else []


def _told(shown: BaseFrame, gop_quantiser: int) -> NDArray[np.int64]:
    """What the network is told about a frame."""
    return condition_of(shown.coding.quantiser, gop_quantiser, shown.coding.intra)


@dataclass(frozen=True)
class Correction:
    """A base frame and what the network would change in it."""

    frame: Frame
    planes: Planes
    """For each sample of the frame, in 1/CORRECTION_UNIT of a level of the base."""

    def applied(self, strengths: Strengths, bit_depth: int) -> Frame:
        """The enhanced frame, rounded to `bit_depth`."""
        from viddiff.codec.engine.strengths import apply_strengths

        parts = zip(self.frame.planes, self.planes, _GROUP, SIDES, strict=True)
        y, u, v = (
            apply_strengths(samples, change, strengths[group], side, bit_depth)
            for samples, change, group, side in parts
        )
        return Frame(y, u, v, self.frame.pts)

    def errors(self, original: Frame, bit_depth: int) -> list[NDArray[np.float64]]:
        """Squared errors of each plane, (STRENGTHS, rows, columns): those of `applied` at each strength."""
        from viddiff.codec.engine.strengths import strength_errors

        parts = zip(original.planes, self.frame.planes, self.planes, SIDES, strict=True)
        return [strength_errors(a, b, change, side, bit_depth) for a, b, change, side in parts]
