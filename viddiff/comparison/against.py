"""Encodes of the reference by other codecs, compared as files are."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from viddiff.comparison.comparer import Comparer
from viddiff.comparison.results import ComparedFile
from viddiff.media.other_codecs import OtherCodec

USUAL_INTERVAL = 128
"""Longest distance between keyframes where no file says one, in frames."""


def compare_against(
    codecs: Sequence[OtherCodec], comparer: Comparer, interval: int
) -> Iterator[ComparedFile]:
    """Encode the reference with every codec at each of its settings, and compare the results.

    interval: longest distance between keyframes, in frames. Raises ViddiffError, OSError.
    """
    with tempfile.TemporaryDirectory(prefix="viddiff-compare-") as folder:
        for codec in codecs:
            for setting in codec.settings:
                path = Path(folder, "coded.mkv")
                codec.encode(comparer.frames(), comparer.reference.info, setting, interval, path)
                yield comparer.compare(path, f"{codec.title} CRF {setting}")


def interval_of(files: Sequence[ComparedFile]) -> int:
    """The distance between keyframes of the first file that states one."""
    return next((f.keyframe_distance for f in files if f.keyframe_distance), USUAL_INTERVAL)
