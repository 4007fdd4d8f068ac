"""The pipeline: frames in, a `.vdf` file out, and back. Start reading here.

    encode:  frames -> GOPs -> [keyframe | mini-GOPs of predicted frames] -> chunks -> file
    decode:  file -> chunks -> [keyframe | predicted frames] -> frames

x: frame, x_hat: reconstruction; the encoder's x_hat comes from the functions that the decoder runs (see `predicted`). A mini-GOP is one
chunk and one entropy-coded stream.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import cv2
import numpy as np

from viddiff.checkpoint import Codec
from viddiff.config import MAX_GOP, qp_of_step, step_of_quality
from viddiff.container import Header, KeyChunk, PredictedChunk, Reader, Writer
from viddiff.entropy import SymbolDecoder, SymbolEncoder
from viddiff.errors import BitstreamError, CheckpointError
from viddiff.frame import Frame, VideoInfo
from viddiff.gop import FramePlan, plan
from viddiff.keyframe import decode_still, encode_still
from viddiff.models.planes import Planes, frame_of, planes_of
from viddiff.predicted import FrameSample, FrameStats, Reference, decode_frame, encode_frame
from viddiff.search import SearchReference

LEVEL_OFFSETS = (0.0, 1.5, 2.5, 3.5)
"""QP added on each level of the hierarchy: frames that others lean on are worth more."""
LOW_DELAY_OFFSETS = (2.0, 1.0, 2.0, 0.0)
"""QP added in low delay, by position in a pattern of four frames."""
KEY_OFFSET = -1.0
KEY_PRESET = 2
"""Effort of the AV1 stills: 3 to 8 % fewer bits than preset 4 at three times its cost, once in a GOP."""
MINI_GOP = 8


@dataclass(frozen=True)
class EncodeOptions:
    """What a user can choose."""

    quality: int = 32
    """0 (smallest) to 63 (best)."""
    gop: int = 128
    """Most frames from one keyframe to the next, 1..MAX_GOP."""
    low_delay: bool = False
    """Predict from the past alone, so that no frame waits for a later one."""
    entropy: str = "ans"
    """"ans" or "huffman"."""


@dataclass
class EncodeSummary:
    """What came of an encode."""

    frames: int = 0
    keyframes: int = 0
    size_bytes: int = 0
    key_bytes: int = 0
    stats: list[FrameStats] = field(default_factory=list)
    """One for each predicted frame, in coding order; only filled where asked for."""


Observer = Callable[[EncodeSummary], None]
"""Called after every chunk."""
ReconstructionSink = Callable[[Frame], None]
"""Takes the encoder's reconstruction of every frame in display order: what any decoder will show."""


def encode(
    frames: Iterable[Frame],
    info: VideoInfo,
    out: BinaryIO,
    codec: Codec,
    options: EncodeOptions,
    progress: Observer | None = None,
    reconstruction: ReconstructionSink | None = None,
    collect: Callable[[FrameSample], None] | None = None,
) -> EncodeSummary:
    """Encode frames in presentation order to `out`, which is only written to, never sought in.

    Raises VideoError or LimitError from the frames' source unchanged. Returns totals.
    """
    header = Header(info, codec.hash, codec.name, options.gop, options.entropy, options.low_delay)
    writer = Writer(out, header)
    summary = EncodeSummary()
    encoder = _GopEncoder(codec, info, options, summary, collect)
    for group in _groups(frames, options):
        chunk, decoded = encoder.encode(group)
        writer.write(chunk)
        summary.frames += len(group.frames)
        summary.size_bytes = writer.size_bytes
        if reconstruction is not None:
            for frame in decoded:
                reconstruction(frame)
        if progress is not None:
            progress(summary)
    writer.finish()
    summary.size_bytes = writer.size_bytes
    return summary


def decode(file: BinaryIO, codec: Codec) -> Iterator[Frame]:
    """Decode all frames of a `.vdf` file in presentation order.

    Raises CheckpointError if the file was made with other weights, BitstreamError or LimitError if it is damaged.
    """
    reader = Reader(file)
    yield from decode_chunks(reader, reader, codec)


def decode_chunks(reader: Reader, chunks: Iterable[KeyChunk | PredictedChunk], codec: Codec) -> Iterator[Frame]:
    """Decode `chunks` of `reader`'s file, which must begin with a keyframe."""
    header = reader.header
    if header.model_hash != codec.hash:
        raise CheckpointError(
            f"this file was made with the weights {header.model_name!r} {header.model_hash.hex()[:16]}, "
            f"but {codec.name!r} {codec.hash.hex()[:16]} are loaded"
        )
    info = header.video
    state: dict[int, Reference] = {}
    for chunk in chunks:
        if isinstance(chunk, KeyChunk):
            key = decode_still(chunk.payload, info.width, info.height, info.bit_depth)
            state = {0: Reference(0, planes_of(key, info.bit_depth, codec.device))}
            yield Frame(key.y, key.u, key.v, chunk.pts)
            continue
        if not state:
            raise BitstreamError("predicted frames come before any keyframe")
        stream = SymbolDecoder(chunk.payload, header.entropy)  # type: ignore[arg-type]
        previous = max(state)
        for item in plan(previous, len(chunk.pts), not header.low_delay):
            references = (state[item.first], state[item.second])
            state[item.time] = decode_frame(codec, item, references, stream, info.bit_depth)
        stream.finish()
        for offset, pts in enumerate(chunk.pts, 1):
            planes = state[previous + offset].planes
            yield frame_of(planes, info.width, info.height, info.bit_depth, pts)
        state = _still_needed(state)


