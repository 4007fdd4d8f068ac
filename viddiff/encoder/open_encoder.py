"""Choose the encoder of a video by its weights."""

from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.coded_group import GroupEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import VideoInfo


def open_encoder(weights: Weights, info: VideoInfo, options: EncodeOptions, threads: int = 1) -> GroupEncoder:
    """An encoder with an AV1 base if the weights enhance frames, without one if they predict frames.

    threads: number that one encoder may use. It does not change the file.
    """
    if isinstance(weights, Enhancer):
        return BaseGopEncoder(weights, info, options, threads)
    from viddiff.codec.weights import Codec  # which needs PyTorch
    from viddiff.encoder.gop_encoder import GopEncoder

    assert isinstance(weights, Codec)
    return GopEncoder(weights, info, options)
