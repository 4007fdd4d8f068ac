"""An HTTP server on this machine alone: a page that plays movies, and the segments that it asks for.

    /TOKEN/                      the page, with its script (player.js) and style (player.css)
    /TOKEN/movies                JSON: names of the movies
    /TOKEN/0/start               JSON: length and kinds of segments of the first movie, and notes so far
    /TOKEN/0/about               the same, while it plays
    /TOKEN/0/pictures/7          segment 7 of its pictures: fragmented MP4 with H.264
    /TOKEN/0/sound/7             segment 7 of its sound: fragmented MP4 with AAC

Everything else is not found. Nobody finds anything without the token, which is new for each server.
"""

import json
import re
import secrets
import select
import socket
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Self

from viddiff.media.segment_writer import SOUND_TYPE, TICKS
from viddiff.serving.movie import Movie
from viddiff.serving.pictures import Pictures
from viddiff.serving.segments import SegmentError, Segments
from viddiff.serving.sounds import Sounds
from viddiff.version import __version__

HOST = "127.0.0.1"
_FILES = {
    "": ("player.html", "text/html; charset=utf-8"),
    "player.js": ("player.js", "text/javascript; charset=utf-8"),
    "player.css": ("player.css", "text/css; charset=utf-8"),
}
"""The page, by path: its file and type."""
_MOVIE = re.compile(r"(\d{1,4})/(about|start|pictures|sound)(?:/(\d{1,15}))?", re.ASCII)
_TYPES = {"pictures": "video/mp4", "sound": "audio/mp4"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src blob:; img-src data:; frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PICTURES_BYTES, _SOUND_BYTES = 128 << 20, 16 << 20
_MOST_CONNECTIONS = 32
_IDLE_SECONDS = 60


def hosts(port: int) -> set[str]:
    """What a browser calls a server on a port of this machine. It leaves the port of HTTP out."""
    names = {HOST, "localhost"}
    return {f"{name}:{port}" for name in names} | (names if port == HTTP_PORT else set())


class Server(ThreadingHTTPServer):
    """Serves movies until it is closed. Use it in a `with` statement."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, movies: Sequence[Movie], port: int = 0) -> None:
        """port: 0 for any free one. Raises OSError if the port is in use."""
        self.movies, self.token = movies, secrets.token_urlsafe(24)
        self._connections = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        super().__init__((HOST, port), _Handler)
        self.hosts = hosts(self.server_port)
        """What a browser may call this server."""
        self.segments = {
            "pictures": Segments(lambda movie, number: Pictures(movies[movie], number), _PICTURES_BYTES),
            "sound": Segments(lambda movie, number: Sounds(movies[movie], number), _SOUND_BYTES),
        }

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for segments in self.segments.values():
            segments.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and count the connection off."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True

    def version_string(self) -> str:
        return f"viddiff/{__version__}"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request for anything here."""
        self.close_connection = True
        self._send_text(HTTPStatus(code), message or "")

    def do_GET(self) -> None:
        """Answer a GET or HEAD request."""
        path = self._path()
        if path in _FILES:
            name, kind = _FILES[path]
            self._send(HTTPStatus.OK, kind, (resources.files("viddiff.serving") / name).read_bytes())
        elif path == "movies":
            self._send_json([movie.path.name for movie in self.server.movies])
        elif path and (found := _MOVIE.fullmatch(path)) and int(found[1]) < len(self.server.movies):
            self._send_of_movie(int(found[1]), found[2], found[3])
        else:
            self._send_text(HTTPStatus.NOT_FOUND, "not found")

    do_HEAD = do_GET

    def _path(self) -> str | None:
        """The path behind the token. None for a wrong token, or a host name that a page elsewhere made up."""
        before, *behind = self.path.split("/", 2)
        if before or len(behind) < 2 or self.headers.get("Host") not in self.server.hosts:
            return None
        token, path = behind
        right = secrets.compare_digest(token.encode(errors="replace"), self.server.token.encode())
        return path if right else None

    def _send_of_movie(self, movie: int, kind: str, digits: str | None) -> None:
        there, number = self.server.movies[movie], int(digits or 0)
        if kind == "about" and digits is None:
            self._send_json(_about(there))
        elif kind == "start" and digits is None:
            there.forget_pace()
            self._send_json(_about(there))
        elif (
            digits is not None
            and number < there.timeline.segments
            and (kind == "pictures" or (kind == "sound" and there.track is not None))
        ):
            self._send_segment(movie, kind, number)
        else:
            self._send_text(HTTPStatus.NOT_FOUND, "not found")

    def _send_segment(self, movie: int, kind: str, number: int) -> None:
        if self.request_version != self.protocol_version:  # which has no chunks
            self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            return
        if self.command == "HEAD":
            self._start(HTTPStatus.OK, _TYPES[kind], None)
            return
        with self.server.segments[kind].reading(movie, number) as segment:
            parts, begun = segment.parts(), False
            try:
                for part in parts:
                    if self._is_gone():
                        self.close_connection = True
                        return
                    if part:
                        if not begun:
                            self._start(HTTPStatus.OK, _TYPES[kind], None)
                            begun = True
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")
            except SegmentError as error:
                self.close_connection = True  # which tells that what was sent is not complete
                if not begun:
                    self._send_text(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _is_gone(self) -> bool:
        """Whether the browser has closed the connection."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _send_json(self, value: Any) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"))

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._start(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _start(self, status: HTTPStatus, kind: str, size: int | None) -> None:
        """Send the head of an answer. size: of its content; None if it comes in chunks."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if size is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(size))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _about(movie: Movie) -> dict[str, Any]:
    timeline = movie.timeline
    return {
        "seconds": timeline.ticks / TICKS,
        "segment_seconds": timeline.segment_ticks / TICKS,
        "pictures": movie.picture_type,
        "sound": None if movie.track is None else SOUND_TYPE,
        "notes": movie.notes,
    }