def _still_needed(state: dict[int, Reference]) -> dict[int, Reference]:
    """The keyframe and the last two frames."""
    last = max(state)
    return {time: reference for time, reference in state.items() if time == 0 or time >= last - 1}


@dataclass(frozen=True)
class _Group:
    """Frames of one chunk: a keyframe alone or a mini-GOP."""

    key: bool
    frames: list[Frame]


def _groups(frames: Iterable[Frame], options: EncodeOptions) -> Iterator[_Group]:
    """Cut the video into keyframes and mini-GOPs, at scene cuts and at the longest GOP."""
    size = 1 if options.low_delay else MINI_GOP
    gop = min(max(options.gop, 1), MAX_GOP)
    pending: list[Frame] = []
    since_key = gop
    small: np.ndarray | None = None
    for frame in frames:
        reduced = _thumbnail(frame)
        cut = small is not None and _is_cut(small, reduced)
        small = reduced
        if cut or since_key >= gop:
            if pending:
                yield _Group(False, pending)
            yield _Group(True, [frame])
            pending, since_key = [], 1
            continue
        pending.append(frame)
        since_key += 1
        if len(pending) == size:
            yield _Group(False, pending)
            pending = []
    if pending:
        yield _Group(False, pending)


def _thumbnail(frame: Frame) -> np.ndarray:
    size = (max(frame.y.shape[1] // 8, 2), max(frame.y.shape[0] // 8, 2))
    small = cv2.resize(frame.y, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return small / (4 if frame.y.dtype == np.uint16 else 1)


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two thumbnails have so little in common that prediction would not pay."""
    difference = float(np.abs(before - after).mean())
    spread = float(np.abs(after - after.mean()).mean())
    return difference > 12 and difference > 0.8 * spread


class _GopEncoder:
    """Encodes groups in order, keeping the references of the GOP under way."""

    def __init__(self, codec: Codec, info: VideoInfo, options: EncodeOptions, summary: EncodeSummary,
                 collect: Callable[[FrameSample], None] | None) -> None:
        self.codec, self.info, self.options, self.summary, self.collect = codec, info, options, summary, collect
        self.state: dict[int, Reference] = {}
        self.searched: dict[int, SearchReference] = {}

    def encode(self, group: _Group) -> tuple[KeyChunk | PredictedChunk, list[Frame]]:
        if group.key:
            return self._key(group.frames[0])
        return self._predicted(group.frames)

    def _key(self, frame: Frame) -> tuple[KeyChunk, list[Frame]]:
        depth = self.info.bit_depth
        payload = encode_still(frame, depth, key_quantiser(step_of_quality(self.options.quality, KEY_OFFSET)), KEY_PRESET)
        decoded = decode_still(payload, self.info.width, self.info.height, depth)
        self.state = {0: Reference(0, planes_of(decoded, depth, self.codec.device))}
        self.searched = {}
        self.summary.keyframes += 1
        self.summary.key_bytes += len(payload)
        return KeyChunk(frame.pts, payload), [Frame(decoded.y, decoded.u, decoded.v, frame.pts)]

    def _predicted(self, frames: list[Frame]) -> tuple[PredictedChunk, list[Frame]]:
        info, previous = self.info, max(self.state)
        stream = SymbolEncoder(self.options.entropy)  # type: ignore[arg-type]
        for item in plan(previous, len(frames), not self.options.low_delay):
            frame = frames[item.time - previous - 1]
            references = (self.state[item.first], self.state[item.second])
            searched = (self._searched(item.first), self._searched(item.second))
            planes = planes_of(frame, info.bit_depth, self.codec.device)
            self.state[item.time], stats = encode_frame(
                self.codec, item, references, planes, self._step(item), searched, stream, info.bit_depth, self.collect
            )
            self.summary.stats.append(stats)
        decoded = [
            frame_of(self.state[previous + i].planes, info.width, info.height, info.bit_depth, frame.pts)
            for i, frame in enumerate(frames, 1)
        ]
        self.state = _still_needed(self.state)
        self.searched = {time: s for time, s in self.searched.items() if time in self.state}
        return PredictedChunk(tuple(f.pts for f in frames), stream.finish()), decoded

    def _step(self, item: FramePlan) -> int:
        offsets = LOW_DELAY_OFFSETS if self.options.low_delay else LEVEL_OFFSETS
        position = item.time % len(LOW_DELAY_OFFSETS) if self.options.low_delay else item.level
        return step_of_quality(self.options.quality, offsets[position])

    def _searched(self, time: int) -> SearchReference:
        if time not in self.searched:
            self.searched[time] = SearchReference.of(_luma8(self.state[time].planes))
        return self.searched[time]


def _luma8(planes: Planes) -> np.ndarray:
    return (planes[0][0] * 0.25).round().clamp(0, 255).cpu().numpy().astype(np.uint8)


def key_quantiser(step: int) -> int:
    """AV1 quantiser (1..63) whose still has about the error of our step."""
    return min(max(round(33 + 1.85 * (qp_of_step(step) - 28)), 1), 63)
