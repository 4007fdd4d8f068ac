"""A file's own network: how the weights that decode a file differ from those that its header names.

The payload of NETWORK is

    32 bytes    hash of the weights of the file's network, which a decoder checks
    symbols     of the ANS coder: for each layer, in the order of `EnhancementConfig.layers`

    0: as it is; 1: changed, and then
    step        changes are multiples of 2**step, 0..STEPS-1
    scales      for each output: table of its changes, 0..SCALES-1, minus that of the output before; before
                the first it is 0
    changes     for each output: of its weights, and of its bias in units of UNIT; all in units of 2**step

Exponents do not change. Changes are added to the integers; a weight beyond WEIGHT_MAX, or a layer whose sums
could leave the exact range, is an error.

Networks that are tuned to what they code are known from van Rozendaal, Huijben, Cohen: "Overfitting for Fun
and Profit: Instance-Adaptive Data Compression" (ICLR 2021).
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder, Tables, choice_row, discretised_tables
from viddiff.codec.tensor_file import Arrays
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.networks.bounds import EXACT_LIMIT, UNIT, WEIGHT_MAX

HASH_BYTES = 32
STEPS = 8
"""Number of steps."""
SCALES = 16
"""Number of tables of changes."""
_FIRST_SCALE, _SCALE_RATIO = 0.1, 1.5
_SCALE_STEPS = 1.0
"""Scale of the differences between the tables of outputs that follow each other."""
_CHANGED = 0.5
"""Probability that a layer is changed."""
_PRICED = 512
"""Larger changes count as this one when tables are chosen."""
Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class NetworkTables:
    """The entropy coder's tables for changes of a network."""

    flags: Tables
    steps: Tables
    scales: Tables
    changes: Tables
    """For each scale."""

    @classmethod
    def parametric(cls) -> Self:
        """Before any statistics: changes as in Laplace distributions."""
        return cls(
            Tables.from_probabilities([choice_row((1 - _CHANGED, _CHANGED))]),
            Tables.from_probabilities([choice_row((1,) * STEPS)]),
            discretised_tables([_SCALE_STEPS], "laplace"),
            discretised_tables([_FIRST_SCALE * _SCALE_RATIO**n for n in range(SCALES)], "laplace"),
        )

    def scales_of(self, changes: Int64s) -> Int64s:
        """The tables for each output's changes (outputs, N) that make them the shortest, (outputs,).

        The tables of outputs that follow each other are chosen together (Viterbi).
        """
        values = np.arange(-_PRICED, _PRICED + 1)
        prices = self.changes.bits(*np.broadcast_arrays(values, np.arange(SCALES)[:, None]))
        bits = prices[:, changes.clip(-_PRICED, _PRICED) + _PRICED].sum(2).T  # (outputs, SCALES)
        steps = np.arange(SCALES)[None, :] - np.arange(SCALES)[:, None]
        moves = self.scales.bits(steps, np.zeros_like(steps))  # (before, after)
        total, ways = moves[0] + bits[0], list[Int64s]()
        for row in bits[1:]:
            costs = total[:, None] + moves
            ways.append(costs.argmin(0))
            total = costs.min(0) + row
        chosen = [int(total.argmin())]
        for way in reversed(ways):
            chosen.append(int(way[chosen[-1]]))
        return np.array(chosen[::-1])


def pack_network(origin: EnhancementWeights, tuned: EnhancementWeights) -> bytes:
    """Payload of NETWORK, for tuned weights.

    They have the configuration and the exponents of `origin`, and biases that differ by multiples of UNIT.
    """
    stream, tables = SymbolEncoder("ans"), NetworkTables.parametric()
    for name in origin.config.layers():
        changes = _changes(name, origin.integers, tuned.integers)
        stream.put_choices([bool(changes.any())], tables.flags)
        if changes.any():
            step = _step(changes)
            changes >>= step
            scales = tables.scales_of(changes)
            stream.put_choices([step], tables.steps)
            stream.put_choices(np.diff(scales, prepend=0).tolist(), tables.scales)
            stream.put(changes, np.broadcast_to(scales[:, None], changes.shape), tables.changes)
    return tuned.hash() + stream.finish()


