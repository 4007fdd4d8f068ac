"""Denoise keyframes: the motion-compensated mean of a keyframe and the frames after it.

The whole GOP is predicted from its keyframe, and the noise of one frame does not help to predict another. So
the mean is coded instead. Samples of other frames count less the more they differ, as in the filter of VTM
(Enhorn, Sjoberg and Wennersten 2020, "A temporal pre-filter for video coding based on bilateral filtering").
"""

from collections.abc import Iterator
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from viddiff.codec.weights import Codec
from viddiff.config import lmbda_of_step, qp_of_step
from viddiff.encoder.field_search import FieldSearch, SearchReference
from viddiff.encoder.presets import SearchEffort
from viddiff.encoder.source_picture import luma8
from viddiff.frame import Frame, VideoInfo
from viddiff.networks.planes import Planes, frame_of, planes_of

_LUMA_SHARE, _CHROMA_SHARE = 0.4, 0.55
"""Weight of a sample of another frame that does not differ. The frame's own sample has weight 1."""
_TOLERANCE, _LEAST_QP = 0.45, 10.0
"""Standard deviation of differences that count as noise, in 8-bit samples for each QP above the least QP."""
_FLOOR = 0.25
"""Share of the squared tolerance. Smaller differences between frames do not count."""
_NARROW, _WIDE = 5, 9
"""Sides of the squares over which differences are averaged: to tell noise, and to compare frames."""


@torch.inference_mode()
def temporally_filtered(
    codec: Codec, frame: Frame, others: list[Frame], info: VideoInfo, step: int, effort: SearchEffort
) -> Frame:
    """`frame`, denoised by `others`: frames of the same size that follow it.

    step: index of the video's quantisation step, which determines what counts as noise. effort: of the motion
    search. Nothing changes where the others show the same, or something else, or if the quality is close to
    the best. Raises nothing.
    """
    tolerance = _TOLERANCE * (qp_of_step(step) - _LEAST_QP)
    if tolerance <= 0 or not others:
        return frame
    planes = planes_of(frame, info.bit_depth, codec.device)
    target, lmbda = luma8(planes), lmbda_of_step(step)
    sources = (planes_of(other, info.bit_depth, codec.device) for other in others)
    moved = [_moved(codec, source, target, lmbda, effort) for source in sources]
    trust = _trust([_differences(planes[0], luma, _WIDE) for luma, _, _ in moved], _FLOOR * tolerance**2)
    sums, weights = [plane.clone() for plane in planes], [torch.ones_like(plane) for plane in planes]
    for fetched, luma_trust in zip(moved, trust, strict=True):
        chroma_trust = functional.avg_pool2d(luma_trust, 2)
        shares = _LUMA_SHARE * luma_trust, _CHROMA_SHARE * chroma_trust, _CHROMA_SHARE * chroma_trust
        for plane, share in enumerate(shares):
            differences = _differences(planes[plane], fetched[plane], _NARROW)
            alike = share * torch.exp(differences / (-2 * tolerance**2))
            sums[plane] += alike * fetched[plane]
            weights[plane] += alike
    grid = 2.0 ** (10 - info.bit_depth)
    y, u, v = ((total / weight / grid).round() * grid for total, weight in zip(sums, weights, strict=True))
    return frame_of((y, u, v), info.width, info.height, info.bit_depth, frame.pts)


def _moved(
    codec: Codec, source: Planes, target: NDArray[np.uint8], lmbda: float, effort: SearchEffort
) -> Planes:
    """The prediction of a frame with luma `target` (H, W) from `source`.

    lmbda: squared error (8 bits) that is worth a bit of motion.
    """
    search = FieldSearch(target, SearchReference.of(luma8(source)), effort)
    nowhere = np.zeros((2, search.rows, search.cols), np.int64)
    field = search(nowhere, lmbda, None, None, None)[-1]
    moved: Planes = codec.model.compensation(source, torch.from_numpy(field)[None].to(codec.device))
    return moved


def _differences(a: Tensor, b: Tensor, window: int) -> Tensor:
    """Squared differences (8-bit samples) of two planes (1, H, W), averaged over squares."""
    squares = (a - b) ** 2 / 16
    return functional.avg_pool2d(squares, window, 1, window // 2, count_include_pad=False)


def _trust(differences: list[Tensor], floor: float) -> Iterator[Tensor]:
    """Trust in each of some frames, 0..1, given their `differences` from the keyframe.

    Noise is the same in all frames, but the differences of moving content vary from frame to frame.
    """
    least = reduce(torch.minimum, differences)
    return ((least + floor) / (difference + floor) for difference in differences)
