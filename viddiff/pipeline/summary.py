"""Result of an encode in numbers."""

from collections import defaultdict
from dataclasses import dataclass, field

from viddiff.digest import GopDigest
from viddiff.encoder.frame_stats import FrameStats
from viddiff.frame import VideoInfo


@dataclass
class LevelTotals:
    """Sums over the predicted frames of one level. The fields are those of `FrameStats`."""

    frames: int = 0
    bits_motion: float = 0.0
    bits_z: float = 0.0
    bits_y: float = 0.0
    bits_still: float = 0.0
    prediction_mse: float = 0.0
    mse: float = 0.0

    @property
    def bits(self) -> float:
        """All bits of the frames."""
        return self.bits_motion + self.bits_z + self.bits_y + self.bits_still

    def add(self, stats: FrameStats) -> None:
        """Add a frame."""
        self.frames += 1
        self.bits_motion += stats.bits_motion
        self.bits_z += stats.bits_z
        self.bits_y += stats.bits_y
        self.bits_still += stats.bits_still
        self.prediction_mse += stats.prediction_mse
        self.mse += stats.mse


@dataclass(frozen=True)
class LedgerRow:
    """Bytes of one kind."""

    part: str
    """With a base: "base", "backgrounds", "strengths" and, if the file has one, "network". Without:
    "keyframes", and by level "motion", "residual", "side" and "stills". "other": container, sound and
    so on."""
    bytes: int
    level: int | None = None
    """Level of the hierarchy of predicted frames."""


@dataclass
class EncodeSummary:
    """Result of an encode. Its size does not grow with the frames, except for one digest per GOP."""

    frames: int = 0
    keyframes: int = 0
    size_bytes: int = 0
    first_pts: int = 0
    """Time of the first frame."""
    last_pts: int = 0
    """Time of the last frame."""
    last_duration: int = 0
    """How long the last frame is shown; 0 if unknown."""
    key_bytes: int = 0
    base_bytes: int = 0
    """Of the AV1 base, where there is one; without frames that an earlier run coded, as below."""
    background_bytes: int = 0
    """Of backgrounds, which several GOPs of the base begin with."""
    strength_bytes: int = 0
    """Of the strengths at which frames of the base are enhanced."""
    network_bytes: int = 0
    """Of the file's own network."""
    mean_quantiser: float | None = None
    """Of the base, over all frames, if it was chosen GOP by GOP."""
    beyond_gops: int = 0
    """GOPs that take more than the bit rate at every quality, if there is a bit rate in one pass."""
    levels: dict[int, LevelTotals] = field(default_factory=lambda: defaultdict(LevelTotals))
    """Cost of the predicted frames by level, without those that an earlier run coded."""
    ended_by: BaseException | None = None
    """What ended it before the video did: Ctrl-C; for a recording, also another signal or an error."""
    gops: list[GopDigest] = field(default_factory=list)
    """Digests of the reconstruction, without GOPs that an earlier run coded."""

    @property
    def video_bytes(self) -> int:
        """Of the pictures of a file with an AV1 base, without the framing of chunks."""
        return self.base_bytes + self.background_bytes + self.strength_bytes

    def seconds(self, video: VideoInfo) -> float:
        """How long the video is."""
        last = self.last_duration * video.time_base or 1 / video.frame_rate
        return float((self.last_pts - self.first_pts) * video.time_base + last)

    def ledger(self) -> tuple[LedgerRow, ...]:
        """Bytes by what they are for; without frames that an earlier run coded."""
        rows = [
            LedgerRow("base", self.base_bytes),
            LedgerRow("backgrounds", self.background_bytes),
            LedgerRow("strengths", self.strength_bytes),
        ]
        if not self.base_bytes:
            rows = [LedgerRow("keyframes", self.key_bytes)]
        if self.network_bytes:
            rows.append(LedgerRow("network", self.network_bytes))
        for level, totals in sorted(self.levels.items()):
            parts = {"motion": totals.bits_motion, "residual": totals.bits_y, "side": totals.bits_z}
            parts["stills"] = totals.bits_still
            rows += [LedgerRow(part, round(bits / 8), level) for part, bits in parts.items()]
        rest = self.size_bytes - sum(row.bytes for row in rows)
        return (*rows, LedgerRow("other", rest))
