"""Number of processes that fit into memory, from measurements of one process."""

from viddiff.frame import VideoInfo

ENCODE_BYTES, DECODE_BYTES = 3000 << 20, 1400 << 20
"""Memory that all encoding or decoding processes may use together, unless the user sets their number."""
_PARENT_BYTES, _WORKER_BYTES = 350 << 20, 200 << 20
_ENCODE_BYTES_PER_PIXEL, _DECODE_BYTES_PER_PIXEL = 500, 850
_BASE_BYTES_PER_PIXEL = 1000  # SVT-AV1 looks ahead over many frames


def encoders_within_memory(video: VideoInfo, base: bool) -> int:
    """Largest number of processes that encode such a video, with an AV1 base or without; at least one."""
    return _workers_within(ENCODE_BYTES, _BASE_BYTES_PER_PIXEL if base else _ENCODE_BYTES_PER_PIXEL, video)


def decoders_within_memory(video: VideoInfo) -> int:
    """Largest number of processes that decode such a video; at least one."""
    return _workers_within(DECODE_BYTES, _DECODE_BYTES_PER_PIXEL, video)


def _workers_within(memory: int, bytes_per_pixel: int, video: VideoInfo) -> int:
    each = _WORKER_BYTES + bytes_per_pixel * video.width * video.height
    return max((memory - _PARENT_BYTES) // each, 1)


def frame_bytes(info: VideoInfo) -> int:
    """Bytes of a decoded frame."""
    return info.width * info.height * 3 // 2 * (1 if info.bit_depth == 8 else 2)
