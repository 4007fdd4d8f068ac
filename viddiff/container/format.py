r"""The `.vdf` file, format version 2. This docstring is the specification.

**Numbers.** All integers are little-endian.

    varint   unsigned LEB128 below 2^64 in its shortest form; a longer form is an error
    zigzag   a signed 64-bit n as the varint 2n (n >= 0) or -2n - 1 (n < 0)
    pts      presentation time: signed 64-bit, in units of the time base

**Structure.** A file is a sequence of chunks.

    file   magic 89 56 44 46 0D 0A 1A 0A | HEADER | any number of chunks | INDEX | END, and nothing after it
    chunk  type u8 | payload length varint, at most 5 bytes | payload | CRC-32 u32 (zlib's) of all before it

A payload has at most 64 MiB. Types below 0x80 are critical: a decoder rejects those it does not know, and a
second HEADER. Types from 0x80 are ancillary: a decoder checks their CRC and skips those it does not need.

    01 HEADER     02 KEY     03 PREDICTED     04 END     80 INDEX     81 TRACK     82 PACKETS     83 META
    06 BACKGROUND 07 NETWORK                             84 DISPLAY
    05 SEALED, in place of HEADER: an encrypted file, see `sealing`

**HEADER** is always the first chunk. Values that are not listed are rejected, and so are bytes after the last
field.

    u8 version               2
    u8 flags                 bit 0: Huffman coder, not ANS; bit 1: low delay; bit 2: AV1 base; bit 3, only
                             with bit 2: NETWORK follows; the others are reserved, 0
    u16 width, u16 height    16..8192 each, and at most 35,651,584 luma samples (8192x4352)
    u8 bit depth             8 or 10
    u32/u32 time base        seconds for each unit of pts; all fractions are > 0 and in lowest terms
    u32/u32 frame rate       nominal, in Hz
    u8 u8 u8 colour          primaries, transfer, matrix (code points of H.273)
    u8 range                 0 limited, 1 full
    u8 chroma location       0..6 (libav's AVChromaLocation)
    u16/u16 sample aspect ratio
    u16 rotation             0, 90, 180 or 270 degrees clockwise
    u16 gop                  1..1024, the most frames from one KEY to before the next
    32 bytes model hash      content hash of the weights that decode the file
    u8 length, model name    0..64 bytes of UTF-8, printable

HEADER has no room for extensions. What an old decoder may ignore goes into a new ancillary chunk. What it may
not ignore needs a flag, a critical type or a new version.

**DISPLAY** is optional and directly follows HEADER. It begins with a u8. Its bits say which of these fields
follow, in this order. Other bits, and bytes after the last field, are reserved: writers leave them out,
readers ignore them.

    bit 0   8 x u16    mastering display (SMPTE ST 2086): x, y of red, green, blue and white, in 0.00002
    bit 1   2 x u32    its largest and smallest luminance, in 0.0001 cd/m2
    bit 2   2 x u16    content light level: MaxCLL, MaxFALL, in cd/m2
    bit 3   u8         interlaced frames: 1 top field first, 2 bottom field first
    bit 4   9 x i32    libav's display matrix, which replaces HEADER's rotation

**NETWORK** follows HEADER, or DISPLAY, in a file whose HEADER says so, and in no other. It has at most 1 MiB
and is not empty. It says how the network that decodes the file differs from the weights that HEADER names
(`codec.file_network`). All frames need it; only the AV1 base alone can be shown without.

**KEY** is a frame that needs no other frame.

    4B 46 ("KF", to find it after damage) | varint number of the frame | zigzag pts
    only in a file with an AV1 base: 00, or 01 | u32 identity of a BACKGROUND
    picture: AV1 still, or predicted (`codec.library`); the first frame of a base (`codec.base_payloads`) in a
    file with an AV1 base

**BACKGROUND** is what several GOPs of a file with an AV1 base begin with (`media.av1_background`). It stands
in the file once, not in each KEY.

    42 47 ("BG", to find it after damage) | 1 byte or more: the start of the first unit

Its identity is the CRC-32 of its payload. KEY may name the BACKGROUND that came last, and those before it as
long as these are four different ones, of at most 64 MiB together. Writers repeat a BACKGROUND for a KEY if 64
others came since its last copy: damage costs no more GOPs, and who joins a stream late waits no longer.

**PREDICTED** is n frames that are displayed after all frames before them, and predicted from frames of the
same GOP. n is 1..64. More than 8 frames have at most 8 * 4096 * 2304 luma samples together, so that a decoder
can hold them all.

    varint      number of the first frame
    u8 timing   bits 0..5: n - 1; bit 6: irregular; bit 7: reserved, 0
    varints     pts of each frame minus that of the frame displayed before it, minus 1:
                n numbers if irregular, otherwise one number for all frames
    pictures    the rest of the payload (`codec.payloads`, `codec.library`; `codec.base_payloads`)

The first chunk of frames is KEY, and pts strictly increase.

**Place.** Frames are numbered from 0 through the whole file, in display order. The number in KEY and
PREDICTED is that of the frame after the chunk before. No two chunks of a file have the same one, so it states
both the GOP of a chunk and the place in it, and the CRC covers it. A chunk that was swapped, repeated,
dropped or moved does not fit, whatever its size.

**INDEX** serves to seek.

    varint number of frames | varint number of KEY chunks | for each KEY chunk:
        varint offset from the file's first byte, minus that of the KEY before
        varint number of the frame from 0, minus that of the KEY before
        zigzag pts
        only in a file with an AV1 base: varint 0, or the offset of KEY minus that of its BACKGROUND
    varint duration of the last frame, in units of the time base, 1..2^63 - 1; left out if unknown

A frame is shown until the next one. INDEX alone states how long the last one is shown.

**META, TRACK and PACKETS** carry everything beside the video. Decoding frames needs none of them. META and
TRACK stand before the first KEY, and both have this form:

    varint size of JSON, at most 4 MiB | JSON, an object in UTF-8 | data

META is one of two. All META chunks have at most 264 MiB.

    {"tags": {..}, "chapters": [[start, end, numerator, denominator, {..}]..],
    "video": {"tags": {..}, "disposition": n}}
        without data. Chapters are in units of numerator/denominator seconds; {..} is text by name.

    {"name": .., "mime": ..}
        an attachment, which is the data.

TRACK describes a stream of packets. The first has number 0; there are at most 64.

    {"kind": "audio", "subtitle" or "data", "codec": libav's name, "time_base": [numerator, denominator],
    "format": "matroska", "mp4", "mov" or "mpegts", "tags": {..}, "disposition": n,
    "details": {.. numbers or text for people}}

Its data is a media file of that format. The only stream of that file has the track's codec parameters; its
packets mean nothing. Dispositions are libav's bits.

PACKETS holds packets up to its end. Their bytes and times are those of the source.

    varint   4 x track + 2 x regular + key; key: decoding may begin here
    zigzag   pts in the track's time base, within 2^31 s of 0    } both only if not regular
    varint   duration, 0 if unknown, below 2^31 s                }
    varint   size | bytes

A regular packet begins where the track's packet before it in this chunk ends, and has the same duration.

All times are on the video's time line: a packet at 2 s belongs to a frame at 2 s. Packets come in stored
order. A packet stands before the first chunk whose frames are not earlier, unless it came after them.

**END** has 14 bytes and directly follows INDEX.

    u64 offset of INDEX from the file's first byte

A reader rebuilds a missing or false INDEX from the chunks. Around damage it goes on like this:

1. It drops a chunk of frames that does not have the next number. PREDICTED with the next number goes on.
2. After a chunk that is damaged or critical and unknown, it drops PREDICTED up to the next KEY. KEY without
   its BACKGROUND is damaged. A damaged BACKGROUND alone costs the GOPs that need that copy.
3. KEY with a larger number than the next may follow lost frames, or may have been moved. It waits, and so
   does a good KEY with a smaller number after it. Only the last two wait. A chunk of frames confirms the one
   with the largest number below its own, the last of two equal ones, and drops the other. The end of the file
   confirms the last one if no frame came after it. Its number tells how many frames are lost.
"""

