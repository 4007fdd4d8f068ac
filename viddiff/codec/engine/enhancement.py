"""The enhancement network in int16: the integers of `networks.enhancement`, row by row; see `row_plan`."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import InstructionSet, instruction_sets
from viddiff.codec.engine.native_kernels import kernels
from viddiff.codec.engine.packed_network import Integers, PackedNetwork, packed_networks
from viddiff.codec.engine.row_plan import RowPlan, plan_rows
from viddiff.config import FRAME_MULTIPLE
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import DIFFERENCES, HYPOTHESES, PLANES, EnhancementConfig

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
        trunk, packed = self._trunks[bool(hypotheses)], self._packed(frame)
        differences = self._differences(packed, frame, hypotheses)
        y, u, v = (np.empty(plane.shape, np.int16) for plane in frame.planes)
        planes = (y, u, v)
        biases, turns = trunk.network.biases(condition), (packed.shape[0] - 2) // 2
        strips = max(min(strips, turns // _STRIP_ROWS), 1)
        ends = [turns * n // strips for n in range(strips + 1)]

        def strip(begin: int, end: int) -> None:
            self._strip(trunk, (begin, end, turns), biases, (packed, differences), planes)

        if strips == 1:
            strip(0, turns)
        else:
            with ThreadPoolExecutor(strips) as pool:
                list(pool.map(strip, ends[:-1], ends[1:]))
        return planes

    def _packed(self, frame: Frame) -> Int16:
        """Positions at 1/2 with their planes, and an empty border of one position."""
        height, width = (-(-size // FRAME_MULTIPLE) * FRAME_MULTIPLE // 2 for size in frame.y.shape)
        packed = np.zeros((height + 2, width + 2, PLANES), np.int16)
        addresses, _kept = _samples(frame)
        self._kernels["pack"](*addresses, packed.ctypes.data, *packed.shape[:2])
        return packed

    def _differences(self, packed: Int16, frame: Frame, hypotheses: Sequence[Frame]) -> Int16:
        """(rows, columns, DIFFERENCES) of the hypotheses from a packed frame; no columns without them."""
        if len(hypotheses) not in (0, HYPOTHESES):
            raise ValueError(f"{len(hypotheses)} hypotheses instead of {HYPOTHESES}")
        rows, columns = (side - 2 for side in packed.shape[:2])
        differences = np.empty((rows, columns if hypotheses else 0, DIFFERENCES), np.int16)
        for n, picture in enumerate(hypotheses):
            if [plane.shape for plane in picture.planes] != [plane.shape for plane in frame.planes]:
                raise ValueError("the hypotheses of a frame have another size")
            addresses, _kept = _samples(picture)
            given = (packed.ctypes.data, rows, columns, differences.ctypes.data, PLANES * n)
            self._kernels["pack_differences"](*addresses, *given)
        return differences

    def _strip(
        self,
        trunk: "_Trunk",
        turns: tuple[int, int, int],
        biases: NDArray[np.int32],
        pictures: tuple[Int16, Int16],
        planes: tuple[Int16, Int16, Int16],
    ) -> None:
        """Compute rows at 1/4. turns: the first of them, their end, and that of the picture.

        pictures: the packed frame, and the differences.
        """
        (begin, end, height), (packed, differences) = turns, pictures
        plan, spare = trunk.plan(packed.shape[1] - 2)
        try:
            work = spare.pop()
        except IndexError:
            work = np.zeros(plan.size, np.int16)
        bounds = np.array([max(begin - plan.lag, 0), begin, end, height, plan.lag, plan.empty], np.int64)
        network = trunk.network
        self._kernels["run_rows"](
            plan.steps.ctypes.data,
            len(plan.steps),
            bounds.ctypes.data,
            network.weights.ctypes.data,
            biases.ctypes.data,
            network.scales.ctypes.data,
            packed.ctypes.data,
            packed.strides[0],
            work.ctypes.data,
            work.ctypes.data,
            *(plane.ctypes.data for plane in planes),
            *planes[0].shape,
            *planes[1].shape,
            differences.ctypes.data,
            differences.ctypes.data,
            differences.shape[1] * DIFFERENCES,
        )
        spare.append(work)


def _samples(frame: Frame) -> tuple[tuple[int, ...], list[NDArray[np.uint16]]]:
    """Addresses and sizes of a frame's planes, as kernels take them, and what has to live as long."""
    planes: list[NDArray[np.uint16]] = [np.ascontiguousarray(plane, np.uint16) for plane in frame.planes]
    return (*(plane.ctypes.data for plane in planes), *frame.y.shape, *frame.u.shape), planes


class _Trunk:
    """A packed network, and plans for it."""

    def __init__(self, network: PackedNetwork) -> None:
        self.network = network
        self._plans = dict[int, tuple[RowPlan, list[Int16]]]()
        self._lock = threading.Lock()

    def plan(self, width: int) -> tuple[RowPlan, list[Int16]]:
        """The plan for a width at 1/2, and workspaces that nobody uses now."""
        with self._lock:
            if width not in self._plans:
                self._plans = {width: (plan_rows(self.network, width), [])}
            return self._plans[width]
