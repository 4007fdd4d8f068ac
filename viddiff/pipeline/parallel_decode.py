"""Decode in several processes.

Every process reads the file and decodes its share of the GOPs. The parent returns the frames in order. If
there are fewer GOPs than processes, these share the mini-GOPs of each GOP (see `division`). The frames do not
depend on the number of processes. Frames that wait for their turn have a limit (`BUFFER_BYTES`).
"""

import itertools
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from viddiff.codec.open_decoder import Weights
from viddiff.config import Start, start_text
from viddiff.container.format import Header, PredictedChunk
from viddiff.container.gop_table import Gop, frame_number, frame_time, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.encoder.options import MINI_GOP
from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.concealment import conceal
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.decoded_video import DecodedVideo
from viddiff.pipeline.division import Division, Share, Unit
from viddiff.pipeline.gop_decoding import GopEnd, decode_gop, mini_gops
from viddiff.pipeline.memory import decoders_within_memory, frame_bytes
from viddiff.pipeline.resources import Resources, Work
from viddiff.pipeline.worker_pool import Give, Mark, WorkerPool

BUFFER_BYTES = 384 << 20
"""Decoded frames that may wait for their turn, in all processes together."""
_MIN_BUFFERED = 8
_BASE_MODULES = "viddiff.codec.base_gop_decoder", "viddiff.codec.engine.enhancement"
_OTHER_MODULES = "viddiff.codec.gop_decoder", "viddiff.codec.checkpoint"
"""What processes load for files with an AV1 base, and for others."""
_LEAST_PIXELS = 2_000_000
"""Luma samples that keep a process busy for about the time of its start."""


def decode_video(
    file: BinaryIO,
    source: Path,
    resources: Resources,
    start: Start = 0,
    count: int | None = None,
    options: ReadOptions | None = None,
) -> DecodedVideo:
    """Decode `count` frames from `start`, reading only the GOPs that hold them. `file` is `source`, opened.

    Raises ViddiffError here, or while frames are taken.
    """
    options = options or ReadOptions()
    all_gops = schedule(file, options.limits, start, count)
    header = _header(file, options, all_gops)
    resources = resources.to_decode(header, source)
    video, total = header.video, all_gops[-1].first + all_gops[-1].frames if all_gops else 0
    begin = frame_number(file, all_gops, video, start, options.limits)
    if begin and begin >= total:
        raise ViddiffError(f"{source} has no frame {start_text(start)}, for it has {total} frames")
    stop = total if count is None else min(begin + count, total)
    gops = [gop for gop in all_gops if gop.first < stop and gop.first + gop.frames > begin]
    may_share_gops = not header.low_delay and stop - begin > MINI_GOP + 1
    pixels = (stop - begin) * video.width * video.height
    work = Work(header.base, max(len(gops), 1), pixels, _LEAST_PIXELS)
    division = _within_memory(resources.divide(work, may_share_gops), resources, video, gops)
    parts = _parts(file, _DecodeWork(source, gops, resources, options, division, header.base), video)
    damage = Damage(begin, stop)
    first = gops[0].first if gops else begin
    frames = conceal(parts, first, video, damage, options.strict)
    skipped = begin - first
    # A part ends after its frames; the whole ends where the file does, so that damage at its end is noticed.
    end = skipped + stop - begin if stop < total else None
    last_duration = partial(_last_duration, file, all_gops, stop, options)
    return DecodedVideo(video, stop - begin, itertools.islice(frames, skipped, end), damage, last_duration)


def _last_duration(file: BinaryIO, gops: list[Gop], stop: int, options: ReadOptions) -> int:
    """Duration of frame `stop` - 1, by INDEX or by the time of the next frame. 0 if unknown."""
    if stop < gops[-1].first + gops[-1].frames:
        last, following = (frame_time(file, gops, number, options.limits) for number in (stop - 1, stop))
        return 0 if last is None or following is None else following - last
    file.seek(0)
    reader = Reader(file, options.limits)
    with suppress(BitstreamError, LimitError):
        reader.stored_index()
    return reader.last_duration


