"""Encode to a quality that frames must reach, and give up if the file would be too large.

quick looks: samples at the fastest preset              -> about which quality it takes
quick looks at all, unless samples are all              -> in what the samples differ from the whole
looks: samples at the job's preset                      -> the smallest quality that reaches the target
encode, measured as a whole before it gets its name     -> done, or corrected and encoded again
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from viddiff.config import QUALITIES
from viddiff.errors import ResumeError, TargetError
from viddiff.pipeline.encode_inputs import resources_for
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.measures import BY_NAME
from viddiff.pipeline.quality_goal import METRICS, GoalReport, Judge, QualityGoal
from viddiff.pipeline.quality_search import Search, first_settings, named
from viddiff.pipeline.sample_encodes import SampleEncodes, pooled
from viddiff.pipeline.sample_spans import samples_of
from viddiff.pipeline.scoring import check_measurable, frame_scores
from viddiff.pipeline.size_limit import SizeLimit
from viddiff.pipeline.status import Observer, Status

_BEST = QUALITIES - 1
_QUICK = "fastest"
"""Preset of quick looks."""
_NO_QUICKER = ("fastest", "faster")
"""Presets for which a quick look at the whole video does not pay."""
_FIRST = 32
"""Quality of the first look."""
_QUICK_LOOKS, _NEAR = 4, 1
"""Quick looks at most, and the change of the quality below which they end."""
_QUICK_WHOLES, _FAR = 3, 3
"""The same for quick looks at the whole video."""
_ENCODES = 5
"""Encodes of the whole at most."""
_STEPS = {"vmaf": 0.6, "psnr": 0.25, "xpsnr": 0.25}
"""Change of the score from one quality to the next, as expected."""
_LEAST_STEP, _LARGEST_STEP = 0.01, 3.0


class Run(Protocol):
    """Runs one encode."""

    def __call__(self, job: EncodeJob, watch: Observer, judge: Judge | None = None, /) -> EncodeResult:
        """Run it. Raises ViddiffError, OSError."""


class _EncodeAgain(TargetError):
    """A whole file has a score that calls for another quality."""


def encode_to_quality(job: EncodeJob, run: Run, observer: Observer) -> EncodeResult:
    """Run `job`, which has a `quality_goal`, a `max_encoded_percent` or both.

    Raises TargetError if no quality reaches the goal, TooLargeError if the file would be too large; other
    errors as an encode does.
    """
    assert job.output is not None
    goal, told = job.quality_goal, _Told(observer)
    single = replace(job, min_vmaf=None, min_psnr=None, min_xpsnr=None, pool=None, max_encoded_percent=None)
    samples = samples_of(replace(single, resume=False, verify=False))
    if goal is not None:
        check_measurable(goal, samples.info)
    encodes = SampleEncodes(samples, job.output, goal, run, told)
    search = None if goal is None else _QualitySearch(encodes, goal, job)
    told.goal, told.encodes = goal, encodes
    quality = job.quality if search is None else search.first()
    limit = None if job.max_encoded_percent is None else SizeLimit(job)
    if limit is not None:
        limit.predict(encodes.video_bytes(job.preset, quality), sampled=not samples.whole)
    result = _Wholes(single, run, told, search, limit).encode(quality)
    return replace(
        result, quality_goal=told.report(), predicted_bytes=None if limit is None else limit.predicted
    )


class _Told:
    """An observer that is told with every status what is known of the goal."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.goal: QualityGoal | None = None
        self.encodes: SampleEncodes | None = None
        self.predicted: float | None = None
        self.reached: float | None = None
        self.whole_encodes = 0

    def __call__(self, status: Status) -> None:
        self._observer(replace(status, quality_goal=self.report()))

    def report(self) -> GoalReport | None:
        """What is known now; None if there is no goal."""
        if self.goal is None or self.encodes is None:
            return None
        measure, goal = METRICS[self.goal.metric], self.goal
        return GoalReport(
            measure,
            goal.pool,
            goal.wanted,
            self.predicted,
            self.reached,
            self.encodes.count,
            self.whole_encodes,
        )


