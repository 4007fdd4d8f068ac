"""Encrypted files: the exact format, attacks, and the commands."""

import hashlib
import hmac
import io
import json
import os
import re
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import moving_picture, same
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from viddiff.cli import main
from viddiff.codec.weights import Codec
from viddiff.container import sealing
from viddiff.container.format import MAGIC, KeyChunk
from viddiff.container.reader import Reader
from viddiff.container.sealing import SealedReader, SealedWriter, Secret, unlock, wants
from viddiff.errors import BitstreamError, SecretError, ViddiffError
from viddiff.frame import Frame, VideoInfo
from viddiff.media.video_reader import VideoReader
from viddiff.media.video_writer import VideoWriter
from viddiff.pipeline.serial import decode

KEY = Secret(bytes(range(32)), passphrase=False)
WORDS = Secret("grüne Wiese".encode(), passphrase=True)
SALT = bytes(range(100, 132))
START, RECORD = 64, 4112
"""Bytes before the first record, and bytes of a record."""


def sealed(data: bytes, secret: Secret = KEY, salt: bytes | None = SALT) -> bytes:
    out = io.BytesIO()
    writer = SealedWriter(out, secret, 14, salt)
    writer.write(data)
    writer.finish()
    return out.getvalue()


def opened(data: bytes, secret: Secret = KEY, lenient: bool = False) -> SealedReader:
    file = io.BytesIO(data)
    return SealedReader(file, unlock(file, secret), lenient)


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """48 bytes by RFC 5869, written out."""
    extracted = hmac.digest(salt, secret, "sha256")
    first = hmac.digest(extracted, info + b"\1", "sha256")
    return (first + hmac.digest(extracted, first + info + b"\2", "sha256"))[:48]


@pytest.mark.parametrize("secret", [KEY, WORDS])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 9000])
def test_the_format_by_an_independent_reading_of_it(secret: Secret, size: int) -> None:
    plain = hashlib.shake_128(b"plain").digest(size)
    data = sealed(plain, secret)
    public = bytes([1, 14 if secret.passphrase else 0]) + SALT
    raw = secret.data
    if secret.passphrase:
        raw = hashlib.scrypt(raw, salt=SALT, n=1 << 14, r=8, p=1, dklen=32, maxmem=1 << 26)
    derived = hkdf(raw, SALT, b"viddiff sealed" + public)
    chunk = b"\x05\x32" + public + derived[32:]
    expected = MAGIC + chunk + zlib.crc32(chunk).to_bytes(4, "little")
    pieces = [plain[at : at + 4096] for at in range(0, max(size, 1), 4096)]
    for number, piece in enumerate(pieces):
        nonce = number.to_bytes(11, "big") + bytes([number == len(pieces) - 1])
        expected += AESGCM(derived[:32]).encrypt(nonce, piece, None)
    assert data == expected
    assert opened(data, secret).readall() == plain


def test_vector() -> None:
    with_key, with_words = (hashlib.sha256(sealed(b"viddiff" * 1000, s)).hexdigest() for s in (KEY, WORDS))
    assert with_key == "75274c9b67db0c24b961027f7b30c59be4aa20f33c4036f6dcb95d27b87248ba"
    assert with_words == "a6d22c480ab68a8ea1fd4c6153f27e3f3054c107a6bb7c847a32a8303eaf9c1e"
    assert sealed(b"", KEY)[START:].hex() == "63f5f52ba2be9ff1c1e8e58683824f2a"


@pytest.mark.parametrize(("number", "secret"), [(0, KEY), (1, WORDS)])
def test_the_vectors_of_the_specification(number: int, secret: Secret) -> None:
    assert sealing.__doc__ is not None
    blocks = re.findall(r"^    89564446.*\n    .*$", sealing.__doc__, re.M)
    vector = bytes.fromhex("".join(blocks[number].split()))
    assert sealed(b"", secret) == vector
    assert opened(vector, secret).readall() == b""


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=3),
    st.integers(0, 20000),
    st.lists(st.tuples(st.integers(0, 21000), st.integers(0, 9000))),
)
def test_any_part_can_be_read(seed: bytes, size: int, parts: list[tuple[int, int]]) -> None:
    plain = hashlib.shake_128(seed).digest(size)
    file = io.BufferedReader(opened(sealed(plain)))
    assert file.seek(0, io.SEEK_END) == size
    for start, count in parts:
        assert file.seek(start) == start
        assert file.read(count) == plain[start : start + count]


