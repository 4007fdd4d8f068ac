"""Connections to servers: one for each of them, opened when it is needed."""

import os
from functools import cache

from viddiff.errors import ViddiffError
from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.store import Store


def store_of(place: Place) -> Store:
    """The server of a place. Raises ViddiffError if the packages for it are missing."""
    return _opened(place.scheme, place.server, os.getpid())


@cache
def _opened(scheme: str, server: str, process: int) -> Store:
    """One connection for each server and process: a forked one must not share it."""
    try:
        if scheme == "s3":
            from viddiff.pipeline.batch.servers.s3_store import S3Store

            return S3Store(server)
        from viddiff.pipeline.batch.servers.sftp_store import SftpStore

        return SftpStore(server)
    except ImportError as error:
        raise ViddiffError(f"{scheme}:// needs more packages: pip install 'viddiff[remote]'") from error
