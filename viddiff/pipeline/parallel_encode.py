"""Encode in several processes.

Every process reads the video and codes its share of the jobs. The parent writes the chunks in order. The file
does not depend on the number of processes. Each process runs PyTorch and OpenCV on one thread.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from viddiff.container.format import Chunk, Header
from viddiff.encoder.coded_group import GroupEncoder
from viddiff.encoder.open_encoder import open_encoder
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import ViddiffError
from viddiff.frame import VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.division import Division, Share
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.jobs import coded_jobs
from viddiff.pipeline.memory import encoders_within_memory
from viddiff.pipeline.one_pass import GopsAtRate
from viddiff.pipeline.output import CodedChunk, Output
from viddiff.pipeline.resources import Resources, Work
from viddiff.pipeline.serial import Coding, encode, groups_after
from viddiff.pipeline.summary import EncodeSummary
from viddiff.pipeline.within_buffer import GopsWithinBuffer
from viddiff.pipeline.worker_pool import Give, Mark, WorkerPool

_LEAST_PIXELS = 500_000
"""Luma samples that keep a process busy for about the time of its start."""
_CHUNKS_WAITING = 4096
_BASE_MODULES = "viddiff.encoder.base_gop_encoder", "viddiff.codec.engine.enhancement"
"""What processes load for files with an AV1 base. For others, see `worker_pool.prepare_processes`."""
_UNKNOWN_GOPS = 64
"""Assumed number of GOPs of a video of unknown length."""


def encode_video(
    reader: VideoReader,
    resources: Resources,
    options: EncodeOptions,
    open_output: Callable[[Header], Output],
    done: Iterable[Chunk] = (),
    bitrate: int | None = None,
) -> EncodeSummary:
    """Encode the frames of `reader`. Returns the totals; there may be no frame at all.

    open_output: called once. done: chunks of the first GOPs, which are not coded again. Ctrl-C completes the
    file with the frames coded so far. If one process is not enough, `reader` is not read: each process opens
    the source itself. bitrate: of the file, in bits/s, to reach in one pass. With it, or if the output has
    a buffer, this process codes one GOP after the other.

    Raises VideoError, LimitError and CheckpointError.
    """
    with uninterrupted():  # see `Resources.load`
        weights = resources.load(resources.cores)
        opened = partial(open_encoder, weights, reader.info, threads=resources.cores)
        encoder = opened(options)
    output = open_output(encoder.header)
    coding = _gop_by_gop(encoder, lambda q: opened(replace(options, quantiser=q)), output, bitrate)
    if coding is not None:
        return encode(reader, encoder, output, done, coding=coding)
    division = _division(reader.info, resources, encoder)
    if division.workers == 1 or reader.live:
        together = 1 if reader.live else _gops_together(reader.info, resources, encoder)
        return encode(reader, encoder, output, done, together=together)
    reader.leave()
    resources.prepare(encoder.header.base)
    work = _EncodeWork(reader.open_again, resources, options, division, output.repeat(done))
    modules = _BASE_MODULES if encoder.header.base else ()
    with output.until_interrupted(), WorkerPool(work, division.workers, _CHUNKS_WAITING, modules) as pool:
        for piece in pool.in_order():
            if isinstance(piece, CodedChunk):
                output.take(piece)
            else:
                reader.notes += [note for note in piece if note not in reader.notes]
    return output.finish()


def _gop_by_gop(
    encoder: GroupEncoder, opened: Callable[[int], GroupEncoder], output: Output, bitrate: int | None
) -> Coding | None:
    """How GOPs are coded if each has a quantiser of its own. opened: an encoder for a quantiser."""
    if output.buffer is None and bitrate is None:
        return None
    if not encoder.header.base:
        option = "--maxrate" if bitrate is None else "--bitrate"
        raise ViddiffError(f"{option} needs an AV1 base, which these weights do not have")
    if bitrate is None:
        return GopsWithinBuffer(opened, output)
    return GopsAtRate(opened, output, bitrate, encoder.header.video)


def _division(info: VideoInfo, resources: Resources, encoder: GroupEncoder) -> Division:
    options = encoder.options
    frames = info.frame_count or options.gop * _UNKNOWN_GOPS
    gops, pixels = max(-(-frames // options.gop), 1), frames * info.width * info.height
    work = Work(encoder.header.base, gops, pixels, _LEAST_PIXELS)
    division = resources.divide(work, encoder.parts_share_gops and frames > options.mini_gop + 1)
    if resources.workers is None:
        most = encoders_within_memory(info, encoder.header.base)
        return replace(division, workers=min(division.workers, most))
    return division


def _gops_together(info: VideoInfo, resources: Resources, encoder: GroupEncoder) -> int:
    """How many GOPs threads of this process may encode side by side: one more than cores, while one ends."""
    if not (encoder.header.base and resources.compiled) or resources.cores == 1:
        return 1
    return min(resources.cores + 1, encoders_within_memory(info, base=True))


@dataclass(frozen=True)
class _EncodeWork:
    """Work of each process: code the chunks of its jobs, then return the reader's notes."""

    open_reader: Callable[[], VideoReader]
    resources: Resources
    options: EncodeOptions
    division: Division
    done: int
    """Number of GOPs that are already coded."""

    def __call__(self, give: Give, number: int) -> None:
        weights = self.resources.load()
        with self.open_reader() as reader:
            encoder = open_encoder(weights, reader.info, self.options)
            groups = groups_after(reader, encoder, self.done)
            for job in coded_jobs(encoder, groups, Share(self.division, number)):
                for group in job:
                    give(CodedChunk.of(group))
                give(Mark.END_OF_JOB)
            give(reader.notes)
