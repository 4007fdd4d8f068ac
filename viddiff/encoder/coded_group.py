"""Common interface of GOP encoders: groups of frames in, coded groups out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from viddiff.container.format import Chunk, Header
from viddiff.encoder.frame_stats import FrameStats
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame

if TYPE_CHECKING:
    from viddiff.encoder.frame_encoder import FrameSample  # whose tensors need PyTorch


@dataclass(frozen=True)
class CodedGroup:
    """A chunk, with results for its frames."""

    chunk: Chunk
    frames: list[Frame]
    """The decoder's reconstruction, in display order."""
    stats: list[FrameStats] = field(default_factory=list)
    """Statistics of predicted frames, in coding order."""
    samples: "list[FrameSample]" = field(default_factory=list)
    """What training needs of predicted frames, if it was asked for."""
    base_bytes: int = 0
    """Bytes of the AV1 base."""
    strength_bytes: int = 0
    """Bytes of the enhancement's strengths."""


class GroupEncoder(Protocol):
    """Encodes the groups of a video in order."""

    @property
    def header(self) -> Header:
        """Header of the file."""
        ...

    @property
    def options(self) -> EncodeOptions:
        """Options of the user."""
        ...

    @property
    def parts_share_gops(self) -> bool:
        """Whether several encoders can share the mini-GOPs of one GOP."""
        ...

    def another(self) -> "GroupEncoder":
        """An encoder for another GOP of the video, with the same settings."""
        ...

    def groups(self, frames: Iterable[Frame]) -> Iterator[Group]:
        """Divide the video into groups."""
        ...

    def encode(self, group: Group) -> Iterator[CodedGroup]:
        """Take the next group. Yields the groups that are finished, oldest first."""
        ...

    def follow(self, group: Group) -> None:
        """Encode only what later groups need."""
        ...

    def flush(self) -> Iterator[CodedGroup]:
        """End the GOP. Yields the remaining groups."""
        ...
