"""Display properties beyond size and colour: HDR10 metadata, field order, display matrix.

`container.format` specifies the chunk that holds them (DISPLAY).
"""

import struct
from dataclasses import dataclass, fields
from typing import Literal

from viddiff.errors import BitstreamError

FieldOrder = Literal["progressive", "top first", "bottom first"]
FIELD_ORDERS: tuple[FieldOrder, ...] = ("progressive", "top first", "bottom first")


@dataclass(frozen=True)
class Display:
    """Display properties. All are optional. The units are those of SMPTE ST 2086."""

    mastering_colours: tuple[int, ...] | None = None
    """Mastering display: x, y of red, green, blue and white, in units of 0.00002, 0..65535."""
    mastering_luminance: tuple[int, ...] | None = None
    """Mastering display: largest and smallest luminance, in 0.0001 cd/m2, below 2^32."""
    content_light: tuple[int, ...] | None = None
    """MaxCLL and MaxFALL, in cd/m2, 0..65535."""
    field_order: FieldOrder = "progressive"
    """Progressive, or which field of an interlaced frame comes first."""
    matrix: tuple[int, ...] | None = None
    """Nine integers of libav's display matrix, if `VideoInfo.rotation` cannot express it."""

    def pack(self) -> bytes:
        """Payload of DISPLAY. Raises BitstreamError if a number is out of range."""
        numbers = self._numbers()
        there = sum(1 << bit for bit, values in enumerate(numbers) if values is not None)
        try:
            parts = [layout.pack(*v) for layout, v in zip(_LAYOUTS, numbers, strict=True) if v is not None]
        except struct.error as error:
            raise BitstreamError("a number of DISPLAY is out of range") from error
        return b"".join([bytes([there]), *parts])

    @staticmethod
    def unpack(payload: bytes) -> "Display":
        """Inverse of `pack`. Raises BitstreamError if something is missing or unknown."""
        found: list[tuple[int, ...] | None] = []
        at = 1
        for bit, layout in enumerate(_LAYOUTS):
            if not payload[:1] or len(payload) < at + layout.size * (payload[0] >> bit & 1):
                raise BitstreamError("DISPLAY is cut off")
            there = payload[0] >> bit & 1
            found.append(layout.unpack_from(payload, at) if there else None)
            at += layout.size * there
        colours, luminance, light, order, matrix = found
        if order is not None and order[0] not in (1, 2):
            raise BitstreamError(f"DISPLAY has the unknown order of fields {order[0]}")
        return Display(colours, luminance, light, FIELD_ORDERS[order[0]] if order else "progressive", matrix)

    def _numbers(self) -> list[tuple[int, ...] | None]:
        order = FIELD_ORDERS.index(self.field_order)
        return [
            ((order,) if order else None) if field.name == "field_order" else getattr(self, field.name)
            for field in fields(self)
        ]


_LAYOUTS = tuple(struct.Struct(f"<{codes}") for codes in ("8H", "2I", "2H", "B", "9i"))
"""Layouts of the fields of `Display`, in order."""
