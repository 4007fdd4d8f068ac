"""Parts of a `.vdf` without decoding: whole GOPs and everything beside them, at other times.

    Source.read -> Source -> excerpt -> Excerpt: chunks, packets, chapters -> a writer

Damage within an excerpt raises an error. Damage elsewhere in the file does not matter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm
from pathlib import Path
from typing import Self

from viddiff.container.format import Chunk, Header, KeyChunk
from viddiff.container.gop_table import Gop, schedule, usual_step
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Index, Reader
from viddiff.container.track_file import TrackFile
from viddiff.errors import BitstreamError, LimitError
from viddiff.interleave import DISORDER
from viddiff.span import Span
from viddiff.tracks import Chapter, Extras, TrackPacket


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of the block that say what is wrong with it."""
    try:
        yield
    except BitstreamError as error:
        fault = str(error)
        known = fault if fault.startswith("not a ") else f"damaged: {fault}"
        raise BitstreamError(f"{path} is {known}") from error
    except LimitError as error:
        raise LimitError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Source:
    """A file to take GOPs from. It is read again for each purpose, so that it need not stay open."""

    path: Path
    options: ReadOptions
    header: Header
    extras: Extras
    """Everything beside the video, except packets."""
    gops: tuple[Gop, ...]
    """All of the file, damaged or not; at least one."""

    @classmethod
    def read(cls, path: Path, options: ReadOptions) -> Self:
        """Read what stands before the first frame, and where the GOPs are.

        Raises BitstreamError if that is damaged or there is no frame, LimitError if there is too much.
        """
        with naming(path), options.open(path) as file:
            gops = schedule(file, options.limits)
            file.seek(0)
            if not gops:
                for _ in Reader(file, options.limits):
                    pass  # which raises if that is for damage
                raise BitstreamError("it holds no frame")
            there = next((gop.entry.offset for gop in gops if gop.entry is not None), None)
            tracks = TrackFile(file, None, options.limits, stop=there)
            return cls(path, options, tracks.reader.header, tracks.extras, tuple(gops))

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.gops[-1].first + self.gops[-1].frames

    def excerpt(self, gops: tuple[Gop, ...]) -> "Excerpt":
        """Consecutive GOPs, with everything beside them that lies within their time, at the same times.

        What begins before the first frame or ends after the last one of the file is kept.
        """
        base = self.header.video.time_base
        since = gops[0].pts * base if gops[0].first else None
        until = None if gops[-1].until is None else gops[-1].until * base
        return Excerpt(self, gops, Span(since, until))

    def exact_shift(self, wanted: int) -> int:
        """The part of `wanted`, a time, that all tracks and chapters can be moved by without rounding."""
        video = self.header.video.time_base
        unit, all_of_it = video, abs(wanted) * video
        bases = [track.time_base for track in self.extras.tracks]
        for base in {*bases, *(chapter.time_base for chapter in self.extras.chapters)}:
            unit = Fraction(lcm(unit.numerator, base.numerator), gcd(unit.denominator, base.denominator))
            if unit > all_of_it:
                return 0
        step = int(unit / video)
        return wanted // step * step if wanted >= 0 else -(-wanted // step * step)

    def opening_packets(self) -> Iterator[TrackPacket]:
        """Packets that may begin with the first frame: tracks need not be stored in the order of their times.

        Damage does not matter here.
        """
        until = self.gops[0].pts * self.header.video.time_base + DISORDER
        with naming(self.path), self.options.open(self.path) as file:
            tracks = TrackFile(file, lambda fault: None, self.options.limits)
            for packet in tracks.packets():
                if self.extras.tracks[packet.track].seconds(packet.pts) > until:
                    return
                yield packet


