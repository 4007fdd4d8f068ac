"""`viddiff info`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from viddiff.cli import options
from viddiff.cli.printing import print_json, printable
from viddiff.cli.secrets import key_for

if TYPE_CHECKING:
    from viddiff.container.read_options import ReadOptions
    from viddiff.display import Display
    from viddiff.pipeline.chunk_sizes import GopRow

_ROWS = 20
"""Largest number of GOPs in the table."""


@click.command("info")
@click.argument("source", metavar="[FILE.vdf]", type=options.PATH, required=False)
@click.option("--model", is_flag=True, help="Describe the weights instead of a file.")
@click.option(
    "--plot",
    type=options.NEW_FILE,
    metavar="FILE.png",
    help="Write the plot of the bits per frame to this file, not to the terminal. Needs matplotlib.",
)
@options.combined(
    options.weights_option,
    options.max_pixels_option,
    options.max_frames_option,
    options.key_file_option,
    options.passphrase_file_option,
    options.json_option,
)
def info_command(
    source: Path | None,
    model: bool,
    plot: Path | None,
    weights: Path | None,
    key_file: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Describe a .vdf, or the weights (--model).

    \b
    Examples:
      viddiff info holiday.vdf
      viddiff info holiday.vdf --plot bits.png
      viddiff info --model
    """
    if (source is None) != model:
        raise click.UsageError("give either a FILE.vdf or --model")
    if plot is not None and model:
        raise click.UsageError("weights have no plot")
    rows: list[GopRow] = []
    if source is None:
        values = describe_model(weights)
    else:
        from viddiff.container.excerpt import naming
        from viddiff.container.read_options import ReadOptions
        from viddiff.pipeline.job_values import check_source
        from viddiff.plots import check_plot

        check_source(source, str(source))
        if plot is not None:
            check_plot(plot)
        key = key_for(source, key_file, passphrase_file)
        reading = ReadOptions(limits=options.limits_of(limits["max_pixels"], limits["max_frames"]), key=key)
        from viddiff.cli.bits_plot import plot_png, plot_text
        from viddiff.pipeline.chunk_sizes import gop_table

        with naming(source):
            with reading.open(source) as file:
                rows = gop_table(file, reading.limits)
            values = describe_file(source, reading, rows[-1].end if rows else 0.0)
        if plot is not None and rows:
            plot_png(rows, plot)
    if as_json:
        print_json(values | ({"gops": [row.plain() for row in rows]} if source else {}))
        return
    for name, value in values.items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines or ["none"]):
            label = "" if number else name.replace("_", " ")
            click.echo(f"{label:24} {_text(line)}")
    if source is not None and rows:
        _print_gops(rows)
        if plot is None:
            click.echo("\n" + plot_text(rows))


def _print_gops(rows: "list[GopRow]") -> None:
    """Print the first rows of the table of GOPs."""
    click.echo(f"\n{'gops':>8} {'frame':>9} {'frames':>7} {'bytes':>11} {'kbit/s':>9}")
    for row in rows[:_ROWS]:
        values = row.plain()
        click.echo(f"{_clock(row.start):>8} {row.frame:9} {row.frames:7} {row.size:11} {values['kbps']:9.1f}")
    if len(rows) > _ROWS:
        click.echo(f"{len(rows) - _ROWS} more GOPs; --json has all")


def _clock(seconds: float) -> str:
    """A time in the form of --start."""
    minutes, rest = divmod(round(seconds, 2), 60)
    return (
        f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:05.2f}"
        if minutes >= 60
        else f"{int(minutes):02}:{rest:05.2f}"
    )


