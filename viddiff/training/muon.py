"""Muon for the weights of 1x1 layers, AdamW for all other parameters, as one optimiser.

Muon (K. Jordan and others, 2024) makes the step of a matrix nearly orthogonal, so that no direction of its
inputs is left behind. Steps are as long as AdamW's (J. Liu and others, 2025), so that one learning rate suits
both.

PyTorch has Muon as well, but computes in bfloat16. Without instructions for that, as on most CPUs, it takes
twelve times as long as float32, a quarter of the time of a step.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

from viddiff.networks.layers import IntConv2d

_MOMENTUM = 0.95
_BETAS = (0.95, 0.99)
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x^3 and x^5, which move singular values from 0..1 to about 0.7..1.2."""
_ITERATIONS = 5
_ADAM_SIZE = 0.2
"""Root mean square of AdamW's steps, in learning rates."""
_TINY = 1e-7


class MuonWithAdamW(torch.optim.Optimizer):
    """Groups of parameters: the matrices, and the others."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], learning_rate: float
    ) -> None:
        """matrices: weights of 1x1 layers, (outputs, inputs, 1, 1)."""
        self._adam = torch.optim.AdamW(others, learning_rate, _BETAS, weight_decay=0.0, fused=True)
        super().__init__([{"params": list(matrices)}], {"lr": learning_rate})
        self.param_groups += self._adam.param_groups
        self._share()

    @classmethod
    def of(cls, network: nn.Module, learning_rate: float) -> "MuonWithAdamW":
        """For a network of `IntConv2d` layers. The layers that give results take AdamW's steps."""
        matrices = {
            id(layer.weight): layer.weight
            for name, layer in network.named_modules()
            if isinstance(layer, IntConv2d) and _is_matrix(layer.weight) and name.rpartition(".")[2] != "tail"
        }
        others = [parameter for parameter in network.parameters() if id(parameter) not in matrices]
        return cls(matrices.values(), others, learning_rate)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of all parameters that have gradients."""
        loss = None if closure is None else closure()
        group = self.param_groups[0]
        for weight in group["params"]:
            if weight.grad is not None:
                gradient = weight.grad.flatten(1)
                state = self.state[weight]
                momentum = state.setdefault("momentum", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - _MOMENTUM)
                direction = nearly_orthogonal(gradient.lerp(momentum, _MOMENTUM))
                length = group["lr"] * _ADAM_SIZE * max(direction.shape) ** 0.5
                weight.add_(direction.view(weight.shape), alpha=-length)
        self._adam.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let AdamW keep its state here."""
        self._adam.state = self.state
        self._adam.param_groups = self.param_groups[1:]


def nearly_orthogonal(matrix: Tensor) -> Tensor:
    """A matrix with the same singular vectors, and singular values of about 1 (Newton and Schulz)."""
    if matrix.shape[0] > matrix.shape[1]:
        return nearly_orthogonal(matrix.T).T
    linear, cubic, quintic = _QUINTIC
    x: Tensor = matrix / (matrix.norm() + _TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=cubic, alpha=quintic), x, beta=linear)
    return x


def _is_matrix(weight: Tensor) -> bool:
    return weight.shape[2:] == (1, 1) and min(weight.shape[:2]) > 1
