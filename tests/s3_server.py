"""An S3 server on this machine for tests: moto's, with faults on request."""

import os
import random
import threading
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Hook = Callable[[dict[str, Any]], "bytes | None"]
"""Sees a request before it is answered. It may return an answer: status and code, "403 AccessDenied"."""
BUCKET = "bucket"


class _Quiet(WSGIRequestHandler):
    """Writes no log."""

    def log(self, type: str, message: str, *args: object) -> None:
        pass


class S3Server:
    """A server with one bucket, which can be made to fail."""

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.reset()

    @property
    def settings(self) -> dict[str, str]:
        """Environment of a user of the server, without files of their own."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def reset(self) -> None:
        """An empty bucket, and no faults."""
        self.requests = list[tuple[str, str]]()
        """Method and path of all requests."""
        self.faults, self._rate, self._random = 0, 0.0, random.Random(0)
        self.hook: Hook = lambda _: None
        s3_backends.reset()
        self._backend.create_bucket(BUCKET, "us-east-1")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, rate: float, seed: int = 0) -> None:
        """Have this share of all requests fail. Every second one is done: its answer is lost or cut off."""
        self._rate, self._random = rate, random.Random(seed)

    def put(self, key: str, data: bytes) -> None:
        """Put an object without a request."""
        self._backend.put_object(BUCKET, key, data)

    def delete(self, key: str) -> None:
        self._backend.delete_object(BUCKET, key)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Content of all objects by key."""
        bucket = self._backend.get_bucket(BUCKET)
        return {name: key.value for name, key in sorted(bucket.keys.items()) if name.startswith(prefix)}

    def begin_upload(self, key: str) -> None:
        """Begin an upload in parts. It says that it is of 2010, as all uploads of moto do."""
        self._backend.create_multipart_upload(BUCKET, key, {}, "STANDARD", {}, None, "", "")

    def uploads(self) -> set[str]:
        """Keys of uploads in parts that were begun and not ended."""
        return {upload.key_name for upload in self._backend.list_multipart_uploads(BUCKET).values()}

    @property
    def _backend(self) -> Any:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        if len(body) < size:  # whoever sent it was killed
            return _error(environ, start, b"400", b"IncompleteBody")
        environ["wsgi.input"] = BytesIO(body)
        fault = self._random.random() < self._rate
        if fault:
            self.faults += 1
            if self.faults % 2:
                return _error(
                    environ,
                    start,
                    *(b"503", b"SlowDown") if self.faults % 4 == 1 else (b"500", b"InternalError"),
                )
        answer = self.hook(environ)
        if answer is not None:
            return _error(environ, start, *answer.split(b" ", 1))
        if fault and self.faults % 4 == 0:
            whole = b"".join(self._do(environ, start))
            return [whole[: len(whole) // 2]]
        if fault:  # the answer is lost
            self._do(environ, lambda *_: None)
            return _error(environ, start, b"500", b"InternalError")
        return self._do(environ, start)

    def _do(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        with self._lock:  # a condition holds until the request is done, as on S3
            return list(self._app(environ, start))


def _error(environ: dict[str, Any], start: Callable[..., Any], status: bytes, code: bytes) -> Iterable[bytes]:
    start(f"{status.decode()} {code.decode()}", [("Content-Type", "application/xml")])
    if environ["REQUEST_METHOD"] == "HEAD":
        return []
    return [b"<Error><Code>" + code + b"</Code><Message>" + code + b"</Message></Error>"]
