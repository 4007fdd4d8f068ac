"""Decode a `.vdf` to a media file, with everything beside the video.

file or pipe -> frames, packets -> (another size or rate) -> H.264, FFV1 or raw video
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from typing import BinaryIO, cast

from viddiff.container.excerpt import naming
from viddiff.container.read_options import ReadOptions
from viddiff.container.sealing import SealedReader, key_of, unlock
from viddiff.container.track_file import TrackFile
from viddiff.interleave import Interleaver
from viddiff.media.filters import Changes, change_frames
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.decode_job import DecodeJob, DecodeResult
from viddiff.pipeline.decoded_video import DecodedVideo
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.status import Observer, Status, ignore
from viddiff.pipeline.streaming import Follower, decode_stream

Opened = tuple[DecodedVideo, TrackFile]
_BASE_NOTE = "the frames are those of the AV1 base, without enhancement"


def decode_file(job: DecodeJob, observer: Observer = ignore) -> DecodeResult:
    """Run `job`. If a signal ends a live decode, the result says so.

    Raises ViddiffError, OSError; there is no file then.
    """
    started = time.monotonic()
    job.check_files()
    with job.output.claim() if job.output else nullcontext(), _opened(job) as (video, tracks):
        changes = Changes(job.fps, job.scale)
        info = changes.of(replace(video.info, frame_count=video.frame_count))
        interleaver = Interleaver(tracks.extras, tracks, job.start > 0, job.frames is not None)
        target = job.output.path if job.output else cast(BinaryIO, job.target)
        publish = job.output.publish if job.output else None
        writer = VideoWriter(target, info, job.lossless, interleaver, job.suffix, publish)
        observer(Status("decode", 0, info.frame_count))
        count, ended_by = 0, None
        with writer:
            try:
                # A frame that is shown at once cannot wait for the next one, which tells its duration.
                at_once = job.follow or (job.live and job.output is None)
                shown = video.frames if at_once else video.lasting()
                for frame in change_frames(shown, video.info, changes, job.limits.frames):
                    with uninterrupted():
                        writer.write(frame)
                        count += 1
                    observer(Status("decode", count, info.frame_count, writer.size_bytes))
            except (KeyboardInterrupt, SystemExit) as signal:
                if not count or not job.live:
                    raise
                ended_by = signal
                interleaver.cut_short()
        return DecodeResult(
            target=job.output.path if job.output else None,
            width=info.width,
            height=info.height,
            frames=count,
            size_bytes=job.output.path.stat().st_size if job.output else writer.size_bytes,
            seconds=time.monotonic() - started,
            lost_frames=tuple(video.damage.lost),
            faults=tuple(video.damage.faults),
            damage=str(video.damage) if video.damage else "",
            notes=(*writer.notes, *[_BASE_NOTE] * job.base_only),
            ended_by=ended_by,
        )


@contextmanager
def _opened(job: DecodeJob) -> Iterator[Opened]:
    """Open the video and everything beside it."""
    device = choose_device(job.device, job.engine)
    resources = Resources(job.weights, device, job.workers, job.base_only, job.engine)
    named = nullcontext() if job.named is None else naming(job.named)
    if job.live:
        with named, _stream(job) as file:
            yield decode_stream(file, resources, job.start, job.frames, ReadOptions(job.strict, job.limits))
        return
    assert job.named is not None
    with named, ExitStack() as stack:
        options = ReadOptions(job.strict, job.limits, key_of(job.named, job.secret))
        file, again = (stack.enter_context(options.open(job.named)) for _ in range(2))
        video = decode_video(file, job.named, resources, job.start, job.frames, options)
        on_fault = None if job.strict else lambda fault: None
        yield video, TrackFile(again, on_fault, options.limits, job.start)


@contextmanager
def _stream(job: DecodeJob) -> Iterator[BinaryIO]:
    """A `.vdf` as a stream, decrypted if there is a secret. Raises SecretError."""
    if job.named is not None:
        with closing(cast(BinaryIO, Follower(job.named))) as file:
            yield file
    elif job.secret is None:
        with _raw(job) as file:
            yield file
    else:
        with _raw(job) as file:
            key = unlock(file, job.secret)
            yield cast(BinaryIO, SealedReader(file, key, lenient=not job.strict))


def _raw(job: DecodeJob) -> AbstractContextManager[BinaryIO]:
    if isinstance(job.source, str | os.PathLike):
        return open(job.source, "rb")
    return nullcontext(job.source)
