"""Mutations of an attacker: changed content with correct lengths and checksums."""

import random
import struct
import zlib
from collections.abc import Callable

from viddiff.container.format import BACKGROUND, KEY, MAGIC, pack_varint

Mutate = Callable[[bytes, int], bytes]
"""The fuzzer's own mutation of bytes, up to a size."""
NUMBERS = [0, 1, 2, 63, 64, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
RECORD, START = 4112, 64
"""For encrypted files: bytes of a record, and bytes before the first record."""


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Types and payloads of the chunks as far as they are readable, without checksums."""
    chunks, at = [], len(MAGIC)
    while at < len(data):
        length, position, shift = 0, at + 1, 0
        while position < len(data) and shift < 35:
            length |= (data[position] & 127) << shift
            position, shift = position + 1, shift + 7
            if data[position - 1] < 128:
                break
        chunks.append((data[at], data[position : position + length]))
        at = position + length + 4
    return chunks


def joined(chunks: list[tuple[int, bytes]]) -> bytes:
    """File of these chunks, each with its correct length and checksum, and with END pointing to INDEX."""
    out, index = bytearray(MAGIC), 0
    for kind, payload in chunks:
        if kind == 0x80:
            index = len(out)
        if kind == 4 and len(payload) == 8 and payload != b"\xff" * 8:
            payload = struct.pack("<Q", index)
        chunk = bytes([kind]) + pack_varint(len(payload)) + payload
        out += chunk + struct.pack("<I", zlib.crc32(chunk))
    return bytes(out)


def renamed(chunks: list[tuple[int, bytes]], before: bytes, after: bytes) -> list[tuple[int, bytes]]:
    """The chunks, KEY naming a background by its changed content."""
    old, new = (zlib.crc32(payload).to_bytes(4, "little") for payload in (before, after))
    return [(kind, payload.replace(old, new) if kind == KEY else payload) for kind, payload in chunks]


def mutated_chunks(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """Mutate a `.vdf`: change payloads; swap, repeat and drop chunks; sometimes change raw bytes."""
    rng, chunks = random.Random(seed), split(data)
    if not chunks or rng.random() < 0.1:
        return mutate(data, max_size)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(chunks)), rng.randrange(len(chunks))
        kind, payload = chunks[at]
        match rng.randrange(12):
            case 0:
                chunks[at], chunks[other] = chunks[other], chunks[at]
            case 1:
                chunks.insert(other, chunks[at])
            case 2:
                del chunks[at : at + rng.randrange(1, 3)]
            case 3:
                chunks[at] = rng.choice((*range(8), 0x80, 0x81, 0x82, 0x83, 0x84, 0x90)), payload
            case 4:
                chunks[at] = kind, payload[: rng.randrange(len(payload) + 1)]
            case 5 | 6:
                place = rng.randrange(len(payload) + 1)
                number = pack_varint(rng.choice(NUMBERS))
                chunks[at] = kind, payload[:place] + number + payload[place + rng.randrange(1, 4) :]
            case 7:
                chunks[at] = kind, rng.randbytes(rng.randrange(60))
            case _:
                chunks[at] = kind, mutate(payload, max(len(payload) + 16, 1))
        if kind == BACKGROUND and at < len(chunks):
            chunks = renamed(chunks, payload, chunks[at][1])
        if not chunks:
            break
    return joined(chunks)[:max_size]


def mutated_records(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """Mutate an encrypted file: swap, repeat and drop records, or change bytes."""
    rng = random.Random(seed)
    records = [data[at : at + RECORD] for at in range(START, len(data), RECORD)]
    if not records or rng.random() < 0.4:
        return mutate(data, max_size)
    at, other = rng.randrange(len(records)), rng.randrange(len(records))
    match rng.randrange(4):
        case 0:
            records[at], records[other] = records[other], records[at]
        case 1:
            records.insert(other, records[at])
        case 2:
            del records[at]
        case _:
            records[at] = mutate(records[at], RECORD)
    return (data[:START] + b"".join(records))[:max_size]


def mutated_weights(data: bytes, max_size: int, seed: int, mutate: Mutate) -> bytes:
    """Mutate safetensors: the JSON with its correct length, or the numbers."""
    rng = random.Random(seed)
    size = int.from_bytes(data[:8], "little")
    text, numbers = data[8 : 8 + size], data[8 + size :]
    choice = rng.random()
    if choice < 0.1 or not text:
        return mutate(data, max_size)
    if choice < 0.8:
        start = rng.randrange(len(text))
        end = min(start + rng.randrange(1, 200), len(text))
        text = text[:start] + mutate(text[start:end], end - start + 8) + text[end:]
    else:
        changed = bytearray(numbers)
        for _ in range(rng.choice((1, 8))):
            place = rng.randrange(len(changed)) if changed else 0
            changed[place : place + 1] = rng.randbytes(1)
        numbers = bytes(changed)
        place = rng.randrange(len(numbers) + 1)
        numbers = (
            bytes(numbers[:place])
            + rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f" * 4))
            + bytes(numbers[place + 4 :])
        )
    return (struct.pack("<Q", len(text)) + text + numbers)[:max_size]


MUTATORS: dict[str, Callable[[bytes, int, int, Mutate], bytes]] = {
    "container": mutated_chunks,
    "index": mutated_chunks,
    "info": mutated_chunks,
    "parts": mutated_chunks,
    "decode": mutated_chunks,
    "stream": mutated_chunks,
    "base": mutated_chunks,
    "sealed": mutated_records,
    "tracks": mutated_chunks,
    "weights": mutated_weights,
    "enhancement": mutated_weights,
}


def smaller(target: str, data: bytes, still: Callable[[bytes], bool], tries: int = 300) -> bytes:
    """A smaller input for which `still` holds: drop whole chunks, then spans of bytes."""
    chunked = MUTATORS.get(target) is mutated_chunks
    if chunked:
        chunks = split(data)
        at = len(chunks) - 1
        while at >= 0 and tries:
            fewer = chunks[:at] + chunks[at + 1 :]
            tries -= 1
            if still(joined(fewer)):
                chunks, data = fewer, joined(fewer)
            at -= 1
    span = len(data) // 2
    while span and tries:
        at = 0
        while at < len(data) and tries:
            candidate = data[:at] + data[at + span :]
            tries -= 1
            if still(candidate):
                data = candidate
            else:
                at += span
        span //= 2
    return data