import copy
import io
import re
import struct
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, BinaryIO

from viddiff.config import MAX_GOP, MAX_PAYLOAD, MAX_SIDE, MIN_SIDE, SIZES, USUAL_PIXELS, allowed_size
from viddiff.display import Display
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import VideoInfo

MAGIC = b"\x89VDF\r\n\x1a\n"
HEADER, KEY, PREDICTED, END, SEALED, BACKGROUND, NETWORK = 1, 2, 3, 4, 5, 6, 7
INDEX, TRACK, PACKETS, META, DISPLAY = 0x80, 0x81, 0x82, 0x83, 0x84
MAX_PREDICTED = 64
"""Largest number of frames in a PREDICTED chunk of small pictures. For large ones see `most_predicted`."""
ALWAYS_PREDICTED = 8
"""Number of frames that a PREDICTED chunk may hold at any size."""
MAX_PREDICTED_PIXELS = ALWAYS_PREDICTED * USUAL_PIXELS
"""Largest number of luma samples in a PREDICTED chunk of more frames."""
ENTROPY_CODERS = ("ans", "huffman")
VERSION = 2
"""Version of the format."""
KEY_MARK = b"KF"
BACKGROUND_MARK = b"BG"
END_SIZE = 14
MOST_BACKGROUNDS = 4
"""Different BACKGROUND chunks that KEY may refer to."""
MAX_NETWORK = 1 << 20
"""Largest payload of NETWORK, in bytes."""
_BACKGROUND_KEYS = 64
"""KEY chunks after which a BACKGROUND is repeated."""
PIECE = 1 << 16
KEY_START = re.compile(rb"\x02[\x80-\xff]{0,3}[\x00-\x7f]KF")
RECOVERY_START = re.compile(rb"\x02[\x80-\xff]{0,3}[\x00-\x7f]KF|\x06[\x80-\xff]{0,3}[\x00-\x7f]BG")
"""Start of a chunk from which reading can go on after damage."""
# Name, struct code (two of them: a fraction) and allowed numbers.
_FIELDS: tuple[tuple[str, str, range | tuple[int, ...]], ...] = (
    ("version", "B", (VERSION,)),
    ("flags", "B", (*range(8), *range(12, 16))),
    ("width", "H", range(MIN_SIDE, MAX_SIDE + 1)),
    ("height", "H", range(MIN_SIDE, MAX_SIDE + 1)),
    ("bit_depth", "B", (8, 10)),
    ("time_base", "II", range(1, 1 << 32)),
    ("frame_rate", "II", range(1, 1 << 32)),
    ("primaries", "B", range(256)),
    ("transfer", "B", range(256)),
    ("matrix", "B", range(256)),
    ("full_range", "B", range(2)),
    ("chroma_location", "B", range(7)),
    ("sample_aspect_ratio", "HH", range(1, 1 << 16)),
    ("rotation", "H", (0, 90, 180, 270)),
    ("gop", "H", range(1, MAX_GOP + 1)),
)
_LAYOUT = struct.Struct("<" + "".join(codes for _, codes, _ in _FIELDS) + "32sB")
_ALLOWED = [(label, allowed) for label, codes, allowed in _FIELDS for _ in codes]