@dataclass(frozen=True)
class Excerpt:
    """GOPs of a file, and what lies beside them."""

    source: Source
    gops: tuple[Gop, ...]
    """Consecutive ones."""
    span: Span
    """What of the packets and chapters belongs to them."""
    shift: int = 0
    """Times are larger by this than in the file, in units of the video's time base."""

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.gops[-1].first + self.gops[-1].frames - self.gops[0].first

    @property
    def _seconds(self) -> Fraction:
        return self.shift * self.source.header.video.time_base

    def chunks(self) -> Iterator[Chunk]:
        """All chunks of frames. The last one has the duration of its last frame, if that is known.

        Raises BitstreamError if one is damaged or missing.
        """
        source, first, last = self.source, self.gops[0], self.gops[-1]
        with naming(source.path), source.options.open(source.path) as file:
            reader = Reader(file, source.options.limits)
            held: Chunk | None = None
            done = 0
            for chunk in self._read(reader):
                if held is not None:
                    yield self._moved(held, 0)
                held, done = chunk, done + len(chunk.times)
                if done >= self.frames and last.until is not None:
                    break
            if held is None or done != self.frames:
                raise BitstreamError(_missing(first.first + done, first.first + self.frames))
            if last.until is None:
                yield self._moved(held, stated_duration(reader, first.first + done))
            else:
                yield self._moved(held, last.until - held.times[-1])

    def _read(self, reader: Reader) -> Iterator[Chunk]:
        """The chunks as they are in the file. Behind the last GOP of a file it reads on to the end."""
        for gop in self.gops:
            if gop.entry is None:
                raise BitstreamError(_missing(gop.first, gop.first + gop.frames))
            if gop.first:
                reader.seek(gop.entry)  # where its background is read, which may stand far before
            for chunk in reader.chunks(None, gop.stop):
                if isinstance(chunk, KeyChunk) and chunk.background is None:
                    raise BitstreamError(f"the background of frame {chunk.first} is missing")
                yield chunk

    def _moved(self, chunk: Chunk, duration: int) -> Chunk:
        if isinstance(chunk, KeyChunk):
            return replace(chunk, pts=chunk.pts + self.shift, duration=duration)
        return replace(chunk, pts=tuple(pts + self.shift for pts in chunk.pts), duration=duration)

    def packets(self) -> Iterator[TrackPacket]:
        """The packets that lie within the span, in stored order.

        Raises BitstreamError if one is damaged, LimitError if a time cannot be moved so far.
        """
        source, until = self.source, self.span.until
        tracks = source.extras.tracks
        if not tracks:
            return
        begin, end, stop = self._reach()
        # A subtitle may have begun long before the first frame.
        start = 0 if any(track.kind == "subtitle" for track in tracks) else self.gops[0].first
        opened: list[TrackFile] = []

        def on_fault(fault: BitstreamError) -> None:
            offset = opened[0].reader.offset if opened else begin
            if offset >= begin and (end is None or offset < end):
                raise fault

        with naming(source.path), source.options.open(source.path) as file:
            opened.append(TrackFile(file, on_fault, source.options.limits, start, stop))
            for packet in opened[0].packets():
                track = tracks[packet.track]
                if until is not None and track.seconds(packet.pts) > until + DISORDER:
                    return
                kept = self.span.packet(packet, track)
                if kept is not None:
                    yield self.moved(kept)

    def moved(self, packet: TrackPacket) -> TrackPacket:
        """A packet of the file at the time that it has here. Raises LimitError if there is none."""
        track = self.source.extras.tracks[packet.track]
        moved = replace(packet, pts=packet.pts + round(self._seconds / track.time_base))
        if not track.in_range(moved.pts, moved.duration):
            raise LimitError("its times reach too far")
        return moved

    def chapters(self) -> list[Chapter]:
        """The chapters that lie within the span. Raises LimitError if a time cannot be moved so far."""
        found = []
        for chapter in self.span.chapters(self.source.extras.chapters):
            by = round(self._seconds / chapter.time_base)
            moved = replace(chapter, start=chapter.start + by, end=chapter.end + by)
            if not moved.in_range:
                raise LimitError(f"{self.source.path}: its times reach too far")
            found.append(moved)
        return found

    def _reach(self) -> tuple[int, int | None, int | None]:
        """Bytes of the file: from where to where no fault is allowed, and where reading may end."""
        base, begin, stop = self.source.header.video.time_base, 0, None
        for gop in self.source.gops:
            if gop.entry is None:
                continue
            if self.span.since is not None and gop.pts * base <= self.span.since - DISORDER:
                begin = gop.entry.offset
            if self.span.until is not None and gop.pts * base > self.span.until + DISORDER:
                stop = gop.entry.offset
                break
        return begin, self.gops[-1].stop, stop

    def end(self) -> int:
        """Time at which the last frame ends, in the file's own times. Reads its last GOP.

        Where its duration is unknown, it counts as the usual one.
        """
        last = self.gops[-1]
        if last.until is not None:
            return last.until
        source = self.source
        alone = replace(self, gops=(last,), shift=0)
        *_, chunk = alone.chunks()
        return chunk.times[-1] + (chunk.duration or usual_step(source.header.video))


def _missing(first: int, end: int) -> str:
    return f"frames {first} to {end - 1} are missing"


def stated_duration(reader: Reader, frames: int) -> int:
    """How long the last of `frames` frames is shown, 0 if that is unknown.

    Raises BitstreamError if INDEX states another number of frames.
    """
    if reader.index_body is None:
        return 0
    index = Index.unpack(reader.index_body, reader.header)
    if index.frames != frames:
        raise BitstreamError(f"{index.frames} frames were written, but {frames} are there")
    return index.last_duration
