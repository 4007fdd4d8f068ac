"""Encrypted files, sealing format version 1. This layer of bytes lies below the container.

    file     magic of .vdf | SEALED chunk, framed as in `format`, critical type 05 | records to the end
    SEALED   u8 version 1 | u8 cost: 0 key file, 14..18 passphrase | 32 bytes salt, random | 16 bytes check
    record   AES-256-GCM of 4096 bytes (the last record: of the rest), then its tag of 16 bytes
    nonce    record number from 0, 11 bytes big-endian | u8 1 for the last record, otherwise 0

    secret      the 32 bytes of the key file, or scrypt(passphrase in UTF-8, salt, N = 2^cost, r = 8, p = 1)
    key, check  the first 32 and the next 16 bytes of HKDF-SHA256(secret, salt, info), where info is
                "viddiff sealed" and the payload of SEALED up to the end of the salt

The records hold a whole `.vdf`, with its magic. Each file has its own key. Decryption fails for a changed
SEALED chunk, and for records that are from another file, reordered or missing, or that follow the last one.
Records have one size, so the file is seekable and shows only its total size. Records are written and read one
by one.

Test vectors: nothing (one record of 0 bytes) sealed with the salt 64 65 .. 83, by the key file 00 01 .. 1F
and by the passphrase "grüne Wiese" at cost 14:

    89564446 0D0A1A0A 0532 01 00 6465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F80818283
    13D0B010B6FDEEC96A28BA8696FACA5F 94452EB8 63F5F52BA2BE9FF1C1E8E58683824F2A

    89564446 0D0A1A0A 0532 01 0E 6465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F80818283
    7B59CD971373C5DD1C5DB63CFAFF7E17 FF7ACC8B E8E35601D9F4A7576D6DA766CE880F6C
"""

import hmac
import io
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, cast

from viddiff.container.format import MAGIC, SEALED
from viddiff.errors import BitstreamError, SecretError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
"""Size of a key file in bytes."""
COST = 17
"""Default cost of a passphrase: N = 2^17 takes 128 MiB and about half a second."""
_COSTS = range(14, 19)
_PLAIN, _TAG = 4096, 16
_RECORD = _PLAIN + _TAG
_LAYOUT = struct.Struct("<BB32s16s")
_FRAME = struct.Struct(f"<8sBB{_LAYOUT.size}sI")


@dataclass(frozen=True)
class Secret:
    """The user's secret: a key or a passphrase."""

    data: bytes = field(repr=False)
    """32 bytes of a key file, or a passphrase in UTF-8."""
    passphrase: bool


def _derive(secret: Secret, public: bytes) -> tuple[bytes, bytes]:
    """Key and check of a file. `public` is the SEALED payload up to the salt: version, cost, salt."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    cost, salt = public[1], public[2:]
    data = secret.data
    if cost:
        data = Scrypt(salt, KEY_BYTES, 1 << cost, 8, 1).derive(data)
    both = HKDF(SHA256(), KEY_BYTES + 16, salt, b"viddiff sealed" + public).derive(data)
    return both[:KEY_BYTES], both[KEY_BYTES:]


def _cipher(key: bytes) -> "AESGCM":
    """The cipher of records, loaded when it is needed."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _public(file: BinaryIO) -> tuple[int, bytes, bytes] | None:
    """Cost, version to salt, and check of a file at its start. None if it is not sealed."""
    data = b""
    while len(data) < _FRAME.size and (piece := file.read(_FRAME.size - len(data))):
        data += piece
    if len(data) < 9 or data[:8] != MAGIC or data[8] != SEALED:
        return None
    if len(data) < _FRAME.size:
        raise BitstreamError("the file ends inside its SEALED chunk")
    _, _, size, payload, crc = _FRAME.unpack(data)
    if size != _LAYOUT.size or crc != zlib.crc32(data[8:-4]):
        raise BitstreamError("the SEALED chunk is damaged")
    version, cost, _, check = _LAYOUT.unpack(payload)
    if version != 1 or (cost and cost not in _COSTS):
        raise BitstreamError(f"the SEALED chunk has version {version} and cost {cost}, which are unknown")
    return cost, payload[:-16], check


def wants(file: BinaryIO) -> str:
    """What a seekable file needs: "" (not sealed), "key file" or "passphrase".

    Raises BitstreamError if its SEALED chunk is damaged.
    """
    file.seek(0)
    public = _public(file)
    file.seek(0)
    return "" if public is None else "passphrase" if public[0] else "key file"


def unlock(file: BinaryIO, secret: Secret) -> bytes:
    """Key of a sealed file. Afterwards the file is at its first record.

    Raises SecretError if `secret` is wrong, BitstreamError if the SEALED chunk is damaged or missing.
    """
    public = _public(file)
    if public is None:
        raise SecretError("the file is not encrypted, but a key for it was given")
    if bool(public[0]) != secret.passphrase:
        raise SecretError(f"the file was encrypted with a {'passphrase' if public[0] else 'key file'}")
    key, check = _derive(secret, public[1])
    if not hmac.compare_digest(check, public[2]):
        raise SecretError(f"the {'passphrase' if secret.passphrase else 'key'} is not that of this file")
    return key


