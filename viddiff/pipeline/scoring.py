"""Scores of the frames of a new file, which is decoded beside its source."""

from itertools import zip_longest
from pathlib import Path

from viddiff.config import MAX_PIXELS, Limits
from viddiff.container.read_options import ReadOptions
from viddiff.container.sealing import key_of
from viddiff.errors import LimitError, ViddiffError
from viddiff.frame import VideoInfo
from viddiff.pipeline.encode_inputs import opened_source, opened_video
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.measures import BY_NAME, Meters, choose, measured
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.quality_goal import METRICS, QualityGoal
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.status import Observer, Status


def check_measurable(goal: QualityGoal, info: VideoInfo) -> None:
    """Raise an error if the frames of such a video cannot be scored here.

    Raises ViddiffError if there is no ffmpeg with libvmaf, LimitError if the frames are too small.
    """
    metrics, _ = choose((goal.metric,))
    if METRICS[goal.metric] not in [measure.name for measure in measured(metrics, info)]:
        raise LimitError(
            f"{BY_NAME[METRICS[goal.metric]].title} cannot be measured at {info.width}x{info.height}"
        )


def frame_scores(
    job: EncodeJob, written: Path, resources: Resources, goal: QualityGoal, observer: Observer
) -> list[float]:
    """Scores of all frames of `written`, the complete file of `job`, in order.

    Raises ViddiffError, OSError.
    """
    options = ReadOptions(strict=True, limits=Limits(MAX_PIXELS), key=key_of(written, job.secret))
    name, scores = METRICS[goal.metric], list[float]()
    with opened_source(job) as demuxer, opened_video(job, demuxer) as reader, options.open(written) as file:
        decoded = decode_video(file, written, resources, options=options)
        observer(Status("measure", 0, decoded.frame_count))
        with Meters((goal.metric,), reader.info) as meters:
            for number, (original, shown) in enumerate(zip_longest(reader, decoded.frames), 1):
                if original is None or shown is None:
                    raise ViddiffError(f"{job.source_name} has changed while it was encoded")
                found = meters.add(original, shown)
                if name in found:
                    scores.append(found[name])
                observer(Status("measure", number, decoded.frame_count))
            vmaf = meters.vmaf()
    return scores if vmaf is None else vmaf
