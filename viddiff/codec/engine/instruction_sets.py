"""The processor's dot products of pairs of int16, and weights in the order in which they read them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viddiff.native_code import processor_features

TAPS = 9
"""Weights of a 3x3 filter."""
CHANNEL_MULTIPLE = 16
"""Rows have a multiple of so many channels."""
POSITION_MULTIPLE = 4
"""Rows have a multiple of so many positions."""


@dataclass(frozen=True)
class InstructionSet:
    """How dot products are computed."""

    name: str
    features: frozenset[str]
    """What a processor must have, in LLVM's names."""
    lanes: int
    """Sums in a vector."""
    positions: int
    """Positions whose sums are held at the same time."""
    vectors: tuple[int, ...]
    """Possible numbers of vectors for each position, the best first."""


INSTRUCTION_SETS = (
    InstructionSet("avx512_vnni", frozenset({"avx512f", "avx512bw", "avx512vnni"}), 16, 8, (3, 2, 1)),
    InstructionSet("avx2", frozenset({"avx2"}), 8, 4, (2, 1)),
    InstructionSet("plain", frozenset(), 8, 4, (2, 1)),
)
"""The best first."""


def instruction_sets() -> list[InstructionSet]:
    """Those that this processor has, the best first."""
    return [each for each in INSTRUCTION_SETS if each.features <= processor_features()]


@dataclass(frozen=True)
class PackedLayer:
    """A layer's numbers in the order in which a kernel reads them."""

    weight: NDArray[np.int16]
    scale: NDArray[np.float32]
    order: NDArray[np.int64]
    """Output channel of each number of `scale`, and of a bias."""
    vectors: int
    """Vectors that are computed together."""
    groups: int
    """How many times."""


def pack_dense(
    kind: InstructionSet, weight: NDArray[np.int64], exponent: NDArray[np.int64], most: int | None = None
) -> PackedLayer:
    """A convolution with weights (outputs, inputs), in the order in which its inputs are read.

    There are `lanes` * n outputs with an exponent each, and an even number of inputs. most: vectors that may
    be computed together.
    """
    total = len(weight) // kind.lanes
    vectors = next(count for count in kind.vectors if total % count == 0 and count <= (most or total))
    groups = total // vectors
    order = np.concatenate([_order(kind, vectors) + g * vectors * kind.lanes for g in range(groups)])
    pairs = weight[order].reshape(groups, vectors * kind.lanes, -1, 2).swapaxes(1, 2)
    return PackedLayer(pairs.astype(np.int16).ravel(), _scale(exponent[order]), order, vectors, groups)


def pack_depthwise(
    kind: InstructionSet, weight: NDArray[np.int64], exponent: NDArray[np.int64]
) -> PackedLayer:
    """A 3x3 convolution of each channel with its own weights (channels, 9)."""
    channels = 2 * kind.lanes
    span = int(np.lcm(len(weight), channels))
    order = np.concatenate([_order(kind, 2) + first for first in range(0, span, channels)]) % len(weight)
    taps = np.pad(weight[order], ((0, 0), (0, 1))).reshape(-1, 2, kind.lanes, (TAPS + 1) // 2, 2)
    return PackedLayer(
        taps.transpose(0, 3, 1, 2, 4).astype(np.int16).ravel(),
        _scale(exponent[order]),
        order,
        span // channels,
        span // len(weight),
    )


def _order(kind: InstructionSet, vectors: int) -> NDArray[np.int64]:
    """Channels of the lanes of `vectors` vectors: two of them make one of int16, as packssdw puts them."""
    pair = np.arange(2 * kind.lanes).reshape(-1, 2, 4).swapaxes(0, 1).ravel()
    whole = [pair + n * len(pair) for n in range(vectors // 2)]
    rest = [np.arange(kind.lanes) + vectors // 2 * len(pair)] if vectors % 2 else []
    return np.concatenate(whole + rest)


def _scale(exponent: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.ldexp(np.float32(1), -exponent.astype(np.int32)).astype(np.float32)
