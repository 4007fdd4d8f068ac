"""Classic codecs on a clip's frames: encode by ffmpeg, count bytes, decode, measure.

    video file -> Source (.y4m) -> elementary stream -> raw frames -> Fidelity

x264, x265 and SVT-AV1 come from the ffmpeg binary of the imageio-ffmpeg package. Every process runs on one
thread, no encoder is tuned, and keyframes are at most `KEYFRAME_INTERVAL` frames apart.

Bytes are those of the elementary stream alone: no container, no SEI (x264 and x265 write their options there,
700 to 2,600 bytes that no decoder needs), no IVF headers, no AV1 temporal delimiters.
"""

import functools
import hashlib
import json
import math
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from viddiff.errors import ViddiffError
from viddiff.frame import Frame, Plane, VideoInfo
from viddiff.media.picture_planes import PIXEL_FORMATS
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.training.metrics import Distortion

KEYFRAME_INTERVAL = 250
"""Most frames from one keyframe to the next: the default of x264 and x265, longer than most test clips."""
MS_SSIM_SIDE = 176
"""Smallest side that MS-SSIM's five scales of 11 x 11 windows can measure."""


class AnchorError(ViddiffError):
    """ffmpeg is missing or failed; the message is one sentence for the user."""


@dataclass(frozen=True)
class Anchor:
    """A codec to compare with."""

    name: str
    title: str
    """What it is, for people."""
    suffix: str
    """File name extension of its elementary stream."""
    encoder: str
    """ffmpeg's name of the encoder."""
    options: tuple[str, ...]
    """Further ffmpeg arguments."""
    ladder: tuple[int, ...]
    """CRF values that together cover the usual range of qualities."""

    def arguments(self, crf: int) -> list[str]:
        """ffmpeg's output arguments, all that the encoded bytes depend on."""
        settings = ["-c:v", self.encoder, "-crf", str(crf), "-threads", "1", "-g", str(KEYFRAME_INTERVAL)]
        return [*settings, *self.options, "-fps_mode", "passthrough"]


ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor(
            "x264",
            "x264 medium",
            ".264",
            "libx264",
            ("-preset", "medium", "-bsf:v", "filter_units=remove_types=6"),
            (18, 22, 26, 30, 34, 38, 42),
        ),
        Anchor(
            "x265",
            "x265 medium",
            ".265",
            "libx265",
            (
                "-preset", "medium", "-x265-params", "pools=none:frame-threads=1:info=0:log-level=error",
                "-bsf:v", "filter_units=remove_types=39-40",
            ),
            (16, 20, 24, 28, 32, 36, 40),
        ),
        Anchor(
            "svtav1",
            "SVT-AV1 preset 6",
            ".ivf",
            "libsvtav1",
            ("-preset", "6", "-svtav1-params", "lp=1"),
            (16, 24, 32, 40, 47, 54, 61),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A clip's original frames in an uncompressed file, read back as often as needed."""

    name: str
    path: Path
    """The `.y4m` file; its folder is for temporary files."""
    info: VideoInfo
    times: tuple[int, ...]
    """Presentation time of each frame."""
    digest: str
    """SHA-256 of the `.y4m` file."""
    notes: tuple[str, ...]
    """What had to be changed in reading the clip."""

    @classmethod
    def read(cls, video: Path, folder: Path, frames: int | None = None) -> "Source":
        """Copy the first `frames` frames of a video (None: all) into `folder`."""
        path = folder / "source.y4m"
        times = []
        with VideoReader(video, frames=frames) as reader, VideoWriter(path, reader.info) as writer:
            for frame in reader:
                writer.write(frame)
                times.append(frame.pts)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(video.name, path, reader.info, tuple(times), digest, tuple(reader.notes))

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Frame]:
        with self.path.open("rb") as file:
            header = len(file.readline())
        yield from raw_frames(self.path, self.info, self.times, header, len(b"FRAME\n"))

    @property
    def frame_bytes(self) -> int:
        """Size of one uncompressed frame."""
        return sum(h * w for h, w in _plane_shapes(self.info)) * _sample_type(self.info).itemsize

    @property
    def pixels(self) -> int:
        """Luma samples of all frames."""
        return len(self) * self.info.width * self.info.height


@dataclass(frozen=True)
class Fidelity:
    """How near decoded frames are to the original, over all frames of a clip."""

    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_611: float
    vmaf: float | None = None
    """Mean of the frames' VMAF (model vmaf_v0.6.1), 0..100."""
    ms_ssim: float | None = None
    """Mean of the frames' luma MS-SSIM, 0..1."""

    @property
    def ms_ssim_db(self) -> float | None:
        """MS-SSIM in dB, on which equal steps look about equal."""
        return None if self.ms_ssim is None or self.ms_ssim >= 1 else -10 * math.log10(1 - self.ms_ssim)


@dataclass(frozen=True)
class Spent:
    """Time that a piece of work took, in seconds."""

    wall_s: float
    cpu_s: float
    """Of all threads together: on one thread, what the wall would show on an idle machine."""


