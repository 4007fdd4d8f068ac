"""The worst frames of a video, kept as pictures while it is compared."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from viddiff.comparison.matching import Timed
from viddiff.comparison.results import WorstFrame
from viddiff.errors import VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.rgb import RgbConverter
from viddiff.pipeline.measures import MOST_DB

CHOSEN_BY = ("xpsnr_y", "psnr_y")
"""The measure that says which frames are bad: the first of these that is known while frames come."""
_PIECE = 1
"""Seconds of video of which at most one frame is kept, so that they do not all show the same moment."""
_LOSSLESS_PIXELS = 1 << 20
"""Larger pictures are stored with a little loss, or a report would become too large."""
_QUALITY = 92
_MOST_SIDE = 1920
"""Larger pictures are scaled down."""


@dataclass(frozen=True)
class _Kept:
    piece: int
    score: float
    measure: str
    original: Timed
    decoded: Timed


class WorstFrames:
    """Keeps up to `most` pairs of frames in memory, whatever the length of the video."""

    def __init__(self, most: int, reference: VideoInfo, file: VideoInfo) -> None:
        self._most, self._infos = most, (reference, file)
        self._kept: list[_Kept] = []

    def add(self, original: Timed, decoded: Timed, scores: dict[str, float]) -> None:
        """Look at the next pair."""
        if not self._most:
            return
        measure = next(name for name in CHOSEN_BY if name in scores)
        new = _Kept(int(original.time // _PIECE), min(scores[measure], MOST_DB), measure, original, decoded)
        same = next((kept for kept in self._kept if kept.piece == new.piece), None)
        if same is not None and same.score <= new.score:
            return
        others = [kept for kept in self._kept if kept is not same]
        self._kept = sorted([*others, new], key=lambda kept: kept.score)[: self._most]

    def pictures(self) -> tuple[WorstFrame, ...]:
        """The frames, the worst first. None if libav cannot turn them into RGB."""
        try:
            converters = [RgbConverter(info) for info in self._infos]
        except VideoError:
            return ()
        found = []
        for kept in self._kept:
            original, decoded = (
                _picture(converter, pair.frame)
                for converter, pair in zip(converters, (kept.original, kept.decoded), strict=True)
            )
            number, time = kept.original.number, float(kept.original.time)
            found.append(WorstFrame(number, time, kept.measure, kept.score, original, decoded))
        return tuple(found)


def _picture(converter: RgbConverter, frame: Frame) -> bytes:
    """A frame as a WebP of 8 bits."""
    samples = converter(frame)
    if samples.dtype != np.uint8:
        samples = (samples >> 8).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(samples))
    lossless = image.width * image.height <= _LOSSLESS_PIXELS
    if max(image.size) > _MOST_SIDE:
        image.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
    memory = io.BytesIO()
    image.save(memory, "WEBP", lossless=lossless, quality=50 if lossless else _QUALITY, method=3)
    return memory.getvalue()
