"""The enhancement network as a module of PyTorch: from weights, to weights, and as an engine."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH
from viddiff.codec.enhancement_weights import EnhancementWeights
from viddiff.codec.exactness import exact_arithmetic
from viddiff.frame import Frame
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.planes import pack, planes_of
from viddiff.networks.strips import in_strips

Int16 = NDArray[np.int16]


def network_of(weights: EnhancementWeights) -> EnhancementNetwork:
    """A network of these integers, in evaluation mode."""
    return EnhancementNetwork.of_integers(weights.config, weights.integers)


def weights_of(network: EnhancementNetwork) -> EnhancementWeights:
    """The integers that a decoder computes with."""
    return EnhancementWeights(network.config, network.integers())


class ModuleEngine:
    """The network's correction of frames, as its definition computes it."""

    @exact_arithmetic()
    def __init__(self, weights: EnhancementWeights, device: str = "cpu") -> None:
        self._network, self._device = network_of(weights).to(device), torch.device(device)

    @exact_arithmetic()
    @torch.inference_mode()
    def correction(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame] = (),
        strips: int = 1,
    ) -> tuple[Int16, Int16, Int16]:
        """What the network would add to Y, U and V, in 1/CORRECTION_UNIT of a level.

        frame, hypotheses: have 10 bits and one size; HYPOTHESES or none, see `block_motion`. condition:
        (CONDITIONS,) activations, see `enhancement_config.condition_of`. strips: without effect, for PyTorch
        has threads of its own.
        """
        return _cut_to(frame, self._studied(frame, condition, hypotheses)[1])

    @exact_arithmetic()
    @torch.inference_mode()
    def studied(
        self,
        frame: Frame,
        condition: NDArray[np.int64],
        hypotheses: Sequence[Frame],
        rows: tuple[int, int],
    ) -> tuple[Int16, tuple[Int16, Int16, Int16]]:
        """See `Engine.studied`."""
        begin, end = rows
        seen, correction = self._studied(frame, condition, hypotheses)
        features = seen[0, :, 2 * begin : 2 * end].permute(1, 2, 0).to("cpu", torch.int16).numpy()
        y, u, v = _cut_to(frame, correction)
        return features, (y[4 * begin : 4 * end], u[2 * begin : 2 * end], v[2 * begin : 2 * end])

    def updated(self, weights: EnhancementWeights) -> "ModuleEngine":
        """What computes with these weights."""
        return ModuleEngine(weights, str(self._device))

    def _studied(
        self, frame: Frame, condition: NDArray[np.int64], hypotheses: Sequence[Frame]
    ) -> tuple[Tensor, ...]:
        """What the last layer reads, and the correction, computed strip by strip."""
        told = torch.from_numpy(condition).to(self._device, torch.float32)[None]
        packed, *others = (
            pack(planes_of(each, BASE_BIT_DEPTH, self._device)) for each in (frame, *hypotheses)
        )

        def strip(packed: Tensor, *hypotheses: Tensor) -> tuple[Tensor, Tensor]:
            return self._network.studied(packed, told, torch.cat(hypotheses, 1) if hypotheses else None)

        return in_strips(strip, 2, packed, *others)


def _cut_to(frame: Frame, correction: Tensor) -> tuple[Int16, Int16, Int16]:
    """A correction (1, 6, H/2, W/2) of the frame's Y, U and V."""
    whole = (torch.pixel_shuffle(correction[:, :4], 2)[0, 0], correction[0, 4], correction[0, 5])
    cropped = (x[: p.shape[0], : p.shape[1]] for x, p in zip(whole, frame.planes, strict=True))
    y, u, v = (plane.to("cpu", torch.int16).numpy() for plane in cropped)
    return y, u, v
