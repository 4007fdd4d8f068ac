"""Plots by matplotlib, which is an optional dependency."""

from pathlib import Path
from typing import TYPE_CHECKING

from viddiff.errors import ViddiffError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches. Raises ViddiffError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ViddiffError("--plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", target: Path) -> None:
    """Write the figure as a PNG, complete or not at all. Raises OSError if it cannot be written."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
