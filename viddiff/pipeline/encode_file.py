"""Encode a media source to a `.vdf`, with everything beside the video.

    source -> frames, packets -> encoder -> chunks -> (encryption) -> a file that appears when it is complete

With `adapt`, a network is tuned to the video first, unless an earlier run has done that.

A live source cannot be read again. Whatever ends the recording, the file is completed with the frames coded
so far.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self, cast

from viddiff.config import start_text
from viddiff.container.format import Chunk, Header
from viddiff.container.interleaving_writer import InterleavingWriter
from viddiff.container.part_file import PartFile
from viddiff.container.sealing import SealedWriter, key_of, sealed
from viddiff.digest import video_digest
from viddiff.encoder.options import quality_of
from viddiff.errors import SourceChangeError, TargetError, VerificationError, ViddiffError
from viddiff.interleave import Interleaver
from viddiff.media.track_reader import TrackReader
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.adaptation import Adaptation
from viddiff.pipeline.decoder_buffer import DecoderBuffer
from viddiff.pipeline.encode_inputs import opened_source, opened_tracks, opened_video, resources_for
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.interruption import uninterrupted
from viddiff.pipeline.output import Output
from viddiff.pipeline.output_file import OutputFile, complete_file, recording_file
from viddiff.pipeline.parallel_encode import encode_video
from viddiff.pipeline.quality_goal import Judge
from viddiff.pipeline.rate_model import CodedSpan, RateReport
from viddiff.pipeline.size_target import encode_to_size
from viddiff.pipeline.status import Observer, Status, ignore
from viddiff.pipeline.summary import EncodeSummary
from viddiff.pipeline.verify import verify

Opened = tuple[BinaryIO, Header | None, Iterable[Chunk]]
"""A file to write, and the header and the chunks of an earlier run in it."""
Adapt = Callable[[EncodeJob, Observer], Adaptation]
"""Tunes a network to a job's video: `training.adaptation.adapt`, which this package does not know. Raises
ViddiffError, OSError."""


@dataclass(frozen=True)
class CodedFile:
    """A file that is complete, verified if that was asked for, and on the disk. It has no name yet."""

    size_bytes: int
    sha256: str
    model_hash: bytes
    """Of the weights that it needs."""
    frames: int
    notes: tuple[str, ...]
    """Notes for the user."""
    seconds: float
    """How long the video is."""
    pictures: str | None
    """`video_digest` of the reconstruction. None if an earlier run or a search for a target coded a part."""

    @classmethod
    def of(cls, written: Path, result: EncodeResult) -> Self:
        """Flush a file to the disk, and look at it. Raises OSError."""
        with open(written, "r+b") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(
            size_bytes=result.size_bytes,
            sha256=digest,
            model_hash=result.model_hash,
            frames=result.frames,
            notes=result.notes,
            seconds=result.duration,
            pictures=None,
        )


Announce = Callable[[CodedFile], None]
"""Gets a file before it has its name. What it raises keeps the file from getting one."""


def encode_file(
    job: EncodeJob,
    observer: Observer = ignore,
    announce: Announce | None = None,
    adapt: Adapt | None = None,
) -> EncodeResult:
    """Run `job`. If Ctrl-C, or anything for a live source, ends it early, the result says so.

    announce: only for jobs from one file to another, without encryption. adapt: needed if the job asks for a
    network of the file's own.

    Raises ViddiffError, OSError; there is no file then.
    """
    job.check_files()
    with job.output.claim() if job.output else nullcontext():
        if job.size_is_wanted and not job.one_pass:

            def tell(result: EncodeResult, written: Path) -> None:
                if announce is not None:
                    announce(CodedFile.of(written, result))

            return encode_to_size(job, lambda single, watch: _Encode(single, watch).run(), observer, tell)
        if job.quality_goal is not None or job.max_encoded_percent is not None:
            from viddiff.pipeline.quality_target import encode_to_quality  # loads what measures

            def run(single: EncodeJob, watch: Observer, judge: Judge | None = None) -> EncodeResult:
                return _Encode(single, watch, announce, judge).run()

            return encode_to_quality(job, run, observer)
        return _Encode(job, observer, announce, adapt=adapt).run()


class _Encode:
    """A running encode."""

    def __init__(
        self,
        job: EncodeJob,
        observer: Observer,
        announce: Announce | None = None,
        judge: Judge | None = None,
        adapt: Adapt | None = None,
    ) -> None:
        self._job, self._observer, self._announce, self._judge = job, observer, announce, judge
        self._adapt = adapt
        self._adaptation: Adaptation | None = None
        self._resources = resources_for(job)
        self._summary = EncodeSummary()
        self._buffer: DecoderBuffer | None = None
        self._model_hash, self._notes, self._seconds = b"", tuple[str, ...](), 0.0

    def run(self) -> EncodeResult:
        job = self._job
        with (
            opened_source(job) as demuxer,
            opened_video(job, demuxer) as reader,
            opened_tracks(job, demuxer) as tracks,
        ):
            started = time.monotonic()
            with self._opened(reader.live) as (file, begun, done), sealed(file, job.secret) as out:
                if job.adapt is not None:
                    self._adaptation = self._adapted(begun)
                summary = self._code(reader, tracks, out, done)
                self._notes = (*reader.notes, *tracks.notes)
                self._seconds = summary.seconds(reader.info)
            size = out.size_bytes if isinstance(out, SealedWriter) else summary.size_bytes
            rate = self._rate(summary, size)
            return EncodeResult(
                target=job.output.path if job.output else None,
                width=reader.info.width,
                height=reader.info.height,
                frames=summary.frames,
                keyframes=summary.keyframes,
                size_bytes=size,
                duration=self._seconds,
                quality=self._quality(summary),
                key_bytes=summary.key_bytes,
                ledger=summary.ledger(),
                seconds=time.monotonic() - started,
                verified=job.verify,
                model_hash=self._model_hash,
                buffer=None if self._buffer is None else self._buffer.report(),
                rate=rate,
                adaptation=self._adaptation,
                notes=(*self._notes, *_notes_of(rate, self._adaptation)),
                ended_by=summary.ended_by,
            )

    def _adapted(self, begun: Header | None) -> Adaptation:
        """The network of the file: a new one, or that of an earlier run, which is not made again."""
        if begun is not None:
            network = begun.network or b""
            return Adaptation(network, len(network))
        if self._adapt is None:
            raise ValueError("nothing was given that tunes a network")
        return self._adapt(self._job, self._observer)

    def _rate(self, summary: EncodeSummary, size_bytes: int) -> RateReport | None:
        """How the bit rate was kept, if there was one pass for it."""
        if self._job.bitrate is None or not self._job.one_pass:
            return None
        reached = CodedSpan(self._seconds, 8.0 * size_bytes, 0).rate
        return RateReport(self._job.bitrate, round(reached), summary.beyond_gops)

    def _quality(self, summary: EncodeSummary) -> float:
        """The quality of the file; of its frames on average, if GOPs have different ones."""
        quantiser = self._job.quantiser if summary.mean_quantiser is None else summary.mean_quantiser
        return self._job.quality if quantiser is None else quality_of(quantiser)

    def _code(
        self, reader: VideoReader, tracks: TrackReader, out: BinaryIO, done: Iterable[Chunk]
    ) -> EncodeSummary:
        job, info = self._job, reader.info
        interleaver = Interleaver(tracks.extras, tracks, job.start > 0, job.frames is not None)
        count = None if job.frames is None else info.frame_count or job.frames

        def open_output(header: Header) -> Output:
            writer = InterleavingWriter(out, header, interleaver, count)
            report = self._report(info.frame_count)
            if job.buffer_limit is not None:
                quantiser = job.options.base_quantiser
                self._buffer = DecoderBuffer(job.buffer_limit, header.video, quantiser)
            output = Output(writer, report, reader.live, job.shorten, self._buffer)
            self._summary, self._model_hash = output.summary, header.model_hash
            latency = job.options.latency(header.base) if self._buffer is None else job.gop
            self._observer(Status("encode", 0, info.frame_count, latency=latency))
            return output

        rate = job.bitrate if job.one_pass else None
        network = b"" if self._adaptation is None else self._adaptation.network
        resources = replace(self._resources, network=network)
        summary = encode_video(reader, resources, job.options, open_output, done, rate)
        if not summary.frames:
            raise ViddiffError(f"{job.source_name} has no frame {start_text(job.start)}")
        return summary

    def _report(self, total: int | None) -> Callable[[EncodeSummary], None]:
        return lambda s: self._observer(Status("encode", s.frames, total, s.size_bytes))

    @contextmanager
    def _opened(self, live: bool) -> Iterator[Opened]:
        job, output = self._job, self._job.output
        if output is None:
            yield cast(BinaryIO, job.target), None, ()
        elif live:
            with recording_file(output, self._check, lambda: self._summary.frames > 0) as file:
                yield file, None, ()
        elif job.secret is not None or job.named is None or job.quantiser is not None:
            with complete_file(output, self._check) as file:
                yield file, None, ()
        else:
            part = PartFile(output.path, job.fingerprint(), job.resume)
            with self._resumable(part, output):
                yield cast(BinaryIO, part), part.header, part.done()

    @contextmanager
    def _resumable(self, part: PartFile, output: OutputFile) -> Iterator[None]:
        """Rename `part` to `output`, unless the block or the check raises.

        In that case its whole GOPs stay for another run, unless that run would fail in the same place.
        """
        try:
            yield
            self._check(part.path)
            part.finish()
            with uninterrupted():
                self._tell(part)
                output.publish(part.path)
        except (SourceChangeError, VerificationError, TargetError):
            part.discard()
            raise
        except BaseException as error:
            if part.leave():
                command = "with --resume, not --verify," if self._job.verify else "command with --resume"
                error.add_note(f"what is coded is kept; the same {command} continues it")
            raise
        part.remove_others()

    def _tell(self, part: PartFile) -> None:
        if self._announce is not None:
            summary = self._summary
            whole = len(summary.gops) == summary.keyframes
            coded = CodedFile(
                size_bytes=part.path.stat().st_size,
                sha256=part.sha256,
                model_hash=self._model_hash,
                frames=summary.frames,
                notes=self._notes,
                seconds=self._seconds,
                pictures=video_digest(summary.gops) if whole else None,
            )
            self._announce(coded)

    def _check(self, written: Path) -> None:
        """Have the new file judged, and decode it and compare it with the reconstruction, if asked for."""
        if self._judge is not None and self._summary.ended_by is None:
            self._judge(written)
        if not self._job.verify:
            return
        key, total = key_of(written, self._job.secret), self._summary.frames
        self._observer(Status("verify", 0, total))
        verify(
            written,
            self._summary.gops,
            self._resources,
            key,
            lambda frames: self._observer(Status("verify", frames, total)),
        )


def _notes_of(*reports: RateReport | Adaptation | None) -> list[str]:
    """What reports have to say to the user."""
    return [report.note for report in reports if report is not None and report.note]
