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
from pathlib import Path
from typing import BinaryIO, cast

from viddiff.encoder.options import BASE_QUANTISERS
from viddiff.errors import ViddiffError
from viddiff.pipeline.encode_job import EncodeJob, EncodeResult
from viddiff.pipeline.quality_search import Search, first_settings, named
from viddiff.pipeline.status import Observer

Run = Callable[[EncodeJob, Observer], EncodeResult]
"""Runs one encode."""
Tell = Callable[[EncodeResult, Path], None]
"""Gets the result and its file, before that has its name."""
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
class _Sizes:
    """Sizes of the passes at one preset."""

    search: Search = field(default_factory=lambda: Search(BASE_QUANTISERS, _SLOPE, _SLOPES))
    """Over quantisers, by log2 of the video's bytes."""
    wanted: int = 0
    """Bytes."""

    def add(self, quantiser: int, result: EncodeResult) -> None:
        """Take in a pass."""
        level = log2(max(result.size_bytes - _other_bytes(result), 1))
        self.search.add(quantiser, level, result.size_bytes <= self.wanted)

    def aim(self, result: EncodeResult) -> float:
        """Log2 of the bytes that the video may have, if the rest has as many as in `result`."""
        return log2(max(self.wanted * _AIM - _other_bytes(result), 1))


def encode_to_size(
    job: EncodeJob, run: Run, observer: Observer, tell: Tell = lambda *_: None
) -> EncodeResult:
    """Run `job`, whose `size` or `bitrate` says how large the file may be.

    Raises ViddiffError if the lowest quality is still too large. What `tell` raises keeps the file from
    getting its name.
    """
    assert job.output is not None
    single = replace(job, size=None, bitrate=None, force=True)
    sizes, best = _Sizes(), None
    search = sizes.search
    quantiser = _looked(job, single, sizes, run, observer)
    search.begin_anew()
    try:
        for number in range(_PASSES):
            temporary = job.output.temporary()
            result = run(
                replace(single, target=temporary, quantiser=quantiser),
                named(observer, f"encode, pass {number + 1}"),
            )
            sizes.add(quantiser, result)
            if result.ended_by is not None and best is not None:  # what is whole is worth more
                temporary.unlink()
                best = replace(best[0], ended_by=result.ended_by), best[1]
            elif result.size_bytes <= sizes.wanted or result.ended_by is not None:
                if best is not None:
                    best[1].unlink()
                best = result, temporary
            else:
                temporary.unlink()
            following = search.following(sizes.aim(result))
            done = best is not None and best[0].size_bytes >= _LEAST * sizes.wanted
            if done or result.ended_by is not None or following == quantiser or search.low > search.high:
                break
            quantiser = following
        if best is None:
            raise ViddiffError(_too_large(result, sizes))
        tell(*best)
    except BaseException:
        if best is not None:
            with suppress(OSError):
                best[1].unlink(missing_ok=True)
        raise
    job.output.publish(best[1])
    return replace(best[0], target=job.output.path)


def _looked(job: EncodeJob, single: EncodeJob, sizes: _Sizes, run: Run, observer: Observer) -> int:
    """The quantiser that quick passes suggest. `single`: the job without its size."""

    def look(quantiser: int) -> float:
        quick = replace(
            single,
            target=cast(BinaryIO, _Nowhere()),
            preset="fastest",
            quantiser=quantiser,
            verify=False,
            secret=None,
        )
        result = run(quick, named(observer, f"look {len(sizes.search.points) + 1}"))
        if result.ended_by is not None:
            raise result.ended_by
        if all(row.part != "base" for row in result.ledger):
            raise ViddiffError(
                "a size can be asked for only with an AV1 base, which these weights do not have"
            )
        sizes.wanted = _wanted(job, result)
        sizes.add(quantiser, result)
        return sizes.aim(result)

    return first_settings(sizes.search, _FIRST, _NEAR, _QUICK_PASSES, look)


def _wanted(job: EncodeJob, result: EncodeResult) -> int:
    """The most bytes that the file may have."""
    if job.size is not None:
        return job.size
    assert job.bitrate is not None
    return max(floor(job.bitrate * result.duration / 8), 1)


def _other_bytes(result: EncodeResult) -> int:
    """Bytes of sound and so on, and of the container."""
    return sum(row.bytes for row in result.ledger if row.part == "other")


def _too_large(result: EncodeResult, sizes: _Sizes) -> str:
    if sizes.search.hopeless:
        return (
            f"even at the lowest quality the file has {result.size_bytes} bytes, {_other_bytes(result)} of "
            f"them beside the video, but {sizes.wanted} are wanted: allow more, or use --scale or --audio"
        )
    return f"no quality was found that gives {sizes.wanted} bytes; the last gave {result.size_bytes}"
