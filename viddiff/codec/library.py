"""The library: pictures in the weights, from which keyframes are predicted.

A fixed camera or a screen shows the same content in every file. Pictures of it, chosen from the training
footage (`training.library_selection`), are part of the weights. If two of them predict a keyframe well, it is
coded as a predicted frame with these references, otherwise as a still. An anchor may use one as its second
reference instead of the keyframe, for example for background that was hidden in the keyframe. Files stay
independent of each other. The idea comes from the library pictures of AVS3, which are sent beside the streams
there.

Payload of a keyframe that is predicted from the library. No still begins with its first byte:

    u8 0 | u8 number of the first picture | u8 number of the second | entropy-coded stream of one frame

Payload of a mini-GOP, if the library has pictures of the video's size and the file is not low delay:

    u8 0: the anchor's second reference is the keyframe; n: picture n - 1 | payload as usual (`payloads`)
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from viddiff.codec.coding_order import FramePlan
from viddiff.codec.reference import Reference
from viddiff.config import BIT_DEPTHS, allowed_size
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stills import decode_still
from viddiff.networks.planes import planes_of

MAX_PICTURES = 64
KEY_PLAN = FramePlan(0, -8, -8, 0)
"""Plan of a predicted keyframe: like an anchor after a mini-GOP."""


@dataclass(frozen=True)
class LibraryPicture:
    """A still (AV1), with what is needed to decode it."""

    width: int
    height: int
    bit_depth: int
    still: bytes

    def decode(self) -> Frame:
        """Decode the still. Raises CheckpointError if it is damaged."""
        try:
            return decode_still(self.still, self.width, self.height, self.bit_depth)
        except BitstreamError as error:
            raise CheckpointError("a picture of the weights' library cannot be decoded") from error


@dataclass(frozen=True)
class Library:
    """Pictures of any size. A video uses those of its own size, whatever their bit depth."""

    pictures: tuple[LibraryPicture, ...] = ()

    def fitting(self, info: VideoInfo) -> list[int]:
        """Numbers of the pictures for this video."""
        return [n for n, p in enumerate(self.pictures) if (p.width, p.height) == (info.width, info.height)]

    def reference(self, number: int, time: int, info: VideoInfo, device: torch.device) -> Reference:
        """A picture as a reference at `time`, in frames from the keyframe.

        Raises BitstreamError if there is no such picture of the video's size, CheckpointError if it is
        damaged.
        """
        if number not in self.fitting(info):
            raise BitstreamError(f"a frame is predicted from picture {number}, which the weights lack")
        picture = self.pictures[number]
        return Reference(time, planes_of(picture.decode(), picture.bit_depth, device))

    def tensors(self) -> dict[str, Tensor]:
        """Tensors as stored in weights; none if there are no pictures.

        `sizes`, int32 (N, 4): width, height, bit depth and bytes. `stills`: all bytes.
        """
        if not self.pictures:
            return {}
        sizes = [[p.width, p.height, p.bit_depth, len(p.still)] for p in self.pictures]
        stills = np.frombuffer(b"".join(p.still for p in self.pictures), np.uint8).copy()
        return {"sizes": torch.tensor(sizes, dtype=torch.int32), "stills": torch.from_numpy(stills)}

    @classmethod
    def of_tensors(cls, sizes: Tensor, stills: Tensor) -> Self:
        """Inverse of `tensors`. Raises CheckpointError if the pictures cannot be what they claim."""
        if (sizes.dtype, stills.dtype) != (torch.int32, torch.uint8) or sizes.ndim != 2 or stills.ndim != 1:
            raise CheckpointError("the weights' library holds no pictures")
        if not 1 <= len(sizes) <= MAX_PICTURES or sizes.shape[1] != 4:
            raise CheckpointError(f"the weights' library has {len(sizes)} pictures, not 1 to {MAX_PICTURES}")
        rows, data = sizes.tolist(), stills.numpy().tobytes()
        if min(row[3] for row in rows) < 1 or sum(row[3] for row in rows) != len(data):
            raise CheckpointError("the pictures of the weights' library have other sizes than stated")
        pictures, start = [], 0
        for width, height, bit_depth, size in rows:
            if not allowed_size(width, height) or bit_depth not in BIT_DEPTHS:
                raise CheckpointError(
                    f"the weights' library has a picture of {width}x{height}, {bit_depth} bits"
                )
            pictures.append(LibraryPicture(width, height, bit_depth, data[start : start + size]))
            start += size
        return cls(tuple(pictures))
