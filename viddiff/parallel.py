"""Whole videos, on as many cores as there are: GOPs depend on nothing outside them, so each process takes every Nth one.

    encode: every process reads the video and encodes its GOPs; the parent writes the chunks in order
    decode: every process reads the file and decodes its GOPs; the parent passes the frames on in order

The result does not depend on the number of processes. Each of them runs PyTorch and OpenCV on one thread. What waits to be
passed on is bounded: chunks are small, and decoded frames have a budget (`BUFFER_BYTES`).
"""

import io
import itertools
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import torch

from viddiff import checkpoint
from viddiff.checkpoint import Codec
from viddiff.codec import EncodeOptions, EncodeSummary, Observer, _groups, decode_chunks, encode
from viddiff.container import Chunk, Header, IndexEntry, KeyChunk, Reader, Writer
from viddiff.errors import ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.video import VideoReader

BUFFER_BYTES = 384 << 20
"""Decoded frames that may wait for their turn, in all processes together."""
_MIN_BUFFERED = 8


@dataclass(frozen=True)
class Machine:
    """What to compute with."""

    weights: Path | None = None
    """None: the released ones."""
    device: str = "cpu"
    workers: int = 1
    """Processes, at most; 1 means this process alone."""

    def codec(self) -> Codec:
        """Load the weights, for use in this process."""
        prepare_process()
        return checkpoint.load(self.weights or released_weights(), self.device)


@dataclass(frozen=True)
class DecodedVideo:
    """Frames that are decoded as they are taken."""

    info: VideoInfo
    frame_count: int
    """How many are to come."""
    frames: Iterator[Frame]


def prepare_process() -> None:
    """One thread each, and no reduced precision on GPUs, which would not be exact."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def released_weights() -> Path:
    """Where the released weights are, or would be."""
    try:
        return Path(str(resources.files("viddiff.checkpoints").joinpath(checkpoint.DEFAULT)))
    except ModuleNotFoundError:  # run from a checkout that is not installed
        return Path(__file__).parent.parent / "checkpoints" / checkpoint.DEFAULT


# --- encode ----------------------------------------------------------------------------------------------------------


def encode_video(
    source: Path,
    reader: VideoReader,
    start: int,
    count: int | None,
    out: BinaryIO,
    machine: Machine,
    options: EncodeOptions,
    progress: Observer | None = None,
) -> EncodeSummary:
    """Encode the frames of `reader`, which was opened as VideoReader(source, start, count), to `out`.

    `reader` is read to its end in this process only if that does all the work; processes open `source` themselves.
    Raises VideoError, LimitError and CheckpointError, and ViddiffError if there is no frame.
    """
    codec = machine.codec()
    frames = reader.info.frame_count
    workers = machine.workers if frames is None else min(machine.workers, -(-frames // options.gop))
    if workers == 1:
        summary = encode(reader, reader.info, out, codec, options, progress)
    else:
        summary = _encode_in_processes(source, reader, start, count, out, machine, options, progress, codec, workers)
    if not summary.frames:
        raise ViddiffError(f"{source} has no frame {start}")
    return summary


def _gops(frames: Iterable[Frame], options: EncodeOptions) -> Iterator[Iterator[Frame]]:
    """The frames of each GOP, as `codec.encode` cuts them; take all of one before the next."""
    number = itertools.accumulate
    del number
    groups = _groups(frames, options)
    yield from _split(groups)
