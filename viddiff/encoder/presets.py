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


@dataclass(frozen=True)
class Effort:
    """One preset."""

    base_preset: int
    """SVT-AV1's preset for the base."""
    key_preset: int
    """SVT-AV1's preset for stills. 2 needs 3 to 8 % fewer bits than 4, and three times its time."""
    try_hyper: bool
    """Code an anchor with and without z. Other frames hardly ever gain from z."""
    motion_prices: tuple[float, ...]
    """Factors on the price of motion bits. Every frame is coded with each of them, and the best is kept."""
    search: SearchEffort


PRESETS = {
    "fast": Effort(
        base_preset=8,
        key_preset=3,
        try_hyper=False,
        motion_prices=(1.0,),
        search=SearchEffort(flow=0, coarse_steps=(16, 8, 4, 2, 1), fine_steps=(2, 1), rounds=1),
    ),
    "default": Effort(
        base_preset=4,
        key_preset=0,
        try_hyper=True,
        motion_prices=(1.0,),
        search=SearchEffort(flow=2, coarse_steps=(32, 16, 8, 4, 2, 1), fine_steps=(4, 2, 1), rounds=3),
    ),
    "slow": Effort(
        base_preset=2,
        key_preset=0,
        try_hyper=True,
        motion_prices=(1.0, 0.6, 1.6),
        search=SearchEffort(flow=2, coarse_steps=(32, 16, 8, 4, 2, 1), fine_steps=(4, 2, 1), rounds=3),
    ),
}
"""Presets by name, fastest first."""
