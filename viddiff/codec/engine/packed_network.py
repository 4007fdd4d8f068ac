"""The enhancement network's integers in the order in which the kernels read them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.engine.instruction_sets import (
    CHANNEL_MULTIPLE,
    InstructionSet,
    PackedLayer,
    pack_dense,
    pack_depthwise,
)
from viddiff.networks.enhancement_config import BETWEEN, CONDITIONS, FILTERS, EnhancementConfig, TrunkConfig

Integers = Mapping[str, NDArray[Any]]
"""`<layer>.weight`, `<layer>.bias` and `<layer>.exponent`, proven as in `enhancement_weights`."""
PHASES = 4
"""Positions of `up`'s results in each position at 1/4: a layer each, "up.0" to "up.3"."""
_ALIGNMENT = 64
_Ints = NDArray[np.int64]


def padded(channels: int) -> int:
    """Channels that a row has for so many."""
    return -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


@dataclass(frozen=True)
class Place:
    """Where a layer's numbers are."""

    layer: PackedLayer
    pairs: int
    """Pairs of inputs of a sum; 0 for a depthwise layer."""
    weights: int
    """First of its weights."""
    numbers: int
    """First of its biases and scales."""


class PackedNetwork:
    """The numbers of the layers for frames alone, or for those between, packed for an instruction set."""

    def __init__(
        self, config: TrunkConfig, integers: Integers, instructions: InstructionSet, between: bool = False
    ) -> None:
        """integers: named without BETWEEN."""
        self.config, self.instructions, self.between = config, instructions, between
        self.together = instructions.lanes // FILTERS
        """Planes of a picture whose filters make a vector."""
        self.places = dict[str, Place]()
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._weights_done = self._numbers_done = 0
        self._integers = {name: np.asarray(value).astype(np.int64) for name, value in integers.items()}
        self._pack()
        self.results = len(self._integers["tail.weight"])
        weights, scales, biases, conditions = (np.concatenate(x) for x in zip(*self._parts, strict=True))
        self.weights: NDArray[np.int16] = _aligned(weights)
        self.scales: NDArray[np.float32] = scales
        self._biases, self._conditions = biases, conditions
        del self._parts, self._integers

    def biases(self, condition: _Ints) -> NDArray[np.int32]:
        """Of all layers, with what the condition (activations) adds to them."""
        return (self._biases + self._conditions @ condition).astype(np.int32)

    def updated(self, integers: Integers) -> Self:
        """The same with another last layer, which has the same exponents. The plans stay those of this."""
        other, place = copy.copy(self), self.places["tail"]
        other.places, other._parts, other._weights_done, other._numbers_done = {}, [], 0, 0
        other._integers = {name: np.asarray(value).astype(np.int64) for name, value in integers.items()}
        other._pointwise("tail")
        ((weights, _, biases, _),) = other._parts
        del other._parts, other._integers
        other.places = self.places
        other.weights, other._biases = _aligned(self.weights), self._biases.copy()
        other.weights[place.weights : place.weights + len(weights)] = weights
        other._biases[place.numbers : place.numbers + len(biases)] = biases
        return other

    def _pack(self) -> None:
        self._pack_filters()
        self._pointwise("head")
        half = self.config.half
        down = np.pad(self._integers["down.weight"], ((0, 0), (0, padded(half) - half), (0, 0), (0, 0)))
        self._dense("down", "down", down.transpose(0, 2, 3, 1).reshape(len(down), -1), slice(None))
        for phase in range(PHASES):
            weight = self._integers["up.weight"][phase::PHASES, :, 0, 0]
            self._dense(f"up.{phase}", "up", weight, slice(phase, None, PHASES))
        self._pointwise("tail")
        if self.between:
            self._pointwise("differences")
            self._depthwise("smoothing")
            self._pointwise("joining")
        for name in self.config.blocks():
            self._depthwise(f"{name}.depthwise")
            self._pointwise(f"{name}.inner")
            self._pointwise(f"{name}.outer")

    def _pack_filters(self) -> None:
        """Each vector reads the planes that its channels filter, and no others: a group for each vector."""
        filters, lanes, together = self._integers["filters.weight"], self.instructions.lanes, self.together
        spread = np.zeros((-(-len(filters) // lanes) * lanes, 3, 3, together), np.int64)
        for output, weight in enumerate(filters[:, 0]):
            spread[output, :, :, output // FILTERS % together] = weight
        self._dense("filters", "filters", spread.reshape(len(spread), -1), slice(None), vectors=1)

    def _pointwise(self, name: str) -> None:
        self._dense(name, name, self._integers[f"{name}.weight"][:, :, 0, 0], slice(None))

    def _dense(
        self, name: str, source: str, weight: _Ints, outputs: slice, vectors: int | None = None
    ) -> None:
        """A layer with weights (outputs, inputs), of which the inputs that come last are the condition.

        vectors: that may be computed together.
        """
        conditions = np.zeros((len(weight), CONDITIONS), np.int64)
        if source == "head" or source.endswith(".inner"):
            weight, conditions = weight[:, :-CONDITIONS], weight[:, -CONDITIONS:]
        if vectors is None:
            weight = np.pad(weight, ((0, padded(len(weight)) - len(weight)), (0, weight.shape[1] % 2)))
        exponent, bias = (self._integers[f"{source}.{part}"][outputs] for part in ("exponent", "bias"))
        rows = len(weight) - len(bias)
        exponent, bias = np.pad(exponent, (0, rows)), np.pad(bias, (0, rows))
        layer = pack_dense(self.instructions, weight, exponent, vectors)
        conditions = np.pad(conditions, ((0, len(weight) - len(conditions)), (0, 0)))
        self._add(name, layer, weight.shape[1] // 2, bias, conditions)

    def _depthwise(self, name: str) -> None:
        weight = self._integers[f"{name}.weight"].reshape(-1, 9)
        rows = padded(len(weight)) - len(weight)
        exponent = np.pad(self._integers[f"{name}.exponent"], (0, rows))
        layer = pack_depthwise(self.instructions, np.pad(weight, ((0, rows), (0, 0))), exponent)
        bias = np.pad(self._integers[f"{name}.bias"], (0, rows))
        self._add(name, layer, 0, bias, np.zeros((len(bias), CONDITIONS), np.int64))

    def _add(self, name: str, layer: PackedLayer, pairs: int, bias: _Ints, conditions: _Ints) -> None:
        self.places[name] = Place(layer, pairs, self._weights_done, self._numbers_done)
        rest = -len(layer.weight) % (_ALIGNMENT // 2)
        self._parts.append(
            (np.pad(layer.weight, (0, rest)), layer.scale, bias[layer.order], conditions[layer.order])
        )
        self._weights_done += len(layer.weight) + rest
        self._numbers_done += len(layer.order)


def packed_networks(
    config: EnhancementConfig, integers: Integers, instructions: InstructionSet
) -> list[PackedNetwork]:
    """The network for frames alone, and that for frames between better ones if there is one."""
    configs = (config, config.between)
    parts = integers_by_trunk(config, integers)
    return [
        PackedNetwork(configs[n], part, instructions, between=n > 0)  # type: ignore[arg-type]
        for n, part in enumerate(parts)
    ]


def integers_by_trunk(config: EnhancementConfig, integers: Integers) -> list[Integers]:
    """Those of the network for frames alone, and of that for frames between, named without BETWEEN."""
    alone = {name: value for name, value in integers.items() if not name.startswith(BETWEEN)}
    if config.between is None:
        return [alone]
    between = (name for name in integers if name.startswith(BETWEEN))
    return [alone, {name.removeprefix(BETWEEN): integers[name] for name in between}]


def _aligned(numbers: NDArray[np.int16]) -> NDArray[np.int16]:
    """A copy that begins at a multiple of _ALIGNMENT bytes."""
    memory = np.empty(numbers.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    result = memory[start : start + numbers.nbytes].view(np.int16)
    result[:] = numbers
    return result
