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
_SLOPE, _SLOPES = 0.025, (0.008, 0.06)
"""Change of a GOP's room with the quantiser, expected and possible."""
_AIM, _ENOUGH = 0.04, 0.12
"""Room that a GOP is coded again for, and the most that is left unused: in doublings of its bytes."""
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
        finest = self._buffer.quantiser
        search = Search(range(finest, _COARSEST + 1), _SLOPE, _SLOPES)
        quantiser = self._expected(gop[0].frames[0].pts)
        best: list[CodedChunk] | None = None
        for number in range(_MOST):
            coded, sizes = self._tried(quantiser, gop)
            reserve = not last and quantiser != _COARSEST
            holds, room = self._buffer.holds(sizes, reserve), self._buffer.room(sizes, reserve)
            search.add(quantiser, room, holds)
            best = coded if holds else best
            if holds and (quantiser == finest or room <= _ENOUGH):
                break
            if quantiser == _COARSEST and not holds:
                raise TargetError(self._too_much(sizes))
            following = search.following(_AIM)
            if holds and following == quantiser:
                break
            quantiser = _COARSEST if best is None and number + 2 == _MOST else following
        assert best is not None, "the last one is the coarsest, or one before it holds"
        return best

    def _tried(self, quantiser: int, gop: list[Group]) -> tuple[list[CodedChunk], GopSizes]:
        coded = [CodedChunk.of(group) for group in coded_job(self._open(quantiser), iter(gop))]
        chunks = [group.chunk for group in coded]
        return coded, GopSizes.of(chunks, self._output.sizes(chunks), self._buffer.video)

    def _expected(self, start: int) -> int:
        """The quantiser that suffices if a GOP from `start` on is like the one before."""
        before, finest = self._buffer.before, self._buffer.quantiser
        if before is None:
            return finest
        room = self._buffer.room(before.moved(start), reserve=True)
        return min(max(round(before.quantiser - (room - _AIM) / _SLOPE), finest), _COARSEST)

    def _too_much(self, sizes: GopSizes) -> str:
        seconds, missing = self._buffer.first_late(sizes)
        limit = self._buffer.limit
        return (
            f"even at the lowest quality, --maxrate {limit.maxrate} and --bufsize {limit.bufsize} lack "
            f"{missing} bits for what is shown after {seconds:.2f} s: allow more, or use --scale or --fps"
        )
