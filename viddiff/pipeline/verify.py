"""Verify that a new file decodes to the encoder's reconstruction.

The encoder stores a digest of its reconstruction for each GOP. The frames come from the normal decoder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

from viddiff.config import MAX_PIXELS, Limits
from viddiff.container.excerpt import Excerpt
from viddiff.container.read_options import ReadOptions
from viddiff.digest import GopDigest, frame_digest, video_digest
from viddiff.errors import BitstreamError, LimitError, VerificationError
from viddiff.frame import Frame
from viddiff.pipeline.decoded_video import DecodedVideo
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources


def verify(
    path: Path,
    gops: Sequence[GopDigest],
    resources: Resources,
    key: bytes | None,
    progress: Callable[[int], None],
) -> None:
    """Decode the whole file at `path` and compare it with `gops`, the digests of the reconstruction.

    key: of an encrypted file. progress: called after every frame with the number of frames decoded. Raises
    VerificationError if the file does not decode, or if a frame or time differs.
    """
    with _decoded(path, sum(gop.frames for gop in gops), resources, key) as video:
        first = 0
        for expected in gops:
            found = _next_gop(video.frames, expected.frames, 0, first, progress)
            if found != expected:
                last = first + expected.frames - 1
                raise VerificationError(
                    f"frames {first} to {last} do not decode to the encoder's reconstruction"
                )
            first += expected.frames


def verify_joined(
    path: Path,
    parts: Sequence[tuple[Excerpt, str]],
    resources: Resources,
    progress: Callable[[int], None],
) -> None:
    """Decode a joined file and compare each of its parts with the `video_digest` of its reconstruction.

    progress, and what is raised: as for `verify`.
    """
    with _decoded(path, sum(part.frames for part, _ in parts), resources, None) as video:
        first = 0
        for part, expected in parts:
            found = []
            for gop in part.gops:
                found.append(_next_gop(video.frames, gop.frames, part.shift, first, progress))
                first += gop.frames
            if video_digest(found) != expected:
                raise VerificationError(
                    f"what was coded of {part.source.path} does not decode to the encoder's reconstruction"
                )


@contextmanager
def _decoded(path: Path, frames: int, resources: Resources, key: bytes | None) -> Iterator[DecodedVideo]:
    """The video of a file. Raises VerificationError unless the block takes all of it, `frames` frames."""
    options = ReadOptions(strict=True, limits=Limits(MAX_PIXELS, max(frames, 1)), key=key)
    try:
        with options.open(path) as file:
            video = decode_video(file, path, resources, options=options)
            if video.frame_count != frames:
                raise VerificationError(f"{video.frame_count} frames were written, but {frames} were coded")
            yield video
            for _ in video.frames:  # none are left, but only taking them checks the file to its end
                raise VerificationError("more frames were written than were coded")
    except (BitstreamError, LimitError) as error:
        raise VerificationError(f"the new file does not decode: {error}") from error


def _next_gop(
    frames: Iterator[Frame], count: int, shift: int, first: int, progress: Callable[[int], None]
) -> GopDigest:
    """Digest of the next `count` frames, at the times that they had before they were moved by `shift`."""
    found = GopDigest()
    for frame in islice(frames, count):
        found.add(frame_digest(replace(frame, pts=frame.pts - shift) if shift else frame))
        progress(first + found.frames)
    return found
