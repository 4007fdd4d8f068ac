"""Verify that a new file decodes to the encoder's reconstruction.

The encoder stores a digest of its reconstruction for each GOP. The frames come from the normal decoder.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from viddiff.config import MAX_PIXELS, Limits
from viddiff.container.read_options import ReadOptions
from viddiff.digest import GopDigest, frame_digest
from viddiff.errors import BitstreamError, LimitError, VerificationError
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
    frames = sum(gop.frames for gop in gops)
    options = ReadOptions(strict=True, limits=Limits(MAX_PIXELS, max(frames, 1)), key=key)
    try:
        with options.open(path) as file:
            video = decode_video(file, path, resources, options=options)
            if video.frame_count != frames:
                raise VerificationError(f"{video.frame_count} frames were written, but {frames} were coded")
            _compare(video, gops, progress)
    except (BitstreamError, LimitError) as error:
        raise VerificationError(f"the new file does not decode: {error}") from error


def _compare(video: DecodedVideo, gops: Sequence[GopDigest], progress: Callable[[int], None]) -> None:
    first = 0
    for expected in gops:
        found = GopDigest()
        for frame in islice(video.frames, expected.frames):
            found.add(frame_digest(frame))
            progress(first + found.frames)
        if found != expected:
            last = first + expected.frames - 1
            raise VerificationError(f"frames {first} to {last} do not decode to the encoder's reconstruction")
        first += expected.frames
    for _ in video.frames:  # none are left, but only taking them checks the file to its end
        raise VerificationError("more frames were written than were coded")
