"""Files with an AV1 base: exact, in any number of processes, sought in, damaged; never worse than AV1."""

import io
import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture, restless, same

from viddiff.cli import main
from viddiff.codec.base_bit_depth import rounded, widened
from viddiff.codec.base_frames import BaseFrame, DecodedFrame
from viddiff.codec.base_gop_decoder import BaseGopDecoder
from viddiff.codec.base_payloads import (
    KINDS,
    StrengthReader,
    StrengthTables,
    StrengthWriter,
    pack_frames,
    unpack_frames,
)
from viddiff.codec.block_motion import SearchedFrame
from viddiff.codec.enhancer import Enhancer, blocks_of
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder
from viddiff.codec.open_decoder import open_decoder
from viddiff.container.format import Chunk, KeyChunk, Writer
from viddiff.container.reader import Reader
from viddiff.encoder import base_gop_encoder
from viddiff.encoder.base_gop_encoder import BaseGopEncoder
from viddiff.encoder.options import EncodeOptions
from viddiff.encoder.strength_choice import Prices, Worth, choose_strengths
from viddiff.errors import BitstreamError, CheckpointError, OutputError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.authorship import written_by_viddiff
from viddiff.media.av1_headers import Coding
from viddiff.media.av1_stream import delimited
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.networks.enhancement_config import GROUPS, STRENGTHS
from viddiff.pipeline.extract_base import extract_base
from viddiff.pipeline.output import Output
from viddiff.pipeline.output_file import OutputFile
from viddiff.pipeline.parallel_decode import decode_video
from viddiff.pipeline.parallel_encode import encode_video
from viddiff.pipeline.resources import Resources
from viddiff.pipeline.serial import decode, encode

pytestmark = pytest.mark.usefixtures("strong_corrections")
FRAMES = 20
SIZE = 80, 66


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return [replace(frame, pts=n) for n, frame in enumerate(moving_picture(*SIZE, FRAMES))]


def coded(
    enhancer: Enhancer, frames: list[Frame], options: EncodeOptions, bit_depth: int = 8
) -> tuple[bytes, list[Frame]]:
    """The file, and the encoder's own reconstruction."""
    out, shown = io.BytesIO(), list[Frame]()
    height, width = frames[0].y.shape
    encoder = BaseGopEncoder(enhancer, VideoInfo(width, height, bit_depth), options)
    output = Output(Writer(out, encoder.header))
    encode(frames, encoder, output, watch=lambda group: shown.extend(group.frames))
    return out.getvalue(), shown


@pytest.fixture(scope="module")
def whole(enhancer: Enhancer, frames: list[Frame]) -> bytes:
    return coded(enhancer, frames, EncodeOptions(gop=9))[0]


@pytest.mark.parametrize(
    "options",
    [
        EncodeOptions(gop=9),
        EncodeOptions(gop=9, low_delay=True),
        EncodeOptions(entropy="huffman", quality=5),
        EncodeOptions(quality=60),
    ],
    ids=["default", "low delay", "huffman", "best"],
)
def test_decoder_shows_the_encoders_reconstruction(
    enhancer: Enhancer, frames: list[Frame], options: EncodeOptions
) -> None:
    data, shown = coded(enhancer, frames, options)
    assert coded(enhancer, frames, options)[0] == data, "equal input gives equal bytes"
    decoded = list(decode(io.BytesIO(data), enhancer))
    assert same(decoded, shown)
    assert [frame.pts for frame in decoded] == list(range(FRAMES))


@pytest.mark.parametrize("size", [(16, 16), (17, 131), (130, 65)])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_any_size_and_depth(enhancer: Enhancer, size: tuple[int, int], bit_depth: int) -> None:
    pictures = moving_picture(*size, 4, bit_depth)
    data, shown = coded(enhancer, pictures, EncodeOptions(quality=20), bit_depth)
    assert same(list(decode(io.BytesIO(data), enhancer)), shown)


