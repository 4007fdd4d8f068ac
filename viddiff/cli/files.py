"""stdin and stdout as inputs and outputs of commands."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from viddiff.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PIPE = "-"
"""IN or OUT for stdin or stdout."""


class Stdout(io.RawIOBase):
    """Data on stdout. Every write is passed on at once."""

    def __init__(self) -> None:
        """Raises OutputError if stdout is closed or a terminal."""
        if sys.stdout is None:
            raise OutputError("stdout is closed")
        if sys.stdout.isatty():
            raise OutputError("stdout is a terminal; redirect it to a file or a pipe")
        buffer = sys.stdout.buffer
        self._raw = getattr(buffer, "raw", buffer)  # whose buffer could fail again when the program ends
        self.size_bytes = 0

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """File descriptor, for libav."""
        return sys.stdout.buffer.fileno()

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of it."""
        with memoryview(data) as whole, whole.cast("B") as view:
            at = 0
            while at < len(view):
                at += self._raw.write(view[at:]) or 0
        self.size_bytes += at
        return at


def opened_target(target: Path | None) -> Path | BinaryIO | None:
    """The target of a job: stdout for "-". Raises OutputError."""
    return cast(BinaryIO, Stdout()) if target is not None and str(target) == PIPE else target
