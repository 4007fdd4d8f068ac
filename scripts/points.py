"""One point of a rate-distortion curve: code a clip, count bytes, decode it again, measure.

    video file -> Source (.y4m) -> coded file -> decoded .y4m -> Fidelity

x265, SVT-AV1 and VVenC come from the ffmpeg binary of the imageio-ffmpeg package, not tuned for the eye;
viddiff is run as the program that users run. Every process computes with one thread.

Bytes are those of viddiff's whole file and, of the others, of the elementary stream alone: no container, no
SEI (x265 writes its options there), no IVF headers, no AV1 temporal delimiters.
"""

import contextlib
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from viddiff.errors import ViddiffError
from viddiff.frame import Frame, Plane, VideoInfo
from viddiff.media.ffmpeg_program import find_ffmpeg
from viddiff.media.picture_planes import PIXEL_FORMATS
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.media.vmaf import VmafMeter
from viddiff.metrics.psnr import Distortion
from viddiff.pixels import plane_shapes


class BenchmarkError(ViddiffError):
    """A codec is missing or failed; the message is one sentence for the user."""


@dataclass(frozen=True)
class Source:
    """A clip's original frames in an uncompressed file, read back as often as needed."""

    name: str
    path: Path
    """The `.y4m` file; its folder is for temporary files."""
    info: VideoInfo
    frames: int
    digest: str
    """SHA-256 of the `.y4m` file."""
    notes: tuple[str, ...] = ()
    """What had to be changed in reading the clip."""

    @classmethod
    def read(cls, video: Path, folder: Path, frames: int | None = None) -> "Source":
        """Copy the first `frames` frames of a video (None: all) into `folder`."""
        path = folder / "source.y4m"
        count = 0
        with VideoReader(video, frames=frames) as reader, VideoWriter(path, reader.info) as writer:
            for frame in reader:
                writer.write(frame)
                count += 1
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(video.name, path, reader.info, count, digest, tuple(reader.notes))

    def __iter__(self) -> Iterator[Frame]:
        return y4m_frames(self.path, self.info)


def y4m_frames(path: Path, info: VideoInfo) -> Iterator[Frame]:
    """Frames of an uncompressed file. Raises BenchmarkError if it is none of such frames."""
    kind = np.dtype(np.uint8) if info.bit_depth == 8 else np.dtype("<u2")
    shapes = plane_shapes(info.width, info.height)
    with path.open("rb") as file:
        words = file.readline().split()
        if words[:1] != [b"YUV4MPEG2"] or not {b"W%d" % info.width, b"H%d" % info.height} <= set(words):
            raise BenchmarkError(f"{path} does not hold frames of {info.width}x{info.height}")
        while marker := file.readline():
            planes = [file.read(h * w * kind.itemsize) for h, w in shapes]
            if (
                not marker.startswith(b"FRAME")
                or len(planes[2]) != shapes[2][0] * shapes[2][1] * kind.itemsize
            ):
                raise BenchmarkError(f"{path} is cut short")
            y, u, v = (_plane(data, kind, shape) for data, shape in zip(planes, shapes, strict=True))
            yield Frame(y, u, v)


def _plane(data: bytes, kind: np.dtype[Any], shape: tuple[int, int]) -> Plane:
    plane: Plane = np.frombuffer(data, kind).reshape(shape)
    return plane


@dataclass(frozen=True)
class Fidelity:
    """How near decoded frames are to the original, over all frames of a clip."""

    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_611: float
    vmaf: float | None = None
    """Mean of the frames' VMAF (model vmaf_v0.6.1), 0..100."""


@dataclass(frozen=True)
class Spent:
    """Time that a program took, its start included, in seconds."""

    wall_s: float
    cpu_s: float
    """Of all its threads and processes together."""


@dataclass(frozen=True)
class Coded:
    """What a codec made of a clip."""

    size_bytes: int
    decoded: Path
    """A `.y4m` file."""
    encode: Spent
    decode: Spent
    ledger: list[dict[str, Any]] = field(default_factory=list)
    """Where the bytes went, a part each, in the encoder's own words."""


@dataclass(frozen=True)
class Point:
    """One point of a rate-distortion curve."""

    setting: int
    """CRF or QP of another codec, quality of viddiff."""
    size_bytes: int
    fidelity: Fidelity
    encode: Spent
    decode: Spent
    measured: str
    """When, in UTC."""
    ledger: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Point":
        """Back from the plain data of JSON."""
        fidelity, encode, decode = (data[name] for name in ("fidelity", "encode", "decode"))
        parts = {"fidelity": Fidelity(**fidelity), "encode": Spent(**encode), "decode": Spent(**decode)}
        return cls(**{**data, **parts})


@dataclass(frozen=True)
class FfmpegCodec:
    """A codec that ffmpeg has."""

    name: str
    title: str
    """What it is, for people."""
    suffix: str
    """File name extension of its elementary stream."""
    options: tuple[str, ...]
    """ffmpeg's output arguments; {setting} and {interval} stand for what they say."""
    ladder: tuple[int, ...]
    """Settings that together cover the usual range of qualities."""
    interval: int
    """Most frames from one keyframe to the next."""

    def arguments(self, setting: int | str) -> list[str]:
        """ffmpeg's output arguments, all that the coded bytes depend on beside its version."""
        return [option.format(setting=setting, interval=self.interval) for option in self.options]

    def code(self, source: Source, setting: int) -> Coded:
        """Encode and decode a clip, in the clip's folder. Raises BenchmarkError."""
        folder = source.path.parent
        stream, decoded = folder / f"{self.name}{self.suffix}", folder / f"{self.name}.y4m"
        form = PIXEL_FORMATS[source.info.bit_depth]
        command = [ffmpeg(), "-v", "error", "-nostdin", "-y", "-threads", "1", "-i"]
        coding = [*self.arguments(setting), "-threads", "1", "-fps_mode", "passthrough", stream.name]
        encode = run([*command, source.path.name, *coding], folder)
        shown = ["-fps_mode", "passthrough", "-sws_dither", "none", "-pix_fmt", form, "-strict", "-1"]
        decode = run([*command, stream.name, *shown, decoded.name], folder)
        return Coded(payload_bytes(stream), decoded, encode.spent, decode.spent)


