"""A video that is decoded while its frames are taken."""

from collections.abc import Iterator
from dataclasses import dataclass

from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.damage import Damage


@dataclass(frozen=True)
class DecodedVideo:
    """Frames that are decoded when they are taken."""

    info: VideoInfo
    frame_count: int | None
    """Number of frames. None if it is known only at the end."""
    frames: Iterator[Frame]
    damage: Damage
    """What was lost of the frames taken so far."""
