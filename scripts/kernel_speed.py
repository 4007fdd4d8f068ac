"""Measure what share of the machine's peak the compiled networks reach, on one core.

    python scripts/kernel_speed.py

The peak is that of a 1x1 convolution of 96 to 96 channels whose numbers all stay in the nearest cache, with
the same instruction. Figures are multiply-accumulates (GMAC) for each second of processor time; the best of
several runs counts, for other work on the machine only makes them lower.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.enhancement import EnhancementEngine
from viddiff.codec.engine.instruction_sets import (
    INSTRUCTION_SETS,
    InstructionSet,
    instruction_sets,
    pack_dense,
)
from viddiff.codec.engine.int16_kernels import convolve_row
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.frame import Frame
from viddiff.networks.enhancement_config import CONDITIONS, INTEGERS, LARGE, SMALL, EnhancementConfig

SIZES = ((640, 360), (1280, 720))
_CHANNELS, _POSITIONS, _TURNS = 96, 64, 400
_ROUNDS = 15


def best_s(work: Callable[[], object]) -> float:
    """Least processor time of the work, without its first run."""
    work()
    times = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def aligned(numbers: NDArray[Any]) -> NDArray[Any]:
    """A copy at a multiple of 64 bytes."""
    memory = np.empty(numbers.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    made: NDArray[Any] = memory[start : start + numbers.nbytes].view(numbers.dtype)
    made[:] = numbers.ravel()
    return made


def peak_gmacs(instructions: InstructionSet) -> float:
    """What a convolution in the nearest cache reaches with these instructions."""
    rng, kind = np.random.default_rng(0), INSTRUCTION_SETS.index(instructions)
    weight = rng.integers(-127, 128, (_CHANNELS, _CHANNELS))
    layer = pack_dense(instructions, weight, np.full(_CHANNELS, 12))
    source = aligned(rng.integers(-2047, 2048, _POSITIONS * _CHANNELS).astype(np.int16))
    target = aligned(np.zeros(_POSITIONS * _CHANNELS, np.int16))
    biases = aligned(np.zeros(_CHANNELS, np.int32))
    weights, scales = aligned(layer.weight), aligned(layer.scale)
    vectors, groups, pairs, step = layer.vectors, layer.groups, _CHANNELS // 2, 2 * _CHANNELS
    compiler: Any = numba

    def convolve(source: int, target: int, weights: int, biases: int, scales: int) -> None:
        for _ in range(_TURNS):
            form = (vectors, 0, _POSITIONS, source, source, source, 1, pairs, step, 0)
            rest = (weights, biases, scales, groups, -2047, target, step, target, step)
            convolve_row(kind, form + rest)

    places = [each.ctypes.data for each in (source, target, weights, biases, scales)]
    seconds = best_s(partial(compiler.njit(convolve), *places))
    return _TURNS * _POSITIONS * _CHANNELS**2 / seconds / 1e9


def network_gmacs(instructions: InstructionSet, config: EnhancementConfig, width: int, height: int) -> float:
    """What a whole network reaches on frames of this size, everything around its layers included."""
    rng, integers = np.random.default_rng(0), dict[str, NDArray[Any]]()
    for name, layer in config.layers().items():
        shapes = (layer.shape, layer.shape[:1], layer.shape[:1])
        for (part, kind), shape in zip(INTEGERS.items(), shapes, strict=True):
            low, high = (12, 13) if part == "exponent" else (-8, 9)
            integers[f"{name}.{part}"] = rng.integers(low, high, shape).astype(kind)
    engine = EnhancementEngine(config, EnhancementWeights(config, integers).integers, instructions)
    sizes = ((height, width), *((height // 2, width // 2),) * 2)
    y, u, v = (rng.integers(0, 1024, size).astype(np.uint16) for size in sizes)
    condition = np.zeros(CONDITIONS, np.int64)
    return config.macs() * width * height / best_s(lambda: engine.correction(Frame(y, u, v), condition)) / 1e9


def main() -> None:
    """Print a line for each set of instructions, network and size."""
    for instructions in instruction_sets():
        peak = peak_gmacs(instructions)
        print(f"{instructions.name:12} peak {peak:22.1f} GMAC/s")
        for config in (SMALL, LARGE):
            for width, height in SIZES:
                rate = network_gmacs(instructions, config, width, height)
                title = f"{config.name} {width}x{height}"
                print(f"{instructions.name:12} {title:20} {rate:6.1f} GMAC/s {rate / peak:6.0%}", flush=True)


if __name__ == "__main__":
    main()
