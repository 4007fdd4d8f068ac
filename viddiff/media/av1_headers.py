"""What the headers of an AV1 stream say about the coding of each frame: quantiser, and whether it is intra.

Read as in the AV1 specification, sections 5.5 (sequence header) and 5.9 (frame header), as far as the
quantiser. Streams of our own encoder are read: features that it does not use (decoder models,
superresolution, tiles of unequal size, references of another size) raise BitstreamError.
"""

from dataclasses import dataclass, field

from viddiff.errors import BitstreamError

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_SELECT = 2
_ALL_SLOTS = 255


@dataclass(frozen=True)
class Coding:
    """How a shown frame was coded."""

    quantiser: int
    """base_q_idx, 0..255: an index into AV1's table of steps; larger is coarser."""
    intra: bool
    """Predicted from no other frame."""


class _Bits:
    """Reads bits, the most significant first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def __call__(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise BitstreamError("an AV1 header is cut off")
        return self._value >> self._left & (1 << count) - 1


@dataclass
class _Sequence:
    """Fields of the sequence header that frame headers depend on."""

    reduced: bool = False
    width_bits: int = 0
    height_bits: int = 0
    width: int = 0
    height: int = 0
    id_bits: int = 0
    delta_id_bits: int = 0
    large_superblocks: bool = False
    order_hint_bits: int = 0
    reference_motion: bool = False
    screen_content: int = _SELECT
    integer_motion: int = _SELECT
    superresolution: bool = False


@dataclass
class HeaderReader:
    """Follows the headers of one stream from its start; what frames were coded into is its state."""

    _sequence: _Sequence = field(default_factory=_Sequence)
    _slots: list[Coding | None] = field(default_factory=lambda: [None] * 8)

    def shown(self, unit: bytes) -> Coding:
        """The coding of the frame that a temporal unit (low-overhead format) shows. BitstreamError."""
        shown = None
        for kind, payload in _obus(unit):
            if kind == _SEQUENCE:
                self._sequence = _sequence_header(_Bits(payload))
            elif kind in (_FRAME_HEADER, _FRAME):
                shown = self._frame_header(_Bits(payload)) or shown
        if shown is None:
            raise BitstreamError("an AV1 temporal unit shows no frame")
        return shown

    def _frame_header(self, bits: _Bits) -> Coding | None:
        """Read one frame header; the coding of what it shows, if it shows anything."""
        sequence = self._sequence
        frame_type, show, resilient = _KEY, True, True
        if not sequence.reduced:
            if bits():
                return self._slots[bits(3)]
            frame_type, show = bits(2), bool(bits())
            if not show:
                bits()  # showable_frame
            resilient = frame_type == _SWITCH or (frame_type == _KEY and show) or bool(bits())
        intra = frame_type in (_KEY, _INTRA_ONLY)
        no_update = bits()  # disable_cdf_update
        screen = bits() if sequence.screen_content == _SELECT else sequence.screen_content
        integer_motion = 0
        if screen:
            integer_motion = bits() if sequence.integer_motion == _SELECT else sequence.integer_motion
        bits(sequence.id_bits)
        other_size = frame_type == _SWITCH or (not sequence.reduced and bool(bits()))
        bits(sequence.order_hint_bits)
        if not (intra or resilient):
            bits(3)  # primary_ref_frame
        refreshed = _ALL_SLOTS if frame_type == _SWITCH or (frame_type == _KEY and show) else bits(8)
        if resilient and sequence.order_hint_bits and (not intra or refreshed != _ALL_SLOTS):
            bits(8 * sequence.order_hint_bits)
        if intra:
            self._frame_size(bits, other_size)
            if screen:
                bits()  # allow_intrabc
        else:
            self._references(bits)
            if other_size and not resilient:
                raise BitstreamError("an AV1 frame takes its size from another, which is not supported")
            self._frame_size(bits, other_size)
            if not integer_motion:
                bits()  # allow_high_precision_mv
            if not bits():  # is_filter_switchable
                bits(2)
            bits()  # is_motion_mode_switchable
            if not resilient and sequence.reference_motion:
                bits()
        if not (sequence.reduced or no_update):
            bits()  # disable_frame_end_update_cdf
        _skip_tiles(bits, sequence)
        coding = Coding(bits(8), intra)
        self._slots = [coding if refreshed >> i & 1 else slot for i, slot in enumerate(self._slots)]
        return coding if show else None

    def _references(self, bits: _Bits) -> None:
        short = bits() if self._sequence.order_hint_bits else 0
        if short:
            bits(6)
        for _ in range(7):
            if not short:
                bits(3)
            bits(self._sequence.delta_id_bits)

    def _frame_size(self, bits: _Bits, other_size: bool) -> None:
        if other_size:
            raise BitstreamError("an AV1 frame has another size than its sequence, which is not supported")
        if self._sequence.superresolution and bits():
            raise BitstreamError("an AV1 frame uses superresolution, which is not supported")
        if bits():  # render_and_frame_size_different
            bits(32)


def _obus(unit: bytes) -> list[tuple[int, bytes]]:
    """(type, payload) of each OBU; BitstreamError unless every one states its size."""
    obus, at = [], 0
    while at < len(unit):
        header = unit[at]
        at += 2 if header & 4 else 1
        if not header & 2:
            raise BitstreamError("an AV1 OBU does not state its size")
        size = shift = 0
        while True:
            if at >= len(unit) or shift > 28:
                raise BitstreamError("an AV1 OBU has a malformed size")
            size |= (unit[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if unit[at - 1] < 128:
                break
        obus.append((header >> 3 & 15, unit[at : at + size]))
        at += size
    return obus


def _sequence_header(bits: _Bits) -> _Sequence:
    sequence = _Sequence()
    bits(4)  # profile, still_picture
    sequence.reduced = bool(bits())
    if sequence.reduced:
        bits(5)
    else:
        if bits():
            raise BitstreamError("an AV1 sequence has timing information, which is not supported")
        delays = bits()  # initial_display_delay_present_flag
        for _ in range(bits(5) + 1):
            bits(12)
            if bits(5) > 7:
                bits()
            if delays and bits():
                bits(4)
    sequence.width_bits, sequence.height_bits = bits(4) + 1, bits(4) + 1
    sequence.width, sequence.height = bits(sequence.width_bits) + 1, bits(sequence.height_bits) + 1
    if not sequence.reduced and bits():
        sequence.delta_id_bits = bits(4) + 2
        sequence.id_bits = bits(3) + sequence.delta_id_bits + 1
    sequence.large_superblocks = bool(bits())
    bits(2)  # filter_intra, intra_edge_filter
    if sequence.reduced:
        return sequence
    bits(4)  # interintra, masked compound, warped motion, dual filter
    ordered = bits()
    if ordered:
        bits()  # jnt_comp
        sequence.reference_motion = bool(bits())
    sequence.screen_content = _SELECT if bits() else bits()
    if sequence.screen_content:
        sequence.integer_motion = _SELECT if bits() else bits()
    if ordered:
        sequence.order_hint_bits = bits(3) + 1
    sequence.superresolution = bool(bits())
    return sequence


def _skip_tiles(bits: _Bits, sequence: _Sequence) -> None:
    """tile_info(), section 5.9.15."""
    shift = 5 if sequence.large_superblocks else 4
    columns, rows = (
        (2 * (side + 7 >> 3) + (1 << shift) - 1) >> shift for side in (sequence.width, sequence.height)
    )
    widest, largest = 4096 >> shift + 2, 4096 * 2304 >> 2 * (shift + 2)
    log_columns = _tile_log2(widest, columns)
    least = max(log_columns, _tile_log2(largest, rows * columns))
    if not bits():
        raise BitstreamError("an AV1 frame has tiles of unequal size, which is not supported")
    while log_columns < _tile_log2(1, min(columns, 64)) and bits():
        log_columns += 1
    log_rows = max(least - log_columns, 0)
    while log_rows < _tile_log2(1, min(rows, 64)) and bits():
        log_rows += 1
    if log_columns or log_rows:
        bits(log_columns + log_rows + 2)


def _tile_log2(size: int, target: int) -> int:
    """Smallest k for which size * 2^k >= target."""
    return max(0, (-(-target // size) - 1).bit_length())
