"""How much the encoder spends. The decoder never notices."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchEffort:
    """Effort of the motion search."""

    flow: int
    """Preset of the optical flow that begins it: 0 ultrafast, 1 fast, 2 medium (OpenCV's DIS)."""
    coarse_steps: tuple[int, ...]
    """Distances, in quarter samples, at which vectors of large blocks are tried around the best one."""
    fine_steps: tuple[int, ...]
    """The same for 8x8 blocks."""
    rounds: int
    """Times that both fields are searched; from the second on, each to go with the other."""


@dataclass(frozen=True)
class Effort:
    """One preset."""

    key_preset: int
    """SVT-AV1's preset for stills: 2 needs 3 to 8 % fewer bits than 4 at three times its cost."""
    try_hyper: bool
    """Whether an anchor is coded with z as well as without; other frames hardly ever gain by it."""
    motion_prices: tuple[float, ...]
    """Every frame is coded with its motion searched at each of these prices of a bit; the best is kept."""
    search: SearchEffort


PRESETS = {
    "fast": Effort(
        key_preset=3,
        try_hyper=False,
        motion_prices=(1.0,),
        search=SearchEffort(flow=0, coarse_steps=(16, 8, 4, 2, 1), fine_steps=(2, 1), rounds=1),
    ),
    "default": Effort(
        key_preset=0,
        try_hyper=True,
        motion_prices=(1.0,),
        search=SearchEffort(flow=2, coarse_steps=(32, 16, 8, 4, 2, 1), fine_steps=(4, 2, 1), rounds=3),
    ),
    "slow": Effort(
        key_preset=0,
        try_hyper=True,
        motion_prices=(1.0, 0.6, 1.6),
        search=SearchEffort(flow=2, coarse_steps=(32, 16, 8, 4, 2, 1), fine_steps=(4, 2, 1), rounds=3),
    ),
}
"""By name, cheapest first."""
