"""What a source is like at one moment, and whether it may be deleted."""

import errno
import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.flushing import flush_folders
from viddiff.pipeline.batch.manifest import Manifest, Record


@dataclass(frozen=True)
class Seen:
    """A source at one moment."""

    size: int
    mtime_ns: int
    device: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look at a source. Raises OSError."""
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)


class Remover:
    """Deletes sources that files certainly replace."""

    def __init__(self, target: Path) -> None:
        """target: folder of the manifest."""
        self._target = target
        self._safe = set[str]()
        """Hashes of files that are as recorded, and on the disk with their names."""

    def trust(self, record: Record) -> None:
        """Take a file for what the manifest says: it has just been written and flushed."""
        self._safe.add(str(record.sha256))

    def remove(self, source: Path, seen: Seen, record: Record, notes: Sequence[str]) -> str:
        """Delete a source, as it was seen. Returns why it is kept; empty if it was deleted.

        record: of its file. notes: what `encode` noted about this source. Raises OSError, and ViddiffError if
        the file is damaged.
        """
        if not record.verified:
            return "the source is kept: its file was not verified"
        if notes:
            return f"the source is kept: {notes[0]}"
        path = self._target / record.output
        if record.sha256 not in self._safe:
            if sha256_of(path) != record.sha256:
                raise ViddiffError(f"{path} is damaged")
            flush_folders(path, self._target)
            self.trust(record)
        if Seen.of(source) != seen:
            return "the source is kept: it has changed"
        source.unlink()
        return ""


def records_of(manifest: Manifest, path: Path, output: str) -> list[Record]:
    """Records of a file as it is, the last one last; none if it is not there. Raises OSError."""
    records = manifest.finished(output)
    if not records or not path.is_file():
        return []
    size = path.stat().st_size
    fitting = [record for record in records if record.bytes == size]
    if len({record.sha256 for record in fitting}) > 1:
        digest = sha256_of(path)
        return [record for record in fitting if record.sha256 == digest]
    return fitting


def sha256_of(path: Path) -> str:
    """Hash of a file, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
