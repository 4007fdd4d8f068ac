"""The files of a batch below its target, on this machine or on a server."""

import hashlib
from pathlib import Path
from typing import Protocol

from viddiff.errors import OutputError
from viddiff.pipeline.batch.flushing import flush_folders
from viddiff.pipeline.batch.manifest import Manifest, Record
from viddiff.pipeline.batch.servers.place import Place


class TargetFiles(Protocol):
    """Finished files. They are named by their paths below the target.

    What asks the disk or a server raises OSError.
    """

    def begin(self, dry_run: bool) -> None:
        """Before units are looked at. Raises ViddiffError if files cannot be created safely."""

    def at(self, output: str) -> Path | Place:
        """Where a file is."""

    def size(self, output: str) -> int | None:
        """Size of a file in bytes. None if it is not there."""

    def sha256(self, output: str) -> str:
        """Hash of a file, in hex."""

    def learn(self, output: str, manifest: Manifest) -> None:
        """Add to the manifest what others have recorded about a file."""

    def is_taken(self, output: str) -> bool:
        """Whether a file is there now and must not be replaced, whoever has made it."""

    def deliver(self, record: Record) -> tuple[Record, str]:
        """Bring a new file, which is below the folder of the manifest, to its final place.

        Returns the record of the file that is there, and a remark if another one has put it there. Raises
        ViddiffError if an unknown file is there.
        """

    def clear(self, output: str) -> None:
        """Remove what is left on this machine of a file that was delivered."""

    def flush(self, output: str) -> None:
        """Make a file's name survive a power cut."""


class LocalFiles:
    """Files in a folder of this machine, which is also that of the manifest."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def begin(self, dry_run: bool) -> None:
        """Nothing is to do."""

    def at(self, output: str) -> Path:
        """Its path."""
        return self._target / output

    def size(self, output: str) -> int | None:
        """As it is now."""
        path = self.at(output)
        return path.stat().st_size if path.is_file() else None

    def sha256(self, output: str) -> str:
        """As it is now."""
        return sha256_of(self.at(output))

    def learn(self, output: str, manifest: Manifest) -> None:
        """All manifests have been read."""

    def is_taken(self, output: str) -> bool:
        """A file that the manifest knows may be replaced; who encodes looks at that."""
        return False

    def deliver(self, record: Record) -> tuple[Record, str]:
        """It is there, and has its name."""
        self.flush(record.output)
        return record, ""

    def clear(self, output: str) -> None:
        """The file itself is all there is."""

    def flush(self, output: str) -> None:
        """Flush the folders up to the target."""
        flush_folders(self.at(output), self._target)


def occupied(place: Place | Path) -> OutputError:
    """Why a file cannot be made: there is another one, which must not be replaced."""
    return OutputError(
        f"{place} exists, of another state of the source or unknown: remove it or choose another OUT"
    )


def sha256_of(path: Path) -> str:
    """Hash of a file, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