def _text(value: object) -> str:
    """A value on one line."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return " ".join(_text(inner) for inner in value)
    if isinstance(value, dict):
        return ", ".join(f"{_text(name)} {_text(inner)}" for name, inner in value.items()) or "none"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def describe_file(source: Path, options: "ReadOptions", seconds: float) -> dict[str, Any]:
    """Properties of a `.vdf` that is so long, without decoding a frame."""
    from viddiff.container.format import VERSION
    from viddiff.container.reader import Reader
    from viddiff.container.track_file import summary

    with options.open(source) as file:
        reader = Reader(file, options.limits)
        keyframes = reader.index()
        file.seek(0)
        others = summary(file, options.limits)
    header, video, frames = reader.header, reader.header.video, reader.frame_count or 0
    backgrounds = {entry.background for entry in keyframes} - {None}
    size = source.stat().st_size
    return {
        "file": source, "format_version": VERSION, "bytes": size, "encrypted": options.key is not None,
        "width": video.width, "height": video.height, "bit_depth": video.bit_depth,
        "frames": frames, "keyframes": len(keyframes), "gop": header.gop,
        "backgrounds": len(backgrounds),
        "low_delay": header.low_delay, "entropy": header.entropy, "base": "av1" if header.base else "none",
        "frame_rate": str(video.frame_rate), "time_base": str(video.time_base), "seconds": round(seconds, 3),
        "bpp": 8 * size / (frames * video.width * video.height) if frames else 0.0,
        "kbps": size / 125 / seconds if seconds else 0.0,
        "primaries": video.primaries, "transfer": video.transfer, "matrix": video.matrix,
        "full_range": video.full_range, "chroma_location": video.chroma_location,
        "sample_aspect_ratio": str(video.sample_aspect_ratio), "rotation": video.rotation,
        **_display(video.display),
        "model_name": header.model_name, "model_hash": header.model_hash.hex(),
        "network": _network(header.network),
        **others,
    }  # fmt: skip


def _network(network: bytes | None) -> dict[str, Any] | None:
    """Size and hash of a file's own network, without values if it is damaged. None: the file has none."""
    if network == b"":
        return None
    if network is None:
        return {"bytes": None, "hash": None}
    from viddiff.codec.file_network import network_hash
    from viddiff.container.format import framed_size

    return {"bytes": framed_size(len(network)), "hash": network_hash(network).hex()}


def _display(display: "Display") -> dict[str, Any]:
    """Values of `Display` in units for people."""
    mastering: dict[str, list[float]] = {}
    if (colours := display.mastering_colours) is not None:
        names = ("red", "green", "blue", "white")
        mastering |= {name: [n / 50_000 for n in colours[2 * i : 2 * i + 2]] for i, name in enumerate(names)}
    if (luminance := display.mastering_luminance) is not None:
        mastering["luminance"] = [luminance[1] / 10_000, luminance[0] / 10_000]
    light = display.content_light
    return {
        "mastering_display": mastering or None,
        "content_light": light and {"max_cll": light[0], "max_fall": light[1]},
        "field_order": display.field_order,
        "display_matrix": display.matrix and list(display.matrix),
    }


def describe_model(weights: Path | None) -> dict[str, Any]:
    """Name, hash, size and cost of weights."""
    from viddiff.codec.enhancer import Enhancer
    from viddiff.codec.load_weights import load_weights
    from viddiff.pipeline.weights_search import weights_to_encode

    path = weights_to_encode(weights)
    codec = load_weights(path)
    if isinstance(codec, Enhancer):
        return {
            "file": path, "bytes": path.stat().st_size,
            "name": codec.name, "hash": codec.hash.hex(), "base": "av1",
            "parameters": codec.weights.config.parameters(),
            "decoder_kmac_per_pixel": round(codec.weights.config.macs() / 1000, 3),
            "decoder_kmac_per_pixel_between": round(codec.weights.config.macs(between=True) / 1000, 3),
        }  # fmt: skip
    from viddiff.codec.weights import Codec

    assert isinstance(codec, Codec)
    layers = codec.model.decoder_layers()
    macs = codec.model.decoder_macs()
    decoder = sum(p.numel() for layer in layers.values() for p in layer.parameters())
    return {
        "file": path, "bytes": path.stat().st_size,
        "name": codec.name, "hash": codec.hash.hex(), "base": "none",
        "parameters": sum(p.numel() for part in (codec.model, codec.motion) for p in part.parameters()),
        "decoder_parameters": decoder + sum(p.numel() for p in codec.motion.parameters()),
        "library_pictures": len(codec.library.pictures),
        "decoder_kmac_per_pixel": round(sum(macs.values()) / 1000, 3),
        "parts_kmac_per_pixel": {part: round(count / 1000, 3) for part, count in macs.items()},
    }  # fmt: skip
