"""Pictures of figures, by matplotlib, which need not be there."""

from pathlib import Path
from typing import TYPE_CHECKING

from viddiff.errors import ViddiffError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, its sides in inches. ViddiffError if matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ViddiffError("--plot needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", target: Path) -> None:
    """Write it as a PNG, which appears complete or not at all. OSError if it cannot be written."""
    temporary = target.with_name(f".{target.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
