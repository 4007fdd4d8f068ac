"""The largest size that pays: a percentage of the source, predicted before an encode and checked after it."""

from math import floor

from viddiff.errors import TooLargeError
from viddiff.pipeline.encode_inputs import opened_source, opened_tracks
from viddiff.pipeline.encode_job import EncodeJob

_DOUBT = 1.25
"""How far beyond the limit a size must be that samples predict: what lies between them may be easier."""


class SizeLimit:
    """The largest size of a file, as a percentage of its source."""

    def __init__(self, job: EncodeJob) -> None:
        """job: with `max_encoded_percent`."""
        assert job.named is not None
        assert job.max_encoded_percent is not None
        self._job, self._source = job, job.named.stat().st_size
        self._most = floor(self._source * job.max_encoded_percent / 100)
        self.predicted: int | None = None
        """Bytes of the file, as far as they are predicted."""

    def predict(self, video_bytes: int, sampled: bool) -> None:
        """Take in what the pictures will take, and whether it comes from samples. Raises TooLargeError."""
        self.predicted = video_bytes + _other_bytes(self._job)
        if self.predicted > self._most * (_DOUBT if sampled else 1):
            raise self._refusal("would become about", self.predicted)

    def check(self, size: int) -> None:
        """Raises TooLargeError if a whole file is too large."""
        if size > self._most:
            raise self._refusal("has become", size, size)

    def _refusal(self, verb: str, size: int, coded: int | None = None) -> TooLargeError:
        assert self.predicted is not None
        percent = 100 * size / max(self._source, 1)
        return TooLargeError(
            f"{self._job.source_name} {verb} {size} bytes, {percent:.1f} % of its {self._source}; "
            f"at most {self._job.max_encoded_percent:g} % are wanted",
            self._source,
            self._most,
            self.predicted,
            coded,
        )


def _other_bytes(job: EncodeJob) -> int:
    """Bytes of the sound, the subtitles and the attachments that the file of a job will have.

    Reads the source once, without decoding its pictures. Raises VideoError.
    """
    with opened_source(job) as demuxer, opened_tracks(job, demuxer) as tracks:
        demuxer.drop_others()
        total = sum(len(attachment.data) for attachment in tracks.extras.attachments)
        while (packet := tracks.take(None)) is not None:
            total += len(packet.data)
    return total
