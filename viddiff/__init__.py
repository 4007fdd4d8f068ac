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

Decoding is exact without any preparation, whatever PyTorch's settings are, and it does not change them. The
import is quick: PyTorch is loaded by the first call that needs it.
"""

import importlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

from viddiff.config import Limits as Limits
from viddiff.errors import BitstreamError as BitstreamError
from viddiff.errors import CheckpointError as CheckpointError
from viddiff.errors import LimitError as LimitError
from viddiff.errors import OutputError as OutputError
from viddiff.errors import ResumeError as ResumeError
from viddiff.errors import SecretError as SecretError
from viddiff.errors import TargetError as TargetError
from viddiff.errors import TooLargeError as TooLargeError
from viddiff.errors import VerificationError as VerificationError
from viddiff.errors import ViddiffError as ViddiffError
from viddiff.errors import VideoError as VideoError
from viddiff.version import __version__ as __version__

if TYPE_CHECKING:
    from viddiff.codec.enhancer import EngineName
    from viddiff.codec.open_decoder import Weights as Weights
    from viddiff.comparison.results import ComparedFile as ComparedFile
    from viddiff.comparison.results import Comparison as Comparison
    from viddiff.container.sealing import Secret
    from viddiff.frame import Frame as Frame
    from viddiff.frame import VideoInfo as VideoInfo
    from viddiff.metrics.pooling import Pooled as Pooled
    from viddiff.pipeline.cut_file import CutResult as CutResult
    from viddiff.pipeline.decode_job import DecodeResult as DecodeResult
    from viddiff.pipeline.encode_job import EncodeResult as EncodeResult
    from viddiff.pipeline.join_files import JoinResult as JoinResult
    from viddiff.pipeline.quality_goal import GoalReport as GoalReport
    from viddiff.pipeline.status import Status as Status
    from viddiff.pipeline.thumbnail import ThumbnailResult as ThumbnailResult
    from viddiff.pipeline.video import Video as Video

Path = str | os.PathLike[str]
_LATER = {
    "ComparedFile": "viddiff.comparison.results",
    "Comparison": "viddiff.comparison.results",
    "CutResult": "viddiff.pipeline.cut_file",
    "DecodeResult": "viddiff.pipeline.decode_job",
    "EncodeResult": "viddiff.pipeline.encode_job",
    "Frame": "viddiff.frame",
    "GoalReport": "viddiff.pipeline.quality_goal",
    "JoinResult": "viddiff.pipeline.join_files",
    "Pooled": "viddiff.metrics.pooling",
    "Status": "viddiff.pipeline.status",
    "ThumbnailResult": "viddiff.pipeline.thumbnail",
    "Video": "viddiff.pipeline.video",
    "VideoInfo": "viddiff.frame",
    "Weights": "viddiff.codec.open_decoder",
}
"""Classes that are loaded when they are first used."""

__all__ = [
    "BitstreamError", "CheckpointError", "ComparedFile", "Comparison", "CutResult", "DecodeResult",
    "EncodeResult", "Frame", "GoalReport", "JoinResult", "LimitError", "Limits", "OutputError", "Pooled",
    "ResumeError", "SecretError", "Status", "TargetError", "ThumbnailResult", "TooLargeError",
    "VerificationError", "ViddiffError", "Video", "VideoError", "VideoInfo", "Weights", "__version__",
    "compare", "cut", "decode", "encode", "join", "load_weights", "open", "thumbnail",
]  # fmt: skip


def encode(  # noqa: PLR0913
    source: Path | BinaryIO,
    target: Path | BinaryIO | None = None,
    *,
    quality: int = 32,
    size: int | None = None,
    bitrate: int | None = None,
    min_vmaf: float | None = None,
    min_psnr: float | None = None,
    min_xpsnr: float | None = None,
    pool: str | None = None,
    maxrate: int | None = None,
    bufsize: int | None = None,
    max_encoded_percent: float | None = None,
    gop: int = 128,
    preset: str = "default",
    low_delay: bool = False,
    background: bool = True,
    adapt: float | None = None,
    entropy: str = "ans",
    audio: str = "copy",
    maps: Sequence[str] = (),
    audio_lang: Sequence[str] = (),
    start: int | float | Fraction = 0,
    frames: int | None = None,
    fps: int | float | Fraction | None = None,
    scale: tuple[int, int] | None = None,
    deinterlace: str = "none",
    crop: tuple[int, int, int, int] | None = None,
    vf: str | None = None,
    drop_alpha: bool = False,
    input_format: str | None = None,
    input_options: Mapping[str, str] | None = None,
    weights: Path | None = None,
    device: str = "auto",
    engine: "EngineName | None" = None,
    workers: int | None = None,
    key: bytes | str | None = None,
    resume: bool = False,
    verify: bool = False,
    force: bool = False,
    progress: "Callable[[Status], None] | None" = None,
) -> "EncodeResult":
    """Encode a video to a `.vdf`, with its sound, subtitles, chapters and tags.

    Ctrl-C completes the file with the frames coded so far, and then raises KeyboardInterrupt. For a live
    source, so does anything that ends the recording.

    Args:
        source: A path, a network address (rtsp://, http://), "-" for stdin, or an open file.
        target: A path or an open file. None: the source's path with the extension .vdf.
        quality: 0 (smallest file) to 63 (best picture).
        size: Most bytes of the file, sound and all. A quality is searched for that gives at least 98 % of it.
        bitrate: The same, as bits for each second of video. If the source or the target is a stream, GOPs get
            different qualities, in one pass.
        min_vmaf: Least VMAF of the video. The smallest quality is searched that reaches it. Needs an ffmpeg
            with libvmaf.
        min_psnr: The same for the PSNR in dB, 6:1:1 of Y, U and V.
        min_xpsnr: The same for the XPSNR in dB, 6:1:1 of Y, U and V.
        pool: What of the frames' scores has to reach it: "mean", "harmonic" (mean) or "p5" (5th percentile).
            None: the mean.
        maxrate: Lower the quality of GOPs so that a decoder always has its frames in time if it gets this
            many bits a second.
        bufsize: Size of that decoder's buffer, in bits.
        max_encoded_percent: Raise TooLargeError if the file would be larger than this percentage of the
            source. That is predicted from samples first.
        gop: Longest distance between keyframes in frames, 1 to 1024.
        preset: How much work to do: "fastest", "faster", "fast", "default", "slow", "slower" or
            "slowest".
        low_delay: Predict from past frames only, so that no frame waits for a later one.
        background: GOPs that show the same place may share a background in place of keyframes.
        adapt: Minutes of training on this video, for networks that the file carries if that makes it smaller.
        entropy: "ans", or "huffman" for larger files.
        audio: "copy", "none", or "opus:N" for N kbit/s, 6 to 510.
        maps: Tracks to take, as in ffmpeg's -map: ["v", "a:0", "s"]. Empty: all.
        audio_lang: Languages of the sound to take: ["eng", "deu"]. Empty: all.
        start: First frame: its number (int), or seconds (float or Fraction).
        frames: Largest number of source frames. None: all.
        fps: New frame rate.
        scale: New size (width, height). -1 for one of them keeps the shape.
        deinterlace: "none", "auto" (frames that are marked as interlaced) or "all".
        crop: Width, height, left and upper edge of the part to keep.
        vf: A chain of libav's filters, as in ffmpeg's -vf, after cropping and before scaling.
        drop_alpha: Remove an alpha channel instead of raising VideoError.
        input_format: libav's name of the source's format, for devices and raw video.
        input_options: libav's options for the source.
        weights: A weights file, or the first digits of a hash. None: the released weights.
        device: "auto", "cpu" or "cuda". The file is the same.
        engine: What runs the networks that enhance an AV1 base: "compiled" code for CPUs, or "torch". None:
            by the device. The file is the same.
        workers: Number of processes. None: automatic. The file is the same.
        key: Encrypt the file with 32 bytes, or with a passphrase (str).
        resume: Continue an interrupted call with the same arguments.
        verify: Decode the file before it gets its name. Raises VerificationError if a frame differs.
        force: Replace the target if it is a `.vdf`. Other files are never replaced.
        progress: Called again and again with the status.

    Returns:
        What was written.

    Raises:
        ValueError: An argument is out of range.
        TargetError: No quality reaches what is wanted, or the lowest is too much for the decoder's buffer.
        TooLargeError: The file would be larger than max_encoded_percent allows.
        ViddiffError: Anything else failed. There is no target then.
        OSError: A file could not be read or written. There is no target then.

    Examples:
        >>> viddiff.encode("holiday.mp4", "part.vdf", start=4, frames=3, preset="fast").frames
        3
    """
    from viddiff.pipeline.encode_job import EncodeJob
    from viddiff.pipeline.status import ignore

    job = EncodeJob(
        source=source,
        target=target,
        quality=quality,
        size=size,
        bitrate=bitrate,
        min_vmaf=min_vmaf,
        min_psnr=min_psnr,
        min_xpsnr=min_xpsnr,
        pool=pool,
        maxrate=maxrate,
        bufsize=bufsize,
        max_encoded_percent=max_encoded_percent,
        gop=gop,
        low_delay=low_delay,
        background=background,
        adapt=adapt,
        entropy=entropy,
        preset=preset,
        audio=audio,
        maps=tuple(maps),
        audio_lang=tuple(audio_lang),
        start=_start(start),
        frames=frames,
        fps=_rate(fps),
        scale=scale,
        deinterlace=deinterlace,
        crop=crop,
        vf=vf,
        drop_alpha=drop_alpha,
        input_format=input_format,
        input_options=input_options or {},
        weights=weights,
        device=device,
        engine=engine,
        workers=workers,
        secret=_secret(key),
        resume=resume,
        verify=verify,
        force=force,
    )
    job.prepare()
    from viddiff.pipeline.encode_file import Adapt, encode_file

    tune: Adapt | None = None
    if adapt is not None:
        from viddiff.training import adaptation

        tune = adaptation.adapt
    result = encode_file(job, progress or ignore, adapt=tune)
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
    engine: "EngineName | None" = None,
    workers: int | None = None,
    limits: Limits | None = None,
    key: bytes | str | None = None,
    force: bool = False,
    progress: "Callable[[Status], None] | None" = None,
) -> "DecodeResult":
    """Decode a `.vdf` to .mp4, .mkv, .mov (H.264), .webm (AV1), .mkv (FFV1, lossless) or .y4m (raw).

    Args:
        source: A path, or an open file, which is read from front to back.
        target: A path, or an open file with a descriptor. None: the source's path with another extension.
        lossless: Store the exact frames: FFV1 in .mkv.
        strict: Raise BitstreamError at the first fault, instead of showing the frame before for a lost one.
        form: "mkv", "mp4", "mov", "webm" or "y4m". None: by the target's name.
        start: First frame: its number (int), or seconds (float or Fraction).
        frames: Largest number of frames. None: all.
        fps: New frame rate.
        scale: New size (width, height). -1 for one of them keeps the shape.
        weights: A weights file or folder, or the first digits of a hash. None: those that the file names.
        device: "auto", "cpu" or "cuda". The frames are the same.
        engine: What runs the networks that enhance an AV1 base: "compiled" code for CPUs, or "torch". None:
            by the device. The frames are the same.
        workers: Number of processes. None: automatic. The frames are the same.
        limits: Largest video to decode.
        key: Key of an encrypted file: 32 bytes, or a passphrase (str).
        force: Replace the target if viddiff has written it. Other files are never replaced.
        progress: Called again and again with the status.

    Returns:
        What was written, and what was lost.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: Anything else failed. There is no target then.
        OSError: A file could not be read or written. There is no target then.

    Examples:
        >>> viddiff.decode("holiday.vdf", "small.mp4", scale=(24, -1), start=0.2).lost_frames
        ()
    """
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
        engine=engine,
        workers=workers,
        limits=limits or Limits(),
        secret=_secret(key),
        force=force,
    )
    from viddiff.pipeline.decode_file import decode_file

    result = decode_file(job, progress or ignore)
    if result.ended_by is not None:
        raise result.ended_by
    return result


def compare(  # noqa: PLR0913
    reference: Path,
    files: Path | Sequence[Path],
    *,
    metrics: Sequence[str] | None = None,
    against: Sequence[str] = (),
    gop: int | None = None,
    scale: bool = False,
    stored_times: bool = False,
    csv: Path | None = None,
    html: Path | None = None,
    weights: Path | None = None,
    device: str = "auto",
    engine: "EngineName | None" = None,
    workers: int | None = None,
    limits: Limits | None = None,
    key: bytes | str | None = None,
    force: bool = False,
    progress: "Callable[[Status], None] | None" = None,
) -> "Comparison":
    """Compare videos with a reference, frame by frame.

    Frames are matched by time. A frame that one video has and the other has not counts in no score: see
    `ComparedFile.complete` and `ComparedFile.differences`.

    Args:
        reference: A `.vdf` or any media file.
        files: One or more of such files.
        metrics: Of "psnr", "ssim", "xpsnr" and "vmaf"; "psnr" is always measured. None: all, and "vmaf" if
            there is an ffmpeg with libvmaf.
        against: Of "x264", "x265" and "svtav1": also encode the reference with these, at several qualities.
        gop: Longest distance between their keyframes in frames, 1 to 1024. None: as in the first `.vdf`, or
            128.
        scale: Scale files of another size to the reference's, instead of raising ViddiffError.
        stored_times: Match by the times in the files. Otherwise times count from the first frame of each.
        csv: Write the scores of every frame to this file.
        html: Write a report to this file. Needs matplotlib.
        weights: Weights of a `.vdf`: a file or folder, or the first digits of a hash. None: those that it
            names.
        device: "auto", "cpu" or "cuda". The frames are the same.
        engine: What runs the networks that enhance an AV1 base: "compiled" code for CPUs, or "torch". None:
            by the device. The frames are the same.
        workers: Number of processes that decode. None: automatic. The frames are the same.
        limits: Largest video to decode.
        key: Key of encrypted files: 32 bytes, or a passphrase (str).
        force: Replace csv and html if they are what a comparison writes. Other files are never replaced.
        progress: Called again and again with the status.

    Returns:
        What was found.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: Anything else failed. There is no csv or html then.
        OSError: A file could not be read or written. There is no csv or html then.

    Examples:
        >>> found = viddiff.compare("holiday.mp4", "holiday.vdf", metrics=["ssim"])
        >>> found.complete, found.files[0].matched
        (True, 12)
        >>> 30 < found.files[0].scores["psnr_611"].overall < 60
        True
    """
    from viddiff.comparison.compare_job import CompareJob
    from viddiff.comparison.inputs import Reading
    from viddiff.pipeline.status import ignore

    job = CompareJob(
        reference=pathlib.Path(reference),
        files=_paths(files),
        metrics=None if metrics is None else tuple(metrics),
        against=tuple(against),
        gop=gop,
        scale=scale,
        stored_times=stored_times,
        csv=None if csv is None else pathlib.Path(csv),
        html=None if html is None else pathlib.Path(html),
        force=force,
        reading=Reading(weights, device, engine, workers, limits or Limits(), _secret(key)),
    )
    from viddiff.comparison.compare_files import compare_files

    return compare_files(job, progress or ignore)


def cut(
    source: Path,
    target: Path,
    *,
    start: int | float | Fraction = 0,
    end: int | float | Fraction | None = None,
    frames: int | None = None,
    key: bytes | str | None = None,
    encrypt: bool = False,
    force: bool = False,
) -> "CutResult":
    """Cut a part out of a `.vdf`, without decoding: every frame stays as it is.

    The part consists of whole GOPs. It begins at the keyframe at or before `start`, and ends where the GOP of
    its last frame ends.

    Args:
        source: A path.
        target: A path.
        start: First frame that is wanted: its number (int), or seconds (float or Fraction).
        end: First frame that is not wanted any more, in the same way. None: `frames` says it.
        frames: Number of frames that are wanted. None: all up to `end`.
        key: Key of an encrypted source, and of the part if `encrypt`: 32 bytes, or a passphrase (str).
        encrypt: Encrypt the part.
        force: Replace the target if it is a `.vdf`. Other files are never replaced.

    Returns:
        What was written: which frames, and how many of them were not asked for.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: Anything else failed. There is no target then.
        OSError: A file could not be read or written. There is no target then.

    Examples:
        >>> viddiff.encode("holiday.mp4", "short_gops.vdf", gop=4, preset="fastest").keyframes
        3
        >>> part = viddiff.cut("short_gops.vdf", "beach.vdf", start=5, frames=2)
        >>> part.first_frame, part.frames
        (4, 4)
    """
    from viddiff.pipeline.cut_file import CutJob, cut_file

    return cut_file(
        CutJob(
            source=pathlib.Path(source),
            target=pathlib.Path(target),
            start=_start(start),
            end=None if end is None else _start(end),
            frames=frames,
            secret=_secret(key),
            encrypt=encrypt,
            force=force,
        )
    )


def join(
    sources: Sequence[Path],
    target: Path,
    *,
    key: bytes | str | None = None,
    encrypt: bool = False,
    force: bool = False,
) -> "JoinResult":
    """Join `.vdf` files end to end, without decoding.

    The files must be alike: the same size, colour, rate, weights and kinds of tracks. Tags and attachments
    are those of the first one.

    Args:
        sources: Two or more paths. One may come several times.
        target: A path.
        key: Key of the encrypted sources, and of the target if `encrypt`: 32 bytes, or a passphrase (str).
        encrypt: Encrypt the target.
        force: Replace the target if it is a `.vdf`. Other files are never replaced.

    Returns:
        What was written.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: The files are not alike, or anything else failed. There is no target then.
        OSError: A file could not be read or written. There is no target then.

    Examples:
        >>> viddiff.join(["holiday.vdf", "part.vdf"], "both.vdf").frames
        15
    """
    from viddiff.pipeline.join_files import JoinJob, join_files

    return join_files(
        JoinJob(
            sources=_paths(sources),
            target=pathlib.Path(target),
            secret=_secret(key),
            encrypt=encrypt,
            force=force,
        )
    )


def thumbnail(
    source: Path,
    target: Path,
    *,
    time: int | float | Fraction = 0,
    width: int | None = None,
    weights: Path | None = None,
    limits: Limits | None = None,
    key: bytes | str | None = None,
    force: bool = False,
) -> "ThumbnailResult":
    """Write a picture of a `.vdf`: the keyframe nearest to a time, upright, as players show it.

    Only one frame is decoded, on the CPU.

    Args:
        source: A path.
        target: A path with the extension .avif, .jpg, .jpeg or .png. A .png is exact.
        time: Number of a frame (int), or seconds (float or Fraction).
        width: Width of the picture in samples. None: every sample of the frame is kept.
        weights: A weights file or folder, or the first digits of a hash. None: those that the file names.
        limits: Largest video to decode.
        key: Key of an encrypted file: 32 bytes, or a passphrase (str).
        force: Replace the target if viddiff has written it. Other files are never replaced.

    Returns:
        What was written.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: Anything else failed. There is no target then.
        OSError: A file could not be read or written. There is no target then.

    Examples:
        >>> picture = viddiff.thumbnail("holiday.vdf", "holiday.png", width=24)
        >>> picture.frame, picture.width, picture.height
        (0, 24, 16)
    """
    from viddiff.pipeline.thumbnail import ThumbnailJob, make_thumbnail

    return make_thumbnail(
        ThumbnailJob(
            source=pathlib.Path(source),
            target=pathlib.Path(target),
            time=_start(time),
            width=width,
            weights=weights,
            limits=limits or Limits(),
            secret=_secret(key),
            force=force,
        )
    )


def open(
    path: Path,
    *,
    weights: Path | None = None,
    key: bytes | str | None = None,
    limits: Limits | None = None,
    device: str = "auto",
    engine: "EngineName | None" = None,
) -> "Video":
    """Open a `.vdf` as a sequence of frames.

    Any frame can be read. It is decoded from the keyframe before it.

    Args:
        path: The file.
        weights: A weights file or folder, or the first digits of a hash. None: those that the file names.
        key: Key of an encrypted file: 32 bytes, or a passphrase (str).
        limits: Largest video to open.
        device: "auto", "cpu" or "cuda". The frames are the same.
        engine: What runs the networks that enhance an AV1 base: "compiled" code for CPUs, or "torch". None:
            by the device. The frames are the same.

    Returns:
        The frames. Use it in a `with` statement, or close it.

    Raises:
        ValueError: An argument is out of range.
        ViddiffError: The file is damaged, or its weights or key are missing.
        OSError: The file cannot be read.

    Examples:
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

    return Video(path, weights, _secret(key), limits, device, engine)


def load_weights(name: Path, device: str = "auto") -> "Weights":
    """Load weights.

    Args:
        name: A weights file, or at least eight digits of a hash.
        device: "auto", "cpu" or "cuda".

    Returns:
        The networks and tables.

    Raises:
        CheckpointError: The weights are missing or damaged.

    Examples:
        >>> viddiff.load_weights("weights.safetensors").name
        'small'
    """
    from viddiff.codec.load_weights import load_weights as load
    from viddiff.pipeline.device import choose_device
    from viddiff.pipeline.weights_search import weights_to_encode

    return load(weights_to_encode(name), choose_device(device))


def _paths(files: Path | Sequence[Path]) -> tuple[pathlib.Path, ...]:
    return tuple(map(pathlib.Path, [files] if isinstance(files, str | os.PathLike) else files))


def _start(start: int | float | Fraction) -> int | Fraction:
    return Fraction(str(start)) if isinstance(start, float) else start


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
