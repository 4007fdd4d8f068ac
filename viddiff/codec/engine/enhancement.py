"""The enhancement network in int16: the integers of `networks.enhancement`, row by row; see `row_plan`."""

import copy
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import InstructionSet, instruction_sets
from viddiff.codec.engine.native_kernels import kernels
from viddiff.codec.engine.packed_network import (
    Integers,
    PackedNetwork,
    integers_by_trunk,
    packed_networks,
)
from viddiff.codec.engine.row_plan import RowPlan, plan_rows
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.config import FRAME_MULTIPLE
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import HYPOTHESES, EnhancementConfig

Int16 = NDArray[np.int16]
_STRIP_ROWS = 8
"""Fewest rows at 1/4 that a thread of its own is worth."""


class EnhancementEngine:
    """The network's correction of frames, the same integers as those of its module."""

    def __init__(
        self,
        config: EnhancementConfig,
        integers: Integers,
        instructions: InstructionSet | None = None,
    ) -> None:
        """instructions: the best that the processor has by default."""
        self.instructions = instructions or instruction_sets()[0]
        self._kernels = kernels(self.instructions)
        self._trunks = [_Trunk(each) for each in packed_networks(config, integers, self.instructions)]

    def updated(self, weights: EnhancementWeights) -> Self:
        """What computes with these weights, of which only the last layers are others."""
        engine = copy.copy(self)
        parts = integers_by_trunk(weights.config, weights.integers)
        engine._trunks = [each.updated(integers) for each, integers in zip(self._trunks, parts, strict=True)]
        return engine

    def correction(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame] = (),
        strips: int = 1,
    ) -> tuple[Int16, Int16, Int16]:
        """What the network would add to Y, U and V, in 1/CORRECTION_UNIT of a level.

        frame, hypotheses: have 10 bits and one size; HYPOTHESES or none, see `block_motion`. condition:
        (CONDITIONS,) activations, see `enhancement_config.condition_of`. strips: that threads compute side by
        side, if there are rows enough.
        """
        pictures, trunk = _Pictures(frame, hypotheses), self._trunks[bool(hypotheses)]
        y, u, v = _padded_planes(frame)
        biases, turns = trunk.network.biases(condition), len(u) // 2
        strips = max(min(strips, turns // _STRIP_ROWS), 1)
        ends = [turns * n // strips for n in range(strips + 1)]

        def strip(begin: int, end: int) -> None:
            self._strip(trunk, (begin, end, turns), biases, pictures, (y, u, v))

        if strips == 1:
            strip(0, turns)
        else:
            with ThreadPoolExecutor(strips) as pool:
                list(pool.map(strip, ends[:-1], ends[1:]))
        (height, width), (half_height, half_width) = frame.y.shape, frame.u.shape
        return y[:height, :width], u[:half_height, :half_width], v[:half_height, :half_width]

    def studied(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame],
        rows: tuple[int, int],
    ) -> tuple[Int16, tuple[Int16, Int16, Int16]]:
        """See `Engine.studied`."""
        pictures, trunk = _Pictures(frame, hypotheses), self._trunks[bool(hypotheses)]
        planes, (begin, end) = _padded_planes(frame), rows
        plan = plan_rows(trunk.network, planes[1].shape[1], end - begin)
        work, turns = np.zeros(plan.size, np.int16), (begin, end, len(planes[1]) // 2)
        self._run(trunk.network, plan, work, turns, trunk.network.biases(condition), pictures, planes)
        y, u, v = (
            plane[n * begin : n * end, : own.shape[1]]
            for n, plane, own in zip((4, 2, 2), planes, frame.planes, strict=True)
        )
        return plan.kept(work, begin, end)[:, :, : trunk.network.config.half], (y, u, v)

    def _strip(
        self,
        trunk: "_Trunk",
        turns: tuple[int, int, int],
        biases: NDArray[np.int32],
        pictures: "_Pictures",
        planes: tuple[Int16, Int16, Int16],
    ) -> None:
        """Compute rows at 1/4. turns: the first of them, their end, and that of the picture."""
        plan, spare = trunk.plan(planes[1].shape[1])
        try:
            work = spare.pop()
        except IndexError:
            work = np.zeros(plan.size, np.int16)
        self._run(trunk.network, plan, work, turns, biases, pictures, planes)
        spare.append(work)

    def _run(
        self,
        network: PackedNetwork,
        plan: RowPlan,
        work: Int16,
        turns: tuple[int, int, int],
        biases: NDArray[np.int32],
        pictures: "_Pictures",
        planes: tuple[Int16, Int16, Int16],
    ) -> None:
        begin, end, height = turns
        bounds = np.array([max(begin - plan.lag, 0), begin, end, height, plan.lag, plan.empty], np.int64)
        self._kernels["run_rows"](
            plan.steps.ctypes.data,
            len(plan.steps),
            bounds.ctypes.data,
            network.weights.ctypes.data,
            biases.ctypes.data,
            network.scales.ctypes.data,
            pictures.addresses.ctypes.data,
            *pictures.sizes,
            work.ctypes.data,
            work.ctypes.data,
            *(plane.ctypes.data for plane in planes),
        )


def _padded_planes(frame: Frame) -> tuple[Int16, Int16, Int16]:
    """Planes of Y, U and V for the results of a frame, as large as the padded picture."""
    rows, columns = (-(-size // FRAME_MULTIPLE) * FRAME_MULTIPLE // 2 for size in frame.y.shape)
    y, u, v = (np.empty((n * rows, n * columns), np.int16) for n in (2, 1, 1))
    return y, u, v


class _Pictures:
    """A frame and its hypotheses, as kernels take them."""

    def __init__(self, frame: Frame, hypotheses: Sequence[Frame]) -> None:
        if len(hypotheses) not in (0, HYPOTHESES):
            raise ValueError(f"{len(hypotheses)} hypotheses instead of {HYPOTHESES}")
        shapes = [plane.shape for plane in frame.planes]
        if any([plane.shape for plane in each.planes] != shapes for each in hypotheses):
            raise ValueError("the hypotheses of a frame have another size")
        # they live as long as the addresses
        self._planes: list[NDArray[np.uint16]] = [
            np.ascontiguousarray(plane, np.uint16) for each in (frame, *hypotheses) for plane in each.planes
        ]
        self.addresses = np.array([plane.ctypes.data for plane in self._planes], np.int64)
        self.sizes = (*frame.y.shape, *frame.u.shape)
        """Rows and columns of luma and chroma."""


class _Trunk:
    """A packed network, and plans for it."""

    def __init__(self, network: PackedNetwork) -> None:
        self.network = network
        self._plans = dict[int, tuple[RowPlan, list[Int16]]]()
        self._lock = threading.Lock()

    def updated(self, integers: Integers) -> "_Trunk":
        """The same with another last layer, which shares the plans."""
        trunk = copy.copy(self)
        trunk.network = self.network.updated(integers)
        return trunk

    def plan(self, width: int) -> tuple[RowPlan, list[Int16]]:
        """The plan for a width at 1/2, and workspaces that nobody uses now."""
        with self._lock:
            if width not in self._plans:
                self._plans = {width: (plan_rows(self.network, width), [])}
            return self._plans[width]
