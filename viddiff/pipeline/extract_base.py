"""The AV1 base of a `.vdf` as a file of its own, without decoding."""

from pathlib import Path

from viddiff.codec.base_payloads import unpack_frames
from viddiff.container.format import KeyChunk
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_file import TrackFile
from viddiff.errors import BitstreamError, ViddiffError
from viddiff.interleave import Interleaver
from viddiff.media.av1_stream import split_units
from viddiff.media.base_writer import BaseWriter


def extract_base(
    source: Path, target: Path, form: str, options: ReadOptions | None = None
) -> tuple[int, list[str]]:
    """Write the base of the file `source` to the new file `target`; form: ".mp4" or ".mkv".

    Returns the number of frames, and lines that the user should see. Raises ViddiffError if the file has no
    base, BitstreamError if it is damaged, VideoError if the target cannot hold it; `target` may exist then.
    """
    options = options or ReadOptions(strict=True)
    with options.open(source) as file, options.open(source) as again:
        reader = Reader(file, options.limits)
        if not reader.header.base:
            raise ViddiffError(f"{source} has no AV1 base: networks predict its frames")
        tracks = TrackFile(again, None, options.limits)
        frames = 0
        with BaseWriter(target, form, reader.header.video, Interleaver(tracks.extras, tracks)) as writer:
            for chunk in reader:
                key = isinstance(chunk, KeyChunk)
                times = (chunk.pts,) if isinstance(chunk, KeyChunk) else chunk.pts
                units, _ = unpack_frames(chunk.payload[1:] if key else chunk.payload)
                for unit, pts in zip(split_units(units, len(times)), times, strict=True):
                    writer.write(unit, pts, key)
                frames += len(times)
        if not frames:
            raise BitstreamError(f"{source} holds no frame")
        return frames, writer.notes
