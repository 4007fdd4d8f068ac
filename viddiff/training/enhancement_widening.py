"""A larger enhancement network that begins as a trained smaller one: equal corrections, more to learn with.

Net2Net (Chen, Goodfellow, Shlens 2016), with zeros instead of copies:

    layer         new outputs, weights of all inputs    old outputs, weights of new inputs
    filters, head, depthwise, inner, down     random                     0
    outer, up                                 random, small              0
    tail                                                                 0

New blocks follow the old ones of their part, and their `outer` is 0. So new channels see the picture, but
nothing of them reaches an old channel or the result before the first step. They are not alike, so that they
learn different things.

New layers for frames between better ones begin as those for frames alone, if they are as large: nothing of
the neighbours reaches their result before the first step.
"""

import torch

from viddiff.errors import ViddiffError
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import EnhancementConfig, TrunkConfig
from viddiff.networks.layers import IntConv2d


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
    with torch.no_grad():
        _copy(network.layers(), result.layers(), config)
        if config.between is not None and old.between is None:
            alone = {name: layer for name, layer in network.layers().items() if _fits(config.between, old)}
            _copy(alone, result.between.layers(), config)
            if not alone:
                result.between.tail.weight.zero_()
    return result.to(memory_format=torch.channels_last)


def _copy(old: dict[str, IntConv2d], new: dict[str, IntConv2d], config: EnhancementConfig) -> None:
    """Let the new layers compute what the old ones do, as far as there are any."""
    for name, layer in new.items():
        if name not in old:
            if name.endswith((".outer", "joining")):
                layer.weight.zero_()
            continue
        source = old[name].weight
        outputs, inputs = len(source), source.shape[1]
        conditions = config.layers()[name].conditions
        features = inputs - conditions
        layer.weight[:outputs] = 0
        layer.weight[:outputs, :features] = source[:, :features]
        if conditions:
            layer.weight[:outputs, -conditions:] = source[:, features:]
        layer.bias[:outputs] = old[name].bias


def _contains(larger: EnhancementConfig, smaller: EnhancementConfig) -> bool:
    if smaller.between is not None and (larger.between is None or not _fits(larger.between, smaller.between)):
        return False
    return _fits(larger, smaller)


def _fits(larger: TrunkConfig, smaller: TrunkConfig) -> bool:
    sizes = ((c.half, c.quarter, c.half_blocks, c.quarter_blocks) for c in (larger, smaller))
    return all(a >= b for a, b in zip(*sizes, strict=True))
