"""Which pictures predict best: two of a library for a keyframe, and a library for footage.

Pictures are judged block by block, without motion, by what coding the miss would cost. Candidates for a
library are frames of the footage and medians over time, in which what passes by is not seen.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.library import Library
from viddiff.encoder.lookahead import luma_of
from viddiff.encoder.residual_cost import residual_bits, spectra
from viddiff.frame import Frame, VideoInfo

_BETTER = 0.95
"""What an anchor may cost with a picture, of what it costs with the keyframe: some blocks fit by chance."""


def closest_pair(library: Library, frame: Frame, info: VideoInfo, lmbda: float) -> tuple[int, int] | None:
    """Numbers of the two pictures from which the blocks of `frame` are predicted best, twice the same if
    there is but one; None if none serves. lmbda: squared error (8 bits) that is worth a bit. Errors are those
    of `LibraryPicture.decode`."""
    bits = _bits_by_picture(library, luma_of(frame, info.bit_depth), info, lmbda)
    pairs = list(itertools.combinations(bits, 2)) or [(number, number) for number in bits]
    return min(pairs, key=lambda pair: float(np.minimum(bits[pair[0]], bits[pair[1]]).sum()), default=None)


def second_reference(
    library: Library, frame: Frame, first: Frame, key: Frame, info: VideoInfo, lmbda: float
) -> int | None:
    """Number of the picture that goes best with the first reference of `frame`, a mini-GOP's anchor; None if
    the keyframe does, which is the usual second reference. Errors are those of `LibraryPicture.decode`."""
    target, alone, usual = (luma_of(picture, info.bit_depth) for picture in (frame, first, key))
    alone_bits, usual_bits = (residual_bits(spectra(target, luma), lmbda) for luma in (alone, usual))
    costs: dict[int | None, float] = {None: _BETTER * float(np.minimum(alone_bits, usual_bits).sum())}
    for number, bits in _bits_by_picture(library, target, info, lmbda).items():
        costs[number] = float(np.minimum(alone_bits, bits).sum())
    return min(costs, key=costs.__getitem__)


def _bits_by_picture(
    library: Library, target: NDArray[np.uint8], info: VideoInfo, lmbda: float
) -> dict[int, NDArray[np.float32]]:
    """Bits (H/8, W/8) of the blocks of luma (H, W), predicted by each picture that serves the video."""
    bits = {}
    for number in library.fitting(info):
        picture = library.pictures[number]
        bits[number] = residual_bits(spectra(target, luma_of(picture.decode(), picture.bit_depth)), lmbda)
    return bits
