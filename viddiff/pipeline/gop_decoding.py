"""Decode one GOP up to its first fault: damage costs the rest of the GOP, never the file.

GOP -> frames up to the first fault, GopEnd        (`concealment` makes a complete time line of these)
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import BinaryIO

from viddiff.codec.open_decoder import ChunkDecoder, Weights, open_decoder
from viddiff.container.format import Chunk, PredictedChunk
from viddiff.container.gop_table import Gop
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame

_NAMED = 8
"""Largest number of faults of a GOP that are reported."""


@dataclass(frozen=True)
class GopEnd:
    """Marks the end of a GOP, after the frames that could be decoded."""

    gop: Gop
    """What the GOP should hold."""
    faults: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    """Times of the frames that follow, as far as good chunks state them."""
    lost: int = 0
    """How many of its last frames could not be decoded."""


def decode_until_fault(
    chunks: Iterator[Chunk], decoder: ChunkDecoder, first: int, faults: list[str], strict: bool
) -> Generator[Frame, None, int]:
    """Frames of a GOP, from number `first` on, up to its first fault. Returns their number.

    A fault is added to `faults`, or raised in strict mode (BitstreamError or LimitError). All chunks are
    read, for the times of frames that cannot be decoded.
    """
    shown = 0
    try:
        for chunk in chunks:
            for frame in decoder.decode(chunk):
                yield frame
                shown += 1
    except (BitstreamError, LimitError) as error:
        if strict:
            raise
        faults.append(f"frame {first + shown}: {error}")
        with suppress(BitstreamError, LimitError):
            for _ in chunks:
                pass
    return shown


def decode_gop(
    file: BinaryIO, gop: Gop, weights: Weights | None, options: ReadOptions
) -> Iterator[Frame | GopEnd]:
    """Decode one GOP of a seekable file: its frames up to the first fault, then a GopEnd.

    Raises CheckpointError if other weights are needed. Raises BitstreamError and LimitError only in strict
    mode.
    """
    faults, times, shown = list[str](), list[int](), 0
    try:
        if gop.entry is not None:
            reader = _reader_at(file, gop, options)
            on_fault = None if options.strict else lambda fault: faults.append(str(fault))
            chunks = _checked(reader, gop, times, on_fault)
            decoder = open_decoder(reader.header, weights)
            shown = yield from decode_until_fault(chunks, decoder, gop.first, faults, options.strict)
        if options.strict and shown < gop.frames:
            raise BitstreamError(f"frames {gop.first + shown} to {gop.first + gop.frames - 1} are missing")
    except (BitstreamError, LimitError) as error:
        if options.strict:
            raise
        faults.append(str(error))
    yield GopEnd(gop, tuple(faults[:_NAMED]), tuple(times[shown : gop.frames]), gop.frames - shown)


def decode_gop_from(
    file: BinaryIO,
    gop: Gop,
    weights: Weights | None,
    options: ReadOptions,
    since: int,
    watch: Callable[[], None] = lambda: None,
) -> Iterator[Frame | GopEnd]:
    """Decode one GOP from the frame that is shown at the time `since`, or from one before it.

    Of chunks before that frame, only what later ones need is decoded. At a fault, frames may come again.
    watch: called before each chunk. Raises CheckpointError if other weights are needed.
    """
    frames = 0
    try:
        chunks = chain(mini_gops(file, gop, weights, options), [None])
        for this, following in pairwise(chunks):
            watch()
            assert this is not None
            _, chunk, decoder = this
            frames += len(chunk.times)
            if following is not None and following[1].times[0] <= since:
                decoder.follow(chunk)
            else:
                yield from decoder.decode(chunk)
        if frames < gop.frames:
            raise BitstreamError(f"frames {gop.first + frames} to {gop.first + gop.frames - 1} are missing")
    except (BitstreamError, LimitError):
        yield from decode_gop(file, gop, weights, options)  # which tells what is damaged
    else:
        yield GopEnd(gop)


def mini_gops(
    file: BinaryIO, gop: Gop, weights: Weights | None, options: ReadOptions
) -> Iterator[tuple[int, Chunk, ChunkDecoder]]:
    """Chunks of one GOP, each with its mini-GOP's number and the decoder that must get all of them.

    The keyframe has the number of the first mini-GOP. Raises BitstreamError or LimitError at the first fault,
    CheckpointError if other weights are needed.
    """
    if gop.entry is None:
        return
    reader, number = _reader_at(file, gop, options), 0
    decoder = open_decoder(reader.header, weights)
    for chunk in _checked(reader, gop, [], None):
        yield number, chunk, decoder
        number += isinstance(chunk, PredictedChunk)


def _reader_at(file: BinaryIO, gop: Gop, options: ReadOptions) -> Reader:
    """A reader of `file` at the start of `gop`, which has an entry."""
    file.seek(0)
    reader = Reader(file, options.limits)
    if gop.first and gop.entry is not None:
        reader.seek(gop.entry)  # the first is reached by reading, so that no byte of the file goes unchecked
    return reader


def _checked(
    reader: Reader, gop: Gop, times: list[int], on_fault: Callable[[BitstreamError], None] | None
) -> Iterator[Chunk]:
    """Chunks of `gop`. Adds the times of their frames to `times`."""
    for chunk in reader.chunks(on_fault, gop.stop):
        added = chunk.times
        if chunk.first != gop.first + len(times) or len(times) + len(added) > gop.frames:
            raise BitstreamError(f"frame {chunk.first} does not belong here")
        times += added
        yield chunk
