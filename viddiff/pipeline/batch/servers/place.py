"""Places on servers: `s3://BUCKET/PATH` and `sftp://USER@HOST:PORT/PATH`.

Everything without a scheme is a path on this machine.
"""

import posixpath
import re
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)/*(.*)", re.IGNORECASE | re.DOTALL)
SCHEMES = ("s3", "sftp")
"""Of servers that can create a file in one step, and only if there is none of this name."""


@dataclass(frozen=True)
class Place:
    """A file or folder on a server."""

    scheme: str
    """One of `SCHEMES`."""
    server: str
    """The bucket, or USER@HOST:PORT."""
    key: str
    """Path on it, without slashes at its ends. Empty at the top."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The place with an address. Raises ValueError, which says what is wrong with it."""
        found = _ADDRESS.fullmatch(text)
        scheme = found[1].lower() if found else ""
        if found is None or scheme not in SCHEMES:
            raise ValueError(f"{text}: only s3:// and sftp:// are supported")
        server, key = found[2], found[3].rstrip("/")
        if not server:
            raise ValueError(f"{text}: write s3://BUCKET/FOLDER or sftp://USER@HOST/FOLDER")
        if scheme == "sftp":
            _check_host(server)
            key = posixpath.normpath(f"/{key}").lstrip("/")
        return cls(scheme, server, key)

    def __truediv__(self, name: str) -> Self:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.server}/{self.key}"

    @property
    def path(self) -> str:
        """Path as `fsspec` wants it."""
        return f"{self.server}/{self.key}".rstrip("/") if self.scheme == "s3" else f"/{self.key}"

    @property
    def parent(self) -> Self:
        """The folder that holds it."""
        return replace(self, key=posixpath.dirname(self.key))

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.key)

    def below(self, folder: "Place") -> str | None:
        """Path below a folder. None if it is somewhere else."""
        same = (self.scheme, self.server) == (folder.scheme, folder.server)
        start = f"{folder.key}/" if folder.key else ""
        return self.key.removeprefix(start) if same and self.key.startswith(start) else None


def is_remote(text: str) -> bool:
    """Whether a name is an address: of a place on a server, or of one that is not supported."""
    return _ADDRESS.fullmatch(text) is not None


def _check_host(server: str) -> None:
    """Raises ValueError unless the server of an SFTP address is well formed."""
    try:
        split = urlsplit(f"sftp://{server}")
        well_formed = bool(split.hostname) and split.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValueError(f"sftp://{server}: write sftp://USER@HOST:PORT/FOLDER")
    if split.password is not None:
        raise ValueError(f"sftp://{split.hostname}: give no password in an address; SSH keys are used")
