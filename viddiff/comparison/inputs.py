"""Videos to compare: a `.vdf` or any media file, as frames and as bytes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from viddiff.config import Limits
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, key_of, wants
from viddiff.errors import BitstreamError, CheckpointError, LimitError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.filters import Changes, change_frames
from viddiff.media.packet_sizes import video_packets
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.chunk_sizes import gop_table
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.output_file import is_vdf
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources

if TYPE_CHECKING:
    from viddiff.codec.enhancer import EngineName

_THREADS = 4
"""Threads that decode a media file, at most."""


@dataclass(frozen=True)
class Reading:
    """How videos are read."""

    weights: str | os.PathLike[str] | None = None
    """Weights of a `.vdf`: a file or folder, or the first digits of a hash. None: those that it names."""
    device: str = "auto"
    engine: "EngineName | None" = None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    secret: Secret | None = field(default=None, repr=False)
    """Secret of those that are encrypted."""

    def options(self, path: Path) -> ReadOptions:
        """Options for reading a `.vdf`. Raises SecretError, BitstreamError, OSError."""
        with open(path, "rb") as file:
            sealed = wants(file)
        return ReadOptions(limits=self.limits, key=key_of(path, self.secret) if sealed else None)


@dataclass(frozen=True)
class Input:
    """A video that is being read."""

    info: VideoInfo
    """`frame_count` is a hint."""
    stored_size: tuple[int, int]
    """Width and height before any scaling."""
    frames: Iterator[Frame]
    """Its frames, once."""
    notes: Callable[[], list[str]]
    """What reading it changed, and what was damaged, complete when all frames are taken."""
    damaged: Callable[[], bool]
    """Whether frames were lost, as far as frames are taken."""


@contextmanager
def open_input(path: Path, reading: Reading, scale: tuple[int, int] | None = None) -> Iterator[Input]:
    """Open a video. scale: width and height to bring it to. Raises ViddiffError, OSError."""
    changes = Changes(scale=scale)
    if not is_vdf(path):
        threads = min(_THREADS, os.cpu_count() or 1)
        with VideoReader(path, threads=threads, changes=changes, drop_alpha=True) as reader:
            yield Input(
                reader.info, reader.stored_size, iter(reader), lambda: list(reader.notes), lambda: False
            )
        return
    options = reading.options(path)
    device = choose_device(reading.device, reading.engine)
    resources = Resources(reading.weights, device, reading.workers, engine=reading.engine)
    with options.open(path) as file:
        with _naming(path):
            video = decode_video(file, path, resources, options=options)
        info = changes.of(replace(video.info, frame_count=video.frame_count))
        frames = change_frames(_named(video.lasting(), path), video.info, changes, reading.limits.frames)
        size, damage = (video.info.width, video.info.height), video.damage
        yield Input(info, size, iter(frames), lambda: [str(damage)] if damage else [], lambda: bool(damage))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors say which of the files they are about."""
    try:
        yield
    except (BitstreamError, CheckpointError, LimitError) as error:
        raise type(error)(f"{path}: {error}") from error


def _named(frames: Iterator[Frame], path: Path) -> Iterator[Frame]:
    with _naming(path):
        yield from frames


@dataclass(frozen=True)
class Bytes:
    """What a video takes, without sound and everything else in its file."""

    codec: str
    """"viddiff", or libav's name of the codec."""
    keyframe_distance: int | None
    """Longest distance between keyframes that the encoder was asked for, in frames; None if unknown."""
    frames: NDArray[np.float64]
    """Bytes of each frame. Within a chunk of a `.vdf`, all frames count the same; a background counts for
    the first keyframe that needs it."""
    by_chunk: bool
    """Whether only chunks of several frames have a known size."""


def bytes_of_frames(path: Path, times: NDArray[np.int64], reading: Reading) -> Bytes:
    """Bytes of the frames of a video, shown at `times`, in units of its time base. Decodes nothing.

    Raises ViddiffError, OSError.
    """
    if not is_vdf(path):
        packets = video_packets(path)
        return Bytes(packets.codec, None, packets.per_frame(times).astype(np.float64), by_chunk=False)
    options = reading.options(path)
    with options.open(path) as file:
        rows = gop_table(file, options.limits)
        file.seek(0)
        header = Reader(file, options.limits).header
    sizes = []
    for row in rows:
        each = [size / frames for frames, size in row.chunks for _ in range(frames)]
        sizes += [each[0] + row.background_bytes, *each[1:]]
    found = np.array(sizes[: len(times)])
    found = np.pad(found, (0, len(times) - len(found)))  # frames that damage has cost
    return Bytes("viddiff", header.gop, found, by_chunk=True)