class _QualitySearch:
    """Finds the smallest quality of which samples promise the wanted score."""

    def __init__(self, encodes: SampleEncodes, goal: QualityGoal, job: EncodeJob) -> None:
        self._encodes, self.goal, self._job = encodes, goal, job
        self._search = Search(range(QUALITIES), _STEPS[goal.metric], (_LEAST_STEP, _LARGEST_STEP))
        self._offset = 0.0

    def first(self) -> int:
        """The quality to encode at, by samples alone. Raises TargetError if none promises the score."""
        quality = first_settings(self._search, _FIRST, _NEAR, _QUICK_LOOKS, self._quick_look)
        if self._job.preset not in _NO_QUICKER and not self._encodes.samples.whole:
            self._search.begin_anew()
            quality = first_settings(self._search, quality, _FAR, _QUICK_WHOLES, self._quick_look_at_all)
        return self._smallest(quality)

    @property
    def slope(self) -> float:
        """Change of the score from one quality to the next."""
        return self._search.slope

    def promised(self, quality: int) -> float:
        """Score of the whole video that its samples promise."""
        return self._encodes.look(self._job.preset, quality).score + self._offset

    def _quick_look(self, quality: int) -> float:
        self._enter(quality, self._encodes.look(_QUICK, quality).score)
        return self._aim

    def _quick_look_at_all(self, quality: int) -> float:
        self._offset = self._encodes.difference(_QUICK, quality)
        self._enter(quality, self._encodes.look(_QUICK, quality).score + self._offset)
        return self._aim

    def _smallest(self, first: int) -> int:
        """Look at samples at the job's preset until the quality below is known to miss."""
        search, quality = self._search, first
        search.begin_anew()
        following: int | None = first
        while following is not None:
            quality = following
            self._enter(quality, self.promised(quality))
            following = search.to_prove(self._aim)
        if search.hopeless:
            raise _unreachable(self._job, self.goal, self.promised(_BEST))
        return search.high

    def _enter(self, quality: int, score: float) -> None:
        self._search.add(quality, score, score >= self.goal.wanted)

    @property
    def _aim(self) -> float:
        return _aim(self.goal, self._search)


class _Wholes:
    """Encodes of the whole video, until one is as wanted."""

    def __init__(
        self,
        job: EncodeJob,
        run: Run,
        told: _Told,
        samples: _QualitySearch | None,
        limit: SizeLimit | None,
    ) -> None:
        """job: without targets. samples: what they promise, if a score is wanted."""
        self._job, self._run, self._told, self._samples, self._limit = job, run, told, samples, limit
        slope = 1.0 if samples is None else samples.slope
        self._search = Search(range(QUALITIES), slope, (_LEAST_STEP, _LARGEST_STEP))
        self._notes: list[str] = []

    def encode(self, quality: int) -> EncodeResult:
        """The first encode that is accepted, beginning at `quality`. Raises TargetError."""
        told = self._told
        told.predicted = None if self._samples is None else self._samples.promised(quality)
        for number in range(1, _ENCODES + 1):
            told.reached, told.whole_encodes = None, number
            watch = told if number == 1 else named(told, f"encode, pass {number}")
            try:
                result = self._encoded(quality, watch, last=number == _ENCODES)
            except _EncodeAgain as again:
                self._notes.append(str(again))
                quality = self._following(number + 1)
            else:
                return replace(result, notes=(*result.notes, *self._notes))
        raise AssertionError("the last encode is accepted, or an error")

    def _encoded(self, quality: int, watch: Observer, last: bool) -> EncodeResult:
        job, judge = replace(self._job, quality=quality), partial(self._judge, quality, last)
        try:
            return self._run(job, watch, judge)
        except ResumeError:  # what is there is of another quality of the search
            return self._run(replace(job, resume=False), watch, judge)

    def _following(self, number: int) -> int:
        """The quality of encode `number`, and its promise. The last one is known to suffice, or the best.

        So the one before it takes one quality more than seems enough: missed by little, it would cost many.
        """
        assert self._samples is not None
        search = self._search
        before, score = search.points[-1]
        quality = search.high if number == _ENCODES else search.following(_aim(self._samples.goal, search))
        if number == _ENCODES - 1:
            quality = min(quality + 1, search.high)
        self._told.predicted = score + search.slope * (quality - before)
        return quality

    def _judge(self, quality: int, last: bool, written: Path) -> None:
        """Raise TargetError if a whole file is not to get its name."""
        size = written.stat().st_size
        if self._samples is not None:
            self._judge_score(quality, last, written, self._samples.goal)
        if self._limit is not None:
            self._limit.check(size)

    def _judge_score(self, quality: int, last: bool, written: Path, goal: QualityGoal) -> None:
        told, search = self._told, self._search
        score = pooled(frame_scores(self._job, written, resources_for(self._job), goal, told), goal)
        told.reached, reached = score, score >= goal.wanted
        search.add(quality, score, reached)
        if search.hopeless:
            raise _unreachable(self._job, goal, score)
        near = search.following(_aim(goal, search)) >= quality - 1  # one step is not worth another encode
        if not (reached and (near or last)):
            raise _EncodeAgain(
                f"quality {quality} promised {told.predicted:.2f}, but {score_text(goal, score)}"
            )


def _aim(goal: QualityGoal, search: Search) -> float:
    """Half a step above what is wanted: the quality nearest to it is the smallest that suffices."""
    return goal.wanted + search.slope / 2


def _unreachable(job: EncodeJob, goal: QualityGoal, score: float) -> TargetError:
    """What the best quality gives, as far as the job's limits let it."""
    limited = " within --maxrate and --bufsize" * (job.buffer_limit is not None)
    return TargetError(
        f"even at quality {_BEST}{limited}, {score_text(goal, score)}, but {goal.wanted:g} is wanted"
    )


def score_text(goal: QualityGoal, score: float) -> str:
    """A score with its name for messages."""
    measure = BY_NAME[METRICS[goal.metric]]
    return f"{measure.title} ({goal.pool}) is {measure.text(score)}"
