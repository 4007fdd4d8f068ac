"""Payloads of a file with an AV1 base: units of the stream, and how strongly the frames are enhanced.

    KEY          u8 quantiser index that the GOP was asked for | frames
    PREDICTED    frames
    frames       varint size of the units | units (`media.av1_stream`), one for each frame | symbols

The unit of KEY lacks its start if that is in a BACKGROUND (`container.format`).

The symbols are one entropy-coded stream: updates of the network (`codec.tail_update`), then strengths. For
each frame in the order of display, and for luma and chroma, a kind says whether all blocks have the same
strength or differ:

    0..STRENGTHS-1              that strength
    STRENGTHS..2*STRENGTHS-1    blocks differ: the strength of each follows, in raster order

The table of a kind depends on the kind of the frame before it in the chunk, that of a block on the kind.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viddiff.codec.enhancer import Strengths
from viddiff.codec.entropy import SymbolDecoder, SymbolEncoder, Tables, choice_row
from viddiff.container.format import pack_varint, read_varint
from viddiff.errors import BitstreamError
from viddiff.networks.enhancement_config import GROUPS, STRENGTHS

KINDS = 2 * STRENGTHS
"""Kinds of a frame's strengths."""
_BEGIN = KINDS
"""Context of the first frame of a chunk."""


def pack_frames(units: list[bytes], strengths: bytes) -> bytes:
    """Join the units of a chunk's frames and their strengths."""
    joined = b"".join(units)
    return pack_varint(len(joined)) + joined + strengths


def unpack_frames(payload: bytes) -> tuple[bytes, bytes]:
    """Units and strengths. Raises BitstreamError if they are cut off."""
    size, start = read_varint(payload, 0)
    if size > len(payload) - start:
        raise BitstreamError("the AV1 units of a chunk are cut off")
    return payload[start : start + size], payload[start + size :]


@dataclass(frozen=True)
class StrengthTables:
    """The entropy coder's tables for strengths."""

    kinds: Tables
    """For each group of planes and kind before (or none)."""
    blocks: Tables
    """For each group of planes and kind that says that blocks differ."""

    @classmethod
    def parametric(cls) -> "StrengthTables":
        """Before any statistics: kinds and strengths rather stay as they are."""
        kinds, blocks = [], []
        for _ in range(GROUPS):
            for before in range(KINDS + 1):
                kinds.append(choice_row([4.0 if kind == before else 1.0 for kind in range(KINDS)]))
            for common in range(STRENGTHS):
                near = [2.0 ** (1 - 1.5 * abs(strength - common)) for strength in range(STRENGTHS)]
                blocks.append(choice_row(near))
        return cls(Tables.from_probabilities(kinds), Tables.from_probabilities(blocks))


def kind_table(group: int, before: int) -> int:
    """Table of the kind that follows kind `before`, _BEGIN at first."""
    return group * (KINDS + 1) + before


def block_table(group: int, kind: int) -> int:
    """Table of the blocks of a kind that says that they differ."""
    return group * STRENGTHS + kind - STRENGTHS


class StrengthWriter:
    """Codes the strengths of a chunk's frames."""

    def __init__(self, stream: SymbolEncoder, tables: StrengthTables) -> None:
        self._stream, self._tables = stream, tables
        self.before = [_BEGIN] * GROUPS
        """The last frame's kinds."""

    def put(self, strengths: Strengths, kinds: list[int]) -> None:
        """Code a frame whose groups are of these kinds."""
        for group, kind in enumerate(kinds):
            self._put([kind], kind_table(group, self.before[group]), self._tables.kinds)
            if kind >= STRENGTHS:
                blocks = strengths[group].ravel().tolist()
                self._put(blocks, block_table(group, kind), self._tables.blocks)
        self.before = kinds

    def _put(self, symbols: list[int], table: int, tables: Tables) -> None:
        self._stream.put(np.array(symbols), np.full(len(symbols), table), tables)


class StrengthReader:
    """Decodes the strengths of a chunk's frames."""

    def __init__(self, stream: SymbolDecoder, tables: StrengthTables, blocks: tuple[int, int]) -> None:
        """blocks: rows and columns of a frame's blocks."""
        self._stream, self._tables, self._blocks = stream, tables, blocks
        self._before = [_BEGIN] * GROUPS

    def get(self) -> Strengths:
        """Strengths of the next frame. Raises BitstreamError if the data is damaged."""
        strengths = np.zeros((GROUPS, *self._blocks), np.int64)
        for group in range(GROUPS):
            (kind,) = self._get(1, kind_table(group, self._before[group]), self._tables.kinds, KINDS)
            self._before[group] = int(kind)
            if kind < STRENGTHS:
                strengths[group] = kind
                continue
            table = block_table(group, int(kind))
            found = self._get(strengths[group].size, table, self._tables.blocks, STRENGTHS)
            strengths[group] = found.reshape(self._blocks)
        return strengths

    def _get(self, count: int, table: int, tables: Tables, limit: int) -> NDArray[np.int32]:
        symbols = self._stream.get(np.full(count, table), tables)
        if symbols.min() < 0 or symbols.max() >= limit:
            raise BitstreamError("the strength of an enhancement is out of range")
        return symbols