def _check(numbers: Iterable[int]) -> None:
    found: dict[str, int] = {}
    for (label, allowed), number in zip(_ALLOWED, numbers, strict=True):
        if number not in allowed:
            expected = f"{allowed[0]}..{allowed[-1]}" if isinstance(allowed, range) else f"in {allowed}"
            error = LimitError if label in ("width", "height", "gop") else BitstreamError
            raise error(f"header field {label} is {number}, not {expected}")
        found[label] = number
    if not allowed_size(found["width"], found["height"]):
        raise LimitError(f"the header's size is {found['width']}x{found['height']}, not of {SIZES}")


@dataclass(frozen=True)
class Header:
    """Properties of the whole file. `video.frame_count` is not stored."""

    video: VideoInfo
    model_hash: bytes
    """Content hash of the weights, 32 bytes."""
    model_name: str
    """Name for people: printable, at most 64 bytes of UTF-8."""
    gop: int
    """Largest number of frames from one keyframe to the next, 1..MAX_GOP."""
    entropy: str = "ans"
    """One of ENTROPY_CODERS."""
    low_delay: bool = False
    """No frame is predicted from a later one."""
    base: bool = False
    """An AV1 stream carries the frames, and networks enhance them. Otherwise networks predict them."""
    network: bytes | None = b""
    """Payload of NETWORK, which HEADER only announces. Empty: there is none. None: it is announced, but not
    there."""

    def pack(self) -> bytes:
        """Payload of HEADER. Raises BitstreamError or LimitError if the format cannot hold a value."""
        flags = ENTROPY_CODERS.index(self.entropy) | self.low_delay << 1 | self.base << 2
        flags |= (self.network != b"") << 3
        values: dict[str, Any] = vars(self.video) | {"version": VERSION, "flags": flags, "gop": self.gop}
        numbers: list[int] = []
        for label, codes, _ in _FIELDS:
            value = values[label]
            numbers += [int(value)] if len(codes) == 1 else [value.numerator, value.denominator]
        _check(numbers)
        name = self.model_name.encode(errors="replace")
        if len(self.model_hash) != 32 or len(name) > 64 or not self.model_name.isprintable():
            raise BitstreamError("the model's hash is not 32 bytes or its name not up to 64 printable ones")
        return _LAYOUT.pack(*numbers, self.model_hash, len(name)) + name

    @staticmethod
    def unpack(data: bytes) -> "Header":
        """Inverse of `pack`. Raises BitstreamError or LimitError if the payload violates the format."""
        if len(data) < _LAYOUT.size:
            raise BitstreamError("the header is cut off")
        *numbers, model_hash, _ = _LAYOUT.unpack_from(data)
        _check(numbers)
        rest = iter(numbers)
        values: dict[str, Any] = {
            label: next(rest) if len(codes) == 1 else Fraction(next(rest), next(rest))
            for label, codes, _ in _FIELDS
        }
        _, flags, gop = (values.pop(label) for label in ("version", "flags", "gop"))
        video = VideoInfo(**values | {"full_range": bool(values["full_range"])})
        name = data[_LAYOUT.size :].decode(errors="replace")
        header = Header(
            video,
            model_hash,
            name,
            gop,
            ENTROPY_CODERS[flags & 1],
            low_delay=bool(flags & 2),
            base=bool(flags & 4),
            network=None if flags & 8 else b"",
        )
        if header.pack() != data:
            raise BitstreamError("a fraction is not in lowest terms, or the model's name is damaged")
        return header


