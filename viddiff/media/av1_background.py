"""A background: a picture that several GOPs of a base are predicted from, in place of keyframes of their own.

SVT-AV1 takes no reference from outside. So copies of the picture stand in front of a GOP's frames, so many
that the first of them come out the same whatever follows: SVT-AV1 does not look ahead any farther.
`hidden_start` makes one start of the GOP's first unit of all copies. Nothing of it is displayed:

    copies   keyframe (displayed), hidden frames that others refer to, displayed frames that none refers to
    start    sequence header, keyframe (hidden), hidden frames

A keyframe's header states whether it is displayed; the picture does not change by it. The first part of the
start is equal in all GOPs with this picture and the same settings, so that a file needs it once.

Backgrounds are known from the coding of surveillance video (IEEE 1857; Zhang, Huang, Tian, Gao:
"Background-Modeling-Based Adaptive Prediction for Surveillance Video Coding", IEEE TIP 2014). Keyframes that
refer to pictures outside of their GOP are AVS3's library pictures (IEEE 1857.10).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from viddiff.errors import BitstreamError
from viddiff.media.av1_headers import FrameHeader
from viddiff.media.av1_obus import Bits, Obu, ObuType, SequenceHeader, SequenceTools, iter_obus

LEAST_FRAMES = 17
"""Frames that must follow copies in a hierarchy, to complete the mini-GOP in which they begin. SVT-AV1 orders
incomplete ones differently."""
_PLANES = 3
_SEGMENTS = 8
_SEGMENT_FEATURES = (
    (8, True),
    (6, True),
    (6, True),
    (6, True),
    (6, True),
    (3, False),
    (0, False),
    (0, False),
)
"""Bits and signedness of each feature of a segment (section 5.9.14)."""
_ALL_SLOTS = 0xFF


@dataclass(frozen=True)
class _Coded:
    """A frame of the copies."""

    data: bytes
    """Its OBU."""
    header: FrameHeader
    references: frozenset[int]
    """Numbers of the frames that it may be predicted from."""


@dataclass(frozen=True)
class Copies:
    """Copies of a background in front of a GOP."""

    count: int
    shared: int
    """How many of them do not depend on the frames that follow."""

    @classmethod
    def of(cls, preset: int, low_delay: bool) -> "Copies":
        """In a hierarchy: a keyframe and two and a half mini-GOPs of 32 frames.

        The first mini-GOP does not depend on what follows, at quicker presets nor does the second. In low
        delay SVT-AV1 does not look ahead.
        """
        return cls(1, 1) if low_delay else cls(80, 33 if preset < 3 else 65)


def hidden_start(units: list[bytes], shared_units: int) -> tuple[bytes, bytes]:
    """Make the start of a GOP's first unit of the units of all copies.

    Returns the part made of the first `shared_units`, and the rest. Raises BitstreamError if a frame that
    later ones refer to is displayed, the keyframe apart.
    """
    sequence = next(obu for obu in iter_obus(units[0]) if obu.type == ObuType.SEQUENCE_HEADER)
    parsed = SequenceHeader.parse(sequence.payload)
    slots, coded, shared_frames, kept = [-1] * 8, list[_Coded](), 0, set[int]()
    for number, unit in enumerate(units):
        coded += _frames(unit, parsed, slots, len(coded))
        if number == shared_units - 1:
            shared_frames, kept = len(coded), set(slots)
    for number in reversed(range(shared_frames)):
        if number in kept:
            kept |= coded[number].references
    kept |= {number for number in range(shared_frames, len(coded)) if coded[number].header.refreshed}
    if any(coded[number].header.shown for number in kept - {0}):
        raise BitstreamError("a copy of a background is displayed, and later frames refer to it")
    key = _hidden_key(coded[0].data, parsed)
    shared = [coded[number].data for number in range(1, shared_frames) if number in kept]
    rest = [coded[number].data for number in range(shared_frames, len(coded)) if number in kept]
    return b"".join([sequence.data, key, *shared]), b"".join(rest)


def _frames(unit: bytes, sequence: SequenceHeader, slots: list[int], number: int) -> Iterator[_Coded]:
    """The frames that a unit codes, from this number on. `slots` are the numbers of the frames stored."""
    for obu in iter_obus(unit):
        if obu.type != ObuType.FRAME:
            continue
        header, _ = _read(obu, sequence)
        yield _Coded(obu.data, header, frozenset(slots[slot] for slot in header.references))
        for slot in range(8):
            if header.refreshed >> slot & 1:
                slots[slot] = number
        number += 1


def _read(obu: Obu, sequence: SequenceHeader) -> tuple[FrameHeader, Bits]:
    """Header of a frame up to its quantiser, and the bits that follow."""
    bits = Bits(obu.payload)
    if sequence.tools is None or bits.read():
        raise BitstreamError("an AV1 frame is none")
    return FrameHeader.read(bits, sequence, sequence.tools), bits


def _hidden_key(data: bytes, sequence: SequenceHeader) -> bytes:
    """A displayed keyframe (an OBU) as one that is not displayed.

    That takes three more fields: showable_frame and error_resilient_mode, both 0, after show_frame, and
    refresh_frame_flags. What follows the header stays on whole bytes.
    """
    (obu,) = iter_obus(data)
    header, bits = _read(obu, sequence)
    if sequence.tools is None or not (header.shown and header.coding.intra):
        raise BitstreamError("a background does not begin with a displayed keyframe")
    _skip_rest(bits, sequence.tools, header)
    end, at, value = bits.position, header.refreshed_at, int.from_bytes(obu.payload, "big")
    width = 8 * len(obu.payload)
    tiles = obu.payload[-(-end // 8) :]

    def field(start: int, stop: int) -> str:
        return f"{value >> width - stop & (1 << stop - start) - 1:0{stop - start}b}" if stop > start else ""

    if "1" in field(end, -(-end // 8) * 8):
        raise BitstreamError("a keyframe's header is not followed by zeros")
    # show_existing_frame and frame_type, show_frame, showable_frame, error_resilient_mode
    text = field(0, 3) + "0" + "0" + "0" + field(4, at) + f"{_ALL_SLOTS:08b}" + field(at, end)
    text += "0" * (-len(text) % 8)
    payload = int(text, 2).to_bytes(len(text) // 8, "big") + tiles
    return obu.data[:1] + _leb128(len(payload)) + payload


def _leb128(number: int) -> bytes:
    return bytes([number & 127 | 128]) + _leb128(number >> 7) if number > 127 else bytes([number])


def _skip_rest(bits: Bits, tools: SequenceTools, header: FrameHeader) -> None:
    """Skip a keyframe's header from base_q_idx on (sections 5.9.12 to 5.9.22)."""
    deltas = _skip_steps(bits, tools)
    segments = _skip_segments(bits)
    lossless = not header.coding.quantiser and not deltas
    if lossless and segments:
        raise BitstreamError("parts of a keyframe may be lossless, which no base layer's are")
    if header.coding.quantiser and bits.read():  # delta_q_present
        bits.read(2)
        if not header.block_copy and bits.read():  # delta_lf_present
            bits.read(2 + 1)
    if not (lossless or header.block_copy):
        _skip_loop_filter(bits)
        if tools.cdef:
            bits.read(2)
            strengths = 1 << bits.read(2)
            bits.read(strengths * 2 * (4 + 2))
        if tools.restoration:
            _skip_restoration(bits, tools)
    bits.read(1 if lossless else 1 + 1)  # tx_mode_select, reduced_tx_set


