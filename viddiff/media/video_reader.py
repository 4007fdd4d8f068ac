"""Read the video of any source that libav reads, as frames with exact times."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import ceil, floor
from typing import Self, cast

import av
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from viddiff.config import MAX_PIXELS, MAX_SIDE, MIN_SIDE, SIZES, Start, allowed_size
from viddiff.errors import LimitError, SourceChangeError, VideoError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.appearance import Appearance, usual
from viddiff.media.avi_times import Slots
from viddiff.media.demuxer import Demuxer, Source, is_cover
from viddiff.media.filters import Changes, Formatter, at_rate, least_alpha
from viddiff.media.libav_errors import FAILURES, reason_of
from viddiff.media.picture_planes import PIXEL_FORMATS, planes_from_picture
from viddiff.media.picture_properties import (
    BT709,
    BT2020,
    LEFT,
    Layout,
    code_point,
    display_of,
    logged_properties,
    side_data_lost,
)
from viddiff.media.stream_choice import choose_stream

_DECLARED = ("matroska", "mov", "avi")
"""Formats that declare their length in advance, by libav's first name."""
_SEEKABLE = ("matroska", "mov", "mpegts")
"""Formats that have times and can be entered at any keyframe."""
_EARLIER = (0, 4, 16)
"""Seconds before the wanted time at which to look for a keyframe, one after the other."""
_UNDATED, _UNDATED_BYTES = 8, 256 << 20
"""Frames at the start in which to look for one with a time; more, if they need no more memory."""
_LOOKED_AT, _LOOKED_AT_BYTES = 50, 64 << 20
"""Pictures at the beginning of which most say how the whole video is stored; how much memory they take."""
_USUAL_RATE, _RATE_PACKETS = 240, 8
"""Frames per second beyond which packets are asked, too, and how many."""
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
"""Value of Matroska's tag DURATION."""
_MISSING = 0.5
"""Seconds that must be missing before a file counts as truncated."""
_GIVEN_TIME = "frames without a time got one from the frame rate"


