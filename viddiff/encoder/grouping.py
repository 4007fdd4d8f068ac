"""Group frames for coding: keyframes at scene cuts and at the longest GOP, mini-GOPs between them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from viddiff.encoder.scene_cuts import is_cut, thumbnail
from viddiff.frame import Frame


@dataclass(frozen=True)
class Group:
    """Frames of one chunk: a keyframe, or a mini-GOP."""

    key: bool
    frames: list[Frame]
    following: list[Frame] = field(default_factory=list)
    """For a keyframe: the mini-GOP after it, if there is one and it can be waited for."""
    background: Frame | None = None
    """For the first frame of a GOP with an AV1 base: what the GOP is predicted from, of BASE_BIT_DEPTH."""


def group_frames(frames: Iterable[Frame], gop: int, mini_gop: int) -> Iterator[Group]:
    """Group the frames of a video. Keyframes stand at scene cuts, and after `gop` frames at the latest.

    A keyframe waits for the mini-GOP after it, unless mini-GOPs have one frame.
    """
    groups = _groups(frames, gop, mini_gop)
    return groups if mini_gop == 1 else _with_following(groups)


def _with_following(groups: Iterable[Group]) -> Iterator[Group]:
    key: Group | None = None
    for group in groups:
        if key is not None:
            yield key if group.key else replace(key, following=group.frames)
        key = group if group.key else None
        if not group.key:
            yield group
    if key is not None:
        yield key


def group_regularly(frames: Iterable[Frame], gop: int, most: int) -> Iterator[Group]:
    """Group the frames of a video into GOPs of `gop` frames, and these into groups of at most `most`."""
    pending: list[Frame] = []
    for number, frame in enumerate(frames):
        if number % gop == 0:
            if pending:
                yield Group(False, pending)
            yield Group(True, [frame])
            pending = []
            continue
        pending.append(frame)
        if len(pending) == most:
            yield Group(False, pending)
            pending = []
    if pending:
        yield Group(False, pending)


def _groups(frames: Iterable[Frame], gop: int, most: int) -> Iterator[Group]:
    pending: list[Frame] = []
    since_key = gop
    small: NDArray[np.float32] | None = None
    for frame in frames:
        reduced = thumbnail(frame)
        cut = small is not None and is_cut(small, reduced)
        small = reduced
        if cut or since_key >= gop:
            if pending:
                yield Group(False, pending)
            yield Group(True, [frame])
            pending, since_key = [], 1
            continue
        pending.append(frame)
        since_key += 1
        if len(pending) == most:
            yield Group(False, pending)
            pending = []
    if pending:
        yield Group(False, pending)


def after_gops(groups: Iterable[Group], gops: int) -> Iterator[Group]:
    """Groups after the first `gops` keyframes and all that depends on them."""
    met = 0
    for group in groups:
        met += group.key
        if met > gops:
            yield group
