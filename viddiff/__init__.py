"""viddiff: a learned video codec.

    >>> import viddiff
    >>> result = viddiff.encode("holiday.mp4", quality=24, preset="fast")
    >>> result.target.name, result.frames
    ('holiday.vdf', 12)
    >>> with viddiff.open("holiday.vdf") as video:
    ...     frame = video[7]
    >>> frame.y.shape, frame.y.dtype
    ((32, 48), dtype('uint8'))
    >>> viddiff.decode("holiday.vdf", "copy.mkv", lossless=True).frames
    12

Nothing has to be prepared: frames are exact whatever PyTorch is set to, and its settings stay as they are.
Importing this costs next to nothing: PyTorch is loaded by the first call that needs it.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from viddiff.config import Limits as Limits
from viddiff.errors import BitstreamError as BitstreamError
from viddiff.errors import CheckpointError as CheckpointError
from viddiff.errors import LimitError as LimitError
from viddiff.errors import OutputError as OutputError
from viddiff.errors import ResumeError as ResumeError
from viddiff.errors import SecretError as SecretError
from viddiff.errors import VerificationError as VerificationError
from viddiff.errors import ViddiffError as ViddiffError
from viddiff.errors import VideoError as VideoError
from viddiff.version import __version__ as __version__

if TYPE_CHECKING:
    from viddiff.codec.open_decoder import Weights as Weights
    from viddiff.container.sealing import Secret
    from viddiff.frame import Frame as Frame
    from viddiff.frame import VideoInfo as VideoInfo
    from viddiff.pipeline.decode_job import DecodeResult as DecodeResult
    from viddiff.pipeline.encode_job import EncodeResult as EncodeResult
    from viddiff.pipeline.status import Status as Status
    from viddiff.pipeline.video import Video as Video

Path = str | os.PathLike[str]
_LATER = {
    "DecodeResult": "viddiff.pipeline.decode_job",
    "EncodeResult": "viddiff.pipeline.encode_job",
    "Frame": "viddiff.frame",
    "Status": "viddiff.pipeline.status",
    "Video": "viddiff.pipeline.video",
    "VideoInfo": "viddiff.frame",
    "Weights": "viddiff.codec.open_decoder",
}
"""Classes that are loaded when they are first asked for."""

__all__ = [
    "BitstreamError", "CheckpointError", "DecodeResult", "EncodeResult", "Frame", "LimitError",
    "Limits", "OutputError", "ResumeError", "SecretError", "Status", "VerificationError", "ViddiffError",
    "Video", "VideoError", "VideoInfo", "Weights", "__version__", "decode", "encode", "load_weights", "open",
]  # fmt: skip


def encode(  # noqa: PLR0913
    source: Path | BinaryIO,
    target: Path | BinaryIO | None = None,
    *,
    quality: int = 32,
    gop: int = 128,
    preset: str = "default",
    low_delay: bool = False,
    entropy: str = "ans",
    audio: str = "copy",
    start: int | float | Fraction = 0,
    frames: int | None = None,
    fps: int | float | Fraction | None = None,
    scale: tuple[int, int] | None = None,
    drop_alpha: bool = False,
    input_format: str | None = None,
    input_options: Mapping[str, str] | None = None,
    weights: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    key: bytes | str | None = None,
    resume: bool = False,
    verify: bool = False,
    force: bool = False,
    progress: "Callable[[Status], None] | None" = None,
) -> "EncodeResult":
    """Encode a video of any kind to a `.vdf`, with its sound, subtitles, chapters and tags.

    source: a path, an address (rtsp://, http://), "-" for stdin, or an open file.
    target: a path or an open file; None: the source's path with the extension .vdf.
    quality: 0 (smallest file) to 63 (best picture).
    gop: most frames from one keyframe to the next, 1 to 1024.
    preset: what encoding may cost: "fast", "default" or "slow".
    low_delay: predict from the past alone, so that no frame waits for a later one.
    entropy: "ans" or, for larger files, "huffman".
    audio: "copy", "none", or "opus:N" for N kbit/s, 6 to 510.
    start: the first frame: its number as an int, or seconds as a float or Fraction. frames: how many.
    fps, scale: another rate, another size (width, height; -1 for one of them keeps the shape).
    drop_alpha: lose an alpha channel rather than raise VideoError.
    input_format, input_options: libav's name and options of the source, for devices and raw video.
    weights: a file of weights or the first digits of their hash; None: the released ones.
    device: "auto", "cpu" or "cuda". workers: processes; None: as many as pay. Neither changes the file.
    key: encrypts the file: 32 bytes, or a passphrase as str.
    resume: go on with what an earlier call with the same arguments left when it was cut off.
    verify: decode the file before it gets its name. VerificationError if it is not as it should be.
    force: replace the target if it is a `.vdf`. Other files are never replaced.
    progress: is called again and again.

    ValueError for choices out of range, ViddiffError or OSError for all that can go wrong; the target is not
    there then. Ctrl-C completes the target with the frames that are coded, and so does whatever ends the
    recording of a live source; it is raised again after that.

        >>> viddiff.encode("holiday.mp4", "part.vdf", start=4, frames=3, preset="fast").frames
        3
    """
    from viddiff.pipeline.worker_pool import prepare_processes

    prepare_processes(workers)
    from viddiff.pipeline.encode_file import encode_file
    from viddiff.pipeline.encode_job import EncodeJob
    from viddiff.pipeline.status import ignore

    job = EncodeJob(
        source=source,
        target=target,
        quality=quality,
        gop=gop,
        low_delay=low_delay,
        entropy=entropy,
        preset=preset,
        audio=audio,
        start=_start(start),
        frames=frames,
        fps=_rate(fps),
        scale=scale,
        drop_alpha=drop_alpha,
        input_format=input_format,
        input_options=input_options or {},
        weights=weights,
        device=device,
        workers=workers,
        secret=_secret(key),
        resume=resume,
        verify=verify,
        force=force,
    )
    result = encode_file(job, progress or ignore)
    if result.ended_by is not None:
        result.ended_by.add_note(f"{result.target} is complete, with the first {result.frames} frames")
        raise result.ended_by
    return result


def decode(  # noqa: PLR0913
    source: Path | BinaryIO,
    target: Path | BinaryIO | None = None,
    *,
    lossless: bool = False,
    strict: bool = False,
    form: str | None = None,
    start: int | float | Fraction = 0,
    frames: int | None = None,
    fps: int | float | Fraction | None = None,
    scale: tuple[int, int] | None = None,
    weights: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    limits: Limits | None = None,
    key: bytes | str | None = None,
    force: bool = False,
    progress: "Callable[[Status], None] | None" = None,
) -> "DecodeResult":
    """Decode a `.vdf` to .mp4 or .mkv (H.264), .mkv (FFV1, lossless) or .y4m (raw).

    source: a path, or an open file, which is read front to back.
    target: a path, or an open file with a descriptor; None: the source's path with another extension.
    lossless: store the frames exactly, as FFV1 in .mkv.
    strict: raise BitstreamError at the first fault instead of showing the frame before for a lost one.
    form: "mkv", "mp4" or "y4m"; None: what the target's name says.
    start: the first frame: its number as an int, or seconds as a float or Fraction. frames: how many.
    fps, scale: another rate, another size (width, height; -1 for one of them keeps the shape).
    weights: a file or a folder of weights, or the first digits of their hash; None: those that the source was
    made with, as far as they are found.
    device: "auto", "cpu" or "cuda". workers: processes; None: as many as pay. Neither changes the frames.
    limits: the largest video that is decoded.
    key: of an encrypted file: 32 bytes, or a passphrase as str.
    force: replace the target if viddiff has written it. Other files are never replaced.
    progress: is called again and again.

    ValueError for choices out of range, ViddiffError or OSError for all that can go wrong; the target is not
    there then.

        >>> viddiff.decode("holiday.vdf", "small.mp4", scale=(24, -1), start=0.2).lost_frames
        ()
    """
    from viddiff.pipeline.worker_pool import prepare_processes

    prepare_processes(workers)
    from viddiff.pipeline.decode_file import decode_file
    from viddiff.pipeline.decode_job import DecodeJob
    from viddiff.pipeline.status import ignore

    job = DecodeJob(
        source=source,
        target=target,
        lossless=lossless,
        strict=strict,
        form=form,
        start=_start(start),
        frames=frames,
        fps=_rate(fps),
        scale=scale,
        weights=weights,
        device=device,
        workers=workers,
        limits=limits or Limits(),
        secret=_secret(key),
        force=force,
    )
    result = decode_file(job, progress or ignore)
    if result.ended_by is not None:
        raise result.ended_by
    return result


def open(
    path: Path,
    *,
    weights: Path | None = None,
    key: bytes | str | None = None,
    limits: Limits | None = None,
    device: str = "auto",
) -> "Video":
    """Open a `.vdf` as a sequence of frames, any of which is decoded from the keyframe before it.

    weights, key, limits, device: as of `decode`. ViddiffError, OSError.

        >>> with viddiff.open("holiday.vdf") as video:
        ...     print(len(video), video.info.width, video.info.height)
        ...     times = [frame.pts for frame in video]
        ...     last, every_third = video[-1], video[::3]
        ...     picture = video.rgb(0)
        12 48 32
        >>> len(times), len(every_third), picture.shape
        (12, 4, (32, 48, 3))
    """
    from viddiff.pipeline.video import Video

    return Video(path, weights, _secret(key), limits, device)


def load_weights(name: Path, device: str = "auto") -> "Weights":
    """Load weights: the networks and tables of a file.

    name: a path, or the first eight or more digits of the hash. Raises CheckpointError.

        >>> viddiff.load_weights("weights.safetensors").name
        'small'
    """
    from viddiff.codec.load_weights import load_weights as load
    from viddiff.pipeline.device import choose_device
    from viddiff.pipeline.weights_search import weights_to_encode

    return load(weights_to_encode(name), choose_device(device))


def _start(start: int | float | Fraction) -> int | Fraction:
    return Fraction(start) if isinstance(start, float) else start


def _rate(fps: int | float | Fraction | None) -> Fraction | None:
    from viddiff.config import nominal_rate

    if fps is None:
        return None
    return nominal_rate(Fraction(str(fps))) if isinstance(fps, float) else Fraction(fps)


def _secret(key: bytes | str | None) -> "Secret | None":
    from viddiff.container.sealing import Secret

    if key is None:
        return None
    return Secret(key.encode(), passphrase=True) if isinstance(key, str) else Secret(key, passphrase=False)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'viddiff' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