def _skip_steps(bits: Bits, tools: SequenceTools) -> bool:
    """Skip quantization_params() after base_q_idx. True if a plane has steps of its own."""
    deltas = _delta(bits)  # luma
    chroma = 4 if tools.separate_chroma_steps and bits.read() else 2
    for _ in range(chroma):
        deltas |= _delta(bits)
    if bits.read():  # using_qmatrix
        bits.read(4 * (_PLANES if tools.separate_chroma_steps else _PLANES - 1))
    return bool(deltas)


def _delta(bits: Bits) -> int:
    """Bits of a read_delta_q()."""
    return bits.read(7) if bits.read() else 0


def _skip_segments(bits: Bits) -> bool:
    """Skip segmentation_params(). True if there are segments."""
    if not bits.read():
        return False
    for _ in range(_SEGMENTS):
        for size, signed in _SEGMENT_FEATURES:
            if bits.read():
                bits.read(size + signed)
    return True


def _skip_loop_filter(bits: Bits) -> None:
    levels = bits.read(6), bits.read(6)
    if any(levels):
        bits.read(6 + 6)
    bits.read(3)
    if bits.read() and bits.read():  # loop_filter_delta_enabled, loop_filter_delta_update
        for _ in range(8 + 2):
            if bits.read():
                bits.read(7)


def _skip_restoration(bits: Bits, tools: SequenceTools) -> None:
    kinds = [bits.read(2) for _ in range(_PLANES)]
    if not any(kinds):
        return
    if bits.read() and not tools.large_superblocks:  # lr_unit_shift
        bits.read()  # lr_unit_extra_shift
    if any(kinds[1:]):
        bits.read()  # lr_uv_shift
