"""An SFTP server on this machine for tests, which serves a folder and may lose connections."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko


class SftpServer:
    """A server of a folder for whoever has the key. Like OpenSSH, it renames to new names only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replaces = False
        """Whether it replaces files, which it should not."""
        self.lose_every = 0
        """Lose the connection at every so many steps. 0: never."""
        self.hook: Callable[[str], None] = lambda _: None
        """Sees the path of each step before it is done."""
        self.steps = self.lost = 0
        self.key, self._host_key = (paramiko.ECDSAKey.generate() for _ in range(2))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def known_host(self) -> str:
        """A line for the known hosts."""
        host, _, port = self.address.rpartition(":")
        return f"[{host}]:{port} {self._host_key.get_name()} {self._host_key.get_base64()}\n"

    def stop(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                transport = paramiko.Transport(connection)
                transport.add_server_key(self._host_key)
                transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files, self, transport)
                transport.start_server(event=threading.Event(), server=_Users(self.key))


class _Users(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, key: paramiko.PKey) -> None:
        self._key = key

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "me" and key == self._key
        return int(paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


class _Handle(paramiko.SFTPHandle):  # type: ignore[misc]
    def stat(self) -> Any:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self.readfile.fileno()))


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    def __init__(self, users: Any, server: SftpServer, transport: paramiko.Transport) -> None:
        self._server, self._transport = server, transport

    def _path(self, path: str) -> Path:
        """The file on the disk. Each step comes here."""
        self._server.steps += 1
        self._server.hook(path)
        if self._server.lose_every and self._server.steps % self._server.lose_every == 0:
            self._server.lost += 1
            self._transport.close()
        return self._server.folder / path.strip("/")

    def list_folder(self, path: str) -> Any:
        try:
            return [
                paramiko.SFTPAttributes.from_stat(found.lstat(), found.name)
                for found in self._path(path).iterdir()
            ]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(self._path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    lstat = stat

    def open(self, path: str, flags: int, attributes: Any) -> Any:
        try:
            file = os.fdopen(os.open(self._path(path), flags, 0o644), "r+b" if flags & os.O_RDWR else "rb")
            if flags & os.O_WRONLY:
                file.close()
                file = open(self._path(path), "r+b")  # noqa: SIM115
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = _Handle(flags)
        handle.readfile = handle.writefile = file
        return handle

    def remove(self, path: str) -> int:
        return self._done(lambda: self._path(path).unlink())

    def mkdir(self, path: str, attributes: Any) -> int:
        return self._done(lambda: self._path(path).mkdir())

    def rename(self, old: str, new: str) -> int:
        if self._path(new).exists() and not self._server.replaces:
            return int(paramiko.SFTP_FAILURE)
        return self._done(lambda: self._path(old).replace(self._path(new)))

    def _done(self, step: Any) -> int:
        try:
            step()
        except OSError as error:
            return int(paramiko.SFTPServer.convert_errno(error.errno))
        return int(paramiko.SFTP_OK)
