"""Validation of enhancement weights: the loss of tiles that training does not see."""

import math
from pathlib import Path
from typing import Any

import torch

from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.plots import new_figure, save_figure
from viddiff.training.enhancement_loss import Losses, squared_error, tile_losses
from viddiff.training.enhancement_samples import TileShards

_BATCH = 16


class EnhancementJudge:
    """Judges networks on the same tiles, and remembers the results."""

    def __init__(self, tiles: TileShards, ssim_share: float) -> None:
        self._tiles, self._ssim_share = tiles, ssim_share
        self.validations: list[dict[str, float]] = []
        """For each validation: `minutes`, and the loss of all tiles and of each range."""

    @property
    def least(self) -> float:
        """The least loss so far; infinite before the first validation."""
        return min((each["all"] for each in self.validations), default=math.inf)

    def __call__(self, network: EnhancementNetwork, minutes: float) -> dict[str, Any]:
        """Judge a network after so many minutes of training. Returns values for the log."""
        figures = judge(network, self._tiles)
        losses = {name: _rounded(each.mixed(self._ssim_share)) for name, each in figures.items()}
        self.validations.append({"minutes": minutes, **losses})
        return {
            "validation_loss": losses.pop("all"),
            "validation_error": _rounded(figures["all"].error),
            "validation_dissimilarity": _rounded(figures["all"].dissimilarity),
            "validation_ranges": losses,
        }

    def plot(self, target: Path) -> None:
        """Draw the losses over time, as a PNG.

        Raises ViddiffError if matplotlib is missing, OSError if `target` cannot be written.
        """
        figure = new_figure(8, 5)
        axes = figure.subplots()
        minutes = [each["minutes"] for each in self.validations]
        for name in list(self.validations[-1])[1:]:
            losses = [each.get(name, float("nan")) for each in self.validations]
            width = 2.5 if name == "all" else 1
            axes.plot(minutes, losses, "-o", markersize=3, linewidth=width, label=name)
        axes.set(xlabel="minutes", ylabel="loss: after / before enhancement")
        axes.legend(title="quantiser of the GOP")
        save_figure(figure, target)


@torch.inference_mode()
def judge(network: EnhancementNetwork, tiles: TileShards) -> dict[str, Losses]:
    """Mean losses of all tiles, and by range of the GOP's quantiser."""
    sums: dict[str, torch.Tensor] = {}
    network.eval()
    for batch in tiles.batches(_BATCH, len(tiles)):
        before, after = squared_error(batch.decoded, batch), tile_losses(network, batch)
        figures = torch.stack((before, after.error, after.dissimilarity, torch.ones_like(before)))
        for name, chosen in batch.ranges():
            sums[name] = sums.get(name, 0) + figures[:, chosen].double().sum(1)
    return {
        name: Losses(error / before, dissimilarity / count)
        for name, (before, error, dissimilarity, count) in sorted(sums.items())
        if before
    }


def _rounded(loss: torch.Tensor) -> float:
    return round(float(loss), 5)
