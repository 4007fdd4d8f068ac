"""A media source that is read once, for several consumers of its streams.

    source -> packets in stored order -> a feed for the video, a feed for everything beside it

A consumer that needs a packet reads the source on. Packets for other consumers wait.
"""

import itertools
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar, cast

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from viddiff.errors import VideoError
from viddiff.interleave import DISORDER
from viddiff.media.libav_errors import FAILURES, reason_of, with_logs
from viddiff.media.timeline import Continuity

Result = TypeVar("Result")
Source = str | os.PathLike[str] | BinaryIO
"""A path, a network address, "-" for stdin, or an open file."""
STDIN = "-"
_LONG_AGO = Fraction(-(1 << 62))
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Demuxer:
    """Opens a source. A `live` source can be read only once, and only as fast as data arrives."""

    def __init__(
        self, source: Source, form: str | None = None, options: dict[str, str] | None = None
    ) -> None:
        """Open a source. Raises VideoError.

        form: libav's name of the demuxer; needed for devices, whose names are not paths. options: options of
        the demuxer.
        """
        self.source, self.name = source, name_of(source)
        self._form, self._options = form, dict(options or {})
        self.open_again: Callable[[], Demuxer] = partial(Demuxer, source, form, self._options)
        """Opens the same source again with the same options, also in another process."""
        self.live = is_live(source, form)
        self.chosen: int | None = None
        """Index of the stream whose pictures are taken, once that is known."""
        self._begin()

    def _begin(self) -> None:
        self.broken, self.end = False, 0.0
        """Whether the source ended unexpectedly; the end of pictures and sound so far, in seconds."""
        self.reason = ""
        """Why it is broken, in libav's words."""
        self.clock = _LONG_AGO
        """Latest time of the video packets read so far, in seconds."""
        self._feeds: dict[int, Feed] = {}
        self._unclaimed: list[tuple[Fraction, av.Packet[Any]]] | None = []
        self._reading = False
        try:
            if isinstance(self.source, str | os.PathLike) and not self.live and not os.path.exists(self.name):
                raise VideoError(f"{self.name} does not exist")
            self.container = interruptible(self._opened) if self.live else self._opened()
        except FAILURES as error:
            raise VideoError(f"{self.name} cannot be read as a video: {reason_of(error)}") from error
        self._packets: Iterator[av.Packet[Any]] = self.container.demux()
        self.continuity = Continuity(self.container.format.flags)

    def _opened(self) -> InputContainer:
        options = self._options | ({"fd": "0"} if self.source == STDIN else {})
        with with_logs():
            url = _url(self.source, self._form)
            return av.open(url, "r", format=self._form, options=options, metadata_errors="replace")

    def again(self) -> InputContainer | None:
        """The source once more, to look into it; None if it can be read only once."""
        if self.live or not isinstance(self.source, str | os.PathLike):
            return None
        with suppress(*FAILURES):
            return self._opened()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the source."""
        if not self._reading:  # or else a thread still waits for a packet, and ends with the process
            self.container.close()

    @property
    def videos(self) -> list[VideoStream]:
        """Video streams, without cover pictures."""
        return [stream for stream in self.container.streams.video if not is_cover(stream)]

    @property
    def video(self) -> VideoStream | None:
        """The stream whose pictures are taken: the one that was chosen, or the first."""
        if self.chosen is not None:
            return cast(VideoStream, self.container.streams[self.chosen])
        return next(iter(self.videos), None)

    def seek(self, stream: VideoStream, time: int) -> int | None:
        """Seek to a keyframe of `stream`, usually one at or before `time` (units of its time base).

        Returns the keyframe's time, or None if no keyframe was found. Packets that wait are dropped. No other
        stream may be claimed.
        """
        try:
            self.container.seek(time, stream=stream)
        except FAILURES:
            return None
        self._packets, self.clock = self.container.demux(), _LONG_AGO
        self.continuity = Continuity(self.container.format.flags)
        self._unclaimed = None if self._unclaimed is None else []
        for feed in self._feeds.values():
            feed.clear()
        return self._feeds[stream.index].keyframe()

    def rewind(self) -> None:
        """Start again, with new streams, none of them claimed. Raises VideoError."""
        self.container.close()
        self._begin()

    def claim(self, streams: Iterable[Stream]) -> "Feed":
        """All packets of `streams`, which nobody else may claim."""
        feed = Feed(self)
        self._feeds |= {stream.index: feed for stream in streams}
        for entry in self._unclaimed or ():
            if entry[1].stream.index in self._feeds:
                self._feeds[entry[1].stream.index].put(entry)
        self._unclaimed = [e for e in self._unclaimed or () if e[1].stream.index not in self._feeds]
        return feed

    def drop_others(self) -> None:
        """Drop packets that nobody has claimed."""
        self._unclaimed = None

    def read(self) -> bool:
        """Read the next packet for its consumer. False at the end, `broken` or not. Raises VideoError."""
        before = self.clock
        try:
            packet = self._next()
        except FAILURES as error:
            self._packets = iter(())
            reason = reason_of(error)
            if not self.live and not isinstance(error, av.InvalidDataError):
                raise VideoError(f"{self.name} cannot be decoded to its end: {reason}") from error
            self.broken, self.reason, packet = True, reason, None
        if packet is None:
            return False
        self.continuity.apply(packet)
        stream = packet.stream
        time = packet.dts if packet.pts is None else packet.pts
        if packet.pts is not None and packet.time_base is not None and stream.type in ("video", "audio"):
            self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if isinstance(stream, VideoStream) and time is not None and not is_cover(stream):
            self.clock = max(self.clock, time * packet.time_base)
        if (feed := self._feeds.get(stream.index)) is not None:
            feed.put((before, packet))
        elif self._unclaimed is not None:
            self._unclaimed.append((before, packet))
        return True

    def stop_waiting(self) -> None:
        """From now on, return only packets that are already read."""
        if self.live:
            self._packets = iter(())

    def _next(self) -> "av.Packet[Any] | None":
        if not self.live:
            return next(self._packets, None)
        self._reading = True
        try:
            packet = interruptible(lambda: next(self._packets, None))
        except FAILURES:
            self._reading = False
            raise
        self._reading = False
        return packet


class Feed:
    """Packets of some streams in stored order. An empty packet ends each stream. Iteration reads on."""

    def __init__(self, demuxer: Demuxer) -> None:
        self._demuxer = demuxer
        self._waiting: deque[tuple[Fraction, av.Packet[Any]]] = deque()
        self._wanted = True

    def __iter__(self) -> "Iterator[av.Packet[Any]]":
        return iter(lambda: self.take(None), None)

    def take(self, time: Fraction | None) -> "av.Packet[Any] | None":
        """The next packet, or None at the end.

        With `time` (seconds): also None if the packet is stored too far behind the video of that time. A
        later call returns it. For a file, the result depends on the order of packets only. For a live source,
        nothing that is stored behind the video of that time is waited for.
        """
        ahead = Fraction(0) if self._demuxer.live else Fraction(DISORDER)
        while not self._waiting:
            if (time is not None and self._demuxer.clock >= time + ahead) or not self._demuxer.read():
                return None
        if time is not None and self._waiting[0][0] >= time + DISORDER:
            return None
        return self._waiting.popleft()[1]

    def put(self, entry: "tuple[Fraction, av.Packet[Any]]") -> None:
        """Called by `Demuxer`: the next packet, and the clock before it."""
        if self._wanted:
            self._waiting.append(entry)

    def keyframe(self) -> int | None:
        """Time of the next packet where decoding can begin. Packets before it are dropped.

        None at the end, or if the packet has no time.
        """
        while self._waiting or self._demuxer.read():
            if self._waiting and self._waiting[0][1].size and self._waiting[0][1].is_keyframe:
                return self._waiting[0][1].pts
            if self._waiting:
                self._waiting.popleft()
        return None

    def rate(self, count: int) -> Fraction | None:
        """Packets a second, by the times of the next ones, which wait to be taken; None if they tell none."""
        while len(self._waiting) < count and self._demuxer.read():
            pass
        packets = [packet for _, packet in itertools.islice(self._waiting, count)]
        times = [p.dts * p.time_base for p in packets if p.dts is not None and p.time_base is not None]
        steps = sorted(later - time for time, later in pairwise(times) if later > time)
        return 1 / steps[len(steps) // 2] if steps else None

    def clear(self) -> None:
        """Drop all waiting packets."""
        self._waiting.clear()

    def leave(self) -> None:
        """Stop collecting packets."""
        self._wanted = False
        self._waiting.clear()


def is_cover(stream: Stream) -> bool:
    """True for a cover picture."""
    return stream.type == "video" and Disposition.attached_pic in stream.disposition


def is_live(source: Source, form: str | None = None) -> bool:
    """True if the source can be read only once: a pipe, a network address, a device."""
    if not isinstance(source, str | os.PathLike):
        return False
    name = os.fspath(source)
    return name == STDIN or form is not None or bool(_ADDRESS.match(name)) or Path(name).is_fifo()


def name_of(source: Source) -> str:
    """Name of the source for messages."""
    if not isinstance(source, str | os.PathLike):
        return "the input"
    return "stdin" if source == STDIN else os.fspath(source)


def interruptible(call: Callable[[], Result]) -> Result:
    """Result of `call`, which runs in its own thread, so that Ctrl-C can end the wait."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result()


def _url(source: Source, form: str | None) -> str | BinaryIO:
    """Argument for libav's open."""
    if not isinstance(source, str | os.PathLike):
        return source
    name = os.fspath(source)
    if name == STDIN:
        return "fd:"
    return name if form is not None or _ADDRESS.match(name) else f"file:{name}"
