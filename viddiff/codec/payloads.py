"""Payload of a mini-GOP: optionally the anchor as a still, then the entropy-coded stream of the other frames.

still size (varint: LEB128, at most 4 bytes; 0: the anchor is predicted, too) | still | stream
"""

from viddiff.errors import BitstreamError


def pack_mini_gop(still: bytes, stream: bytes) -> bytes:
    """Join a still (empty for none) and a stream."""
    size, prefix = len(still), bytearray()
    while size >= 0x80:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*prefix, size]) + still + stream


def unpack_mini_gop(payload: bytes) -> tuple[bytes, bytes]:
    """Still (empty for none) and stream of a payload. Raises BitstreamError if it is cut off."""
    size = 0
    for position, byte in enumerate(payload[:4]):
        size |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if byte == 0 and position:
                raise BitstreamError("a mini-GOP's still size is not in its shortest form")
            start = position + 1
            break
    else:
        raise BitstreamError("a mini-GOP has no valid still size")
    if start + size > len(payload):
        raise BitstreamError("a mini-GOP's still is cut off")
    return payload[start : start + size], payload[start + size :]


_MARK = b"\0"


def pack_key(first: int, second: int, stream: bytes) -> bytes:
    """Payload of a keyframe predicted from two pictures of the library."""
    return _MARK + bytes([first, second]) + stream


def unpack_key(payload: bytes) -> tuple[int, int, bytes] | None:
    """Inverse of `pack_key`; None for a still. Raises BitstreamError if it is cut off."""
    if not payload.startswith(_MARK):
        return None
    if len(payload) < 3:
        raise BitstreamError("a keyframe is cut short")
    return payload[1], payload[2], payload[3:]
