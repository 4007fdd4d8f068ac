"""Write whole GOPs of `.vdf` files to a new one, without decoding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from viddiff.config import MAX_PIXELS, Limits
from viddiff.container.excerpt import Source
from viddiff.container.format import Chunk, Header, KeyChunk
from viddiff.container.interleaving_writer import InterleavingWriter
from viddiff.container.read_options import ReadOptions
from viddiff.container.sealing import Secret, key_of, sealed, wants
from viddiff.errors import SecretError
from viddiff.interleave import Interleaver
from viddiff.pipeline.output_file import OutputFile, complete_file
from viddiff.tracks import Extras, TrackPacket


@dataclass(frozen=True)
class Written:
    """What was written."""

    frames: int
    keyframes: int


class _Packets:
    """Packets as a source for `Interleaver`."""

    def __init__(self, packets: Iterable[TrackPacket]) -> None:
        self._packets = iter(packets)

    def take(self, time: Fraction | None) -> TrackPacket | None:
        """The next packet, whatever its time. None at the end."""
        return next(self._packets, None)

    def stop_waiting(self) -> None:
        """Does nothing: files do not wait."""


def reading(path: Path, secret: Secret | None) -> ReadOptions:
    """How to read a file of which nothing is decoded. secret: used if the file is encrypted.

    Raises SecretError, BitstreamError.
    """
    with open(path, "rb") as file:
        encrypted = bool(wants(file))
    key = key_of(path, secret) if encrypted else None
    return ReadOptions(strict=True, limits=Limits(MAX_PIXELS), key=key)


def secret_of_output(sources: Iterable[Source], secret: Secret | None, encrypt: bool) -> Secret | None:
    """Secret that encrypts what is written from `sources`, if `encrypt`.

    Raises SecretError if there is a secret, but neither a source nor the output is encrypted.
    """
    if encrypt:
        return secret
    if secret is not None and all(source.options.key is None for source in sources):
        raise SecretError("no input is encrypted, but a key was given; --encrypt encrypts the output")
    return None


def write_gops(
    output: OutputFile,
    header: Header,
    extras: Extras,
    chunks: Iterator[Chunk],
    packets: Iterator[TrackPacket],
    secret: Secret | None,
) -> Written:
    """Write a file, which appears when it is complete. secret: encrypts it.

    Raises ViddiffError, OSError, and what `chunks` and `packets` raise; there is no file then.
    """
    with complete_file(output, lambda _: None) as file, sealed(file, secret) as out:
        return write_gops_into(out, header, extras, chunks, packets)


def write_gops_into(
    out: BinaryIO, header: Header, extras: Extras, chunks: Iterator[Chunk], packets: Iterator[TrackPacket]
) -> Written:
    """The same into an open file."""
    frames = keyframes = 0
    writer = InterleavingWriter(out, header, Interleaver(extras, _Packets(packets)))
    for chunk in chunks:
        writer.write(chunk)
        frames += len(chunk.times)
        keyframes += isinstance(chunk, KeyChunk)
    writer.finish()
    return Written(frames, keyframes)
