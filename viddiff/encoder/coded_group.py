"""What encoders of GOPs have in common: groups of frames in, coded groups out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from viddiff.container.format import Chunk, Header
from viddiff.encoder.frame_encoder import FrameSample, FrameStats
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import EncodeOptions
from viddiff.frame import Frame


@dataclass(frozen=True)
class CodedGroup:
    """A chunk, and what came of its frames."""

    chunk: Chunk
    frames: list[Frame]
    """The decoder's reconstruction, in display order."""
    stats: list[FrameStats] = field(default_factory=list)
    """Of frames that networks predict, in coding order."""
    samples: list[FrameSample] = field(default_factory=list)
    """The same for training, if they were asked for."""
    base_bytes: int = 0
    """Bytes of the AV1 base."""
    strength_bytes: int = 0
    """Bytes of the enhancement's strengths."""


class GroupEncoder(Protocol):
    """Codes the groups of a video in order."""

    @property
    def header(self) -> Header:
        """What the file begins with."""
        ...

    @property
    def options(self) -> EncodeOptions:
        """What the user chose."""
        ...

    @property
    def parts_share_gops(self) -> bool:
        """Whether several encoders can share the mini-GOPs of one GOP."""
        ...

    def groups(self, frames: Iterable[Frame]) -> Iterator[Group]:
        """The video as this encoder takes it."""
        ...

    def encode(self, group: Group) -> Iterator[CodedGroup]:
        """Take the next group; gives the groups that are coded by now, oldest first."""
        ...

    def follow(self, group: Group) -> None:
        """Code no more of the group than later ones need."""
        ...

    def flush(self) -> Iterator[CodedGroup]:
        """The GOP has ended: gives the groups that are left."""
        ...
