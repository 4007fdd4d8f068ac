"""Whole videos, on as many cores as there are. A GOP depends on nothing outside it: processes share them out.

    encode: every process reads the video and encodes its GOPs; the parent writes the chunks in order
    decode: every process reads the file and decodes its GOPs; the parent passes the frames on in order

The result does not depend on the number of processes. Each of them runs PyTorch and OpenCV on one thread.
What waits to be passed on is bounded: chunks are small, and decoded frames have a budget (`BUFFER_BYTES`).
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import BinaryIO

import cv2
import torch

from viddiff import checkpoint
from viddiff.access import ReadOptions
from viddiff.checkpoint import Codec
from viddiff.codec import EncodeOptions, EncodeSummary, encode
from viddiff.config import Start, start_text
from viddiff.container import Chunk, Header, Writer
from viddiff.digest import frame_digest
from viddiff.encoder import GopEncoder
from viddiff.errors import LimitError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.grouping import after_gops, group_frames
from viddiff.output import Observer, Output
from viddiff.reader import Reader
from viddiff.recovery import Damage, GopEnd, conceal, decode_gop
from viddiff.schedule import Gop, frame_number, schedule
from viddiff.team import Give, Mark, Team
from viddiff.video import VideoReader

BUFFER_BYTES = 384 << 20
"""Decoded frames that may wait for their turn, in all processes together."""
_MIN_BUFFERED = 8
MEMORY_BYTES = 1400 << 20
"""What decoding may take in all processes together, unless the user asks for a number of them."""
_PARENT_BYTES, _WORKER_BYTES, _WORKER_BYTES_PER_PIXEL = 350 << 20, 200 << 20, 850
_ENCODE_LEAST, _DECODE_LEAST = 1_000_000, 5_000_000
"""Luma pixels that keep a process busy for about as long as it takes to start."""
_CHUNKS_WAITING = 4096


@dataclass(frozen=True)
class Machine:
    """What to compute with."""

    weights: Path | None = None
    """None: the released ones; to decode, those of the release that the file was made with."""
    device: str = "cpu"
    workers: int | None = None
    """Processes, at most; 1 means this process alone, None as many as pay."""

    def codec(self) -> Codec:
        """Load the weights, for use in this process."""
        prepare_process()
        return checkpoint.load(self.weights or released_weights(), self.device)

    def processes(self, gops: int, pixels: int, least: int) -> int:
        """How many to use: one for each `least` luma pixels, as far as there are cores and GOPs."""
        if self.device != "cpu":
            return 1  # a GPU is served by one process
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(min(gops, min(cores, pixels // least) if self.workers is None else self.workers), 1)


@dataclass(frozen=True)
class DecodedVideo:
    """Frames that are decoded as they are taken."""

    info: VideoInfo
    frame_count: int | None
    """How many are to come; None if only the end will tell."""
    frames: Iterator[Frame]
    damage: Damage
    """What was lost of the frames that were taken."""


def prepare_process() -> None:
    """One thread each, and no reduced precision, whatever the environment asks for: it would not be exact."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = os.environ["DNNL_DEFAULT_FPMATH_MODE"] = "STRICT"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def released_weights() -> Path:
    """Where the released weights are, or would be."""
    try:
        return Path(str(resources.files("viddiff.checkpoints").joinpath(checkpoint.DEFAULT)))
    except ModuleNotFoundError:  # run from a checkout that is not installed
        return Path(__file__).parent.parent / "checkpoints" / checkpoint.DEFAULT


def released_for(model_hash: bytes) -> Path:
    """The released weights, of today or before, that have this hash; those of today if none do."""
    today = released_weights()
    for path in sorted(today.parent.glob("*.safetensors")):
        if checkpoint.stated_hash(path) == model_hash.hex():
            return path
    return today


# --- encode ------------------------------------------------------------------------------------------