def test_files_of_one_key_differ() -> None:
    assert sealed(b"same", salt=None) != sealed(b"same", salt=None)
    assert b"same" not in sealed(b"same")


def test_through_a_pipe() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = io.BytesIO(data)

        def read(self, size: int = -1, /) -> bytes:
            return self.data.read(min(size, 5))

    plain = os.urandom(10000)
    pipe = Pipe(sealed(plain))
    key = unlock(pipe, KEY)  # type: ignore[arg-type]
    assert SealedReader(pipe, key).readall() == plain  # type: ignore[arg-type]


def records(data: bytes) -> list[bytes]:
    return [data[at : at + RECORD] for at in range(START, len(data), RECORD)]


@pytest.mark.parametrize(
    "attack", ["swap", "drop", "drop first", "drop last", "repeat", "splice", "append", "cut", "flip", "salt"]
)
def test_attacks_are_noticed(attack: str) -> None:
    plain, other = (hashlib.shake_128(name).digest(5 * 4096) for name in (b"one", b"other"))
    data = sealed(plain)
    head, parts = data[:START], records(data)
    foreign = records(sealed(other, salt=bytes(32)))
    forged = {
        "swap": [parts[0], parts[2], parts[1], *parts[3:]],
        "drop": [*parts[:2], *parts[3:]],
        "drop first": parts[1:],
        "drop last": parts[:-1],
        "repeat": [*parts[:2], parts[1], *parts[2:]],
        "splice": [*parts[:2], foreign[2], *parts[3:]],
        "append": [*parts, foreign[4]],
        "cut": [*parts[:-1], parts[-1][:-7]],
        "flip": [*parts[:2], parts[2][:9] + bytes([parts[2][9] ^ 1]) + parts[2][10:], *parts[3:]],
        "salt": parts,
    }[attack]
    if attack == "salt":
        head = records(sealed(plain, salt=bytes(32)))[0][:0] + sealed(plain, salt=bytes(32))[:START]
    with pytest.raises(BitstreamError, match="encrypted record"):
        opened(head + b"".join(forged)).readall()
    if attack not in ("drop first", "salt"):
        got = opened(head + b"".join(forged), lenient=True).readall()
        for at in range(0, len(got), 4096):
            assert got[at : at + 4096] in (plain[at : at + 4096], bytes(len(got[at : at + 4096])))
        assert got != plain


def test_every_changed_byte_of_the_start_is_noticed() -> None:
    data = sealed(b"content", WORDS)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x21]) + data[at + 1 :]
        with pytest.raises(ViddiffError):
            opened(changed, WORDS).readall()


def test_truncation_at_every_byte_of_the_start() -> None:
    data = sealed(b"content")
    for size in range(len(data)):
        with pytest.raises(ViddiffError):
            opened(data[:size]).readall()


def with_payload(payload: bytes) -> bytes:
    chunk = b"\x05" + bytes([len(payload)]) + payload
    return MAGIC + chunk + zlib.crc32(chunk).to_bytes(4, "little") + bytes(100)


@pytest.mark.parametrize("cost", [1, 13, 19, 20, 63, 255])
def test_costs_of_hostile_files_are_refused_before_they_are_paid(cost: int) -> None:
    with pytest.raises(BitstreamError, match=f"cost {cost}"):
        opened(with_payload(bytes([1, cost]) + bytes(48)), WORDS)
    with pytest.raises(BitstreamError, match="version 2"):
        wants(io.BytesIO(with_payload(bytes([2, 14]) + bytes(48))))
    with pytest.raises(BitstreamError, match="damaged"):
        wants(io.BytesIO(with_payload(bytes([1, 14]) + bytes(49))))


