"""Whole videos, on as many cores as there are. A GOP depends on nothing outside it: processes share them out.

    encode: every process reads the video and encodes its GOPs; the parent writes the chunks in order
    decode: every process reads the file and decodes its GOPs; the parent passes the frames on in order

Where there are fewer GOPs than processes, these share out the mini-GOPs instead. All of them code all
keyframes and anchors then, which depend on each other, and each of them the frames between for its mini-GOPs
alone.

The result does not depend on the number of processes. Each of them runs PyTorch and OpenCV on one thread.
What waits to be passed on is bounded: chunks are small, and decoded frames have a budget (`BUFFER_BYTES`).
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from viddiff.config import Start, start_text
from viddiff.container.format import Chunk, Header, PredictedChunk, Writer
from viddiff.container.gop_table import Gop, frame_number, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.digest import frame_digest
from viddiff.encoder.gop_encoder import EncodeSummary, GopEncoder
from viddiff.encoder.grouping import after_gops, group_frames, number_jobs
from viddiff.encoder.options import MINI_GOP, EncodeOptions
from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.machine import Machine, released_for
from viddiff.pipeline.output import Observer, Output
from viddiff.pipeline.recovery import Damage, GopEnd, conceal, decode_gop, gop_jobs
from viddiff.pipeline.serial import encode
from viddiff.pipeline.worker_pool import Give, Mark, Team

BUFFER_BYTES = 384 << 20
"""Decoded frames that may wait for their turn, in all processes together."""
_MIN_BUFFERED = 8
ENCODE_BYTES, DECODE_BYTES = 3000 << 20, 1400 << 20
"""What either may take in all processes together, unless the user asks for a number of them."""
_PARENT_BYTES, _WORKER_BYTES = 350 << 20, 200 << 20
_ENCODE_BYTES_PER_PIXEL, _DECODE_BYTES_PER_PIXEL = 500, 850
_ENCODE_LEAST, _DECODE_LEAST = 500_000, 2_000_000
"""Luma pixels that keep a process busy for about as long as it takes to start."""
_CHUNKS_WAITING = 4096


@dataclass(frozen=True)
class DecodedVideo:
    """Frames that are decoded as they are taken."""

    info: VideoInfo
    frame_count: int | None
    """How many are to come; None if only the end will tell."""
    frames: Iterator[Frame]
    damage: Damage
    """What was lost of the frames that were taken."""


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
    workers, within = machine.shares(
        max(-(-expected // options.gop), 1),
        expected * info.width * info.height,
        _ENCODE_LEAST,
        not options.low_delay and expected > options.mini_gop + 1,
    )
    if machine.workers is None:
        workers = min(workers, encoders_within_memory(info))
    if workers == 1 or reader.live:
        summary = encode(reader, info, out, codec, options, progress, open_writer=open_writer, done=done)
    else:
        reader.leave()
        header = Header(info, codec.hash, codec.name, options.gop, options.entropy, options.low_delay)
        output = Output(open_writer(out, header), EncodeSummary(), progress)
        arguments = (reader.again, machine, options, output.repeat(done), within)
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
    within: bool,
) -> None:
    """Of the jobs after the GOPs that are done, do every one whose number is `number` modulo `workers`, and
    give its chunks, each with the digests of its frames; then give the reader's notes."""
    codec = machine.codec()
    with open_reader() as reader:
        encoder = GopEncoder(codec, reader.info, options, EncodeSummary(), None)
        groups = after_gops(group_frames(reader, options.gop, options.mini_gop), done)
        for job, last, group in number_jobs(groups, within):
            if job % workers == number:
                for chunk, decoded in encoder.encode(group):
                    give((chunk, [frame_digest(frame) for frame in decoded]))
                if last:
                    give(Mark.END_OF_JOB)
            elif within:
                encoder.follow(group)
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
    workers, within = machine.shares(
        max(len(gops), 1),
        (stop - begin) * video.width * video.height,
        _DECODE_LEAST,
        not reader.header.low_delay and stop - begin > MINI_GOP + 1,
    )
    if not within:
        workers = min(workers, _workers_that_never_wait(video, gops))
    if machine.workers is None:
        workers = min(workers, _workers_within(DECODE_BYTES, _DECODE_BYTES_PER_PIXEL, video))
    if workers == 1:
        parts = _decode_here(file, gops, machine, options)
    elif within:
        parts = _decode_together(file, source, video, gops, machine, options, workers)
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


def encoders_within_memory(video: VideoInfo) -> int:
    """How many processes at most encode such a video unless the user asks for more."""
    return _workers_within(ENCODE_BYTES, _ENCODE_BYTES_PER_PIXEL, video)


def _workers_within(memory: int, bytes_per_pixel: int, video: VideoInfo) -> int:
    """Processes that together stay below `memory` bytes, by what one was measured to take; at least one."""
    each = _WORKER_BYTES + bytes_per_pixel * video.width * video.height
    return max((memory - _PARENT_BYTES) // each, 1)


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
    with Team(_decode_share, (source, gops, machine, options), workers, _waiting(video, workers)) as team:
        yield from team.in_order()


def _waiting(video: VideoInfo, workers: int) -> int:
    return max(BUFFER_BYTES // workers // _frame_bytes(video), _MIN_BUFFERED)


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
            give(Mark.END_OF_JOB)


def _decode_together(
    file: BinaryIO,
    source: Path,
    video: VideoInfo,
    gops: list[Gop],
    machine: Machine,
    options: ReadOptions,
    workers: int,
) -> Iterator[Frame | GopEnd]:
    arguments = (source, gops, machine, options)
    with Team(_decode_share_within, arguments, workers, _waiting(video, workers)) as team:
        for gop in gops:
            before_fault = yield from _shared_gop(team, gop, workers)
            if before_fault is not None:  # one process alone can tell what is damaged
                yield from itertools.islice(
                    decode_gop(file, gop, machine.codec(), options), before_fault, None
                )


def _shared_gop(team: Team, gop: Gop, workers: int) -> Generator[Frame | GopEnd, None, int | None]:
    """The frames of `gop` and its end; where something is wrong with it no end, and their number is
    returned."""
    shown, faulty = 0, False
    for number in itertools.cycle(range(workers)):
        while isinstance(thing := team.take(number), Frame):
            yield thing
            shown += 1
        if thing is not Mark.END_OF_JOB:
            break
    ended = {number} if thing is Mark.END_OF_GOP else set()
    for number in set(range(workers)) - ended:
        while (other := team.take(number)) is not Mark.END_OF_GOP:
            faulty |= other is Mark.FAULT
    if thing is not Mark.END_OF_GOP or faulty or shown != gop.frames:
        return shown
    yield GopEnd(gop)
    return None


def _decode_share_within(
    give: Give,
    number: int,
    workers: int,
    source: Path,
    gops: list[Gop],
    machine: Machine,
    options: ReadOptions,
) -> None:
    """Of the mini-GOPs of each GOP, decode every one whose number is `number` modulo `workers`."""
    codec = machine.codec()
    with options.open(source) as file:
        for gop in gops:
            try:
                for job, chunk, decoder in gop_jobs(file, gop, codec, options):
                    if job % workers != number:
                        decoder.follow(chunk)
                        continue
                    for frame in decoder.decode(chunk):
                        give(frame)
                    if isinstance(chunk, PredictedChunk):
                        give(Mark.END_OF_JOB)
            except (BitstreamError, LimitError):
                give(Mark.FAULT)
            give(Mark.END_OF_GOP)
