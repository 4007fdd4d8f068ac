"""Extreme symbols: a frame decodes to the same samples as with clipped values, and every sum stays exact."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from conftest import exact_reach, moving_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.entropy import Coder, SymbolDecoder, SymbolEncoder, Tables
from viddiff.codec.frame_decoder import MODES_FOLLOW, decode_frame
from viddiff.codec.motion_templates import KINDS, MIRRORED, TEMPORAL, ZERO
from viddiff.codec.reference import Reference
from viddiff.codec.weights import Codec
from viddiff.config import STEP_COUNT
from viddiff.networks.bounds import EXACT_LIMIT
from viddiff.networks.hyperprior import HYPER_MAX, MEAN_MAX, SYMBOL_MAX
from viddiff.networks.layers import IntConv2d
from viddiff.networks.motion_prior import VECTOR_MAX
from viddiff.networks.planes import planes_of
from viddiff.networks.residual import STEP_MAX, SYMBOL_UNIT, Y_HAT_MAX

INT32 = np.iinfo(np.int32)
EDGES = [0, 1, -1, 7, SYMBOL_MAX, -SYMBOL_MAX, SYMBOL_MAX + 1, -SYMBOL_MAX - 1, HYPER_MAX + 1, -HYPER_MAX - 1]
EDGES += [VECTOR_MAX, -VECTOR_MAX, 2 * VECTOR_MAX + 1, -2 * VECTOR_MAX - 1, INT32.max, -INT32.max, INT32.min]
Choose = Callable[[Tables, int], NDArray[np.int64]]
"""Chooses so many symbols for these tables."""


class Writing:
    """Replaces a decoder's stream: chooses the symbols that it returns, and codes them."""

    def __init__(self, header: list[int], choose: Choose, coder: Coder = "ans") -> None:
        self.header, self.choose, self.encoder = np.array(header), choose, SymbolEncoder(coder)

    def get_bits(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        self.encoder.put_bits(self.header, widths)
        return self.header

    def get(self, indexes: NDArray[Any], tables: Tables) -> NDArray[np.int32]:
        symbols = np.where(indexes < 0, 0, self.choose(tables, indexes.size).reshape(indexes.shape))
        self.encoder.put(symbols, indexes, tables)
        return symbols.astype(np.int32)


def plan_of(which: str) -> FramePlan:
    return FramePlan(1, 0, 2, 1) if which == "between" else FramePlan(3, 2, 0, 0)


@pytest.fixture(scope="module")
def references() -> tuple[Reference, Reference]:
    """A keyframe and a frame predicted from it, with the fastest possible motion."""
    first, second = (planes_of(frame, 8, torch.device("cpu")) for frame in moving_picture(48, 32, 2))
    fast = torch.full((1, 2, 4, 6), 2 * VECTOR_MAX, dtype=torch.int64)
    return Reference(0, first), Reference(2, second, ((0, fast), (0, -fast)))


@contextmanager
def watched(codec: Codec) -> Iterator[list[float]]:
    """Compares the layers' sums with float64. Yields the reach of each, in units of its weights."""
    reaches = list[float]()

    def check(layer: IntConv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        reaches.append(exact_reach(layer, inputs, output))

    layers = [m for net in (codec.model, codec.motion) for m in net.modules() if isinstance(m, IntConv2d)]
    handles = [layer.register_forward_hook(check) for layer in layers]
    try:
        yield reaches
    finally:
        for handle in handles:
            handle.remove()
    assert len(reaches) >= len(layers)
    assert max(reaches) < EXACT_LIMIT


def same_frame(a: Reference, b: Reference) -> bool:
    planes = all(torch.equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))
    return planes and all(torch.equal(x[1], y[1]) for x, y in zip(a.motion, b.motion, strict=True))


def in_order(plan: FramePlan, references: tuple[Reference, Reference]) -> tuple[Reference, Reference]:
    by_time = {reference.time: reference for reference in references}
    return by_time[plan.first], by_time[plan.second]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    step=st.sampled_from([0, 1, 46, STEP_COUNT - 1]),
    kinds=st.tuples(*map(st.sampled_from, KINDS)),
    modes=st.booleans(),
    empty=st.booleans(),
    which=st.sampled_from(["between", "after"]),
    coder=st.sampled_from(["ans", "huffman"]),
    edges=st.lists(st.sampled_from(EDGES), min_size=1, max_size=4),
)
def test_a_frame_of_extreme_symbols_round_trips(
    codec: Codec,
    references: tuple[Reference, Reference],
    seed: int,
    step: int,
    kinds: tuple[int, int],
    modes: bool,
    empty: bool,
    which: str,
    coder: Coder,
    edges: list[int],
) -> None:
    """Motion, merges, modes, z and y: the decoder reads from bytes what was chosen."""
    rng, plan = np.random.default_rng(seed), plan_of(which)
    header = [step, kinds[0] + MODES_FOLLOW * modes, kinds[1], empty]
    pair = in_order(plan, references)
    writing = Writing(header, lambda tables, count: rng.choice(edges, count), coder)
    with watched(codec):
        chosen = decode_frame(codec, plan, pair, writing, 8)  # type: ignore[arg-type]
    stream = SymbolDecoder(writing.encoder.finish(), coder)
    read = decode_frame(codec, plan, pair, stream, 8)
    stream.finish()
    assert same_frame(chosen, read)
    for plane in read.planes:
        assert torch.equal(plane, plane.round())
        assert 0 <= plane.min() <= plane.max() <= 1023
    assert all(vectors.abs().max() <= 2 * VECTOR_MAX for _, vectors in read.motion)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("field", "most"),
    [("y", SYMBOL_MAX), ("z", HYPER_MAX), ("changes", 2 * VECTOR_MAX), ("modes", 1), ("flags", 1)],
)
def test_symbols_saturate(
    codec: Codec, references: tuple[Reference, Reference], field: str, most: int, sign: int
) -> None:
    """Beyond the limits of a kind of symbol, nothing changes any more."""
    plan = plan_of("between")
    pair = in_order(plan, references)
    small = {"flags": 1, "merges": 0, "changes": 3, "modes": 0, "z": 1, "y": 1}

    def frame(value: int) -> Reference:
        values = {id(getattr(codec.tables, name)): v for name, v in (small | {field: value}).items()}
        writing = Writing(
            [20, ZERO + MODES_FOLLOW, MIRRORED, 0],
            lambda tables, count: np.full(count, values[id(tables)]),
        )
        with watched(codec):
            return decode_frame(codec, plan, pair, writing, 8)  # type: ignore[arg-type]

    end = frame(sign * most)
    for value in (most + 1, 1 << 20, INT32.max):
        assert same_frame(frame(sign * value), end), f"{value = }"
    assert same_frame(frame(0), end) == ((field, sign) == ("flags", -1)), "a flag is set or not"


def test_the_bounds_of_latents() -> None:
    """The largest y_hat, and the largest product with a step."""
    assert SYMBOL_UNIT * SYMBOL_MAX + MEAN_MAX <= Y_HAT_MAX
    assert Y_HAT_MAX * STEP_MAX < EXACT_LIMIT


def test_templates_of_the_fastest_motion(references: tuple[Reference, Reference], codec: Codec) -> None:
    """Motion continued from extreme motion, frame after frame, stays within the limits."""
    state = {reference.time: reference for reference in references}
    for time in range(3, 7):
        plan = FramePlan(time, time - 1, 0, 0)
        end = INT32.max if time % 2 else INT32.min
        header = [30, TEMPORAL + MODES_FOLLOW, TEMPORAL, 1]
        writing = Writing(header, lambda tables, count, end=end: np.full(count, end))  # type: ignore[misc]
        with watched(codec):
            state[time] = decode_frame(codec, plan, (state[time - 1], state[0]), writing, 10)  # type: ignore[arg-type]
        assert all(vectors.abs().max() <= 2 * VECTOR_MAX for _, vectors in state[time].motion)
