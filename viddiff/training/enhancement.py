"""Train the enhancement network over tiles.

The loss is the mean of `enhancement_loss` over tiles. Weights and activations are rounded from the first step
on, as in the decoder. Where the processor has instructions for bfloat16, convolutions use it, except for the
last, exact part.

Training starts when there is a first small shard of tiles. A collector in another process adds more. Of
several ranks, each has its collector and its tiles (see `ranks`).
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import network_of, weights_of
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.errors import CheckpointError
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CORRECTION_UNIT, SMALL, EnhancementConfig
from viddiff.training.background import background
from viddiff.training.enhancement_loss import SSIM_SHARE, Losses, tile_losses
from viddiff.training.enhancement_samples import TileBatch, TileCollector, TileShards, collect_forever
from viddiff.training.enhancement_scenes import AS_THEY_ARE, SceneMix
from viddiff.training.enhancement_validation import EnhancementJudge
from viddiff.training.enhancement_widening import widened
from viddiff.training.learner import Learner
from viddiff.training.muon import MuonWithAdamW
from viddiff.training.run import Report, RunOptions, run_steps, validate
from viddiff.training.settings import training_settings

_GRADIENT_MAX = 1.0
_START_BATCHES = 60
_RIDGE = 1e-2
_LOOK_EVERY = 50
_FIRST_TILES, _FIRST_TILES_UNTRAINED = 128, 1024
"""Tiles to wait for. The first layer and the last of an untrained network are computed from them."""
_BETWEEN = 3 / 4
"""Share of the steps for frames between better ones: three of four frames are."""
_VALID_TILES, _VALID_TILES_OF_SCENE = 256, 8


@dataclass(frozen=True)
class EnhancementOptions(RunOptions):
    """Training options."""

    batch: int = 4
    learning_rate: float = 2e-3
    validate_minutes: float = 5.0
    augment: bool = False
    """Train on the mix of scenes of the released weights: also stills, screens, reduced and noisy clips."""
    config: EnhancementConfig | None = None
    """Configuration of the network, which begins as that of `init` widened (see `enhancement_widening`).
    None: that of `init`, or SMALL for an untrained network."""
    ssim_share: float = SSIM_SHARE
    """Share of SSIM in the loss, 0 to 1 (see `enhancement_loss`)."""
    exact_share: float = 0.15
    """Share of the run, at its end, that computes in float32."""
    capacity: int = 2_000_000_000
    """Largest size of the training tiles on disk, in bytes. The oldest make room for new ones."""
    collecting: bool = True
    """Let a process add tiles during the training."""
    compiled: bool = False
    """Compile the network before the first step. Ignored where there is no C++ compiler."""


def train(options: EnhancementOptions, report: Report) -> EnhancementNetwork:
    """Train until time or steps are used up. Writes and returns the averaged weights.

    With validation videos, these are the best of all that were validated, those at the beginning included.
    Every rank calls this (see `ranks`). The first one writes and reports.
    """
    with training_settings(options.seed), options.ranks.together(options.device):
        return _train(options, report)


def _train(options: EnhancementOptions, report: Report) -> EnhancementNetwork:
    ranks, goes_on = options.ranks, options.goes_on
    options.prepare()
    mix = SceneMix() if options.augment else AS_THEY_ARE
    network = _initial(options)
    collector = TileCollector(options.data, options.samples / "train", mix, options.seed, ranks)
    untrained = options.init is None and not goes_on and ranks.first
    tiles = _first_tiles(collector, _FIRST_TILES_UNTRAINED if untrained else _FIRST_TILES)
    judge = None
    if options.valid is not None and ranks.first:
        judge = EnhancementJudge(_valid_tiles(options, options.valid, mix), options.ssim_share)
    if untrained:
        begin_(network, tiles, options)
    if options.init is None:
        network = widened(network, options.config or SMALL)
    training = EnhancementTraining(options, network.to(options.device), tiles, judge)
    if ranks.first:
        if goes_on:
            training.restore(options.state)
        training.learner.run = ranks.run
        training.save_state(options.state)
    ranks.share(options.state, training.restore)
    collecting = background(collect_forever, collector, options.capacity)
    with collecting if options.collecting else nullcontext():
        if judge is not None and not goes_on:
            validate(training, report)
        run_steps(options, training, report)
    if not ranks.first:
        return network_of(training.averaged())
    training.save_weights()
    training.learner.run = ""
    training.save_state(options.state)
    return network_of(enhancement_weights.load(options.out))


def _initial(options: EnhancementOptions) -> EnhancementNetwork:
    if options.init is None:
        alone = replace(options.config or SMALL, between=None)
        return EnhancementNetwork(alone).to(memory_format=torch.channels_last)
    network = network_of(enhancement_weights.load(options.init)).requires_grad_(True)
    if options.config is None or options.config == network.config:
        return network
    return widened(network, options.config)


def _first_tiles(collector: TileCollector, count: int) -> TileShards:
    """Tiles to begin with: those of an earlier run, or a small shard."""
    collector.prepare()
    if not collector.numbers():
        collector.write(collector.next_number(), count)
    return TileShards(collector.folder)


def _valid_tiles(options: EnhancementOptions, valid: Path, mix: SceneMix) -> TileShards:
    """A few tiles of many scenes."""
    collector = TileCollector(valid, options.samples / "valid", mix, options.seed)
    collector.prepare()
    if not collector.numbers():
        collector.write(0, _VALID_TILES, _VALID_TILES_OF_SCENE)
    return TileShards(collector.folder)


class EnhancementTraining:
    """The network, as the loop sees it."""

    def __init__(
        self,
        options: EnhancementOptions,
        network: EnhancementNetwork,
        tiles: TileShards,
        judge: EnhancementJudge | None,
    ) -> None:
        self._options, self._tiles, self._judge = options, tiles, judge
        self._network, self._rng = network.train(), random.Random()
        self.learner = Learner.of(network.named_parameters())
        self.learner.optimizer = MuonWithAdamW.of(network, options.learning_rate)
        self._reduced = has_bfloat16(options.device)
        self._losses: Callable[[EnhancementNetwork, TileBatch], Losses] = (
            torch.compile(tile_losses) if options.compiled and _has_compiler() else tile_losses
        )
        self._seed_draws()

    def _seed_draws(self) -> None:
        self._rng.seed(f"{self._options.seed} {self._options.ranks.number} {self.learner.step}")

    def step(self, share: float) -> dict[str, float]:
        """One step on random tiles."""
        options = self._options
        if self.learner.step % _LOOK_EVERY == 0:
            self._tiles.look()
        batch = self._tiles.batch(options.batch, self._rng, self._between()).to(options.device)
        reduced = self._reduced and share < 1 - options.exact_share
        with torch.autocast(options.device, torch.bfloat16, enabled=reduced):
            loss = self._losses(self._network, batch).mixed(options.ssim_share).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        loss, parameters = loss.detach(), self.learner.parameters.values()
        options.ranks.average_(loss, parameters)
        norm = torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_MAX)
        if torch.isfinite(norm):
            self.learner.optimizer.step()
        self._network.zero_grad(set_to_none=True)
        self.learner.follow()
        return {"loss": float(loss)}

    def _between(self) -> bool | None:
        """Whether the step is for frames between better ones. All ranks say the same. None: for both.

        A batch of both kinds would run two networks on less, and on shapes that are compiled one by one.
        """
        if self._network.config.between is None:
            return None
        return random.Random(f"{self._options.seed} {self.learner.step}").random() < _BETWEEN

    def sample_count(self) -> int:
        """Number of tiles."""
        return len(self._tiles)

    def save_state(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        validations = [] if self._judge is None else self._judge.validations
        about = {"config": asdict(self._network.config), "ssim_share": self._options.ssim_share}
        self.learner.save(path, about | {"validations": validations})

    def restore(self, path: Path) -> None:
        """Go on from such a file. Raises CheckpointError unless it is one of this network and this loss."""
        about, _ = self.learner.restore(path, asdict(self._network.config))
        share, its_share = self._options.ssim_share, about.get("ssim_share")
        if its_share != share:
            raise CheckpointError(
                f"cannot resume from {path}: its run was started with --ssim-share {its_share}, not {share}"
            )
        if self._judge is not None:
            self._judge.validations[:] = about["validations"]
        self._seed_draws()

    def averaged(self) -> EnhancementWeights:
        """The averaged weights, as they are written."""
        network = EnhancementNetwork(self._network.config)
        network.load_state_dict({name: tensor.cpu() for name, tensor in self.learner.average.items()})
        return weights_of(network)

    def save_weights(self) -> None:
        """Write the averaged weights, unless validations decide which ones are written."""
        if self._judge is None:
            enhancement_weights.save(self._options.out, self.averaged())

    def validation(self) -> dict[str, Any]:
        """Validate the averaged weights, and write them if none were better. Returns values for the log."""
        if self._judge is None:
            return {}
        weights, least = self.averaged(), self._judge.least
        figures = self._judge(network_of(weights), self.learner.seconds / 60)
        figures["best"] = self._judge.least < least
        if figures["best"]:
            enhancement_weights.save(self._options.out, weights)
        if self._options.plot is not None:
            self._judge.plot(self._options.plot)
        return figures


def has_bfloat16(device: str) -> bool:
    """Whether convolutions in bfloat16 are fast on the device.

    A CPU without instructions for it computes them without oneDNN, ten times as slowly as in float32.
    """
    if device != "cpu":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_compiler() -> bool:
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def begin_(network: EnhancementNetwork, tiles: TileShards, options: EnhancementOptions) -> None:
    """Set the first layer and the last to what can be computed, from tiles."""
    rng = random.Random(options.seed)
    network.whiten_(tiles.batch(40, rng).decoded)
    solve_tail_(network, (tiles.batch(options.batch, rng) for _ in range(_START_BATCHES)))


@torch.no_grad()
def solve_tail_(network: EnhancementNetwork, batches: Iterator[TileBatch]) -> None:
    """Set the last layer to the ridge regression of the errors on its input features.

    Errors are mostly unpredictable, so gradients would find this first step slowly.
    """
    features: list[Tensor] = []
    handle = network.tail.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    size, outputs = network.config.half + 1, 6
    moments, products = torch.zeros(outputs, size, size).double(), torch.zeros(outputs, size).double()
    network.eval()
    for batch in batches:
        network(batch.decoded, batch.condition)
        x = features.pop().flatten(2) / UNIT
        x = torch.cat((x, torch.ones_like(x[:, :1])), 1)
        error = (batch.original - batch.decoded).flatten(2) * (CORRECTION_UNIT / UNIT)
        for plane in range(outputs):
            weighted = x * batch.share[:, plane, None, None]
            moments[plane] += torch.einsum("bip,bjp->ij", weighted, x)
            products[plane] += torch.einsum("bip,bp->i", weighted, error[:, plane])
    handle.remove()
    network.train()
    ridge = _RIDGE * moments.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(size)
    solved = torch.linalg.solve(moments + ridge, products).float()
    network.tail.weight.copy_(solved[:, :-1, None, None])
    network.tail.bias.copy_(solved[:, -1])