def encode_video(
    reader: VideoReader,
    out: BinaryIO,
    machine: Machine,
    options: EncodeOptions,
    progress: Observer | None = None,
    open_writer: Callable[[BinaryIO, Header], Writer] = Writer,
    done: Iterable[Chunk] = (),
) -> EncodeSummary:
    """Encode the frames of `reader` to `out`.

    done: chunks of the first GOPs, which are not coded again. Ctrl-C completes the file with what is coded.
    If one process is not enough, `reader` is not read: each process opens the source `again` itself.
    Raises VideoError, LimitError and CheckpointError. Returns totals; there may be no frame at all.
    """
    codec, info = machine.codec(), reader.info
    expected = info.frame_count or options.gop * 64
    workers = machine.processes(
        -(-expected // options.gop), expected * info.width * info.height, _ENCODE_LEAST
    )
    if workers == 1 or reader.live:
        summary = encode(reader, info, out, codec, options, progress, open_writer=open_writer, done=done)
    else:
        reader.leave()
        header = Header(info, codec.hash, codec.name, options.gop, options.entropy, options.low_delay)
        output = Output(open_writer(out, header), EncodeSummary(), progress)
        arguments = (reader.again, machine, options, output.repeat(done))
        with output.until_interrupted(), Team(_encode_share, arguments, workers, _CHUNKS_WAITING) as team:
            for piece in team.in_order():
                if isinstance(piece, list):
                    reader.notes += [note for note in piece if note not in reader.notes]
                else:
                    output.take(*piece)
        summary = output.finish()
    return summary


def _encode_share(
    give: Give,
    number: int,
    workers: int,
    open_reader: Callable[[], VideoReader],
    machine: Machine,
    options: EncodeOptions,
    done: int,
) -> None:
    """Of the GOPs after those that are done, encode every one whose number is `number` modulo `workers`, and
    give its chunks, each with the digests of its frames; then give the reader's notes."""
    codec = machine.codec()
    with open_reader() as reader:
        gop, encoder = -1, GopEncoder(codec, reader.info, options, EncodeSummary(), None)
        for group in after_gops(group_frames(reader, options.gop, options.mini_gop), done):
            if group.key:
                if gop >= 0 and gop % workers == number:
                    give(Mark.END_OF_GOP)
                gop += 1
            if gop % workers == number:
                for chunk, decoded in encoder.encode(group):
                    give((chunk, [frame_digest(frame) for frame in decoded]))
        if gop % workers == number:
            give(Mark.END_OF_GOP)
        give(reader.notes)


# --- decode ------------------------------------------------------------------------------------------


def decode_video(
    file: BinaryIO,
    source: Path,
    machine: Machine,
    start: Start = 0,
    count: int | None = None,
    options: ReadOptions | None = None,
) -> DecodedVideo:
    """Decode `count` frames from `start` on, from the GOPs that hold them; `file` is `source` opened.

    Raises ViddiffError here or while frames are taken.
    """
    options = options or ReadOptions()
    all_gops = schedule(file, options.limits, start, count)
    file.seek(0)
    reader = Reader(file, options.limits)
    if machine.weights is None:
        machine = replace(machine, weights=released_for(reader.header.model_hash))
    video, total = reader.header.video, all_gops[-1].first + all_gops[-1].frames if all_gops else 0
    if total > options.limits.frames:
        raise LimitError(f"{total} frames are over the limit of {options.limits.frames}")
    if not total:
        for _ in reader:  # which raises if that is for damage
            pass
    begin = frame_number(file, all_gops, video, start, options.limits)
    if begin and begin >= total:
        raise ViddiffError(f"{source} has no frame {start_text(start)}, for it has {total} frames")
    stop = total if count is None else min(begin + count, total)
    gops = [gop for gop in all_gops if gop.first < stop and gop.first + gop.frames > begin]
    workers = machine.processes(len(gops), (stop - begin) * video.width * video.height, _DECODE_LEAST)
    workers = min(workers, _workers_that_never_wait(video, gops))
    if machine.workers is None:
        workers = min(workers, _workers_within_memory(video))
    if workers == 1:
        parts = _decode_here(file, gops, machine, options)
    else:
        parts = _decode_in_processes(source, video, gops, machine, options, workers)
    damage = Damage(begin, stop)
    first = gops[0].first if gops else begin
    frames = conceal(parts, first, video, damage, options.strict)
    skipped = begin - first
    # A part ends after its frames; the whole ends where the file does, so that damage at its end is noticed.
    end = skipped + stop - begin if stop < total else None
    return DecodedVideo(video, stop - begin, itertools.islice(frames, skipped, end), damage)


def _workers_that_never_wait(video: VideoInfo, gops: list[Gop]) -> int:
    """Processes whose frames fit the buffers, for all but one may have to keep a whole GOP."""
    longest = max((gop.frames for gop in gops), default=1)
    return 1 + BUFFER_BYTES // max(longest * _frame_bytes(video), 1)


def _workers_within_memory(video: VideoInfo) -> int:
    """Processes that together stay below MEMORY_BYTES, by what one was measured to take."""
    each = _WORKER_BYTES + _WORKER_BYTES_PER_PIXEL * video.width * video.height
    return max((MEMORY_BYTES - _PARENT_BYTES) // each, 1)


def _frame_bytes(info: VideoInfo) -> int:
    return info.width * info.height * 3 // 2 * (1 if info.bit_depth == 8 else 2)


def _decode_here(
    file: BinaryIO, gops: list[Gop], machine: Machine, options: ReadOptions
) -> Iterator[Frame | GopEnd]:
    codec = machine.codec()
    for gop in gops:
        yield from decode_gop(file, gop, codec, options)


def _decode_in_processes(
    source: Path, video: VideoInfo, gops: list[Gop], machine: Machine, options: ReadOptions, workers: int
) -> Iterator[Frame | GopEnd]:
    waiting = max(BUFFER_BYTES // workers // _frame_bytes(video), _MIN_BUFFERED)
    with Team(_decode_share, (source, gops, machine, options), workers, waiting) as team:
        yield from team.in_order()


def _decode_share(
    give: Give,
    number: int,
    workers: int,
    source: Path,
    gops: list[Gop],
    machine: Machine,
    options: ReadOptions,
) -> None:
    """Decode every GOP whose number is `number` modulo `workers`."""
    codec = machine.codec()
    with options.open(source) as file:
        for gop in gops[number::workers]:
            for part in decode_gop(file, gop, codec, options):
                give(part)
            give(Mark.END_OF_GOP)
