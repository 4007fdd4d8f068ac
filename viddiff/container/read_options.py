"""Options for reading a file: limits, damage, key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from viddiff.config import Limits
from viddiff.container.sealing import SealedReader


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a file."""

    strict: bool = False
    """Raise at the first fault instead of decoding around it."""
    limits: Limits = field(default_factory=Limits)
    key: bytes | None = field(default=None, repr=False)
    """Key of an encrypted file, from `sealing.unlock`."""

    @contextmanager
    def open(self, path: Path) -> Iterator[BinaryIO]:
        """Open the file, decrypted if there is a key."""
        with open(path, "rb") as file:
            if self.key is None:
                yield file
            else:
                yield cast(BinaryIO, SealedReader(file, self.key, lenient=not self.strict))