class VideoReader:
    """Frames of a file's video in presentation order, once.

    8- and 10-bit 4:2:0 are unchanged, byte for byte. Anything else is converted, and `notes` says so. Times
    are those of the stream, in units of `info.time_base`, made strictly increasing.
    """

    def __init__(
        self,
        source: Source | Demuxer | Callable[[], Demuxer],
        start: Start = 0,
        frames: int | None = None,
        threads: int = 1,
        changes: Changes | None = None,
        drop_alpha: bool = False,
        video: int | None = None,
    ) -> None:
        """Open the video of `source`. A Demuxer is not closed here, unless it is given as a function.

        frames: number of source frames. drop_alpha: remove an alpha channel instead of refusing the file.
        video: number of the video stream to take, from 0; None: the first that shows moving pictures.
        Raises VideoError, LimitError.
        """
        self.notes: list[str] = []
        """Notes for the user, complete after the last frame was read."""
        self._demuxer = _opened(source)
        self._own = None if self._demuxer is source else self._demuxer
        self._name = self._demuxer.name
        self.open_again: Callable[[], VideoReader] = partial(
            VideoReader, self._demuxer.open_again, start, frames, threads, changes, drop_alpha, video
        )
        """Opens the same source again, also in another process."""
        self._changes, self._drop_alpha, self._video = changes or Changes(), drop_alpha, video
        try:
            stream = self._claim_stream(threads)
            pictures = self._filtered(stream)
            last = None if frames is None or isinstance(start, Fraction) else start + frames
            early = self._first_ones(pictures, last)
            first, pictures = early[0], itertools.chain(early, pictures)
            looks = [cast(Appearance, picture.opaque) for picture in early]
            place = usual(looks)
            self._look, self._noted = looks[place], set[str]()
            aspect = self._look.aspect if len({look.aspect for look in looks}) > 1 else None
            self._original = self._describe(early[place], aspect or None, stream, start, frames)
            if self._changes.source:
                self._check_size(self._original.width, self._original.height)
            self._date(early)
            self._since = first.pts
            self.info = self._changes.of(self._original)
            self._formatter = Formatter(replace(self.info, time_base=self._original.time_base))
            if isinstance(start, Fraction):
                since = (first.pts or 0) + start / self._original.time_base
                pictures = self._near(stream, first, pictures, floor(since), threads)
                timed = self._timed(pictures)
                timed = itertools.dropwhile(lambda picture: (picture.pts or 0) < since, timed)
            else:
                timed = itertools.islice(self._timed(pictures), start, None)
        except BaseException:
            self.close()
            raise
        alike = (self._converted(picture) for picture in itertools.islice(timed, frames))
        self._pictures = at_rate(alike, self._original, self._changes)

    def __iter__(self) -> Iterator[Frame]:
        info = self.info
        for picture in self._pictures:
            planes = planes_from_picture(picture, info.bit_depth, info.width, info.height)
            yield Frame(*planes, pts=picture.pts or 0, duration=max(picture.duration or 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the source, unless others read it, too."""
        if self._own is not None:
            self._own.close()

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the source, before it is scaled."""
        return self._original.width, self._original.height

    @property
    def source_rate(self) -> Fraction:
        """Frames per second of the source, before its rate is changed."""
        return self._original.frame_rate

    @property
    def live(self) -> bool:
        """Whether the source can be read only once."""
        return self._demuxer.live

    def leave(self) -> None:
        """Stop collecting frames, so that they need not wait while others read the source."""
        self._feed.leave()

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)

    def _hint(self) -> str:
        late = self._demuxer.live and self._kind == "mov"
        return "; in a pipe, an .mp4 needs its index in front (faststart)" if late else ""

    @property
    def _kind(self) -> str:
        """libav's first name of the format."""
        return self._demuxer.container.format.name.split(",")[0]

    def _claim_stream(self, threads: int) -> VideoStream:
        """The stream from `_select_stream`, claimed for this reader."""
        stream = self._select_stream(threads)
        self._feed = self._demuxer.claim([stream])
        if self._own is not None:
            self._own.drop_others()
        return stream

    def _select_stream(self, threads: int) -> VideoStream:
        """The stream of moving pictures that is taken, ready to decode and of a size within the limits."""
        stream, note = choose_stream(self._demuxer, self._video)
        if note is not None:
            self._note(note)
        context = cast(VideoCodecContext | None, stream.codec_context)
        if context is None:
            raise VideoError(f"{self._name} has a video format that libav cannot decode")
        if not context.width or not context.height:
            raise VideoError(f"{self._name} has no frame that can be decoded{self._hint()}")
        if not self._changes.source:
            self._check_size(context.width, context.height)
        elif not _usable(context.width, context.height):
            raise LimitError(
                f"{self._name} is {context.width}x{context.height}, which is too small or too large"
            )
        if "1" in (stream.metadata.get(name) for name in ("alpha_mode", "ALPHA_MODE")):
            self._refuse_alpha()  # libav's own decoders of VP8 and VP9 do not even show it
        context.thread_type = "AUTO"
        context.thread_count = threads
        context.options = {"max_pixels": str(4 * (MAX_PIXELS + 128 * MAX_SIDE))}
        return stream

    def _check_size(self, width: int, height: int) -> None:
        """LimitError unless a picture may be of this size, which may be twice the usual if it is scaled."""
        if self._changes.scale is None:
            if not allowed_size(width, height):
                raise LimitError(
                    f"{self._name} is {width}x{height}; sizes of {SIZES} are supported; "
                    "--scale makes it another one"
                )
        elif not _usable(width, height):
            raise LimitError(
                f"{self._name} is {width}x{height}, which is too small or too large to be scaled"
            )

    def _refuse_alpha(self) -> None:
        if not self._drop_alpha:
            raise VideoError(
                f"{self._name} has an alpha channel, which viddiff cannot encode; --drop-alpha removes it"
            )
        self._note("left the alpha channel out")

    def _decode(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """Pictures from the beginning. A source that breaks off gives those that exist."""
        given, slots = 0, Slots() if self._kind == "avi" else None
        try:
            for packet in self._feed:
                if not packet.size and packet.dts is not None:
                    continue  # Theora and AVI say so that the picture before stays
                if slots is not None:
                    slots.enter(packet)
                try:
                    for picture in packet.decode():
                        given += 1
                        picture.opaque = Appearance.of(picture, stream.codec_context)
                        if slots is not None:
                            slots.leave(picture)
                        yield picture
                except (av.InvalidDataError, av.PatchWelcomeError):
                    self._note("damaged frames were left out")
        except FAILURES as error:
            raise VideoError(f"{self._name} cannot be decoded to its end: {reason_of(error)}") from error
        if self._demuxer.continuity.moved:
            self._note("times start again within the source: each part continues after the one before")
        if not self._demuxer.broken:
            self._note_missing_end(self._demuxer.end, stream)
            return
        if not given:
            raise VideoError(f"{self._name} cannot be decoded: {self._demuxer.reason}{self._hint()}")
        self._note(f"the file breaks off within ({self._demuxer.reason}), what is there is taken")
        with suppress(*FAILURES):
            for picture in stream.decode(None):
                picture.opaque = Appearance.of(picture, stream.codec_context)
                yield picture

    def _filtered(self, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """Pictures from the beginning, after the source's filters."""
        pictures, filters = self._decode(stream), self._changes.source
        if not filters:
            yield from pictures
            return
        context, unit = stream.codec_context, stream.time_base or Fraction(1, av.time_base)
        aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1)
        try:
            for picture in filters.applied(pictures, unit, aspect):
                picture.opaque = replace(Appearance.of(picture, context), aspect=aspect)
                yield picture
        except (*FAILURES, ValueError) as error:
            raise VideoError(f"{self._name} cannot be filtered: {reason_of(error)}") from error

    def _near(
        self,
        stream: VideoStream,
        first: av.VideoFrame,
        pictures: Iterator[av.VideoFrame],
        since: int,
        threads: int,
    ) -> Iterator[av.VideoFrame]:
        """Pictures from a keyframe that is shown before `since`, early enough for sound and subtitles.

        All of `pictures` if the source cannot be entered there. Pictures shown after a keyframe can be
        decoded from there, even if pictures shown before it cannot.
        """
        if self._demuxer.live or first.pts is None or self._kind not in _SEEKABLE:
            return pictures
        before = 10 if self._demuxer.container.streams.subtitles else 1
        sought = False
        for early in _EARLIER:
            wanted = since - ceil((before + early) / self._original.time_base)
            if wanted <= first.pts:
                break
            sought, key = True, self._demuxer.seek(stream, wanted)
            if key is None or key > since:
                continue
            later = self._filtered(stream)
            found = next(later, None)
            if found is not None and found.pts is not None and found.pts <= since:
                return itertools.chain([found], later)
        if not sought:
            return pictures
        self._demuxer.rewind()
        return self._filtered(self._claim_stream(threads))

    def _note_missing_end(self, end: float, stream: VideoStream) -> None:
        """Add a note if the file was read to `end` seconds, but declares to be longer."""
        container = self._demuxer.container
        if self._kind in _DECLARED and container.duration:
            declared = (container.duration + (container.start_time or 0)) / av.time_base
            if container.format.name == "avi" and stream.average_rate:  # its duration is made from its size
                declared = max(declared, float(stream.frames / stream.average_rate))
            if self._kind == "matroska":
                declared = min(declared, self._stated_end() or declared)
            if end < declared - _MISSING:
                self._note(f"the file is cut off: {end:.1f} of {declared:.1f} seconds exist and are encoded")

    def _stated_end(self) -> float | None:
        """Declared end of pictures and sound, if all tracks of Matroska state it.

        Subtitles may last longer.
        """
        streams = [s for s in self._demuxer.container.streams if s.type in ("video", "audio")]
        found = [_DURATION.fullmatch(s.metadata.get("DURATION", "")) for s in streams if not is_cover(s)]
        clocks = [[float(part) for part in match.groups()] for match in found if match is not None]
        ends = [3600 * hours + 60 * minutes + seconds for hours, minutes, seconds in clocks]
        return max(ends) if len(ends) == len(found) else None

    def _first_ones(self, pictures: Iterator[av.VideoFrame], last: int | None) -> list[av.VideoFrame]:
        """Some pictures of the beginning, as a rule at most `last`; one if there is no time to wait for more.

        VideoError if there is none.
        """
        early = list(itertools.islice(pictures, 1))
        if not early:
            filtered = " and that --vf lets through" if self._changes.source.chain else ""
            raise VideoError(f"{self._name} has no frame that can be decoded{filtered}{self._hint()}")
        size = 3 * early[0].width * early[0].height  # of 10 bits and 4:2:0, or 8 and 4:4:4
        most = 1 if self._demuxer.live else min(_LOOKED_AT, max(_UNDATED, _LOOKED_AT_BYTES // size))
        early += itertools.islice(pictures, most - 1 if last is None else min(most, last) - 1)
        most = 1 if self._demuxer.live else max(_UNDATED, _UNDATED_BYTES // size)
        while early[-1].pts is None and len(early) < most and (found := next(pictures, None)):
            early.append(found)
        return early

    def _describe(
        self,
        first: av.VideoFrame,
        stated_aspect: Fraction | None,
        stream: VideoStream,
        start: Start,
        frames: int | None,
    ) -> VideoInfo:
        """Properties of the video as 4:2:0, before any change that the user asked for.

        first: a picture that stands for all. stated_aspect: sample aspect ratio to use where the container's
        does not hold throughout.
        """
        context, layout = stream.codec_context, Layout(first)
        location, aspect, fields = logged_properties(first)
        primaries = code_point(first.color_primaries, context.color_primaries)
        matrix = code_point(first.colorspace, context.colorspace)
        if layout.rgb:
            matrix = BT2020 if primaries == BT2020 else BT709
        if not layout.subsampled_alike and not layout.gray:
            location = LEFT
        self._note_differences(first, layout, matrix, fields != "progressive")
        rate = self._rate(stream)
        seconds = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if seconds is None and self._demuxer.container.duration:
            seconds = Fraction(self._demuxer.container.duration, av.time_base)
        count = stream.frames or (round(seconds * rate) if seconds else None)
        if count is not None:
            count = max(0, count - (start if isinstance(start, int) else round(start * rate)))
            count = count if frames is None else min(count, frames)
        display = display_of(first, fields)
        stated = stated_aspect or stream.sample_aspect_ratio or aspect
        return VideoInfo(
            width=first.width,
            height=first.height,
            bit_depth=layout.bit_depth,
            time_base=stream.time_base or 1 / rate,
            frame_rate=Fraction(rate),
            primaries=primaries,
            transfer=code_point(first.color_trc, context.color_trc),
            matrix=matrix,
            full_range=layout.full_range,
            chroma_location=location,
            sample_aspect_ratio=aspect if self._changes.source else stated,
            rotation=0 if display.matrix else round(-first.rotation / 90) * 90 % 360,
            display=display,
            frame_count=count,
        )

    def _note_differences(self, first: av.VideoFrame, layout: Layout, matrix: int, interlaced: bool) -> None:
        if not layout.stored_alike:
            how = ""
            if layout.rgb:
                how = f", by the matrix of BT.{709 if matrix == BT709 else 2020} to limited range"
            elif layout.range_assumed:
                how = ", assuming full range, which is not stated"
            self._note(f"converted {layout.name} to {PIXEL_FORMATS[layout.bit_depth]}{how}")
        if interlaced:
            self._note(
                "interlaced video is coded as frames; the field order is kept; "
                "--deinterlace auto makes it progressive"
            )
        lost = side_data_lost(first)
        if lost:
            self._note(f"left out of the pictures: {', '.join(lost)}")

    def _rate(self, stream: VideoStream) -> Fraction:
        """Frames per second, as libav says, unless no camera has such a rate and packets contradict it.

        Without better knowledge, libav takes the ticks of a clock for frames.
        """
        stated = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        if stated and stated[0] <= _USUAL_RATE:
            return stated[0]
        seen = self._feed.rate(_RATE_PACKETS)
        for rate in stated:
            if rate <= _USUAL_RATE or (seen is not None and seen / 2 <= rate <= 2 * seen):
                return rate
        return seen or Fraction(25)

    def _date(self, early: list[av.VideoFrame]) -> None:
        """Give the first pictures times, counted back from the first picture that has one.

        For example, libav loses the times of Matroska before 0.
        """
        place = next((number for number, picture in enumerate(early) if picture.pts is not None), 0)
        for number in range(place):
            early[number].pts = (early[place].pts or 0) - (place - number) * self._step
            self._note(_GIVEN_TIME)

    @property
    def _step(self) -> int:
        """Time between frames, in the source's time base, as far as it is known."""
        return max(1, round(1 / (self._original.frame_rate * self._original.time_base)))

    def _timed(self, pictures: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Every picture with a time. Missing times are filled in; others move if necessary."""
        step, expected, earliest = self._step, 0, None
        for picture in pictures:
            pts = picture.pts
            if pts is None:
                pts = expected
                self._note(_GIVEN_TIME)
            if earliest is not None and pts < earliest:
                pts = earliest
                self._note("times that did not increase were moved")
            expected, earliest = pts + step, pts + 1
            picture.pts = pts
            yield picture

    def _note_change(self, picture: av.VideoFrame) -> None:
        """Say once of each property that it changes."""
        look = cast(Appearance, picture.opaque)
        for name in self._look.unlike(look):
            if name not in self._noted:
                self._noted.add(name)
                seconds = ((picture.pts or 0) - (self._since or 0)) * self._original.time_base
                self._note(self._look.change(name, look, f"at {float(seconds):.2f} s"))

    def _converted(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture as 4:2:0 in the wanted size."""
        original, layout = self._original, Layout(picture)
        if picture.opaque != self._look:
            self._note_change(picture)
        if (picture.width, picture.height) != (original.width, original.height):
            raise SourceChangeError(
                f"{self._name} changes size from {original.width}x{original.height} to "
                f"{picture.width}x{picture.height}, which is not supported"
            )
        try:
            if layout.alpha and least_alpha(picture) < 1:
                self._refuse_alpha()
            return self._formatter(picture)
        except FAILURES as error:
            raise VideoError(
                f"{self._name} holds {layout.name}, which cannot be converted: {reason_of(error)}"
            ) from error


def _opened(source: Source | Demuxer | Callable[[], Demuxer]) -> Demuxer:
    if isinstance(source, Demuxer):
        return source
    return source() if callable(source) else Demuxer(source)


def _usable(width: int, height: int) -> bool:
    """Whether pictures of this size can be brought to an allowed one."""
    return 4 * min(width, height) >= MIN_SIDE and allowed_size((width + 1) // 2, (height + 1) // 2)