def key_of(path: str | os.PathLike[str], secret: Secret | None) -> bytes | None:
    """Key of the file at `path`; None if it is not encrypted and no secret is given.

    Raises SecretError if the secret is wrong or missing, BitstreamError if the SEALED chunk is damaged.
    """
    with open(path, "rb") as file:
        if secret is not None:
            return unlock(file, secret)
        if wanted := wants(file):
            raise SecretError(f"{os.fspath(path)} is encrypted and needs its {wanted}")
    return None


class SealedWriter(io.RawIOBase):
    """Encrypts what is written, front to back, so `file` may be a pipe. Does not close it. Call `finish`."""

    def __init__(self, file: BinaryIO, secret: Secret, cost: int = COST, salt: bytes | None = None) -> None:
        """cost: of a passphrase, 14..18. salt: 32 bytes that no other file has; random by default."""
        if not secret.passphrase and len(secret.data) != KEY_BYTES:
            raise SecretError(f"a key has {KEY_BYTES} bytes, not {len(secret.data)}")
        if not secret.data or cost not in _COSTS:
            raise SecretError("an empty passphrase protects nothing")
        public = bytes([1, cost * secret.passphrase]) + (salt or secrets.token_bytes(32))
        key, check = _derive(secret, public)
        chunk = bytes([SEALED, _LAYOUT.size]) + public + check
        file.write(MAGIC + chunk + struct.pack("<I", zlib.crc32(chunk)))
        self._file, self._cipher, self._number, self._waiting = file, _cipher(key), 0, bytearray()
        self.size_bytes = _FRAME.size
        """What is written to `file` so far."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        """Encrypt `data`, and write all records that are full."""
        self._waiting += data
        while len(self._waiting) > _PLAIN:
            self._seal(last=False)
        return len(data)

    def finish(self) -> None:
        """Write the last record. This is the last call."""
        self._seal(last=True)

    def _seal(self, last: bool) -> None:
        record = self._cipher.encrypt(_nonce(self._number, last), bytes(self._waiting[:_PLAIN]), None)
        self._file.write(record)
        self.size_bytes += len(record)
        self._number += 1
        del self._waiting[:_PLAIN]


@contextmanager
def sealed(file: BinaryIO, secret: Secret | None) -> Iterator[BinaryIO]:
    """`file` to write to, encrypted if there is a secret. It is complete if the block does not raise."""
    if secret is None:
        yield file
        return
    writer = SealedWriter(file, secret)
    yield cast(BinaryIO, writer)
    writer.finish()


class SealedReader(io.RawIOBase):
    """Decrypts a sealed file. It can seek if `file` can. Does not close it."""

    def __init__(self, file: BinaryIO, key: bytes, lenient: bool = False) -> None:
        """`file` must be at its start, or at its first record (after `unlock`) if it cannot seek.

        A damaged record raises BitstreamError. If `lenient`, it reads as zeros, which fail the container's
        checksums. The first record must always be good, because nothing can be decoded without it.
        """
        self._file, self._cipher, self._lenient = file, _cipher(key), lenient
        self._at, self._next, self._ahead = 0, -1 if file.seekable() else 0, b""
        self._number, self._plain = -1, b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the encrypted file can seek."""
        return self._file.seekable()

    def tell(self) -> int:
        """Position in the decrypted bytes."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position in the decrypted bytes."""
        if whence == os.SEEK_END:
            full, rest = divmod(self._file.seek(0, os.SEEK_END) - _FRAME.size, _RECORD)
            offset += full * _PLAIN + max(rest - _TAG, 0)
            self._next = -1
        self._at = max(offset + self._at * (whence == os.SEEK_CUR), 0)
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Decrypt at most one record into `buffer`. Raises BitstreamError if it is damaged."""
        target = memoryview(buffer).cast("B")
        number, start = divmod(self._at, _PLAIN)
        if number != self._number:
            self._number, self._plain = number, self._open(number)
        piece = self._plain[start : start + len(target)]
        target[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _open(self, number: int) -> bytes:
        """Decrypt record `number`. b"" after the last."""
        if number != self._next:
            self._file.seek(_FRAME.size + number * _RECORD)
            self._ahead = b""
        while len(self._ahead) <= _RECORD:  # one byte more tells whether this is the last
            piece = self._file.read(_RECORD + 1 - len(self._ahead))
            if not piece:
                break
            self._ahead += piece
        sealed, self._ahead = self._ahead[:_RECORD], self._ahead[_RECORD:]
        self._next = number + 1
        if number and not sealed:
            return b""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(_nonce(number, not self._ahead), sealed, None)
        except (InvalidTag, ValueError):  # ValueError: too short for a tag
            if self._lenient and number:
                return bytes(max(len(sealed) - _TAG, 0))
            raise BitstreamError(
                f"encrypted record {number} is damaged, was changed, or is cut off"
            ) from None
