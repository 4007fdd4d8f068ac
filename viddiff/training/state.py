"""State of a training run: networks, optimiser, counted symbols. It can be saved and restored."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import torch

from viddiff.codec.library import Library
from viddiff.codec.weights import Codec, codec_of, fresh
from viddiff.config import STEP_COUNT
from viddiff.networks.hyperprior import TABLE_CLASSES
from viddiff.networks.model import VideoModel
from viddiff.networks.motion_prior import MotionPrior
from viddiff.training.calibration import SymbolCounts
from viddiff.training.learner import Learner
from viddiff.training.loss import run
from viddiff.training.rates import Rates
from viddiff.training.samples import Batch
from viddiff.training.whitening import WhitenedLayer, whiten

_FADE = 0.8
"""Weight of older counts of symbols when the rates are renewed."""
_WHITENING_BATCHES = 12


@dataclass
class TrainState:
    """Everything that a resumed run needs."""

    model: VideoModel
    motion: MotionPrior
    learner: Learner
    counts: SymbolCounts
    """Recent symbols, from which the loss takes its bits."""
    library: Library
    """Pictures of the weights. Training does not change them."""
    whitened: dict[str, WhitenedLayer] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    """Bits of each kind of symbol, from the counts."""
    norms: list[float] = field(default_factory=lambda: [0.0] * (STEP_COUNT // 8))
    """Running mean of the cost for each range of eight steps."""

    @classmethod
    def of(cls, start: Codec, device: str, seed: int) -> Self:
        """A run that starts from the weights and tables of `start`. It has no optimiser yet."""
        model, motion = fresh(start.model.config, seed)
        model.load_state_dict(start.model.state_dict())
        motion.load_state_dict(start.motion.state_dict())
        model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        motion.to(device)
        learner = Learner.of(parameters(model, motion))
        state = cls(model, motion, learner, SymbolCounts(start.tables), start.library)
        state.renew_rates()
        return state

    def prepare_optimizer(self, batches: Iterator[Batch], learning_rate: float) -> None:
        """Make an optimiser that suits the inputs that `batches` produce."""

        def feed() -> None:
            device = next(self.model.parameters()).device
            for _ in range(_WHITENING_BATCHES):
                run(self.model.train(), next(batches).to(device), self.rates["y"], self.rates["z"])

        self.whitened = whiten(self.model, feed)
        leaves = self._leaves()
        linear = [p for n, p in leaves.items() if ".linear." in n]  # a DCT to begin with: move it gently
        others = [p for n, p in leaves.items() if ".linear." not in n]
        groups = [{"params": others, "pace": 1.0}, {"params": linear, "pace": 0.1}]
        self.learner.optimizer = torch.optim.AdamW(groups, learning_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def _leaves(self) -> dict[str, torch.nn.Parameter]:
        """Parameters of the optimiser: the steps of whitened layers, and all other parameters."""
        steps = {f"whitened.{name}": layer.step for name, layer in self.whitened.items()}
        within = {id(p) for layer in self.whitened.values() for p in layer.layer.parameters()}
        return steps | {n: p for n, p in parameters(self.model, self.motion) if id(p) not in within}

    def renew_rates(self) -> None:
        """Take the rates from the counts so far, and fade the counts."""
        tables, device = self.counts.tables(), next(self.model.parameters()).device
        for kind in ("y", "z", "flags", "merges", "changes"):
            classes = TABLE_CLASSES if kind == "y" else 1
            self.rates[kind] = Rates.of(getattr(tables, kind), classes, device)
            self.counts.fade(kind, _FADE)

    def move(self) -> None:
        """Do one step of the optimiser, and update the average."""
        for layer in self.whitened.values():
            layer.gather()
        self.learner.optimizer.step()
        for layer in self.whitened.values():
            layer.apply()
        self.learner.follow()

    def averaged(self) -> Codec:
        """Codec with the averaged weights."""
        model, motion = fresh(self.model.config)
        with torch.no_grad():
            for name, parameter in parameters(model, motion):
                parameter.copy_(self.learner.average[name])
        device = next(self.model.parameters()).device
        return codec_of(model.to(device), motion.to(device), self.counts.tables(), self.library)

    def save(self, path: Path) -> None:
        """Write everything to `path`, complete or not at all."""
        counts = {f"counts.{kind}": torch.from_numpy(c.copy()) for kind, c in self.counts.counts.items()}
        self.learner.save(path, {"norms": self.norms, "config": asdict(self.model.config)}, counts)

    def restore(self, path: Path) -> None:
        """Restore from `path`. Raises CheckpointError unless it is the state of a run of this model."""
        about, tensors = self.learner.restore(path, asdict(self.model.config))
        for kind, counts in self.counts.counts.items():
            counts[:] = tensors[f"counts.{kind}"].numpy()
        self.norms = [float(norm) for norm in about["norms"]]
        self.renew_rates()


def parameters(model: VideoModel, motion: MotionPrior) -> list[tuple[str, torch.nn.Parameter]]:
    """All parameters of both networks, by name."""
    return [
        *((f"model.{n}", p) for n, p in model.named_parameters()),
        *((f"motion.{n}", p) for n, p in motion.named_parameters()),
    ]
