#!/usr/bin/env python
"""Run the compiled kernels on random networks and pictures, with memory around every array that is guarded.

    scripts/fuzz_kernels.py --minutes 5

Kernels do not check indexes. Here every array that they get touches a page that cannot be accessed: its end
in one run, its beginning in another. The rest of its own pages holds a pattern that must stay. Arrays that
start empty hold noise, so that results that depend on it differ from those of the usual arrays. Cases run in
another process; one that crashes is named. Needs Linux or macOS.
"""

import argparse
import ctypes
import mmap
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from viddiff.codec import block_motion  # noqa: E402
from viddiff.codec.block_motion import SearchedFrame  # noqa: E402
from viddiff.codec.engine import enhancement, strengths  # noqa: E402
from viddiff.codec.engine.enhancement import EnhancementEngine  # noqa: E402
from viddiff.codec.engine.instruction_sets import instruction_sets  # noqa: E402
from viddiff.codec.engine.row_plan import RowPlan, plan_rows  # noqa: E402
from viddiff.codec.enhancement_weights import EnhancementWeights  # noqa: E402
from viddiff.codec.enhancer import Correction, blocks_of  # noqa: E402
from viddiff.frame import Frame  # noqa: E402
from viddiff.networks.bounds import ACTIVATION_MAX, EXACT_LIMIT, WEIGHT_MAX  # noqa: E402
from viddiff.networks.enhancement_config import (  # noqa: E402
    CONDITIONS,
    GROUPS,
    HYPOTHESES,
    STRENGTHS,
    EnhancementConfig,
    TrunkConfig,
)

_PATTERN = 0xA5
_PROTECTED = 0
"""PROT_NONE of mprotect."""
_FAILED = 3
"""Exit status of a case whose results or patterns are wrong."""


