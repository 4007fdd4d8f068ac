"""Enhance base frames with exact integers."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, rounded
from viddiff.codec.engine.enhancement import EnhancementEngine
from viddiff.codec.engine.strengths import apply_strengths, strength_errors
from viddiff.frame import Frame
from viddiff.media.av1_headers import Coding
from viddiff.networks.enhancement import BLOCK, EnhancementNetwork, condition_of
from viddiff.networks.layers import MAX_EXPONENT, UNIT
from viddiff.networks.planes import pack, planes_of
from viddiff.networks.strips import in_strips

Strengths = NDArray[np.int64]
"""Strengths (GROUPS, rows, columns) of a frame's blocks, 0..STRENGTHS-1."""
Engine = Literal["compiled", "torch"]
"""What computes: kernels for CPUs, or the network's module. Their integers are the same."""
SIDES = (BLOCK, BLOCK // 2, BLOCK // 2)
"""Side of a block in each plane, samples."""
_GROUP = (0, 1, 1)
"""Group of each plane."""


def blocks_of(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of blocks, each with its own strengths."""
    return -(-height // BLOCK), -(-width // BLOCK)


def integers_of(network: EnhancementNetwork) -> dict[str, NDArray[np.int64]]:
    """The integers that each layer computes with: `<name>.weight`, `<name>.bias`, `<name>.exponent`.

    Exponents are the smallest that give integers, so at most those that were proven. Raises ValueError if the
    network's weights are not on their grid.
    """
    integers = dict[str, NDArray[np.int64]]()
    for name, layer in network.layers().items():
        weight = layer.weight.detach().double().cpu().numpy()
        bias = layer.bias.detach().double().cpu().numpy() * UNIT
        flat = np.concatenate([weight.reshape(len(weight), -1), bias[:, None]], 1)
        exponents = np.arange(MAX_EXPONENT + 1)
        whole = (flat * 2.0 ** exponents[:, None, None] % 1 == 0).all(2)
        if not whole[-1].all():
            raise ValueError(f"layer {name} has weights that are not on their grid")
        exponent = whole.argmax(0)
        scaled = (flat * 2.0 ** exponent[:, None]).astype(np.int64)
        integers[f"{name}.weight"] = scaled[:, :-1].reshape(weight.shape)
        integers[f"{name}.bias"], integers[f"{name}.exponent"] = scaled[:, -1], exponent
    return integers


@dataclass(frozen=True)
class Enhancer:
    """A network with proven bounds."""

    network: EnhancementNetwork
    hash: bytes
    """SHA-256 of everything that decoding depends on."""
    engine: Engine | None = None
    """The default is "compiled" for a network on a CPU, else "torch"."""
    threads: int = 1
    """Threads that share a frame in the compiled engine."""
    _compiled: EnhancementEngine | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        engine = None
        if self.engine == "compiled" or (self.engine is None and self.device.type == "cpu"):
            engine = EnhancementEngine(self.network.config, integers_of(self.network), threads=self.threads)
        object.__setattr__(self, "_compiled", engine)

    @property
    def name(self) -> str:
        """Name of the network's configuration."""
        return self.network.config.name

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def enhance(
        self, frame: Frame, bit_depth: int, coding: Coding, gop_quantiser: int, strengths: Strengths
    ) -> Frame:
        """The base's frame with its correction at these strengths, rounded to `bit_depth`."""
        if not strengths.any():
            return rounded(frame, bit_depth)
        return self.correction(frame, coding, gop_quantiser).applied(strengths, bit_depth)

    @torch.inference_mode()
    def correction(self, frame: Frame, coding: Coding, gop_quantiser: int) -> "Correction":
        """What the network would change in a frame of the base.

        coding: from AV1's headers of the frame. gop_quantiser: index that the encoder requested for the GOP,
        0..255.
        """
        numbers = (coding.quantiser, gop_quantiser, int(coding.intra))
        condition = condition_of(*(torch.tensor([number], device=self.device) for number in numbers))
        if self._compiled is not None:
            planes = self._compiled.correction(frame, condition[0].cpu().numpy().astype(np.int64))
            return Correction(frame, planes)
        packed = pack(planes_of(frame, BASE_BIT_DEPTH, self.device))
        (correction,) = in_strips(partial(self._strip, condition), 2, packed)
        whole = (torch.pixel_shuffle(correction[:, :4], 2)[0, 0], correction[0, 4], correction[0, 5])
        cropped = (x[: p.shape[0], : p.shape[1]] for x, p in zip(whole, frame.planes, strict=True))
        y, u, v = (plane.to("cpu", torch.int16).numpy() for plane in cropped)
        return Correction(frame, (y, u, v))

    def _strip(self, condition: Tensor, packed: Tensor) -> tuple[Tensor]:
        return (self.network(packed, condition),)


@dataclass(frozen=True)
class Correction:
    """A base frame and what the network would change in it."""

    frame: Frame
    planes: tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]
    """For each sample of the frame, in 1/CORRECTION_UNIT of a level of the base."""

    def applied(self, strengths: Strengths, bit_depth: int) -> Frame:
        """The enhanced frame, rounded to `bit_depth`."""
        parts = zip(self.frame.planes, self.planes, _GROUP, SIDES, strict=True)
        y, u, v = (
            apply_strengths(samples, change, strengths[group], side, bit_depth)
            for samples, change, group, side in parts
        )
        return Frame(y, u, v, self.frame.pts)

    def errors(self, original: Frame, bit_depth: int) -> list[NDArray[np.float64]]:
        """Squared errors of each plane, (STRENGTHS, rows, columns): those of `applied` at each strength."""
        parts = zip(original.planes, self.frame.planes, self.planes, SIDES, strict=True)
        return [strength_errors(a, b, change, side, bit_depth) for a, b, change, side in parts]