def test_threads_do_not_matter(enhancer: Enhancer, frames: list[Frame], whole: bytes) -> None:
    out, info, options = io.BytesIO(), VideoInfo(*SIZE), EncodeOptions(gop=9)
    several = replace(enhancer, threads=3)
    encoder = BaseGopEncoder(several, info, options, threads=2)
    encode(frames, encoder, Output(Writer(out, encoder.header)))
    assert out.getvalue() == whole
    alone, together = (list(decode(io.BytesIO(whole), each)) for each in (enhancer, several))
    assert same(alone, together)


@pytest.mark.parametrize("together", [2, 5])
def test_gops_side_by_side_do_not_matter(
    enhancer: Enhancer, frames: list[Frame], whole: bytes, together: int
) -> None:
    out, shown = io.BytesIO(), list[Frame]()
    encoder = BaseGopEncoder(enhancer, VideoInfo(*SIZE), EncodeOptions(gop=9))
    output = Output(Writer(out, encoder.header))
    encode(frames, encoder, output, watch=lambda group: shown.extend(group.frames), together=together)
    assert out.getvalue() == whole
    assert same(shown, list(decode(io.BytesIO(whole), enhancer)))


@pytest.mark.parametrize("preset", ["fastest", "faster"])
def test_quickest_presets_show_the_base_as_it_is(
    enhancer: Enhancer, frames: list[Frame], preset: str
) -> None:
    data, shown = coded(enhancer, frames, EncodeOptions(gop=9, preset=preset))
    assert same(shown, list(bare(data)))
    assert same(shown, list(decode(io.BytesIO(data), enhancer)))


def test_threads_show_the_same_frames_before_a_fault(enhancer: Enhancer, whole: bytes) -> None:
    reader, rng, faults = Reader(io.BytesIO(whole)), random.Random(5), 0
    key, chunk = gop(reader)[:2]
    for _ in range(12):
        payload = bytearray(chunk.payload)
        payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        shown: list[list[Frame]] = []
        for threads in (1, 3):
            decoder = open_decoder(reader.header, replace(enhancer, threads=threads))
            shown.append(list(decoder.decode(key)))
            try:
                shown[-1].extend(decoder.decode(replace(chunk, payload=bytes(payload))))
            except BitstreamError:
                faults += 1
        assert same(*shown)
    assert faults > 4


@pytest.fixture
def chosen_corrections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks get the strengths that are best for them."""
    monkeypatch.setattr(base_gop_encoder, "choose_strengths", choose_strengths)


@pytest.mark.usefixtures("chosen_corrections")
def test_enhancement_is_never_worse(enhancer: Enhancer, frames: list[Frame]) -> None:
    """A network of random weights is switched off, at hardly any cost."""
    whole, _ = coded(enhancer, frames, EncodeOptions(gop=9))

    def error(shown: list[Frame]) -> float:
        pairs = zip(frames, shown, strict=True)
        return sum(float(np.square(a.y.astype(float) - b.y).sum()) for a, b in pairs)

    base = list(bare(whole))
    assert error(list(decode(io.BytesIO(whole), enhancer))) <= error(base)
    reader = Reader(io.BytesIO(whole))
    side = sum(len(unpack_frames(c.payload[i == 0 :])[1]) for i, c in enumerate(gop(reader)))
    assert side <= 4 * 3, "some bytes for each chunk"


def gop(reader: Reader) -> list[Chunk]:
    """The chunks of the first GOP."""
    chunks = list(reader)
    return chunks[: 1 + next(i for i, chunk in enumerate(chunks[1:]) if not isinstance(chunk.pts, tuple))]


def bare(data: bytes) -> list[Frame]:
    """The base's frames, without a network."""
    reader = Reader(io.BytesIO(data))
    decoder = BaseGopDecoder(reader.header, None)
    return [frame for chunk in reader for frame in decoder.decode(chunk)]


