"""Chunks of equal shape that were swapped, repeated, dropped or moved cost their GOP at most."""

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from conftest import coded, moving_picture, same

from viddiff.codec import enhancement_weights
from viddiff.codec.enhancement_module import weights_of
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import Weights
from viddiff.codec.weights import Codec
from viddiff.config import Limits
from viddiff.container.format import (
    KEY,
    Chunk,
    Header,
    KeyChunk,
    PredictedChunk,
    Writer,
    pack_varint,
    pack_zigzag,
)
from viddiff.container.gop_table import schedule
from viddiff.container.part_file import whole_gops
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import SealedReader, SealedWriter, Secret, unlock
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, LimitError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.networks.enhancement import EnhancementNetwork
from viddiff.networks.enhancement_config import EnhancementConfig
from viddiff.pipeline.chunk_sizes import gop_table
from viddiff.pipeline.damage import Damage
from viddiff.pipeline.extract_base import extract_base
from viddiff.pipeline.output_file import OutputFile
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.streaming import decode_stream

GOP, GOPS = 3, 4
CHUNKS = GOP * GOPS
"""Each has one frame. The first of a GOP is its keyframe."""


class Pipe(io.BytesIO):
    """A file that cannot seek."""

    def seekable(self) -> bool:
        return False


def orders() -> Iterator[tuple[str, list[int], set[int]]]:
    """Every way to swap two chunks, and to repeat, drop or move one, with the GOPs that this may cost."""
    true = list(range(CHUNKS))
    for a in true:
        yield f"drop {a}", true[:a] + true[a + 1 :], {a // GOP}
        for b in true:
            if a < b:
                swapped = true.copy()
                swapped[a], swapped[b] = b, a
                yield f"swap {a} and {b}", swapped, {a // GOP, b // GOP}
            rest = true[:a] + true[a + 1 :]
            if a != b:
                yield f"move {a} to {b}", [*rest[:b], a, *rest[b:]], {a // GOP}
            yield f"repeat {a} at {b}", [*true[:b], a, *true[b:]], set()
        yield f"repeat {a} at the end", [*true, a], set()


def parts(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """What comes before the chunks of frames, these, and INDEX with END."""
    starts = [offset for offset, _ in Reader(io.BytesIO(data)).scan(None)]
    index = int.from_bytes(data[-12:-4], "little")
    chunks = [data[a:b] for a, b in zip(starts, [*starts[1:], index], strict=True)]
    return data[: starts[0]], chunks, data[index:]


def arranged(data: bytes, order: list[int], index: bool = True) -> bytes:
    """The file with its chunks of frames in this order. INDEX still describes the original."""
    head, chunks, tail = parts(data)
    return head + b"".join(chunks[n] for n in order) + (tail if index else b"")


# --- the container: every way ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> tuple[bytes, list[Chunk]]:
    """Chunks of equal size and equal times, whose content tells them apart."""
    out, chunks = io.BytesIO(), list[Chunk]()
    writer = Writer(out, Header(VideoInfo(64, 48), bytes(32), "tiny", GOP))
    for number in range(CHUNKS):
        content = bytes([number]) * 5
        chunks.append(PredictedChunk((number,), content) if number % GOP else KeyChunk(number, content))
        writer.write(chunks[-1])
    writer.finish()
    return out.getvalue(), chunks


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kind", [io.BytesIO, Pipe])
def test_no_chunk_is_read_in_a_wrong_place(
    plain: tuple[bytes, list[Chunk]], index: bool, kind: type[io.BytesIO]
) -> None:
    data, whole = plain
    for name, order, struck in orders():
        if order == list(range(CHUNKS)):
            continue
        changed = arranged(data, order, index)
        faults = list[BitstreamError]()
        found = list(Reader(kind(changed)).chunks(faults.append))
        numbers = [chunk.first for chunk in found]
        assert found == [whole[number] for number in numbers], name
        assert numbers == sorted(set(numbers)), name
        assert {n // GOP for n in set(range(CHUNKS)) - set(numbers)} <= struck, name
        if name != f"drop {CHUNKS - 1}" or not index:  # which INDEX alone tells
            assert faults, name
            with pytest.raises(BitstreamError):
                list(Reader(kind(changed)))


@pytest.mark.parametrize("index", [True, False])
def test_the_table_of_gops_is_true(plain: tuple[bytes, list[Chunk]], index: bool) -> None:
    data, _ = plain
    truth = [(number, GOP) for number in range(0, CHUNKS, GOP)]
    for name, order, struck in orders():
        file = io.BytesIO(arranged(data, order, index))
        gops = [(gop.first, gop.frames) for gop in schedule(file, Limits())]
        if index:
            assert gops == truth, name
        else:
            covered = [number for first, frames in gops for number in range(first, first + frames)]
            assert covered == list(range(len(covered))), name
            assert {n // GOP for n in set(range(CHUNKS)) - set(covered)} <= struck, name
        for row in gop_table(file, Limits()):
            assert row.frame % GOP == 0
            assert row.frames <= GOP


def test_a_resume_keeps_what_comes_before_the_fault(plain: tuple[bytes, list[Chunk]]) -> None:
    data, _ = plain
    head, chunks, _ = parts(data)
    for name, order, _ in orders():
        size, gops = whole_gops(io.BytesIO(arranged(data, order, index=False)))
        right = next((n for n, number in enumerate(order) if n != number), len(order))
        assert gops <= right // GOP, name
        assert size <= len(head) + sum(map(len, chunks[: gops * GOP])), name


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kept", [[1, 2, 3], [3], [0, 2, 3], [0, 3], [0, 1], [1, 3]])
def test_gops_that_were_cut_out(plain: tuple[bytes, list[Chunk]], kept: list[int], index: bool) -> None:
    data, whole = plain
    order = [GOP * gop + n for gop in kept for n in range(GOP)]
    changed = arranged(data, order, index)
    assert list(Reader(Pipe(changed)).chunks(lambda fault: None)) == [whole[number] for number in order]
    gops = schedule(io.BytesIO(changed), Limits())
    assert [gop.first // GOP for gop in gops if gop.entry] == kept
    assert sum(gop.frames for gop in gops) == (CHUNKS if index else GOP * (kept[-1] + 1))
    if kept != [0, 1] or not index:  # there, INDEX alone tells
        with pytest.raises(BitstreamError):
            list(Reader(Pipe(changed)))


@pytest.mark.parametrize("number", [CHUNKS + 1, 9_999_999, 10_000_000, (1 << 64) - 1])
def test_a_forged_number_costs_no_other_gop(plain: tuple[bytes, list[Chunk]], number: int) -> None:
    """Wherever it stands, and however many frames it claims."""
    data, whole = plain
    head, chunks, tail = parts(data)
    for place in range(CHUNKS + 1):
        for pts in (-5, CHUNKS, (1 << 63) - 1):
            payload = b"KF" + pack_varint(number) + pack_zigzag(pts) + b"forged"
            chunk = bytes([KEY, len(payload)]) + payload
            key = chunk + zlib.crc32(chunk).to_bytes(4, "little")
            changed = head + b"".join([*chunks[:place], key, *chunks[place:]]) + tail
            for file in (io.BytesIO(changed), Pipe(changed)):
                found = list(Reader(file).chunks(lambda fault: None))
                assert found[:CHUNKS] == whole
                assert len(found) <= CHUNKS + (place == CHUNKS)


def test_a_keyframe_within_the_limit_does_not_hide_those_beyond(plain: tuple[bytes, list[Chunk]]) -> None:
    data, _ = plain
    order = [*range(GOP), *range(2 * GOP, CHUNKS)]
    with pytest.raises(LimitError, match="more than 8 frames"):
        list(Reader(Pipe(arranged(data, order)), Limits(frames=8)).chunks(lambda fault: None))


# --- the codec: some ways, by all ways to read -------------------------------------------------------------


@dataclass(frozen=True)
class Loaded(Resources):
    """Resources with loaded weights."""

    loaded: Weights | None = None

    def load_to_decode(self, threads: int = 1) -> Weights | None:
        return self.loaded


@dataclass(frozen=True)
class Victim:
    """A file whose first and third GOP are equal, and so are the second and fourth."""

    data: bytes
    frames: list[Frame]
    resources: Resources


@pytest.fixture(scope="module", params=["none", "av1"])
def victim(request: pytest.FixtureRequest, codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    weights: Weights = codec
    if request.param == "av1":
        network = EnhancementNetwork(EnhancementConfig(name="narrow", half=8, quarter=8, quarter_blocks=1))
        path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
        enhancement_weights.save(path, weights_of(network))
        weights = Enhancer(enhancement_weights.load(path))
    options = EncodeOptions(gop=GOP, low_delay=True, preset="fastest")
    frames = [replace(frame, pts=n) for n, frame in enumerate(moving_picture(32, 32, 2 * GOP))]
    data, shown, _ = coded(weights, frames, options=options)
    reader, out = Reader(io.BytesIO(data)), io.BytesIO()
    chunks, writer = list(reader), Writer(out, reader.header)
    assert len(chunks) == 2 * GOP
    for number in range(CHUNKS):
        chunk = chunks[number % len(chunks)]
        writer.write(
            KeyChunk(number, chunk.payload)
            if isinstance(chunk, KeyChunk)
            else PredictedChunk((number,), chunk.payload)
        )
    writer.finish()
    good = [replace(shown[number % len(shown)], pts=number) for number in range(CHUNKS)]
    return Victim(out.getvalue(), good, Loaded(Path("loaded"), workers=1, loaded=weights))


WAYS = [
    *("swap 1 and 2", "swap 1 and 4", "swap 1 and 7", "swap 3 and 9", "swap 0 and 6", "swap 2 and 9"),
    *("move 4 to 8", "move 9 to 1", "move 3 to 11", "move 0 to 11"),
    *("repeat 4 at 4", "repeat 4 at 10", "repeat 6 at 1", "repeat 9 at 0"),
    *("drop 0", "drop 4", "drop 5", "drop 6", "drop 11"),
]


def by_file(data: bytes, victim: Victim, strict: bool) -> tuple[list[Frame], Damage]:
    video = decode_video(io.BytesIO(data), Path("x"), victim.resources, options=ReadOptions(strict))
    return list(video.frames), video.damage


def by_pipe(data: bytes, victim: Victim, strict: bool) -> tuple[list[Frame], Damage]:
    video, _ = decode_stream(Pipe(data), victim.resources, options=ReadOptions(strict))
    return list(video.frames), video.damage


def by_seeking(data: bytes, victim: Victim, strict: bool) -> tuple[list[Frame], Damage]:
    """Each frame on its own."""
    frames, damage = list[Frame](), Damage(0, CHUNKS)
    for number in range(CHUNKS):
        try:
            video = decode_video(
                io.BytesIO(data), Path("x"), victim.resources, number, 1, ReadOptions(strict)
            )
            frames += video.frames
            damage.blame(video.damage.faults)
            for first, last in video.damage.lost:
                damage.lose(first, last)
        except ViddiffError:
            if strict:
                raise
            damage.lose(number, number)  # and there is no other frame to show
            frames.append(victim.frames[number])
    return frames, damage


def by_sealed(data: bytes, victim: Victim, strict: bool) -> tuple[list[Frame], Damage]:
    """From an encrypted pipe: its writer has misplaced the chunks."""
    out, secret = io.BytesIO(), Secret(bytes(range(32)), passphrase=False)
    writer = SealedWriter(out, secret, salt=bytes(32))
    writer.write(data)
    writer.finish()
    pipe = Pipe(out.getvalue())
    opened = cast(BinaryIO, SealedReader(pipe, unlock(pipe, secret), lenient=not strict))
    video, _ = decode_stream(opened, victim.resources, options=ReadOptions(strict))
    return list(video.frames), video.damage


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("read", [by_file, by_pipe, by_seeking, by_sealed])
def test_no_frame_is_shown_in_a_wrong_place(
    victim: Victim, name: str, read: Callable[[bytes, Victim, bool], tuple[list[Frame], Damage]]
) -> None:
    order, struck = next((order, struck) for known, order, struck in orders() if known == name)
    for index in (True, False):
        data = arranged(victim.data, order, index)
        if read is by_seeking and (not struck or (name == "drop 11" and not index)):
            continue  # all can be read, or nobody can know of that frame
        frames, damage = read(data, victim, False)
        assert damage
        assert [frame.pts for frame in frames] == list(range(len(frames)))
        lost = {n for first, last in damage.lost for n in range(first, last + 1)}
        kept = [frame for n, frame in enumerate(frames) if n not in lost]
        assert same(kept, [victim.frames[frame.pts] for frame in kept])
        assert {n // GOP for n in lost | set(range(len(frames), CHUNKS))} <= struck
        with pytest.raises(ViddiffError):
            read(data, victim, True)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("read", [by_file, by_pipe])
@pytest.mark.parametrize("kept", [[1, 2, 3], [3], [0, 3], [1, 3]])
def test_what_a_cut_out_part_lacks_is_named(
    victim: Victim,
    kept: list[int],
    read: Callable[[bytes, Victim, bool], tuple[list[Frame], Damage]],
    index: bool,
) -> None:
    data = arranged(victim.data, [GOP * gop + n for gop in kept for n in range(GOP)], index)
    frames, damage = read(data, victim, False)
    assert len(frames) == CHUNKS
    lost = {n for first, last in damage.lost for n in range(first, last + 1)}
    assert lost == {n for n in range(CHUNKS) if n // GOP not in kept}
    kept_frames = [frame for n, frame in enumerate(frames) if n not in lost]
    assert same(kept_frames, [victim.frames[frame.pts] for frame in kept_frames])
    with pytest.raises(BitstreamError):
        read(data, victim, True)


def test_a_base_is_not_taken_out_of_misplaced_chunks(victim: Victim, tmp_path: Path) -> None:
    source, target = tmp_path / "a.vdf", OutputFile(tmp_path / "a.mkv", False, lambda path: False, "")
    source.write_bytes(victim.data)
    if not Reader(io.BytesIO(victim.data)).header.base:
        pytest.skip("networks predict the frames")
    for name, order, _ in orders():
        if name in WAYS:
            source.write_bytes(arranged(victim.data, order))
            with pytest.raises(BitstreamError):
                extract_base(source, target)
            assert not target.path.exists()
