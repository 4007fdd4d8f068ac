"""What is stated once for a whole video, though a source may change it from picture to picture."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext

_UNKNOWN = Fraction(0)
_FIELDS = {False: "progressive", True: "interlaced"}
_RANGES = {0: "unstated", 1: "limited", 2: "full"}


@dataclass(frozen=True)
class Appearance:
    """What a picture says of itself, as far as PyAV shows it at no cost."""

    interlaced: bool
    aspect: Fraction
    """Width to height of a sample, by the decoder; 0 if it does not say."""
    colour: tuple[int, int, int]
    """Primaries, transfer, matrix."""
    colour_range: int
    rotation: int
    pixel_format: str

    @classmethod
    def of(cls, picture: av.VideoFrame, context: VideoCodecContext) -> "Appearance":
        """That of `picture`, which `context` has just decoded."""
        return cls(
            picture.interlaced_frame,
            context.sample_aspect_ratio or _UNKNOWN,
            (int(picture.color_primaries), int(picture.color_trc), int(picture.colorspace)),
            int(picture.color_range),
            picture.rotation,
            picture.format.name,
        )

    def unlike(self, other: "Appearance") -> list[str]:
        """Names of the properties in which `other` differs."""
        names = [field.name for field in fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def change(self, name: str, other: "Appearance", when: str) -> str:
        """What a user has to know where this is how a video is stored, and `other` is different `when`."""
        match name:
            case "interlaced":
                stored, found = _FIELDS[self.interlaced], _FIELDS[other.interlaced]
            case "aspect":
                stored, found = (
                    f"of samples of {a.aspect or 'no stated'} aspect ratio" for a in (self, other)
                )
            case "colour":
                names = ("/".join(map(str, a.colour)) for a in (self, other))
                stored, found = (f"of the colour description {name}" for name in names)
            case "colour_range":
                stored, found = (f"of {_RANGES.get(a.colour_range, 'unstated')} range" for a in (self, other))
            case "rotation":
                stored, found = (f"to be turned by {-a.rotation % 360} degrees" for a in (self, other))
            case _:
                stored, found = self.pixel_format, other.pixel_format
        return f"pictures are {found} {when}; all are stored as {stored}, as most of the first ones are"


def usual(appearances: Sequence[Appearance]) -> int:
    """Number of the first that is like most of them: each property as most have it, as far as one has all."""
    common = {
        field.name: Counter(getattr(a, field.name) for a in appearances).most_common(1)[0][0]
        for field in fields(Appearance)
    }
    agreeing = [sum(getattr(a, name) == value for name, value in common.items()) for a in appearances]
    return agreeing.index(max(agreeing))
