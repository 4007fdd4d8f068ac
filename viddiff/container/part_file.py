"""The unfinished output of an encode: found again after a crash, cut to its whole GOPs, and gone on with.

Its name holds a fingerprint of the job: input, options and version. So one that is there under the right name
can be gone on with, and nothing else has to be stored. What is kept is not just believed: the encoder repeats
all its output, but for the pictures, and every byte of it has to be the one that is there.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

from viddiff.config import MAX_PIXELS, Limits
from viddiff.container.format import Chunk, KeyChunk
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError, ResumeError
from viddiff.file_names import hidden_beside
from viddiff.version import __version__

_DIGITS, _TAIL = 16, ".part"


class PartFile:
    """A file that is written front to back. Where it holds something already, that has to be the same."""

    def __init__(self, target: Path, job: dict[str, Any], resume: bool) -> None:
        """What is to become `target`, which nobody else writes now; `job`, JSON, is what it depends on.

        Without `resume`, it begins anew. ResumeError if what is there is of another job.
        """
        self._target, self._path = target, _path(target, _fingerprint(job))
        if resume and not self._path.exists() and self._others():
            raise ResumeError(
                f"what was coded of {target} is of another input, other options or another version; "
                "encode without --resume"
            )
        self._file = open(self._path, "r+b" if self._path.exists() else "x+b")  # noqa: SIM115
        try:
            self._at, self._kept = 0, whole_gops(self._file)[0] if resume else 0
            self._file.truncate(self._kept)
            self._file.seek(0)
        except BaseException:
            self._file.close()
            raise

    def done(self) -> Iterator[Chunk]:
        """The chunks that it holds. They have to be written again, before any others."""
        if self._kept:
            with open(self._path, "rb") as file:
                yield from Reader(file, Limits(MAX_PIXELS)).chunks(stop=self._kept)

    def write(self, data: bytes) -> int:
        """Append `data`, or compare it with what is there. ResumeError if that is something else."""
        if self._at < self._kept:
            if self._file.read(len(data)) != data:
                raise ResumeError(f"what was coded of {self._target} differs; encode without --resume")
        else:
            self._file.write(data)
            self._file.flush()  # a crash of this process then costs nothing
        self._at += len(data)
        return len(data)

    @property
    def path(self) -> Path:
        """Where it is until it is complete."""
        return self._path

    def finish(self) -> None:
        """All is written: let the disk have it."""
        os.fsync(self._file.fileno())
        self._file.close()

    def remove_others(self) -> None:
        """The unfinished files of other jobs for the same target are of no use once that is there."""
        for other in self._others():
            other.unlink(missing_ok=True)

    def leave(self) -> bool:
        """Give up. Whether it stays there to be resumed: if it holds a whole GOP."""
        with suppress(OSError):  # of a full disk
            self._file.close()
        if not self._path.exists():
            return False
        with open(self._path, "rb") as file:
            worth = whole_gops(file)[1] > 0
        if not worth:
            self._path.unlink()
        return worth

    def discard(self) -> None:
        """Give up, and leave nothing that could be gone on with."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _others(self) -> list[Path]:
        pattern = escape(_path(self._target, _DIGITS * "0").name.removesuffix(_DIGITS * "0" + _TAIL))
        found = self._target.parent.glob(f"{pattern}{'[0-9a-f]' * _DIGITS}{_TAIL}")
        return [path for path in found if path != self._path]


def whole_gops(file: BinaryIO) -> tuple[int, int]:
    """Where the last GOP of an unfinished `.vdf` begins, and how many are before it. 0, 0 if there is none.

    Only what follows a GOP tells that it is whole, so the last one does not count.
    """
    file.seek(0)
    end = keys = 0
    with suppress(BitstreamError, LimitError):
        for offset, chunk in Reader(file, Limits(MAX_PIXELS)).scan(None):
            if isinstance(chunk, KeyChunk):
                end, keys = offset, keys + 1
    return end, max(keys - 1, 0)


def _fingerprint(job: dict[str, Any]) -> str:
    text = json.dumps(job | {"version": __version__}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _path(target: Path, fingerprint: str) -> Path:
    return hidden_beside(target, f".{fingerprint}{_TAIL}")