class GuardedMemory:
    """Makes arrays that touch a page that cannot be accessed."""

    def __init__(self, at_end: bool) -> None:
        """at_end: that page follows an array; otherwise it precedes it."""
        self._at_end, self._rng = at_end, np.random.default_rng(0)
        self._rests: list[NDArray[np.uint8]] = []
        self._protect = ctypes.CDLL(None, use_errno=True).mprotect
        self._protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

    def empty(self, shape: int | tuple[int, ...], kind: Any = np.float64) -> NDArray[Any]:
        """An array of noise."""
        size, page = int(np.prod(shape)) * np.dtype(kind).itemsize, mmap.PAGESIZE
        inner = -(-size // page) * page
        memory = np.frombuffer(mmap.mmap(-1, inner + 2 * page), np.uint8)
        for guard in (0, page + inner):
            if self._protect(memory.ctypes.data + guard, page, _PROTECTED):
                raise OSError(ctypes.get_errno(), "mprotect failed")
        room = memory[page : page + inner]
        first = inner - size if self._at_end else 0
        room[:] = _PATTERN
        self._rests += [room[:first], room[first + size :]]
        inside = room[first : first + size]
        inside[:] = self._rng.integers(0, 256, size, np.uint8)
        made: NDArray[Any] = inside.view(kind).reshape(shape)
        return made

    def zeros(self, shape: int | tuple[int, ...], kind: Any = np.float64) -> NDArray[Any]:
        """An array of zeros."""
        return self.array(np.zeros(shape, kind))

    def array(self, values: Any, kind: Any = None) -> NDArray[Any]:
        """A copy."""
        values = np.asarray(values, kind)
        made = self.empty(values.shape, values.dtype)
        made[...] = values
        return made

    ascontiguousarray = array

    def __getattr__(self, name: str) -> Any:
        """Everything else is numpy's."""
        return getattr(np, name)

    def check(self) -> None:
        """Raises ValueError if anything was written beside an array."""
        if not all((rest == _PATTERN).all() for rest in self._rests):
            raise ValueError("something was written beside an array")


@contextmanager
def guarded(engine: EnhancementEngine, memory: GuardedMemory) -> Iterator[None]:
    """Let all arrays that kernels get be in guarded memory."""

    def plan(*arguments: Any) -> RowPlan:
        made = plan_rows(*arguments)
        return replace(made, steps=memory.array(made.steps))

    with ExitStack() as stack:
        for module in (enhancement, strengths, block_motion):
            stack.enter_context(patch.object(module, "np", memory))
        stack.enter_context(patch.object(enhancement, "plan_rows", plan))
        for trunk in engine._trunks:
            network = trunk.network
            trunk._plans.clear()
            stack.callback(trunk._plans.clear)
            made = partial(_guarded_biases, network.biases, memory)
            stack.enter_context(patch.object(network, "weights", memory.array(network.weights)))
            stack.enter_context(patch.object(network, "scales", memory.array(network.scales)))
            stack.enter_context(patch.object(network, "biases", made))
        yield


def _guarded_biases(
    biases: Callable[[NDArray[np.int64]], NDArray[np.int32]],
    memory: GuardedMemory,
    condition: NDArray[np.int64],
) -> NDArray[np.int32]:
    return memory.array(biases(condition))


def random_weights(config: EnhancementConfig, rng: np.random.Generator) -> EnhancementWeights:
    """Integers as far as the proof goes."""
    integers = dict[str, NDArray[Any]]()
    for name, layer in config.layers().items():
        outputs, fan_in = layer.shape[0], int(np.prod(layer.shape[1:]))
        weight = rng.integers(-WEIGHT_MAX, WEIGHT_MAX + 1, (outputs, fan_in))
        reach = (EXACT_LIMIT - 1) // ACTIVATION_MAX
        most = np.maximum(np.abs(weight).sum(1, keepdims=True), 1)
        weight = np.where(most > reach, (weight * (reach / most)).astype(int), weight)
        room = EXACT_LIMIT - 1 - ACTIVATION_MAX * np.abs(weight).sum(1)
        integers[f"{name}.weight"] = weight.reshape(layer.shape).astype(np.int8)
        integers[f"{name}.bias"] = (rng.uniform(-1, 1, outputs) * room).astype(np.int32)
        integers[f"{name}.exponent"] = rng.choice([0, 1, 6, 7, 8, 9, 10, 11, 12, 30], outputs).astype(np.int8)
    return EnhancementWeights(config, integers)


def random_frame(width: int, height: int, bit_depth: int, rng: np.random.Generator) -> Frame:
    """A frame of noise."""
    sizes = ((height, width), *((-(-height // 2), -(-width // 2)),) * 2)
    samples = [rng.integers(0, 1 << bit_depth, size) for size in sizes]
    y, u, v = (plane.astype(np.uint8) if bit_depth == 8 else plane.astype(np.uint16) for plane in samples)
    return Frame(y, u, v)


def moved(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame moved by as much as a search finds, or more, in a random direction; or another frame."""
    if rng.random() < 0.3:
        return random_frame(frame.y.shape[1], frame.y.shape[0], 10, rng)
    down, right = (2 * rng.integers(-20, 21, 2)).tolist()
    y, u, v = (
        np.roll(plane, (down // scale, right // scale), (0, 1))
        for plane, scale in zip(frame.planes, (1, 2, 2), strict=True)
    )
    return Frame(y, u, v)


def run_case(seed: int) -> None:
    """Compute one case without and with guards. Raises ValueError if results or patterns are wrong."""
    rng = np.random.default_rng(seed)
    sets = instruction_sets()
    widths, depths = rng.integers(1, 101, 2).tolist(), rng.integers(0, 4, 2).tolist()
    trunk = TrunkConfig(*widths, *depths)
    config = EnhancementConfig(**asdict(trunk), name="random", between=trunk if rng.integers(2) else None)
    width, height = (int(size) for size in rng.integers(16, 161, 2))
    bit_depth, strips = int(rng.choice([8, 10])), int(rng.integers(1, 5))
    engine = EnhancementEngine(config, random_weights(config, rng).integers, sets[seed % len(sets)])
    base, original = random_frame(width, height, 10, rng), random_frame(width, height, bit_depth, rng)
    condition = rng.integers(0, 65, CONDITIONS)
    neighbours = [moved(base, rng) for _ in range(HYPOTHESES)] if config.between else []
    chosen = rng.integers(0, STRENGTHS, (GROUPS, *blocks_of(width, height)))
    original_planes = original.planes

    def results(memory: Any) -> list[NDArray[Any]]:
        frame, *others = (
            Frame(*(memory.array(plane) for plane in each.planes)) for each in (base, *neighbours)
        )
        seen = block_motion.hypotheses(SearchedFrame(frame), map(SearchedFrame, others))
        correction = Correction(frame, engine.correction(frame, condition, seen, strips))
        shown = correction.applied(memory.array(chosen), bit_depth)
        wanted = Frame(*(memory.array(plane) for plane in original_planes))
        return [*correction.planes, *shown.planes, *correction.errors(wanted, bit_depth)]

    expected = results(np)
    for at_end in (True, False):
        memory = GuardedMemory(at_end)
        with guarded(engine, memory):
            found = results(memory)
            memory.check()
        if not all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)):
            raise ValueError("results depend on where arrays are")


def run_cases(first: int, minutes: float) -> None:
    """Run cases from a number on, each announced by a line."""
    end, seed = time.monotonic() + 60 * minutes, first
    while time.monotonic() < end:
        print(seed, flush=True)
        try:
            run_case(seed)
        except ValueError as error:
            print(error, file=sys.stderr)
            sys.exit(_FAILED)
        seed += 1


def main() -> None:
    """Run cases in another process. The exit code is 1 after a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: 0)")
    parser.add_argument("--inside", action="store_true", help="in this process")
    chosen = parser.parse_args()
    if chosen.inside:
        run_cases(chosen.first, chosen.minutes)
        return
    command = [sys.executable, __file__, "--inside", "--minutes", str(chosen.minutes)]
    done = subprocess.run([*command, "--first", str(chosen.first)], stdout=subprocess.PIPE, text=True)
    cases = done.stdout.split()
    if done.returncode:
        sys.exit(f"case {cases[-1] if cases else chosen.first} ended with status {done.returncode}")
    print(f"{len(cases)} cases, no finding")


if __name__ == "__main__":
    main()
