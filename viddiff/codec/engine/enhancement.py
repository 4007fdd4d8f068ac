"""The enhancement network in int16: the integers of `networks.enhancement`, row by row; see `row_plan`."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import InstructionSet, instruction_sets
from viddiff.codec.engine.native_kernels import kernels
from viddiff.codec.engine.packed_network import Integers, PackedNetwork
from viddiff.codec.engine.row_plan import RowPlan, plan_rows
from viddiff.config import FRAME_MULTIPLE
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import PLANES, EnhancementConfig

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
        self._network = PackedNetwork(config, integers, self.instructions)
        self._kernels = kernels(self.instructions)
        self._plans = dict[int, tuple[RowPlan, list[Int16]]]()
        self._lock = threading.Lock()

    def correction(
        self, frame: Frame, condition: NDArray[np.int64], strips: int = 1
    ) -> tuple[Int16, Int16, Int16]:
        """What the network would add to Y, U and V, in 1/CORRECTION_UNIT of a level.

        frame: has 10 bits. condition: (CONDITIONS,) activations, see `enhancement_config.condition_of`.
        strips: that threads compute side by side, if there are rows enough.
        """
        height, width = (-(-size // FRAME_MULTIPLE) * FRAME_MULTIPLE // 2 for size in frame.y.shape)
        packed = np.zeros((height + 2, width + 2, PLANES), np.int16)
        samples = [np.ascontiguousarray(plane, np.uint16) for plane in frame.planes]
        sizes = (*frame.y.shape, *frame.u.shape)
        addresses = [plane.ctypes.data for plane in samples]
        self._kernels["pack"](*addresses, *sizes, packed.ctypes.data, *packed.shape[:2])
        y, u, v = (np.empty(plane.shape, np.int16) for plane in frame.planes)
        planes = (y, u, v)
        biases, turns = self._network.biases(condition), height // 2
        strips = max(min(strips, turns // _STRIP_ROWS), 1)
        ends = [turns * n // strips for n in range(strips + 1)]

        def strip(begin: int, end: int) -> None:
            self._strip(begin, end, turns, biases, packed, planes)

        if strips == 1:
            strip(0, turns)
        else:
            with ThreadPoolExecutor(strips) as pool:
                list(pool.map(strip, ends[:-1], ends[1:]))
        return planes

    def _strip(
        self,
        begin: int,
        end: int,
        turns: int,
        biases: NDArray[np.int32],
        packed: Int16,
        planes: tuple[Int16, Int16, Int16],
    ) -> None:
        """Compute the rows `begin` to `end` at 1/4."""
        plan, spare = self._plan(packed.shape[1] - 2)
        try:
            work = spare.pop()
        except IndexError:
            work = np.zeros(plan.size, np.int16)
        bounds = np.array([max(begin - plan.lag, 0), begin, end, turns, plan.lag, plan.empty], np.int64)
        network = self._network
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
        )
        spare.append(work)

    def _plan(self, width: int) -> tuple[RowPlan, list[Int16]]:
        """The plan for a width at 1/2, and workspaces that nobody uses now."""
        with self._lock:
            if width not in self._plans:
                self._plans = {width: (plan_rows(self._network, width), [])}
            return self._plans[width]
