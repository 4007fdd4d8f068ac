"""Encode a GOP: quality of each frame, and how the anchor of each mini-GOP is coded."""

from collections.abc import Iterable, Iterator

from viddiff.codec.coding_order import FramePlan, plan
from viddiff.codec.entropy import SymbolEncoder
from viddiff.codec.library import KEY_PLAN
from viddiff.codec.payloads import pack_key, pack_mini_gop
from viddiff.codec.reference import Reference
from viddiff.codec.weights import Codec
from viddiff.config import LEVELS, lmbda_of_step, qp_of_step, step_of_quality
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.field_search import SearchReference
from viddiff.encoder.frame_encoder import (
    CodedFrame,
    FrameSample,
    FrameTarget,
    encode_frame,
    squared_error,
)
from viddiff.encoder.frame_stats import FrameStats
from viddiff.encoder.grouping import Group, group_frames
from viddiff.encoder.library_choice import closest_pair, second_reference
from viddiff.encoder.lookahead import persistence
from viddiff.encoder.motion_search import search_motion
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.reproducibility import reproducible
from viddiff.encoder.source_picture import SourcePicture, luma8
from viddiff.encoder.temporal_filter import temporally_filtered
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stills import decode_still, encode_still
from viddiff.networks.planes import Planes, frame_of

LEVEL_OFFSETS = (0.0, 2.5, 4.0, 5.5)
"""QP added on each level. Frames that others are predicted from get better quality."""
LOW_DELAY_OFFSETS = (2.0, 1.0, 2.0, 0.0)
"""QP added in low delay, by position in a pattern of four frames."""
KEY_OFFSETS = (-3.5, -3.6, -11.0)
"""QP added for keyframes: if nothing of them lives on; per unit of persistence (`lookahead`); the minimum."""
LIVE_KEY_OFFSET = -8.0
"""QP added for keyframes if later frames cannot be waited for."""
LIBRARY_OFFSET = 3.0
"""Further QP for keyframes predicted from the library, which has good quality already."""
_SEARCHED_BYTES = 128 << 20
"""Bytes of interpolated references kept for later frames. Enough for all, except for large pictures."""
STILL_OFFSET = -3.0
STILL_SHARE = 0.5
"""An anchor is also tried as a still if its prediction costs this share of the GOP's keyframe."""