@dataclass(frozen=True)
class Point:
    """One point of a rate-distortion curve."""

    setting: int
    """CRF of an anchor, quality of viddiff."""
    size_bytes: int
    fidelity: Fidelity
    encode: Spent
    decode: Spent
    measured: str
    """When, in UTC."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Point":
        """Back from the plain data of JSON."""
        fidelity, encode, decode = (data[name] for name in ("fidelity", "encode", "decode"))
        parts = {"fidelity": Fidelity(**fidelity), "encode": Spent(**encode), "decode": Spent(**decode)}
        return cls(**{**data, **parts})


def raw_frames(
    path: Path, info: VideoInfo, times: tuple[int, ...], header: int = 0, marker: int = 0
) -> Iterator[Frame]:
    """Frames of a file of planes, after `header` bytes and each after `marker` bytes."""
    shapes, kind = _plane_shapes(info), _sample_type(info)
    with path.open("rb") as file:
        file.seek(header)
        for pts in times:
            file.seek(marker, 1)
            y, u, v = (_plane(file.read(h * w * kind.itemsize), kind, h, w) for h, w in shapes)
            yield Frame(y, u, v, pts)


def _plane(data: bytes, kind: np.dtype[Any], height: int, width: int) -> Plane:
    plane: Plane = np.frombuffer(data, kind).reshape(height, width)
    return plane


def _plane_shapes(info: VideoInfo) -> list[tuple[int, int]]:
    chroma = (info.height + 1) // 2, (info.width + 1) // 2
    return [(info.height, info.width), chroma, chroma]


def _sample_type(info: VideoInfo) -> np.dtype[Any]:
    return np.dtype(np.uint8) if info.bit_depth == 8 else np.dtype("<u2")


@functools.cache
def ffmpeg() -> str:
    """Path of the ffmpeg binary. Raises AnchorError if there is none."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise AnchorError("the other codecs need ffmpeg: pip install 'viddiff[bench]'") from error


@functools.cache
def ffmpeg_version() -> str:
    """Version of the ffmpeg binary."""
    answer = subprocess.run([ffmpeg(), "-version"], capture_output=True, text=True, check=True).stdout
    return answer.split()[2]


@functools.cache
def has_vmaf() -> bool:
    """Whether the ffmpeg binary can measure VMAF."""
    answer = subprocess.run([ffmpeg(), "-hide_banner", "-filters"], capture_output=True, text=True).stdout
    return " libvmaf " in answer


def measure_anchor(anchor: Anchor, crf: int, source: Source, vmaf: bool) -> Point:
    """Encode the clip, decode it again and measure both."""
    stream = source.path.with_name(f"anchor{anchor.suffix}")
    decoded = source.path.with_name("anchor.yuv")
    encoding = encode(anchor, crf, source, stream)
    decoding = decode(stream, decoded)
    return Point(crf, payload_bytes(stream), measure(source, decoded, vmaf), encoding, decoding, now())


def encode(anchor: Anchor, crf: int, source: Source, stream: Path) -> Spent:
    """Encode the clip into an elementary stream; returns the time, without the start of the process."""
    return _run(["-i", source.path.name, *anchor.arguments(crf), stream.name], source.path.parent)


def decode(stream: Path, decoded: Path) -> Spent:
    """Decode an elementary stream into raw planes; returns the time, without the start of the process."""
    output = ["-fps_mode", "passthrough", "-f", "rawvideo", decoded.name]
    return _run(["-threads", "1", "-i", stream.name, *output], stream.parent)


def payload_bytes(stream: Path) -> int:
    """Bytes of an elementary stream; of IVF without its headers and temporal delimiters."""
    data = stream.read_bytes()
    if stream.suffix != ".ivf":
        return len(data)
    position, total = int.from_bytes(data[6:8], "little"), 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        position += 12
        total += size - (2 if data[position : position + 2] == b"\x12\x00" else 0)
        position += size
    return total


def measure(source: Source, decoded: Path, vmaf: bool) -> Fidelity:
    """Compare raw decoded planes with the original."""
    expected = len(source) * source.frame_bytes
    if decoded.stat().st_size != expected:
        raise AnchorError(f"{source.name} decoded to {decoded.stat().st_size} bytes instead of {expected}")
    distortion = Distortion(source.info.bit_depth)
    for original, frame in zip(source, raw_frames(decoded, source.info, source.times), strict=True):
        distortion.add(original, frame)
    perceptual = _vmaf(source, decoded) if vmaf else (None, None)
    return Fidelity(*distortion.psnr_yuv, distortion.psnr_611, *perceptual)


def _vmaf(source: Source, decoded: Path) -> tuple[float, float | None]:
    """VMAF and, where the picture is large enough for it, MS-SSIM."""
    info, log = source.info, source.path.with_name("vmaf.json")
    raw = ["-f", "rawvideo", "-video_size", f"{info.width}x{info.height}"]
    raw += ["-pixel_format", PIXEL_FORMATS[info.bit_depth], "-i", decoded.name]
    features = "feature=name=float_ms_ssim:" if min(info.width, info.height) >= MS_SSIM_SIDE else ""
    same_times = "settb=AVTB,setpts=N/25/TB"
    graph = f"[0:v]{same_times}[d];[1:v]{same_times}[r];"
    graph += f"[d][r]libvmaf={features}n_threads=1:log_fmt=json:log_path={log.name}"
    _run([*raw, "-i", source.path.name, "-lavfi", graph, "-f", "null", "-"], decoded.parent)
    pooled = json.loads(log.read_text())["pooled_metrics"]
    ms_ssim = pooled.get("float_ms_ssim")
    return pooled["vmaf"]["mean"], ms_ssim and ms_ssim["mean"]


def _run(arguments: list[str], folder: Path) -> Spent:
    """Run ffmpeg in `folder`; returns the time it worked, as it counts that itself."""
    command = [ffmpeg(), "-hide_banner", "-nostdin", "-nostats", "-benchmark", "-y", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    spent = re.search(r"bench: utime=([\d.]+)s stime=([\d.]+)s rtime=([\d.]+)s", result.stderr)
    if result.returncode or not spent:
        last = result.stderr.strip().splitlines()[-1:]
        raise AnchorError(f"ffmpeg {' '.join(arguments)} failed: {' '.join(last)}")
    user, system, wall = map(float, spent.groups())
    return Spent(wall, user + system)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
