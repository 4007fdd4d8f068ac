"""A `.vdf` as a sequence of frames, each decoded from the keyframe before it."""

import operator
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, overload

from viddiff.codec.enhancer import EngineName
from viddiff.codec.load_weights import load_weights
from viddiff.codec.open_decoder import Weights
from viddiff.config import Limits
from viddiff.container.gop_table import Gop, schedule
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import Secret, key_of
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.rgb import RgbConverter, RgbImage
from viddiff.pipeline.device import choose_device
from viddiff.pipeline.gop_decoding import decode_gop
from viddiff.pipeline.job_values import check_engine
from viddiff.pipeline.weights_search import weights_to_decode

CACHE_BYTES = 256 << 20
"""Memory for recently used decoded frames, in bytes."""
_FEWEST = 16
"""Number of frames to keep whatever their size: more than a mini-GOP."""


class Video:
    """Frames of a `.vdf`: `len`, iteration, `[i]` and `[i:j:k]`. Close it, or use it in a `with` statement.

    Every frame is exact. A frame lost to damage raises BitstreamError; all others can be read. Do not share
    it between threads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        secret: Secret | None = None,
        limits: Limits | None = None,
        device: str = "auto",
        engine: EngineName | None = None,
    ) -> None:
        """Read header and index. Raises ValueError, ViddiffError, OSError."""
        check_engine(engine, device)
        self._device, self._engine, self._weights = device, engine, weights
        self._limits, self._path = limits or Limits(), Path(path)
        self._stack = ExitStack()
        try:
            key = key_of(path, secret)
            options = ReadOptions(strict=True, limits=self._limits, key=key)
            self._options, self._file = options, self._stack.enter_context(options.open(self._path))
            self._gops = schedule(self._file, self._limits)
            self._file.seek(0)
            self._header = Reader(self._file, self._limits).header
        except BaseException:
            self._stack.close()
            raise
        last = self._gops[-1] if self._gops else None
        self._count = last.first + last.frames if last else 0
        if self._count > self._limits.frames:
            self.close()
            raise LimitError(f"{self._count} frames are over the limit of {self._limits.frames}")
        self.info: VideoInfo = replace(self._header.video, frame_count=self._count)
        """Size, bit depth, rate, colour and so on."""
        self._loaded: Weights | None = None
        self._rgb: RgbConverter | None = None
        self._running: tuple[Gop, Iterator[Frame], int] | None = None
        self._kept = OrderedDict[int, Frame]()
        size = self.info.width * self.info.height * 3 // 2 * (1 if self.info.bit_depth == 8 else 2)
        self._most = max(CACHE_BYTES // size, _FEWEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and free the memory."""
        self._running = None
        self._kept = OrderedDict()
        self._stack.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        return (self._frame(number) for number in range(self._count))

    @overload
    def __getitem__(self, which: int) -> Frame: ...

    @overload
    def __getitem__(self, which: slice) -> list[Frame]: ...

    def __getitem__(self, which: int | slice) -> Frame | list[Frame]:
        """One frame by its number, or a list of frames for a slice. Raises IndexError.

        Negative numbers count from the end.
        """
        if isinstance(which, slice):
            numbers = range(self._count)[which]
            frames = {number: self._frame(number) for number in sorted(numbers)}  # each GOP is decoded once
            return [frames[number] for number in numbers]
        number = operator.index(which)
        if not -self._count <= number < self._count:
            raise IndexError(f"there is no frame {number}, for there are {self._count}")
        return self._frame(number % self._count)

    def rgb(self, which: int) -> RgbImage:
        """A frame as RGB, (H, W, 3): uint8 for 8-bit video, uint16 with 0..65535 for 10-bit video.

        Uses the video's matrix and range. Primaries and transfer do not change: HDR is not mapped to SDR.
        Rotation is not applied. Raises IndexError, and VideoError if the matrix cannot be inverted.
        """
        frame = self[which]
        if self._rgb is None:
            self._rgb = RgbConverter(self.info)
        return self._rgb(frame)

    def _frame(self, number: int) -> Frame:
        if (kept := self._kept.get(number)) is not None:
            self._kept.move_to_end(number)
            return kept
        gop, frames, following = self._run_up_to(number)
        for frame in frames:
            self._keep(following, frame)
            following += 1
            self._running = gop, frames, following
            if following > number:
                return frame
        self._running = None
        raise BitstreamError(f"frame {number} is missing")

    def _run_up_to(self, number: int) -> tuple[Gop, Iterator[Frame], int]:
        """A decoder before frame `number`: its GOP, the frames to come, and the number of the next frame."""
        running, self._running = self._running, None
        gop = self._gops[bisect_right(self._gops, number, key=operator.attrgetter("first")) - 1]
        if running is not None and running[0] is gop and running[2] <= number:
            return running
        parts = decode_gop(self._file, gop, self._load(), self._options)
        return gop, (part for part in parts if isinstance(part, Frame)), gop.first

    def _load(self) -> Weights:
        if self._loaded is None:
            path = weights_to_decode(self._header.model_hash, self._weights, self._path)
            self._loaded = load_weights(path, choose_device(self._device, self._engine), self._engine)
        return self._loaded

    def _keep(self, number: int, frame: Frame) -> None:
        self._kept[number] = frame
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