class GopEncoder:
    """Encodes groups in order and keeps the references of the current GOP."""

    def __init__(self, codec: Codec, info: VideoInfo, options: EncodeOptions, sampled: bool = False) -> None:
        """sampled: groups come with what training needs of their frames."""
        self.codec, self.info, self.options = codec, info, options
        self.sampled = sampled
        self._stats: list[FrameStats] = []
        self._samples: list[FrameSample] = []
        self.state: dict[int, Reference] = {}
        self.searched: dict[int, SearchReference] = {}
        self.key_bytes = 0
        self.key_known = False
        """Whether the GOP's keyframe is predicted from the library."""

    @property
    def header(self) -> Header:
        """Header of the file."""
        options = self.options
        return Header(
            self.info, self.codec.hash, self.codec.name, options.gop, options.entropy, options.low_delay
        )

    @property
    def parts_share_gops(self) -> bool:
        """Whether several encoders can share the mini-GOPs of one GOP."""
        return not self.options.low_delay

    def another(self) -> "GopEncoder":
        """An encoder for another GOP of the video."""
        return GopEncoder(self.codec, self.info, self.options, self.sampled)

    def groups(self, frames: Iterable[Frame]) -> Iterator[Group]:
        """The video as this encoder takes it."""
        return group_frames(frames, self.options.gop, self.options.mini_gop)

    def encode(self, group: Group) -> Iterator[CodedGroup]:
        """Encode the next group."""
        yield self._encode(group)

    @reproducible()
    def _encode(self, group: Group) -> CodedGroup:
        self._stats, self._samples = [], []
        chunk: Chunk
        if group.key:
            chunk, decoded = self._key(group.frames[0], group.following)
        else:
            chunk, decoded = self._mini_gop(group.frames)
        return CodedGroup(chunk, decoded, self._stats, self._samples)

    def flush(self) -> Iterator[CodedGroup]:
        """Nothing: groups are coded at once."""
        return iter(())

    def _key(self, frame: Frame, following: list[Frame]) -> tuple[KeyChunk, list[Frame]]:
        self.state, self.searched, duration = {}, {}, frame.duration
        offset, step = LIVE_KEY_OFFSET, step_of_quality(self.options.quality)
        if following:
            lost, living, least = KEY_OFFSETS
            lives_on = persistence(frame, following[-1], self.info.bit_depth, lmbda_of_step(step))
            offset = max(lost + living * lives_on, least)
            frame = temporally_filtered(
                self.codec, frame, following, self.info, step, self.options.effort.search
            )
        payload, decoded = self._still(frame, offset)
        self.key_bytes = len(payload)
        planes, target = self._picture(decoded).planes, self._picture(frame)
        predicted = self.predict_key(target, step_of_quality(self.options.quality, offset + LIBRARY_OFFSET))
        self.key_known = False
        if predicted is not None:
            lmbda = lmbda_of_step(step_of_quality(self.options.quality, offset))
            still, known = (
                8 * len(p) + squared_error(x, target.planes) / lmbda
                for p, x in ((payload, planes), predicted)
            )
            self.key_known = known < still
            if self.key_known:
                payload, planes = predicted
        self.state = {0: Reference(0, planes)}
        return KeyChunk(frame.pts, payload, duration), [self._shown(0, frame)]

    def predict_key(self, picture: SourcePicture, step: int) -> tuple[bytes, Planes] | None:
        """Predict a keyframe from the library: payload and reconstruction. None if no picture fits."""
        library, info = self.codec.library, self.info
        pair = closest_pair(library, picture.frame, info, lmbda_of_step(step))
        if pair is None:
            return None
        first, second = (
            library.reference(number, KEY_PLAN.first, info, self.codec.device) for number in pair
        )
        stream = self._new_stream()
        coded = self._code(KEY_PLAN, (first, second), picture, step, stream)
        return pack_key(*pair, stream.finish()), coded.reference.planes

    def _still(self, frame: Frame, offset: float) -> tuple[bytes, Frame]:
        info = self.info
        quantiser = key_quantiser(step_of_quality(self.options.quality, offset))
        payload = encode_still(frame, info.bit_depth, quantiser, self.options.effort.key_preset)
        return payload, decode_still(payload, info.width, info.height, info.bit_depth)

    @reproducible()
    def follow(self, group: Group) -> None:
        """Encode only what later groups need: a keyframe, or the anchor of a mini-GOP."""
        self._stats, self._samples = [], []
        if group.key:
            self._key(group.frames[0], group.following)
        else:
            previous = max(self.state)
            anchor = self._plan(previous, group.frames)[0]
            self._anchor(anchor, self._picture(group.frames[anchor.time - previous - 1]))
            self._forget()

    def _mini_gop(self, frames: list[Frame]) -> tuple[PredictedChunk, list[Frame]]:
        previous = max(self.state)
        anchor, *others = self._plan(previous, frames)
        stream, head, still = self._anchor(anchor, self._picture(frames[anchor.time - previous - 1]))
        shown = {anchor.time: self._shown(anchor.time, frames[anchor.time - previous - 1])}
        for item in others:
            frame = frames[item.time - previous - 1]
            self._stats.append(self._predict(item, self._picture(frame), stream))
            shown[item.time] = self._shown(item.time, frame)
            if item.level == LEVELS - 1:  # nothing refers to it, and large pictures take much memory
                del self.state[item.time]
        self._forget()
        payload = head + pack_mini_gop(still, stream.finish())
        chunk = PredictedChunk(tuple(f.pts for f in frames), payload, frames[-1].duration)
        return chunk, [shown[time] for time in sorted(shown)]

    def _shown(self, time: int, frame: Frame) -> Frame:
        """Reconstruction of `frame`, coded at `time`."""
        info = self.info
        return frame_of(self.state[time].planes, info.width, info.height, info.bit_depth, frame.pts)

    def _plan(self, previous: int, frames: list[Frame]) -> list[FramePlan]:
        return plan(previous, len(frames), not self.options.low_delay)

    def _forget(self) -> None:
        """Keep the keyframe and the last two frames."""
        last = max(self.state)
        self.state = {time: r for time, r in self.state.items() if time == 0 or time >= last - 1}
        self.searched = {time: s for time, s in self.searched.items() if time in self.state}

    def _picture(self, frame: Frame) -> SourcePicture:
        return SourcePicture(frame, self.info.bit_depth, self.codec.device)

    def _anchor(self, item: FramePlan, picture: SourcePicture) -> tuple[SymbolEncoder, bytes, bytes]:
        """Code the anchor of a mini-GOP, predicted or as a still, whichever costs less.

        Returns the stream so far, the first byte of the payload (see `codec.library`), and the still.
        """
        stream = self._new_stream()
        head, second = self._second(item, picture.frame)
        stats = self._predict(item, picture, stream, second)
        if self.options.low_delay or stats.bits < STILL_SHARE * 8 * self.key_bytes:
            self._stats.append(stats)
            return stream, head, b""
        lmbda, target = lmbda_of_step(stats.step), picture.planes
        predicted = squared_error(self.state[item.time].planes, target) / lmbda + stats.bits
        payload, decoded = self._still(picture.frame, STILL_OFFSET)
        planes = self._picture(decoded).planes
        if squared_error(planes, target) / lmbda + 8 * len(payload) >= predicted:
            self._stats.append(stats)
            return stream, head, b""
        self.state[item.time] = Reference(item.time, planes)
        self.searched.pop(item.time, None)
        self._stats.append(stats.as_still(len(payload), float(((planes[0] - target[0]) ** 2).mean()) / 16))
        return self._new_stream(), bytes(len(head)), payload

    def _second(self, item: FramePlan, frame: Frame) -> tuple[bytes, Reference | None]:
        """The library picture for an anchor's second reference (None for the keyframe), and its code."""
        library, info = self.codec.library, self.info
        if self.options.low_delay or not library.fitting(info):
            return b"", None
        first, key = (self._shown(time, frame) for time in (item.first, item.second))
        lmbda, number = lmbda_of_step(self._step(item)), None
        if self.key_known:
            number = second_reference(library, frame, first, key, info, lmbda)
        if number is None:
            return b"\0", None
        return bytes([number + 1]), library.reference(number, 0, info, self.codec.device)

    def _new_stream(self) -> SymbolEncoder:
        return SymbolEncoder(self.options.entropy)  # type: ignore[arg-type]

    def _predict(
        self,
        item: FramePlan,
        picture: SourcePicture,
        stream: SymbolEncoder,
        second: Reference | None = None,
    ) -> FrameStats:
        """Encode a frame. second: used instead of its second reference."""
        references = self.state[item.first], second or self.state[item.second]
        coded = self._code(item, references, picture, self._step(item), stream)
        self.state[item.time] = coded.reference
        return coded.stats

    def _code(
        self,
        item: FramePlan,
        references: tuple[Reference, Reference],
        picture: SourcePicture,
        step: int,
        stream: SymbolEncoder,
    ) -> CodedFrame:
        """Search motion in two references and encode a frame with it."""
        effort = self.options.effort
        searched = self._searched(references[0]), self._searched(references[1])
        motion = search_motion(picture.luma8, item, references, searched, effort, lmbda_of_step(step))
        while sum(known.phases.nbytes for known in self.searched.values()) > _SEARCHED_BYTES:
            del self.searched[next(iter(self.searched))]
        target = FrameTarget(item, references, picture.planes, step, self.info.bit_depth)
        coded = encode_frame(self.codec, target, motion, stream, effort, self.sampled)
        if coded.sample is not None:
            self._samples.append(coded.sample)
        return coded

    def _step(self, item: FramePlan) -> int:
        offsets = LOW_DELAY_OFFSETS if self.options.low_delay else LEVEL_OFFSETS
        position = item.time % len(LOW_DELAY_OFFSETS) if self.options.low_delay else item.level
        return step_of_quality(self.options.quality, offsets[position])

    def _searched(self, reference: Reference) -> SearchReference:
        """The interpolated reference. It is kept for later frames, unless it is a library picture."""
        time = reference.time
        if self.state.get(time) is not reference:
            return SearchReference.of(luma8(reference.planes))
        if time not in self.searched:
            self.searched[time] = SearchReference.of(luma8(reference.planes))
        return self.searched[time]


def key_quantiser(step: int) -> int:
    """AV1 quantiser (1..63) whose still has about the error of our step."""
    return min(max(round(33 + 1.85 * (qp_of_step(step) - 28)), 1), 63)
