"""Outer structure of AV1 streams: OBUs, sequence headers, and where a displayed frame ends.

From the AV1 Bitstream and Decoding Process Specification (low-overhead format, sections 5.3 to 5.9): an OBU
is a header byte, a size (leb128) and a payload. Nothing here decodes a picture. It decides whether
`av1_stream` accepts a stream, before dav1d sees it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from viddiff.errors import BitstreamError


class ObuType(IntEnum):
    """Types of OBUs that we write or read. All others are refused."""

    SEQUENCE_HEADER = 1
    TEMPORAL_DELIMITER = 2
    FRAME_HEADER = 3
    FRAME = 6


@dataclass(frozen=True)
class Obu:
    """One OBU of a stream."""

    type: int
    data: bytes
    """The whole OBU with header and size."""
    payload: bytes


def iter_obus(data: bytes) -> Iterator[Obu]:
    """OBUs of a stream. Raises BitstreamError for one that is not sized, plain and complete."""
    start = 0
    while start < len(data):
        header = data[start]
        if header & 0b1000_0111 != 0b10:  # forbidden bit, extension flag, has-size flag, reserved bit
            raise BitstreamError("an AV1 stream has a malformed header")
        size, position = _leb128(data, start + 1)
        end = position + size
        if end > len(data):
            raise BitstreamError("an AV1 stream is cut short")
        yield Obu(header >> 3, data[start:end], data[position:end])
        start = end


def without_delimiters(data: bytes) -> bytes:
    """A stream without its temporal delimiters."""
    return b"".join(obu.data for obu in iter_obus(data) if obu.type != ObuType.TEMPORAL_DELIMITER)


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of up to 32 bits, and the position after it."""
    value = 0
    for shift in range(0, 35, 7):
        if position == len(data):
            raise BitstreamError("an AV1 stream is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BitstreamError("an AV1 stream has a malformed size field")


def with_colour(data: bytes, primaries: int, transfer: int, matrix: int) -> bytes:
    """Units whose sequence header says their colour (H.273), which a base layer's own header leaves out."""
    parts = []
    for obu in iter_obus(data):
        payload = obu.payload
        if obu.type == ObuType.SEQUENCE_HEADER:
            payload = _described(payload, (primaries, transfer, matrix))
            if len(payload) > 127:
                raise BitstreamError("an AV1 sequence header is too long")
            parts.append(obu.data[:1] + bytes([len(payload)]) + payload)
        else:
            parts.append(obu.data)
    return b"".join(parts)


def _described(payload: bytes, colour: tuple[int, int, int]) -> bytes:
    """The payload of a sequence header with color_description_present_flag set, and the description."""
    flag = SequenceHeader.parse(payload).colour_bit
    width = 8 * len(payload)
    value = int.from_bytes(payload, "big")
    before, after = value >> width - flag, value & ((1 << width - flag - 1) - 1)
    # The trailing bits are a one and zeros up to a byte: they go, and come back behind what is left.
    stop = (after & -after).bit_length()
    kept = width - flag - 1 - stop
    bits = before << 1 | 1
    for number in colour:
        bits = bits << 8 | number
    bits = (bits << kept | after >> stop) << 1 | 1
    length = flag + 1 + 24 + kept + 1
    padding = -length % 8
    return (bits << padding).to_bytes((length + padding) // 8, "big")


class Bits:
    """Reads numbers, most significant bit first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = self._size = 8 * len(data)

    def read(self, count: int = 1) -> int:
        """The next `count` bits."""
        self._left -= count
        if self._left < 0:
            raise BitstreamError("an AV1 header is cut short")
        return self._value >> self._left & ((1 << count) - 1)

    @property
    def position(self) -> int:
        """Number of bits read."""
        return self._size - self._left

    def expect(self, value: int, count: int) -> None:
        """Read `count` bits that must equal `value`."""
        if self.read(count) != value:
            raise BitstreamError("an AV1 header asks for features that no base layer has")


@dataclass(frozen=True)
class SequenceTools:
    """Fields of the sequence header that its frame headers depend on."""

    large_superblocks: bool
    """Superblocks have 128x128 samples instead of 64x64."""
    order_hint_bits: int
    reference_motion: bool
    """enable_ref_frame_mvs."""
    screen_content: int
    """seq_force_screen_content_tools; CHOSEN_BY_FRAME if each frame says."""
    integer_motion: int
    """seq_force_integer_mv; CHOSEN_BY_FRAME if each frame says."""
    cdef: bool
    """enable_cdef."""
    restoration: bool
    """enable_restoration."""
    separate_chroma_steps: bool
    """separate_uv_delta_q."""


CHOSEN_BY_FRAME = 2
"""Each frame header switches the tool on or off."""


@dataclass(frozen=True)
class SequenceHeader:
    """Properties of all frames in a sequence header (section 5.5), as far as streams may differ in them."""

    width: int
    """Largest width of a frame."""
    height: int
    """Largest height of a frame."""
    bit_depth: int
    """8 or 10."""
    tools: SequenceTools | None = field(default=None, compare=False, repr=False)
    """Set if the header was read from a stream."""
    colour_bit: int = field(default=0, compare=False, repr=False)
    """Number of bits before color_description_present_flag, which is 0."""

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.bit_depth} bits"

    @classmethod
    def parse(cls, payload: bytes) -> "SequenceHeader":
        """Read a header of 4:2:0 pictures, one layer, no film grain. Raises BitstreamError for others."""
        bits = Bits(payload)
        bits.expect(0, 3)  # seq_profile: main
        bits.expect(0, 2)  # still_picture, reduced_still_picture_header
        bits.expect(0, 2)  # timing_info_present_flag, initial_display_delay_present_flag
        bits.expect(0, 5)  # operating_points_cnt_minus_1: one operating point
        bits.expect(0, 12)  # operating_point_idc: all layers
        if bits.read(5) > 7:  # seq_level_idx: from level 4.0 on
            bits.read()  # seq_tier
        width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
        width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
        bits.expect(0, 1)  # frame_id_numbers_present_flag
        large_superblocks = bool(bits.read())
        bits.read(2 + 4)  # intra tools; interintra, masked, warped motion, dual filter
        order_hint, reference_motion = bits.read(), 0
        if order_hint:
            bits.read()  # enable_jnt_comp
            reference_motion = bits.read()
        screen_content = CHOSEN_BY_FRAME if bits.read() else bits.read()
        integer_motion = CHOSEN_BY_FRAME
        if screen_content:
            integer_motion = CHOSEN_BY_FRAME if bits.read() else bits.read()
        order_hint_bits = bits.read(3) + 1 if order_hint else 0
        bits.expect(0, 1)  # enable_superres
        cdef, restoration = bool(bits.read()), bool(bits.read())
        bit_depth = 10 if bits.read() else 8
        bits.expect(0, 1)  # mono_chrome
        colour_bit = bits.position
        bits.expect(0, 1)  # color_description_present_flag: the container says it
        bits.read(1 + 2)  # color_range, chroma_sample_position
        separate_chroma_steps = bool(bits.read())
        bits.expect(0, 1)  # film_grain_params_present
        tools = SequenceTools(
            large_superblocks,
            order_hint_bits,
            bool(reference_motion),
            screen_content,
            integer_motion,
            cdef,
            restoration,
            separate_chroma_steps,
        )
        return cls(width, height, bit_depth, tools, colour_bit)


@dataclass(frozen=True)
class FrameStart:
    """The first bits of a frame header (section 5.9.2)."""

    shown: bool
    """A displayed frame, decoded now or earlier."""
    key: bool
    """A keyframe."""

    @classmethod
    def parse(cls, obu: Obu) -> "FrameStart":
        """Read a whole frame, or a header that shows an earlier frame. Raises BitstreamError for others."""
        if not obu.payload:
            raise BitstreamError("an AV1 frame is empty")
        first = obu.payload[0]
        shows_existing, kind, shown = first >> 7, first >> 5 & 3, first >> 4 & 1
        if shows_existing != (obu.type == ObuType.FRAME_HEADER):
            raise BitstreamError("an AV1 frame and its header do not come together")
        if shows_existing:
            return cls(shown=True, key=False)
        if kind == _SWITCH_FRAME:
            raise BitstreamError("an AV1 frame is of a kind that no base layer has")
        return cls(bool(shown), kind == _KEY_FRAME)


_KEY_FRAME, _SWITCH_FRAME = 0, 3
