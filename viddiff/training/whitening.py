"""Whitening: optimiser steps in coordinates in which a layer's inputs are uncorrelated and of equal size.

Neighbouring samples of a picture are almost equal. So the weights that see them have directions thousands of
times stiffer than others, and a step size for the stiff ones is too small for the rest. Each 1x1 convolution
M = [W | b] therefore moves by dM = dV T, with

    T = (I + C / (RIDGE * mean eigenvalue of C))^-1/2,

C the second moment of its inputs, and dV Adam's step from the gradient by V. T is the input factor of
natural-gradient methods (Desjardins et al. 2015; Martens and Grosse 2015).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from viddiff.networks.bounds import UNIT
from viddiff.networks.layers import IntConv2d

RIDGE = 0.03
_POSITIONS = 2048
"""Number of positions of a batch at which inputs are examined."""


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
        """dV, the optimiser's parameter. Zero, except during a step."""

    def look(self, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Forward hook: add the second moment of the inputs, with a constant input for the bias."""
        x: Tensor = arguments[0].detach().transpose(0, 1).flatten(1)
        x = x[:, torch.randint(x.shape[1], (_POSITIONS,), device=x.device)]
        x = torch.cat((x, torch.full_like(x[:1], self.unit)))
        self.moment += x @ x.T / x.shape[1]

    def settle(self) -> None:
        """Compute the transform from the inputs seen."""
        values, vectors = torch.linalg.eigh(self.moment.double())
        scale = (1 + values.clamp(min=0) / (RIDGE * values.mean().clamp(min=1e-9))).rsqrt()
        self.transform = ((vectors * scale) @ vectors.T).float()

    def gather(self) -> None:
        """Compute the gradient by V from those by weights and bias."""
        weight, bias = self.layer.weight.grad, self.layer.bias.grad  # type: ignore[union-attr]
        if weight is not None and bias is not None:
            self.step.grad = torch.cat((weight.flatten(1), bias[:, None]), 1) @ self.transform

    @torch.no_grad()
    def apply(self) -> None:
        """Move weights and bias by the optimiser's step in V."""
        moved = self.step @ self.transform
        self.layer.weight += moved[:, :-1].view_as(self.layer.weight)
        self.layer.bias += moved[:, -1]  # type: ignore[operator]
        self.step.zero_()


def whiten(model: nn.Module, feed: Callable[[], None]) -> dict[str, WhitenedLayer]:
    """Whitened 1x1 convolutions of `model` by name, without those called "linear".

    `feed` runs typical batches.
    """
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
