"""Files on a server, through fsspec: listed, fetched, created and deleted, whatever the network does.

Each operation is tried again after errors that pass. What stays raises an OSError that says in one sentence
what is wrong, with the address: FileNotFoundError, FileExistsError and PermissionError where they apply.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.retrying import retried

Result = TypeVar("Result")
_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the disk to which a file is fetched."""
_KNOWN: tuple[tuple[type[OSError], int, str], ...] = (
    (FileNotFoundError, errno.ENOENT, "it does not exist"),
    (FileExistsError, errno.EEXIST, "it exists"),
    (PermissionError, errno.EACCES, "access is denied"),
)
"""Errors with a meaning of their own."""


@dataclass(frozen=True)
class Entry:
    """What a server says about a file or folder."""

    place: Place
    size: int
    """In bytes."""
    mtime_ns: int
    """When it was changed last, in nanoseconds since 1970: whole seconds, as all servers know them."""
    tag: str = ""
    """Changes with the content. Empty if the server has none."""
    is_folder: bool = False
    problem: str = ""
    """Why it cannot be read."""


Enters = Callable[[Place], bool]
"""Whether a folder is of interest."""


class Store(ABC):
    """One server. Not for several threads."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._tidied = set[Place]()
        """Folders without uploads that were cut off long ago."""

    @property
    @abstractmethod
    def _files(self) -> Any:
        """The server as a file system of fsspec."""

    @abstractmethod
    def _is_transient(self, error: Exception) -> bool:
        """Whether another attempt may succeed."""

    @abstractmethod
    def _renew(self) -> None:
        """Connect anew before the next attempt, if that helps."""

    @abstractmethod
    def _reason(self, error: Exception) -> str | None:
        """An error in a few words. None: nothing special is known about it."""

    @abstractmethod
    def _walk(self, folder: Place, enters: Enters) -> Iterator[Entry]:
        """Entries of all files below a folder, and folders that cannot be read.

        enters: which folders below are of interest. What is in others may be left out.
        """

    @abstractmethod
    def _create(self, local: Path, place: Place) -> None:
        """Create a file in one step. Raises FileExistsError if there is one, whoever has made it."""

    @abstractmethod
    def _remove_abandoned(self, folder: Place) -> None:
        """Remove what uploads to a folder have left that were cut off long ago."""

    @abstractmethod
    def _entry(self, place: Place, found: dict[str, Any]) -> Entry:
        """An entry from what fsspec knows."""

    def look(self, place: Place) -> Entry:
        """What there is. Raises OSError."""
        return self._tried(place, lambda: self._entry(place, self._files.info(place.path)))

    def files_below(self, folder: Place, enters: Enters = lambda _: True) -> list[Entry]:
        """All files below a folder, and files and folders that cannot be read; none if it is not there.

        enters: which folders below are of interest. What is in others may be left out. Hidden folders of SFTP
        servers are. Raises OSError.
        """
        return self._tried(folder, lambda: list(self._walk(folder, enters)))

    def read(self, place: Place) -> bytes:
        """The content of a small file. Raises OSError."""
        return self._tried(place, lambda: bytes(self._files.cat_file(place.path)))

    def fetch(self, place: Place, local: Path, size: int) -> None:
        """Copy a file of a known size to this machine. Raises OSError, also if another size comes."""

        def get() -> None:
            self._get(place, local)
            if local.stat().st_size != size:
                raise ConnectionError(f"{local.stat().st_size} bytes came in place of {size}")

        self._tried(place, get)

    def create(self, local: Path, place: Place) -> None:
        """Copy a file to the server, where it appears complete or not at all.

        Raises FileExistsError if there is one. That may also be this one: if an answer is lost, the next
        attempt finds what the first one has made. Raises OSError.
        """
        self._tried(place, lambda: self._create(local, place))

    def creates_only(self, local: Path, place: Place) -> bool:
        """Whether the server refuses to replace a file, as it should. Leaves a copy of one there.

        Raises OSError.
        """
        for _ in range(2):
            try:
                self._tried(place, lambda: self._create(local, place))
            except FileExistsError:
                return True
        return False

    def delete(self, place: Place) -> None:
        """Delete a file. Raises OSError."""
        self._tried(place, lambda: self._files.rm_file(place.path))

    def _tidy(self, folder: Place) -> None:
        """Remove what uploads to a folder have left, once."""
        if folder not in self._tidied:
            self._remove_abandoned(folder)
            self._tidied.add(folder)

    def _get(self, place: Place, local: Path) -> None:
        self._files.get_file(place.path, str(local))

    def _place(self, path: str) -> Place:
        """The place with a path of fsspec."""
        here = Place(self._scheme, self._server, "")
        return here / path.removeprefix(here.path).removeprefix("/")

    @property
    @abstractmethod
    def _scheme(self) -> str:
        """That of its places."""

    def _tried(self, place: Place, attempt: Callable[[], Result]) -> Result:
        """The result of an operation. Raises OSError."""

        def again(error: Exception) -> bool:
            if _is_full(error) or not self._is_transient(error):
                return False
            self._renew()
            return True

        try:
            return retried(attempt, again)
        except Exception as error:
            if _is_full(error):
                raise
            raise self._said(error, place) from error

    def _said(self, error: Exception, place: Place) -> OSError:
        """An error as users see it."""
        reason = self._reason(error)
        for kind, number, usual in _KNOWN:
            if isinstance(error, kind):
                return kind(number, reason or usual, str(place))
        text = " ".join(str(error).split()) or type(error).__name__
        return OSError(errno.EIO, reason or text, str(place))


def whole_seconds(time: datetime) -> int:
    """A time in nanoseconds since 1970, without its fraction: listings and answers round it differently."""
    return int(time.timestamp()) * 1_000_000_000


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL
