"""A video that is decoded as its frames are taken."""

from collections.abc import Iterator
from dataclasses import dataclass

from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.damage import Damage


@dataclass(frozen=True)
class DecodedVideo:
    """Frames that are decoded as they are taken."""

    info: VideoInfo
    frame_count: int | None
    """How many are to come; None if only the end will tell."""
    frames: Iterator[Frame]
    damage: Damage
    """What was lost of the frames that were taken."""
