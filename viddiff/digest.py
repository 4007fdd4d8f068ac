"""What is kept of frames to compare them later: a hash of each on its way, one of each GOP in the end."""

import hashlib
import struct
from dataclasses import dataclass

from viddiff.frame import Frame


def frame_digest(frame: Frame) -> bytes:
    """SHA-256 of a frame's time and of its samples, Y, U, V, little-endian."""
    digest = hashlib.sha256(struct.pack("<q", frame.pts))
    for plane in frame.planes:
        digest.update(plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()


@dataclass
class GopDigest:
    """The frames of a GOP so far, in display order."""

    frames: int = 0
    chain: bytes = b""
    """SHA-256 of what this was before the last frame, and of that frame's digest."""

    def add(self, frame: bytes) -> None:
        """Take the digest of the next frame."""
        self.frames += 1
        self.chain = hashlib.sha256(self.chain + frame).digest()
