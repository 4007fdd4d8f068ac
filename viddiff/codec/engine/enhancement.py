"""The enhancement network in int16: the integers of `networks.enhancement`, row by row; see `row_plan`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.int16_kernels import (
    INSTRUCTION_SETS,
    InstructionSet,
    convolve_row,
    filter_row,
    instruction_sets,
)
from viddiff.codec.engine.packed_network import Integers, PackedNetwork
from viddiff.codec.engine.row_plan import DEPTHWISE, FILTERS, RESULT, RowPlan, plan_rows
from viddiff.compiled import compiled, kernel
from viddiff.config import FRAME_MULTIPLE
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import MIDDLE, PLANES, EnhancementConfig

Int16 = NDArray[np.int16]
_STRIP_ROWS = 8
"""Fewest rows at 1/4 that a thread of its own is worth."""


@kernel
def _row_place(row: int, place: int, ring: int, size: int, start: int, rows: int, empty: int) -> int:
    """Where a row of a ring is; the empty row for rows outside of `start` to `rows`."""
    if row < start or row >= rows:
        return empty
    return place + row % ring * size


@kernel
def _keep(work: Int16, place: int, step: int, row: int, y: Int16, u: Int16, v: Int16) -> None:
    """Store a row of results as rows of three planes, as far as they reach."""
    if row >= u.shape[0]:
        return
    width = y.shape[1]
    for part in range(2):
        line = 2 * row + part
        if line < y.shape[0]:
            for x in range(width // 2):
                y[line, 2 * x] = work[place + x * step + 2 * part]
                y[line, 2 * x + 1] = work[place + x * step + 2 * part + 1]
            if width % 2:
                y[line, width - 1] = work[place + width // 2 * step + 2 * part]
    for x in range(u.shape[1]):
        u[row, x] = work[place + x * step + 4]
        v[row, x] = work[place + x * step + 5]


@cache
def _driver(kind: int) -> Callable[..., None]:
    """The loop over rows and steps for an instruction set, by its place in INSTRUCTION_SETS."""

    def run(  # noqa: PLR0913
        steps: NDArray[Any],
        turns: NDArray[np.int64],
        weights: Int16,
        biases: NDArray[np.int32],
        scales: NDArray[np.float32],
        packed: Int16,
        work: Int16,
        y: Int16,
        u: Int16,
        v: Int16,
    ) -> None:
        """turns: the first to compute, the first to keep, the end, the picture's, lag; place of no row."""
        first, begin, end, height, lag, empty = turns
        memory, picture = np.int64(work.ctypes.data), np.int64(packed.ctypes.data)
        picture_row = np.int64(2 * packed.shape[1] * packed.shape[2])
        all_weights, all_scales = np.int64(weights.ctypes.data), np.int64(scales.ctypes.data)
        all_biases = np.int64(biases.ctypes.data)
        rows = np.empty(3, np.int64)
        for time in range(first, end + lag):
            for index in range(len(steps)):
                step = steps[index]
                turn = time - step.lag
                if turn < first or turn >= height:
                    continue
                for row in range(turn * step.rows, (turn + 1) * step.rows):
                    if step.kind == RESULT:
                        if turn >= begin and turn < end:
                            place = step.source + row % step.source_ring * step.source_size
                            _keep(work, place, step.source_step, row, y, u, v)
                        continue
                    for n in range(3):
                        if step.kind == FILTERS:
                            rows[n] = picture + (row + n) * picture_row
                        else:
                            rows[n] = memory + 2 * _row_place(
                                row * step.source_scale + step.source_first + n,
                                step.source,
                                step.source_ring,
                                step.source_size,
                                first * step.source_rows,
                                height * step.source_rows,
                                empty,
                            )
                    at = row * step.target_scale + step.target_first
                    out = memory + 2 * (step.target + at % step.target_ring * step.target_size)
                    other = memory + 2 * (step.other + at % step.other_ring * step.other_size)
                    places = (
                        all_weights + 2 * step.weights,
                        all_biases + 4 * step.numbers,
                        all_scales + 4 * step.numbers,
                    )
                    if step.kind == DEPTHWISE:
                        numbers = (step.vectors, out, step.width // step.groups)
                        picked = (rows[0], rows[1], rows[2], 2 * step.source_step)
                        filter_row(kind, picked + places + numbers)
                    else:
                        layer = (step.vectors, step.adds, step.width, rows[0], rows[1], rows[2])
                        inputs = (step.segments, step.pairs, 2 * step.source_step)
                        ends = (step.groups, step.low, out, 2 * step.target_step, other, 2 * step.other_step)
                        convolve_row(kind, layer + inputs + places + ends)

    return compiled(run)


@compiled
def _pack(y: Any, u: Any, v: Any, packed: Int16) -> None:
    """Fill the picture (rows + 2, columns + 2, PLANES) except for its empty border."""
    height, width = y.shape
    rows, columns = packed.shape[0] - 2, packed.shape[1] - 2
    for row in range(rows):
        upper, lower = min(2 * row, height - 1), min(2 * row + 1, height - 1)
        chroma = min(row, u.shape[0] - 1)
        for column in range(columns):
            left, right = min(2 * column, width - 1), min(2 * column + 1, width - 1)
            at = min(column, u.shape[1] - 1)
            position = packed[row + 1, column + 1]
            position[0] = np.int64(y[upper, left]) - MIDDLE
            position[1] = np.int64(y[upper, right]) - MIDDLE
            position[2] = np.int64(y[lower, left]) - MIDDLE
            position[3] = np.int64(y[lower, right]) - MIDDLE
            position[4] = np.int64(u[chroma, at]) - MIDDLE
            position[5] = np.int64(v[chroma, at]) - MIDDLE


class EnhancementEngine:
    """The network's correction of frames, the same integers as those of its module."""

    def __init__(
        self,
        config: EnhancementConfig,
        integers: Integers,
        instructions: InstructionSet | None = None,
        threads: int = 1,
    ) -> None:
        """instructions: the best that the processor has by default. threads: that share a frame."""
        self.instructions = instructions or instruction_sets()[0]
        self.threads = threads
        self._network = PackedNetwork(config, integers, self.instructions)
        self._run = _driver(INSTRUCTION_SETS.index(self.instructions))
        self._plans = dict[int, tuple[RowPlan, list[Int16]]]()
        self._lock = threading.Lock()

    def correction(self, frame: Frame, condition: NDArray[np.int64]) -> tuple[Int16, Int16, Int16]:
        """What the network would add to Y, U and V, in 1/CORRECTION_UNIT of a level.

        frame: has 10 bits. condition: (CONDITIONS,) activations, see `enhancement_config.condition_of`.
        """
        height, width = (-(-size // FRAME_MULTIPLE) * FRAME_MULTIPLE // 2 for size in frame.y.shape)
        packed = np.zeros((height + 2, width + 2, PLANES), np.int16)
        _pack(*frame.planes, packed)
        y, u, v = (np.empty(plane.shape, np.int16) for plane in frame.planes)
        planes = (y, u, v)
        biases, turns = self._network.biases(condition), height // 2
        strips = max(min(self.threads, turns // _STRIP_ROWS), 1)
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
        bounds = np.array([max(begin - plan.lag, 0), begin, end, turns, plan.lag, plan.empty])
        network = self._network
        self._run(plan.steps, bounds, network.weights, biases, network.scales, packed, work, *planes)
        spare.append(work)

    def _plan(self, width: int) -> tuple[RowPlan, list[Int16]]:
        """The plan for a width at 1/2, and workspaces that nobody uses now."""
        with self._lock:
            if width not in self._plans:
                self._plans = {width: (plan_rows(self._network, width), [])}
            return self._plans[width]