@pytest.fixture(scope="module")
def video(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "in.mkv"
    with VideoWriter(path, VideoInfo(*SIZE), lossless=True) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.usefixtures("chosen_corrections")  # in all processes
def test_any_number_of_processes(base_weights: Path, video: Path, tmp_path: Path) -> None:
    files = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.vdf"
        with VideoReader(video) as reader, open(out, "wb") as file:
            resources, options = (
                Resources(base_weights, workers=workers),
                EncodeOptions(gop=7),
            )
            summary = encode_video(reader, resources, options, lambda header: Output(Writer(file, header)))
        assert (summary.frames, summary.keyframes) == (FRAMES, 3)
        assert 0 < summary.base_bytes < summary.size_bytes
        files.append(out.read_bytes())
    assert files[0] == files[1]
    shown = []
    for workers in (1, 2, 3):
        with open(out, "rb") as file:
            shown.append(list(decode_video(file, out, Resources(base_weights, workers=workers)).frames))
    assert same(shown[0], shown[1])
    assert same(shown[0], shown[2])


def test_processes_share_a_gop(
    base_weights: Path, enhancer: Enhancer, frames: list[Frame], tmp_path: Path
) -> None:
    """Each of them decodes all of the base, and enhances its own chunks."""
    out = tmp_path / "long.vdf"
    out.write_bytes(coded(enhancer, frames, EncodeOptions(quality=10))[0])
    one, two = (_shown(out, base_weights, workers) for workers in (1, 2))
    assert len(one) == FRAMES
    assert same(one, two)


def _shown(file_path: Path, weights: Path, workers: int) -> list[Frame]:
    with open(file_path, "rb") as file:
        return list(decode_video(file, file_path, Resources(weights, workers=workers)).frames)


def test_seeking(base_weights: Path, enhancer: Enhancer, whole: bytes, tmp_path: Path) -> None:
    file_path = tmp_path / "file.vdf"
    file_path.write_bytes(whole)
    every = list(decode(io.BytesIO(whole), enhancer))
    for start in (0, 8, 9, 13, FRAMES - 1):
        with open(file_path, "rb") as file:
            video = decode_video(file, file_path, Resources(base_weights, workers=1), start, 2)
            assert same(list(video.frames), every[start : start + 2])


def test_damage_costs_its_gop(base_weights: Path, enhancer: Enhancer, whole: bytes, tmp_path: Path) -> None:
    every = list(decode(io.BytesIO(whole), enhancer))
    starts = [entry.offset for entry in Reader(io.BytesIO(whole)).stored_index()]
    file_path, rng = tmp_path / "file.vdf", random.Random(1)
    for _ in range(12):
        data = bytearray(whole)
        data[rng.randrange(starts[1], starts[2])] ^= 1 << rng.randrange(8)
        file_path.write_bytes(data)
        with open(file_path, "rb") as file:
            video = decode_video(file, file_path, Resources(base_weights, workers=1))
            shown = list(video.frames)
        assert video.damage
        assert same(shown[:9], every[:9])
        assert same(shown[18:], every[18:])


def test_hostile_payloads_end_in_our_errors(enhancer: Enhancer, whole: bytes) -> None:
    """Chunks with sound checksums and any bytes: frames or a BitstreamError, nothing else."""
    reader, rng = Reader(io.BytesIO(whole)), random.Random(2)
    chunks, refused = gop(reader), 0
    for number in range(150):
        decoder = open_decoder(reader.header, enhancer)
        at = rng.randrange(len(chunks))
        payload = bytearray(chunks[at].payload)
        match number % 3:
            case 0:
                payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
            case 1:
                del payload[rng.randrange(len(payload)) :]
            case 2:
                payload[rng.randrange(len(payload)) :] = rng.randbytes(rng.randrange(40))
        changed = [*chunks[:at], replace(chunks[at], payload=bytes(payload)), *chunks[at + 1 :]]
        try:
            shown = [frame for chunk in changed for frame in decoder.decode(chunk)]
        except ViddiffError:
            refused += 1
        else:
            assert all(frame.y.shape == SIZE[::-1] for frame in shown)
    assert refused > 75


def test_weights_must_be_the_files(enhancer: Enhancer, whole: bytes) -> None:
    other = Enhancer(restless(4))
    with pytest.raises(CheckpointError, match="made with the weights 'narrow'"):
        list(decode(io.BytesIO(whole), other))


def test_base_is_a_plain_av1_stream(whole: bytes) -> None:
    """Any AV1 decoder shows the base's frames, which `--base-only` rounds."""
    reader = Reader(io.BytesIO(whole))
    chunks = gop(reader)
    decoder = BaseGopDecoder(reader.header, None)
    expected = [frame for chunk in chunks for frame in decoder.decode(chunk)]
    from viddiff.media.av1_stream import split_units

    units = []
    for chunk in chunks:
        key = isinstance(chunk, KeyChunk)
        joined, _ = unpack_frames(chunk.payload[1:] if key else chunk.payload)
        units += split_units(joined, 1 if isinstance(chunk, KeyChunk) else len(chunk.pts))
    with av.open(io.BytesIO(delimited(units)), "r", format="obu") as file:
        pictures = [picture.to_ndarray() for picture in file.decode(video=0)]
    assert len(pictures) == len(expected)
    for picture, frame in zip(pictures, expected, strict=True):
        assert picture.dtype == np.uint16, "the base has 10 bits"
        assert np.array_equal(np.rint(picture[: SIZE[1], : SIZE[0]] / 4), frame.y)


@pytest.mark.parametrize("form", [".mp4", ".mkv"])
def test_base_is_taken_out_without_decoding(
    enhancer: Enhancer, frames: list[Frame], tmp_path: Path, form: str
) -> None:
    """A player shows the base's frames at their times, in 10 bits and the video's colours."""
    source, target = tmp_path / "in.vdf", tmp_path / f"out{form}"
    info = VideoInfo(*SIZE, 8, Fraction(1, 1000), Fraction(25), 9, 16, 9, sample_aspect_ratio=Fraction(4, 3))
    with open(source, "wb") as file:
        encoder = BaseGopEncoder(enhancer, info, EncodeOptions(gop=9))
        timed = [replace(frame, pts=40 * frame.pts + frame.pts % 2) for frame in frames]
        timed[-1] = replace(timed[-1], duration=700)
        encode(timed, encoder, Output(Writer(file, encoder.header)))
    count, notes = extract_base(source, output_at(target))
    with pytest.raises(OutputError, match="exists"):
        output_at(target).check(source)
    assert written_by_viddiff(target), "so that --force may replace it"
    assert count == FRAMES
    assert any("aspect" in note for note in notes) == (form == ".mkv")
    with VideoReader(target) as reader:
        found = reader.info
        shown = list(reader)
    assert (found.width, found.height) == SIZE
    assert (found.primaries, found.transfer, found.matrix) == (9, 16, 9)
    assert found.sample_aspect_ratio == (Fraction(4, 3) if form == ".mp4" else 1)
    with av.open(str(target)) as file:
        (last,) = [p for p in file.demux(video=0) if p.size][-1:]
        lasts = (last.duration or 0) * last.time_base
    assert lasts == Fraction(7, 10) or form == ".mkv", "libav gives blocks of .mkv no duration"
    times = [frame.pts * found.time_base - shown[0].pts * found.time_base for frame in shown]
    assert times == [Fraction(frame.pts - timed[0].pts, 1000) for frame in timed]
    pairs = zip(shown, bare(source.read_bytes()), strict=True)
    assert all(np.array_equal(rounded(a, 8).y, b.y) for a, b in pairs)


def test_samples_are_rounded_half_to_even() -> None:
    samples = np.arange(1024, dtype=np.uint16)
    for plane in (samples[None], samples[:, None], np.tile(samples, (90, 1))):
        shown = rounded(Frame(plane, plane[:1], plane[:, :1], 7), 8)
        assert shown.pts == 7
        for before, after in zip((plane, plane[:1], plane[:, :1]), shown.planes, strict=True):
            assert after.dtype == np.uint8
            assert np.array_equal(after, np.minimum(np.rint(before / 4), 255))


def test_a_file_without_a_base_has_none_to_take_out(tmp_path: Path) -> None:
    golden = next((Path(__file__).parent / "data" / "golden").glob("plain*.vdf"))
    with pytest.raises(ViddiffError, match="no AV1 base"):
        extract_base(golden, output_at(tmp_path / "out.mp4"))
    assert list(tmp_path.iterdir()) == []


def output_at(path: Path) -> OutputFile:
    return OutputFile(path, False, written_by_viddiff, "a video that viddiff has written")


def test_base_command(base_weights: Path, video: Path, tmp_path: Path) -> None:
    """From a video to a plain AV1 file, and the same frames from `decode --base-only`."""
    vdf = tmp_path / "a.vdf"
    encoded = run("encode", video, vdf, "--weights", base_weights, "--workers", 1, "--json")
    assert encoded.exit_code == 0, encoded.output
    assert json.loads(run("info", vdf, "--json").stdout)["base"] == "av1"
    taken = run("base", vdf, "--json")
    assert taken.exit_code == 0, taken.output
    assert json.loads(taken.stdout)["frames"] == FRAMES
    assert "exists; --force" in run("base", vdf).stderr
    assert run("base", vdf, "--force").exit_code == 0
    assert run("base", vdf, tmp_path / "a.avi").exit_code == 1
    shown = run("decode", vdf, tmp_path / "a.y4m", "--base-only", "--workers", 1)
    assert shown.exit_code == 0, shown.output
    assert "without enhancement" in shown.stderr
    with VideoReader(tmp_path / "a.mp4") as reader, VideoReader(tmp_path / "a.y4m") as other:
        pairs = list(zip(reader, other, strict=True))
    assert len(pairs) == FRAMES
    assert all(np.array_equal(rounded(a, 8).y, b.y) for a, b in pairs)
    wrong = run("encode", video, tmp_path / "b.vdf", "--weights", base_weights, "--base", "none")
    assert wrong.exit_code == 1
    assert "are for --base av1" in wrong.stderr


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- strengths ---------------------------------------------------------------------------------------


def test_strengths_there_and_back() -> None:
    rng, tables, blocks = np.random.default_rng(1), StrengthTables.parametric(), (3, 5)
    stream = SymbolEncoder()
    writer, written = StrengthWriter(stream, tables), []
    for _ in range(40):
        strengths, kinds = np.zeros((GROUPS, *blocks), np.int64), []
        for group in range(GROUPS):
            kind = int(rng.integers(KINDS))
            kinds.append(kind)
            varied = rng.integers(0, STRENGTHS, blocks)
            strengths[group] = kind if kind < STRENGTHS else varied
        writer.put(strengths, kinds)
        written.append(strengths)
    decoder = SymbolDecoder(stream.finish())
    reader = StrengthReader(decoder, tables, blocks)
    for strengths in written:
        assert np.array_equal(reader.get(), strengths)
    decoder.finish()


def test_symbols_out_of_range_are_refused() -> None:
    tables = StrengthTables.parametric()
    for symbol in (-1, KINDS, 1000):
        stream = SymbolEncoder()
        stream.put(np.array([symbol]), np.array([KINDS]), tables.kinds)
        with pytest.raises(BitstreamError, match="out of range"):
            StrengthReader(SymbolDecoder(stream.finish()), tables, (1, 1)).get()


def test_units_that_are_cut_off_are_refused() -> None:
    payload = pack_frames([b"abc", b"de"], b"strengths")
    assert unpack_frames(payload) == (b"abcde", b"strengths")
    with pytest.raises(BitstreamError, match="cut off"):
        unpack_frames(payload[:4])


def test_strengths_follow_what_helps(enhancer: Enhancer) -> None:
    """Where the corrected picture is the original, it is taken; where it is not, it is left."""
    original = moving_picture(128, 64, 1)[0]
    searched = SearchedFrame(widened(original, 8))
    correction = enhancer.correction(BaseFrame(DecodedFrame(searched, Coding(120, False))), 140)
    blocks = blocks_of(128, 64)
    full = correction.applied(np.full((GROUPS, *blocks), 2), 8)
    assert not same([full], [original])
    y, u, v = (
        np.hstack([a[:, : a.shape[1] // 2], b[:, a.shape[1] // 2 :]]).astype(np.uint8)
        for a, b in zip(full.planes, original.planes, strict=True)
    )
    wanted = Frame(y, u, v)
    worth = Worth.of([wanted], [searched.frame], 8, 1e5)
    prices = Prices.of(StrengthTables.parametric())
    choice = choose_strengths(correction.errors(wanted, 8), worth, prices, [KINDS] * GROUPS)
    assert choice.strengths.tolist() == [[[2, 0]], [[2, 0]]]
    assert choice.kinds[0] >= STRENGTHS
