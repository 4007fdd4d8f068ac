"""Hashes of frames, to compare them later: one for each frame, one for each GOP, one for a file."""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from viddiff.frame import Frame


def frame_digest(frame: Frame) -> bytes:
    """SHA-256 of a frame's time and its samples (Y, U, V, little-endian)."""
    digest = hashlib.sha256(struct.pack("<q", frame.pts))
    for plane in frame.planes:
        digest.update(plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()


@dataclass
class GopDigest:
    """Hash of the frames of a GOP so far, in display order."""

    frames: int = 0
    chain: bytes = b""
    """SHA-256 of the previous chain and the last frame's digest."""

    def add(self, frame: bytes) -> None:
        """Append the digest of the next frame."""
        self.frames += 1
        self.chain = hashlib.sha256(self.chain + frame).digest()


def video_digest(gops: Iterable[GopDigest]) -> str:
    """SHA-256, in hex, of the frames of all GOPs."""
    digest = hashlib.sha256()
    for gop in gops:
        digest.update(gop.chain)
    return digest.hexdigest()
