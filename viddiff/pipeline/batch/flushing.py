"""Make names of files survive a power cut."""

import errno
import os
from pathlib import Path

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)
"""Errors of file systems that cannot flush folders."""


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can. Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def flush_folders(path: Path, top: Path) -> None:
    """Make the name of a file, and those of its folders up to `top`, survive a power cut. Raises OSError."""
    folder, last = path.parent, top.parent
    while True:
        flush_folder(folder)
        if folder in (last, folder.parent):
            return
        folder = folder.parent
