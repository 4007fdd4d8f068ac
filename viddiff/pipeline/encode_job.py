"""Options of an encode, and its result."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from viddiff.config import MAX_GOP, QUALITIES, Start, start_text
from viddiff.encoder.options import BASE_QUANTISERS, EncodeOptions
from viddiff.encoder.presets import PRESETS
from viddiff.errors import CheckpointError
from viddiff.media.demuxer import is_live, name_of
from viddiff.media.filters import Changes
from viddiff.media.source_filters import SourceFilters
from viddiff.media.track_selection import TrackSelection
from viddiff.pipeline.adaptation import Adaptation
from viddiff.pipeline.decoder_buffer import BufferLimit, BufferReport
from viddiff.pipeline.job_values import among, check_common, check_files, with_suffix, within
from viddiff.pipeline.output_file import OutputFile, vdf_output
from viddiff.pipeline.quality_goal import METRICS, GoalReport, QualityGoal
from viddiff.pipeline.rate_model import RateReport
from viddiff.pipeline.summary import LedgerRow
from viddiff.pipeline.weights_search import BASES, base_of, weights_to_encode
from viddiff.pipeline.worker_pool import prepare_processes

if TYPE_CHECKING:
    from viddiff.codec.enhancer import EngineName
    from viddiff.container.sealing import Secret

_AUDIO = re.compile(r"copy|none|opus:([1-9]\d{0,2})")
_OPUS_RATES = range(6, 511)
MOST_MINUTES = 10_000
"""Longest training for a file's own network."""
MOST_PERCENT = 1000
"""Largest limit of a file's size, in percent of its source."""


