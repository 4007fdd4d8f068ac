"""Encode and decode in this process. Start reading here.

    encode:  frames -> groups -> [keyframe | mini-GOP of predicted frames] -> chunks -> file
    decode:  file -> chunks -> [keyframe | mini-GOP of predicted frames] -> frames

A group is a keyframe or a mini-GOP. It becomes one chunk with one entropy-coded stream. The encoder's
reconstruction comes from the functions that the decoder runs.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from typing import BinaryIO

from viddiff.codec.open_decoder import Weights, open_decoder
from viddiff.container.format import Chunk
from viddiff.container.reader import Reader
from viddiff.encoder.coded_group import CodedGroup, GroupEncoder
from viddiff.encoder.grouping import Group, after_gops
from viddiff.frame import Frame
from viddiff.pipeline.division import Share
from viddiff.pipeline.gops_side_by_side import coded_side_by_side
from viddiff.pipeline.interruption import DeferredSignals
from viddiff.pipeline.jobs import coded_jobs
from viddiff.pipeline.output import CodedChunk, Output
from viddiff.pipeline.summary import EncodeSummary

Coding = Callable[[Iterable[Group]], Generator[CodedChunk, None, None]]
"""Codes the groups of a video. Each chunk is written before the next one is asked for."""


def encode(
    frames: Iterable[Frame],
    encoder: GroupEncoder,
    output: Output,
    done: Iterable[Chunk] = (),
    watch: Callable[[CodedGroup], None] | None = None,
    together: int = 1,
    coding: Coding | None = None,
) -> EncodeSummary:
    """Encode frames in presentation order; `output` is only written to, never sought in.

    done: chunks of the first GOPs, which are not coded again. watch: takes each group once it is written.
    together: number of GOPs that threads may encode side by side. Chunks come later then. coding: codes the
    groups in another way, without `watch` and `together`.
    Ctrl-C completes the file with what is coded. A recording is completed with all frames that have come,
    whatever ends it. Raises VideoError or LimitError from the frames' source unchanged. Returns totals.
    """
    gops = output.repeat(done)
    with DeferredSignals() if output.recording else nullcontext() as signals:
        source = frames if signals is None else output.recorded(frames, signals)
        groups = groups_after(source, encoder, gops)
        code = coding or partial(_coded, encoder, together, watch)
        with output.until_interrupted(), closing(code(groups)) as chunks:
            for chunk in chunks:
                output.take(chunk)
        summary = output.finish()
        if signals is not None and summary.ended_by is not None:
            signals.forget()
    return summary


def _coded(
    encoder: GroupEncoder,
    together: int,
    watch: Callable[[CodedGroup], None] | None,
    groups: Iterable[Group],
) -> Generator[CodedChunk, None, None]:
    with closing(_coded_groups(encoder, groups, together)) as coded:
        for group in coded:
            yield CodedChunk.of(group)
            if watch is not None:
                watch(group)


def _coded_groups(
    encoder: GroupEncoder, groups: Iterable[Group], together: int
) -> Generator[CodedGroup, None, None]:
    if together > 1:
        return coded_side_by_side(encoder, groups, together)
    return (group for job in coded_jobs(encoder, groups, Share()) for group in job)


def groups_after(frames: Iterable[Frame], encoder: GroupEncoder, gops: int) -> Iterator[Group]:
    """Groups of a video without its first `gops` GOPs."""
    return after_gops(encoder.groups(frames), gops)


def decode(file: BinaryIO, weights: Weights) -> Iterator[Frame]:
    """Decode all frames of a `.vdf` file in presentation order.

    Raises CheckpointError if the file was encoded with other weights, BitstreamError or LimitError if it is
    damaged.
    """
    reader = Reader(file)
    decoder = open_decoder(reader.header, weights)
    for chunk in reader:
        yield from decoder.decode(chunk)
