"""Backgrounds: GOPs that share what they begin with are exact, alone and together, and cost less."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import fixed_camera, moving_picture, restless, same
from test_base import bare, coded, output_at

from viddiff.cli import main
from viddiff.codec import enhancement_weights
from viddiff.codec.base_bit_depth import widened
from viddiff.codec.enhancer import Enhancer
from viddiff.codec.open_decoder import open_decoder
from viddiff.config import Limits
from viddiff.container.format import (
    BACKGROUND,
    MOST_BACKGROUNDS,
    Backgrounds,
    Chunk,
    Header,
    KeyChunk,
    Writer,
    unpack_key,
)
from viddiff.container.gop_table import schedule
from viddiff.container.part_file import PartFile
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.sealing import SealedWriter, Secret, unlock
from viddiff.encoder.background_choice import BackgroundChoice
from viddiff.encoder.grouping import Group, group_regularly
from viddiff.encoder.options import EncodeOptions
from viddiff.errors import BitstreamError, LimitError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.av1_background import LEAST_FRAMES, Copies, hidden_start
from viddiff.media.av1_headers import HeaderReader
from viddiff.media.av1_obus import iter_obus
from viddiff.media.av1_stream import MAX_FRAMES_OF_FIRST_UNIT, Av1Decoder, Av1Encoder
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.encode_job import EncodeJob
from viddiff.pipeline.extract_base import extract_base
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import decode

SIZE = 96, 80
OPTIONS = EncodeOptions(preset="fastest", gop=20)
Place = Callable[[int], Frame]


def place(seed: int, bit_depth: int = 8) -> Place:
    return fixed_camera(*SIZE, bit_depth, seed)


def shown(frame: Place, count: int, first: int = 0) -> list[Frame]:
    return [frame(number) for number in range(first, first + count)]


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    return Enhancer(restless())


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return shown(place(5), 50)


@pytest.fixture(scope="module")
def whole(enhancer: Enhancer, frames: list[Frame]) -> bytes:
    return coded(enhancer, frames, OPTIONS)[0]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, enhancer: Enhancer) -> Path:
    path = tmp_path_factory.mktemp("weights") / "narrow.safetensors"
    enhancement_weights.save(path, enhancer.weights)
    return path


# The AV1 stream


class Recorded(Av1Encoder):
    """Keeps the units of the copies."""

    copies: list[bytes]

    def _unit(self, packet: bytes) -> bytes | None:
        if self._copies is not None:
            self.copies = self._copies
        return super()._unit(packet)


def stream(
    frames: list[Frame], background: Frame, preset: int = 8, quantiser: int = 120
) -> tuple[Recorded, list[bytes]]:
    height, width = background.y.shape
    info = VideoInfo(width, height, 10)
    encoder = Recorded(info, quantiser=quantiser, preset=preset, background=background)
    units = [unit for frame in frames for unit in encoder.send(widened(frame, 8))]
    return encoder, [*units, *encoder.finish()]


def units_decoded(units: list[bytes], size: tuple[int, int] = SIZE) -> list[Frame]:
    decoder = Av1Decoder(*size, 10)
    return [decoder.decode(unit) for unit in units]


@pytest.mark.parametrize("preset", [8, 6, 4, 3, 2, 1])
@pytest.mark.parametrize("quantiser", [32, 120, 252])
def test_hidden_copies_leave_every_frame_as_it_was(preset: int, quantiser: int) -> None:
    """A decoder that shows the copies, as SVT-AV1 wrote them, shows the same frames after them."""
    frame = place(1)
    encoder, units = stream(shown(frame, 18), widened(frame(99), 8), preset, quantiser)
    copies = Copies.of(preset, low_delay=False)
    _, rest = hidden_start(encoder.copies, copies.shared)
    after = units[0][len(encoder.background) + len(rest) :]
    displayed = units_decoded([*encoder.copies, after, *units[1:]])[copies.count :]
    assert same(
        [replace(frame, pts=0) for frame in displayed],
        [replace(frame, pts=0) for frame in units_decoded(units)],
    )
    assert len(list(iter_obus(units[0]))) < MAX_FRAMES_OF_FIRST_UNIT


def test_lossless_keyframes_are_hidden_as_well() -> None:
    """SVT-AV1 codes copies of simple pictures without loss at the best quality."""
    y, x = np.mgrid[:64, :64]
    still = (x // 3 * 7 + y // 5 * 13) % 11 > 5
    flat, rng = np.full((32, 32), 128, np.uint8), np.random.default_rng(0)
    frames = [
        Frame((200 * still + 25 + rng.normal(0, 3, still.shape)).astype(np.uint8), flat, flat)
        for _ in range(18)
    ]
    background = widened(Frame((200 * still + 25).astype(np.uint8), flat, flat), 8)
    encoder, units = stream(frames, background, preset=2, quantiser=32)
    coding = HeaderReader().shown(encoder.copies[0])
    assert coding.quantiser == 0, "the case that this test is for"
    assert len(units_decoded(units, (64, 64))) == 18


@pytest.mark.parametrize("preset", [8, 6, 4, 3, 2, 1])
def test_the_shared_start_does_not_depend_on_what_follows(preset: int) -> None:
    frame, background = place(2), widened(place(2)(99), 8)
    starts = {
        stream(follow, background, preset)[0].background
        for follow in (shown(frame, 17), shown(frame, 40, 60), moving_picture(*SIZE, 25))
    }
    assert len(starts) == 1


@pytest.mark.parametrize("count", [1, 2, LEAST_FRAMES - 1, LEAST_FRAMES, 33])
def test_streams_of_any_length(count: int) -> None:
    frame = place(3)
    _, units = stream(shown(frame, count), widened(frame(99), 8))
    decoded = units_decoded(units)
    assert len(decoded) == count
    for original, found in zip(shown(frame, count), decoded, strict=True):
        assert np.abs(original.y.astype(int) * 4 - found.y).mean() < 60


def test_low_delay_shows_each_frame_at_once() -> None:
    frame = place(3)
    info, background = VideoInfo(*SIZE, 10), widened(frame(99), 8)
    starts, pictures = set[bytes](), shown(frame, 30)
    for first in (0, 10):
        encoder = Av1Encoder(info, quantiser=120, preset=8, low_delay=True, background=background)
        units = [encoder.send(widened(picture, 8)) for picture in pictures[first : first + 20]]
        assert [len(sent) for sent in units] == [1] * 20
        assert not list(encoder.finish())
        assert len(units_decoded([sent[0] for sent in units])) == 20
        starts.add(encoder.background)
    assert len(starts) == 1


# The choice


def backgrounds(video: list[Frame], gop: int = 20, info: VideoInfo | None = None) -> list[Frame | None]:
    """The background of each GOP."""
    choice = BackgroundChoice(info or VideoInfo(*SIZE), gop)
    groups = list(choice.attached(group_regularly(video, gop, 16)))
    assert [frame for group in groups for frame in group.frames] == video, "nothing is lost or moved"
    return [group.background for group in groups if group.key]


def test_a_fixed_camera_has_one_background() -> None:
    first, *others = backgrounds(shown(place(4), 70))
    assert first is not None
    assert all(other is first for other in others)


def test_the_background_lacks_noise_and_what_passes_by() -> None:
    found, _ = backgrounds(shown(place(4), 21))
    still = moving_picture(*SIZE, 1, seed=4)[0]
    assert found is not None
    error = np.abs(found.y / 4 - still.y.astype(float))
    assert error.mean() < np.abs(place(4)(0).y.astype(float) - still.y).mean() / 2
    assert error.max() < 16


@pytest.mark.parametrize("count", [19, 20])
def test_a_single_gop_has_none(count: int) -> None:
    """It would serve no other, and costs more than a keyframe."""
    assert backgrounds(shown(place(4), count)) == [None]


def test_a_moving_camera_has_none() -> None:
    assert backgrounds(moving_picture(*SIZE, 40)) == [None, None]


def test_places_are_remembered() -> None:
    """The video cuts between two cameras, and comes back to the first."""
    one, two = place(6), place(7)
    video = [*shown(one, 20), *shown(two, 20, 20), *shown(one, 20, 40), *shown(two, 20, 60)]
    first, second, third, fourth = backgrounds(video)
    assert first is not None
    assert second is not None
    assert first is not second
    assert third is first
    assert fourth is second


def test_a_new_one_when_the_light_changes() -> None:
    dark = [
        replace(frame, y=(frame.y * 0.8).astype(np.uint8), pts=frame.pts) for frame in shown(place(8), 40, 40)
    ]
    first, second, third, fourth = backgrounds([*shown(place(8), 40), *dark])
    assert first is second
    assert third is not None
    assert third is not first
    assert third is fourth


def test_low_delay_looks_back_only() -> None:
    """A background is made of the GOP before, and frames are never held back."""
    groups = group_regularly(shown(place(4), 70), 20, 1)
    taken = list[int]()

    def source() -> Iterator[Group]:
        for group in groups:
            taken.append(len(group.frames))
            yield group

    found = list[Frame | None]()
    for number, group in enumerate(BackgroundChoice(VideoInfo(*SIZE), 20).attached_at_once(source())):
        assert len(taken) == number + 1
        if group.key:
            found.append(group.background)
    assert found[0] is None
    assert found[1] is not None
    assert found[1] is found[2] is found[3]


def test_too_short_for_a_new_one() -> None:
    assert backgrounds(shown(place(4), LEAST_FRAMES - 1)) == [None]


def test_ten_bits() -> None:
    found, _ = backgrounds(shown(place(4, 10), 21), info=VideoInfo(*SIZE, 10))
    assert found is not None
    assert 400 < found.y.max() < 1024


# Files


@pytest.mark.parametrize("bit_depth", [8, 10])
@pytest.mark.parametrize("preset", ["fastest", "default"])
@pytest.mark.parametrize("low_delay", [False, True])
def test_decoder_shows_the_encoders_reconstruction(
    enhancer: Enhancer, bit_depth: int, preset: str, low_delay: bool
) -> None:
    video = shown(place(9, bit_depth), 45)
    options = replace(OPTIONS, preset=preset, quality=20, low_delay=low_delay)
    data, reconstruction = coded(enhancer, video, options, bit_depth)
    assert all(starts_of(data)[low_delay:])
    assert same(list(decode(io.BytesIO(data), enhancer)), reconstruction)
    assert len(set(starts_of(data)[low_delay:])) == 1


def test_smaller_at_no_worse_quality(enhancer: Enhancer, frames: list[Frame], whole: bytes) -> None:
    plain, _ = coded(enhancer, frames, replace(OPTIONS, background=False))

    def error(data: bytes) -> float:
        pairs = zip(frames, decode(io.BytesIO(data), enhancer), strict=True)
        return sum(float(np.square(a.y.astype(float) - b.y).mean()) for a, b in pairs)

    assert len(whole) < 0.85 * len(plain)
    assert error(whole) < 1.1 * error(plain)
    assert all(c.background == b"" for c in Reader(io.BytesIO(plain)) if isinstance(c, KeyChunk))


def test_any_number_of_processes_and_a_resume(path: Path, frames: list[Frame], tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with VideoWriter(source, VideoInfo(*SIZE), lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    files = []
    for workers in ("1", "2"):
        out = tmp_path / f"{workers}.vdf"
        arguments = [str(source), str(out), "--weights", str(path), "--gop", "20", "--preset", "fastest"]
        result = CliRunner().invoke(main, ["encode", *arguments, "--workers", workers])
        assert result.exit_code == 0, result.output
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert b"BG" in files[0]
    job = EncodeJob(
        source=source, target=out, gop=20, preset="fastest", weights=path, workers=1, resume=True, force=True
    )
    out.unlink()
    part = PartFile(out, job.fingerprint(), resume=False)
    part.write(files[0][: len(files[0]) * 9 // 10])
    assert part.leave()
    arguments = [str(source), str(out), "--weights", str(path), "--gop", "20", "--preset", "fastest"]
    result = CliRunner().invoke(main, ["encode", *arguments, "--workers", "1", "--resume"])
    assert result.exit_code == 0, result.output
    assert out.read_bytes() == files[0]


def test_seeking(path: Path, enhancer: Enhancer, whole: bytes, tmp_path: Path) -> None:
    file_path = tmp_path / "file.vdf"
    every = list(decode(io.BytesIO(whole), enhancer))
    for data in (whole, whole[:-40]):  # with INDEX, and without
        file_path.write_bytes(data)
        for start in (0, 19, 20, 33, 49):
            with open(file_path, "rb") as file:
                video = decode_video(file, file_path, Resources(path, workers=1), start, 2)
                assert same(list(video.frames), every[start : start + 2])


def test_encrypted(path: Path, enhancer: Enhancer, whole: bytes, tmp_path: Path) -> None:
    """Sought in, and read in order."""
    out, secret = io.BytesIO(), Secret(bytes(32), passphrase=False)
    writer = SealedWriter(out, secret)
    writer.write(whole)
    writer.finish()
    every = list(decode(io.BytesIO(whole), enhancer))
    sealed = tmp_path / "file.vdf"
    sealed.write_bytes(out.getvalue())
    for start in (0, 33):
        with ReadOptions(key=unlock(io.BytesIO(out.getvalue()), secret)).open(sealed) as file:
            video = decode_video(file, sealed, Resources(path, workers=1), start)
            assert same(list(video.frames), every[start:])


def test_the_base_taken_out_shows_the_same(enhancer: Enhancer, whole: bytes, tmp_path: Path) -> None:
    """Any player shows its frames, and nothing of the background."""
    source, target = tmp_path / "in.vdf", tmp_path / "out.mp4"
    source.write_bytes(whole)
    assert extract_base(source, output_at(target))[0] == 50
    with VideoReader(target) as reader:
        found = list(reader)
    expected = bare(whole)
    assert len(found) == len(expected)
    for frame, base in zip(found, expected, strict=True):
        assert np.array_equal(np.rint(frame.y / 4), base.y)


# The container

HEADER = Header(VideoInfo(16, 16), bytes(32), "none", gop=1, base=True)


def keys(*starts: bytes, header: Header = HEADER) -> bytes:
    """A file of keyframes that begin with these backgrounds."""
    out = io.BytesIO()
    writer = Writer(out, header)
    for number, start in enumerate(starts):
        writer.write(KeyChunk(number, b"picture", background=start))
    writer.finish()
    return out.getvalue()


def chunks(data: bytes) -> list[Chunk]:
    return list(Reader(io.BytesIO(data)).chunks(lambda fault: None))


def starts_of(data: bytes) -> list[bytes | None]:
    return [chunk.background for chunk in chunks(data) if isinstance(chunk, KeyChunk)]


def at_each_key(data: bytes) -> list[bytes | None]:
    """The same, of readers that seek to each keyframe."""
    found = []
    for gop in schedule(io.BytesIO(data), Limits()):
        if gop.entry is None:
            continue
        reader = Reader(io.BytesIO(data))
        reader.seek(gop.entry)
        chunk = next(iter(reader))
        assert isinstance(chunk, KeyChunk)
        found.append(chunk.background)
    return found


def test_a_background_is_stored_once() -> None:
    data = keys(b"one", b"", b"one", b"two", b"one")
    assert starts_of(data) == at_each_key(data) == [b"one", b"", b"one", b"two", b"one"]
    assert (data.count(b"BGone"), data.count(b"BGtwo")) == (1, 1)


def test_a_background_is_repeated() -> None:
    data = keys(*[b"one"] * 200)
    assert data.count(b"BGone") == 4
    assert starts_of(data) == at_each_key(data) == [b"one"] * 200


def test_only_the_last_ones_may_be_named() -> None:
    names = [b"%d" % n for n in range(MOST_BACKGROUNDS + 1)]
    data = keys(*names, names[0], names[-1])
    assert data.count(b"BG0") == 2, "the first was forgotten"
    assert data.count(b"BG" + names[-1]) == 1
    assert starts_of(data) == at_each_key(data) == [*names, names[0], names[-1]]


def test_large_ones_are_forgotten_earlier() -> None:
    large = bytes(40 << 20)
    data = keys(b"one", large, b"one")
    assert data.count(b"BGone") == 1
    data = keys(large, large[1:], large)
    assert data.count(b"BG") == 3


def test_a_damaged_copy_costs_the_gops_that_need_it() -> None:
    data = bytearray(keys(*[b"one"] * 130))
    first = data.index(b"BGone")
    second = data.index(b"BGone", first + 1)
    data[second + 2] ^= 1
    assert starts_of(bytes(data)) == at_each_key(bytes(data)) == [b"one"] * 130, "the first copy serves"
    data[second + 2] ^= 1
    data[first + 2] ^= 1
    expected = [None] * 64 + [b"one"] * 66
    assert starts_of(bytes(data)) == at_each_key(bytes(data)) == expected
    with pytest.raises(BitstreamError, match="damaged"):
        list(Reader(io.BytesIO(data)))


def test_damage_before_a_background_does_not_cost_it() -> None:
    out = io.BytesIO()
    writer = Writer(out, HEADER)
    writer.write(KeyChunk(0, b"picture"))
    end = writer.size_bytes
    writer.write(KeyChunk(1, b"picture", background=b"one"))
    data = bytearray(out.getvalue())
    data[end - 6] ^= 1
    assert starts_of(bytes(data)) == [b"one"]


def test_index_may_not_lie_about_it() -> None:
    data = keys(b"one", b"two", b"two")
    entries = Reader(io.BytesIO(data)).stored_index()
    for wrong in (entries[0].background, entries[2].offset, 0, len(data) - 3):
        reader = Reader(io.BytesIO(data))
        with pytest.raises((BitstreamError, LimitError)):
            reader.seek(replace(entries[1], background=wrong))
        with pytest.raises((BitstreamError, LimitError)):
            reader.check([replace(entries[1], background=wrong)])


def test_missing_is_an_error_of_the_decoder(enhancer: Enhancer, whole: bytes) -> None:
    reader = Reader(io.BytesIO(whole))
    key = next(iter(reader))
    assert isinstance(key, KeyChunk)
    decoder = open_decoder(reader.header, enhancer)
    with pytest.raises(BitstreamError, match="background"):
        list(decoder.decode(replace(key, background=None)))
    with pytest.raises(BitstreamError):
        list(open_decoder(reader.header, enhancer).decode(replace(key, background=b"")))


def test_files_without_a_base_have_none() -> None:
    with pytest.raises(BitstreamError, match="base"):
        keys(b"one", header=replace(HEADER, base=False))
    data = bytearray(keys(b"", header=replace(HEADER, base=False)))
    assert BACKGROUND == 6
    assert starts_of(bytes(data)) == [b""]


def test_wrong_references_are_refused() -> None:
    data = keys(b"one")
    body = data[data.index(b"KF") : data.index(b"picture")]
    known = Backgrounds()
    assert unpack_key(body, known).background is None
    for wrong in (body[:-1], body[:4] + b"\x02" + body[5:], body[:3]):
        with pytest.raises(BitstreamError):
            unpack_key(wrong, known)
