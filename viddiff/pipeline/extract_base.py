"""The AV1 base of a `.vdf` as a file of its own, without decoding."""

from pathlib import Path

from viddiff.codec.base_payloads import unpack_frames
from viddiff.container.excerpt import naming, stated_duration
from viddiff.container.format import KeyChunk
from viddiff.container.read_options import ReadOptions
from viddiff.container.reader import Reader
from viddiff.container.track_file import TrackFile
from viddiff.errors import BitstreamError, ViddiffError
from viddiff.interleave import Interleaver
from viddiff.media.av1_stream import split_units
from viddiff.media.base_writer import BaseWriter
from viddiff.pipeline.output_file import OutputFile


def extract_base(
    source: Path, output: OutputFile, options: ReadOptions | None = None
) -> tuple[int, list[str]]:
    """Write the base of the file `source` to `output`, a .mp4 or .mkv.

    Returns the number of frames, and notes for the user. Raises ViddiffError if the file has no base,
    BitstreamError if it is damaged, VideoError if the output cannot hold it. Nothing is left then.
    """
    temporary = output.temporary()
    try:
        result = _extract(source, temporary, output.path.suffix.lower(), options or ReadOptions(strict=True))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    output.publish(temporary)
    return result


def _extract(source: Path, target: Path, form: str, options: ReadOptions) -> tuple[int, list[str]]:
    with naming(source), options.open(source) as file, options.open(source) as again:
        reader = Reader(file, options.limits)
        if not reader.header.base:
            raise ViddiffError(f"{source} has no AV1 base: networks predict its frames")
        tracks = TrackFile(again, None, options.limits)
        frames, last = 0, None
        with BaseWriter(target, form, reader.header.video, Interleaver(tracks.extras, tracks)) as writer:
            for chunk in reader:
                key = isinstance(chunk, KeyChunk)
                times = chunk.times
                units, _ = unpack_frames(chunk.payload[1:] if key else chunk.payload)
                if isinstance(chunk, KeyChunk):
                    if chunk.background is None:
                        raise BitstreamError("the background of a keyframe is missing")
                    units = chunk.background + units
                for unit, pts in zip(split_units(units, len(times)), times, strict=True):
                    if last is not None:
                        writer.write(*last, pts - last[1])
                    last = unit, pts, key
                frames += len(times)
            if last is None:
                raise BitstreamError(f"{source} holds no frame")
            writer.write(*last, stated_duration(reader, frames))
        return frames, writer.notes
