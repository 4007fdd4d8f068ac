"""Encode GOPs with an AV1 base: SVT-AV1 codes the frames, and the network enhances them where that pays."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.base_bit_depth import BASE_BIT_DEPTH, rounded, widened
from viddiff.codec.base_frames import BaseFrame
from viddiff.codec.base_gop_decoder import BaseStream
from viddiff.codec.base_payloads import StrengthTables, StrengthWriter, pack_frames
from viddiff.codec.enhancer import Correction, Enhancer, blocks_of
from viddiff.codec.entropy import SymbolEncoder
from viddiff.codec.side_by_side import side_by_side
from viddiff.codec.tail_update import TailUpdate, UpdateTables, updated, write_updates
from viddiff.container.format import Chunk, Header, KeyChunk, PredictedChunk, most_predicted
from viddiff.encoder.background_choice import BackgroundChoice
from viddiff.encoder.coded_group import CodedGroup
from viddiff.encoder.grouping import Group, group_regularly
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.strength_choice import Choice, Prices, Worth, choose_strengths
from viddiff.encoder.tail_fit import TailFit
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_stream import Av1Decoder, Av1Encoder, asked_index

_REST = 0.25
"""Share of the frames that a GOP may still have for which an update of the network is expected to serve."""


@dataclass
class _Gop:
    """The current GOP."""

    encoder: Av1Encoder
    stream: BaseStream
    fit: TailFit
    enhancer: Enhancer
    """With the last update."""
    groups: deque[Group] = field(default_factory=deque)
    """Groups that still wait for units."""
    units: list[bytes] = field(default_factory=list)
    """Units of these groups so far."""
    frames: int = 0
    """Frames of the chunks so far."""


class BaseGopEncoder:
    """Encodes groups in order. SVT-AV1 looks ahead, so groups are returned late."""

    parts_share_gops = False

    def __init__(self, enhancer: Enhancer, info: VideoInfo, options: EncodeOptions, threads: int = 1) -> None:
        """threads: SVT-AV1's level of parallelism. It does not change the bytes."""
        self.enhancer, self.info, self.options, self.threads = enhancer, info, options, threads
        self._tables = StrengthTables.parametric()
        self._prices = Prices.of(self._tables)
        self._updates = UpdateTables.parametric()
        self._plain = Choice.of_nothing(blocks_of(info.width, info.height))
        self._gop: _Gop | None = None
        if options.effort.enhanced:
            enhancer.prepare()

    @property
    def header(self) -> Header:
        """Header of the file."""
        options, enhancer = self.options, self.enhancer
        return Header(
            self.info,
            enhancer.hash,
            enhancer.name,
            options.gop,
            options.entropy,
            options.low_delay,
            base=True,
            network=enhancer.network,
        )

    def another(self) -> "BaseGopEncoder":
        """An encoder for another GOP of the video, which another thread may use."""
        return BaseGopEncoder(self.enhancer, self.info, self.options, self.threads)

    def groups(self, frames: Iterable[Frame]) -> Iterator[Group]:
        """Divide the video into groups.

        A scene cut gets no keyframe of its own. SVT-AV1 codes its frame as well without one, and what looks
        like a cut may be a page that scrolls.
        """
        options = self.options
        groups = group_regularly(frames, options.gop, min(options.base_group, most_predicted(self.info)))
        if not options.backgrounds:
            return groups
        choice = BackgroundChoice(self.info, options.gop)
        return (
            choice.attached_at_once(groups) if options.low_delay else choice.attached(groups, options.excerpt)
        )

    def encode(self, group: Group) -> Iterator[CodedGroup]:
        """Take the next group. Yields the groups that are finished, oldest first."""
        if group.key:
            yield from self.flush()
            self._gop = self._open(group.background)
        gop = self._gop
        if gop is None:
            raise ValueError("the first group of a video is a keyframe")
        gop.groups.append(group)
        for frame in group.frames:
            gop.units += gop.encoder.send(widened(frame, self.info.bit_depth))
        yield from self._finished(gop)

    def follow(self, group: Group) -> None:
        """Encode only what later groups need. That is everything, because SVT-AV1 cannot do less."""
        for _ in self.encode(group):
            pass

    def flush(self) -> Iterator[CodedGroup]:
        """End the GOP. Yields the remaining groups."""
        gop, self._gop = self._gop, None
        if gop is not None:
            for unit in gop.encoder.finish():
                gop.units.append(unit)
                yield from self._finished(gop)

    def _open(self, background: Frame | None) -> _Gop:
        info, options = self.info, self.options
        quantiser = options.base_quantiser
        encoder = Av1Encoder(
            replace(info, bit_depth=BASE_BIT_DEPTH),
            quantiser=quantiser,
            preset=options.effort.base_preset,
            low_delay=options.low_delay,
            threads=self.threads,
            background=background,
        )
        decoder = Av1Decoder(info.width, info.height, BASE_BIT_DEPTH)
        asked = asked_index(quantiser)
        fit = TailFit(self.enhancer, asked, self._updates)
        return _Gop(encoder, BaseStream(decoder, asked), fit, self.enhancer)

    def _finished(self, gop: _Gop) -> Iterator[CodedGroup]:
        while gop.groups and len(gop.units) >= len(gop.groups[0].frames):
            group = gop.groups.popleft()
            count = len(group.frames)
            units, gop.units = gop.units[:count], gop.units[count:]
            gop.frames += count
            yield self._code(gop, group, units, gop.encoder.background if group.key else b"")

    def _code(self, gop: _Gop, group: Group, units: list[bytes], background: bytes) -> CodedGroup:
        """Chunk of a group that has all its units, of which the first begins with `background`."""
        stream = gop.stream
        base_bytes = sum(map(len, units)) - len(background)
        symbols = SymbolEncoder(self.options.entropy)  # type: ignore[arg-type]
        writer, shown = StrengthWriter(symbols, self._tables), list[Frame]()
        if self.options.effort.enhanced:
            enhanced = self._enhanced(gop, group.frames, units, 8.0 * base_bytes, symbols, writer)
        else:
            write_updates(symbols, self._updates, self.enhancer.weights.config, {})
            depth = self.info.bit_depth
            enhanced = ((self._plain, rounded(stream.decode(unit).frame, depth)) for unit in units)
        for original, (choice, frame) in zip(group.frames, enhanced, strict=True):
            writer.put(choice.strengths, choice.kinds)
            shown.append(replace(frame, pts=original.pts))
        strengths = symbols.finish()
        payload = pack_frames([units[0][len(background) :], *units[1:]], strengths)
        chunk: Chunk
        if group.key:
            first = group.frames[0]
            payload = bytes([stream.quantiser]) + payload
            chunk = KeyChunk(first.pts, payload, first.duration, background=background)
        else:
            times = tuple(frame.pts for frame in group.frames)
            chunk = PredictedChunk(times, payload, group.frames[-1].duration)
        return CodedGroup(chunk, shown, base_bytes=base_bytes, strength_bytes=len(strengths))

    def _enhanced(
        self,
        gop: _Gop,
        originals: list[Frame],
        units: list[bytes],
        bits: float,
        symbols: SymbolEncoder,
        writer: StrengthWriter,
    ) -> Iterator[tuple[Choice, Frame]]:
        """The strengths of frames, and the frames with them. Each is to be written before the next one.

        bits: of the frames' base.
        """
        depth, decoded = self.info.bit_depth, deque(gop.stream.shown(units))
        worth = Worth.of(originals, (each.frame for each in decoded), depth, bits)
        threads, strips = self.enhancer.divided(len(decoded))
        updates = dict[str, TailUpdate]()
        if self.options.effort.fitted:
            gop.fit.add(originals, list(decoded), depth, threads)
            updates = gop.fit.updates(list(decoded), worth, depth, self._chunks(gop, len(decoded)))
        write_updates(symbols, self._updates, self.enhancer.weights.config, updates)
        if updates:
            gop.enhancer = updated(self.enhancer, gop.fit.active)
            gop.enhancer.prepare()
        jobs = (  # what no frame waits for any longer is forgotten
            partial(_measured, gop, original, decoded.popleft(), depth, strips) for original in originals
        )
        for correction, errors in side_by_side(jobs, threads):
            choice = choose_strengths(errors, worth, self._prices, writer.before)
            chosen = correction.applied(choice.strengths, depth) if choice.strengths.any() else None
            yield choice, chosen or rounded(correction.frame, depth)

    def _chunks(self, gop: _Gop, frames: int) -> float:
        """How many chunks of so many frames an update of the network is expected to serve."""
        if 1 < frames < min(self.options.base_group, most_predicted(self.info)):
            return 1.0  # the last one of the GOP or of the video
        return 1 + _REST * (self.options.gop - gop.frames) / frames


def _measured(
    gop: _Gop, original: Frame, shown: BaseFrame, bit_depth: int, strips: int
) -> tuple[Correction, list[NDArray[np.float64]]]:
    """The correction of a base frame, and the errors that each strength would leave."""
    correction = gop.enhancer.correction(shown, gop.stream.quantiser, strips)
    return correction, correction.errors(original, bit_depth)
