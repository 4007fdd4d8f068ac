"""Plots by matplotlib, which is an optional dependency."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viddiff.errors import OutputError, ViddiffError

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure

INK = "#010203"
"""Colour of text and lines that take the colour of the page in `svg_text`."""
_SOFTWARE = "viddiff plot"
"""PNG's name of the software that wrote a plot."""
_UNUSED_NAME = re.compile(r' id="[a-z0-9.]+_\d+"')
"""Names of groups in matplotlib's SVG, which would be the same in every plot of a page."""


def new_figure(width: float, height: float, purpose: str = "--plot") -> "Figure":
    """An empty figure of this size in inches. Raises ViddiffError if matplotlib is missing.

    purpose: what needs it, for that message.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ViddiffError(f"{purpose} needs matplotlib: pip install 'viddiff[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def check_plot(target: Path) -> None:
    """Raises OutputError if a plot cannot be written here, or would replace a file that is no such plot."""
    if not target.exists():
        if not target.parent.is_dir():
            raise OutputError(f"the folder {target.parent} does not exist")
    elif not target.is_file() or not _is_plot(target):
        raise OutputError(f"{target} exists, and it is not such a plot: remove it or choose another name")


def _is_plot(path: Path) -> bool:
    with open(path, "rb") as file:
        return f"tEXtSoftware\0{_SOFTWARE}".encode() in file.read(256)


def save_figure(figure: "Figure", target: Path) -> None:
    """Write the figure as a PNG, complete or not at all. It replaces a plot, and no other file.

    Raises OutputError and OSError if it cannot be written.
    """
    check_plot(target)
    temporary = target.with_name(f".{target.name}.part")
    try:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": _SOFTWARE})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def use_log_rates(axes: "Axes") -> None:
    """Make the horizontal axis logarithmic, with numbers that people read."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def svg_text(figure: "Figure", name: str) -> str:
    """The figure as an SVG element for an HTML page: text stays text, `INK` is the page's colour.

    name: differs between the figures of a page, or their parts would be mixed up.
    """
    import matplotlib

    memory = io.BytesIO()
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure.savefig(memory, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = memory.getvalue().decode()
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', element, count=1
    )
    return _UNUSED_NAME.sub("", element).replace(INK, "currentColor").strip()
