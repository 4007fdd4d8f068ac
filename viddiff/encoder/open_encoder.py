"""The encoder of a video, by the weights that it has."""

from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.coded_group import GroupEncoder
from viddiff.encoder.gop_encoder import GopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import VideoInfo


def open_encoder(weights: Weights, info: VideoInfo, options: EncodeOptions, threads: int = 1) -> GroupEncoder:
    """An encoder with an AV1 base if the weights enhance frames, without if they predict them.

    threads: that one encoder may use, as far as it can; the file does not depend on it.
    """
    if isinstance(weights, Enhancer):
        return BaseGopEncoder(weights, info, options, threads)
    return GopEncoder(weights, info, options)
