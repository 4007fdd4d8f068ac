"""What every training run does: its options, and the loop over steps with its log."""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from viddiff.errors import ViddiffError
from viddiff.training.learner import Learner
from viddiff.training.ranks import ALONE, Ranks

SAVE_MINUTES = 10
"""Minutes between weights that are written during a run."""
_LINE_MINUTES = 1
_WARM_UP = 100
_LAST_RATE = 0.01

Report = Callable[[dict[str, Any]], None]
"""Takes one line of the log: step, minutes, loss and so on."""


@dataclass(frozen=True)
class RunOptions:
    """Options of every training run."""

    data: Path
    """Folder of training videos, searched recursively."""
    out: Path
    """Weights to write. The resume state is beside it."""
    valid: Path | None = None
    """Folder of validation videos. None: no validation."""
    init: Path | None = None
    """Weights to start from. None: untrained networks."""
    cache: Path | None = None
    """Folder for samples. None: beside `out`."""
    max_minutes: float = 60.0
    """Duration of the training. The learning rate follows it."""
    steps: int | None = None
    """Largest number of steps."""
    batch: int = 1
    """Samples in a step, of each rank."""
    learning_rate: float = 1e-3
    """Highest learning rate."""
    validate_minutes: float = 10.0
    """Minutes between validations."""
    plot: Path | None = None
    """PNG of the validations, drawn again after each."""
    resume: bool = False
    """Continue the last run with the same `out`."""
    seed: int = 0
    device: str = "cpu"
    ranks: Ranks = ALONE
    """The processes that train together."""

    @property
    def samples(self) -> Path:
        """Folder for samples."""
        return self.cache or self.out.with_suffix(".samples")

    @property
    def state(self) -> Path:
        """File for everything that a resumed run needs."""
        return self.out.with_suffix(".resume")

    @property
    def goes_on(self) -> bool:
        """Whether this run continues an earlier one: to resume it, or because torchrun started it again."""
        return self.resume or self.ranks.own(self.state)

    def prepare(self) -> None:
        """Make the folder of `out`. Raises ViddiffError if there is nothing to resume."""
        if self.ranks.first and self.resume and not self.state.exists():
            raise ViddiffError(f"there is nothing to resume: {self.state} is missing")
        self.out.parent.mkdir(parents=True, exist_ok=True)


class Training(Protocol):
    """Networks that are trained, as the loop sees them."""

    learner: Learner

    def step(self, share: float) -> dict[str, float]:
        """Do one step, after this share of the run. Returns values for the log."""

    def sample_count(self) -> int:
        """Number of samples to train on."""

    def save_state(self, path: Path) -> None:
        """Write everything that a resumed run needs."""

    def save_weights(self) -> None:
        """Write the averaged weights."""

    def validation(self) -> dict[str, Any]:
        """Validate the averaged weights, and write them, or the best so far. Returns values for the log."""


def run_steps(options: RunOptions, training: Training, report: Report) -> None:
    """Do steps until time or steps are used up, as the first rank decides. It alone writes and reports."""
    learner, ranks = training.learner, options.ranks
    began = time.monotonic() - learner.seconds
    next_line, next_save, next_valid = (
        learner.seconds + 60 * minutes for minutes in (_LINE_MINUTES, SAVE_MINUTES, options.validate_minutes)
    )
    values = defaultdict[str, list[float]](list)
    while (share := ranks.decided(_share(options, learner))) < 1:
        learner.set_rate(options.learning_rate * schedule(share, learner.step))
        for name, value in training.step(share).items():
            values[name].append(value)
        learner.step += 1
        learner.seconds = time.monotonic() - began
        if not ranks.first:
            continue
        if learner.seconds >= next_line:
            means = {name: round(sum(all_) / len(all_), 5) for name, all_ in values.items()}
            report({**_place(learner), "samples": training.sample_count(), **means})
            training.save_state(options.state)
            next_line = learner.seconds + 60 * _LINE_MINUTES
            values.clear()
        if learner.seconds >= next_save:
            training.save_weights()
            next_save = learner.seconds + 60 * SAVE_MINUTES
        if options.valid is not None and learner.seconds >= next_valid:
            validate(training, report)
            next_valid = time.monotonic() - began + 60 * options.validate_minutes
            learner.seconds = time.monotonic() - began
    if not ranks.first:
        return
    if options.valid is not None:
        validate(training, report)
    training.save_state(options.state)


def validate(training: Training, report: Report) -> None:
    """Validate now."""
    report({**_place(training.learner), **training.validation()})


def schedule(share: float, step: int) -> float:
    """Factor of the learning rate: warm-up over 100 steps, then a cosine down to 1 %."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return min(1.0, (step + 1) / _WARM_UP) * (_LAST_RATE + (1 - _LAST_RATE) * cosine)


def _share(options: RunOptions, learner: Learner) -> float:
    """Share of the run that is over: of its time or of its steps, whatever is more."""
    by_time = learner.seconds / (60 * options.max_minutes)
    return by_time if options.steps is None else max(by_time, learner.step / max(options.steps, 1))


def _place(learner: Learner) -> dict[str, Any]:
    return {"step": learner.step, "minutes": round(learner.seconds / 60, 2)}
