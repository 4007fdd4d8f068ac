"""What happens to decoded pictures first: deinterlacing, cropping, a chain of libav's filters."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av

from viddiff.media.filter_chain import linked
from viddiff.media.libav_errors import FAILURES, reason_of, with_logs
from viddiff.media.picture_properties import source_arguments

DEINTERLACING = {"none": None, "auto": "interlaced", "all": "all"}
"""Which frames are deinterlaced, and bwdif's name for them."""


@dataclass(frozen=True)
class SourceFilters:
    """What happens to decoded pictures first. Raises ValueError for a chain that cannot be read."""

    deinterlace: str = "none"
    """"none", "auto" (frames that are marked as interlaced) or "all"."""
    crop: tuple[int, int, int, int] | None = None
    """Width, height, and the left and upper edge of the part to keep, luma samples before rotation."""
    chain: str | None = None
    """libav's filters with their options, as in ffmpeg's -vf: "atadenoise,hue=s=1.2"."""

    def __post_init__(self) -> None:
        if self.deinterlace not in DEINTERLACING:
            raise ValueError(f"--deinterlace is one of {', '.join(DEINTERLACING)}")
        if self.crop is not None and (min(self.crop[:2]) < 1 or min(self.crop[2:]) < 0):
            raise ValueError("--crop needs a part inside of the picture")
        self.steps()

    def __bool__(self) -> bool:
        return bool(self.steps())

    def steps(self) -> list[tuple[str, str]]:
        """Filters and their options, in the order in which they act."""
        steps = []
        if (which := DEINTERLACING[self.deinterlace]) is not None:
            steps.append(("bwdif", f"mode=send_frame:deint={which}"))
        if self.crop is not None:
            steps.append(("crop", ":".join(map(str, self.crop))))
        return steps + ([] if self.chain is None else parsed_chain(self.chain))

    def applied(
        self, pictures: Iterable[av.VideoFrame], time_base: Fraction, aspect: Fraction
    ) -> Iterator[av.VideoFrame]:
        """The filtered pictures, with times in units of `time_base`, as before.

        aspect: of the samples, width to height. A picture of another size or format begins a new graph.
        Raises PyAV's errors, ValueError for a filter that does not exist or a part outside of the picture.
        """
        graph, form = None, ""
        for picture in pictures:
            arguments = source_arguments(picture, time_base)
            if graph is None or arguments != form:
                if graph is not None:
                    graph.push(None)
                    yield from _ready(graph, time_base)
                self._check_part(picture)
                graph, form = self._graph(arguments, aspect), arguments
            try:
                graph.push(picture)
            except av.EOFError:  # a filter such as trim has let through all that it will
                yield from _ready(graph, time_base)
                return
            yield from _ready(graph, time_base)
        if graph is not None:
            graph.push(None)
            yield from _ready(graph, time_base)

    def _check_part(self, picture: av.VideoFrame) -> None:
        """libav would move a part that reaches beyond the picture."""
        width, height, left, upper = self.crop or (0, 0, 0, 0)
        if left + width > picture.width or upper + height > picture.height:
            part = f"--crop {width}x{height}+{left}+{upper}"
            raise ValueError(f"{part} reaches beyond the picture of {picture.width}x{picture.height}")

    def _graph(self, arguments: str, aspect: Fraction) -> av.filter.Graph:
        stated = ("setsar", f"sar={aspect.numerator}/{aspect.denominator}")
        steps = self.steps()
        try:
            # Some filters leave rows in reverse order in memory, which the copy puts right.
            return linked(("buffer", arguments), stated, *steps, ("copy", ""), ("buffersink", ""))
        except FAILURES:
            for number, (name, options) in enumerate(steps, 1):
                _check(name, options, ("buffer", arguments), stated, *steps[: number - 1])
            raise


def _check(name: str, options: str, *before: tuple[str, str]) -> None:
    """Raise ValueError if a filter that follows others is what libav refuses."""
    if name not in av.filter.filters_available:
        raise ValueError(f"this libav has no filter {name}")
    try:
        with with_logs():
            linked(*before, (name, options), ("buffersink", ""))
    except FAILURES as error:
        step = f"{name}={options}" if options else name
        raise ValueError(f"libav refuses the filter {step}: {reason_of(error)}") from error


def _ready(graph: av.filter.Graph, time_base: Fraction) -> Iterator[av.VideoFrame]:
    """What the graph has finished."""
    while True:
        try:
            picture = cast(av.VideoFrame, graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return
        unit = Fraction(picture.time_base) if picture.time_base else time_base
        if picture.pts is not None:
            picture.pts = round(picture.pts * unit / time_base)
        picture.duration = round((picture.duration or 0) * unit / time_base)
        picture.time_base = time_base
        yield picture


def parsed_chain(chain: str) -> list[tuple[str, str]]:
    """Filters and their options, of a chain in ffmpeg's notation: 'name=options,name=options'.

    Quotes and backslashes are taken off once, as ffmpeg's parser of graphs does. Raises ValueError for
    anything but one chain.
    """
    parts, current, quoted, place = list[str](), "", False, 0
    while place < len(chain):
        letter = chain[place]
        if letter == "\\" and not quoted and place + 1 < len(chain):
            current += chain[place + 1]
            place += 1
        elif letter == "'":
            quoted = not quoted
        elif letter == "," and not quoted:
            parts.append(current)
            current = ""
        elif letter in ";[]" and not quoted:
            raise ValueError("--vf takes one chain of filters: name=options,name=options")
        else:
            current += letter
        place += 1
    parts.append(current)
    if quoted or not all(part.strip() for part in parts):
        raise ValueError("--vf has a quote that does not end, or a filter without a name")
    pairs = (part.strip().partition("=") for part in parts)
    return [(name.strip(), options) for name, _, options in pairs]
