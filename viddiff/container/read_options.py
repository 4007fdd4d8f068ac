"""How a file is to be read: how much of it, around damage or not, and with which key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from viddiff.config import Limits
from viddiff.container.sealing import SealedReader


@dataclass(frozen=True)
class ReadOptions:
    """What a user can choose about reading."""

    strict: bool = False
    """Raise at the first fault instead of decoding around it."""
    limits: Limits = field(default_factory=Limits)
    key: bytes | None = field(default=None, repr=False)
    """Of an encrypted file, from `sealing.unlock`."""

    @contextmanager
    def open(self, path: Path) -> Iterator[BinaryIO]:
        """The file, decrypted if there is a key."""
        with open(path, "rb") as file:
            if self.key is None:
                yield file
            else:
                yield cast(BinaryIO, SealedReader(file, self.key, lenient=not self.strict))
