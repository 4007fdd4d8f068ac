"""What a source is like at one moment, and whether it may be deleted."""

import errno
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.manifest import Manifest, Record
from viddiff.pipeline.batch.remote_file import RemoteFile, Source
from viddiff.pipeline.batch.servers.store import Entry
from viddiff.pipeline.batch.target_files import TargetFiles


@dataclass(frozen=True)
class Seen:
    """A source at one moment."""

    size: int
    mtime_ns: int
    device: int = 0
    inode: int = 0
    tag: str = ""
    """Of a server: it changes with the content."""

    @classmethod
    def of(cls, source: Source) -> Self:
        """Look at a source. Raises OSError."""
        if isinstance(source, RemoteFile):
            return cls._on_server(source.look())
        found = source.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        return cls(found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino)

    @classmethod
    def listed(cls, source: Source) -> Self:
        """The same, without asking a server again what its folder has said. Raises OSError."""
        if isinstance(source, RemoteFile) and source.listed is not None:
            return cls._on_server(source.listed)
        return cls.of(source)

    @classmethod
    def _on_server(cls, entry: Entry) -> Self:
        if entry.is_folder:
            raise OSError(errno.EINVAL, "it is not a regular file")
        return cls(entry.size, entry.mtime_ns, tag=entry.tag)


class Remover:
    """Deletes sources that files certainly replace."""

    def __init__(self, files: TargetFiles) -> None:
        """files: those that replace them."""
        self._files = files
        self._safe = set[tuple[str, str | None]]()
        """Names and hashes of files that are as recorded, and on the disk or server with their names."""

    def trust(self, record: Record) -> None:
        """Take a file for what the manifest says: it has just been written and flushed."""
        self._safe.add((record.output, record.sha256))

    def remove(self, source: Source, seen: Seen, record: Record, notes: Sequence[str]) -> str:
        """Delete a source, as it was seen. Returns why it is kept; empty if it was deleted.

        record: of its file. notes: what `encode` noted about this source. Raises OSError, and ViddiffError if
        the file is damaged.
        """
        if not record.verified:
            return "the source is kept: its file was not verified"
        if notes:
            return f"the source is kept: {notes[0]}"
        if (record.output, record.sha256) not in self._safe:
            if self._files.sha256(record.output) != record.sha256:
                raise ViddiffError(f"{self._files.at(record.output)} is damaged")
            self._files.flush(record.output)
            self.trust(record)
        if Seen.of(source) != seen:
            return "the source is kept: it has changed"
        source.unlink()
        return ""


def records_of(manifest: Manifest, files: TargetFiles, output: str) -> list[Record]:
    """Records of a file as it is, the last one last; none if it is not there. Raises OSError."""
    files.learn(output, manifest)
    records = manifest.finished(output)
    size = files.size(output) if records else None
    if size is None:
        return []
    fitting = [record for record in records if record.bytes == size]
    if len({record.sha256 for record in fitting}) > 1:
        digest = files.sha256(output)
        return [record for record in fitting if record.sha256 == digest]
    return fitting
