"""Servers that speak SFTP, through fsspec and paramiko.

A file is uploaded under a hidden name and renamed. OpenSSH and other servers of version 3 of the protocol
refuse to rename to a name that is taken. The server's key must be among the known hosts.
"""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem
from paramiko.ssh_exception import (
    AuthenticationException,
    BadHostKeyException,
    NoValidConnectionsError,
    PasswordRequiredException,
)

from viddiff.file_names import hidden_beside
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.store import Enters, Entry, Store, whole_seconds

_TIMEOUT = 60.0
"""Seconds without an answer."""
_ABANDONED = 86400.0
"""Seconds since its last change after which an upload is one that was cut off."""
_UPLOAD = re.compile(r"\..+\.[0-9a-f]{8}\.upload")
_FINAL = (AuthenticationException, BadHostKeyException, PasswordRequiredException)
_UNKNOWN_HOST = "not found in known_hosts"
"""In the message of paramiko's RejectPolicy."""


class _Connection(SFTPFileSystem):  # type: ignore[misc]
    """A connection to a server whose key is known."""

    cachable = False

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.client.connect(self.host, timeout=_TIMEOUT, **self.ssh_kwargs)
        self.ftp = self.client.open_sftp()
        self.ftp.get_channel().settimeout(_TIMEOUT)


class SftpStore(Store):
    """A server."""

    _scheme = "sftp"

    def __init__(self, server: str) -> None:
        super().__init__(server)
        self._connection: Any = None
        self._token = secrets.token_hex(4)
        """In the names of uploads: that of an attempt that was lost is used again."""

    @property
    def _files(self) -> Any:
        if self._connection is None:
            split = urlsplit(f"sftp://{self._server}")
            given = {"username": split.username, "port": split.port}
            self._connection = _Connection(
                split.hostname, **{name: value for name, value in given.items() if value is not None}
            )
        return self._connection

    def _entry(self, place: Place, found: dict[str, Any]) -> Entry:
        folder = found["type"] == "directory"
        return Entry(place, found["size"], whole_seconds(found["mtime"]), is_folder=folder)

    def _walk(self, folder: Place, enters: Enters) -> Iterator[Entry]:
        try:
            found = self._files.ls(folder.path, detail=True)
        except FileNotFoundError:
            return
        except PermissionError:
            yield Entry(folder, 0, 0, is_folder=True, problem="access is denied")
            return
        for info in sorted(found, key=lambda info: str(info["name"])):
            place = self._place(info["name"])
            if place.name.startswith("."):
                continue
            if info["type"] == "directory":
                if enters(place):
                    yield from self._walk(place, enters)
            elif info["type"] == "file":
                yield self._entry(place, info)
            else:
                yield from self._linked(place)

    def _linked(self, place: Place) -> Iterator[Entry]:
        """The file to which a link leads. Links to folders are not followed."""
        try:
            entry = self._entry(place, self._files.info(place.path))
        except FileNotFoundError:
            entry = Entry(place, 0, 0, problem="it is a link to nothing")
        except PermissionError:
            entry = Entry(place, 0, 0, problem="access is denied")
        if not entry.is_folder:
            yield entry

    def _create(self, local: Path, place: Place) -> None:
        self._tidy(place.parent)
        temporary = hidden_beside(Path(place.path), f".{self._token}.upload").as_posix()
        try:
            self._upload(local, temporary, place.parent)
            self._files.ftp.rename(temporary, place.path)
        except OSError as error:
            if self._files.exists(place.path):
                raise FileExistsError from error
            raise
        finally:
            with suppress(Exception):
                self._files.ftp.remove(temporary)

    def _upload(self, local: Path, temporary: str, folder: Place) -> None:
        try:
            self._files.ftp.put(str(local), temporary)  # which compares the sizes
        except FileNotFoundError:
            self._files.makedirs(folder.path, exist_ok=True)
            self._files.ftp.put(str(local), temporary)

    def _remove_abandoned(self, folder: Place) -> None:
        if not self._files.exists(folder.path):
            return
        for found in self._files.ls(folder.path, detail=True):
            is_upload = _UPLOAD.fullmatch(PurePosixPath(found["name"]).name)
            if is_upload and time.time() - found["mtime"].timestamp() > _ABANDONED:
                with suppress(OSError):
                    self._files.ftp.remove(found["name"])

    def _is_transient(self, error: Exception) -> bool:
        if isinstance(error, _FINAL) or _UNKNOWN_HOST in str(error):
            return False
        if isinstance(error, FileExistsError):
            return False
        failure = isinstance(error, OSError) and error.errno is None  # as servers say without a reason
        lost = isinstance(error, ConnectionError | TimeoutError | EOFError | paramiko.SSHException)
        return failure or lost or isinstance(error, NoValidConnectionsError)

    def _renew(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.client.close()

    def _reason(self, error: Exception) -> str | None:
        host = urlsplit(f"sftp://{self._server}").hostname
        if isinstance(error, AuthenticationException):
            return "the server accepts no SSH key of this user"
        if isinstance(error, BadHostKeyException):
            return "the server's key is not the one among the known hosts"
        if _UNKNOWN_HOST in str(error):
            return (
                f"the server's key is not known: run ssh-keyscan {host} >> ~/.ssh/known_hosts, and check it"
            )
        if isinstance(error, EOFError):
            return "the connection was lost"
        return None