def _header(file: BinaryIO, options: ReadOptions, gops: list[Gop]) -> Header:
    """The file's header.

    Raises LimitError for too many frames, and the first fault of a file in which no frame was found.
    """
    file.seek(0)
    reader = Reader(file, options.limits)
    total = gops[-1].first + gops[-1].frames if gops else 0
    if total > options.limits.frames:
        raise LimitError(f"{total} frames are over the limit of {options.limits.frames}")
    if not total:
        for _ in reader:  # which raises if that is for damage
            pass
    return reader.header


def _within_memory(division: Division, resources: Resources, video: VideoInfo, gops: list[Gop]) -> Division:
    """The same division, with no more processes than fit into memory."""
    workers = division.workers
    if division.unit is Unit.GOP:
        # The buffers have room for the frames of all but one, which may have to keep a whole GOP.
        longest = max((gop.frames for gop in gops), default=1)
        workers = min(workers, 1 + BUFFER_BYTES // max(longest * frame_bytes(video), 1))
    if resources.workers is None:
        workers = min(workers, decoders_within_memory(video))
    return replace(division, workers=workers)


@dataclass(frozen=True)
class _DecodeWork:
    """Work of each process: decode the frames of its jobs."""

    source: Path
    gops: list[Gop]
    resources: Resources
    options: ReadOptions
    division: Division
    base: bool

    def __call__(self, give: Give, number: int) -> None:
        weights, share = self.resources.load_to_decode(), Share(self.division, number)
        with self.options.open(self.source) as file:
            for job, gop in enumerate(self.gops):
                if self.division.unit is Unit.MINI_GOP:
                    self._decode_mini_gops(file, gop, weights, share, give)
                elif share.has(job):
                    for part in decode_gop(file, gop, weights, self.options):
                        give(part)
                    give(Mark.END_OF_JOB)

    def _decode_mini_gops(
        self, file: BinaryIO, gop: Gop, weights: Weights | None, share: Share, give: Give
    ) -> None:
        """Decode the mini-GOPs of a GOP that belong to `share`, and what they need of the others."""
        try:
            for job, chunk, decoder in mini_gops(file, gop, weights, self.options):
                if not share.has(job):
                    decoder.follow(chunk)
                    continue
                for frame in decoder.decode(chunk):
                    give(frame)
                if isinstance(chunk, PredictedChunk):
                    give(Mark.END_OF_JOB)
        except (BitstreamError, LimitError):
            give(Mark.FAULT)
        give(Mark.END_OF_GOP)


def _parts(file: BinaryIO, work: _DecodeWork, video: VideoInfo) -> Iterator[Frame | GopEnd]:
    """Frames of all GOPs, each GOP with its end."""
    workers = work.division.workers
    if workers == 1:
        weights = work.resources.load_to_decode(work.resources.cores)
        for gop in work.gops:
            yield from decode_gop(file, gop, weights, work.options)
        return
    waiting = max(BUFFER_BYTES // workers // frame_bytes(video), _MIN_BUFFERED)
    work.resources.prepare(work.base)
    with WorkerPool(work, workers, waiting, _BASE_MODULES if work.base else _OTHER_MODULES) as pool:
        if work.division.unit is Unit.GOP:
            yield from pool.in_order()
            return
        for gop in work.gops:
            before_fault = yield from _shared_gop(pool, gop, workers)
            if before_fault is not None:  # one process alone can tell what is damaged
                parts = decode_gop(file, gop, work.resources.load_to_decode(), work.options)
                yield from itertools.islice(parts, before_fault, None)


def _shared_gop(pool: WorkerPool, gop: Gop, workers: int) -> Generator[Frame | GopEnd, None, int | None]:
    """The frames of `gop` and its end. After a fault, their number is returned instead."""
    shown, faulty = 0, False
    for number in itertools.cycle(range(workers)):
        while isinstance(thing := pool.take(number), Frame):
            yield thing
            shown += 1
        if thing is not Mark.END_OF_JOB:
            break
    ended = {number} if thing is Mark.END_OF_GOP else set()
    for number in set(range(workers)) - ended:
        while (other := pool.take(number)) is not Mark.END_OF_GOP:
            faulty |= other is Mark.FAULT
    if thing is not Mark.END_OF_GOP or faulty or shown != gop.frames:
        return shown
    yield GopEnd(gop)
    return None
