"""Colour, shape, fields and HDR metadata are kept, converted or refused, with a note."""

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from test_video import clip, coloured, store, write

from viddiff.cli import main
from viddiff.container.format import DISPLAY, HEADER, Header, KeyChunk, Writer
from viddiff.container.reader import Reader
from viddiff.display import Display
from viddiff.errors import BitstreamError, VideoError
from viddiff.frame import VideoInfo
from viddiff.media.video_reader import VideoReader

HDR = Display((34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450), (10_000_000, 50), (1000, 400))
"""A display with P3 primaries and 1000 cd/m2."""
MIRRORED = (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
WAYS = [(".mkv", False), (".mkv", True), (".mp4", False)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def info_of(path: Path) -> VideoInfo:
    with VideoReader(path) as reader:
        return reader.info


def hevc(path: Path, parameters: str = "", **colour: int) -> None:
    """Four 10-bit frames by x265, which writes HDR10 metadata into the stream."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.options = {"x265-params": f"log-level=none:pools=1:frame-threads=1:{parameters}"}
        for name, value in colour.items():
            setattr(stream.codec_context, name, value)
        for pts in range(4):
            picture = av.VideoFrame(64, 64, "yuv420p10le")
            for plane in picture.planes:
                plane.update(np.full(plane.buffer_size // 2, 500 + 9 * pts, np.uint16).tobytes())
            picture.pts = pts
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))


# --- the chunk -------------------------------------------------------------------------------------


def numbers(count: int, low: int, high: int) -> st.SearchStrategy[tuple[int, ...] | None]:
    return st.none() | st.tuples(*[st.integers(low, high)] * count)


@given(
    st.builds(
        Display,
        numbers(8, 0, 65535),
        numbers(2, 0, 2**32 - 1),
        numbers(2, 0, 65535),
        st.sampled_from(["progressive", "top first", "bottom first"]),
        numbers(9, -(2**31), 2**31 - 1),
    ),
    st.binary(max_size=3),
)
@settings(deadline=None)
def test_display_there_and_back(display: Display, later: bytes) -> None:
    data = display.pack()
    assert Display.unpack(data + later) == display
    assert Display.unpack(bytes([data[0] | 0xE0]) + data[1:]) == display, "bits of later versions"
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            Display.unpack(data[:size])


@pytest.mark.parametrize(
    "bad", [Display((1 << 16,) * 8), Display(content_light=(-1, 0)), Display(matrix=(1,))]
)
def test_display_refuses_what_has_no_place(bad: Display) -> None:
    with pytest.raises(BitstreamError):
        bad.pack()


def test_an_unknown_order_of_fields_is_refused() -> None:
    with pytest.raises(BitstreamError, match="order of fields 3"):
        Display.unpack(b"\x08\x03")


def small(display: Display) -> bytes:
    out = io.BytesIO()
    writer = Writer(out, Header(VideoInfo(32, 16, display=display), bytes(32), "tiny", 16))
    writer.write(KeyChunk(0, b"picture"))
    writer.finish()
    return out.getvalue()


def test_the_chunk_follows_header_and_only_if_there_is_something_to_say() -> None:
    plain, hdr = small(Display()), small(HDR)
    kinds: list[int] = []
    list(Reader(io.BytesIO(plain), others=lambda kind, _: kinds.append(kind)))
    assert kinds == []
    at = hdr.index(bytes([DISPLAY, 29, 7]))
    assert hdr[:at] == plain[:at], "the header is what it was"
    reader = Reader(io.BytesIO(hdr))
    assert reader.header.video.display == HDR
    assert [chunk.payload for chunk in reader] == [b"picture"]
    assert hdr[8] == HEADER


def test_a_damaged_chunk_costs_only_itself() -> None:
    data = bytearray(small(HDR))
    data[data.index(bytes([DISPLAY, 29, 7])) + 5] ^= 1
    reader = Reader(io.BytesIO(data))
    assert reader.header.video.display == Display()
    with pytest.raises(BitstreamError, match="CRC"):
        list(reader)
    faults: list[BitstreamError] = []
    again = Reader(io.BytesIO(data))
    assert [chunk.payload for chunk in again.chunks(faults.append)] == [b"picture"]
    assert len(faults) == 1


# --- kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "lossless"), WAYS)
@pytest.mark.parametrize(
    "display", [HDR, replace(HDR, content_light=None), Display(content_light=(800, 200))], ids=str
)
def test_hdr10_is_written_and_read(tmp_path: Path, display: Display, suffix: str, lossless: bool) -> None:
    info = VideoInfo(64, 48, 10, primaries=9, transfer=16, matrix=9, display=display)
    frames = clip(info, range(4))
    assert write(tmp_path / f"a{suffix}", info, frames, lossless) == []
    with VideoReader(tmp_path / f"a{suffix}") as reader:
        found, read = reader.info, list(reader)
        assert reader.notes == []
    assert found.display == display
    assert (found.primaries, found.transfer, found.matrix, found.full_range) == (9, 16, 9, False)
    assert [frame.pts * found.time_base for frame in read] == [Fraction(i, 25) for i in range(4)]
    if lossless:
        assert all(np.array_equal(a.y, b.y) for a, b in zip(read, frames, strict=True))


def test_hdr10_from_hevc_goes_all_the_way(tmp_path: Path, base_weights: Path) -> None:
    hevc(
        tmp_path / "a.mp4",
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400",
        color_primaries=9,
        color_trc=16,
        colorspace=9,
    )
    assert info_of(tmp_path / "a.mp4").display == HDR
    vdf = tmp_path / "a.vdf"
    assert run("encode", tmp_path / "a.mp4", vdf, "--weights", base_weights).exit_code == 0
    values = json.loads(run("info", vdf, "--json").stdout)
    assert values["mastering_display"] == {
        "red": [0.68, 0.32], "green": [0.265, 0.69], "blue": [0.15, 0.06], "white": [0.3127, 0.329],
        "luminance": [0.005, 1000.0],
    }  # fmt: skip
    assert values["content_light"] == {"max_cll": 1000, "max_fall": 400}
    for name in ("b.mkv", "b.mp4"):
        assert run("decode", vdf, tmp_path / name, "--weights", base_weights).exit_code == 0
        found = info_of(tmp_path / name)
        assert found.display == HDR
        assert (found.primaries, found.transfer, found.matrix, found.bit_depth) == (9, 16, 9, 10)


@pytest.mark.parametrize(("suffix", "lossless"), WAYS)
@pytest.mark.parametrize("location", range(7))
def test_every_chroma_location(tmp_path: Path, suffix: str, lossless: bool, location: int) -> None:
    """H.264 infers "left" if nothing is stated. FFV1 leaves it to Matroska, which has no bottom locations."""
    info = VideoInfo(64, 48, chroma_location=location)
    notes = write(tmp_path / f"a{suffix}", info, clip(info, range(2)), lossless)
    if lossless and location > 4:
        assert notes == [f"FFV1 in .mkv cannot hold chroma at {('bottomleft', 'bottom')[location - 5]}"]
        return
    assert notes == []
    assert info_of(tmp_path / f"a{suffix}").chroma_location == (location if lossless else location or 1)


@pytest.mark.parametrize(("suffix", "lossless"), WAYS)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("colour", [(1, 1, 1), (5, 6, 5), (6, 6, 6), (9, 18, 9), (12, 13, 2), (2, 2, 2)])
def test_colour_is_kept_and_nothing_invented(
    tmp_path: Path, suffix: str, lossless: bool, full_range: bool, colour: tuple[int, int, int]
) -> None:
    """BT.709, PAL, NTSC, HLG, Display P3, and a source that says nothing."""
    primaries, transfer, matrix = colour
    info = VideoInfo(64, 48, primaries=primaries, transfer=transfer, matrix=matrix, full_range=full_range)
    write(tmp_path / f"a{suffix}", info, clip(info, range(2)), lossless)
    found = info_of(tmp_path / f"a{suffix}")
    assert (found.primaries, found.transfer, found.matrix, found.full_range) == (*colour, full_range)


@pytest.mark.parametrize(("suffix", "lossless"), WAYS)
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_every_rotation(tmp_path: Path, suffix: str, lossless: bool, rotation: int) -> None:
    info = VideoInfo(64, 48, rotation=rotation)
    write(tmp_path / f"a{suffix}", info, clip(info, range(2)), lossless)
    found = info_of(tmp_path / f"a{suffix}")
    assert (found.rotation, found.display) == (rotation, Display())


@pytest.mark.parametrize(("suffix", "lossless"), WAYS)
def test_a_mirrored_picture(tmp_path: Path, suffix: str, lossless: bool, base_weights: Path) -> None:
    info = VideoInfo(64, 48, display=Display(matrix=MIRRORED))
    source, vdf, back = tmp_path / f"a{suffix}", tmp_path / "a.vdf", tmp_path / f"b{suffix}"
    write(source, info, clip(info, range(2)), lossless)
    assert info_of(source).display.matrix == MIRRORED
    assert run("encode", source, vdf, "--weights", base_weights).exit_code == 0
    assert json.loads(run("info", vdf, "--json").stdout)["display_matrix"] == list(MIRRORED)
    options = ["--lossless"] if lossless else []
    assert run("decode", vdf, back, "--weights", base_weights, *options).exit_code == 0
    assert info_of(back).display.matrix == MIRRORED


@pytest.mark.parametrize(("suffix", "lossless"), [*WAYS, (".y4m", False)])
@pytest.mark.parametrize("order", ["top first", "bottom first"])
def test_interlaced_frames_stay_interlaced(
    tmp_path: Path, suffix: str, lossless: bool, order: str, base_weights: Path
) -> None:
    info = VideoInfo(64, 48, sample_aspect_ratio=Fraction(16, 11), display=Display(field_order=order))  # type: ignore[arg-type]
    source, vdf, back = tmp_path / f"a{suffix}", tmp_path / "a.vdf", tmp_path / f"b{suffix}"
    assert write(source, info, clip(info, range(3)), lossless) == []
    result = run("encode", source, vdf, "--weights", base_weights)
    assert "Note: interlaced video is coded as frames; the field order is kept" in result.stderr
    assert json.loads(run("info", vdf, "--json").stdout)["field_order"] == order
    options = ["--lossless"] if lossless else []
    assert run("decode", vdf, back, "--weights", base_weights, *options).exit_code == 0
    found = info_of(back)
    assert (found.display.field_order, found.sample_aspect_ratio) == (order, Fraction(16, 11))


def test_y4m_says_what_it_cannot_hold(tmp_path: Path) -> None:
    for number, info in enumerate(
        [
            VideoInfo(64, 48, primaries=9),
            VideoInfo(64, 48, transfer=16),
            VideoInfo(64, 48, matrix=1),
            VideoInfo(64, 48, rotation=90),
            VideoInfo(64, 48, display=HDR),
            VideoInfo(64, 48, chroma_location=5),
            VideoInfo(64, 48, 10, chroma_location=1),
        ]
    ):
        (note,) = write(tmp_path / f"{number}.y4m", info, clip(info, [0]))
        assert note == ".y4m cannot hold rotation, colour description or HDR10 metadata"


# --- converted -------------------------------------------------------------------------------------


def ramp(form: str, width: int = 64, height: int = 32) -> av.VideoFrame:
    """4:4:4 or 4:2:2 whose U and V grow with the column."""
    picture = av.VideoFrame(width, height, form)
    for number, plane in enumerate(picture.planes):
        step = 2 if number == 0 or plane.width == width else 4
        row = np.zeros(plane.line_size, np.uint8)
        row[: plane.width] = 16 + step * np.arange(plane.width)
        plane.update(np.tile(row, (plane.height, 1)).tobytes())
    return picture


@pytest.mark.parametrize("form", ["yuv444p", "yuv422p"])
def test_chroma_is_left_where_the_note_in_the_header_says(tmp_path: Path, form: str) -> None:
    """The usual place in H.264 and MPEG-2: at the even columns of luma."""
    store(tmp_path / "a.mkv", [ramp(form)])
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert reader.info.chroma_location == 1
    expected = 16 + 4 * np.arange(32)
    assert np.abs(frame.u[8, 4:-4].astype(int) - expected[4:-4]).max() <= (1 if form == "yuv444p" else 0)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("yuv422p", "converted yuv422p to yuv420p"),
        ("yuv444p", "converted yuv444p to yuv420p"),
        ("gray", "converted gray to yuv420p"),
        ("bgr0", "converted bgr0 to yuv420p, by the matrix of BT.709 to limited range"),
        ("yuv422p10le", "converted yuv422p10le to yuv420p10le"),
        ("gray10le", "converted gray10le to yuv420p10le"),
        ("gbrp10le", "converted gbrp10le to yuv420p10le, by the matrix of BT.709 to limited range"),
        ("yuv444p16le", "converted yuv444p16le to yuv420p10le"),
        ("gray16le", "converted gray16le to yuv420p10le"),
    ],
)
def test_every_conversion_is_said_in_one_line(
    tmp_path: Path, base_weights: Path, form: str, said: str
) -> None:
    """Also for odd sizes."""
    store(tmp_path / "a.mkv", [coloured(form, 35, 33)] * 2)
    result = run("encode", tmp_path / "a.mkv", "--weights", base_weights, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert [line for line in result.stderr.splitlines() if line.startswith("Note")] == [f"Note: {said}"]
    values = json.loads(run("info", tmp_path / "a.vdf", "--json").stdout)
    assert (values["width"], values["height"]) == (35, 33)


def test_rgb_of_a_wide_gamut_takes_its_own_matrix(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gbrp10le"
        stream.codec_context.color_primaries = 9
        green = av.VideoFrame(64, 48, "gbrp10le")
        for plane, value in zip(green.planes, (1023, 0, 0), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        output.mux(stream.encode(green) + stream.encode(None))
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert (reader.info.primaries, reader.info.matrix) == (9, 9)
        assert "BT.2020" in reader.notes[0]
    assert abs(int(frame.y[9, 9]) - round(64 + 876 * 0.678)) <= 2


@pytest.mark.parametrize(
    ("color_range", "full", "said"), [(0, True, True), (1, False, False), (2, True, False)]
)
def test_the_range_of_gray(tmp_path: Path, color_range: int, full: bool, said: bool) -> None:
    """No other format has a usual range that differs from the standards' default."""
    picture = coloured("gray", color_range=color_range)
    luma = np.frombuffer(memoryview(picture.planes[0]), np.uint8).reshape(48, -1)[:, :64].copy()
    store(tmp_path / "a.mkv", [picture])
    with VideoReader(tmp_path / "a.mkv") as reader:
        (frame,) = reader
        assert reader.info.full_range is full
        assert ("not stated" in reader.notes[0]) is said
    assert np.array_equal(frame.y, luma)
    assert np.unique(frame.u).tolist() == [128]


# --- alpha -----------------------------------------------------------------------------------------


def transparent(form: str, alpha: int) -> av.VideoFrame:
    pixels = np.full((48, 64, 4), 90, np.uint8)
    pixels[..., 3] = 255
    pixels[5, 7, 3] = alpha
    return av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=form)


ALPHAS = [("ffv1", "yuva420p"), ("ffv1", "bgra"), ("ffv1", "gbrap10le"), ("qtrle", "argb")]
SUFFIX = {"ffv1": ".mkv", "qtrle": ".mov"}


@pytest.mark.parametrize(("encoder", "form"), ALPHAS)
def test_alpha_is_an_error_unless_dropped(
    tmp_path: Path, base_weights: Path, encoder: str, form: str
) -> None:
    """From the first transparent sample on, however late it comes."""
    pictures = [transparent(form, 255), transparent(form, 255), transparent(form, 100)]
    store(tmp_path / f"a{SUFFIX[encoder]}", pictures, encoder)
    command = ("encode", tmp_path / f"a{SUFFIX[encoder]}", "--weights", base_weights)
    result = run(*command, "--workers", 1)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "has an alpha channel, which viddiff cannot encode; --drop-alpha removes it" in line
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [f"a{SUFFIX[encoder]}"]
    result = run(*command, "--drop-alpha")
    assert result.exit_code == 0, result.output
    assert "Note: left the alpha channel out" in result.stderr


@pytest.mark.parametrize(("encoder", "form"), ALPHAS)
def test_an_alpha_channel_that_hides_nothing_is_no_loss(tmp_path: Path, encoder: str, form: str) -> None:
    store(tmp_path / f"a{SUFFIX[encoder]}", [transparent(form, 255)] * 2, encoder)
    with VideoReader(tmp_path / f"a{SUFFIX[encoder]}") as reader:
        assert len(list(reader)) == 2
        assert len(reader.notes) == 1
        assert "converted" in reader.notes[0]


def test_palettes(tmp_path: Path) -> None:
    """PNG with a palette: opaque, and then with a transparent entry."""
    cases: list[tuple[str, dict[str, Any]]] = [("a.png", {}), ("b.png", {"transparency": 0})]
    for name, options in cases:
        from PIL import Image

        image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (48, 1)), "P")
        image.putpalette(bytes(range(192)))
        image.save(tmp_path / name, **options)
    with VideoReader(tmp_path / "a.png") as reader:
        assert len(list(reader)) == 1
        assert reader.notes == ["converted pal8 to yuv420p, by the matrix of BT.709 to limited range"]
    with VideoReader(tmp_path / "b.png") as reader, pytest.raises(VideoError, match="--drop-alpha"):
        list(reader)


def test_alpha_beside_vp9_counts(tmp_path: Path) -> None:
    """WebM stores alpha apart from the picture. libav's own decoder does not look there."""
    with av.open(str(tmp_path / "a.webm"), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["alpha_mode"] = "1"
        output.mux(stream.encode(coloured("yuv420p")) + stream.encode(None))
    with pytest.raises(VideoError, match="--drop-alpha"):
        VideoReader(tmp_path / "a.webm")
    with VideoReader(tmp_path / "a.webm", drop_alpha=True) as reader:
        assert len(list(reader)) == 1
        assert "left the alpha channel out" in reader.notes
