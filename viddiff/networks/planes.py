"""Frames as tensors: full-size planes for motion, six half-size planes for the networks.

Inside the codec, samples have 10 bits, whatever the bit depth of the video (8-bit samples times 4). They are
integers in float32. Sizes are padded to multiples of FRAME_MULTIPLE by repeating the border.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from viddiff.config import FRAME_MULTIPLE
from viddiff.frame import Frame, Plane

Planes = tuple[Tensor, Tensor, Tensor]
"""Y (B, H, W), U and V (B, H/2, W/2), integers 0..1023 in float32, H and W padded."""


def padded_size(width: int, height: int) -> tuple[int, int]:
    """Width and height after padding to FRAME_MULTIPLE."""
    return -(-width // FRAME_MULTIPLE) * FRAME_MULTIPLE, -(-height // FRAME_MULTIPLE) * FRAME_MULTIPLE


def planes_of(frame: Frame, bit_depth: int, device: torch.device) -> Planes:
    """Pad a frame and convert it to 10 bits."""
    height, width = frame.y.shape
    full_width, full_height = padded_size(width, height)

    def plane(samples: Plane, divisor: int) -> Tensor:
        tensor = torch.from_numpy(samples.astype(np.float32)).to(device)[None] * 2.0 ** (10 - bit_depth)
        rows, cols = full_height // divisor - samples.shape[0], full_width // divisor - samples.shape[1]
        return functional.pad(tensor[None], (0, cols, 0, rows), mode="replicate")[0]

    return plane(frame.y, 1), plane(frame.u, 2), plane(frame.v, 2)


def frame_of(planes: Planes, width: int, height: int, bit_depth: int, pts: int) -> Frame:
    """Crop planes of batch size 1 to the frame for the user. Samples must be on the grid of `bit_depth`."""
    kind = np.uint8 if bit_depth == 8 else np.uint16

    def plane(tensor: Tensor, divisor: int) -> Plane:
        rows, cols = -(-height // divisor), -(-width // divisor)
        samples = tensor[0, :rows, :cols] * 2.0 ** (bit_depth - 10)
        return np.ascontiguousarray(samples.cpu().numpy().astype(kind))

    return Frame(plane(planes[0], 1), plane(planes[1], 2), plane(planes[2], 2), pts)


def pack(planes: Planes) -> Tensor:
    """Four luma phases, U and V as (B, 6, H/2, W/2)."""
    y, u, v = planes
    return torch.cat((functional.pixel_unshuffle(y[:, None], 2), u[:, None], v[:, None]), 1)


def unpack(packed: Tensor, bit_depth: int) -> Planes:
    """Inverse of `pack`, rounded to the grid of `bit_depth`: samples of reference and output."""
    grid = 2.0 ** (10 - bit_depth)
    samples = (packed * (1 / grid)).round().clamp(0, 2**bit_depth - 1) * grid
    return functional.pixel_shuffle(samples[:, :4], 2)[:, 0], samples[:, 4], samples[:, 5]