def test_wrong_secrets() -> None:
    other = Secret(bytes(32), passphrase=False)
    with pytest.raises(SecretError, match="the key is not that of this file"):
        opened(sealed(b"x"), other)
    with pytest.raises(SecretError, match="the passphrase is not that of this file"):
        opened(sealed(b"x", WORDS), Secret(b"wrong", passphrase=True))
    with pytest.raises(SecretError, match="encrypted with a passphrase"):
        opened(sealed(b"x", WORDS), KEY)
    with pytest.raises(SecretError, match="encrypted with a key file"):
        opened(sealed(b"x"), WORDS)
    with pytest.raises(SecretError, match="not encrypted"):
        opened(b"\x89VDF\r\n\x1a\n\x01" + bytes(99))
    with pytest.raises(SecretError, match="32 bytes"):
        SealedWriter(io.BytesIO(), Secret(bytes(31), passphrase=False))
    with pytest.raises(SecretError, match="empty"):
        SealedWriter(io.BytesIO(), Secret(b"", passphrase=True))
    assert str(KEY.data) not in repr(KEY)


def test_a_reader_over_the_layer(small_file: bytes, codec: Codec) -> None:
    data = sealed(small_file)
    assert same(list(decode(opened(data), codec)), list(decode(io.BytesIO(small_file), codec)))  # type: ignore[arg-type]
    reader = Reader(opened(data))  # type: ignore[arg-type]
    entries = reader.stored_index()
    reader.seek(entries[1])
    assert isinstance(next(iter(reader)), KeyChunk)
    with pytest.raises(BitstreamError, match="is encrypted"):
        Reader(io.BytesIO(data))
    for name in (b"tiny", MAGIC, b"KF"):
        assert name not in data[8:]


# --- the commands ------------------------------------------------------------------------------------


def run(*arguments: object, env: dict[str, str] | None = None, text: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], env=env, input=text)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sealing") / "clip.mkv"
    with VideoWriter(path, VideoInfo(48, 32), lossless=True) as writer:
        for frame in moving_picture(48, 32, 9):
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def key_file(clip: Path) -> Path:
    path = clip.with_name("key")
    path.write_bytes(KEY.data)
    return path


