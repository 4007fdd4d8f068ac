"""Quantisers read from AV1 headers are those that FFmpeg's own parser of headers reports."""

import io
import re
from collections.abc import Iterator

import av
import av.bitstream
import av.logging
import numpy as np
import pytest
from conftest import moving_picture

from viddiff.errors import BitstreamError
from viddiff.frame import VideoInfo
from viddiff.media.av1_headers import Coding, HeaderReader
from viddiff.media.av1_stream import Av1Encoder, delimited

_FIELD = re.compile(r"(show_existing_frame|frame_to_show_map_idx|refresh_frame_flags|base_q_idx) .* = (\d+)")


def units_of(
    width: int, height: int, count: int, bit_depth: int = 8, low_delay: bool = False, preset: int = 8
) -> list[bytes]:
    frames = moving_picture(width, height, count, bit_depth)
    encoder = Av1Encoder(
        VideoInfo(width, height, bit_depth), quantiser=140, preset=preset, low_delay=low_delay
    )
    return [*(unit for frame in frames for unit in encoder.send(frame)), *encoder.finish()]


@pytest.fixture
def _traced() -> Iterator[None]:
    level = av.logging.get_level()
    av.logging.set_level(av.logging.TRACE)
    yield
    av.logging.set_level(level)


def traced(units: list[bytes]) -> list[int]:
    """base_q_idx of the frame that each unit shows, as the filter trace_headers prints it."""
    shown, slots, quantiser = [], [0] * 8, 0
    with av.open(io.BytesIO(delimited(units)), format="obu") as container:
        stream = container.streams.video[0]
        headers = av.bitstream.BitStreamFilterContext("trace_headers", stream)
        for packet in container.demux(stream):  # type: ignore[union-attr]
            if not packet.size:
                continue
            with av.logging.Capture() as lines:
                headers.filter(packet)
            refreshed = 0xFF
            for _, _, line in lines:
                if found := _FIELD.search(line):
                    name, value = found[1], int(found[2])
                    if name == "show_existing_frame":
                        refreshed = 0xFF  # what a keyframe does not state
                    elif name == "frame_to_show_map_idx":
                        quantiser = slots[value]
                    elif name == "refresh_frame_flags":
                        refreshed = value
                    else:
                        quantiser = value
                        slots = [value if refreshed >> i & 1 else slot for i, slot in enumerate(slots)]
            shown.append(quantiser)
    return shown


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize(
    ("width", "height", "bit_depth", "low_delay", "preset"),
    [(64, 64, 8, False, 8), (352, 288, 8, False, 8), (176, 144, 10, True, 8), (322, 66, 8, False, 4)],
)
def test_quantisers_are_those_of_ffmpeg(
    width: int, height: int, bit_depth: int, low_delay: bool, preset: int
) -> None:
    units = units_of(width, height, 20, bit_depth, low_delay, preset)
    reader = HeaderReader()
    found = [reader.shown(unit) for unit in units]
    quantisers = [coding.quantiser for coding in found]
    assert quantisers == traced(units)
    assert low_delay or len(set(quantisers)) > 3, "a hierarchy has several quantisers"
    assert [coding.intra for coding in found] == [True] + [False] * 19


def test_headers_cut_off_or_changed_are_refused_or_read() -> None:
    """Nothing but BitstreamError, and never a quantiser out of range."""
    units = units_of(64, 64, 6)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        reader = HeaderReader()
        try:
            for unit in units:
                data = bytearray(unit)
                for _ in range(rng.integers(1, 3)):
                    data[rng.integers(min(len(data), 24))] ^= 1 << rng.integers(8)
                coding = reader.shown(
                    bytes(data[: rng.integers(1, len(data) + 1)] if rng.random() < 0.5 else data)
                )
                assert isinstance(coding, Coding)
                assert 0 <= coding.quantiser <= 255
        except BitstreamError:
            pass


@pytest.mark.parametrize("unit", [b"", b"\x12\x00", b"\x32\x00", b"\x1a\x01\x80"])
def test_units_that_show_nothing_are_refused(unit: bytes) -> None:
    with pytest.raises(BitstreamError):
        HeaderReader().shown(unit)
