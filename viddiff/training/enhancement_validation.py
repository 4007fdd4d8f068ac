"""Validation of enhancement weights: the error of tiles that training does not see."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CORRECTION_UNIT
from viddiff.plots import new_figure, save_figure
from viddiff.training.enhancement_samples import TileBatch, TileShards

_BATCH = 16


def tile_errors(network: EnhancementNetwork, batch: TileBatch) -> Tensor:
    """Error of each tile after enhancement at strength 1, (B,). About 1 before it."""
    squares = (batch.decoded + corrections(network, batch) / CORRECTION_UNIT - batch.original).square()
    squares = squares.mean((2, 3))
    error: Tensor = (squares * batch.share).sum(1)
    return error


def corrections(network: EnhancementNetwork, batch: TileBatch) -> Tensor:
    """The network's correction of each tile, as its decoder would compute it."""
    if network.config.between is None or not batch.between.any():
        return network(batch.decoded, batch.condition).float()  # type: ignore[no-any-return]
    if batch.between.all():
        return network(batch.decoded, batch.condition, batch.hypotheses).float()  # type: ignore[no-any-return]
    result = torch.empty_like(batch.decoded)
    for part, hypotheses in ((~batch.between, None), (batch.between, batch.hypotheses[batch.between])):
        result[part] = network(batch.decoded[part], batch.condition[part], hypotheses).float()
    return result


class EnhancementJudge:
    """Judges networks on the same tiles, and remembers the results."""

    def __init__(self, tiles: TileShards) -> None:
        self._tiles = tiles
        self.validations: list[dict[str, float]] = []
        """For each validation: `minutes`, and the figures that `judge` gives."""

    @property
    def least(self) -> float:
        """The least error so far; infinite before the first validation."""
        return min((each["all"] for each in self.validations), default=math.inf)

    def __call__(self, network: EnhancementNetwork, minutes: float) -> dict[str, Any]:
        """Judge a network after so many minutes of training. Returns values for the log."""
        figures = judge(network, self._tiles)
        self.validations.append({"minutes": minutes, **figures})
        ranges = {name: error for name, error in figures.items() if name != "all"}
        return {"validation_error": figures["all"], "validation_ranges": ranges}

    def plot(self, target: Path) -> None:
        """Draw the errors over time, as a PNG.

        Raises ViddiffError if matplotlib is missing, OSError if `target` cannot be written.
        """
        figure = new_figure(8, 5)
        axes = figure.subplots()
        minutes = [each["minutes"] for each in self.validations]
        for name in list(self.validations[-1])[1:]:
            errors = [each.get(name, float("nan")) for each in self.validations]
            width = 2.5 if name == "all" else 1
            axes.plot(minutes, errors, "-o", markersize=3, linewidth=width, label=name)
        axes.set(xlabel="minutes", ylabel="error after / before enhancement")
        axes.legend(title="quantiser of the GOP")
        save_figure(figure, target)


@torch.inference_mode()
def judge(network: EnhancementNetwork, tiles: TileShards) -> dict[str, float]:
    """Errors of tiles after enhancement relative to before: all, and by range of the GOP's quantiser."""
    sums: dict[str, list[float]] = {}
    network.eval()
    for batch in tiles.batches(_BATCH, len(tiles)):
        before = ((batch.decoded - batch.original).square().mean((2, 3)) * batch.share).sum(1)
        after = tile_errors(network, batch)
        for name, chosen in batch.ranges():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] += float(before[chosen].sum())
            pair[1] += float(after[chosen].sum())
    return {name: round(after / before, 5) for name, (before, after) in sorted(sums.items()) if before}
