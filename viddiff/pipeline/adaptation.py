"""What is found of a network for one file: whether it pays, and in figures."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Adaptation:
    """A network that was tuned to a video."""

    network: bytes = field(repr=False)
    """Payload of NETWORK (`codec.file_network`). Empty: the file is made without."""
    size_bytes: int = 0
    """Of the best network that was found, in the file or not."""
    saved_bytes: int | None = None
    """What the pictures are expected to take less with it, cautiously. None: it is of an earlier run."""
    steps: int = 0
    """Of the training."""

    @property
    def note(self) -> str:
        """For the user, if the network does not pay. Empty if it does."""
        if self.network or self.saved_bytes is None:
            return ""
        if not self.size_bytes:
            return "the video is too short or too plain for a network of its own"
        return (
            f"the file has no network of its own: it would take {self.size_bytes} bytes, and is expected to "
            f"save {self.saved_bytes}"
        )

    def values(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {
            "carried": bool(self.network),
            "bytes": self.size_bytes,
            "saved_bytes": self.saved_bytes,
            "steps": self.steps,
        }
