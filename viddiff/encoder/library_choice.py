"""Choice of library pictures: two for a keyframe, or one for an anchor.

Pictures are judged block by block, without motion, by what coding the error would cost.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.library import Library
from viddiff.encoder.lookahead import luma_of
from viddiff.encoder.residual_cost import residual_bits, spectra
from viddiff.frame import Frame, VideoInfo

_BETTER = 0.95
"""An anchor must cost less than this share of its cost with the keyframe: some blocks fit by chance."""


def closest_pair(library: Library, frame: Frame, info: VideoInfo, lmbda: float) -> tuple[int, int] | None:
    """Numbers of the two pictures that predict the blocks of `frame` best; None if none fits.

    Both are the same if there is only one. lmbda: squared error (8 bits) that is worth a bit. Raises the
    errors of `LibraryPicture.decode`.
    """
    bits = _bits_by_picture(library, luma_of(frame, info.bit_depth), info, lmbda)
    pairs = list(itertools.combinations(bits, 2)) or [(number, number) for number in bits]
    return min(pairs, key=lambda pair: float(np.minimum(bits[pair[0]], bits[pair[1]]).sum()), default=None)


def second_reference(
    library: Library, frame: Frame, first: Frame, key: Frame, info: VideoInfo, lmbda: float
) -> int | None:
    """Number of the picture that complements the first reference of an anchor best.

    None if the keyframe, the usual second reference, is better. Raises the errors of `LibraryPicture.decode`.
    """
    target, alone, usual = (luma_of(picture, info.bit_depth) for picture in (frame, first, key))
    alone_bits, usual_bits = (residual_bits(spectra(target, luma), lmbda) for luma in (alone, usual))
    costs: dict[int | None, float] = {None: _BETTER * float(np.minimum(alone_bits, usual_bits).sum())}
    for number, bits in _bits_by_picture(library, target, info, lmbda).items():
        costs[number] = float(np.minimum(alone_bits, bits).sum())
    return min(costs, key=costs.__getitem__)


def _bits_by_picture(
    library: Library, target: NDArray[np.uint8], info: VideoInfo, lmbda: float
) -> dict[int, NDArray[np.float32]]:
    """Bits (H/8, W/8) of the blocks of luma (H, W), predicted by each picture of the video's size."""
    bits = {}
    for number in library.fitting(info):
        picture = library.pictures[number]
        bits[number] = residual_bits(spectra(target, luma_of(picture.decode(), picture.bit_depth)), lmbda)
    return bits