def anchors(interval: int) -> dict[str, FfmpegCodec]:
    """The codecs to compare with, by name."""
    x265 = (
        *("-c:v", "libx265", "-preset", "medium", "-crf", "{setting}", "-g", "{interval}"),
        *("-x265-params", "pools=none:frame-threads=1:info=0:log-level=error"),
        *("-bsf:v", "filter_units=remove_types=39-40"),
    )
    vvenc = (
        *("-c:v", "libvvenc", "-preset", "faster", "-qp", "{setting}", "-g", "{interval}", "-qpa", "0"),
        *("-vvenc-params", "verbosity=0:threads=1"),
    )

    def svt(preset: int) -> tuple[str, ...]:
        command = ("-c:v", "libsvtav1", "-preset", f"{preset}", "-crf", "{setting}", "-g", "{interval}")
        return (*command, "-svtav1-params", "lp=1")

    crfs, cqs, qps = (22, 26, 30, 34), (28, 36, 44, 52), (24, 28, 32, 36)
    known = (
        FfmpegCodec("x265", "x265 medium", ".265", x265, crfs, interval),
        FfmpegCodec("svt6", "SVT-AV1 preset 6", ".ivf", svt(6), cqs, interval),
        FfmpegCodec("svt4", "SVT-AV1 preset 4", ".ivf", svt(4), cqs, interval),
        FfmpegCodec("vvenc", "VVenC faster, without QPA", ".266", vvenc, qps, interval),
    )
    return {codec.name: codec for codec in known}


@dataclass(frozen=True)
class Viddiff:
    """The codec of this project as its command line tool."""

    name: str
    title: str
    """What it is, for people."""
    options: tuple[str, ...]
    """Further options of `viddiff encode`."""
    weights: Path | None
    """None: the released ones."""
    ladder: tuple[int, ...]
    """Qualities."""
    interval: int
    """Most frames from one keyframe to the next."""

    def arguments(self, setting: int | str) -> list[str]:
        """Arguments of `viddiff encode` beside file names."""
        return ["--quality", f"{setting}", "--gop", f"{self.interval}", *self._common, *self.options]

    @property
    def _common(self) -> list[str]:
        weights = [] if self.weights is None else ["--weights", str(self.weights.resolve())]
        return ["--workers", "1", "--json", "--quiet", "--force", *weights]

    def code(self, source: Source, setting: int) -> Coded:
        """Encode and decode a clip, in the clip's folder. Raises BenchmarkError."""
        folder = source.path.parent
        coded, decoded = folder / f"{self.name}.vdf", folder / f"{self.name}.y4m"
        tool = [sys.executable, "-m", "viddiff"]
        encode = run([*tool, "encode", *self.arguments(setting), source.path.name, coded.name], folder)
        decode = run([*tool, "decode", *self._common, "--strict", coded.name, decoded.name], folder)
        return Coded(coded.stat().st_size, decoded, encode.spent, decode.spent, ledger(encode.stdout))


Codec = FfmpegCodec | Viddiff


def ledger(output: str) -> list[dict[str, Any]]:
    """The table named "ledger" of what `viddiff encode --json` printed last; empty where it has none."""
    rows = json.loads(output.splitlines()[-1]).get("ledger", [])
    return [dict(row) for row in rows]


def measure_point(codec: Codec, setting: int, source: Source, vmaf: bool) -> Point:
    """Code the clip, decode it again and measure both."""
    coded = codec.code(source, setting)
    fidelity = measure(source, coded.decoded, vmaf)
    return Point(setting, coded.size_bytes, fidelity, coded.encode, coded.decode, now(), coded.ledger)


def measure(source: Source, decoded: Path, vmaf: bool) -> Fidelity:
    """Compare decoded frames with the original."""
    distortion = Distortion(source.info.bit_depth)
    with VmafMeter(source.info, threads=1) if vmaf else contextlib.nullcontext() as meter:
        try:
            for original, frame in zip(source, y4m_frames(decoded, source.info), strict=True):
                distortion.add(original, frame)
                if meter is not None:
                    meter.add(original, frame)
        except ValueError as error:
            raise BenchmarkError(f"{source.name} was not decoded to its {source.frames} frames") from error
        scores = meter.scores() if meter is not None else []
    mean = sum(scores) / len(scores) if scores else None
    return Fidelity(*distortion.psnr_yuv, distortion.psnr_611, mean)


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


@dataclass(frozen=True)
class Finished:
    """A program that ended well."""

    stdout: str
    spent: Spent


def run(command: list[str], folder: Path) -> Finished:
    """Run a program in `folder`, on one thread as far as its libraries ask the environment."""
    alone = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", env=os.environ | alone
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
        said = said or [f"exit status {result.returncode}"]  # below 0: the signal that killed it
        raise BenchmarkError(f"{' '.join(map(str, command))} failed: {' '.join(said)}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(result.stdout, Spent(wall, cpu))


def ffmpeg() -> str:
    """Path of the ffmpeg program. Raises BenchmarkError if there is none."""
    if (path := find_ffmpeg()) is None:
        raise BenchmarkError("the other codecs need ffmpeg: pip install 'viddiff[bench]'")
    return path


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
