"""Concealment: a lost frame is shown as the last good frame before it, so that the time line stays complete.

If there is no good frame before it, the first good frame after it is shown.
"""

from array import array
from collections.abc import Iterator
from dataclasses import replace

from viddiff.container.gop_table import Gop, usual_step
from viddiff.errors import BitstreamError
from viddiff.frame import Frame, VideoInfo
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.gop_decoding import GopEnd

_LAST_TIME = (1 << 63) - 1


def conceal(
    parts: Iterator[Frame | GopEnd], first: int, info: VideoInfo, damage: Damage, strict: bool
) -> Iterator[Frame]:
    """All frames from number `first` on, in order, at increasing times.

    `parts` come GOP by GOP, as from `decode_gop`. Raises BitstreamError if there is no frame to show, or, in
    strict mode, if times do not increase.
    """
    last, time, step = None, -_LAST_TIME - 2, usual_step(info)
    early = array("q")  # times of lost frames before the first good one; there may be millions
    shown = 0
    for part in parts:
        if isinstance(part, Frame):
            if part.pts <= time:
                fault = f"the time of frame {first + shown} is not after that of the frame before"
                if strict:
                    raise BitstreamError(fault)
                damage.blame([fault])
                part = replace(part, pts=time + 1)
            for moment in early:
                yield replace(part, pts=moment)
            step = part.pts - time if last is not None else step
            last, time, early = part, part.pts, array("q")
            shown += 1
            yield part
            continue
        gop, lost_from = part.gop, shown
        first, shown = gop.first + gop.frames, 0
        damage.blame(part.faults)
        if lost_from >= gop.frames:
            continue
        damage.lose(gop.first + lost_from, gop.first + gop.frames - 1)
        for wanted in _times(gop, lost_from, part.times, time, step):
            time = max(wanted, time + 1)
            if time > _LAST_TIME:
                raise BitstreamError("presentation times leave 64 bits")
            if last is None:
                early.append(time)
            else:
                yield replace(last, pts=time)
    if early:
        raise BitstreamError(
            f"no frame can be decoded: {damage.faults[0] if damage.faults else 'all are gone'}"
        )


def _times(gop: Gop, shown: int, known: tuple[int, ...], time: int, step: int) -> Iterator[int]:
    """Times of the frames of `gop` after the first `shown`.

    `known` times come first. The others are spaced evenly up to the next keyframe. time: that of the frame
    before.
    """
    if not shown and not known:
        known = (gop.pts,)
    yield from known
    time = known[-1] if known else time
    rest = gop.frames - shown - len(known)
    for number in range(1, rest + 1):
        yield time + (step * number if gop.until is None else (gop.until - time) * number // (rest + 1))
