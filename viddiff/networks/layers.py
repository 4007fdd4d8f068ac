"""Layers that compute with integers held in float32: exact on every device, in any order of summation.

A convolution has 8-bit integer weights with a power-of-two scale for each output channel, and rounds its sum
back to an activation. `IntConv2d.set_integers` proves from the weights that all sums are exact (see
`bounds`). Training sees the same numbers through straight-through estimators (Bengio et al. 2013; Jacob et
al. 2018).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from viddiff.networks.bounds import ACTIVATION_MAX, EXACT_LIMIT, UNIT, WEIGHT_MAX, prove


class _RoundClamp(torch.autograd.Function):
    """Round half to even, then clamp. The gradient passes where the clamp does not act."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        result = x.round().clamp_(low, high)
        ctx.save_for_backward(result)
        ctx.bounds = (low, high)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (result,) = ctx.saved_tensors
        # One fused pass: the gradient where low < result < high.
        return torch.ops.aten.hardtanh_backward(gradients[0], result, *ctx.bounds), None, None


def round_clamp(x: Tensor, low: float = -ACTIVATION_MAX, high: float = ACTIVATION_MAX) -> Tensor:
    """Round `x` to integers in [low, high], with a straight-through gradient."""
    if torch.is_grad_enabled():
        return _RoundClamp.apply(x, low, high)  # type: ignore[no-any-return]
    return x.round().clamp_(low, high)


def round_relu(x: Tensor) -> Tensor:
    """Round `x` to integers in [0, ACTIVATION_MAX]: ReLU and requantisation in one step."""
    return round_clamp(x, 0)


class IntConv2d(nn.Module):
    """Convolution with integer weights w / 2^e: one e for each output channel, |w| <= 127.

    In training mode, the float weights are rounded on the fly. In evaluation mode they are used as they are
    and must already be on their grid (see `set_integers`).

    The result is the unrounded sum, in units of activations. The bias is stored in units of UNIT, so that one
    learning rate suits weights and bias. `input_max` is the largest absolute input, for the proof.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        input_max: int = ACTIVATION_MAX,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight, a=1.0)
        self.stride, self.groups, self.input_max = stride, groups, input_max
        self.padding = kernel // 2 if stride == 1 else 0
        self.kernel = kernel

    def exponents(self) -> Tensor:
        """Largest e of each channel, (outputs,), for which weights fit 8 bits and sums stay exact."""
        flat = self.weight.detach().abs().flatten(1)
        room = torch.minimum(
            WEIGHT_MAX / flat.amax(1), 0.98 * EXACT_LIMIT / self.input_max / (flat.sum(1) + 1e-9)
        )
        return room.clamp(1.0, 2.0**14).log2().floor()

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Integer weights, biases and exponents, as float tensors that hold integers."""
        exponents = self.exponents()
        scale = torch.exp2(exponents)
        weight = (self.weight.detach() * scale[:, None, None, None]).round().clamp(-WEIGHT_MAX, WEIGHT_MAX)
        limit = EXACT_LIMIT - 1 - self.input_max * weight.abs().flatten(1).sum(1)
        bias = (self.bias.detach() * UNIT * scale).round()
        return weight, torch.minimum(torch.maximum(bias, -limit), limit), exponents

    def set_integers(self, weight: Tensor, bias: Tensor, exponents: Tensor) -> None:
        """Set integer weights, such as those from `integers`.

        Raises CheckpointError if a shape or value is wrong, or if a sum could leave the exact range.
        """
        parts = (x.detach().cpu().numpy() for x in (weight, bias, exponents))
        prove(*parts, shape=tuple(self.weight.shape), input_max=self.input_max)
        scale = torch.exp2(-exponents.float())
        with torch.no_grad():
            self.weight.copy_(weight.float() * scale[:, None, None, None])
            self.bias.copy_(bias.float() * scale / UNIT)

    def on_grid(self) -> tuple[Tensor, Tensor]:
        """Weights and bias as they act, the bias in units of activations; straight-through gradient."""
        weight: Tensor = self.weight
        bias = self.bias * UNIT
        if self.training:
            scale = torch.exp2(self.exponents())
            with torch.no_grad():
                shift_w = (weight * scale[:, None, None, None]).round_().div_(
                    scale[:, None, None, None]
                ) - weight
                shift_b = (bias * scale).round_().div_(scale) - bias
            weight, bias = weight + shift_w, bias + shift_b
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve activations (B, inputs, H, W). Returns the unrounded sums (B, outputs, H', W')."""
        weight, bias = self.on_grid()
        return functional.conv2d(x, weight, bias, self.stride, self.padding, 1, self.groups)

    def macs(self) -> int:
        """Multiply-accumulate operations for each output position."""
        return self.weight.numel()


class ConditionedConv2d(IntConv2d):
    """1x1 convolution of features and of a condition that is the same at every position.

    The proof covers both; at each position only the features cost anything.
    """

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__(inputs + conditions, outputs)
        self.inputs = inputs
        with torch.no_grad():
            self.weight[:, inputs:] = 0

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]
        """x (B, inputs, H, W) and condition (B, conditions), both activations."""
        weight, bias = self.on_grid()
        offset = functional.linear(condition, weight[:, self.inputs :, 0, 0], bias)
        return functional.conv2d(x, weight[:, : self.inputs]) + offset[:, :, None, None]

    def macs(self) -> int:
        """Multiply-accumulate operations for each output position."""
        return self.inputs * self.weight.shape[0]


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 (3x3 depthwise x)) at constant width. Input and output: (B, C, H, W) activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = IntConv2d(channels, channels, kernel=3, groups=channels)
        self.inner = IntConv2d(channels, channels)
        self.outer = IntConv2d(channels, channels)
        start_near_zero(self.outer)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to activations (B, C, H, W)."""
        hidden = round_clamp(self.depthwise(x))
        hidden = round_relu(self.inner(hidden))
        return round_clamp(x + round_clamp(self.outer(hidden)))


def start_near_zero(layer: IntConv2d) -> None:
    """Shrink a layer's initial weights, so that it begins as a small correction."""
    with torch.no_grad():
        layer.weight.mul_(0.1)


def with_planes(x: Tensor, condition: Tensor) -> Tensor:
    """Append constant planes: x (B, C, H, W), condition (B, K) -> (B, C + K, H, W)."""
    planes = condition[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat((x, planes), 1)
