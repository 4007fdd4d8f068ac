"""What hostile bytes are thrown at.

A target takes any bytes and ends in a result or in a ViddiffError; `check` says in which, and whether in time
and memory. The tests hold every input in tests/data/bad against it.
"""

import io
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from viddiff import checkpoint
from viddiff.access import ReadOptions
from viddiff.checkpoint import Codec
from viddiff.codec import decode_chunks
from viddiff.config import Limits, ModelConfig
from viddiff.container import Header, KeyChunk
from viddiff.entropy import SymbolDecoder, Tables, discretised_tables
from viddiff.errors import ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.interleave import Interleaver
from viddiff.packet import unpack_mini_gop
from viddiff.reader import Reader
from viddiff.recovery import Damage, conceal, decode_gop
from viddiff.schedule import schedule
from viddiff.sealing import SealedReader, Secret, unlock, wants
from viddiff.trackfile import TrackFile, summary
from viddiff.videowriter import VideoWriter

LIMITS = Limits(pixels=64 * 64, frames=200)
"""Of whole decodes: so that a sound file, too, ends soon."""
SECONDS = 20.0
"""Processor time that no target needs for a small file."""
MEMORY_MIB = 512
"""By which no target lets the process grow."""
KEY = Secret(bytes(range(32)), passphrase=False)


class Finding(Exception):
    """A target ended in something else; the message tells findings apart."""


@cache
def tiny_codec() -> Codec:
    """Narrow networks under a hash that no release of PyTorch changes: files keep reaching the codec."""
    torch.set_num_threads(1)
    codec = checkpoint.untrained(ModelConfig("tiny", quarter=8, eighth=16))
    return replace(codec, hash=bytes(32))


@cache
def some_tables() -> Tables:
    return discretised_tables([0.06, 0.5, 3.0, 60.0], "laplace")


def header(data: bytes) -> None:
    assert Header.unpack(data).pack() == data


def container(data: bytes) -> None:
    """Read in order, around faults, by index and with all that travels beside the video."""
    times: list[int] = []
    reader = Reader(io.BytesIO(data), Limits(frames=100_000))
    for chunk in reader.chunks(lambda fault: None):
        times += [chunk.pts] if isinstance(chunk, KeyChunk) else chunk.pts
    assert all(a < b for a, b in pairwise(times))
    for entry in reader.index():
        reader.seek(entry)
        next(reader.chunks(lambda fault: None), None)
    schedule(io.BytesIO(data), Limits(frames=100_000))
    summary(io.BytesIO(data), Limits(frames=100_000))
    list(Reader(io.BytesIO(data)))


def entropy(data: bytes) -> None:
    """The first bytes choose coder, order and number of symbols, the others are the packet."""
    plan, packet = data[:4].ljust(4, b"\0"), data[4:]
    _, stream = unpack_mini_gop(packet) if plan[0] & 2 else (b"", packet)
    decoder = SymbolDecoder(stream, "huffman" if plan[0] & 1 else "ans")
    for part in plan[1:]:
        if part & 128:
            widths = np.arange(part & 31) + 1
            assert (decoder.get_bits(widths) >> widths == 0).all()
        else:
            indexes = np.arange(part & 127) % 5 - 1
            symbols = decoder.get(indexes, some_tables())
            assert not symbols[indexes < 0].any()
    decoder.finish()


def weights(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(data)
        checkpoint.load(path)


def sealed(data: bytes) -> None:
    """Every record in order, the last first, and a container over it, around faults."""
    if wants(io.BytesIO(data)) == "passphrase":
        return  # stretching it takes its time, which tests of the layer measure
    file = io.BytesIO(data)
    key = unlock(file, KEY)
    lenient = SealedReader(file, key, lenient=True)
    size = lenient.seek(0, io.SEEK_END)
    lenient.seek(max(size - 5, 0))
    lenient.read(9)
    lenient.seek(0)
    assert len(lenient.readall()) <= len(data)
    container_layer = SealedReader(io.BytesIO(data), key, lenient=True)
    list(Reader(container_layer).chunks(lambda fault: None))  # type: ignore[arg-type]
    SealedReader(io.BytesIO(data), key).readall()


def tracks(data: bytes) -> None:
    """All that travels beside the video, into media files of either kind, beside three black pictures."""
    planes = (np.zeros(shape, np.uint8) for shape in ((16, 16), (8, 8), (8, 8)))
    picture = Frame(*planes, 0)
    for name in ("a.mkv", "a.mp4"):
        others = TrackFile(io.BytesIO(data), lambda fault: None, LIMITS)
        beside = Interleaver(others.extras, others)
        with (
            tempfile.TemporaryDirectory() as folder,
            VideoWriter(Path(folder) / name, VideoInfo(16, 16), others=beside) as writer,
        ):
            for pts in range(3):
                writer.write(replace(picture, pts=pts))


def decode(data: bytes) -> None:
    """Frames, around all faults, then again with none allowed."""
    codec = tiny_codec()
    with torch.inference_mode():
        file = io.BytesIO(data)
        gops = schedule(file, LIMITS)
        damage = Damage(0, LIMITS.frames)
        options = ReadOptions(limits=LIMITS)
        parts = (part for gop in gops for part in decode_gop(file, gop, codec, options))
        times = [
            frame.pts for frame in conceal(parts, 0, Reader(io.BytesIO(data)).header.video, damage, False)
        ]
        assert all(a < b for a, b in pairwise(times))
        if damage:
            reader = Reader(io.BytesIO(data), LIMITS)
            for _ in decode_chunks(reader, reader, codec):
                pass


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (header, container, entropy, weights, sealed, tracks, decode)
}


def check(target: Callable[[bytes], None], data: bytes) -> str:
    """How `target` ended: "result", or a ViddiffError's name and words. Raises Finding for anything else."""
    began, size = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ending = "result"
    try:
        target(data)
    except ViddiffError as error:
        ending = f"{type(error).__name__} {error}"
        if len(str(error).splitlines()) != 1:
            raise Finding(f"{type(error).__name__} of more than one line") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a Rust library is no Exception
        frames = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if "viddiff" in f.filename or "fuzz" in f.filename
        ]
        raise Finding(
            f"{type(error).__name__} in {Path(frames[-1].filename).stem}.{frames[-1].name}"
        ) from error
    if time.process_time() - began > SECONDS:
        raise Finding(f"over {SECONDS:.0f} seconds")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size > MEMORY_MIB << 10:
        raise Finding(f"over {MEMORY_MIB} MiB")
    return ending
