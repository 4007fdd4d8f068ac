"""Steps of the optimiser taken where a layer's inputs are uncorrelated and of one size.

Neighbouring samples of a picture are nearly alike, so the weights that see them have directions thousands of
times stiffer than others, and a step size that the stiff ones bear starves the rest. Each 1x1 convolution
M = [W | b] therefore moves by dM = dV T, with T = (I + C / (RIDGE * mean eigenvalue of C))^-1/2 and C the
second moment of its inputs (the input factor of natural-gradient methods: Desjardins et al. 2015; Martens and
Grosse 2015), and dV what Adam makes of the gradient by V.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from viddiff.networks.layers import UNIT, IntConv2d

RIDGE = 0.03
_POSITIONS = 2048
"""Positions of a batch at which inputs are looked at."""


class WhitenedLayer:
    """Weights and bias of a 1x1 convolution, moved in the coordinates V."""

    def __init__(self, layer: IntConv2d | nn.Conv2d) -> None:
        self.layer = layer
        outputs, inputs = layer.weight.shape[:2]
        device = layer.weight.device
        self.moment = torch.zeros(inputs + 1, inputs + 1, device=device)
        self.transform = torch.eye(inputs + 1, device=device)
        self.unit = float(UNIT) if isinstance(layer, IntConv2d) else 1.0
        self.step = nn.Parameter(torch.zeros(outputs, inputs + 1, device=device))
        """dV: the optimiser's parameter, zero but for a moment."""

    def look(self, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Forward hook: add the second moment of the inputs, a constant for the bias among them."""
        x: Tensor = arguments[0].detach().transpose(0, 1).flatten(1)
        x = x[:, torch.randint(x.shape[1], (_POSITIONS,), device=x.device)]
        x = torch.cat((x, torch.full_like(x[:1], self.unit)))
        self.moment += x @ x.T / x.shape[1]

    def settle(self) -> None:
        """The transform for the inputs seen."""
        values, vectors = torch.linalg.eigh(self.moment.double())
        scale = (1 + values.clamp(min=0) / (RIDGE * values.mean().clamp(min=1e-9))).rsqrt()
        self.transform = ((vectors * scale) @ vectors.T).float()

    def gather(self) -> None:
        """Gradient by V from those by the weights and the bias."""
        weight, bias = self.layer.weight.grad, self.layer.bias.grad  # type: ignore[union-attr]
        if weight is not None and bias is not None:
            self.step.grad = torch.cat((weight.flatten(1), bias[:, None]), 1) @ self.transform

    @torch.no_grad()
    def apply(self) -> None:
        """Move weights and bias by what the optimiser did to V."""
        moved = self.step @ self.transform
        self.layer.weight += moved[:, :-1].view_as(self.layer.weight)
        self.layer.bias += moved[:, -1]  # type: ignore[operator]
        self.step.zero_()


def whiten(model: nn.Module, feed: Callable[[], None]) -> dict[str, WhitenedLayer]:
    """Whitened 1x1 convolutions of `model` by name, those called "linear" left out; `feed` runs typical
    batches."""
    layers = {
        name: WhitenedLayer(layer)
        for name, layer in model.named_modules()
        if isinstance(layer, IntConv2d | nn.Conv2d)
        and layer.weight.shape[2:] == (1, 1)
        and not name.endswith("linear")
    }
    hooks = [w.layer.register_forward_pre_hook(w.look) for w in layers.values()]
    with torch.no_grad():
        feed()
    for hook in hooks:
        hook.remove()
    for layer in layers.values():
        layer.settle()
    return layers
