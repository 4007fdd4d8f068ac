"""Every class of fault that a bad disk or an attacker can cause, and the decoder's answer.

A bad disk leaves wrong checksums. An attacker corrects them, and so does `joined`. The answer is the same:
frames, or one ViddiffError, within the memory and time of a valid file. Frames have increasing times, and
GOPs that the fault did not reach are exact.
"""

import io
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import coded, moving_picture, same
from test_selftest import smallest_golden

import viddiff
from viddiff.cli import main
from viddiff.codec.weights import Codec
from viddiff.config import MAX_PAYLOAD
from viddiff.container import track_file as trackfile
from viddiff.container.format import (
    END,
    HEADER,
    INDEX,
    KEY,
    MAGIC,
    PACKETS,
    PREDICTED,
    TRACK,
    KeyChunk,
    PredictedChunk,
    Writer,
    pack_varint,
    pack_zigzag,
    read_varint,
)
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_chunks import pack_packets, pack_track
from viddiff.container.track_file import PassingTracks, TrackFile
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, CheckpointError, LimitError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import decode
from viddiff.tracks import Track, TrackPacket

SECONDS = 20.0
"""Far more than any of these files needs."""
MARGIN = 128 << 20
"""Bytes that absurd files may use beyond what a valid one used. Each of them claims more."""
GOP, STEP = 2, 40
"""Frames of a GOP and time between frames, in these files."""
Piece = tuple[int, bytes]
"""Type and payload of a chunk."""


@dataclass(frozen=True)
class Loaded(Resources):
    """Resources with loaded networks, so that thousands of files need not load them."""

    loaded: Codec | None = None

    def load(self, threads: int = 1) -> Codec:
        assert self.loaded is not None
        return self.loaded


def read(data: bytes, codec: Codec, strict: bool = False) -> tuple[list[Frame], Damage]:
    """Read a file like `viddiff decode`: around damage unless strict."""
    machine = Loaded(Path("loaded"), workers=1, loaded=codec)
    video = decode_video(io.BytesIO(data), Path("file"), machine, options=ReadOptions(strict))
    return list(video.frames), video.damage


def equal(found: list[Frame] | ViddiffError, expected: list[Frame]) -> bool:
    return isinstance(found, list) and same(found, expected)


def answer(data: bytes, codec: Codec, strict: bool = False) -> list[Frame] | ViddiffError:
    """Frames, or the error. Other exceptions, and frames that do not fit the file, fail the test."""
    began, result = time.monotonic(), None
    try:
        frames, _ = read(data, codec, strict)
    except ViddiffError as error:
        result = error
    assert time.monotonic() - began < SECONDS
    if result is not None:
        assert len(str(result).splitlines()) == 1
        return result
    video = Reader(io.BytesIO(data)).header.video
    times = [frame.pts for frame in frames]
    assert all(frame.y.shape == (video.height, video.width) for frame in frames)
    assert times == sorted(set(times))
    return frames


