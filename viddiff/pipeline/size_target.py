"""Encode to a size: whole encodes, each with a better quantiser than the one before.

    quick passes at the fastest preset, without output      -> how the bytes depend on the quantiser
    passes at the job's preset, mostly two                  -> a file of at most the size, 98 % of it or more

The logarithm of the video's bytes is nearly linear in the quantiser. Sound, subtitles and container do not
depend on it.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import floor, log2
from typing import BinaryIO, cast

from viddiff.encoder.options import BASE_QUANTISERS
from viddiff.errors import ViddiffError
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.status import Observer, Status

Run = Callable[[EncodeJob, Observer], EncodeResult]
"""Runs one encode."""
_LEAST, _AIM = 0.98, 0.992
"""Shares of the size: what is enough, and what a pass aims at."""
_FIRST = 140
"""Quantiser of the first pass."""
_SLOPE, _SLOPES = -0.025, (-0.06, -0.008)
"""Change of log2(bytes) with the quantiser, expected and possible."""
_QUICK_PASSES, _PASSES = 3, 6
"""Passes at most, at the fastest preset and at the job's."""
_NEAR = 8
"""Change of the quantiser below which quick passes end."""


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def writable(self) -> bool:
        """It can be written."""
        return True

    def write(self, data: object, /) -> int:
        """Count the bytes."""
        return memoryview(data).nbytes  # type: ignore[arg-type]


@dataclass
class _Search:
    """Finds the quantiser by the sizes of passes so far."""

    wanted: int
    """Bytes."""
    slope: float = _SLOPE
    points: list[tuple[int, float]] = field(default_factory=list)
    """Quantiser and log2 of the video's bytes, of the passes at one preset."""
    low: int = BASE_QUANTISERS.start
    """Least quantiser that is not known to give too much."""
    high: int = BASE_QUANTISERS.stop - 1
    """Largest quantiser that is not known to give enough."""

    def begin_anew(self) -> None:
        """Forget the levels, but not the slope: the next passes have another preset."""
        self.points, self.low, self.high = [], BASE_QUANTISERS.start, BASE_QUANTISERS.stop - 1

    def add(self, quantiser: int, result: EncodeResult) -> None:
        """Take in a pass."""
        other = _other_bytes(result)
        level = log2(max(result.size_bytes - other, 1))
        for before, known in self.points[-1:]:
            if before != quantiser:
                self.slope = min(max((level - known) / (quantiser - before), _SLOPES[0]), _SLOPES[1])
        self.points.append((quantiser, level))
        if result.size_bytes > self.wanted:
            self.low = max(self.low, quantiser + 1)
        else:
            self.high = min(self.high, quantiser)

    def following(self, other: int) -> int:
        """The quantiser to try next. `other`: bytes that do not depend on it."""
        quantiser, level = self.points[-1]
        aim = log2(max(self.wanted * _AIM - other, 1))
        estimate = floor(quantiser + (aim - level) / self.slope + 0.5)
        return min(max(estimate, self.low), max(self.high, self.low), BASE_QUANTISERS.stop - 1)


def encode_to_size(job: EncodeJob, run: Run, observer: Observer) -> EncodeResult:
    """Run `job`, whose `size` or `bitrate` says how large the file may be.

    Raises ViddiffError if the lowest quality is still too large.
    """
    assert job.output is not None
    single = replace(job, size=None, bitrate=None, force=True)
    search, best = _Search(0), None
    quantiser = _looked(job, single, search, run, observer)
    search.begin_anew()
    try:
        for number in range(_PASSES):
            temporary = job.output.temporary()
            result = run(
                replace(single, target=temporary, quantiser=quantiser),
                _named(observer, f"encode, pass {number + 1}"),
            )
            search.add(quantiser, result)
            if result.ended_by is not None and best is not None:  # what is whole is worth more
                temporary.unlink()
                best = replace(best[0], ended_by=result.ended_by), best[1]
            elif result.size_bytes <= search.wanted or result.ended_by is not None:
                if best is not None:
                    best[1].unlink()
                best = result, temporary
            else:
                temporary.unlink()
            following = search.following(_other_bytes(result))
            done = best is not None and best[0].size_bytes >= _LEAST * search.wanted
            if done or result.ended_by is not None or following == quantiser or search.low > search.high:
                break
            quantiser = following
        if best is None:
            raise ViddiffError(_too_large(result, search))
    except BaseException:
        if best is not None:
            with suppress(OSError):
                best[1].unlink(missing_ok=True)
        raise
    job.output.publish(best[1])
    return replace(best[0], target=job.output.path)


def _looked(job: EncodeJob, single: EncodeJob, search: _Search, run: Run, observer: Observer) -> int:
    """The quantiser that quick passes suggest. `single`: the job without its size."""
    quantiser = _FIRST
    for number in range(_QUICK_PASSES):
        quick = replace(
            single,
            target=cast(BinaryIO, _Nowhere()),
            preset="fastest",
            quantiser=quantiser,
            verify=False,
            secret=None,
        )
        result = run(quick, _named(observer, f"look {number + 1}"))
        if result.ended_by is not None:
            raise result.ended_by
        if all(row.part != "base" for row in result.ledger):
            raise ViddiffError(
                "a size can be asked for only with an AV1 base, which these weights do not have"
            )
        search.wanted = _wanted(job, result)
        search.add(quantiser, result)
        before, quantiser = quantiser, search.following(_other_bytes(result))
        if abs(quantiser - before) <= _NEAR:
            break
    return quantiser


def _wanted(job: EncodeJob, result: EncodeResult) -> int:
    """The most bytes that the file may have."""
    if job.size is not None:
        return job.size
    assert job.bitrate is not None
    return max(floor(job.bitrate * result.duration / 8), 1)


def _other_bytes(result: EncodeResult) -> int:
    """Bytes of sound and so on, and of the container."""
    return sum(row.bytes for row in result.ledger if row.part == "other")


def _named(observer: Observer, stage: str) -> Observer:
    """The observer, told that an encode is this stage."""

    def observe(status: Status) -> None:
        observer(replace(status, stage=stage) if status.stage == "encode" else status)

    return observe


def _too_large(result: EncodeResult, search: _Search) -> str:
    if search.low > BASE_QUANTISERS.stop - 1:
        return (
            f"even at the lowest quality the file has {result.size_bytes} bytes, {_other_bytes(result)} of "
            f"them beside the video, but {search.wanted} are wanted: allow more, or use --scale or --audio"
        )
    return f"no quality was found that gives {search.wanted} bytes; the last gave {result.size_bytes}"
