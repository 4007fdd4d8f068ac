"""Headers of base frames: quantiser, and whether a frame is intra-coded.

Follows the AV1 specification, section 5.9 (frame header), up to the quantiser. Only streams of our own
encoder are read: features that it does not use (tiles of unequal size, references of another size) raise
BitstreamError.
"""

from dataclasses import dataclass, field

from viddiff.errors import BitstreamError
from viddiff.media.av1_obus import CHOSEN_BY_FRAME, Bits, ObuType, SequenceHeader, SequenceTools, iter_obus

_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_ALL_SLOTS = 255
_REFERENCES = 7


@dataclass(frozen=True)
class Coding:
    """How a displayed frame was coded."""

    quantiser: int
    """base_q_idx, 0..255: an index into AV1's table of steps. Larger is coarser."""
    intra: bool
    """Not predicted from other frames."""


@dataclass
class HeaderReader:
    """Reads the headers of one stream from its start. The frames decoded so far are its state."""

    _sequence: SequenceHeader | None = None
    _slots: list[Coding | None] = field(default_factory=lambda: [None] * 8)

    def shown(self, unit: bytes) -> Coding:
        """Coding of the frame that a unit shows. Raises BitstreamError if its headers cannot be read."""
        shown = None
        for obu in iter_obus(unit):
            if obu.type == ObuType.SEQUENCE_HEADER:
                self._sequence = SequenceHeader.parse(obu.payload)
            elif obu.type in (ObuType.FRAME_HEADER, ObuType.FRAME):
                shown = self._frame(Bits(obu.payload)) or shown
        if shown is None:
            raise BitstreamError("an AV1 unit shows no frame")
        return shown

    def _frame(self, bits: Bits) -> Coding | None:
        """Read a frame header. Returns the coding of the frame that it shows, if it shows one."""
        if self._sequence is None or self._sequence.tools is None:
            raise BitstreamError("an AV1 frame comes before any sequence header")
        if bits.read():  # show_existing_frame
            return self._slots[bits.read(3)]
        header = FrameHeader.read(bits, self._sequence, self._sequence.tools)
        for slot in range(8):
            if header.refreshed >> slot & 1:
                self._slots[slot] = header.coding
        return header.coding if header.shown else None


@dataclass(frozen=True)
class FrameHeader:
    """A frame header up to the quantiser."""

    coding: Coding
    shown: bool
    refreshed: int
    """One bit for each slot that the frame is stored in."""
    references: tuple[int, ...]
    """Slots that the frame may be predicted from."""
    refreshed_at: int
    """Bits of the header before refresh_frame_flags, or before the place where a displayed keyframe lacks
    them."""
    block_copy: bool
    """allow_intrabc."""

    @classmethod
    def read(cls, bits: Bits, sequence: SequenceHeader, tools: SequenceTools) -> "FrameHeader":
        """Read the part after show_existing_frame."""
        kind, shown = bits.read(2), bool(bits.read())
        if kind == _SWITCH:
            raise BitstreamError("an AV1 frame is of a kind that no base layer has")
        if not shown:
            bits.read()  # showable_frame
        resilient = (kind == _KEY and shown) or bool(bits.read())
        intra = kind in (_KEY, _INTRA_ONLY)
        no_update = bits.read()  # disable_cdf_update
        screen = _chosen(bits, tools.screen_content)
        integer_motion = screen and _chosen(bits, tools.integer_motion)
        if bits.read():  # frame_size_override_flag
            raise BitstreamError("an AV1 frame has another size than its sequence")
        bits.read(tools.order_hint_bits)
        if not (intra or resilient):
            bits.read(3)  # primary_ref_frame
        refreshed_at = bits.position
        refreshed = _ALL_SLOTS if kind == _KEY and shown else bits.read(8)
        if resilient and tools.order_hint_bits and (not intra or refreshed != _ALL_SLOTS):
            bits.read(8 * tools.order_hint_bits)
        references = () if intra else _references(bits, tools)
        if bits.read():  # render_and_frame_size_different
            bits.read(32)
        block_copy = bool(intra and screen and bits.read())
        if not intra:
            _skip_motion_tools(bits, tools, bool(integer_motion), resilient)
        if not no_update:
            bits.read()  # disable_frame_end_update_cdf
        _skip_tiles(bits, sequence, tools)
        coding = Coding(bits.read(8), intra)
        return cls(coding, shown, refreshed, references, refreshed_at, block_copy)


def _chosen(bits: Bits, tool: int) -> int:
    """Whether a tool is on, by the sequence or by this frame."""
    return bits.read() if tool == CHOSEN_BY_FRAME else tool


def _references(bits: Bits, tools: SequenceTools) -> tuple[int, ...]:
    if tools.order_hint_bits and bits.read():  # frame_refs_short_signaling
        bits.read(6)
        return tuple(range(8))  # the others follow from order hints: any slot
    return tuple(bits.read(3) for _ in range(_REFERENCES))


def _skip_motion_tools(bits: Bits, tools: SequenceTools, integer_motion: bool, resilient: bool) -> None:
    if not integer_motion:
        bits.read()  # allow_high_precision_mv
    if not bits.read():  # is_filter_switchable
        bits.read(2)
    bits.read()  # is_motion_mode_switchable
    if not resilient and tools.reference_motion:
        bits.read()  # use_ref_frame_mvs


def _skip_tiles(bits: Bits, sequence: SequenceHeader, tools: SequenceTools) -> None:
    """Skip tile_info(), section 5.9.15."""
    shift = 5 if tools.large_superblocks else 4
    columns, rows = (
        (2 * (side + 7 >> 3) + (1 << shift) - 1) >> shift for side in (sequence.width, sequence.height)
    )
    widest, largest = 4096 >> shift + 2, 4096 * 2304 >> 2 * (shift + 2)
    log_columns = _tile_log2(widest, columns)
    least = max(log_columns, _tile_log2(largest, rows * columns))
    if not bits.read():
        raise BitstreamError("an AV1 frame has tiles of unequal size, which no base layer has")
    while log_columns < _tile_log2(1, min(columns, 64)) and bits.read():
        log_columns += 1
    log_rows = max(least - log_columns, 0)
    while log_rows < _tile_log2(1, min(rows, 64)) and bits.read():
        log_rows += 1
    if log_columns or log_rows:
        bits.read(log_columns + log_rows + 2)


def _tile_log2(size: int, target: int) -> int:
    """Smallest k for which size * 2^k >= target."""
    return max(0, (-(-target // size) - 1).bit_length())