@pytest.fixture(scope="module")
def secret_file(clip: Path, key_file: Path, base_weights: Path) -> Path:
    path = clip.with_name("secret.vdf")
    options = ("--gop", 3, "--quality", 63, "--weights", base_weights, "--json")
    result = run("encode", clip, path, "--key-file", key_file, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["bytes"] == path.stat().st_size > 2 * RECORD
    return path


def frames_of(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return list(reader)


def test_commands_with_a_key(
    clip: Path, secret_file: Path, key_file: Path, base_weights: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.vdf"
    options = ("--gop", 3, "--quality", 63, "--weights", base_weights)
    assert run("encode", clip, plain, *options).exit_code == 0
    assert opened(secret_file.read_bytes()).readall() == plain.read_bytes()
    with_key = ("--key-file", key_file)
    outputs = []
    more: list[list[object]] = [[], ["--workers", 2], ["--strict"]]
    for number, extra in enumerate(more):
        out = tmp_path / f"{number}.mkv"
        result = run("decode", secret_file, out, "--lossless", *with_key, "--weights", base_weights, *extra)
        assert result.exit_code == 0, result.output
        outputs.append(frames_of(out))
    assert same(outputs[0], outputs[1])
    assert same(outputs[0], outputs[2])
    part = tmp_path / "part.mkv"
    span = ("--start", 4, "--frames", 3)
    result = run("decode", secret_file, part, *span, "--lossless", *with_key, "--weights", base_weights)
    assert result.exit_code == 0
    assert same(frames_of(part), outputs[0][4:7])
    values = json.loads(run("info", secret_file, "--json", *with_key).stdout)
    assert (values["frames"], values["encrypted"], values["keyframes"]) == (9, True, 3)
    assert json.loads(run("info", plain, "--json").stdout)["encrypted"] is False


def test_damage_to_an_encrypted_file(
    secret_file: Path, key_file: Path, base_weights: Path, tmp_path: Path
) -> None:
    data = bytearray(secret_file.read_bytes())
    data[START + RECORD + 100] ^= 1
    bad, out = tmp_path / "bad.vdf", tmp_path / "out.mkv"
    bad.write_bytes(data)
    options = (out, "--key-file", key_file, "--weights", base_weights, "--lossless")
    assert run("decode", bad, *options, "--strict").exit_code == 1
    assert not out.exists()
    result = run("decode", bad, *options)
    assert result.exit_code == 3, result.output
    assert len(frames_of(out)) == 9
    bad.write_bytes(secret_file.read_bytes()[: START + 2 * RECORD])
    assert run("decode", bad, *options, "--force").exit_code == 3
    data[START] ^= 1
    bad.write_bytes(data)
    result = run("decode", bad, *options, "--force")
    assert result.exit_code == 1
    assert "record 0" in result.stderr


def test_passphrases(clip: Path, base_weights: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("correct horse\n")
    vdf, out = tmp_path / "a.vdf", tmp_path / "a.mp4"
    encode = ("encode", clip, vdf, "--encrypt", "--frames", 1, "--weights", base_weights, "--force")
    decode_it = ("decode", vdf, out, "--weights", base_weights, "--force")
    right, wrong = {"VIDDIFF_PASSPHRASE": "correct horse"}, {"VIDDIFF_PASSPHRASE": "x"}
    assert run(*encode, env=right).exit_code == 0
    assert run(*decode_it, "--passphrase-file", words).exit_code == 0
    assert run(*encode, "--passphrase-file", words).exit_code == 0
    assert run(*decode_it, env=right).exit_code == 0
    assert run("info", vdf, env=right).exit_code == 0
    out.unlink()
    for result, says in (
        (run(*decode_it, env=wrong), "the passphrase is not that of this file"),
        (run(*decode_it), "a passphrase is needed"),
        (run(*encode), "a passphrase is needed"),
        (run(*decode_it, "--passphrase-file", tmp_path / "none"), "No such file"),
        (run(*encode, env={"VIDDIFF_PASSPHRASE": ""}), "empty"),
        (run("info", vdf, env=wrong), "not that of this file"),
    ):
        assert result.exit_code == 1, result.output
        assert says in result.stderr
        assert "Traceback" not in result.stderr
    assert not out.exists()


def test_passphrase_from_the_terminal(
    clip: Path, base_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from viddiff.cli import secrets

    asked: list[bool] = []

    def prompt(*_: object, confirmation_prompt: bool, hide_input: bool, err: bool) -> str:
        assert hide_input
        asked.append(confirmation_prompt)
        return "typed"

    class Terminal:
        class stdin:
            @staticmethod
            def isatty() -> bool:
                return True

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr(secrets, "sys", Terminal)
    assert secrets.read_secret(None, None, confirm=True) == Secret(b"typed", passphrase=True)
    assert secrets.read_secret(None, None, confirm=False) == Secret(b"typed", passphrase=True)
    assert asked == [True, False]
    assert sys.stdin is not Terminal.stdin


def test_wrong_keys(
    clip: Path, secret_file: Path, key_file: Path, base_weights: Path, tmp_path: Path
) -> None:
    short, other, plain = tmp_path / "short", tmp_path / "other", tmp_path / "plain.vdf"
    short.write_bytes(bytes(31))
    other.write_bytes(bytes(32))
    assert run("encode", clip, plain, "--frames", 1, "--weights", base_weights).exit_code == 0
    for arguments, says in (
        (("info", secret_file), "needs its --key-file"),
        (("info", secret_file, "--key-file", other), "the key is not that of this file"),
        (("info", secret_file, "--key-file", short), "not a key file"),
        (("info", plain, "--key-file", key_file), "not encrypted"),
        (("decode", secret_file, tmp_path / "o.mp4", "--key-file", other), "not that of this file"),
        (("encode", clip, tmp_path / "o.vdf", "--key-file", short), "not a key file"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, result.output
        assert says in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "plain.vdf", "short"]


@pytest.mark.parametrize(
    "command", ["base", "compare", "cut", "decode", "encode", "info", "join", "play", "serve", "thumbnail"]
)
def test_two_secrets_are_refused(command: str) -> None:
    secrets = (("--key-file", "key"), ("--passphrase-file", "words"))
    for first, second in (secrets, secrets[::-1]):
        result = run(command, *first, *second)
        assert result.exit_code == 2
        assert "give either --key-file or --passphrase-file" in result.stderr
