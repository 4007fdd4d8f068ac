"""Updates of the enhancement's last layers, fitted to what a GOP shows.

A chunk may change the last layer (`tail`) of the network for frames alone, and that of the network for frames
between better ones: what they say of the corrections, not of the shares. A change holds for its chunk and the
rest of the GOP, and is added to the weights as released, not to an earlier change. So a keyframe brings back
the weights as released.

A chunk's symbols begin with one update for each of the network's tails:

    0: as before; 1: changed, and then
    steps       for each plane: its changes are multiples of 2**step, 0..STEPS-1
    scales      for each plane: table of its changes, 0..SCALES-1
    changes     for each plane: one for each input, and one of the bias, in units of UNIT

Only the last layer is linear in what is coded, so that its best values follow from a least-squares fit.
Networks that are tuned to what they code are known from van Rozendaal, Huijben, Cohen: "Overfitting for Fun
and Profit: Instance-Adaptive Data Compression" (ICLR 2021).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.enhancer import Enhancer
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder, Tables, choice_row, discretised_tables
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.networks.bounds import EXACT_LIMIT, UNIT, WEIGHT_MAX
from viddiff.networks.enhancement_config import BETWEEN, PLANES, EnhancementConfig

TAIL, TAIL_BETWEEN = "tail", f"{BETWEEN}tail"
"""The last layers: for frames alone, and for frames between better ones."""
STEPS = 8
"""Number of steps."""
SCALES = 12
"""Number of tables of changes."""
_FIRST_SCALE, _SCALE_RATIO = 0.15, 1.6
_CHANGED = 0.1
"""Probability that a chunk changes a tail."""
_LARGEST_CHANGE = 1 << 16
"""Of a weight or a bias, in steps. Larger ones would leave the exact range in any case."""


@dataclass(frozen=True, eq=False)
class TailUpdate:
    """A change of a last layer."""

    steps: NDArray[np.int64]
    """(PLANES,): changes of each plane are in units of 2**step."""
    changes: NDArray[np.int64]
    """(PLANES, inputs + 1): of weights, and of biases in units of UNIT."""

    @property
    def added(self) -> NDArray[np.int64]:
        """What is added to the weights, and to the biases in units of UNIT."""
        added: NDArray[np.int64] = self.changes << self.steps[:, None]
        return added


@dataclass(frozen=True)
class UpdateTables:
    """The entropy coder's tables for updates."""

    flags: Tables
    steps: Tables
    scales: Tables
    changes: Tables
    """For each scale."""

    @classmethod
    def parametric(cls) -> "UpdateTables":
        """Before any statistics: all steps and scales alike, and changes as in Laplace distributions."""
        scales = [_FIRST_SCALE * _SCALE_RATIO**n for n in range(SCALES)]
        return cls(
            Tables.from_probabilities([choice_row((1 - _CHANGED, _CHANGED))]),
            Tables.from_probabilities([choice_row((1,) * STEPS)]),
            Tables.from_probabilities([choice_row((1,) * SCALES)]),
            discretised_tables(scales, "laplace"),
        )

    def scales_of(self, changes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The table for each plane's changes (PLANES, N) that makes them the shortest."""
        tables: NDArray[np.int64] = self._bits(changes).argmin(0)
        return tables

    def bits(self, changes: NDArray[np.int64]) -> NDArray[np.float64]:
        """About how many bits each plane's changes (PLANES, N) take, with their step and scale."""
        bits: NDArray[np.float64] = self._bits(changes).min(0) + math.log2(STEPS * SCALES)
        return bits

    def _bits(self, changes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bits of each plane's changes by each table, (SCALES, PLANES)."""
        every = np.broadcast_to(changes, (SCALES, *changes.shape))
        tables = np.broadcast_to(np.arange(SCALES)[:, None, None], every.shape)
        bits: NDArray[np.float64] = self.changes.bits(every, tables).sum(2)
        return bits


def tails(config: EnhancementConfig) -> dict[str, int]:
    """Names of the last layers, and their inputs."""
    found = {TAIL: config.half}
    return found if config.between is None else found | {TAIL_BETWEEN: config.between.half}


def write_updates(
    stream: SymbolEncoder, tables: UpdateTables, config: EnhancementConfig, updates: dict[str, TailUpdate]
) -> None:
    """Code the updates of a chunk, which come before everything else in its symbols."""
    for name in tails(config):
        update = updates.get(name)
        stream.put_choices([update is not None], tables.flags)
        if update is None:
            continue
        scales = tables.scales_of(update.changes)
        stream.put_choices(update.steps.tolist(), tables.steps)
        stream.put_choices(scales.tolist(), tables.scales)
        stream.put(update.changes, np.broadcast_to(scales[:, None], update.changes.shape), tables.changes)


def read_updates(
    stream: SymbolDecoder, tables: UpdateTables, config: EnhancementConfig
) -> dict[str, TailUpdate]:
    """The updates of a chunk. Raises BitstreamError if they are damaged."""
    return dict(_updates(stream, tables, config))


def _updates(
    stream: SymbolDecoder, tables: UpdateTables, config: EnhancementConfig
) -> Iterator[tuple[str, TailUpdate]]:
    for name, inputs in tails(config).items():
        if not stream.get_choices(1, tables.flags, 2)[0]:
            continue
        steps = stream.get_choices(PLANES, tables.steps, STEPS)
        scales = stream.get_choices(PLANES, tables.scales, SCALES)
        indexes = np.broadcast_to(scales[:, None], (PLANES, inputs + 1))
        changes = stream.get(indexes, tables.changes).astype(np.int64)
        if np.abs(changes).max() > _LARGEST_CHANGE:
            raise BitstreamError("a change of the enhancement network is out of range")
        yield name, TailUpdate(steps, changes)


def updated(enhancer: Enhancer, updates: dict[str, TailUpdate]) -> Enhancer:
    """The network with these changes of what was released, all tails without one as released.

    Raises BitstreamError if its sums could leave the exact range.
    """
    if not updates:
        return enhancer
    integers = dict(enhancer.weights.integers)
    for name, update in updates.items():
        weight, bias = (integers[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias"))
        added = update.added
        weight[:PLANES] += added[:, :-1, None, None]
        bias[:PLANES] += UNIT * added[:, -1]
        if np.abs(bias).max() >= EXACT_LIMIT:
            raise BitstreamError("a change of the enhancement network is out of range")
        integers[f"{name}.weight"] = np.clip(weight, -WEIGHT_MAX, WEIGHT_MAX).astype(np.int8)
        integers[f"{name}.bias"] = bias.astype(np.int32)
    try:
        return enhancer.updated(integers)
    except CheckpointError as error:
        raise BitstreamError(f"a change of the enhancement network is out of range: {error}") from error
