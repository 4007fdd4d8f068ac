"""Encode GOP by GOP so that a decoder's buffer never runs empty: a GOP that breaks it is coded again."""

from collections.abc import Callable, Generator, Iterable

from viddiff.encoder.coded_group import GroupEncoder
from viddiff.encoder.grouping import Group
from viddiff.encoder.options import BASE_QUANTISERS
from viddiff.errors import TargetError
from viddiff.pipeline.decoder_buffer import GopSizes
from viddiff.pipeline.division import Unit
from viddiff.pipeline.jobs import coded_job, jobs
from viddiff.pipeline.output import CodedChunk, Output
from viddiff.pipeline.quality_search import Search

_COARSEST = BASE_QUANTISERS[-1]
_STEP = 8
"""Of the quantisers that are tried: few different ones, so that GOPs can share backgrounds."""
_SLOPE, _SLOPES = 0.2, (0.06, 0.5)
"""Change of a GOP's room from step to step, expected and possible."""
_AIM = _SLOPE / 2
"""Room to leave unused, in doublings of the GOP's bytes."""
_MOST = 6
"""Encodes of a GOP at most."""


class GopsWithinBuffer:
    """Codes GOPs, each at the best quality that the buffer of an output holds, up to the one asked for.

    One GOP is coded after the other. Its frames are kept until it is done.
    """

    def __init__(self, open_encoder: Callable[[int], GroupEncoder], output: Output) -> None:
        """open_encoder: opens one with an AV1 base for a quantiser. output: has a buffer."""
        assert output.buffer is not None
        self._open, self._output, self._buffer = open_encoder, output, output.buffer
        self._quantisers = (*range(self._buffer.quantiser, _COARSEST, _STEP), _COARSEST)

    def __call__(self, groups: Iterable[Group]) -> Generator[CodedChunk, None, None]:
        """Code groups. Take each chunk into the output before the next.

        Raises TargetError if even the lowest quality does not keep the buffer filled.
        """
        waiting: list[Group] | None = None
        for _, job in jobs(groups, Unit.GOP):
            if waiting is not None:
                yield from self._coded(waiting, last=False)
            waiting = list(job)
        if waiting is not None:
            yield from self._coded(waiting, last=True)

    def _coded(self, gop: list[Group], last: bool) -> list[CodedChunk]:
        """Code a GOP as finely as the buffer holds. last: nothing comes after it."""
        search = Search(range(len(self._quantisers)), _SLOPE, _SLOPES)
        best: list[CodedChunk] | None = None
        step = self._expected(gop[0].frames[0].pts)
        for number in range(1, _MOST + 1):
            coded, sizes = self._tried(self._quantisers[step], gop)
            coarsest = step == search.settings[-1]
            reserve = not last and not coarsest
            holds = self._buffer.holds(sizes, reserve)
            search.add(step, self._buffer.room(sizes, reserve), holds)
            if coarsest and not holds:
                raise TargetError(self._too_much(sizes))
            best = coded if holds else best
            before, step = step, search.following(_AIM)
            if holds and step == before:
                break
            if best is None and number + 1 == _MOST:
                step = search.settings[-1]
        assert best is not None, "the last one is the coarsest, or one before it holds"
        return best

    def _tried(self, quantiser: int, gop: list[Group]) -> tuple[list[CodedChunk], GopSizes]:
        coded = [CodedChunk.of(group) for group in coded_job(self._open(quantiser), iter(gop))]
        chunks = [group.chunk for group in coded]
        return coded, GopSizes.of(chunks, self._output.sizes(chunks), self._buffer.video)

    def _expected(self, start: int) -> int:
        """Number of the quantiser that suffices if a GOP from `start` on is like the one before."""
        before = self._buffer.before
        if before is None:
            return 0
        room = self._buffer.room(before.moved(start), reserve=True)
        step: float = (before.quantiser - self._quantisers[0]) / _STEP - (room - _AIM) / _SLOPE
        return min(max(round(step), 0), len(self._quantisers) - 1)

    def _too_much(self, sizes: GopSizes) -> str:
        seconds, missing = self._buffer.first_late(sizes)
        limit = self._buffer.limit
        return (
            f"even at the lowest quality, --maxrate {limit.maxrate} and --bufsize {limit.bufsize} lack "
            f"{missing} bits for what is shown after {seconds:.2f} s: allow more, or use --scale or --fps"
        )