def network_hash(network: bytes) -> bytes:
    """The hash that the payload of NETWORK states."""
    return network[:HASH_BYTES]


def _step(changes: Int64s) -> int:
    """The largest step, of which all changes are multiples."""
    every = int(np.bitwise_or.reduce(changes, axis=None))
    return min((every & -every).bit_length() - 1, STEPS - 1)


def _changes(name: str, origin: Arrays, tuned: Arrays) -> Int64s:
    """Changes (outputs, inputs + 1) of a layer."""
    weight, bias, exponent = (
        tuned[f"{name}.{part}"].astype(np.int64) - origin[f"{name}.{part}"]
        for part in ("weight", "bias", "exponent")
    )
    if exponent.any() or (bias % UNIT).any():
        raise ValueError(f"layer {name} differs in a way that a file cannot hold")
    return np.concatenate((weight.reshape(len(weight), -1), bias[:, None] // UNIT), 1)


def adapted(enhancer: Enhancer, network: bytes) -> Enhancer:
    """The network of a file with this NETWORK, whose header names the weights of `enhancer`.

    Raises BitstreamError if it is damaged, or if its sums could leave the exact range.
    """
    known = enhancer.of_files.get(network)
    if known is None:
        known = enhancer.adapted(unpack_network(enhancer.weights, network), network)
        enhancer.of_files.clear()
        enhancer.of_files[network] = known
    return known


def unpack_network(origin: EnhancementWeights, network: bytes) -> EnhancementWeights:
    """Inverse of `pack_network`. Raises BitstreamError as `adapted`."""
    if len(network) < HASH_BYTES:
        raise BitstreamError("the file's own network is cut off")
    tuned = changed_weights(origin, network[HASH_BYTES:])
    if tuned.hash() != network_hash(network):
        raise BitstreamError("the file's own network does not have the hash that the file states")
    return tuned


def changed_weights(origin: EnhancementWeights, symbols: bytes) -> EnhancementWeights:
    """What the symbols make of `origin`, whatever its hash. Raises BitstreamError as `adapted`."""
    stream, tables = SymbolDecoder(symbols, "ans"), NetworkTables.parametric()
    integers = dict(origin.integers)
    for name, layer in origin.config.layers().items():
        if stream.get_choices(1, tables.flags, 2)[0]:
            step = stream.get_choices(1, tables.steps, STEPS)
            scales = stream.get(np.zeros(layer.shape[0], np.int64), tables.scales).cumsum()
            if scales.min() < 0 or scales.max() >= SCALES:
                raise BitstreamError("the file's own network is damaged")
            shape = layer.shape[0], prod(layer.shape[1:]) + 1
            changes = stream.get(np.broadcast_to(scales[:, None], shape), tables.changes)
            _change(integers, name, changes.astype(np.int64) << step)
    stream.finish()
    try:
        return EnhancementWeights(origin.config, integers)
    except CheckpointError as error:
        raise BitstreamError(f"the file's own network is out of range: {error}") from error


def _change(integers: dict[str, NDArray[Any]], name: str, changes: Int64s) -> None:
    """Add changes (outputs, inputs + 1) to a layer. Raises BitstreamError if they leave its range."""
    weight, bias = (integers[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias"))
    weight += changes[:, :-1].reshape(weight.shape)
    bias += UNIT * changes[:, -1]
    if np.abs(weight).max() > WEIGHT_MAX or np.abs(bias).max() >= EXACT_LIMIT:
        raise BitstreamError("the file's own network is out of range")
    integers[f"{name}.weight"], integers[f"{name}.bias"] = weight.astype(np.int8), bias.astype(np.int32)
