"""A video that is decoded while its frames are taken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from viddiff.frame import Frame, VideoInfo, with_durations
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
    last_duration: Callable[[], int] = lambda: 0
    """Duration of the last frame in units of the time base, 0 if unknown. Known when all were taken."""

    def lasting(self) -> Iterator[Frame]:
        """The frames with their durations. Each one waits for the next, which tells its duration."""
        return with_durations(self.frames, self.last_duration)
