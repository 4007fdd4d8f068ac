"""What an encode works with: the source, opened, and weights, device and processes."""

import os

from viddiff.media.demuxer import Demuxer
from viddiff.media.track_reader import TrackReader
from viddiff.media.video_reader import VideoReader
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.weights_search import weights_to_encode


def opened_source(job: EncodeJob) -> Demuxer:
    """The source of a job. Raises VideoError."""
    return Demuxer(job.source, job.input_format, dict(job.input_options))


def opened_video(job: EncodeJob, demuxer: Demuxer) -> VideoReader:
    """The frames that a job encodes. Raises VideoError, LimitError."""
    return VideoReader(
        demuxer,
        job.start,
        job.frames,
        changes=job.changes,
        drop_alpha=job.drop_alpha,
        video=job.selection.video,
    )


def opened_tracks(job: EncodeJob, demuxer: Demuxer) -> TrackReader:
    """Everything beside the video that a job keeps. Raises VideoError."""
    return TrackReader(demuxer, job.audio, job.selection)


def resources_for(job: EncodeJob) -> Resources:
    """Weights, device and number of processes of a job. Raises CheckpointError, ViddiffError."""
    workers = job.workers if isinstance(job.source, str | os.PathLike) else 1  # others cannot open it
    weights, device = weights_to_encode(job.weights, job.base), choose_device(job.device, job.engine)
    return Resources(weights, device, workers, engine=job.engine)
