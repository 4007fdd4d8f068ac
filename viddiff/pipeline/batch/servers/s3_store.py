"""Buckets of S3 and of servers that speak its protocol, through s3fs.

botocore repeats single requests, so that one lost part of a large file does not cost the others. A file is
created by one request with `If-None-Match: *`: the one that holds it, or the one that joins its parts. Before
that request nothing can be seen under the name.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import s3fs
from aiohttp import ClientError as ConnectionFault
from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError
from botocore.exceptions import ConnectionError as NoConnectionError
from s3fs.core import S3_RETRYABLE_ERRORS

from viddiff.pipeline.batch.servers.place import Place
from viddiff.pipeline.batch.servers.retrying import retried
from viddiff.pipeline.batch.servers.store import Enters, Entry, Store, whole_seconds

ATTEMPTS = 6
"""How often a request is sent, with growing waits between."""
_TIMEOUT = 60
"""Seconds without an answer."""
_BLOCK, _BLOCKS = 16 << 20, 4
"""Bytes of a part of a large file, and parts at once: 64 MiB of memory."""
_ABANDONED = 7 * 86400.0
"""Seconds since it began after which an upload in parts is one that was cut off."""
_FAULTS = (*S3_RETRYABLE_ERRORS, NoConnectionError, ConnectionFault, ConnectionError, TimeoutError)
_PASSING = ("RequestTimeout", "SlowDown", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody")
"""Codes of errors that pass."""
_NO_UPLOAD = "NoSuchUpload"
"""Parts are gone: they were joined, and the answer was lost. The next attempt finds the file."""
_BUSY, _TOO_MANY = 500, 429
_EXISTS = ("PreconditionFailed", "412")
_REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "404": "there is no such bucket",  # of a bucket itself
    "InvalidBucketName": "this is no name of a bucket",
    "InvalidAccessKeyId": "S3 does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key",
    "InvalidObjectState": "it is in a class for archives: restore it first",
    "ExpiredToken": "the credentials have expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
}


class S3Store(Store):
    """A bucket."""

    _scheme = "s3"

    @cached_property
    def _files(self) -> Any:
        files = s3fs.S3FileSystem(
            use_listings_cache=False,
            max_concurrency=_BLOCKS,
            config_kwargs={
                "retries": {"mode": "standard", "max_attempts": ATTEMPTS},
                "connect_timeout": _TIMEOUT,
                "read_timeout": _TIMEOUT,
            },
        )
        files.retries = 1  # botocore repeats requests, and `Store` operations
        return files

    def _entry(self, place: Place, found: dict[str, Any]) -> Entry:
        if found["type"] != "file":
            return Entry(place, 0, 0, is_folder=True)
        return Entry(place, found["size"], whole_seconds(found["LastModified"]), found["ETag"].strip('"'))

    def _walk(self, folder: Place, enters: Enters) -> Iterator[Entry]:
        """One list of all is the fastest."""
        for path, found in self._files.find(folder.path, detail=True).items():
            entry = self._entry(self._place(path), found)
            if not entry.is_folder:
                yield entry

    def _get(self, place: Place, local: Path) -> None:
        size = self._files.info(place.path)["size"]
        with open(local, "wb") as file:
            for start in range(0, size, _BLOCKS * _BLOCK):
                file.writelines(self._blocks(place, start, size))

    def _blocks(self, place: Place, start: int, size: int) -> list[bytes]:
        """Some blocks of a file. One that is cut off does not cost what was fetched before it."""
        starts = list(range(start, min(start + _BLOCKS * _BLOCK, size), _BLOCK))
        ends = [min(first + _BLOCK, size) for first in starts]
        paths = [place.path] * len(starts)
        return retried(
            lambda: list(self._files.cat_ranges(paths, starts, ends, on_error="raise")), self._is_transient
        )

    def _create(self, local: Path, place: Place) -> None:
        if local.stat().st_size >= 2 * _BLOCK:  # or else it is uploaded at once
            self._tidy(place.parent)
        try:
            self._files.put_file(str(local), place.path, mode="create", chunksize=_BLOCK)
        except OSError as error:
            if _code(error)[0] in _EXISTS:
                raise FileExistsError from error
            raise

    def _remove_abandoned(self, folder: Place) -> None:
        """A user or a server that cannot do that uploads all the same."""
        where = {"Bucket": self._server, "Prefix": f"{folder.key}/" if folder.key else ""}
        with suppress(OSError, BotoCoreError):
            for upload in self._files.call_s3("list_multipart_uploads", **where).get("Uploads", []):
                if time.time() - upload["Initiated"].timestamp() > _ABANDONED:
                    self._files.abort_mpu(self._server, upload["Key"], upload["UploadId"])

    def _is_transient(self, error: Exception) -> bool:
        code, status = _code(error)
        answered = code in (*_PASSING, _NO_UPLOAD) or status >= _BUSY or status == _TOO_MANY
        return answered or isinstance(error, _FAULTS)

    def _renew(self) -> None:
        """Each request finds a connection of its own."""

    def _reason(self, error: Exception) -> str | None:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "there are no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        code, status = _code(error)
        if status >= _BUSY:
            return f"the server fails: {code}"
        if isinstance(error, BotoCoreError):
            return " ".join(str(error).split())
        return _REASONS.get(code)


def _code(error: Exception) -> tuple[str, int]:
    """Code and HTTP status of an answer that is an error. Empty and 0 without an answer."""
    answer: dict[str, Any] = (
        getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    )
    code = str(answer.get("Error", {}).get("Code", ""))
    return code, int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