class MisplacedChunkError(BitstreamError):
    """A good chunk of frames stands where another one should."""


@dataclass(frozen=True)
class KeyChunk:
    """A frame that needs no other: pts (signed 64-bit, in units of `time_base`) and picture."""

    pts: int
    payload: bytes
    duration: int = 0
    """How long its frame is shown, 0 if unknown; a file has it of its last frame alone."""
    first: int = field(default=0, compare=False)
    """Number of its frame in the file, from 0. A reader sets it; a writer counts itself."""
    background: bytes | None = b""
    """What its GOP begins with, of a BACKGROUND. Empty if it has none, None if that is missing."""
    background_offset: int | None = field(default=None, compare=False)
    """Position of that BACKGROUND in the file. A reader sets it."""

    @property
    def times(self) -> tuple[int, ...]:
        """Presentation times of its frames, one."""
        return (self.pts,)


@dataclass(frozen=True)
class PredictedChunk:
    """A mini-GOP of 1..64 frames: absolute presentation times in display order, and pictures."""

    pts: tuple[int, ...]
    payload: bytes
    duration: int = 0
    """How long the last of its frames is shown, as of `KeyChunk`."""
    first: int = field(default=0, compare=False)
    """Number of its first frame in the file, as of `KeyChunk`."""

    @property
    def times(self) -> tuple[int, ...]:
        """Presentation times of its frames."""
        return self.pts


