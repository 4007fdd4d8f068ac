"""Presets: how much work the encoder does. They do not affect decoding."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchEffort:
    """Effort of the motion search."""

    flow: int
    """Preset of the initial optical flow: 0 ultrafast, 1 fast, 2 medium (OpenCV's DIS)."""
    coarse_steps: tuple[int, ...]
    """Distances, in quarter samples, at which vectors of large blocks are tried around the best one."""
    fine_steps: tuple[int, ...]
    """Distances for 8x8 blocks."""
    rounds: int
    """Number of searches of both fields. From the second on, each fits the other."""


_QUICK_SEARCH = SearchEffort(flow=0, coarse_steps=(16, 8, 4, 2, 1), fine_steps=(2, 1), rounds=1)
_FULL_SEARCH = SearchEffort(flow=2, coarse_steps=(32, 16, 8, 4, 2, 1), fine_steps=(4, 2, 1), rounds=3)


@dataclass(frozen=True)
class Effort:
    """One preset. The first three matter for files with an AV1 base, the rest for files without."""

    base_preset: int
    """SVT-AV1's preset for the base."""
    enhanced: bool
    """Enhance the base. Among quicker presets, the next slower one of SVT-AV1 gains more in the same time."""
    fitted: bool
    """Fit the enhancement's last layers to each GOP. That takes a quarter of the networks' time once more."""
    key_preset: int
    """SVT-AV1's preset for stills. 2 needs 3 to 8 % fewer bits than 4, and three times its time."""
    try_hyper: bool
    """Code an anchor with and without z. Other frames hardly ever gain from z."""
    motion_prices: tuple[float, ...]
    """Factors on the price of motion bits. Every frame is coded with each of them, and the best is kept."""
    search: SearchEffort


def _quick(base_preset: int) -> Effort:
    return Effort(base_preset, False, False, 3, try_hyper=False, motion_prices=(1.0,), search=_QUICK_SEARCH)


def _full(base_preset: int, fitted: bool, motion_prices: tuple[float, ...]) -> Effort:
    return Effort(
        base_preset, True, fitted, 0, try_hyper=True, motion_prices=motion_prices, search=_FULL_SEARCH
    )


_MANY_PRICES = (1.0, 0.6, 1.6)

PRESETS = {
    "fastest": _quick(7),
    "faster": _quick(5),
    "fast": _quick(4),
    "default": _full(4, fitted=False, motion_prices=(1.0,)),
    "slow": _full(3, fitted=False, motion_prices=_MANY_PRICES),
    "slower": _full(2, fitted=True, motion_prices=_MANY_PRICES),
    "slowest": _full(1, fitted=True, motion_prices=_MANY_PRICES),
}
"""Presets by name, fastest first."""
