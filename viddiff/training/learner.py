"""Parameters that are trained, their average and their optimiser, in memory and on disk."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from viddiff.codec.tensor_file import read_tensors, write_arrays
from viddiff.errors import CheckpointError

_MAX_BYTES, _MAX_HEADER_BYTES = 1 << 30, 1 << 24


@dataclass
class Learner:
    """What all networks have in common while they are trained."""

    parameters: dict[str, torch.nn.Parameter]
    average: dict[str, Tensor]
    """Exponential moving average of all parameters. It is saved as weights and validated."""
    optimizer: torch.optim.Optimizer = field(init=False)
    step: int = 0
    """Steps so far."""
    seconds: float = 0.0
    """Time so far."""
    run: str = ""
    """The run that goes on from the saved state when it is started again (see `Ranks`). Empty: none."""

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> Self:
        """A learner at the beginning. It has no optimiser yet."""
        named = dict(parameters)
        return cls(named, {name: parameter.detach().clone() for name, parameter in named.items()})

    def set_rate(self, learning_rate: float) -> None:
        """Set the learning rate. Groups of parameters may have a `pace`, a factor on it."""
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("pace", 1.0) * learning_rate

    def follow(self) -> None:
        """Let the average follow the parameters, after a step of the optimiser."""
        decay = min(0.999, (self.step + 1) / (self.step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

    def save(self, path: Path, about: dict[str, Any], more: dict[str, Tensor] | None = None) -> None:
        """Write everything, with other values and tensors of the run, complete or not at all."""
        tensors = {f"average.{name}": tensor for name, tensor in self.average.items()}
        tensors |= {f"parameter.{name}": tensor.detach() for name, tensor in self.parameters.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
        tensors |= more or {}
        held = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
        place = {"step": self.step, "seconds": self.seconds}
        write_arrays(path, held, {"about": json.dumps(place | about), "run": self.run})

    def restore(self, path: Path, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Restore from `path`. Returns the run's other values, and all tensors.

        Raises CheckpointError unless it is the state of a run of networks with this configuration, which is
        one of the other values.
        """
        try:
            metadata, tensors = read_tensors(path, _MAX_BYTES, _MAX_HEADER_BYTES)
            about: dict[str, Any] = json.loads(metadata["about"])
            if about["config"] != config:
                raise ValueError
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(tensors[f"parameter.{name}"])
                    self.average[name].copy_(tensors[f"average.{name}"])
            optimizer = self.optimizer.state_dict()
            for name in tensors:
                kind, _, rest = name.partition(".")
                if kind == "optimizer":
                    index, _, value = rest.partition(".")
                    optimizer["state"].setdefault(int(index), {})[value] = tensors[name]
            self.optimizer.load_state_dict(optimizer)
            self.step, self.seconds = int(about["step"]), float(about["seconds"])
        except CheckpointError as error:
            raise CheckpointError(f"cannot resume from {path}: {error}") from error
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            message = f"cannot resume from {path}: it is not the state of a run of these networks"
            raise CheckpointError(message) from error
        return about, tensors