Chunk = KeyChunk | PredictedChunk


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """Position of a KEY chunk (bytes from the file's start), number of its frame from 0, and pts."""

    offset: int
    frame: int
    pts: int
    background: int | None = None
    """Position of its BACKGROUND, if it has one."""


def pack_varint(number: int) -> bytes:
    """A varint. `number` is not negative."""
    return bytes([number & 127 | 128]) + pack_varint(number >> 7) if number > 127 else bytes([number])


def pack_zigzag(number: int) -> bytes:
    """A signed number as a varint."""
    return pack_varint(2 * number if number >= 0 else -2 * number - 1)


def read_varint(data: bytes | bytearray, start: int, most: int = 10) -> tuple[int, int]:
    """The varint of at most `most` bytes at `start`, and the position after it."""
    value = 0
    for at in range(start, min(start + most, len(data))):
        value |= (data[at] & 127) << 7 * (at - start)
        if data[at] < 128:
            if value >> 64 or (data[at] == 0 and at > start):
                break
            return value, at + 1
    raise BitstreamError("a number is cut off, too large or not in its shortest form")


def read_zigzag(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """The signed number at `start`, and the position after it."""
    value, end = read_varint(data, start)
    return value >> 1 ^ -(value & 1), end


def first_frame(kind: int, data: bytes) -> tuple[int, int]:
    """Number of the first frame of KEY or PREDICTED, and the position after it in the body."""
    if kind == KEY and not data.startswith(KEY_MARK):
        raise BitstreamError("a KEY chunk without its mark")
    return read_varint(data, len(KEY_MARK) if kind == KEY else 0)


@dataclass(frozen=True, slots=True)
class Background:
    """A BACKGROUND chunk."""

    data: bytes
    """What GOPs begin with: its payload after BACKGROUND_MARK."""
    offset: int
    """Position of its last copy, in bytes from the file's start."""

    @property
    def payload(self) -> bytes:
        """Payload of the chunk."""
        return BACKGROUND_MARK + self.data

    @staticmethod
    def unpack(payload: bytes, offset: int) -> "Background":
        """Inverse of `payload`. Raises BitstreamError if it is empty or lacks its mark."""
        if not payload.startswith(BACKGROUND_MARK) or len(payload) == len(BACKGROUND_MARK):
            raise BitstreamError("a BACKGROUND chunk is empty or lacks its mark")
        return Background(payload[len(BACKGROUND_MARK) :], offset)

    @property
    def identity(self) -> int:
        """How KEY names it."""
        return zlib.crc32(self.payload)


class Backgrounds:
    """The BACKGROUND chunks that the next KEY may name, for writers and readers."""

    def __init__(self, *known: Background) -> None:
        self._recent: dict[int, Background] = {}  # by identity, the one whose last copy is oldest first
        for background in known:
            self.add(background)

    def add(self, background: Background) -> None:
        """Take a chunk, or another copy of it."""
        identity = background.identity
        self._recent.pop(identity, None)
        self._recent[identity] = background
        while len(self._recent) > MOST_BACKGROUNDS or self._bytes() > MAX_PAYLOAD:
            del self._recent[next(iter(self._recent))]

    def _bytes(self) -> int:
        return sum(len(background.data) for background in self._recent.values())

    def get(self, identity: int) -> Background | None:
        """The chunk of this identity, if KEY may name it."""
        return self._recent.get(identity)


def background_of(data: bytes, end: int) -> tuple[int | None, int]:
    """The identity that KEY of a file with an AV1 base names at `end`, and the position after it."""
    named, end = read_varint(data, end, 1)
    if not named:
        return None, end
    if named > 1 or len(data) < end + 4:
        raise BitstreamError("a KEY chunk names its background in a wrong way")
    return int.from_bytes(data[end : end + 4], "little"), end + 4


def unpack_key(data: bytes, backgrounds: Backgrounds | None) -> KeyChunk:
    """A KEY chunk from its body, wherever it stands. `backgrounds`: of a file with an AV1 base."""
    number, end = first_frame(KEY, data)
    pts, end = read_zigzag(data, end)
    if backgrounds is None:
        return KeyChunk(pts, data[end:], first=number)
    identity, end = background_of(data, end)
    if identity is None:
        return KeyChunk(pts, data[end:], first=number)
    background = backgrounds.get(identity)
    if background is None:
        return KeyChunk(pts, data[end:], first=number, background=None)
    return KeyChunk(
        pts, data[end:], first=number, background=background.data, background_offset=background.offset
    )


def most_predicted(video: VideoInfo) -> int:
    """Largest number of frames of this size in a PREDICTED chunk, ALWAYS_PREDICTED..MAX_PREDICTED."""
    fitting = MAX_PREDICTED_PIXELS // (video.width * video.height)
    return min(MAX_PREDICTED, max(ALWAYS_PREDICTED, fitting))


def framed_size(payload: int) -> int:
    """Bytes of a chunk whose payload has so many."""
    return 1 + len(pack_varint(payload)) + payload + 4


class Timeline:
    """Bodies of KEY and PREDICTED chunks, and the rules of their order, for writers and readers."""

    def __init__(self, header: Header, backgrounds: Backgrounds) -> None:
        """backgrounds: those that the next KEY may name, kept up to date by the caller."""
        self.gop, self.most = header.gop, most_predicted(header.video)
        self._backgrounds = backgrounds if header.base else None
        self.number = 0  # of the next frame
        self.frames = 0  # since the last KEY, itself included; 0 before the first
        self.last = -1  # pts of the last frame, if there is one

    def accept(self, chunk: Chunk) -> Chunk:
        """Check that `chunk` may come next. Raises BitstreamError if not."""
        key = isinstance(chunk, KeyChunk)
        times = chunk.times
        frames = len(times) if key else self.frames + len(times)
        if not key and (not self.frames or frames > self.gop or not 1 <= len(times) <= MAX_PREDICTED):
            raise BitstreamError(f"{len(times)} predicted frames follow {self.frames} of a GOP of {self.gop}")
        if not key and len(times) > self.most:
            raise LimitError(f"{len(times)} predicted frames of this size in a chunk, not up to {self.most}")
        order = (self.last, *times) if self.frames else times
        if any(a >= b for a, b in pairwise(order)) or not -(1 << 63) <= times[0] <= times[-1] < 1 << 63:
            raise BitstreamError("presentation times do not increase or leave 64 bits")
        self.number += len(times)
        self.frames, self.last = frames, times[-1]
        return chunk

    def leap(self, key: KeyChunk) -> None:
        """Go on with `key`, although frames before it are missing. It `may_leap`."""
        self.number = key.first
        self.accept(key)

    def may_leap(self, key: KeyChunk) -> bool:
        """Whether the frames left out before `key` have numbers and times."""
        missing = key.first - self.number
        return missing >= 0 and (not self.frames or missing < key.pts - self.last)

    def pack(self, chunk: Chunk) -> bytes:
        """Body of the next chunk."""
        number, last = pack_varint(self.number), self.last
        self.accept(chunk)
        if isinstance(chunk, KeyChunk):
            return KEY_MARK + number + pack_zigzag(chunk.pts) + self._named(chunk) + chunk.payload
        steps = [b - a - 1 for a, b in pairwise((last, *chunk.pts))]
        irregular = len(set(steps)) > 1
        timing = bytes([len(steps) - 1 | irregular << 6])
        varints = b"".join(map(pack_varint, steps if irregular else steps[:1]))
        return number + timing + varints + chunk.payload

    def _named(self, key: KeyChunk) -> bytes:
        """How KEY names its background."""
        if self._backgrounds is None:
            return b""
        if not key.background:
            return b"\0"
        return b"\1" + Background(key.background, 0).identity.to_bytes(4, "little")

    def unpack(self, kind: int, data: bytes) -> Chunk:
        """The next chunk from its body.

        Raises MisplacedChunkError if it is another one, BitstreamError if it is damaged or out of order.
        """
        number, end = first_frame(kind, data)
        if number != self.number:
            raise MisplacedChunkError(f"frame {number} comes where frame {self.number} should")
        if kind == KEY:
            return self.accept(unpack_key(data, self._backgrounds))
        timing, end = read_varint(data, end, 1)
        step, end = read_varint(data, end)
        times = [self.last + step + 1]
        while len(times) <= timing & 63:
            if timing & 64:
                step, end = read_varint(data, end)
            times.append(times[-1] + step + 1)
        return self.accept(PredictedChunk(tuple(times), data[end:], first=number))


@dataclass(frozen=True, slots=True)
class _Mark:
    """What was written when a chunk was."""

    size_bytes: int
    frames: int
    entries: int
    """Of the index."""
    last_duration: int
    """Of the last frame; 0 if unknown."""


_MARKS = 4096
"""Chunks that can be cut off again: enough to make room for the INDEX of a long recording."""
_TAIL_BYTES = 40
"""At least what INDEX and END take besides INDEX's body."""


class Writer:
    """Writes a `.vdf` from front to back without seeking, so `file` may be a pipe. Does not close it."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        """Write magic and `header`. Raises BitstreamError or LimitError if the format cannot hold it."""
        if header.network is None or len(header.network) > MAX_NETWORK:
            raise BitstreamError("the file's own network is damaged, missing or too large")
        self._file, self._header, self._backgrounds = file, header, Backgrounds()
        self._timeline = Timeline(header, self._backgrounds)
        self._entries: list[IndexEntry] = []
        self._whole = deque[_Mark](maxlen=_MARKS)
        self._last_duration = 0
        payload = header.pack()
        self.size_bytes = file.write(MAGIC)
        """Bytes written so far."""
        self.background_bytes = 0
        """Bytes of BACKGROUND chunks so far."""
        self._emit(HEADER, payload)
        if header.video.display != Display():
            self._emit(DISPLAY, header.video.display.pack())
        before = self.size_bytes
        if header.network:
            self._emit(NETWORK, header.network)
        self.network_bytes = self.size_bytes - before
        """Bytes of NETWORK."""

    def write(self, chunk: Chunk) -> None:
        """Append a chunk. Raises BitstreamError for wrong times or order, LimitError above 64 MiB."""
        frame = self._timeline.number
        payload = self._timeline.pack(chunk)
        self._last_duration = chunk.duration
        if isinstance(chunk, KeyChunk):
            background = self._place_background(chunk)
            offset = self.size_bytes
            self._emit(KEY, payload)
            self._entries.append(IndexEntry(offset, frame, chunk.pts, background))
        else:
            self._emit(PREDICTED, payload)
        frames = self._timeline.number
        self._whole.append(_Mark(self.size_bytes, frames, len(self._entries), self._last_duration))

    def _place_background(self, key: KeyChunk) -> int | None:
        """Write the background of `key` if no copy is near. Returns the position of the last one."""
        if not (key.background and self._header.base):
            if key.background == b"":
                return None
            raise BitstreamError("the background of a KEY chunk is missing, or the file has no base")
        new = Background(key.background, self.size_bytes)
        near = self._near_copy(new)
        if near is not None:
            return near
        self._emit(BACKGROUND, new.payload)
        self.background_bytes += self.size_bytes - new.offset
        self._backgrounds.add(new)
        return new.offset

    def _near_copy(self, background: Background) -> int | None:
        """Position of a copy of a background that the next KEY may name, None if one has to be written."""
        known = self._backgrounds.get(background.identity)
        if known is None:
            return None
        since = bisect_right(self._entries, known.offset, key=lambda entry: entry.offset)
        return known.offset if len(self._entries) - since < _BACKGROUND_KEYS else None

    def sizes(self, chunks: Sequence[Chunk]) -> list[int]:
        """Bytes that the next chunks will take, of one GOP: KEY with its BACKGROUND if it needs a copy."""
        timeline, found = copy.copy(self._timeline), list[int]()
        for chunk in chunks:
            size = framed_size(len(timeline.pack(chunk)))
            if isinstance(chunk, KeyChunk) and chunk.background:
                background = Background(chunk.background, 0)
                if self._near_copy(background) is None:
                    size += framed_size(len(background.payload))
            found.append(size)
        return found

    def attach(self, kind: int, payload: bytes) -> None:
        """Append an ancillary chunk: TRACK, PACKETS or META. Raises LimitError above 64 MiB."""
        self._emit(kind, payload)

    def cut_short(self) -> None:
        """The video ends here, before its sound and subtitles. Call `finish` next."""

    def finish(self) -> None:
        """Write INDEX and END. This is the last call."""
        offset = self.size_bytes
        self._emit(INDEX, self._index_body())
        self._emit(END, struct.pack("<Q", offset))

    @property
    def seekable(self) -> bool:
        """Whether what was written can be cut off again."""
        return self._file.seekable()

    def finish_in_place(self) -> None:
        """Complete the file after a write that failed, as on a full disk.

        A chunk that is not whole is cut off, and so are chunks before it until INDEX and END have room.
        Raises OSError if there is none: the file ends without them then.
        """
        reached, tail = self._file.seek(0, io.SEEK_END), len(self._index_body()) + _TAIL_BYTES
        fitting = (mark for mark in reversed(self._whole) if mark.size_bytes + tail <= reached)
        for mark in (self._whole[-1], next(fitting, None)):
            if mark is None:
                break
            self._cut_to(mark)
            try:
                return Writer.finish(self)
            except OSError as error:
                failure = error
                self._cut_to(mark)
        raise failure

    def _cut_to(self, mark: "_Mark") -> None:
        self._file.truncate(mark.size_bytes)
        self._file.seek(mark.size_bytes)
        self.size_bytes, self._timeline.number = mark.size_bytes, mark.frames
        self._last_duration = mark.last_duration
        del self._entries[mark.entries :]

    def _index_body(self) -> bytes:
        body = pack_varint(self._timeline.number) + pack_varint(len(self._entries))
        for a, b in pairwise([IndexEntry(0, 0, 0), *self._entries]):
            body += pack_varint(b.offset - a.offset) + pack_varint(b.frame - a.frame) + pack_zigzag(b.pts)
            if self._header.base:
                body += pack_varint(0 if b.background is None else b.offset - b.background)
        if 0 < self._last_duration < 1 << 63:
            body += pack_varint(self._last_duration)
        return body

    def _emit(self, kind: int, payload: bytes) -> None:
        if len(payload) > MAX_PAYLOAD:
            raise LimitError(f"a chunk of {len(payload)} bytes is over the limit of {MAX_PAYLOAD}")
        chunk = bytes([kind]) + pack_varint(len(payload)) + payload
        self._file.write(chunk + struct.pack("<I", zlib.crc32(chunk)))
        self.size_bytes += len(chunk) + 4