def keeps(frames: list[Frame] | ViddiffError, whole: list[Frame], struck: set[int], gop: int = GOP) -> bool:
    """True if the frames of all GOPs of `whole` except `struck` are there, exact and at their times."""
    assert isinstance(frames, list), frames
    kept = [frame for number, frame in enumerate(whole) if number // gop not in struck]
    by_time = {frame.pts: frame for frame in frames}
    return same([by_time[frame.pts] for frame in kept if frame.pts in by_time], kept)


def evenly(frames: list[Frame]) -> list[Frame]:
    return [replace(frame, pts=STEP * number) for number, frame in enumerate(frames)]


def split(data: bytes) -> list[Piece]:
    pieces, at = [], len(MAGIC)
    while at < len(data):
        length, start = read_varint(data, at + 1)
        pieces.append((data[at], data[start : start + length]))
        at = start + length + 4
    return pieces


def framed(kind: int, payload: bytes, length: int | None = None) -> bytes:
    """A chunk with a correct CRC, and its own or another length."""
    chunk = bytes([kind]) + pack_varint(len(payload) if length is None else length) + payload
    return chunk + struct.pack("<I", zlib.crc32(chunk))


def index_of(total: int, entries: list[tuple[int, int, int]], count: int | None = None) -> bytes:
    """Payload of INDEX. Entries are offset, frame number and time."""
    body = pack_varint(total) + pack_varint(len(entries) if count is None else count)
    for before, entry in zip([(0, 0), *entries], entries, strict=False):
        body += b"".join(pack_varint((entry[i] - before[i]) % (1 << 64)) for i in range(2))
        body += pack_zigzag(entry[2])
    return body


def joined(pieces: list[Piece], index: bool = True) -> bytes:
    """The file of these chunks with correct CRCs and END; with a correct INDEX if `index`."""
    out, keys, at = bytearray(MAGIC), list[int](), 0
    for kind, payload in pieces:
        if kind == KEY:
            keys.append(len(out))
        if kind == INDEX:
            at = len(out)
            if index:
                entries = [(offset, GOP * n, STEP * GOP * n) for n, offset in enumerate(keys)]
                payload = index_of(GOP * len(keys), entries)
        if kind == END and index:
            payload = struct.pack("<Q", at)
        out += framed(kind, payload)
    return bytes(out)


@pytest.fixture(scope="module")
def victim(codec: Codec) -> bytes:
    """Three GOPs of a keyframe and a predicted frame.

    The predicted frames have so many symbols that they do not fit another keyframe.
    """
    options = EncodeOptions(quality=44, gop=GOP)
    return coded(codec, evenly(moving_picture(16, 16, 3 * GOP)), options=options)[0]


@pytest.fixture(scope="module")
def good(victim: bytes, codec: Codec) -> list[Frame]:
    return list(decode(io.BytesIO(victim), codec))


@pytest.fixture(scope="module")
def smallest(codec: Codec) -> tuple[bytes, list[Frame]]:
    """Two GOPs in as few bytes as possible, and their frames."""
    frames = evenly(moving_picture(16, 16, 3))
    data, shown, _ = coded(codec, frames, options=EncodeOptions(quality=0, gop=2))
    return data, shown


def test_the_tools_of_these_tests(victim: bytes, codec: Codec, good: list[Frame]) -> None:
    pieces = split(victim)
    assert [kind for kind, _ in pieces] == [HEADER, *[KEY, PREDICTED] * 3, INDEX, END]
    assert joined(pieces) == joined(pieces, index=False) == victim
    for strict in (False, True):
        frames, damage = read(victim, codec, strict)
        assert same(frames, good)
        assert not damage
    key = pieces[OF_KEY][1]
    assert key[5:7] == b"\x0a\x06", "the sequence header"
    assert key[SEQUENCE_END] == 0x32
    assert key[SEQUENCE_END + 1] == len(key) - SEQUENCE_END - 2, "the frame"


# --- bad disks: checksums do not fit -------------------------------------------------------------------


def test_truncation_at_every_byte(smallest: tuple[bytes, list[Frame]], codec: Codec) -> None:
    data, whole = smallest
    first_end = len(MAGIC) + sum(len(framed(*piece)) for piece in split(data)[:2])
    counts = []
    for size in range(len(data)):
        assert isinstance(answer(data[:size], codec, strict=True), BitstreamError), f"{size = }"
        frames = answer(data[:size], codec)
        if size < first_end:
            assert isinstance(frames, BitstreamError), f"{size = }"
            continue
        assert isinstance(frames, list)
        assert same(frames, whole[: len(frames)]), f"{size = }"
        counts.append(len(frames))
    assert counts == sorted(counts)
    assert set(counts) == {1, 2, 3}


@pytest.mark.parametrize("xor", [0x01, 0x80, 0xFF])
def test_every_changed_byte_of_the_header(victim: bytes, codec: Codec, xor: int) -> None:
    """Without a header nothing can be decoded. The answer is an error, strict or not."""
    for at in range(len(MAGIC) + len(framed(*split(victim)[0]))):
        data = bytearray(victim)
        data[at] ^= xor
        for strict in (False, True):
            assert isinstance(answer(bytes(data), codec, strict), BitstreamError | LimitError), f"{at = }"


@pytest.mark.parametrize("xor", [0x01, 0x80, 0xFF])
def test_every_changed_byte_of_the_first_chunks_head(
    victim: bytes, codec: Codec, good: list[Frame], xor: int
) -> None:
    """Type, length, mark, time and the headers inside the picture: faults cost the first GOP only."""
    start = len(MAGIC) + len(framed(*split(victim)[0]))
    for at in range(start, start + 16):
        data = bytearray(victim)
        data[at] ^= xor
        assert isinstance(answer(bytes(data), codec, strict=True), BitstreamError | LimitError), f"{at = }"
        frames, damage = read(bytes(data), codec)
        assert keeps(frames, good, {0}), f"{at = }"
        assert [frame.pts for frame in frames] == [frame.pts for frame in good], f"{at = }"
        assert damage.lost == [(0, GOP - 1)], f"{at = }"


def pairs(count: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


@pytest.mark.parametrize("kind", ["swapped", "repeated", "removed"])
def test_chunks_out_of_their_place(victim: bytes, codec: Codec, good: list[Frame], kind: str) -> None:
    """All pairs of chunks are swapped, also INDEX and END. INDEX still describes the original file."""
    pieces = split(victim)
    count = len(pieces)
    struck = [(n - 1) // 2 if 0 < n < count - 2 else -1 for n in range(count)]  # the GOP of each
    for a, b in pairs(count) if kind == "swapped" else [(n, n) for n in range(count)]:
        changed = pieces.copy()
        if kind == "swapped":
            changed[a], changed[b] = pieces[b], pieces[a]
        elif kind == "repeated":
            changed.insert(a, pieces[a])
        else:
            del changed[a]
        data = joined(changed, index=False)
        strict, frames = answer(data, codec, strict=True), answer(data, codec)
        if a == 0 and kind != "repeated":
            assert isinstance(frames, BitstreamError), f"{a = } {b = }: no HEADER"
            continue
        reached = {struck[a], struck[b]}
        if pieces[b][0] == KEY:  # its time makes all up to its place come too late
            reached = set(range(struck[a], struck[b] + 1))
        if a < b == count - 1:  # END is the end wherever it stands
            if a == 1:
                assert isinstance(frames, BitstreamError), "no frame comes before it"
                continue
            reached = set(range(struck[a], 3)) if struck[a] >= 0 else set()
        assert keeps(frames, good, reached), f"{a = } {b = }"
        if struck[a] >= 0 and struck[b] >= 0:
            assert isinstance(strict, BitstreamError), f"{a = } {b = }"
        else:  # INDEX may stand anywhere
            assert isinstance(strict, BitstreamError) or equal(strict, good), f"{a = } {b = }"


@pytest.mark.parametrize("other", ["video", "size", "depth", "coder"])
def test_chunks_spliced_from_another_file(victim: bytes, codec: Codec, good: list[Frame], other: str) -> None:
    """A chunk of another file with the same weights fits. It may be shown, and changes no other GOP."""
    width, depth = (48 if other == "size" else 16), (10 if other == "depth" else 8)
    options = EncodeOptions(gop=GOP, entropy="huffman" if other == "coder" else "ans")
    donor, _, _ = coded(codec, evenly(moving_picture(width, 16, 3 * GOP, depth, seed=2)), depth, options)
    pieces, foreign = split(victim), split(donor)
    assert [kind for kind, _ in pieces] == [kind for kind, _ in foreign]
    for at in range(1, len(pieces) - 2):
        changed = [*pieces[:at], foreign[at], *pieces[at + 1 :]]
        for index in (False, True):
            data = joined(changed, index)
            frames = answer(data, codec)
            assert isinstance(frames, list)
            assert [frame.pts for frame in frames] == [frame.pts for frame in good], f"{at = }"
            assert keeps(frames, good, {(at - 1) // 2}), f"{at = }"
            answer(data, codec, strict=True)
    whole = answer(joined([foreign[0], *pieces[1:]]), codec)  # all chunks under another header
    assert isinstance(whole, list | BitstreamError)


LOST = 0.01
LONG, FRAMES = 6, 150
"""Frames of a GOP, and frames of the long file."""


@pytest.fixture(scope="module")
def long_file(codec: Codec) -> tuple[list[bytes], list[Frame]]:
    """150 frames in chunks of one, with a chunk of sound in each GOP. It repeats two coded GOPs."""
    cycle, options = 2 * LONG, EncodeOptions(gop=LONG, low_delay=True)
    data, shown, _ = coded(codec, moving_picture(16, 16, cycle), options=options)
    reader = Reader(io.BytesIO(data))
    chunks, out, marks = list(reader), io.BytesIO(), list[int]()
    assert [n for n, chunk in enumerate(chunks) if isinstance(chunk, KeyChunk)] == [0, LONG]
    writer = Writer(out, reader.header)
    writer.attach(TRACK, pack_track(Track("audio", "opus", Fraction(1, 25), "matroska", b"")))
    for number in range(FRAMES):
        chunk, pts = chunks[number % cycle], STEP * number
        if number % LONG == 1:
            marks.append(writer.size_bytes)
            writer.attach(PACKETS, pack_packets([TrackPacket(0, pts, STEP, True, bytes([number % 251]))]))
        marks.append(writer.size_bytes)
        key = isinstance(chunk, KeyChunk)
        writer.write(KeyChunk(pts, chunk.payload) if key else PredictedChunk((pts,), chunk.payload))
    marks.append(writer.size_bytes)
    writer.finish()
    whole = out.getvalue()
    parts = [whole[a:b] for a, b in zip([0, *marks], [*marks, len(whole)], strict=True)]
    return parts, [replace(shown[n % cycle], pts=STEP * n) for n in range(FRAMES)]


@pytest.mark.parametrize("way", ["chunks", "sectors"])
def test_loss_of_one_percent(long_file: tuple[list[bytes], list[Frame]], codec: Codec, way: str) -> None:
    """Loss of 1 % of chunks (frames and sound) or of disk sectors.

    The other GOPs are exact, all times are kept, and everything inexact is reported as lost.
    """
    parts, whole = long_file
    rng = random.Random(way)
    each = LONG + 1  # chunks of a GOP; parts[0] is what comes before the first
    count = len(parts) - 2
    changed, struck = parts.copy(), set[int]()
    if way == "sectors":
        data = bytearray(b"".join(parts))
        starts = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
        sectors = range(1, starts[-2] // 512)
        for sector in rng.sample(sectors, -(-len(sectors) // 100)):
            a, b = 512 * sector, 512 * sector + 512
            data[a:b] = bytes(512)
            hit = [n for n in range(1, count + 1) if starts[n] < b and a < starts[n + 1]]
            struck |= {(n - 1) // each for n in hit}
        changed = [bytes(data)]
    else:
        lost = rng.sample(range(count), -(-count // 100))
        assert LOST * count <= len(lost) < LOST * count + 1
        for number in lost:
            size = len(parts[number + 1])
            changed[number + 1] = rng.choice((b"", bytes(size), rng.randbytes(size)))
        struck = {number // each for number in lost}
    damaged = b"".join(changed)
    frames, damage = read(damaged, codec)
    assert len(frames) == FRAMES
    assert [frame.pts for frame in frames] == [frame.pts for frame in whole]
    said = {n for first, last in damage.lost for n in range(first, last + 1)}
    assert {n // LONG for n in said} <= struck
    exact = {n for n in range(FRAMES) if same([frames[n]], [whole[n]])}
    assert set(range(FRAMES)) - exact <= said
    assert {n for n in range(FRAMES) if n // LONG not in struck} <= exact
    packets = TrackFile(io.BytesIO(damaged), lambda fault: None).packets()
    sound = [packet.pts // STEP // LONG for packet in packets]
    assert sound == sorted(set(sound))
    assert set(range(FRAMES // LONG)) - struck <= set(sound)


# --- attackers: checksums fit ----------------------------------------------------------------------------


@pytest.mark.parametrize("xor", [0x01, 0x80, 0xFF])
def test_every_changed_byte_of_the_header_under_a_valid_crc(
    smallest: tuple[bytes, list[Frame]], codec: Codec, xor: int
) -> None:
    data, whole = smallest
    pieces = split(data)
    header = pieces[0][1]
    hash_at = header.index(codec.hash)
    for at in range(len(header)):
        changed = header[:at] + bytes([header[at] ^ xor]) + header[at + 1 :]
        forged = joined([(HEADER, changed), *pieces[1:]], index=False)
        result = answer(forged, codec)
        answer(forged, codec, strict=True)
        if hash_at <= at < hash_at + 32:
            assert isinstance(result, CheckpointError), f"{at = }"
        elif isinstance(result, list) and result[0].y.shape == whole[0].y.shape:
            assert len(result) == len(whole), f"{at = }"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("model", ["zeros", "one bit", "that of released weights"])
def test_a_wrong_model_hash(
    victim: bytes, codec: Codec, request: pytest.FixtureRequest, model: str, strict: bool
) -> None:
    """This is no damage: there are no frames, and the error names both sets of weights."""
    wrong = {"zeros": bytes(32), "one bit": bytes([codec.hash[0] ^ 1]) + codec.hash[1:]}.get(model)
    if wrong is None:
        wrong = request.getfixturevalue("released").hash
    pieces = split(victim)
    data = joined([(HEADER, pieces[0][1].replace(codec.hash, wrong)), *pieces[1:]])
    error = answer(data, codec, strict)
    assert isinstance(error, CheckpointError)
    assert wrong.hex()[:16] in str(error)
    assert codec.hash.hex()[:16] in str(error)


Change = Callable[[list[Piece], int], bytes]
"""Makes a file of chunks with one number replaced."""
OF_KEY, OF_PREDICTED = 3, 4
"""Position of the second GOP among the chunks."""
SEQUENCE_END = 13
"""End of AV1's sequence header in that KEY: 2 bytes of mark, 1 of number, 2 of time, then 8."""


def in_header(at: int, size: int) -> Change:
    def change(pieces: list[Piece], value: int) -> bytes:
        payload = pieces[0][1]
        return joined(
            [(HEADER, payload[:at] + value.to_bytes(size, "little") + payload[at + size :]), *pieces[1:]]
        )

    return change


def in_payload(number: int, at: int, size: int, form: Callable[[int], bytes]) -> Change:
    """Replace `size` bytes from `at` in the second GOP's KEY or PREDICTED by the number in this form."""

    def change(pieces: list[Piece], value: int) -> bytes:
        kind, payload = pieces[number]
        payload = payload[:at] + form(value) + payload[at + size :]
        return joined([*pieces[:number], (kind, payload), *pieces[number + 1 :]])

    return change


def in_length(number: int) -> Change:
    def change(pieces: list[Piece], value: int) -> bytes:
        out = joined(pieces[:number], index=False)
        covered = pieces[number][1][:value] if value < len(pieces[number][1]) else pieces[number][1]
        rest = joined(pieces[number + 1 :], index=False)[len(MAGIC) :]
        return out + framed(pieces[number][0], covered, value) + rest

    return change


def in_index(which: str) -> Change:
    def change(pieces: list[Piece], value: int) -> bytes:
        keys = [len(joined(pieces[:n], index=False)) for n, (kind, _) in enumerate(pieces) if kind == KEY]
        entries = [(offset, GOP * n, STEP * GOP * n) for n, offset in enumerate(keys)]
        total, count = 3 * GOP, None
        if which == "frames":
            total = value
        elif which == "keys":
            count = value
        else:
            entry = list(entries[1])
            entry[("offset", "frame", "time").index(which)] = value
            entries[1] = (entry[0], entry[1], entry[2])
        out = joined([*pieces[:-2], (INDEX, index_of(total, entries, count))], index=False)
        return out + framed(END, struct.pack("<Q", len(joined(pieces[:-2], index=False))))

    return change


def in_end(pieces: list[Piece], value: int) -> bytes:
    return joined([*pieces[:-1], (END, struct.pack("<Q", value))], index=False)


MOST32, MOST63, MOST64 = (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1
NUMBERS: dict[str, tuple[Change, tuple[int, ...]]] = {
    "width": (in_header(2, 2), (0, 1, 4096, 8193, 65535)),
    "height": (in_header(4, 2), (0, 1, 2304, 8193, 65535)),
    "bit depth": (in_header(6, 1), (0, 1, 10, 255)),
    "time base's numerator": (in_header(7, 4), (0, 2, MOST32 - 1)),
    "time base's denominator": (in_header(11, 4), (0, 1, MOST32)),
    "frame rate's numerator": (in_header(15, 4), (0, 1, MOST32)),
    "frame rate's denominator": (in_header(19, 4), (0, 2, MOST32 - 1)),
    "gop": (in_header(34, 2), (0, 1, 2, 1024, 65535)),
    "length of the name": (in_header(68, 1), (0, 1, 64, 65, 255)),
    "length of HEADER": (in_length(0), (0, 1, 68, MAX_PAYLOAD, MAX_PAYLOAD + 1, (1 << 35) - 1)),
    "length of KEY": (in_length(OF_KEY), (0, 1, 2, 9, MAX_PAYLOAD, MAX_PAYLOAD + 1, (1 << 35) - 1)),
    "length of PREDICTED": (in_length(OF_PREDICTED), (0, 1, 2, MAX_PAYLOAD, MAX_PAYLOAD + 1, (1 << 35) - 1)),
    "number of KEY": (in_payload(OF_KEY, 2, 1, pack_varint), (0, 1, 3, 4, 9_999_999, 10_000_000, MOST64)),
    "time of KEY": (in_payload(OF_KEY, 3, 2, pack_varint), (0, 1, MOST64 - 1, MOST64)),
    "size of the sequence header": (in_payload(OF_KEY, 6, 1, pack_varint), (0, 1, (1 << 28) - 1, MOST32)),
    "size of AV1's frame": (
        in_payload(OF_KEY, SEQUENCE_END + 1, 1, pack_varint),
        (0, 1, (1 << 28) - 1, MOST32),
    ),
    "number of PREDICTED": (in_payload(OF_PREDICTED, 0, 1, pack_varint), (0, 1, 2, 4, 5, MOST64)),
    "frames of PREDICTED": (in_payload(OF_PREDICTED, 1, 1, pack_varint), (0, 2, 63, 64, 127)),
    "step of PREDICTED": (in_payload(OF_PREDICTED, 2, 1, pack_varint), (0, 1, MOST63, MOST64)),
    "size of a still": (in_payload(OF_PREDICTED, 3, 1, pack_varint), (0, 1, 20, (1 << 28) - 1, MOST64)),
    "frames of INDEX": (in_index("frames"), (0, 1, 3 * GOP - 1, 3 * GOP + 1, 10_000_000, MOST64)),
    "keys of INDEX": (in_index("keys"), (0, 1, 2, 4, MOST64)),
    "offset in INDEX": (in_index("offset"), (0, 1, 87, MOST64)),
    "frame in INDEX": (in_index("frame"), (0, 1, 2, 5, 1024, MOST64)),
    "time in INDEX": (in_index("time"), (0, 1, MOST63)),
    "offset in END": (in_end, (0, 1, 8, MOST63, MOST64)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_at_their_ends(victim: bytes, codec: Codec, good: list[Frame], name: str) -> None:
    """Counts, sizes and lengths of 0, 1 and the maximum, with correct checksums."""
    change, values = NUMBERS[name]
    for value in values:
        data = change(split(victim), value)
        answer(data, codec, strict=True)
        frames = answer(data, codec)
        if name == "frames of INDEX" and value == 3 * GOP - 1:
            # It is true of all keyframes, and therefore believed: what it does not count is not shown.
            assert keeps(frames, good, {2}), f"{value = }"
            assert read(data, codec)[1], "but that is said"
        elif name == "frames of INDEX" and value == MOST64:
            assert isinstance(frames, LimitError), "a file that claims so many is refused"
        elif "INDEX" in name or "END" in name:  # which is rebuilt where it is not true
            assert keeps(frames, good, set()), f"{value = }"
        elif "KEY" in name or "PREDICTED" in name or "size" in name:  # of the second GOP
            assert keeps(frames, good, {1, 2} if "time" in name or "step" in name else {1}), f"{value = }"


@pytest.mark.parametrize("name", ["mp4", "mkv", "y4m"])
def test_rates_and_times_that_no_other_file_can_hold(
    victim: bytes, weights: Path, tmp_path: Path, name: str
) -> None:
    """The format allows these values. `decode` writes a file or one error, `info` prints them."""
    reader = Reader(io.BytesIO(victim))
    header, chunks = reader.header, list(reader)
    most, vdf, out = Fraction(MOST32), tmp_path / "a.vdf", tmp_path / f"a.{name}"
    for base, rate in ((1 / most, 1 / most), (most, most), (most, 1 / most), (Fraction(1, 25), most)):
        for first, last in ((0, 1), (-MOST63 - 1, MOST63), (MOST63 - 1, MOST63)):
            video = replace(header.video, time_base=base, frame_rate=rate)
            with open(vdf, "wb") as file:
                writer = Writer(file, replace(header, video=video))
                writer.write(KeyChunk(first, chunks[0].payload))
                writer.write(PredictedChunk((last,), chunks[1].payload))
                writer.finish()
            arguments = ["decode", str(vdf), str(out), "--force", "--quiet", "--weights", str(weights)]
            result = CliRunner().invoke(main, arguments)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            assert result.exit_code == 0 or result.stderr.startswith("Error: "), result.output
            assert CliRunner().invoke(main, ["info", str(vdf)]).exit_code == 0


def over(pieces: list[Piece], host: int) -> bytes:
    """A file whose second INDEX entry points into chunk `host`.

    A whole KEY chunk of another picture, with the right time, lies there.
    """
    mine = framed(KEY, b"KF" + pack_varint(GOP) + pack_zigzag(STEP * GOP) + pieces[1][1][4:])
    kind, payload = pieces[host]
    pieces = [*pieces[:host], (kind, payload + mine), *pieces[host + 1 :]]
    inner = len(joined(pieces[: host + 1], index=False)) - 4 - len(mine)
    keys = [len(joined(pieces[:n], index=False)) for n, (kind, _) in enumerate(pieces) if kind == KEY]
    entries = [(keys[0], 0, 0), (inner, GOP, STEP * GOP), (keys[2], 2 * GOP, 2 * STEP * GOP)]
    out = joined([*pieces[:-2], (INDEX, index_of(3 * GOP, entries))], index=False)
    return out + framed(END, struct.pack("<Q", len(joined(pieces[:-2], index=False))))


def to_itself(pieces: list[Piece]) -> bytes:
    return in_end(pieces, len(joined(pieces[:-1], index=False)))


@pytest.mark.parametrize(
    ("forge", "struck"),
    [
        (lambda pieces: in_index("offset")(pieces, 1 << 40), set()),
        (lambda pieces: in_index("offset")(pieces, len(joined(pieces[:-2], index=False))), set()),
        (lambda pieces: in_index("offset")(pieces, len(joined(pieces[:1], index=False))), set()),
        (lambda pieces: in_index("offset")(pieces, len(joined(pieces[:2], index=False))), set()),
        (to_itself, set()),
        (lambda pieces: in_end(pieces, len(joined(pieces[:1], index=False))), set()),
        (lambda pieces: over(pieces, 1), {0, 1}),
        (lambda pieces: over(pieces, 2), {0, 1}),
        (lambda pieces: over([*pieces[:3], (0x90, b"ab"), *pieces[3:]], 3), {1}),
    ],
    ids=[
        "outside", "to INDEX itself", "the same chunk twice", "not a keyframe", "END to itself", "END to KEY",
        "into KEY", "into PREDICTED", "into an ancillary chunk",
    ],
)  # fmt: skip
def test_an_index_that_leads_astray(
    victim: bytes, codec: Codec, good: list[Frame], forge: Callable[[list[Piece]], bytes], struck: set[int]
) -> None:
    """All checksums are correct. INDEX is used where it is true.

    It costs no GOP except those it points into.
    """
    data = forge(split(victim))
    frames, damage = read(data, codec)
    assert [frame.pts for frame in frames] == [frame.pts for frame in good]
    assert keeps(frames, good, struck)
    assert bool(damage.lost) == bool(struck)
    strict = answer(data, codec, strict=True)
    assert isinstance(strict, BitstreamError) or (not struck and equal(strict, good))


@pytest.mark.parametrize("entropy", ["ans", "huffman"])
def test_hostile_content_of_a_predicted_chunk(codec: Codec, entropy: str) -> None:
    """With a valid CRC, the content may be decoded or refused. No frame of another GOP changes."""
    rng, gop = random.Random(entropy), 3
    options = EncodeOptions(gop=gop, entropy=entropy)
    data, whole, _ = coded(codec, evenly(moving_picture(16, 16, 3 * gop)), options=options)
    chunks, header = list(Reader(io.BytesIO(data))), Reader(io.BytesIO(data)).header
    at = 3  # in the second GOP
    assert isinstance(chunks[at], PredictedChunk)
    content = chunks[at].payload
    hostile = [bytes([0]) * size for size in (0, 1, 500)]
    hostile += [b"\0" + b"\xff" * size for size in (1, 500)]
    hostile += [b"\0" + rng.randbytes(size) for size in (1, 4, 40, 400, 4000)]
    hostile += [rng.randbytes(100) for _ in range(2)]
    hostile += [content[:-1], content + b"\1", content[: len(content) // 2], content[1:], content * 2]
    for _ in range(5):
        place, bit = rng.randrange(1, len(content)), 1 << rng.randrange(8)
        hostile.append(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
    outcomes = set[bool]()
    for payload in hostile:
        out = io.BytesIO()
        writer = Writer(out, header)
        for number, chunk in enumerate(chunks):
            writer.write(replace(chunk, payload=payload) if number == at else chunk)
        writer.finish()
        frames, damage = read(out.getvalue(), codec)
        assert [frame.pts for frame in frames] == [frame.pts for frame in whole]
        assert keeps(frames, whole, {1}, gop)
        assert damage.lost in ([], [(gop + 1, 2 * gop - 1)])
        outcomes.add(bool(damage))
        assert isinstance(answer(out.getvalue(), codec, strict=True), BitstreamError if damage else list)
    assert True in outcomes


# --- memory, time and the network --------------------------------------------------------------------------

UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
from viddiff.container.read_options import ReadOptions
from viddiff.errors import ViddiffError
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.parallel_decode import decode_video

def outcome(path, strict):
    try:
        with open(path, "rb") as file:
            video = decode_video(file, path, Resources(weights, workers=1), options=ReadOptions(strict))
            return sum(1 for _ in video.frames)
    except ViddiffError as error:
        return type(error).__name__

weights, sound, folder, margin = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
assert outcome(sound, True) > 0
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + margin, taken + margin))
results = {p.name: [outcome(p, strict) for strict in (False, True)] for p in sorted(folder.iterdir())}
print(json.dumps(results))
"""


def environment(**others: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(viddiff.__file__).parents[1])} | others


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no way here to tell what is taken")
def test_absurd_sizes_are_refused_before_they_are_allocated(
    victim: bytes, weights: Path, tmp_path: Path
) -> None:
    """The process may use only little more memory than for a valid file. No answer is a MemoryError."""
    pieces, folder = split(victim), tmp_path / "files"
    size = in_header(2, 4)
    huge = in_header(34, 2)(split(size(pieces, 2304 << 16 | 4096)), 1024)
    chunk = in_length(OF_PREDICTED)
    still = (1 << 28) - 1
    files = {
        "a picture of 4096x2304": size(pieces, 2304 << 16 | 4096),
        "a picture of 8192x4352": size(pieces, 4352 << 16 | 8192),
        "a picture of 65535x65535": size(pieces, MOST32),
        "64 pictures of 4096x2304": in_payload(OF_PREDICTED, 1, 1, pack_varint)(split(huge), 63),
        "8 pictures of 4096x2304": in_payload(OF_PREDICTED, 1, 1, pack_varint)(split(huge), 7),
        "64 MiB of a chunk": chunk(pieces, MAX_PAYLOAD),
        "32 GiB of a chunk": chunk(pieces, (1 << 35) - 1),
        "256 MiB of a still": in_payload(OF_PREDICTED, 3, 1, pack_varint)(pieces, still),
        "256 MiB of an AV1 frame": in_payload(OF_KEY, SEQUENCE_END + 1, 1, pack_varint)(pieces, still),
        "ten million frames": in_index("frames")(pieces, 10_000_000),
        "2^64 frames": in_index("frames")(pieces, MOST64),
        "2^64 keyframes": in_index("keys")(pieces, MOST64),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sound = tmp_path / "sound.vdf"
    sound.write_bytes(victim)
    arguments = [str(weights), str(sound), str(folder), str(MARGIN)]
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, *arguments], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results.keys() == files.keys()
    rebuilt = ("ten million frames", "2^64 keyframes")  # claims of an INDEX that the chunks belie
    for name, (recovered, strict) in results.items():
        assert recovered in ("BitstreamError", "LimitError", 3 * GOP), name
        assert strict in ("BitstreamError", "LimitError") or name in rebuilt, name


def traced(work: Callable[[], object]) -> int:
    """Peak bytes of Python and numpy."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_frames_that_only_an_index_claims_cost_no_memory(codec: Codec, victim: bytes) -> None:
    """INDEX may claim 1024 frames for every keyframe, none of which can be decoded."""
    count, gop, out = 100, 1024, bytearray(MAGIC)
    header = split(victim)[0][1]
    out += framed(HEADER, header[:34] + struct.pack("<H", gop) + header[36:])
    entries = []
    for number in range(count):
        entries.append((len(out), gop * number, gop * number))
        out += framed(KEY, b"KF" + pack_varint(gop * number) + pack_zigzag(gop * number))
    index = len(out)
    out += framed(INDEX, index_of(gop * count, entries)) + framed(END, struct.pack("<Q", index))
    assert len(out) < 2200

    def work() -> None:
        with pytest.raises(BitstreamError, match="no frame can be decoded"):
            read(bytes(out), codec)

    assert traced(work) < 16 * gop * count


def test_packets_of_nothing_cost_no_memory(victim: bytes) -> None:
    """Two bytes of a chunk can be a packet. A chunk of them must not take 60 times its size."""
    pieces = split(victim)
    track = (TRACK, pack_track(Track("audio", "opus", Fraction(1, 25), "matroska", b"")))
    payload = pack_packets(TrackPacket(0, number, 1, False, b"") for number in range(15_000))
    data = joined([pieces[0], track, pieces[1], (PACKETS, payload), *pieces[2:]])
    counts = list[int]()

    def work() -> None:
        counts.append(sum(1 for _ in TrackFile(io.BytesIO(data)).packets()))

    assert traced(work) < 20 * len(payload)
    assert counts == [15_000]


@pytest.mark.parametrize("kind", [TrackFile, PassingTracks])
def test_packets_without_end_before_a_frame(
    victim: bytes, monkeypatch: pytest.MonkeyPatch, kind: type[TrackFile]
) -> None:
    """Attachments are limited, from files and pipes. Together they may exceed one chunk."""
    monkeypatch.setattr(trackfile, "WAITING_BYTES", 4000)
    packets = PACKETS, pack_packets([TrackPacket(0, 0, 1, True, bytes(1500))])
    header, *frames, index, end = split(victim)
    track = (TRACK, pack_track(Track("audio", "opus", Fraction(1, 25), "matroska", b"")))
    spread = [piece for frame in frames for piece in (packets, packets, frame)]
    source = kind(io.BytesIO(joined([header, track, *spread, index, end])))
    count = sum(1 for _ in source.packets())
    if isinstance(source, PassingTracks):
        count += sum(sum(1 for _ in source.packets()) for _ in source.scan())
    assert count == 2 * len(frames)
    assert count * 1500 > trackfile.WAITING_BYTES
    with pytest.raises(LimitError, match="before a frame"):
        kind(io.BytesIO(joined([header, track, *[packets] * 3, *frames, index, end])))


def test_packets_that_nobody_takes_out_of_a_pipe(victim: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last packets are kept. If they are taken, too many before one frame are an error."""
    monkeypatch.setattr(trackfile, "WAITING_BYTES", 4000)
    header, *frames, index, end = split(victim)
    track = (TRACK, pack_track(Track("audio", "opus", Fraction(1, 25), "matroska", b"")))
    packets = [(PACKETS, pack_packets([TrackPacket(0, n, 1, True, bytes(1500))])) for n in range(20)]
    data = joined(
        [header, track, frames[0], *packets[:10], frames[1], *packets[10:], *frames[2:], index, end]
    )
    source = PassingTracks(io.BytesIO(data))
    assert len(list(source.scan())) == len(frames)
    assert [packet.pts for packet in source.packets()] == [18, 19]
    source = PassingTracks(io.BytesIO(data))
    chunks = source.scan()
    next(chunks)
    next(chunks)
    assert [packet.pts for packet in source.packets()] == [8, 9]
    with pytest.raises(LimitError, match="before a frame"):
        next(chunks)


NO_NETWORK = """
import os, sys
from socket import AF_UNIX

def refuse(event, arguments):
    if not event.startswith("socket.") or event in ("socket.__new__", "socket.gethostname"):
        return
    if getattr(arguments[0], "family", None) != AF_UNIX:
        with open(os.environ["REPORT"], "a") as report:
            print(event, file=report)
        raise PermissionError(event)

sys.addaudithook(refuse)
with open(os.environ["REPORT"], "a") as report:
    print("begun", file=report)
"""
"""Python runs this at the start of every process, also of those that viddiff starts. Connecting, listening,
sending and name lookups raise. Unix sockets, which processes of one machine use, are allowed.
"""
WITHOUT_NETWORK = """
import socket, sys
from pathlib import Path
from viddiff.cli import main
from viddiff.pipeline import selftest
from viddiff.training import enhancement

selftest.golden_folder = lambda: Path(sys.argv[5])
enhancement._FIRST_TILES = 8

for attempt in (
    lambda: socket.socket().connect(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("localhost", 9),
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9)),
):
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit("the network is not blocked")
open(sys.argv[2], "w").close()
clip, folder, weights = sys.argv[1], sys.argv[3], sys.argv[4]
for command in (
    ["encode", clip, folder + "/a.vdf", "--gop", "3", "--weights", weights],
    ["info", folder + "/a.vdf"],
    ["info", "--model", "--weights", weights],
    ["decode", folder + "/a.vdf", folder + "/a.mkv", "--weights", weights, "--workers", "2"],
    ["selftest"],
    ["train", "--data", folder + "/footage", "--out", folder + "/w.safetensors", "--init", sys.argv[6],
     "--steps", "1", "--batch", "1", "--max-minutes", "0.1"],
):
    main(command, standalone_mode=False)
"""


def test_no_network_is_used(weights: Path, base_weights: Path, tmp_path: Path) -> None:
    """No command uses the network, in one process or several. libav is tested below."""
    clip, report, folder = tmp_path / "clip.mkv", tmp_path / "report", tmp_path / "hook"
    folder.mkdir()
    (tmp_path / "footage").mkdir()
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    with VideoWriter(clip, VideoInfo(16, 16), lossless=True) as writer:
        for frame in moving_picture(16, 16, 5):
            writer.write(frame)
    with VideoWriter(tmp_path / "footage" / "a.y4m", VideoInfo(256, 256)) as writer:
        for frame in moving_picture(256, 256, 9):
            writer.write(frame)
    env = environment(REPORT=str(report))
    env["PYTHONPATH"] = os.pathsep.join((str(folder), env["PYTHONPATH"]))
    golden = smallest_golden(tmp_path / "golden")
    arguments = [str(path) for path in (clip, report, tmp_path, weights, golden, base_weights)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *arguments], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.mkv").exists()
    assert (tmp_path / "w.safetensors").exists()
    said = report.read_text().split()
    assert set(said) == {"begun"}, said
    assert len(said) >= 2, "the processes were watched, too"


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat", "sdp", "mpd"])
def test_a_source_cannot_send_libav_into_the_network(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        url = f"http://127.0.0.1:{port}/a.ts"
        path = tmp_path / f"clip.{kind}"
        path.write_text(
            {
                "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
                "ffconcat": f"ffconcat version 1.0\nfile {url}\n",
                "sdp": f"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} TCP/RTP/AVP 33\n",
                "mpd": f"<MPD type='static'><Period><BaseURL>{url}</BaseURL></Period></MPD>",
            }[kind]
        )
        with pytest.raises(ViddiffError):
            VideoReader(path)
        with pytest.raises(BlockingIOError):
            server.accept()
