"""Decoding of one GOP as far as it is sound: damage costs the rest of the GOP, never the file.

GOP -> frames up to the first fault, GopEnd        (`concealment` makes a whole time line of these)
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from viddiff.codec.open_decoder import ChunkDecoder, Weights, open_decoder
from viddiff.container.format import Chunk, KeyChunk, PredictedChunk
from viddiff.container.gop_table import Gop
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame

_NAMED = 8
"""Faults of a GOP that are told."""


@dataclass(frozen=True)
class GopEnd:
    """Follows the frames of a GOP that could be decoded."""

    gop: Gop
    """What should have been there."""
    faults: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    """Presentation times of the frames that follow these, as far as sound chunks tell them."""


def decode_until_fault(
    chunks: Iterator[Chunk], decoder: ChunkDecoder, first: int, faults: list[str], strict: bool
) -> Generator[Frame, None, int]:
    """The frames of a GOP, from number `first` on, up to its first fault; returns how many they are.

    A fault is added to `faults`, or raised if strict: BitstreamError or LimitError. All chunks are taken, for
    the times of those that cannot be decoded.
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


def decode_gop(file: BinaryIO, gop: Gop, weights: Weights, options: ReadOptions) -> Iterator[Frame | GopEnd]:
    """Decode one GOP of a seekable file: its frames up to the first fault, and a GopEnd.

    Raises CheckpointError if other weights are needed; BitstreamError and LimitError only if strict.
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
    yield GopEnd(gop, tuple(faults[:_NAMED]), tuple(times[shown : gop.frames]))


def mini_gops(
    file: BinaryIO, gop: Gop, weights: Weights, options: ReadOptions
) -> Iterator[tuple[int, Chunk, ChunkDecoder]]:
    """The chunks of one GOP, each with the number of the mini-GOP that it is or precedes, and the decoder
    that has to be given all of them.

    Raises BitstreamError or LimitError at the first fault, CheckpointError if other weights are needed.
    """
    if gop.entry is None:
        return
    reader, number = _reader_at(file, gop, options), 0
    decoder = open_decoder(reader.header, weights)
    for chunk in _checked(reader, gop, [], None):
        yield number, chunk, decoder
        number += isinstance(chunk, PredictedChunk)


def _reader_at(file: BinaryIO, gop: Gop, options: ReadOptions) -> Reader:
    """A reader of `file` at the beginning of `gop`, which has an entry."""
    file.seek(0)
    reader = Reader(file, options.limits)
    if gop.first and gop.entry is not None:
        reader.seek(gop.entry)  # the first is reached by reading, so that no byte of the file goes unchecked
    return reader


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
