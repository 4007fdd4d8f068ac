"""The whole network of the codec, shared by encoder, decoder and training.

    hypotheses --predictor--> prediction, c4, c8 --------------------------------+---------------+
                                  |                                              |               |
    x ----------------- analysis transform --> y --> hyper analysis --> z   entropy parameters   |
                                               |                        |        |               |
                                               +--quantise--> symbols (y, z) <---+        synthesis transform
                                                                 |                               |
                                                                 +---------> y_hat --------------+-->
                                                                 reconstruction

x: (B, 6, H/2, W/2): four luma phases, U, V, with integers 0..1023. Functions of the decoder take and return
integers in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from viddiff.config import ModelConfig
from viddiff.networks.bounds import UNIT
from viddiff.networks.hyperprior import EntropyParameters, HyperAnalysis, checkerboard
from viddiff.networks.layers import IntConv2d
from viddiff.networks.predictor import Predictor
from viddiff.networks.residual import SYMBOL_UNIT, AnalysisTransform, QuantisationMatrix, SynthesisTransform
from viddiff.networks.strips import in_strips
from viddiff.networks.warp import MotionCompensation

SymbolCoder = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(means, indexes, mask) -> symbols. Chooses or decodes the symbols of one step."""


@dataclass(frozen=True)
class Prediction:
    """What the decoder knows of a frame before the residual."""

    samples: Tensor
    """(B, 6, H/2, W/2), integers 0..1023."""
    contexts: tuple[Tensor, Tensor]
    """Features at 1/4 and at 1/8."""
    condition: Tensor
    """(B, CONDITIONS) activations."""
    steps: Tensor
    """(B, latent, 1, 1) integer quantisation steps."""


class VideoModel(nn.Module):
    """Motion compensation, predictor, residual transforms and entropy model of a predicted frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.compensation = MotionCompensation()
        self.predictor = Predictor(config)
        self.quantisation = QuantisationMatrix(config)
        self.analysis_transform = AnalysisTransform(config)
        self.synthesis_transform = SynthesisTransform(config)
        self.hyper_analysis = HyperAnalysis(config)
        self.entropy_parameters = EntropyParameters(config)

    def predict(self, first: Tensor, second: Tensor, step: Tensor, level: Tensor) -> Prediction:
        """Predict a frame from two hypotheses (B, 6, H/2, W/2). step, level: (B,) int64."""
        condition = torch.stack(((step - 46) * (UNIT // 16), (level - 1) * UNIT), 1).to(first.dtype)
        samples, quarter, eighth = in_strips(lambda *both: self.predictor(*both, condition), 2, first, second)
        return Prediction(samples, (quarter, eighth), condition, self.quantisation(step))

    def analyse(self, x: Tensor, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Unrounded y and z of frame x (encoder only)."""
        known = prediction.condition, prediction.steps
        (y,) = in_strips(
            lambda *inputs: (self.analysis_transform(*inputs, *known),),
            2,
            x,
            prediction.samples,
            prediction.contexts[1],
        )
        return y, self.hyper_analysis(y, prediction.condition)

    def code_latents(self, z_hat: Tensor, prediction: Prediction, code: SymbolCoder) -> Tensor:
        """Run the two-step entropy model, and return y_hat in 1/16 steps.

        `code` supplies the symbols of each step. Encoder and decoder both use this function, so they cannot
        disagree.
        """
        network, condition, context = self.entropy_parameters, prediction.condition, prediction.contexts[1]
        (trunk,) = in_strips(lambda c8, z: (network.trunk_features(z, c8, condition),), 8, context, z_hat)
        mean, index = in_strips(network.first_step, 8, trunk)
        first = checkerboard(mean)
        y_half = (code(mean, index, first) * SYMBOL_UNIT + mean) * first
        mean, index = in_strips(network.second_step, 8, trunk, y_half)
        del trunk  # of large pictures all this is large
        return y_half + (code(mean, index, ~first) * SYMBOL_UNIT + mean) * ~first

    def reconstruct(self, y_hat: Tensor, prediction: Prediction) -> Tensor:
        """Reconstruction (B, 6, H/2, W/2), integers 0..1023."""
        known = prediction.condition, prediction.steps
        (result,) = in_strips(
            lambda samples, y_hat, *contexts: (self.synthesis_transform(y_hat, samples, contexts, *known),),
            2,
            prediction.samples,
            y_hat,
            *prediction.contexts,
        )
        return result

    def decoder_layers(self) -> dict[str, IntConv2d]:
        """All layers of the decoder, by name."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, IntConv2d)}

    def decoder_macs(self) -> dict[str, float]:
        """Multiply-accumulates per luma sample of a predicted frame, for each part of the decoder."""
        totals: dict[str, float] = {}
        for name, layer in self.decoder_layers().items():
            part, rest = name.split(".", 1)
            totals[part] = totals.get(part, 0.0) + layer.macs() / _pixels_of_position(part, rest)
        return totals


def _pixels_of_position(part: str, name: str) -> int:
    """Luma samples for each output position of a layer."""
    if part == "entropy_parameters":
        if name == "hyper_index":
            return 1 << 20  # once a frame
        return 256 if name.startswith("hyper_") else 64
    if part == "predictor":
        return 64 if name.split(".")[0] in ("down", "middle", "up") else 16
    return 16 if name.startswith("restore_") else 64
