"""What a keyframe shows, with less of its noise: its motion-compensated mean with the frames after it.

All of a GOP is predicted from its keyframe, and noise of that one frame helps to predict no other. So the
mean is coded instead, in which samples of the other frames weigh the less the more they differ, as in the
filter of VTM (Enhorn, Sjoberg and Wennersten 2020, "A temporal pre-filter for video coding based on bilateral
filtering"). Only the encoder knows of it.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from viddiff.checkpoint import Codec
from viddiff.config import lmbda_of_step, qp_of_step
from viddiff.effort import SearchEffort
from viddiff.frame import Frame, VideoInfo
from viddiff.models.planes import Planes, frame_of, planes_of
from viddiff.search import FieldSearch, SearchReference, luma8

_LUMA_SHARE, _CHROMA_SHARE = 0.4, 0.55
"""What a sample of another frame weighs if nothing differs there; the frame's own weighs 1."""
_TOLERANCE, _LEAST_QP = 0.45, 10.0
"""Standard deviation of differences that count as noise, in 8-bit samples for each QP above the least."""
_WINDOW = 5
"""Side of the square over which differences are averaged: noise of a sample alone says little."""


@torch.inference_mode()
def temporally_filtered(
    codec: Codec, frame: Frame, others: list[Frame], info: VideoInfo, step: int, effort: SearchEffort
) -> Frame:
    """`frame` with its noise averaged out over `others`, those that follow it.

    step: quantisation step of the video, which tells what counts as noise. Nothing changes where the others
    show the same, or something else, or where the quality is close to the best.
    """
    tolerance = _TOLERANCE * (qp_of_step(step) - _LEAST_QP)
    if tolerance <= 0:
        return frame
    planes = planes_of(frame, info.bit_depth, codec.device)
    sums, weights = [plane.clone() for plane in planes], [torch.ones_like(plane) for plane in planes]
    for other in others:
        moved = _moved(codec, planes_of(other, info.bit_depth, codec.device), planes, step, effort)
        for plane, share in enumerate((_LUMA_SHARE, _CHROMA_SHARE, _CHROMA_SHARE)):
            alike = _likeness(planes[plane], moved[plane], tolerance) * share
            sums[plane] += alike * moved[plane]
            weights[plane] += alike
    grid = 2.0 ** (10 - info.bit_depth)
    y, u, v = ((total / weight / grid).round() * grid for total, weight in zip(sums, weights, strict=True))
    return frame_of((y, u, v), info.width, info.height, info.bit_depth, frame.pts)


def _moved(codec: Codec, source: Planes, target: Planes, step: int, effort: SearchEffort) -> Planes:
    """What blocks of `source` predict of `target`."""
    search = FieldSearch(luma8(target), SearchReference.of(luma8(source)), effort)
    nowhere = np.zeros((2, search.rows, search.cols), np.int64)
    field = search(nowhere, lmbda_of_step(step), None, None, None)[-1]
    moved: Planes = codec.model.compensation(source, torch.from_numpy(field)[None].to(codec.device))
    return moved


def _likeness(a: Tensor, b: Tensor, tolerance: float) -> Tensor:
    """How alike two planes (1, H, W) are around each sample, 0..1."""
    squares = ((a - b) ** 2)[None] / 16
    around = functional.avg_pool2d(squares, _WINDOW, 1, _WINDOW // 2, count_include_pad=False)[0]
    return torch.exp(around / (-2 * tolerance**2))
