"""A larger enhancement network that begins as a trained smaller one: equal corrections, more to learn with.

Net2Net (Chen, Goodfellow, Shlens 2016), with zeros instead of copies:

    layer         new outputs, weights of all inputs    old outputs, weights of new inputs
    filters, head, depthwise, inner, down     random                     0
    outer, up                                 random, small              0
    tail                                                                 0

New blocks follow the old ones of their part, and their `outer` is 0. So new channels see the picture, but
nothing of them reaches an old channel or the result before the first step. They are not alike, so that they
learn different things.
"""

import torch

from viddiff.errors import ViddiffError
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import EnhancementConfig


def widened(network: EnhancementNetwork, config: EnhancementConfig) -> EnhancementNetwork:
    """A network of this configuration with the function of `network`.

    Integers that `network` computes with are among those of the result. Random numbers are torch's. Raises
    ViddiffError if the configuration is smaller somewhere.
    """
    old = network.config
    if not _contains(config, old):
        raise ViddiffError(
            f"a network of the size {config.name} cannot begin as one of the size {old.name}, which is wider "
            "or deeper: train it with --fresh"
        )
    result = EnhancementNetwork(config)
    known, layers = network.layers(), result.layers()
    with torch.no_grad():
        for name, layer in layers.items():
            if name not in known:
                if name.endswith(".outer"):
                    layer.weight.zero_()
                continue
            source = known[name].weight
            outputs, inputs = len(source), source.shape[1]
            conditions = config.layers()[name].conditions
            features = inputs - conditions
            layer.weight[:outputs] = 0
            layer.weight[:outputs, :features] = source[:, :features]
            if conditions:
                layer.weight[:outputs, -conditions:] = source[:, features:]
            layer.bias[:outputs] = known[name].bias
    return result.to(memory_format=torch.channels_last)


def _contains(larger: EnhancementConfig, smaller: EnhancementConfig) -> bool:
    sizes = ((c.half, c.quarter, c.half_blocks, c.quarter_blocks) for c in (larger, smaller))
    return all(a >= b for a, b in zip(*sizes, strict=True))
