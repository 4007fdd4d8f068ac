"""Send media files through a .vdf and back, and compare every stream of the result with the source.

    python scripts/check_media.py FILES [--to mp4,mkv] [--weights FILE] [-- OPTIONS OF ENCODE]

For each file it prints what viddiff said, and what differs: times and descriptions of the pictures as libav
decodes them, packets (SHA-256), times, tags and dispositions of all other streams, chapters and attachments.
Some differences are expected; docs/media.md lists them. The exit code is 1 if decode fails.
"""

import argparse
import contextlib
import hashlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.stream import AttachmentStream

from viddiff.cli import main
from viddiff.media.demuxer import is_cover
from viddiff.media.picture_properties import display_of, logged_properties
from viddiff.media.track_reader import HANDLERS, TECHNICAL

Facts = dict[str, Any]
MUXERS = [("handler_name", name) for name in HANDLERS] + [("language", "und")]
"""Tags without information, which .mp4 writes for every stream."""
MILLISECOND = 0.00101
"""How much Matroska may move a time, in seconds."""


def facts_of(path: Path) -> dict[str, Facts]:
    """What libav says of a file's parts, by a name that source and result share."""
    with av.open(str(path), metadata_errors="replace") as container:
        chapters = [
            (round(float(c["start"] * base), 3), round(float(c["end"] * base), 3), c["metadata"])
            for c in container.chapters()
            if (base := c["time_base"]) is not None
        ]
        found: dict[str, Facts] = {"file": {"tags": tags_of(container.metadata), "chapters": chapters}}
        number: dict[str, int] = {}
        facts: dict[int, Facts] = {}
        for stream in container.streams:
            if isinstance(stream, AttachmentStream):
                found[f"attachment {stream.name}"] = {"bytes": digest(stream.data)}
            elif not is_cover(stream):
                number[stream.type] = number.get(stream.type, -1) + 1
                facts[stream.index] = stream_facts(stream)
                found[f"{stream.type} {number[stream.type]}"] = facts[stream.index]
        with contextlib.suppress(av.FFmpegError):  # a broken end
            for packet in container.demux():
                if packet.stream.index in facts:
                    take(packet, facts[packet.stream.index])
    return found


def stream_facts(stream: Any) -> Facts:
    """What is known before the first packet. Dispositions other than "default" count."""
    facts: Facts = {"tags": tags_of(stream.metadata), "disposition": int(stream.disposition) & ~1}
    facts |= {"times": [], "durations": []}
    if stream.type == "video":
        context = stream.codec_context
        colour = (context.color_primaries, context.color_trc, context.colorspace)
        return facts | {"rate": str(stream.average_rate), "primaries, transfer, matrix": colour}
    codec = stream.codec_context
    return facts | {"codec": codec.codec.canonical_name if codec else None, "packets": []}


def take(packet: Any, facts: Facts) -> None:
    """Add a packet's content: of video, the pictures in it."""
    if packet.stream.type != "video":
        if packet.size:
            time = packet.dts if packet.pts is None else packet.pts
            facts["times"].append(None if time is None else float(time * packet.time_base))
            facts["durations"].append(float((packet.duration or 0) * packet.time_base))
            facts["packets"].append(digest(bytes(packet)))
        return
    with contextlib.suppress(av.InvalidDataError):
        for picture in packet.decode():
            if not facts["times"]:
                facts |= picture_facts(picture, packet.stream)
            facts["times"].append(picture.time)


def picture_facts(picture: av.VideoFrame, stream: Any) -> Facts:
    """Properties of the first picture."""
    location, aspect, fields = logged_properties(picture)
    return {
        "size": (picture.width, picture.height),
        "format": picture.format.name,
        "range": int(picture.color_range),
        "chroma location": location,
        "aspect": str(stream.sample_aspect_ratio or aspect),
        "fields": fields,
        "rotation": picture.rotation,
        "display": display_of(picture, fields),
    }


def tags_of(metadata: dict[str, str]) -> dict[str, str]:
    """Tags that describe the content of the file."""
    return {
        name.lower(): value
        for name, value in metadata.items()
        if not TECHNICAL.fullmatch(name) and (name.lower(), value) not in MUXERS
    }


def digest(data: bytes) -> str:
    """Start of the SHA-256 of `data`, in hex."""
    return hashlib.sha256(data).hexdigest()[:12]


def differences(source: dict[str, Facts], result: dict[str, Facts]) -> Iterator[str]:
    """Differences, one line each."""
    before, after = (facts.get("video 0", {}).get("times") or [None] for facts in (source, result))
    shift = 0.0 if before[0] is None or after[0] is None else after[0] - before[0]
    if abs(shift) > MILLISECOND:
        yield f"everything begins {shift:.3f} s later"
    for name in [*source, *(name for name in result if name not in source)]:
        if name not in result or name not in source:
            yield f"{name} is {'missing' if name in source else 'new'}"
            continue
        for fact, value in source[name].items():
            found: Any = result[name].get(fact)
            if fact in ("times", "durations"):
                line = compared(value, found, shift if fact == "times" else 0.0)
            elif fact == "packets" and value != found:
                lost = sum(packet not in found for packet in value)
                line = f"{len(value)} -> {len(found)}, {lost} are not there"
            else:
                line = "" if value == found else f"{value} -> {found}"
            if line:
                yield f"{name}, {fact}: {line}"


def compared(source: list[float | None], result: list[float | None], shift: float) -> str:
    """How times differ. Empty if they do not."""
    if len(source) != len(result):
        return f"{len(source)} -> {len(result)}"
    pairs = [(a, None if b is None else b - shift) for a, b in zip(source, result, strict=True)]
    wrong = [
        (i, a, b) for i, (a, b) in enumerate(pairs) if a is None or b is None or abs(a - b) > MILLISECOND
    ]
    named = ", ".join(f"{i}: {a} -> {b}" for i, a, b in wrong[:3])
    return f"{len(wrong)} of {len(source)} differ: {named}" if wrong else ""


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and messages of `viddiff`, without progress."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, " | ".join(line for line in said.getvalue().splitlines() if " s left" not in line)


def main_check() -> None:
    """Check all files of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--to", default="mp4,mkv", help="what decode writes (default: %(default)s)")
    parser.add_argument("--weights", help="of both encode and decode")
    own, options = sys.argv[1:], list[str]()
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    common = ["--workers", "1", "--force", *(["--weights", given.weights] if given.weights else [])]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in given.files:
            code, said = command("encode", str(path), str(folder / "coded.vdf"), *common, *options)
            print(f"=== {path.name}\n  encode {code}: {said}", flush=True)
            for suffix in given.to.split(",") if code == 0 else []:
                out = folder / f"decoded.{suffix}"
                code, said = command("decode", str(folder / "coded.vdf"), str(out), *common)
                print(f"  decode {code}: {said}", flush=True)
                failed += code != 0
                for line in differences(facts_of(path), facts_of(out)) if code == 0 else ():
                    print(f"    {line}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main_check()
