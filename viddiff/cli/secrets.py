"""Keys and passphrases from files, the environment or the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from viddiff.errors import SecretError

if TYPE_CHECKING:
    from viddiff.container.sealing import Secret


def read_secret(key_file: Path | None, passphrase_file: Path | None, confirm: bool) -> "Secret":
    """The key, or the passphrase from its file, the environment or the terminal. Raises SecretError."""
    from viddiff.container.sealing import KEY_BYTES, Secret

    if key_file is not None:
        with open(key_file, "rb") as file:
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise SecretError(f"{key_file} is not a key file, which has {KEY_BYTES} bytes")
        return Secret(key, passphrase=False)
    if passphrase_file is not None:
        with open(passphrase_file, "rb") as file:
            words = file.read(4096).removesuffix(b"\n").removesuffix(b"\r")
    elif "VIDDIFF_PASSPHRASE" in os.environ:
        words = os.fsencode(os.environ["VIDDIFF_PASSPHRASE"])
    elif sys.stdin is not None and sys.stdin.isatty():
        words = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True).encode()
    else:
        raise SecretError(
            "a passphrase is needed: set VIDDIFF_PASSPHRASE, give --passphrase-file, or run in a terminal"
        )
    if not words:
        raise SecretError("the passphrase is empty")
    return Secret(words, passphrase=True)


def _wanted(source: Path) -> str:
    """What a file needs, "" if it is not encrypted. Raises BitstreamError."""
    from viddiff.container.sealing import wants

    with open(source, "rb") as file:
        return wants(file)


def secret_for(source: Path, key_file: Path | None, passphrase_file: Path | None) -> "Secret | None":
    """Secret of a file; None if it is not encrypted and none is given. Raises SecretError, BitstreamError."""
    wanted = _wanted(source)
    if not wanted and key_file is None and passphrase_file is None:
        return None
    if wanted == "key file" and key_file is None:
        raise SecretError(f"{source} is encrypted and needs its --key-file")
    return read_secret(key_file, passphrase_file, confirm=False)


def secret_of_all(
    sources: Sequence[Path], key_file: Path | None, passphrase_file: Path | None, encrypt: bool
) -> "Secret | None":
    """Secret of the files that are encrypted, and of an output if `encrypt`; None if none is needed.

    Raises SecretError, BitstreamError.
    """
    for source in sources:
        if _wanted(source):
            return secret_for(source, key_file, passphrase_file)
    if encrypt or key_file is not None or passphrase_file is not None:
        return read_secret(key_file, passphrase_file, confirm=True)
    return None


def key_for(source: Path, key_file: Path | None, passphrase_file: Path | None) -> bytes | None:
    """Key of this file, from the user's secret. Raises SecretError, BitstreamError."""
    from viddiff.container.sealing import key_of

    return key_of(source, secret_for(source, key_file, passphrase_file))
