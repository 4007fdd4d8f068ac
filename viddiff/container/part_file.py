"""The unfinished output of an encode: found after a crash, cut to its whole GOPs, and continued.

Its name holds a fingerprint of the job: input, options and version. So a file with the right name can be
continued, and nothing else must be stored. Its content is verified: the encoder repeats all its output except
the pictures, and every byte must match.
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
from viddiff.container.format import Chunk, Header, KeyChunk
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError, ResumeError
from viddiff.file_names import hidden_beside
from viddiff.version import __version__

_DIGITS, _TAIL = 16, ".part"


class PartFile:
    """A file that is written front to back. Existing content must be the same."""

    def __init__(self, target: Path, job: dict[str, Any], resume: bool) -> None:
        """job: JSON values that the file depends on. Nobody else may write `target` now.

        Without `resume`, the file begins empty. Raises ResumeError if the existing part belongs to another
        job.
        """
        self._target, self._path = target, _path(target, _fingerprint(job))
        if resume and not self._path.exists() and self._others():
            raise ResumeError(
                f"what was coded of {target} is of another input, other options or another version; "
                "encode without --resume"
            )
        self._file = open(self._path, "r+b" if self._path.exists() else "x+b")  # noqa: SIM115
        self._digest = hashlib.sha256()
        try:
            self._at, self._kept = 0, whole_gops(self._file)[0] if resume else 0
            self._file.truncate(self._kept)
            self._file.seek(0)
        except BaseException:
            self._file.close()
            raise

    def done(self) -> Iterator[Chunk]:
        """Chunks in the file. They must be written again first."""
        if self._kept:
            with open(self._path, "rb") as file:
                yield from Reader(file, Limits(MAX_PIXELS)).chunks(stop=self._kept)

    @property
    def header(self) -> Header | None:
        """Header of what is in the file. None if it holds nothing."""
        if not self._kept:
            return None
        with open(self._path, "rb") as file:
            return Reader(file, Limits(MAX_PIXELS)).header

    def write(self, data: bytes) -> int:
        """Append `data`, or compare it with existing content. Raises ResumeError if it differs."""
        if self._at < self._kept:
            if self._file.read(len(data)) != data:
                raise ResumeError(f"what was coded of {self._target} differs; encode without --resume")
        else:
            self._file.write(data)
            self._file.flush()  # a crash of this process then costs nothing
        self._at += len(data)
        self._digest.update(data)
        return len(data)

    @property
    def path(self) -> Path:
        """Path of the unfinished file."""
        return self._path

    @property
    def sha256(self) -> str:
        """SHA-256 of everything written, in hex."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Everything is written: flush it to the disk."""
        os.fsync(self._file.fileno())
        self._file.close()

    def remove_others(self) -> None:
        """Remove unfinished files of other jobs for the same target."""
        for other in self._others():
            other.unlink(missing_ok=True)

    def leave(self) -> bool:
        """Stop. Returns True if the file holds a whole GOP and stays for a resume."""
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
        """Stop, and remove the file."""
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _others(self) -> list[Path]:
        return [path for path in parts_of(self._target) if path != self._path]


def parts_of(target: Path) -> list[Path]:
    """Unfinished files of all jobs for a target."""
    pattern = escape(_path(target, _DIGITS * "0").name.removesuffix(_DIGITS * "0" + _TAIL))
    return list(target.parent.glob(f"{pattern}{'[0-9a-f]' * _DIGITS}{_TAIL}"))


def whole_gops(file: BinaryIO) -> tuple[int, int]:
    """Start of the last GOP of an unfinished `.vdf`, and number of GOPs before it. 0, 0 if there is none.

    Only data after a GOP shows that it is whole, so the last one does not count.
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
