"""A source on a server, and its copy on this machine while it is encoded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from viddiff.pipeline.batch.servers.connections import store_of
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.store import Entry

FETCHED = ".sources"
"""Folder on this machine, below that of the manifest, of copies: each batch has a folder of its own there."""


@dataclass(frozen=True)
class RemoteFile:
    """A source on a server. What it has in common with a path does the same."""

    place: Place
    listed: Entry | None = field(default=None, compare=False)
    """What its folder said about it."""

    def __str__(self) -> str:
        return str(self.place)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.name

    def look(self) -> Entry:
        """What the server says about it now. Raises OSError."""
        return store_of(self.place).look(self.place)

    def exists(self) -> bool:
        """Whether it is there. Raises OSError if the server does not say."""
        try:
            self.look()
        except FileNotFoundError:
            return False
        return True

    def unlink(self) -> None:
        """Delete it. Raises OSError."""
        store_of(self.place).delete(self.place)


Source = Path | RemoteFile
"""A file to encode, wherever it is."""


@contextmanager
def copy_here(source: RemoteFile, folder: Path, name: str, size: int, mtime_ns: int) -> Iterator[Path]:
    """A copy of a source, named `name` below a folder, during the block.

    size, mtime_ns: as it was seen. The copy gets the same time, so that what was coded of it can be
    continued. Raises OSError.
    """
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        store_of(source.place).fetch(source.place, path, size)
        os.utime(path, ns=(mtime_ns, mtime_ns))
        yield path
    finally:
        remove_with_folders(path, folder)


@contextmanager
def only_while_it_runs(folder: Path, alone: bool) -> Iterator[None]:
    """Remove the copies of a batch that was killed before, and the folder of copies after this one.

    alone: no other batch may be about to use the folder above it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if alone:
            with suppress(OSError):
                folder.parent.rmdir()


def remove_with_folders(path: Path, top: Path) -> None:
    """Remove a file, if it is there, and then the folders above it that are empty, without `top`."""
    path.unlink(missing_ok=True)
    for folder in path.parents:
        if folder == top or not folder.is_relative_to(top):
            return
        with suppress(OSError):
            folder.rmdir()
