"""Train the enhancement network: one loop over tiles.

The loss is the mean over tiles of (error after) / (error before), with planes and tiles weighted as in the
benchmark (see `enhancement_samples`). A network that does nothing has loss 1. Weights and activations are
rounded from the first step on, as in the decoder. Convolutions run in bfloat16, except for the last, exact
part.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import network_of, weights_of
from viddiff.errors import CheckpointError
from viddiff.networks.bounds import UNIT
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import CORRECTION_UNIT, SMALL, EnhancementConfig
from viddiff.training.enhancement_samples import TileBatch, TileShards

_WARM_UP = 100
_GRADIENT_MAX = 1.0
_START_BATCHES = 60
_RIDGE = 1e-2
_LOOK_EVERY = 200

Report = Callable[[dict[str, Any]], None]
"""Takes one line of the log."""


@dataclass(frozen=True)
class EnhancementOptions:
    """Training options."""

    tiles: Path
    """Folder of shards to train on, from `enhancement_samples.collect`. More may arrive during training."""
    out: Path
    """Weights to write. The resume state is beside it."""
    valid: Path | None = None
    """Folder of shards for validation."""
    init: Path | None = None
    """Weights to start from. None: an untrained network."""
    config: EnhancementConfig = SMALL
    """Configuration of an untrained network."""
    max_minutes: float = 60.0
    """Duration of the training. The learning rate follows it."""
    steps: int | None = None
    """Largest number of steps."""
    batch: int = 4
    learning_rate: float = 2e-3
    exact_share: float = 0.15
    """Share of the run, at its end, that computes in float32."""
    report_minutes: float = 1.0
    validate_minutes: float = 10.0
    valid_tiles: int = 512
    """Largest number of validation tiles."""
    compiled: bool = False
    """Compile the network: half the time per step, a minute at the start. Needs a C++ compiler."""
    resume: bool = False
    seed: int = 0
    device: str = "cpu"


def train(options: EnhancementOptions, report: Report) -> EnhancementNetwork:
    """Train until time or steps are used up. Writes and returns the averaged weights."""
    torch.manual_seed(options.seed)
    torch.set_flush_denormal(True)
    rng = random.Random(options.seed)
    tiles = TileShards(options.tiles)
    valid = None if options.valid is None else TileShards(options.valid)
    state = TrainState.of(_start(options, tiles, rng))
    resume = options.out.with_suffix(".resume")
    if options.resume:
        state.restore(resume)
        rng.seed(options.seed + state.step)
    measured = torch.compile(tile_errors) if options.compiled else tile_errors
    began = time.monotonic() - state.seconds
    next_line = state.seconds + 60 * options.report_minutes
    next_valid = state.seconds + 60 * options.validate_minutes
    losses: list[float] = []
    while True:
        state.seconds = time.monotonic() - began
        share = state.seconds / (60 * options.max_minutes)
        if options.steps is not None:
            share = max(share, state.step / options.steps)
        if share >= 1:
            break
        if state.step % _LOOK_EVERY == 0:
            tiles.look()
        batch = tiles.batch(options.batch, rng).to(options.device)
        with torch.autocast(options.device, torch.bfloat16, enabled=share < 1 - options.exact_share):
            loss = measured(state.network, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        state.move(options.learning_rate * schedule(share, state.step))
        losses.append(float(loss.detach()))
        if state.seconds >= next_line:
            report(
                {
                    "step": state.step,
                    "minutes": round(state.seconds / 60, 2),
                    "tiles": len(tiles),
                    "loss": round(sum(losses) / len(losses), 5),
                }
            )
            losses, next_line = [], state.seconds + 60 * options.report_minutes
            state.save(resume)
        if valid is not None and state.seconds >= next_valid:
            report(_judged(options, state, valid))
            next_valid = time.monotonic() - began + 60 * options.validate_minutes
    state.save(resume)
    if valid is not None:
        report(_judged(options, state, valid))
    return _saved(options, state)


def tile_errors(network: EnhancementNetwork, batch: TileBatch) -> Tensor:
    """Error of each tile after enhancement at strength 1, (B,). About 1 before it."""
    correction = network(batch.decoded, batch.condition).float()
    squares = (batch.decoded + correction / CORRECTION_UNIT - batch.original).square().mean((2, 3))
    error: Tensor = (squares * batch.share).sum(1)
    return error


def schedule(share: float, step: int) -> float:
    """Factor of the learning rate: warm-up, then a cosine down to 1 %."""
    return min(1.0, (step + 1) / _WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _start(options: EnhancementOptions, tiles: TileShards, rng: random.Random) -> EnhancementNetwork:
    if options.init is not None:
        network = network_of(enhancement_weights.load(options.init))
        return network.requires_grad_(True).to(options.device)
    network = EnhancementNetwork(options.config).to(memory_format=torch.channels_last)
    network.whiten_(tiles.batch(40, rng).decoded)
    solve_tail_(network, (tiles.batch(options.batch, rng) for _ in range(_START_BATCHES)))
    return network.to(options.device)


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


@torch.inference_mode()
def judge(network: EnhancementNetwork, valid: TileShards, most: int) -> dict[str, float]:
    """Errors of tiles after enhancement relative to before: all, and by range of the GOP's quantiser."""
    sums: dict[str, list[float]] = {}
    network.eval()
    for batch in valid.batches(16, most):
        before = ((batch.decoded - batch.original).square().mean((2, 3)) * batch.share).sum(1)
        after = tile_errors(network, batch)
        for name, chosen in batch.ranges():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] += float(before[chosen].sum())
            pair[1] += float(after[chosen].sum())
    return {name: round(after / before, 5) for name, (before, after) in sorted(sums.items()) if before}


def _judged(options: EnhancementOptions, state: "TrainState", valid: TileShards) -> dict[str, Any]:
    figures = judge(_saved(options, state), valid, options.valid_tiles)
    return {"step": state.step, "minutes": round(state.seconds / 60, 2), **figures}


def _saved(options: EnhancementOptions, state: "TrainState") -> EnhancementNetwork:
    enhancement_weights.save(options.out, weights_of(state.averaged()))
    return network_of(enhancement_weights.load(options.out))


@dataclass
class TrainState:
    """Everything that a resumed run needs."""

    network: EnhancementNetwork
    average: dict[str, Tensor]
    """Exponential moving average of all parameters. It is saved and validated."""
    optimizer: torch.optim.Optimizer = field(init=False)
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, network: EnhancementNetwork) -> Self:
        """A run that starts from this network."""
        state = cls(network.train(), {n: p.detach().clone() for n, p in network.named_parameters()})
        state.optimizer = torch.optim.AdamW(
            network.parameters(), betas=(0.95, 0.99), weight_decay=0.0, fused=True
        )
        return state

    def move(self, learning_rate: float) -> None:
        """One step along the gradients (unless they are not finite), then update the average."""
        parameters = list(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_MAX)
        if torch.isfinite(norm):
            self.optimizer.param_groups[0]["lr"] = learning_rate
            self.optimizer.step()
        self.network.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(0.999, self.step / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list[Tensor](parameters), 1 - decay)

    def averaged(self) -> EnhancementNetwork:
        """A network with the averaged weights."""
        network = EnhancementNetwork(self.network.config)
        network.load_state_dict({name: tensor.cpu() for name, tensor in self.average.items()})
        return network

    def save(self, path: Path) -> None:
        """Write everything to `path`, complete or not at all."""
        tensors = {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.network.named_parameters():
            tensors[f"parameter.{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        about = {"step": self.step, "seconds": self.seconds, "config": asdict(self.network.config)}
        temporary = path.with_name(path.name + ".part")
        save_file(
            {n: t.contiguous().cpu() for n, t in tensors.items()}, temporary, {"about": json.dumps(about)}
        )
        temporary.replace(path)

    def restore(self, path: Path) -> None:
        """Restore from `path`. Raises CheckpointError unless it is the state of a run of this network."""
        try:
            tensors = load_file(path)
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
            with torch.no_grad():
                for name, parameter in self.network.named_parameters():
                    parameter.copy_(tensors[f"parameter.{name}"])
                    self.average[name].copy_(tensors[f"average.{name}"])
                    if f"exp_avg.{name}" in tensors:
                        keys = ("step", "exp_avg", "exp_avg_sq")
                        self.optimizer.state[parameter] = {
                            key: tensors[f"{key}.{name}"].to(parameter.device) for key in keys
                        }
            self.step, self.seconds = int(about["step"]), float(about["seconds"])
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"cannot resume from {path}: {error}") from error
