"""Decoding around damage: it costs the rest of its GOP, and the time line stays whole.

    GOP -> frames, GopEnd, in a process or from a pipe     frames, GopEnd -> frames, repeats for lost ones

A lost frame is shown as the last good one before it (the first good one, if there is none before).
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from viddiff.codec.gop_decoder import GopDecoder
from viddiff.codec.weights import Codec
from viddiff.container.format import Chunk, KeyChunk, PredictedChunk
from viddiff.container.gop_table import Gop, usual_step
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.serial import decode_chunks

_LAST_TIME = (1 << 63) - 1
_NAMED = 8


@dataclass(frozen=True)
class GopEnd:
    """Follows the frames of a GOP that could be decoded."""

    gop: Gop
    """What should have been there."""
    faults: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    """Presentation times of the frames that follow these, as far as sound chunks tell them."""


@dataclass
class Damage:
    """What could not be decoded of the frames from `start` to before `stop`."""

    start: int
    stop: int
    lost: list[tuple[int, int]] = field(default_factory=list)
    """First and last number of frames that follow each other."""
    faults: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set, repr=False)

    def blame(self, faults: Iterable[str]) -> None:
        """Note these faults, each once; there may be millions."""
        new = [fault for fault in dict.fromkeys(faults) if fault not in self._known]
        self._known.update(new)
        self.faults += new

    @property
    def frames(self) -> int:
        """How many were lost."""
        return sum(last - first + 1 for first, last in self.lost)

    def lose(self, first: int, last: int) -> None:
        """Note that frames `first` to `last` are lost, as far as they were asked for."""
        first, last = max(first, self.start), min(last, self.stop - 1)
        if first > last:
            return
        if self.lost and self.lost[-1][1] == first - 1:
            first = self.lost.pop()[0]
        self.lost.append((first, last))

    def __bool__(self) -> bool:
        return bool(self.lost or self.faults)

    def __str__(self) -> str:
        spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in self.lost[:_NAMED]]
        more = [f"{len(self.lost) - _NAMED} more stretches"] if len(self.lost) > _NAMED else []
        first = self.faults[0] if self.faults else "chunks are missing"
        if not spans:
            return f"the file is damaged, but no frame is known to be lost ({first})"
        return (
            f"{self.frames} frames are lost and shown as the one before: {', '.join(spans + more)} ({first})"
        )


def decode_gop(file: BinaryIO, gop: Gop, codec: Codec, options: ReadOptions) -> Iterator[Frame | GopEnd]:
    """Decode one GOP of a seekable file: its frames up to the first fault, and a GopEnd.

    Raises CheckpointError if other weights are needed; BitstreamError and LimitError only if strict.
    """
    faults, times, shown = list[str](), list[int](), 0
    try:
        file.seek(0)
        reader = Reader(file, options.limits)
        if gop.entry is not None:
            if gop.first:  # the first is reached by reading, so that no byte of the file goes unchecked
                reader.seek(gop.entry)
            on_fault = None if options.strict else lambda fault: faults.append(str(fault))
            chunks = _checked(reader, gop, times, on_fault)
            try:
                for frame in decode_chunks(reader, chunks, codec):
                    yield frame
                    shown += 1
            except (BitstreamError, LimitError) as error:
                if options.strict:
                    raise
                faults.append(f"frame {gop.first + shown}: {error}")
                with suppress(BitstreamError, LimitError):
                    for _ in chunks:  # what is left cannot be decoded, but has times
                        pass
        if options.strict and shown < gop.frames:
            raise BitstreamError(f"frames {gop.first + shown} to {gop.first + gop.frames - 1} are missing")
    except (BitstreamError, LimitError) as error:
        if options.strict:
            raise
        faults.append(str(error))
    yield GopEnd(gop, tuple(faults[:_NAMED]), tuple(times[shown : gop.frames]))


def gop_jobs(
    file: BinaryIO, gop: Gop, codec: Codec, options: ReadOptions
) -> Iterator[tuple[int, Chunk, GopDecoder]]:
    """The chunks of one GOP, each with the number of the mini-GOP that it is or precedes, and the decoder
    that has to be given all of them.

    Raises BitstreamError or LimitError at the first fault, CheckpointError if other weights are needed.
    """
    file.seek(0)
    reader, number = Reader(file, options.limits), 0
    if gop.entry is None:
        return
    if gop.first:
        reader.seek(gop.entry)
    decoder = GopDecoder(reader.header, codec)
    for chunk in _checked(reader, gop, [], None):
        yield number, chunk, decoder
        number += isinstance(chunk, PredictedChunk)


def _checked(
    reader: Reader, gop: Gop, times: list[int], on_fault: Callable[[BitstreamError], None] | None
) -> Iterator[Chunk]:
    """The chunks of `gop`; adds the times of their frames to `times`."""
    for chunk in reader.chunks(on_fault, gop.stop):
        added = (chunk.pts,) if isinstance(chunk, KeyChunk) else chunk.pts
        if len(times) + len(added) > gop.sound:
            raise BitstreamError("chunks are missing here, or do not belong here")
        times += added
        yield chunk


def conceal(
    parts: Iterator[Frame | GopEnd], first: int, info: VideoInfo, damage: Damage, strict: bool
) -> Iterator[Frame]:
    """All frames from number `first` on, in order, at times that increase; `parts` come GOP by GOP, as of
    `decode_gop`.

    Raises BitstreamError if there is no frame to show, or if strict and times do not increase.
    """
    last, time, step = None, -_LAST_TIME - 2, usual_step(info)
    early = array("q")  # times of lost frames before the first good one; there may be millions
    shown = 0
    for part in parts:
        if isinstance(part, Frame):
            if part.pts <= time:
                fault = f"the time of frame {first + shown} is not after that of the frame before"
                if strict:
                    raise BitstreamError(fault)
                damage.blame([fault])
                part = replace(part, pts=time + 1)
            for moment in early:
                yield replace(part, pts=moment)
            step = part.pts - time if last is not None else step
            last, time, early = part, part.pts, array("q")
            shown += 1
            yield part
            continue
        gop, lost_from = part.gop, shown
        first, shown = gop.first + gop.frames, 0
        damage.blame(part.faults)
        if lost_from >= gop.frames:
            continue
        damage.lose(gop.first + lost_from, gop.first + gop.frames - 1)
        for wanted in _times(gop, lost_from, part.times, time, step):
            time = max(wanted, time + 1)
            if time > _LAST_TIME:
                raise BitstreamError("presentation times leave 64 bits")
            if last is None:
                early.append(time)
            else:
                yield replace(last, pts=time)
    if early:
        raise BitstreamError(
            f"no frame can be decoded: {damage.faults[0] if damage.faults else 'all are gone'}"
        )


def _times(gop: Gop, shown: int, known: tuple[int, ...], time: int, step: int) -> Iterator[int]:
    """Times of the frames of `gop` after those shown: `known` ones first, the others evenly up to the next
    keyframe. `time` is that of the frame before."""
    if not shown and not known:
        known = (gop.pts,)
    yield from known
    time = known[-1] if known else time
    rest = gop.frames - shown - len(known)
    for number in range(1, rest + 1):
        yield time + (step * number if gop.until is None else (gop.until - time) * number // (rest + 1))
