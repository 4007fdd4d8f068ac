"""Encode a stream to a bit rate in one pass, GOP by GOP."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace

from viddiff.container.gop_table import usual_step
from viddiff.encoder.coded_group import GroupEncoder
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import BASE_QUANTISERS
from viddiff.frame import VideoInfo
from viddiff.pipeline.division import Unit
from viddiff.pipeline.jobs import coded_job, jobs
from viddiff.pipeline.output import CodedChunk, Output
from viddiff.pipeline.rate_model import CodedSpan, RateModel


class GopsAtRate:
    """Codes GOPs one after the other, each at the quantiser that those before it suggest.

    Chunks come as soon as they are coded. What a GOP has taken is known when its last chunk is written.
    """

    def __init__(
        self, open_encoder: Callable[[int], GroupEncoder], output: Output, bitrate: int, video: VideoInfo
    ) -> None:
        """open_encoder: opens one with an AV1 base for a quantiser. bitrate: of the file, in bits/s."""
        self._open, self._summary, self._video = open_encoder, output.summary, video
        self._bitrate = bitrate
        self._model = RateModel(bitrate, float(video.width * video.height * video.frame_rate))

    def __call__(self, groups: Iterable[Group]) -> Generator[CodedChunk, None, None]:
        """Code groups. Take each chunk into the output before the next."""
        written, quantisers = CodedSpan(0, 0, 0), 0
        for _, job in jobs(groups, Unit.GOP):
            quantiser, first = self._model.next_quantiser(), self._summary.frames
            for coded in coded_job(self._open(quantiser), job):
                yield CodedChunk.of(coded)
                quantisers += quantiser * (self._summary.frames - first)
                first = self._summary.frames
                self._summary.mean_quantiser = quantisers / max(first, 1)
            before, written = written, self._written()
            self._model.add(quantiser, written - before)
            self._summary.beyond_gops += self._is_beyond(quantiser, written - before)

    def _is_beyond(self, quantiser: int, span: CodedSpan) -> bool:
        """Whether a GOP takes more than the bit rate at every quality, or its sound alone does."""
        least = span if quantiser == BASE_QUANTISERS[-1] else replace(span, video_bits=0)
        return least.rate > self._bitrate

    def _written(self) -> CodedSpan:
        """What is in the file."""
        summary = self._summary
        units = summary.last_pts - summary.first_pts + (summary.last_duration or usual_step(self._video))
        video = 8.0 * summary.video_bytes
        return CodedSpan(float(units * self._video.time_base), video, 8.0 * summary.size_bytes - video)
