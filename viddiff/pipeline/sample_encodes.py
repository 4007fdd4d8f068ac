"""Encodes of samples of a video: how its frames would score, and how large it would become."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

from viddiff.metrics.pooling import pool
from viddiff.pipeline.encode_inputs import resources_for
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.output_file import OutputFile
from viddiff.pipeline.quality_goal import POOLS, QualityGoal
from viddiff.pipeline.sample_spans import Samples
from viddiff.pipeline.scoring import frame_scores
from viddiff.pipeline.status import Observer, Status

Encode = Callable[[EncodeJob, Observer], EncodeResult]
"""Runs one encode."""
_ONCE = "backgrounds"
"""Part of the ledger that GOPs share. The video has at least the largest that a sample has."""


@dataclass(frozen=True)
class Look:
    """What an encode of samples has shown."""

    score: float
    """Pooled over the frames. 0 if no score is wanted."""
    video_bytes: int
    """What the pictures of the whole video would take."""


@dataclass
class SampleEncodes:
    """Encodes samples at one quality after the other. What is known is not encoded again."""

    samples: Samples
    output: OutputFile
    """What is encoded stands beside it for a moment."""
    goal: QualityGoal | None
    encode: Encode
    observer: Observer
    count: int = 0
    """How many encodes there were."""
    _known: dict[tuple[str, int, float], Look] = field(default_factory=dict)
    _done: int = 0
    """Frames of the present encode that are done."""
    _byte_ratio: float = 1.0
    """Bytes of the whole video, as a share of what samples let expect."""

    def look(self, preset: str, quality: int) -> Look:
        """Encode the samples. Raises ViddiffError, OSError."""
        return self._looked(preset, quality, self.samples.parts, self.samples.share)

    def difference(self, preset: str, quality: int) -> float:
        """Encode the whole video. Returns its score, less that of the samples."""
        whole = self._looked(preset, quality, (self.samples.job,), 1.0)
        look = self.look(preset, quality)
        self._byte_ratio = whole.video_bytes / max(look.video_bytes, 1)
        return whole.score - look.score

    def video_bytes(self, preset: str, quality: int) -> int:
        """What the pictures of the whole video would take, as far as is known."""
        return round(self.look(preset, quality).video_bytes * self._byte_ratio)

    def _looked(self, preset: str, quality: int, parts: tuple[EncodeJob, ...], share: float) -> Look:
        key = preset, quality, share
        if key not in self._known:
            self.count += 1
            self._done = 0
            found = [
                self._encoded(replace(part, preset=preset, quality=quality), len(parts)) for part in parts
            ]
            ledgers = [result.ledger for result, _ in found]
            once = max(sum(row.bytes for row in ledger if row.part == _ONCE) for ledger in ledgers)
            each = sum(row.bytes for row in chain(*ledgers) if row.part not in (_ONCE, "other"))
            scores = list(chain.from_iterable(scores for _, scores in found))
            score = 0.0 if self.goal is None else pooled(scores, self.goal)
            self._known[key] = Look(score, round(once + each / share))
        return self._known[key]

    def _encoded(self, part: EncodeJob, parts: int) -> tuple[EncodeResult, list[float]]:
        """Encode one of several parts into a file that is gone afterwards, and measure it."""
        temporary, watch = self.output.temporary(), partial(self._watch, parts)
        try:
            with open(temporary, "xb") as file:
                single = replace(
                    part,
                    target=file,
                    audio="none",
                    audio_lang=(),
                    shorten=False,
                    excerpt=not self.samples.whole,
                )
                result = self.encode(single, watch)
            self._done += result.frames
            if self.goal is None:
                return result, []
            scores = frame_scores(single, temporary, resources_for(single), self.goal, watch)
            self._done += result.frames
            return result, scores
        finally:
            temporary.unlink(missing_ok=True)

    def _watch(self, parts: int, status: Status) -> None:
        """A frame is done once when it is encoded, and once more when it is measured."""
        times = parts * (1 if self.goal is None else 2)
        total = None if status.total is None else times * status.total
        self.observer(Status(f"look {self.count}", self._done + status.frames, total))


def pooled(scores: list[float], goal: QualityGoal) -> float:
    """The score of a video from those of its frames, as the goal is meant."""
    return float(getattr(pool(scores), POOLS[goal.pool]))