@dataclass(frozen=True, kw_only=True)
class EncodeJob:
    """Options of an encode. Raises ValueError if one is out of range or two exclude each other."""

    source: str | os.PathLike[str] | BinaryIO
    """A path, a network address, "-" for stdin, or an open file."""
    target: str | os.PathLike[str] | BinaryIO | None = None
    """A path, or an open file, seekable or not. None: the source's path with the extension .vdf."""
    quality: int = 32
    """0 (smallest file) to 63 (best picture)."""
    size: int | None = None
    """Most bytes of the file, in place of a quality."""
    bitrate: int | None = None
    """Most bits per second of the file, sound and all, in place of a quality. A stream has about as many."""
    min_vmaf: float | None = None
    """Least VMAF, in place of a quality: the smallest quality is searched that reaches it."""
    min_psnr: float | None = None
    """The same for the PSNR 6:1:1, in dB."""
    min_xpsnr: float | None = None
    """The same for the XPSNR 6:1:1, in dB."""
    pool: str | None = None
    """How the scores of frames become one: "mean", "harmonic" or "p5". None: the mean."""
    max_encoded_percent: float | None = None
    """Give up with TooLargeError if the file would be larger than this percentage of the source."""
    maxrate: int | None = None
    """Most bits per second at which a decoder's buffer is filled. With `bufsize`."""
    bufsize: int | None = None
    """Size of a decoder's buffer in bits, which the file never leaves empty."""
    quantiser: int | None = None
    """Quantiser of an AV1 base, in place of a quality: quarters of SVT-AV1's CRF, 32 to 252."""
    gop: int = 128
    """Longest distance between keyframes in frames, 1 to 1024."""
    low_delay: bool = False
    """Predict from past frames only: no frame waits for a later one."""
    background: bool = True
    """With an AV1 base, GOPs that show the same place may share a background in place of keyframes."""
    excerpt: bool = False
    """The frames stand for a longer video: their last GOP may get a background that only others would use."""
    base: str | None = None
    """"av1": an AV1 stream carries the frames. "none": networks predict them. None: by the weights."""
    entropy: str = "ans"
    """"ans" or "huffman"."""
    preset: str = "default"
    """A name of `PRESETS`: how much work the encoder does."""
    audio: str = "copy"
    """"copy", "none", or "opus:N" for N kbit/s, 6 to 510."""
    maps: tuple[str, ...] = ()
    """Tracks to take, as in ffmpeg's -map: "v", "a:0", "s". Empty: all."""
    audio_lang: tuple[str, ...] = ()
    """Languages of the sound to take: "eng", "deu". Empty: all."""
    start: Start = 0
    """First frame: its number, or seconds after the source's first frame as a Fraction."""
    frames: int | None = None
    """Largest number of source frames. None: all."""
    fps: Fraction | None = None
    """New frame rate."""
    scale: tuple[int, int] | None = None
    """New width and height. -1 for one of them keeps the shape."""
    deinterlace: str = "none"
    """"none", "auto" (frames that are marked as interlaced) or "all"."""
    crop: tuple[int, int, int, int] | None = None
    """Width, height, left and upper edge of the part to keep, before rotation and scaling."""
    vf: str | None = None
    """A chain of libav's filters, as in ffmpeg's -vf, after cropping and before scaling."""
    drop_alpha: bool = False
    """Remove an alpha channel instead of refusing the source."""
    input_format: str | None = None
    """libav's name of the source's format, for devices and raw video."""
    input_options: Mapping[str, str] = field(default_factory=dict)
    """libav's options for the source."""
    weights: str | os.PathLike[str] | None = None
    """A weights file, or the first digits of a hash. None: the released weights."""
    device: str = "auto"
    """"auto", "cpu" or "cuda"."""
    engine: "EngineName | None" = None
    """"compiled" or "torch": what computes the networks that enhance an AV1 base. None: by the device."""
    workers: int | None = None
    """Number of processes. None: automatic. The file is the same for any number."""
    secret: "Secret | None" = field(default=None, repr=False)
    """Secret for encryption."""
    resume: bool = False
    """Continue an interrupted run of the same job."""
    verify: bool = False
    """Before the file gets its name, decode it and compare it with the encoder's reconstruction."""
    force: bool = False
    """Replace the target if it is a .vdf."""
    adapt: float | None = None
    """Minutes of training that tune the network to the video, for a file that carries it if that pays. With
    an AV1 base."""
    shorten: bool = True
    """Ctrl-C completes the file with the frames coded so far. If False, what is coded waits for `resume`."""

    def __post_init__(self) -> None:
        within("quality", self.quality, range(QUALITIES))
        within("gop", self.gop, range(1, MAX_GOP + 1))
        among("preset", self.preset, tuple(PRESETS))
        among("entropy", self.entropy, ("ans", "huffman"))
        if self.base is not None:
            among("base", self.base, tuple(BASES))
        if self.base == "none" and self.engine == "compiled":
            raise ValueError("--engine compiled needs an AV1 base: PyTorch runs the networks of --base none")
        check_common(self)
        _ = self.changes
        found = _AUDIO.fullmatch(self.audio)
        if found is None or (found[1] and int(found[1]) not in _OPUS_RATES):
            raise ValueError("audio is copy, none, or opus:6 to opus:510")
        if self.audio == "none" and self.audio_lang:
            raise ValueError("--audio none leaves all sound out: leave --audio-lang out")
        _ = self.selection
        self._check_adapt()
        if self.resume and self.verify:
            raise ValueError("--verify needs the whole reconstruction, which --resume does not have")
        if self.resume and self.secret is not None:
            raise ValueError("an encrypted file cannot be resumed")
        self._check_target()
        if self.target is None and not self.named:
            raise ValueError(f"name OUT: {self.source_name} has no file name to derive it from")
        if self.resume and (not self.named or self.output is None):
            raise ValueError("--resume needs files: a pipe or a device cannot start again")
        if self.verify and self.output is None:
            raise ValueError("--verify needs a file: what went through a pipe cannot be read again")

    def _check_adapt(self) -> None:
        if self.adapt is None:
            return
        if not 0 < self.adapt <= MOST_MINUTES:
            raise ValueError(f"--adapt is more than 0 and at most {MOST_MINUTES} minutes")
        if self.base == "none":
            raise ValueError("--adapt needs an AV1 base")
        if not PRESETS[self.preset].enhanced:
            raise ValueError(f"--adapt needs a preset with networks, which {self.preset} has not")
        if self.named is None:
            raise ValueError("--adapt needs a file as input: it is read before it is encoded")
        if self.wanted is not None or self.quantiser is not None:
            raise ValueError("--adapt goes with --quality: leave other targets and limits out")

    def _check_target(self) -> None:
        """Raises ValueError unless what is wanted is said in one possible way."""
        if self.quantiser is not None:
            within("quantiser", self.quantiser, BASE_QUANTISERS)
        options = [name for name, value in self._targets.items() if value is not None]
        if len(options) > 1 or (options and self.quantiser is not None):
            raise ValueError(f"give one of {', '.join(self._targets)}")
        if self.size_is_wanted:
            self._check_size(options[0])
        self._check_goal()
        self._check_buffer()
        if self.max_encoded_percent is not None:
            self._check_percent()
            options.append("--max-encoded-percent")
        if options and not self.one_pass and (self.named is None or self.output is None):
            raise ValueError(f"{options[0]} needs files: the source is read several times")

    def _check_size(self, name: str) -> None:
        if (self.size is not None and self.size < 1) or (self.bitrate is not None and self.bitrate < 1):
            raise ValueError("a size and a bit rate are larger than 0")
        if self.base == "none":
            raise ValueError(f"{name} needs an AV1 base")
        if self.resume:
            raise ValueError(f"{name} cannot be resumed")

    def _check_buffer(self) -> None:
        if (self.maxrate is None) != (self.bufsize is None):
            raise ValueError("--maxrate and --bufsize describe a buffer together: give both")
        if self.buffer_limit is None:
            return
        if self.base == "none":
            raise ValueError("--maxrate needs an AV1 base")
        if self.named is None:
            raise ValueError("--maxrate needs a file: GOPs that break the buffer are coded again")
        if self.one_pass:
            raise ValueError("--maxrate goes with --bitrate from a file to a file only")

    def _check_goal(self) -> None:
        if self.quality_goal is None and self.pool is not None:
            raise ValueError("--pool says how --min-vmaf, --min-psnr or --min-xpsnr is meant: give one")

    def _check_percent(self) -> None:
        assert self.max_encoded_percent is not None
        if not 0 < self.max_encoded_percent <= MOST_PERCENT:
            raise ValueError(f"--max-encoded-percent is more than 0 and at most {MOST_PERCENT}")
        if self.size_is_wanted:
            raise ValueError("--max-encoded-percent does not go with --size and --bitrate")
        if self.start or self.frames is not None:
            raise ValueError("--max-encoded-percent compares whole files: not with --start or --frames")

    @property
    def _targets(self) -> dict[str, float | None]:
        """What is wanted in place of a quality, by option."""
        return {
            "--size": self.size,
            "--bitrate": self.bitrate,
            "--min-vmaf": self.min_vmaf,
            "--min-psnr": self.min_psnr,
            "--min-xpsnr": self.min_xpsnr,
        }

    @property
    def has_target(self) -> bool:
        """Whether the quality is searched for."""
        return any(value is not None for value in self._targets.values())

    @property
    def size_is_wanted(self) -> bool:
        """Whether the quality is searched that gives a size, or qualities that give a rate."""
        return self.size is not None or self.bitrate is not None

    @property
    def one_pass(self) -> bool:
        """Whether a bit rate is wanted of a source or for a target that is passed once."""
        return self.bitrate is not None and (self.named is None or self.output is None)

    @cached_property
    def quality_goal(self) -> QualityGoal | None:
        """The score that is wanted. Raises ValueError if it is out of range."""
        for metric in METRICS:
            wanted = self._targets[f"--min-{metric}"]
            if wanted is not None:
                return QualityGoal(metric, wanted, self.pool or "mean")
        return None

    @property
    def buffer_limit(self) -> BufferLimit | None:
        """The decoder's buffer that the file keeps filled. Raises ValueError if it is out of range."""
        if self.maxrate is None or self.bufsize is None:
            return None
        return BufferLimit(self.maxrate, self.bufsize)

    @property
    def options(self) -> EncodeOptions:
        """Options of the encoder."""
        return EncodeOptions(
            self.quality,
            self.gop,
            self.low_delay,
            self.entropy,
            self.preset,
            self.quantiser,
            self.background,
            self.excerpt,
        )

    @cached_property
    def changes(self) -> Changes:
        """Changes of the pictures."""
        return Changes(self.fps, self.scale, SourceFilters(self.deinterlace, self.crop, self.vf))

    @cached_property
    def selection(self) -> TrackSelection:
        """Tracks to take. Raises ValueError if they are not understood."""
        return TrackSelection(self.maps, self.audio_lang)

    @cached_property
    def named(self) -> Path | None:
        """The source as a path, if it is a file that can be read again."""
        if not isinstance(self.source, str | os.PathLike) or is_live(self.source, self.input_format):
            return None
        return Path(self.source)

    @property
    def source_name(self) -> str:
        """Name of the source for messages."""
        return name_of(self.source)

    @cached_property
    def output(self) -> OutputFile | None:
        """The file to write. None if the target is an open file."""
        if isinstance(self.target, str | os.PathLike):
            path = Path(self.target)
        elif self.target is None and self.named is not None:
            path = with_suffix(self.named, ".vdf")
        else:
            return None
        return vdf_output(path, self.force)

    def check_files(self) -> None:
        """Raises ViddiffError if the source does not exist, or if writing the target would lose a file."""
        check_files([] if self.named is None else [self.source_name], self.output)

    def prepare(self) -> None:
        """Start to load what processes will need, if that takes long, before this process loads it."""
        if self.named is None:
            return
        with suppress(CheckpointError):  # which the encode itself will raise
            if base_of(weights_to_encode(self.weights, self.base)) == "none":
                prepare_processes(self.workers)

    @property
    def wanted(self) -> dict[str, float | str] | None:
        """What limits the file or decides its quality, by option. None: a quality, and nothing else."""
        options: dict[str, float | None] = {
            **{name.removeprefix("--").replace("-", "_"): value for name, value in self._targets.items()},
            "maxrate": self.maxrate,
            "bufsize": self.bufsize,
            "max_encoded_percent": self.max_encoded_percent,
        }
        found: dict[str, float | str] = {name: value for name, value in options.items() if value is not None}
        if not found:
            return None
        if self.quality_goal is not None:
            found["pool"] = self.quality_goal.pool
        return found if self.has_target else {"quality": self.quality, **found}

    def choices(self) -> dict[str, Any]:
        """Everything that the file depends on beside its source and weights, as plain data."""
        return {
            **vars(self.options),
            "audio": self.audio,
            "maps": self.maps,
            "audio_lang": self.audio_lang,
            "start": start_text(self.start),
            "frames": self.frames,
            "fps": self.fps and str(self.fps),
            "scale": self.scale,
            "filters": self.changes.source.steps(),
            "drop_alpha": self.drop_alpha,
            "maxrate": self.maxrate,
            "bufsize": self.bufsize,
            "adapt": self.adapt,
        }

    def fingerprint(self) -> dict[str, Any]:
        """`choices`, and which state of the source they are for. The source is a file."""
        assert self.named is not None
        seen = self.named.stat()
        state = {"bytes": seen.st_size, "modified": seen.st_mtime_ns}
        return {**self.choices(), "input_options": dict(self.input_options), **state}


@dataclass(frozen=True)
class EncodeResult:
    """Result of an encode."""

    target: Path | None
    """The file. None for an open file."""
    width: int
    """Width in luma samples."""
    height: int
    """Height in luma samples."""
    frames: int
    keyframes: int
    size_bytes: int
    """Size of the whole file."""
    duration: float
    """How long the video is, in seconds."""
    quality: float
    """Quality of the encode, 0..63. It has a fraction if it was searched for."""
    key_bytes: int
    """Bytes of the keyframes' pictures."""
    ledger: tuple[LedgerRow, ...]
    """Bytes by what they are for."""
    seconds: float
    """Wall clock time."""
    verified: bool
    model_hash: bytes = b""
    """Hash of the weights that the file needs."""
    quality_goal: GoalReport | None = None
    """How the search for a quality went, if there was one."""
    buffer: BufferReport | None = None
    """How the file kept within a decoder's buffer, if it had to."""
    rate: RateReport | None = None
    """How the file kept a bit rate in one pass, if one was wanted."""
    adaptation: Adaptation | None = None
    """The network that was tuned to the video, if one was wanted."""
    predicted_bytes: int | None = None
    """Size that was predicted for `max_encoded_percent`."""
    notes: tuple[str, ...] = ()
    """Notes for the user."""
    ended_by: BaseException | None = None
    """What ended it early: a signal, or an error of a live source. The file is complete."""

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the file per luma sample."""
        return 8 * self.size_bytes / (self.frames * self.width * self.height)
